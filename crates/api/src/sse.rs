//! The frames of a session, a turn or a fleet as server-sent events.
//!
//! The body of a stream outlives its request: it asks at every heartbeat whether its caller may still read, and ends
//! when not, when the frames end, or when the server stops. A reader that is slow is waited for, and the check
//! then comes before whatever it is sent next.

use std::{convert::Infallible, fmt::Write, pin::Pin, time::Duration};

use axum::{
    Extension,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use engine::{Frame, FrameStream};
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderName, StatusCode, header};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::{gate::Standing, serve::Closing};

/// Frames that are there already are sent together up to this many bytes.
const BATCH: usize = 16 * 1024;
const HEARTBEAT: Bytes = Bytes::from_static(b": heartbeat\n\n");

struct Open {
    frames: FrameStream,
    standing: Standing,
    heartbeat: Interval,
    closing: CancellationToken,
    ended: bool,
}

/// The response of a stream: its events, or that there are none.
pub(crate) fn response(
    frames: FrameStream,
    standing: Standing,
    heartbeat: Duration,
    closing: Option<Extension<Closing>>,
) -> Response {
    let mut frames = frames.peekable();
    // A browser's EventSource comes back for ever to a stream that closes; 204 is what stops it.
    if matches!(Pin::new(&mut frames).peek().now_or_never(), Some(None)) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let body = body(Box::pin(frames), standing, heartbeat, Closing::of(closing));
    (EVENTS, body).into_response()
}

/// Headers of an answer that is a stream of events.
pub(crate) const EVENTS: [(HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "text/event-stream"),
    (header::CACHE_CONTROL, "no-store"),
    // Proxies of the nginx family would otherwise keep events back to fill their buffers.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// The response body of a stream.
pub(crate) fn body(frames: FrameStream, standing: Standing, heartbeat: Duration, closing: CancellationToken) -> Body {
    let mut heartbeat = tokio::time::interval_at(Instant::now() + heartbeat, heartbeat);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let open = Open { frames, standing, heartbeat, closing, ended: false };
    Body::from_stream(stream::unfold(open, |mut open| async move {
        let bytes = open.next().await?;
        Some((Ok::<_, Infallible>(bytes), open))
    }))
}

impl Open {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        tokio::select! {
            biased;
            // What is there already is still sent: sessions that ended while the server stopped are read to their end.
            () = self.closing.cancelled() => self.frames.next().now_or_never()?.map(|frame| self.batch(&frame)),
            _ = self.heartbeat.tick() => self.standing.check().await.is_ok().then_some(HEARTBEAT),
            frame = self.frames.next() => frame.map(|frame| self.batch(&frame)),
        }
    }

    fn batch(&mut self, first: &Frame) -> Bytes {
        let mut text = String::with_capacity(first.data.len() + 64);
        encode(first, &mut text);
        while text.len() < BATCH {
            match self.frames.next().now_or_never() {
                Some(Some(frame)) => encode(&frame, &mut text),
                Some(None) => {
                    self.ended = true;
                    break;
                }
                None => break,
            }
        }
        text.into()
    }
}

/// Frames are JSON without line breaks, so each is one `data:` line.
fn encode(frame: &Frame, text: &mut String) {
    let Frame { seq, kind, data } = frame;
    write!(text, "id: {seq}\nevent: {}\ndata: {data}\n\n", kind.as_str()).expect("a String takes any text");
}
