//! The control socket: asks the gateway for streams, and takes what it gives.

use std::{io::IoSliceMut, mem::MaybeUninit, os::fd::AsFd as _};

use protocol::egress::{GRANTED, REFUSED, WANT};
use rustix::{
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags},
};

/// Wants written at once.
const WANTS: [u8; 64] = [WANT; 64];

/// See the module.
#[derive(Debug)]
pub(super) struct Control {
    socket: OwnedFd,
    /// Wants that are not written yet.
    unsent: usize,
}

/// An answer, to the oldest want that has none.
#[derive(Debug)]
pub(super) enum Answer {
    /// A stream.
    Granted(OwnedFd),
    /// There will be none.
    Refused,
}

/// The gateway has gone, or speaks in a way that an honest one does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

impl Control {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, unsent: 0 }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Asks for one more stream.
    pub(super) fn want(&mut self) {
        self.unsent += 1;
    }

    /// Whether there are wants to write.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent > 0
    }

    /// Writes the wants that the socket takes now.
    pub(super) fn flush(&mut self) -> Result<(), Gone> {
        while self.unsent > 0 {
            let some = &WANTS[..self.unsent.min(WANTS.len())];
            match rustix::net::send(&self.socket, some, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => self.unsent -= count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// The next answer, if there is one now. One byte at a time: a descriptor comes with its byte.
    pub(super) fn answer(&mut self) -> Result<Option<Answer>, Gone> {
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, flags)
        });
        match received {
            Ok(message) if message.bytes == 0 => return Err(Gone),
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(_) => return Err(Gone),
        }
        let mut streams = ancillary.drain().flat_map(|message| {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message { descriptors.collect() } else { Vec::new() }
        });
        match (byte[0], streams.next(), streams.next()) {
            (GRANTED, Some(stream), None) => Ok(Some(Answer::Granted(stream))),
            (REFUSED, None, None) => Ok(Some(Answer::Refused)),
            _ => Err(Gone),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{IoSlice, Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};

    use super::*;

    fn pair() -> (Control, UnixStream) {
        let (ours, gateway) = UnixStream::pair().expect("a pair");
        (Control::new(ours.into()), gateway)
    }

    fn grant(gateway: &UnixStream) -> UnixStream {
        let (kept, given) = UnixStream::pair().expect("a pair");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let given = [given.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&given)));
        rustix::net::sendmsg(gateway, &[IoSlice::new(&[GRANTED])], &mut ancillary, SendFlags::empty()).expect("sends");
        kept
    }

    #[test]
    fn answers_come_in_order_with_their_streams() {
        let (mut control, mut gateway) = pair();
        for _ in 0..3 {
            control.want();
        }
        control.flush().expect("writes");
        let mut wants = [0; 3];
        gateway.read_exact(&mut wants).expect("reads");
        assert_eq!(wants, [WANT; 3]);
        gateway.write_all(&[REFUSED, REFUSED]).expect("writes");
        let mut kept = grant(&gateway);
        assert!(matches!(control.answer(), Ok(Some(Answer::Refused))));
        assert!(matches!(control.answer(), Ok(Some(Answer::Refused))));
        let Ok(Some(Answer::Granted(stream))) = control.answer() else { panic!("no stream") };
        kept.write_all(b"x").expect("writes");
        UnixStream::from(stream).read_exact(&mut [0]).expect("reads");
        assert!(matches!(control.answer(), Ok(None)));
    }

    #[test]
    fn a_gateway_that_is_gone_or_makes_no_sense_is_noticed() {
        for nonsense in [&[GRANTED][..], b"x"] {
            let (mut control, mut gateway) = pair();
            gateway.write_all(nonsense).expect("writes");
            assert_eq!(control.answer().map(|_| ()), Err(Gone));
        }
        let (mut control, gateway) = pair();
        drop(gateway);
        assert_eq!(control.answer().map(|_| ()), Err(Gone));
        control.want();
        assert_eq!(control.flush(), Err(Gone));
    }
}
