//! Bodies on their way: counted in both directions, guarded on the way back.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures::stream;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use super::{
    budget::{Budget, Spent},
    client::Outgoing,
    guard::{Coding, Cut, Forms, Guard},
    turned::{Call, Turned},
};
use crate::{activity::Activity, answer::Body};

/// So much of an answer is looked at before any of it leaves, if it comes soon: then an answer with the secret in it can be
/// replaced by one that says so.
const GATHERED_BYTES: usize = 64 * 1024;

/// How long that may take. An answer that is longer on its way begins late by this, once.
pub(super) const PATIENCE: Duration = Duration::from_millis(50);

/// An encoded body is looked at in pieces, with others getting their turn in between.
const PIECE_BYTES: usize = 64 * 1024;

/// The body of a request. Trailers stay behind.
pub(super) struct Counted {
    pub(super) inner: Outgoing,
    pub(super) call: Call,
    pub(super) budget: Arc<Budget>,
    pub(super) activity: Arc<Activity>,
    /// Set when it was cut because the budget is used up.
    pub(super) spent: Arc<OnceLock<Spent>>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.inner).poll_frame(cx)?) else { return Poll::Ready(None) };
            let Ok(data) = frame.into_data() else { continue };
            self.activity.now();
            self.call.count(data.len());
            if let Err(spent) = self.budget.bytes(data.len()) {
                let _ = self.spent.set(spent);
                return Poll::Ready(Some(Err(io::ErrorKind::QuotaExceeded.into())));
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response.
pub(super) struct Relay {
    body: Incoming,
    guard: Guard,
    is_encoded: bool,
    forms: watch::Receiver<Arc<Forms>>,
    /// What came and was not looked at.
    rest: Bytes,
    has_ended: bool,
    idle: Duration,
    call: Call,
    budget: Arc<Budget>,
}

impl Relay {
    pub(super) fn new(
        body: Incoming,
        coding: Option<Coding>,
        mut forms: watch::Receiver<Arc<Forms>>,
        idle: Duration,
        call: Call,
        budget: Arc<Budget>,
    ) -> Result<Self, Turned> {
        let guard = Guard::new(&forms.borrow_and_update(), coding)?;
        let is_encoded = coding.is_some();
        Ok(Self { body, guard, is_encoded, forms, rest: Bytes::new(), has_ended: false, idle, call, budget })
    }

    /// What may leave next. May be given up while it waits.
    async fn next(&mut self) -> Result<Option<Bytes>, Turned> {
        loop {
            if let Some(bytes) = self.guard.pop() {
                return Ok(Some(bytes));
            }
            if self.has_ended {
                return Ok(None);
            }
            if !self.rest.is_empty() {
                let most = if self.is_encoded { PIECE_BYTES.min(self.rest.len()) } else { self.rest.len() };
                let piece = self.rest.split_to(most);
                self.learn();
                self.guard.push(piece)?;
                if !self.rest.is_empty() {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            match timeout(self.idle, self.body.frame()).await {
                Err(_) => return Err(Turned::Upstream(format!("it sent nothing for {} s", self.idle.as_secs()))),
                Ok(Some(Err(_))) => return Err(Turned::Upstream("it broke off its answer".to_owned())),
                Ok(Some(Ok(frame))) => {
                    // Trailers stay behind.
                    let Ok(data) = frame.into_data() else { continue };
                    self.call.count(data.len());
                    self.budget.bytes(data.len()).map_err(Turned::Budget)?;
                    self.rest = data;
                }
                Ok(None) => {
                    self.learn();
                    self.guard.end()?;
                    self.has_ended = true;
                }
            }
        }
    }

    fn learn(&mut self) {
        if self.forms.has_changed().unwrap_or(false) {
            let forms = self.forms.borrow_and_update().clone();
            self.guard.also(&forms);
        }
    }

    /// As the body of an answer. Fails as long as nothing has left.
    pub(super) async fn into_body(mut self, patience: Duration) -> Result<Body, Turned> {
        let mut first = BytesMut::new();
        let until = Instant::now() + patience;
        while first.len() < GATHERED_BYTES {
            match timeout_at(until, self.next()).await {
                Err(_) => break,
                Ok(next) => match next? {
                    Some(bytes) => first.extend_from_slice(&bytes),
                    None => return Ok(Full::new(first.freeze()).map_err(|never| match never {}).boxed()),
                },
            }
        }
        let first = Some(first.freeze()).filter(|first| !first.is_empty());
        let rest = stream::unfold(Some((first, self)), |state| async move {
            let (first, mut relay) = state?;
            let next = match first {
                Some(first) => Ok(Some(first)),
                None => relay.next().await,
            };
            match next {
                Ok(Some(bytes)) => Some((Ok(Frame::data(bytes)), Some((None, relay)))),
                Ok(None) => None,
                Err(why) => {
                    relay.call.turned(&why).await;
                    // Ends the connection to the workload: nobody takes what came for the whole.
                    Some((Err(io::ErrorKind::ConnectionAborted.into()), None))
                }
            }
        });
        Ok(StreamBody::new(rest).boxed())
    }
}

impl From<Cut> for Turned {
    fn from(cut: Cut) -> Self {
        match cut {
            Cut::Reflected => Self::Reflected,
            Cut::Undecodable | Cut::Bomb => Self::Upstream(format!("its answer cannot be looked at: {cut}")),
        }
    }
}
