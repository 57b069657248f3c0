//! The DNS stub's datagrams: carried over one stream to the gateway, each answer back to its asker. Nothing of a message
//! is understood but the number in front of it, which is replaced on the way: askers choose theirs as they like.

use std::{
    collections::VecDeque,
    net::{SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use rustix::{
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::{RecvFlags, SendFlags},
};

/// Largest query taken: more than any resolver asks over UDP.
const MAX_QUERY_BYTES: usize = 4096;
/// The fixed part of a DNS message.
const HEADER_BYTES: usize = 12;
/// Queries without an answer that are remembered; a new one then replaces the oldest.
const OUTSTANDING: usize = 512;
/// How long an answer is waited for: askers have long asked again by then.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of queries that wait for the stream to take them; more are dropped, as a network would.
const MAX_UNSENT_BYTES: usize = 64 * 1024;
/// Queries taken before others get their turn.
const QUERIES_A_TURN: usize = 64;
/// Answers to caught queries that may still come by in the sandbox's kernel.
const REMEMBERED: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Stub {
    socket: UdpSocket,
    link: Link,
    queries: Queries,
    /// Queries, each behind its length.
    unsent: Vec<u8>,
    /// Whom caught queries were answered lately. The answers look like datagrams to anywhere.
    answered: VecDeque<SocketAddr>,
}

/// The stream to the gateway.
#[derive(Debug)]
enum Link {
    None,
    Wanted,
    Up { stream: OwnedFd, answers: Vec<u8> },
}

/// Who asked what.
#[derive(Debug, Default)]
struct Queries {
    next: u16,
    outstanding: VecDeque<Query>,
}

#[derive(Debug)]
struct Query {
    own: u16,
    theirs: [u8; 2],
    asker: SocketAddr,
    asked: Instant,
}

impl Queries {
    /// Remembers a query, and gives the number that it goes out under.
    fn ask(&mut self, theirs: [u8; 2], asker: SocketAddr, now: Instant) -> [u8; 2] {
        while self
            .outstanding
            .front()
            .is_some_and(|query| self.outstanding.len() >= OUTSTANDING || now.duration_since(query.asked) > PATIENCE)
        {
            self.outstanding.pop_front();
        }
        let own = self.next;
        self.next = self.next.wrapping_add(1);
        self.outstanding.push_back(Query { own, theirs, asker, asked: now });
        own.to_be_bytes()
    }

    /// Who asked this, and under which number.
    fn answer(&mut self, own: [u8; 2]) -> Option<(SocketAddr, [u8; 2])> {
        let own = u16::from_be_bytes(own);
        let at = self.outstanding.iter().position(|query| query.own == own)?;
        self.outstanding.remove(at).map(|query| (query.asker, query.theirs))
    }
}

impl Stub {
    pub(super) fn new(socket: UdpSocket) -> Self {
        Self { socket, link: Link::None, queries: Queries::default(), unsent: Vec::new(), answered: VecDeque::new() }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The stream, once there is one.
    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        match &self.link {
            Link::None | Link::Wanted => None,
            Link::Up { stream, .. } => Some(stream.as_fd()),
        }
    }

    /// Whether the stream is waited for with something to write.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Takes queries that have come. Says whether a stream is to be asked for.
    pub(super) fn listen(&mut self, now: Instant, scratch: &mut [u8]) -> bool {
        for _ in 0..QUERIES_A_TURN {
            let (len, asker) = match self.socket.recv_from(scratch) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // An asker that has gone away in the meantime.
                Err(_) => continue,
            };
            let query = &scratch[..len];
            if !(HEADER_BYTES..=MAX_QUERY_BYTES).contains(&len) || self.unsent.len() + 2 + len > MAX_UNSENT_BYTES {
                continue;
            }
            let own = self.queries.ask([query[0], query[1]], asker, now);
            self.unsent.extend_from_slice(&u16::try_from(len).expect("a few thousand").to_be_bytes());
            self.unsent.extend_from_slice(&own);
            self.unsent.extend_from_slice(&query[2..]);
        }
        let wanted = self.has_unsent() && matches!(self.link, Link::None);
        if wanted {
            self.link = Link::Wanted;
        }
        wanted
    }

    /// Takes the stream; `opening` goes first.
    pub(super) fn granted(&mut self, stream: OwnedFd, mut opening: Vec<u8>) {
        opening.append(&mut self.unsent);
        self.unsent = opening;
        self.link = Link::Up { stream, answers: Vec::new() };
    }

    /// There is no stream (any more). Who has asked will ask again.
    pub(super) fn lost(&mut self) {
        self.link = Link::None;
        self.unsent = Vec::new();
    }

    /// Writes queries and hands out answers. Fails when the stream is at its end.
    pub(super) fn carry(&mut self, scratch: &mut [u8]) -> Result<(), Errno> {
        self.send()?;
        for _ in 0..QUERIES_A_TURN {
            let Link::Up { stream, answers } = &mut self.link else { return Ok(()) };
            match rustix::io::retry_on_intr(|| rustix::net::recv(&*stream, &mut *scratch, RecvFlags::DONTWAIT)) {
                Ok((_, 0)) => return Err(Errno::PIPE),
                Ok((_, len)) => answers.extend_from_slice(&scratch[..len]),
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
            self.hand_out();
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Errno> {
        let Link::Up { stream, .. } = &self.link else { return Ok(()) };
        while !self.unsent.is_empty() {
            match rustix::net::send(stream, &self.unsent, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn hand_out(&mut self) {
        let Link::Up { answers, .. } = &mut self.link else { return };
        let mut at = 0;
        while let Some((len, rest)) = answers[at..].split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes(*len));
            let Some(answer) = rest.get(..len) else { break };
            at += 2 + len;
            let Some((own, rest)) = answer.split_first_chunk::<2>() else { continue };
            let Some((asker, theirs)) = self.queries.answer(*own) else { continue };
            let answer = [&theirs, rest].concat();
            if !asker.ip().is_loopback() {
                if self.answered.len() == REMEMBERED {
                    self.answered.pop_front();
                }
                self.answered.push_back(asker);
            }
            // An asker that has gone away needs no answer.
            let _ = self.socket.send_to(&answer, asker);
        }
        answers.drain(..at);
    }

    /// Whether a datagram to this address is an answer of ours. Says so once for each.
    pub(super) fn is_answer(&mut self, to: SocketAddr) -> bool {
        let at = self.answered.iter().position(|asker| *asker == to);
        at.is_some_and(|at| self.answered.remove(at).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn answers_find_their_askers_whatever_numbers_they_chose() {
        let (mut queries, now) = (Queries::default(), Instant::now());
        let first = queries.ask([7, 7], address(1), now);
        let second = queries.ask([7, 7], address(2), now);
        assert_eq!(queries.answer(second), Some((address(2), [7, 7])));
        assert_eq!(queries.answer(second), None);
        assert_eq!(queries.answer(first), Some((address(1), [7, 7])));
    }

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_in_time() {
        let (mut queries, now) = (Queries::default(), Instant::now());
        let first = queries.ask([0, 0], address(1), now);
        for _ in 0..OUTSTANDING {
            queries.ask([0, 0], address(2), now);
        }
        assert_eq!((queries.outstanding.len(), queries.answer(first)), (OUTSTANDING, None));
        queries.ask([0, 0], address(3), now + 2 * PATIENCE);
        assert_eq!(queries.outstanding.len(), 1);
    }

    #[test]
    fn a_query_goes_out_behind_the_opening_and_its_answer_comes_back() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("binds");
        socket.set_nonblocking(true).expect("sets");
        let to = socket.local_addr().expect("has one");
        let (mut stub, mut scratch) = (Stub::new(socket), vec![0; 1 << 16]);
        let asker = UdpSocket::bind("127.0.0.1:0").expect("binds");
        asker.send_to(b"short", to).expect("sends");
        asker.send_to(b"\x12\x34question--", to).expect("sends");
        while !stub.listen(Instant::now(), &mut scratch) {}
        assert!(!stub.listen(Instant::now(), &mut scratch), "one stream is enough");
        let (mut gateway, stream) = UnixStream::pair().expect("a pair");
        stub.granted(stream.into(), b"open".to_vec());
        stub.carry(&mut scratch).expect("carries");
        let mut seen = [0; 18];
        gateway.read_exact(&mut seen).expect("reads");
        assert_eq!(&seen, b"open\0\x0c\0\0question--");
        // In pieces, behind one that nobody asked for.
        for piece in [&b"\0\x04\xff\xffno\0\x08"[..], b"\0\0answer"] {
            gateway.write_all(piece).expect("writes");
            stub.carry(&mut scratch).expect("carries");
        }
        let mut answer = [0; 100];
        let len = asker.recv(&mut answer).expect("receives");
        assert_eq!(&answer[..len], b"\x12\x34answer");
        drop(gateway);
        assert!(stub.carry(&mut scratch).is_err());
        stub.lost();
        assert!(stub.stream().is_none());
    }
}
