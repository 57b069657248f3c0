//! Servers outside.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A server on loopback.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    /// What its connections have said, as far as it has listened.
    pub(crate) heard: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) async fn start<F, S>(serve: S) -> Self
    where
        S: Fn(TcpStream, Arc<Mutex<Vec<String>>>) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let shared = heard.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { address, heard }
    }

    /// Says back what it hears.
    pub(crate) async fn echo() -> Self {
        Self::start(|mut stream, _| async move {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        })
        .await
    }

    /// Greets, and then says back what it hears.
    pub(crate) async fn greeting(greeting: &'static str) -> Self {
        Self::start(move |mut stream, _| async move {
            let _ = stream.write_all(greeting.as_bytes()).await;
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = to.shutdown().await;
        })
        .await
    }

    /// Answers each request with this, and remembers it, body included.
    pub(crate) async fn http(answer: impl Into<String>) -> Self {
        let answer = answer.into();
        Self::start(move |mut stream, heard| {
            let answer = answer.clone();
            async move {
                while let Some(request) = request(&mut stream).await {
                    heard.lock().unwrap().push(request);
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
        })
        .await
    }

    pub(crate) async fn hello() -> Self {
        Self::http("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await
    }
}

/// One request; none at the end.
pub(crate) async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&read).to_ascii_lowercase();
    if let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        let mut body = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut body).await.ok()?;
        read.extend_from_slice(&body);
    } else if head.contains("transfer-encoding: chunked") {
        while !read.ends_with(b"0\r\n\r\n") {
            read.push(stream.read_u8().await.ok()?);
        }
    }
    Some(String::from_utf8_lossy(&read).into_owned())
}
