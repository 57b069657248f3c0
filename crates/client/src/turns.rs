//! Turns of interactive sessions.

use std::{collections::VecDeque, pin::Pin, time::Duration};

use futures::{Stream, stream};
use reqwest::{Method, Response, header};
use tokio::time::timeout;
use wire::{CreateTurn, SessionId, Turn, TurnFrame, TurnPage};

use crate::{
    Client, ClientError, Retry,
    call::{Answer, transport},
    sessions::{POLL, POLL_SLACK},
    sse::{Parser, RawEvent},
    stream::{SILENCE, is_events, unreadable},
};

/// More than any session lives: what bounds a turn is the session's.
const TURN_PATIENCE: Duration = Duration::from_hours(25);

/// Frames of a turn. Ends behind the `end` frame, which has the whole turn, or the first error.
pub type TurnStream = Pin<Box<dyn Stream<Item = Result<TurnFrame, ClientError>> + Send>>;

impl Client {
    /// `POST /v1/sessions/{id}/turns`: runs a turn, and gives it once it has ended. Made once: a repeated call would run it
    /// again.
    pub async fn run_turn(&self, id: SessionId, turn: &CreateTurn) -> Result<Turn, ClientError> {
        let mut call = self.call(Method::POST, &["v1", "sessions", &id.to_string(), "turns"]).with_body(turn)?;
        (call.retry, call.timeout) = (Retry::NEVER, TURN_PATIENCE);
        self.fetch(&call, "the turn").await
    }

    /// The same with what it writes, as it writes it. When the connection breaks the turn is waited for, and output that
    /// has not come by then is in its tails.
    pub async fn stream_turn(&self, id: SessionId, turn: &CreateTurn) -> Result<TurnStream, ClientError> {
        let call = self.call(Method::POST, &["v1", "sessions", &id.to_string(), "turns"]).with_body(turn)?;
        let request = self
            .http
            .post(call.url)
            .header(header::ACCEPT, "text/event-stream")
            .header(header::CONTENT_TYPE, "application/json")
            .body(call.body.unwrap_or_default());
        let sent = timeout(SILENCE, request.send()).await;
        let response = sent.map_err(|_| ClientError::StreamLost { tries: 1, source: None })?.map_err(transport)?;
        if !response.status().is_success() {
            return Err(Answer::of(response).await?.refusal());
        }
        is_events(&response)?;
        let reader = Reader {
            client: self.clone(),
            id,
            response: Some(response),
            parser: Parser::default(),
            queue: VecDeque::new(),
            number: None,
            over: false,
        };
        Ok(Box::pin(stream::unfold(reader, |mut reader| async move {
            if reader.over {
                return None;
            }
            let frame = reader.next().await;
            reader.over = matches!(frame, Err(_) | Ok(TurnFrame::End(_)));
            Some((frame, reader))
        })))
    }

    /// `GET /v1/sessions/{id}/turns/{number}`: the turn, waiting for its end at most `wait`.
    pub async fn turn(&self, id: SessionId, number: u32, wait: Duration) -> Result<Turn, ClientError> {
        let (id, number) = (id.to_string(), number.to_string());
        let mut call = self.call(Method::GET, &["v1", "sessions", &id, "turns", &number]);
        let wait = wait.min(POLL);
        call.timeout = wait + POLL_SLACK;
        call.url.query_pairs_mut().append_pair("waitMs", &wait.as_millis().to_string());
        self.fetch(&call, "the turn").await
    }

    /// `GET /v1/sessions/{id}/turns`: the session's turns, a page at a time.
    pub async fn turns(&self, id: SessionId, cursor: Option<&str>) -> Result<TurnPage, ClientError> {
        let mut call = self.call(Method::GET, &["v1", "sessions", &id.to_string(), "turns"]);
        if let Some(cursor) = cursor {
            call.url.query_pairs_mut().append_pair("cursor", cursor);
        }
        self.fetch(&call, "the turns").await
    }

    /// `POST /v1/sessions/{id}/turns/{number}/interrupt`: interrupts the turn if it has not ended, and gives it as it is.
    pub async fn interrupt_turn(&self, id: SessionId, number: u32) -> Result<Turn, ClientError> {
        let (id, number) = (id.to_string(), number.to_string());
        let call = self.call(Method::POST, &["v1", "sessions", &id, "turns", &number, "interrupt"]);
        self.fetch(&call, "the turn").await
    }
}

struct Reader {
    client: Client,
    id: SessionId,
    /// None when the connection broke.
    response: Option<Response>,
    parser: Parser,
    queue: VecDeque<RawEvent>,
    /// The turn's number, once it is known.
    number: Option<u32>,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Result<TurnFrame, ClientError> {
        loop {
            while let Some(event) = self.queue.pop_front() {
                let frame = TurnFrame::parse(&event.kind, &event.data)
                    .map_err(|source| ClientError::Decode { what: "a frame", source: Some(source) })?;
                if let Some(TurnFrame::Turn(change)) = &frame {
                    self.number = Some(change.number);
                }
                if let Some(frame) = frame {
                    return Ok(frame);
                }
            }
            let Some(response) = &mut self.response else { return self.wait().await };
            match timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(bytes))) => self.parser.feed(&bytes, &mut self.queue).map_err(unreadable)?,
                Ok(Ok(None) | Err(_)) | Err(_) => self.response = None,
            }
        }
    }

    /// Waits for the end without the connection.
    async fn wait(&self) -> Result<TurnFrame, ClientError> {
        let number = self.number.ok_or(ClientError::StreamLost { tries: 1, source: None })?;
        loop {
            let turn = self.client.turn(self.id, number, POLL).await?;
            if turn.status.has_ended() {
                return Ok(TurnFrame::End(Box::new(turn)));
            }
            // A server that answers at once instead of waiting is not to be flooded with questions.
            tokio::time::sleep(self.client.retry.first_pause).await;
        }
    }
}
