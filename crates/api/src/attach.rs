//! The conversation on a terminal's socket.
//!
//! Behind each part of output goes a ping that says how far it went, and the pong that a client's library answers it with
//! says what the client has received: what it has not is held for when it comes back, and too much of it makes the
//! terminal's programs wait. Input is read only as fast as the terminal takes it. While the client is waited for in one
//! direction, nothing is kept from it in the other.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::Bytes;
use engine::{Attachment, Shown};
use futures::{
    SinkExt as _, StreamExt as _,
    stream::{SplitSink, SplitStream},
};
use model::terminal::is_size;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};
use tokio_tungstenite::tungstenite;
use tokio_util::sync::CancellationToken;
use wire::{TerminalAttached, TerminalControl, TerminalEvent};

use crate::{gate::Standing, serve::Carried};

/// Bytes of one message of a client.
pub(crate) const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Heartbeats without an answer after which a client is gone.
const SILENT_HEARTBEATS: u32 = 3;
/// How long a client may take to agree to an end.
const GOODBYE: Duration = Duration::from_secs(5);

/// A client and its terminal.
pub(crate) struct Conversation {
    pub(crate) attachment: Attachment,
    pub(crate) standing: Standing,
    pub(crate) heartbeat: Duration,
    pub(crate) closing: CancellationToken,
    pub(crate) carried: Option<Carried>,
}

/// Why it ends.
#[derive(Debug)]
enum End {
    Exited,
    SessionEnded,
    ServerStops,
    /// The client may no longer do this, or nobody can say.
    NotAllowed,
    /// The client does not answer.
    Silent,
    TooLarge,
    /// A text message that says nothing.
    NoControl(String),
    /// The client ends it.
    Left,
    /// There is no connection any more.
    Broken,
}

/// What both directions know of the client.
struct Peer {
    /// How much output was sent.
    sent: watch::Sender<u64>,
    /// When it was last heard; none while it is not listened to.
    heard: Mutex<Option<Instant>>,
}

impl Conversation {
    /// Holds it to its end.
    pub(crate) async fn hold(self, socket: WebSocket) {
        let (mut sink, mut stream) = socket.split();
        let peer = Peer { sent: watch::Sender::new(self.attachment.offset), heard: Mutex::new(Some(Instant::now())) };
        let cut = self.carried.as_ref().map_or_else(CancellationToken::new, |carried| carried.cut.clone());
        let end = tokio::select! {
            biased;
            () = cut.cancelled() => return,
            () = self.closing.cancelled() => End::ServerStops,
            end = self.watch(&peer) => end,
            end = self.listen(&mut stream, &peer) => end,
            end = self.tell(&mut sink, &peer) => end,
        };
        // Nobody waits for this client any more.
        drop(self.attachment);
        let goodbye = async {
            match end.frame() {
                Some(frame) => {
                    if sink.send(Message::Close(Some(frame))).await.is_ok() {
                        while matches!(stream.next().await, Some(Ok(_))) {}
                    }
                }
                // Answers the client's own.
                None => drop(sink.close().await),
            }
        };
        tokio::select! {
            biased;
            () = cut.cancelled() => {}
            _ = timeout(GOODBYE, goodbye) => {}
        }
    }

    /// Looks now and then whether the client is still there, and still may.
    async fn watch(&self, peer: &Peer) -> End {
        let mut heartbeat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            heartbeat.tick().await;
            if self.standing.check().await.is_err() {
                return End::NotAllowed;
            }
            if peer.silence().is_some_and(|silence| silence > self.heartbeat * SILENT_HEARTBEATS) {
                return End::Silent;
            }
        }
    }

    /// What the client says.
    async fn listen(&self, stream: &mut SplitStream<WebSocket>, peer: &Peer) -> End {
        while let Some(message) = stream.next().await {
            peer.hear();
            match message {
                Ok(Message::Binary(data)) => self.typed(&data, peer).await,
                Ok(Message::Text(text)) => match TerminalControl::parse(&text) {
                    Ok(TerminalControl::Resize(size)) if is_size(size) => self.attachment.resize(size),
                    Ok(TerminalControl::Resize(_)) => {
                        return End::NoControl("rows and cols are from 1 to 1000".to_owned());
                    }
                    Err(error) => return End::NoControl(format!("not a control message: {error}")),
                },
                Ok(Message::Pong(said)) => {
                    let offset = said.as_ref().try_into().map(u64::from_be_bytes);
                    // What was not sent was not received, whatever a client says.
                    if let Some(offset) = offset.ok().filter(|offset| *offset <= *peer.sent.borrow()) {
                        self.attachment.received(offset);
                    }
                }
                // It is answered by the library.
                Ok(Message::Ping(_)) => {}
                Ok(Message::Close(_)) => return End::Left,
                Err(error) => return End::of(error),
            }
        }
        End::Left
    }

    /// Hands over what was typed. As long as the terminal does not take it the client is not listened to, and its word is
    /// not waited for: it is enough that it was sent what there is.
    async fn typed(&self, data: &[u8], peer: &Peer) {
        let mut sent = peer.sent.subscribe();
        // At once, and then as often as there is more.
        sent.mark_changed();
        let typing = self.attachment.input(data);
        tokio::pin!(typing);
        loop {
            tokio::select! {
                biased;
                // Into a terminal that has ended nothing is typed; that it has is said.
                _ = &mut typing => break,
                // The sender is the peer's.
                _ = sent.changed() => {
                    peer.ignore();
                    let offset = *sent.borrow_and_update();
                    self.attachment.received(offset);
                }
            }
        }
        peer.hear();
    }

    /// What the terminal shows.
    async fn tell(&self, sink: &mut SplitSink<WebSocket, Message>, peer: &Peer) -> End {
        let attached = TerminalEvent::Attached(TerminalAttached { offset: self.attachment.offset });
        let first = [Some(attached), self.attachment.gap.map(TerminalEvent::Gap)];
        for event in first.into_iter().flatten() {
            if sink.send(text(&event)).await.is_err() {
                return End::Broken;
            }
        }
        let mut heartbeat = interval_at(Instant::now() + self.heartbeat, self.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut at = self.attachment.offset;
        loop {
            let shown = tokio::select! {
                biased;
                _ = heartbeat.tick() => None,
                shown = self.attachment.next(at) => Some(shown),
            };
            let (message, end) = match shown {
                None => (None, None),
                Some(Shown::Output(part)) => {
                    at += part.len() as u64;
                    (Some(Message::Binary(part.into())), None)
                }
                Some(Shown::Exited(exit)) => (Some(text(&TerminalEvent::Exited(exit))), Some(End::Exited)),
                Some(Shown::SessionEnded) => (None, Some(End::SessionEnded)),
            };
            if let Some(message) = message
                && sink.feed(message).await.is_err()
            {
                return End::Broken;
            }
            if let Some(end) = end {
                return end;
            }
            // The answer to the ping may be here before the writing returns.
            let is_new = peer.sent.send_if_modified(|sent| std::mem::replace(sent, at) != at);
            let ping = Message::Ping(Bytes::copy_from_slice(&at.to_be_bytes()));
            if sink.send(ping).await.is_err() {
                return End::Broken;
            }
            if is_new {
                // Somebody may wait for its having been written.
                peer.sent.send_modify(|_| ());
            }
        }
    }
}

impl Peer {
    fn hear(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn ignore(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn silence(&self) -> Option<Duration> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).map(|heard| heard.elapsed())
    }
}

impl End {
    fn of(error: axum::Error) -> Self {
        match error.into_inner().downcast::<tungstenite::Error>().as_deref() {
            Ok(tungstenite::Error::Capacity(_)) => Self::TooLarge,
            Ok(_) | Err(_) => Self::Broken,
        }
    }

    /// What the client is told; none when there is nothing to tell, or nobody.
    fn frame(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Exited => (close_code::NORMAL, "the program has ended"),
            Self::SessionEnded => (close_code::AWAY, "the session has ended"),
            Self::ServerStops => (close_code::AWAY, "the server is shutting down"),
            Self::NotAllowed => (close_code::POLICY, "the caller may not do this any more"),
            Self::Silent => (close_code::POLICY, "pings were not answered"),
            Self::TooLarge => (close_code::SIZE, "a message has at most 65536 bytes"),
            Self::NoControl(why) => (close_code::UNSUPPORTED, why.as_str()),
            Self::Left | Self::Broken => return None,
        };
        // What a frame of control has room for.
        let reason = &reason[..reason.floor_char_boundary(120)];
        Some(CloseFrame { code, reason: reason.into() })
    }
}

fn text(event: &TerminalEvent) -> Message {
    Message::Text(serde_json::to_string(event).expect("it has string keys only").into())
}
