//! A body on its way through: counted, bounded, and not waited for longer than an idle connection is.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{activity::Activity, session::Session};

/// See the module.
pub(crate) struct Metered {
    body: Incoming,
    session: Arc<Session>,
    attempted: String,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
    activity: Arc<Activity>,
    /// The connection that the body comes from: it lasts as long as the body does.
    _connection: Option<AbortOnDropHandle<()>>,
}

impl Metered {
    pub(crate) fn new(
        body: Incoming,
        session: Arc<Session>,
        attempted: String,
        activity: Arc<Activity>,
        connection: Option<AbortOnDropHandle<()>>,
    ) -> Self {
        let idle = Duration::from_millis(session.outside.limits.idle_ms);
        Self { body, session, attempted, idle, deadline: Box::pin(sleep(idle)), activity, _connection: connection }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let frame = match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.deadline.as_mut().poll(cx));
                return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
            }
        };
        this.deadline.as_mut().reset(Instant::now() + this.idle);
        this.activity.now();
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(io::Error::other)?;
            let length = frame.data_ref().map_or(0, Bytes::len);
            match this.session.spend(length) {
                Ok(()) => Ok(frame),
                Err(refused) => {
                    let (teller, attempted) = (this.session.teller.clone(), this.attempted.clone());
                    tokio::spawn(async move { teller.denied(&attempted, &refused).await });
                    Err(io::ErrorKind::QuotaExceeded.into())
                }
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
