//! One of a relay's two sockets.

use std::{io, os::fd::AsFd};

use rustix::net::{Shutdown, sockopt::set_socket_send_buffer_size};
use tokio::{
    io::Interest,
    net::{TcpStream, UnixStream},
};

/// What a unix socket may hold for bulk, so that it does not change hands every few kilobytes. TCP finds its own size.
const BULK_SEND_BYTES: usize = 1024 * 1024;

/// Readiness first, so that no buffer waits with a socket; and both directions at once, without halves.
pub(super) trait Side: AsFd {
    async fn readable(&self) -> io::Result<()>;
    async fn writable(&self) -> io::Result<()>;
    fn try_read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize>;
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R>;

    /// Makes room for bulk that is written here.
    fn widen(&self);

    /// Passes an end on.
    fn end(&self) -> io::Result<()> {
        match rustix::net::shutdown(self, Shutdown::Write) {
            // The other side is gone altogether.
            Err(rustix::io::Errno::NOTCONN) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

macro_rules! side {
    ($socket:ty, $widen:expr) => {
        impl Side for $socket {
            async fn readable(&self) -> io::Result<()> {
                <$socket>::readable(self).await
            }

            async fn writable(&self) -> io::Result<()> {
                <$socket>::writable(self).await
            }

            fn try_read_buf(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
                <$socket>::try_read_buf(self, buffer)
            }

            fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
                <$socket>::try_write(self, bytes)
            }

            fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
                <$socket>::try_io(self, interest, call)
            }

            fn widen(&self) {
                let widen: fn(&Self) = $widen;
                widen(self);
            }
        }
    };
}

side!(TcpStream, |_| {});
side!(UnixStream, widen);

/// Makes room in a socket for bulk that is written to it, and for what is taken from it at once where a sandbox's kernel
/// holds it.
pub(crate) fn widen(socket: &UnixStream) {
    // A host may allow less.
    let _ = set_socket_send_buffer_size(socket, BULK_SEND_BYTES);
}

/// Writes everything.
pub(super) async fn write_all(to: &impl Side, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
