//! The service that is called.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The length of `/large`.
const LARGE_BYTES: usize = 1 << 30;

/// See the module. Serves for as long as this process lives.
pub(super) struct Upstream {
    address: SocketAddr,
    /// Downloads under way.
    streams: Arc<AtomicUsize>,
}

impl Upstream {
    pub(super) fn start(address: IpAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((address, 0))?;
        let upstream = Self { address: listener.local_addr()?, streams: Arc::default() };
        let streams = Arc::clone(&upstream.streams);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let streams = Arc::clone(&streams);
                std::thread::spawn(move || serve(stream, &streams));
            }
        });
        Ok(upstream)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

/// HTTP/1.1 with connections that are kept, on a thread for each.
fn serve(stream: TcpStream, streams: &AtomicUsize) {
    let Ok(reading) = stream.try_clone() else { return };
    // Whoever leaves in the middle has its reasons.
    let _ = stream.set_nodelay(true);
    let (mut lines, mut writing) = (BufReader::new(reading).lines(), stream);
    let zeros = vec![0; 1 << 20];
    while let Some(Ok(request)) = lines.next() {
        for header in lines.by_ref() {
            match header {
                Ok(header) if header.is_empty() => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        let large = request.contains(" /large");
        let length = if large { LARGE_BYTES } else { 2 };
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n");
        let mut sent = writing.write_all(head.as_bytes());
        if large {
            streams.fetch_add(1, Ordering::Relaxed);
            for _ in 0..LARGE_BYTES / zeros.len() {
                sent = sent.and_then(|()| writing.write_all(&zeros));
            }
            streams.fetch_sub(1, Ordering::Relaxed);
        } else {
            sent = sent.and_then(|()| writing.write_all(b"ok"));
        }
        if sent.is_err() {
            return;
        }
    }
}
