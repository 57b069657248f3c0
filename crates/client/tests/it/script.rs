//! A TCP server that plays one script per connection and remembers what it was asked.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{Client, Retry};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use wire::SessionId;

/// What happens to one connection, once its request was read.
#[derive(Clone)]
pub(crate) enum Script {
    /// These bytes, then the connection is closed.
    Say(Vec<u8>),
    /// These bytes, then nothing: the connection stays open.
    SayAndHold(Vec<u8>),
    /// Bytes for ever.
    Flood(Vec<u8>, &'static [u8]),
    /// Closed before the request is read.
    Refuse,
}

/// A whole answer with a body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Script {
    Script::Say(
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
            .into(),
    )
}

/// A problem document.
pub(crate) fn problem(code: wire::ErrorCode, headers: &str) -> Script {
    let body = serde_json::to_string(&wire::Problem::new(code, "because")).unwrap();
    answer(&format!("{} x", code.status()), &format!("Content-Type: application/problem+json\r\n{headers}"), &body)
}

/// The head of a stream and what comes before it is cut.
pub(crate) fn stream(text: &str) -> Script {
    Script::Say(stream_bytes(text.as_bytes()))
}

/// The same as bytes.
pub(crate) fn stream_bytes(body: &[u8]) -> Vec<u8> {
    let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    [head.as_slice(), body].concat()
}

pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Plays the scripts in order; further connections are closed at once.
    pub(crate) async fn playing(scripts: impl IntoIterator<Item = Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let scripts: Vec<_> = scripts.into_iter().collect();
        tokio::spawn(async move {
            let mut scripts = scripts.into_iter();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let script = scripts.next().unwrap_or(Script::Refuse);
                tokio::spawn(play(socket, script, Arc::clone(&seen)));
            }
        });
        Self { address, requests }
    }

    /// A client of it that does not dawdle between tries.
    pub(crate) fn client(&self) -> Client {
        let retry = Retry { first_pause: Duration::from_millis(1), ..Retry::default() };
        Client::new(&format!("http://{}", self.address), Some("ek_test".into())).unwrap().with_retry(retry)
    }

    /// The requests so far: head and body as text.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// The value of a header of a request.
pub(crate) fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let head = request.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub(crate) fn session_id() -> SessionId {
    "ses_01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

async fn play(mut socket: TcpStream, script: Script, seen: Arc<Mutex<Vec<String>>>) {
    if matches!(script, Script::Refuse) {
        return;
    }
    let Some(request) = read_request(&mut socket).await else { return };
    seen.lock().unwrap().push(request);
    // The client may go away in the middle; that is its right.
    match script {
        Script::Say(bytes) => {
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
        }
        Script::SayAndHold(bytes) => {
            let _ = socket.write_all(&bytes).await;
            let _ = socket.read(&mut [0; 1]).await;
        }
        Script::Flood(head, bytes) => {
            let _ = socket.write_all(&head).await;
            while socket.write_all(bytes).await.is_ok() {}
        }
        Script::Refuse => {}
    }
}

async fn read_request(socket: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let count = socket.read(&mut chunk).await.ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&chunk[..count]);
        let text = String::from_utf8(bytes.clone()).ok()?;
        if let Some((_, body)) = text.split_once("\r\n\r\n") {
            let expected = header(&text, "content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= expected {
                return Some(text);
            }
        }
    }
}
