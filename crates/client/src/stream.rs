//! A session's frames, over as many connections as it takes.
//!
//! A connection that is cut, or silent for longer than three heartbeats, is replaced by another one that goes on behind
//! the last frame that came. Frames that come twice are given once. The tries are counted between frames: a server that
//! keeps sending new ones may cut the connection as often as it likes.

use std::{collections::VecDeque, marker::PhantomData, pin::Pin, time::Duration};

use futures::{Stream, stream};
use reqwest::{Response, StatusCode, header};
use tokio::time::timeout;
use wire::{FleetFrame, FleetId, SessionId, StreamFrame};

use crate::{
    Client, ClientError,
    call::{Answer, transport},
    retry,
    sse::{MAX_FRAME_BYTES, Parser, RawEvent, Unreadable},
};

/// The server sends a comment every 15 seconds; three of them missing is a dead connection.
pub(crate) const SILENCE: Duration = Duration::from_secs(45);
/// A connection that lived for this long was a good one, whether or not there was anything to say.
const GOOD_LIFE: Duration = Duration::from_secs(30);

/// Numbered frames. Ends behind the `end` frame or the first error.
pub type FrameStream = Frames<StreamFrame>;
/// The same, of a fleet.
pub type FleetFrameStream = Frames<FleetFrame>;

type Frames<F> = Pin<Box<dyn Stream<Item = Result<(u64, F), ClientError>> + Send>>;

impl Client {
    /// `GET /v1/sessions/{id}/stream`: every frame of the session.
    pub fn stream(&self, id: SessionId) -> FrameStream {
        self.stream_after(id, 0)
    }

    /// The same, from behind frame number `after`.
    pub fn stream_after(&self, id: SessionId, after: u64) -> FrameStream {
        self.frames("sessions", id.to_string(), after)
    }

    /// `GET /v1/fleets/{id}/stream`: the frames of the fleet behind frame number `after`; 0 for all there are.
    pub fn fleet_stream(&self, id: FleetId, after: u64) -> FleetFrameStream {
        self.frames("fleets", id.to_string(), after)
    }

    fn frames<F: Framed>(&self, of: &'static str, id: String, after: u64) -> Frames<F> {
        let reader = Reader {
            client: self.clone(),
            of,
            id,
            last: after,
            connection: None,
            queue: VecDeque::new(),
            tries: 0,
            broken_by: None,
            asked_pause: None,
            unreadable: None,
            over: false,
            frames: PhantomData,
        };
        Box::pin(stream::unfold(reader, |mut reader| async move {
            if reader.over {
                return None;
            }
            let item = reader.next().await.transpose()?;
            reader.over = !matches!(&item, Ok((_, frame)) if !F::is_end(frame));
            Some((item, reader))
        }))
    }
}

/// What a stream carries.
trait Framed: Sized + Send + 'static {
    fn parse(kind: &str, data: &str) -> Result<Option<Self>, serde_json::Error>;
    fn is_end(&self) -> bool;
}

impl Framed for StreamFrame {
    fn parse(kind: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        Self::parse(kind, data)
    }

    fn is_end(&self) -> bool {
        matches!(self, Self::End(_))
    }
}

impl Framed for FleetFrame {
    fn parse(kind: &str, data: &str) -> Result<Option<Self>, serde_json::Error> {
        Self::parse(kind, data)
    }

    fn is_end(&self) -> bool {
        matches!(self, Self::End(_))
    }
}

struct Reader<F> {
    client: Client,
    /// Of sessions or of fleets.
    of: &'static str,
    id: String,
    /// Number of the last frame that was given.
    last: u64,
    connection: Option<Connection>,
    queue: VecDeque<RawEvent>,
    /// Tries since the last new frame.
    tries: u32,
    /// What ended the last try, if it was an error.
    broken_by: Option<ClientError>,
    /// What the server asked for when it refused the last try.
    asked_pause: Option<Duration>,
    /// What ends the stream once the events before it are given.
    unreadable: Option<ClientError>,
    over: bool,
    frames: PhantomData<fn() -> F>,
}

struct Connection {
    response: Response,
    parser: Parser,
    since: tokio::time::Instant,
}

impl<F: Framed> Reader<F> {
    /// The next frame; none where the server says that nothing follows.
    async fn next(&mut self) -> Result<Option<(u64, F)>, ClientError> {
        while !self.over {
            while let Some(event) = self.queue.pop_front() {
                if let Some(frame) = self.accept(&event)? {
                    return Ok(Some((self.last, frame)));
                }
            }
            if let Some(error) = self.unreadable.take() {
                return Err(error);
            }
            match &mut self.connection {
                None => self.connect().await?,
                Some(connection) => match timeout(SILENCE, connection.response.chunk()).await {
                    Ok(Ok(Some(bytes))) => {
                        self.unreadable = connection.parser.feed(&bytes, &mut self.queue).err().map(unreadable);
                    }
                    Ok(Ok(None)) | Err(_) => self.cut(None),
                    Ok(Err(error)) => self.cut(Some(transport(error))),
                },
            }
        }
        Ok(None)
    }

    /// Takes an event if it is new and of a kind that this version knows.
    fn accept(&mut self, event: &RawEvent) -> Result<Option<F>, ClientError> {
        let number = event.id.as_ref().and_then(|id| id.parse::<u64>().ok());
        let seq = number.ok_or(ClientError::Decode { what: "the number of a frame", source: None })?;
        if seq <= self.last {
            return Ok(None);
        }
        let frame = F::parse(&event.kind, &event.data)
            .map_err(|source| ClientError::Decode { what: "a frame", source: Some(source) })?;
        self.last = seq;
        self.tries = 0;
        Ok(frame)
    }

    fn cut(&mut self, error: Option<ClientError>) {
        if self.connection.take().is_some_and(|connection| connection.since.elapsed() >= GOOD_LIFE) {
            self.tries = 0;
        }
        self.broken_by = error;
        self.tries += 1;
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        if self.tries > 0 {
            let Some(pause) = self.client.retry.pause(self.tries, self.asked_pause.take()) else {
                let source = self.broken_by.take().map(Box::new);
                return Err(ClientError::StreamLost { tries: self.tries, source });
            };
            tokio::time::sleep(pause).await;
        }
        let mut request = self
            .client
            .http
            .get(self.client.url(&["v1", self.of, &self.id, "stream"]))
            .header(header::ACCEPT, "text/event-stream");
        if self.last > 0 {
            request = request.header("Last-Event-ID", self.last);
        }
        let response = match timeout(SILENCE, request.send()).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                let error = transport(error);
                if !retry::is_connection(&error) {
                    return Err(error);
                }
                self.cut(Some(error));
                return Ok(());
            }
            Err(_) => {
                self.cut(None);
                return Ok(());
            }
        };
        if response.status() == StatusCode::NO_CONTENT {
            // Nothing follows the last frame.
            self.over = true;
            return Ok(());
        }
        if response.status().is_success() {
            return self.open(response);
        }
        let may_pass = retry::may_pass(response.status()) || response.status().is_server_error();
        let Ok(answer) = timeout(SILENCE, Answer::of(response)).await else {
            self.cut(None);
            return Ok(());
        };
        let answer = answer?;
        if !may_pass {
            return Err(answer.refusal());
        }
        self.asked_pause = answer.retry_after();
        self.cut(Some(answer.refusal()));
        Ok(())
    }

    fn open(&mut self, response: Response) -> Result<(), ClientError> {
        is_events(&response)?;
        let since = tokio::time::Instant::now();
        self.connection = Some(Connection { response, parser: Parser::default(), since });
        Ok(())
    }
}

/// Refuses an answer that is no stream of events.
pub(crate) fn is_events(response: &Response) -> Result<(), ClientError> {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    if kind.starts_with("text/event-stream") {
        return Ok(());
    }
    let excerpt = format!("a stream of type {kind:?}");
    Err(ClientError::Unexpected { status: response.status().as_u16(), excerpt })
}

pub(crate) fn unreadable(why: Unreadable) -> ClientError {
    match why {
        Unreadable::TooLarge => ClientError::TooLarge { what: "a frame", limit: MAX_FRAME_BYTES },
        Unreadable::NotText => ClientError::Decode { what: "a frame", source: None },
    }
}
