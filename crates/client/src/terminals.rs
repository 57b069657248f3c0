//! Terminals: opened, looked at, ended, and a socket that comes back when its connection breaks.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use reqwest::{
    Method, StatusCode,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use wire::{
    CreateTerminal, SessionId, Terminal, TerminalControl, TerminalEvent, TerminalExit, TerminalGap, TerminalId,
    TerminalPage, TerminalSize,
};

use crate::{
    Client, ClientError, Retry,
    call::{Answer, transport},
    retry,
    stream::SILENCE,
};

/// The largest message that is read: the server's are of 16 KiB.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes of one message of input, of the 64 KiB that the server takes.
const INPUT_BYTES: usize = 16 * 1024;
/// Messages that are taken while another one is on its way out: some megabytes.
const MAX_EARLY: usize = 256;
/// What the end of a terminal may take: the server waits for everything in it to be gone.
const DELETE_PATIENCE: Duration = Duration::from_secs(45);

impl Client {
    /// `POST /v1/sessions/{id}/terminals`: opens a terminal. Made once: a terminal that was opened and not answered for stays.
    pub async fn open_terminal(&self, id: SessionId, asked: &CreateTerminal) -> Result<Terminal, ClientError> {
        let mut call = self.call(Method::POST, &["v1", "sessions", &id.to_string(), "terminals"]).with_body(asked)?;
        call.retry = Retry::NEVER;
        self.fetch(&call, "the terminal").await
    }

    /// `GET /v1/sessions/{id}/terminals`: the session's terminals.
    pub async fn terminals(&self, id: SessionId) -> Result<TerminalPage, ClientError> {
        self.fetch(&self.call(Method::GET, &["v1", "sessions", &id.to_string(), "terminals"]), "the terminals").await
    }

    /// `GET /v1/sessions/{id}/terminals/{terminal}`: one of them.
    pub async fn terminal(&self, id: SessionId, terminal: TerminalId) -> Result<Terminal, ClientError> {
        let segments = ["v1", "sessions", &id.to_string(), "terminals", &terminal.to_string()];
        self.fetch(&self.call(Method::GET, &segments), "the terminal").await
    }

    /// `DELETE /v1/sessions/{id}/terminals/{terminal}`: ends it, and what runs in it.
    pub async fn close_terminal(&self, id: SessionId, terminal: TerminalId) -> Result<(), ClientError> {
        let segments = ["v1", "sessions", &id.to_string(), "terminals", &terminal.to_string()];
        let mut call = self.call(Method::DELETE, &segments);
        call.timeout = DELETE_PATIENCE;
        let answer = self.answer(&call).await?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.refusal()) }
    }

    /// A socket to a terminal: from byte `from` of its output, or from the oldest that the server has. It connects with the
    /// first call.
    pub fn attach(&self, session: SessionId, terminal: TerminalId, from: Option<u64>) -> TerminalSocket {
        TerminalSocket {
            client: self.clone(),
            session,
            terminal,
            at: from,
            socket: None,
            early: VecDeque::new(),
            size: None,
            tries: 0,
        }
    }
}

/// Somebody at a terminal. A connection that breaks is replaced by another one, which goes on where the one before ended:
/// output comes once. What was typed and not sent by then is lost with it.
pub struct TerminalSocket {
    client: Client,
    session: SessionId,
    terminal: TerminalId,
    /// How much output was had.
    at: Option<u64>,
    socket: Option<Socket>,
    /// What came while something was sent.
    early: VecDeque<TerminalOutput>,
    /// The size to tell the next connection.
    size: Option<TerminalSize>,
    /// Tries since something came.
    tries: u32,
}

type Socket = WebSocketStream<reqwest::Upgraded>;

/// What becomes of a message on its way.
enum Step {
    Sent,
    /// Something came first; none for the end of the connection.
    Came(Option<Message>),
}

/// What a terminal shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerminalOutput {
    /// What its programs wrote.
    Bytes(Bytes),
    /// Something that they wrote is not there any more.
    Gap(TerminalGap),
    /// Its program has ended. The last.
    Exited(TerminalExit),
    /// It has ended with its session, or the server sent this client away, and said why. The last.
    Closed(String),
}

impl TerminalSocket {
    /// How much of the output was had, if that is known yet.
    pub fn offset(&self) -> Option<u64> {
        self.at
    }

    /// The next that the terminal shows. Cancel-safe.
    pub async fn next(&mut self) -> Result<TerminalOutput, ClientError> {
        loop {
            if let Some(output) = self.early.pop_front() {
                return Ok(output);
            }
            let socket = self.connected().await?;
            match timeout(SILENCE, socket.next()).await {
                Ok(Some(Ok(message))) => {
                    self.tries = 0;
                    if let Some(output) = self.take(message)? {
                        return Ok(output);
                    }
                }
                Ok(Some(Err(_)) | None) | Err(_) => self.cut(),
            }
        }
    }

    /// Types.
    pub async fn input(&mut self, data: &[u8]) -> Result<(), ClientError> {
        for part in data.chunks(INPUT_BYTES) {
            self.connected().await?;
            self.send(Message::Binary(Bytes::copy_from_slice(part))).await?;
        }
        Ok(())
    }

    /// Gives the terminal another size.
    pub async fn resize(&mut self, size: TerminalSize) -> Result<(), ClientError> {
        self.size = Some(size);
        self.connected().await?;
        self.send(resize(size)).await
    }

    /// Goes away, and leaves the terminal as it is.
    pub async fn leave(mut self) {
        if let Some(mut socket) = self.socket.take() {
            // A server that does not answer is left all the same.
            let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
        }
    }

    /// Breaks the connection, as a network does.
    pub fn cut(&mut self) {
        self.socket = None;
        self.tries += 1;
    }

    /// Sends a message. What comes meanwhile is taken: a server that cannot send does not read either.
    async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        let mut message = Some(message);
        loop {
            let Some(socket) = &mut self.socket else { return Ok(()) };
            let has_room = self.early.len() < MAX_EARLY;
            let step = poll_fn(|context| {
                if has_room && let Poll::Ready(came) = socket.poll_next_unpin(context) {
                    return Poll::Ready(Step::Came(came.and_then(Result::ok)));
                }
                if message.is_some() {
                    let ready = ready!(socket.poll_ready_unpin(context));
                    let sent = message.take().map(|message| socket.start_send_unpin(message));
                    if ready.is_err() || !matches!(sent, Some(Ok(()))) {
                        return Poll::Ready(Step::Came(None));
                    }
                }
                match ready!(socket.poll_flush_unpin(context)) {
                    Ok(()) => Poll::Ready(Step::Sent),
                    Err(_) => Poll::Ready(Step::Came(None)),
                }
            });
            match step.await {
                Step::Sent => return Ok(()),
                Step::Came(Some(came)) => {
                    let output = self.take(came)?;
                    self.early.extend(output);
                }
                Step::Came(None) => self.cut(),
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<Option<TerminalOutput>, ClientError> {
        match message {
            Message::Binary(data) => {
                self.at = Some(self.at.unwrap_or(0) + data.len() as u64);
                Ok(Some(TerminalOutput::Bytes(data)))
            }
            Message::Text(text) => {
                let event = serde_json::from_str(&text)
                    .map_err(|source| ClientError::Decode { what: "a message", source: Some(source) })?;
                Ok(match event {
                    TerminalEvent::Attached(attached) => {
                        self.at = Some(attached.offset);
                        None
                    }
                    TerminalEvent::Gap(gap) => Some(TerminalOutput::Gap(gap)),
                    TerminalEvent::Exited(exit) => Some(TerminalOutput::Exited(exit)),
                })
            }
            Message::Close(frame) => {
                self.cut();
                Ok(match frame {
                    // A server that stops may be followed by another one; a session that has ended says so when it is asked.
                    Some(frame) if frame.code != CloseCode::Away => {
                        Some(TerminalOutput::Closed(frame.reason.to_string()))
                    }
                    Some(_) | None => None,
                })
            }
            // Pings are answered by the library.
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
        }
    }

    /// The connection, made anew if there is none.
    async fn connected(&mut self) -> Result<&mut Socket, ClientError> {
        let mut broken_by = None;
        while self.socket.is_none() {
            if self.tries > 0 {
                let Some(pause) = self.client.retry.pause(self.tries, None) else {
                    return Err(ClientError::StreamLost { tries: self.tries, source: broken_by.map(Box::new) });
                };
                tokio::time::sleep(pause).await;
            }
            match self.connect().await {
                Ok(mut socket) => {
                    let told = match self.size {
                        Some(size) => socket.send(resize(size)).await.is_ok(),
                        None => true,
                    };
                    if told {
                        self.socket = Some(socket);
                    } else {
                        self.tries += 1;
                    }
                }
                Err(Unconnected::ForGood(error)) => return Err(error),
                Err(Unconnected::ForNow(error)) => {
                    self.tries += 1;
                    broken_by = Some(error);
                }
            }
        }
        Ok(self.socket.as_mut().expect("it was made"))
    }

    async fn connect(&self) -> Result<Socket, Unconnected> {
        let segments = ["v1", "sessions", &self.session.to_string(), "terminals", &self.terminal.to_string()];
        let mut url = self.client.url(&segments);
        if let Some(at) = self.at {
            url.query_pairs_mut().append_pair("from", &at.to_string());
        }
        let key = generate_key();
        let request = self
            .client
            .sockets
            .get(url)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let silent = || Unconnected::ForNow(ClientError::StreamLost { tries: 1, source: None });
        let response = timeout(SILENCE, request.send()).await.map_err(|_| silent())?.map_err(Unconnected::of)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let may_pass = retry::may_pass(response.status()) || response.status().is_server_error();
            let answer = timeout(SILENCE, Answer::of(response)).await.map_err(|_| silent())?;
            let refusal = answer.map_or_else(|error| error, |answer| answer.refusal());
            return Err(if may_pass { Unconnected::ForNow(refusal) } else { Unconnected::ForGood(refusal) });
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(|value| value.as_bytes().to_vec());
        if accepted.as_deref() != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
            let excerpt = "no WebSocket".to_owned();
            return Err(Unconnected::ForGood(ClientError::Unexpected { status: 101, excerpt }));
        }
        let upgraded = response.upgrade().await.map_err(Unconnected::of)?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(MAX_MESSAGE_BYTES))
            .max_frame_size(Some(MAX_MESSAGE_BYTES));
        Ok(WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await)
    }
}

/// Why there is no connection.
enum Unconnected {
    ForNow(ClientError),
    ForGood(ClientError),
}

impl Unconnected {
    fn of(error: reqwest::Error) -> Self {
        let error = transport(error);
        if retry::is_connection(&error) { Self::ForNow(error) } else { Self::ForGood(error) }
    }
}

fn resize(size: TerminalSize) -> Message {
    let control = TerminalControl::Resize(size);
    Message::Text(serde_json::to_string(&control).expect("it has string keys only").into())
}

impl std::fmt::Debug for TerminalSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TerminalSocket").field("terminal", &self.terminal).field("at", &self.at).finish_non_exhaustive()
    }
}
