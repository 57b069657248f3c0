//! One connection: a client inside and its stream to the gateway, bytes copied both ways as they come.
//!
//! Bytes that one side does not take are kept, and nothing more is read for it until it does, so a connection holds at
//! most one chunk each way, and nothing while it flows. Whoever ends its half has it ended on the other side.
//!
//! How much is asked for at once follows what comes. The sandbox's kernel makes room for as much as it is asked for, so
//! much room costs a short answer half a millisecond, and little room costs a download half of its speed.

use std::{os::fd::AsFd as _, time::Duration};

use rustix::{
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, sockopt},
};

/// Bytes copied at once, and kept at most in each direction.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;
/// What is asked for first.
pub(super) const FIRST_CHUNK_BYTES: usize = 8 * 1024;
/// By how much more is asked for next, when all of it came, or less, when less than that part of it came.
const STEP: usize = 4;
/// Chunks that a connection may move before others get their turn.
const CHUNKS_A_TURN: usize = 4;

/// One of the two.
#[derive(Debug)]
struct Side {
    socket: OwnedFd,
    /// What is known of it, until the kernel says that it is so no more.
    readable: bool,
    writable: bool,
    /// Whether the kernel was asked to say when there is room.
    watched_for_room: bool,
}

/// One direction.
#[derive(Debug)]
struct Half {
    /// Read and not written yet.
    rest: Vec<u8>,
    written: usize,
    state: State,
    /// What is asked for next.
    chunk: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Its reader has seen the end; the rest is still to be written.
    Ending,
    /// Nobody takes it any more; what comes is thrown away, so that the other direction can come to its end.
    Discarded,
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Relay {
    client: Side,
    stream: Side,
    up: Half,
    down: Half,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is nothing to do until one of the sockets says so.
    Waits,
    /// There is more to do.
    Goes,
    /// The gateway has said all that it has to say, and the client still talks.
    Lingers,
    /// It is over.
    Over,
}

/// Which of the two sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    Client,
    Stream,
}

/// The client's socket is of no use any more.
struct Broken;

impl Relay {
    /// `opening` goes to the gateway before anything else.
    pub(super) fn new(client: OwnedFd, stream: OwnedFd, opening: Vec<u8>) -> Self {
        let side = |socket| Side { socket, readable: true, writable: true, watched_for_room: false };
        Self {
            client: side(client),
            stream: side(stream),
            up: Half { rest: opening, ..Half::new(State::Open) },
            down: Half::new(State::Open),
        }
    }

    pub(super) fn socket(&self, of: Of) -> BorrowedFd<'_> {
        self.side(of).socket.as_fd()
    }

    fn side(&self, of: Of) -> &Side {
        match of {
            Of::Client => &self.client,
            Of::Stream => &self.stream,
        }
    }

    fn side_mut(&mut self, of: Of) -> &mut Side {
        match of {
            Of::Client => &mut self.client,
            Of::Stream => &mut self.stream,
        }
    }

    /// Whether a socket was full for the first time. From then on its room is watched; for most it never is, and
    /// to be told of each byte that the other side takes would be half of all that this thread wakes up for.
    pub(super) fn begins_to_wait_for_room(&mut self, of: Of) -> bool {
        let side = self.side_mut(of);
        !side.writable && !std::mem::replace(&mut side.watched_for_room, true)
    }

    /// Takes note of what the kernel says of a socket.
    pub(super) fn ready(&mut self, of: Of, readable: bool, writable: bool) {
        let side = self.side_mut(of);
        side.readable |= readable;
        side.writable |= writable;
    }

    /// Bytes that it keeps.
    pub(super) fn kept(&self) -> usize {
        self.up.rest.len() + self.down.rest.len()
    }

    /// Copies what can be copied now, at most so much at once as `scratch` has room for.
    pub(super) fn turn(&mut self, scratch: &mut [u8]) -> Turn {
        let up = copy(&mut self.client, &mut self.stream, &mut self.up, scratch, Of::Stream);
        let down = copy(&mut self.stream, &mut self.client, &mut self.down, scratch, Of::Client);
        let (Ok(up), Ok(down)) = (up, down) else { return Turn::Over };
        match (self.up.state, self.down.state) {
            (State::Closed, State::Closed) => Turn::Over,
            _ if up || down => Turn::Goes,
            (State::Discarded, State::Closed) => Turn::Lingers,
            (
                State::Open | State::Ending | State::Discarded | State::Closed,
                State::Open | State::Ending | State::Discarded | State::Closed,
            ) => Turn::Waits,
        }
    }
}

impl Half {
    fn new(state: State) -> Self {
        Self { rest: Vec::new(), written: 0, state, chunk: FIRST_CHUNK_BYTES }
    }

    /// Keeps what was not taken. Who takes little at once is offered little again.
    fn keep(&mut self, rest: &[u8]) {
        self.rest = rest.to_vec();
        self.chunk = FIRST_CHUNK_BYTES;
    }

    /// Takes note of how much came.
    fn came(&mut self, count: usize) {
        if count == self.chunk {
            self.chunk = (self.chunk * STEP).min(CHUNK_BYTES);
        } else if count < self.chunk / STEP {
            self.chunk = (self.chunk / STEP).max(FIRST_CHUNK_BYTES);
        }
    }
}

/// Copies in one direction. Says whether there is more to do.
fn copy(from: &mut Side, to: &mut Side, half: &mut Half, scratch: &mut [u8], target: Of) -> Result<bool, Broken> {
    for _ in 0..CHUNKS_A_TURN {
        if half.written < half.rest.len() {
            if !to.writable {
                return Ok(false);
            }
            match write(to, &half.rest[half.written..]) {
                Ok(count) => half.written += count,
                Err(Errno::AGAIN) => return Ok(false),
                Err(_) => give_up(half, target)?,
            }
            continue;
        }
        if !half.rest.is_empty() {
            (half.rest, half.written) = (Vec::new(), 0);
        }
        match half.state {
            State::Open | State::Discarded => {}
            State::Ending => {
                // A side that is gone needs not be told.
                let _ = rustix::net::shutdown(&to.socket, Shutdown::Write);
                half.state = State::Closed;
                return Ok(false);
            }
            State::Closed => return Ok(false),
        }
        if !from.readable {
            return Ok(false);
        }
        let asked = half.chunk.min(scratch.len());
        match read(from, &mut scratch[..asked]) {
            Ok(0) if half.state == State::Discarded => half.state = State::Closed,
            Ok(0) => half.state = State::Ending,
            Ok(_) if half.state == State::Discarded => {}
            Ok(count) => {
                half.came(count);
                let written = if to.writable { write(to, &scratch[..count]) } else { Err(Errno::AGAIN) };
                match written {
                    Ok(written) if written == count => {}
                    Ok(written) => half.keep(&scratch[written..count]),
                    Err(Errno::AGAIN) => half.keep(&scratch[..count]),
                    Err(_) => give_up(half, target)?,
                }
            }
            Err(Errno::AGAIN) => return Ok(false),
            // A client that broke off is not waited for; a gateway that did has ended what it said.
            Err(_) => match target {
                Of::Stream => return Err(Broken),
                Of::Client => half.state = State::Ending,
            },
        }
    }
    Ok(true)
}

/// Nobody takes these bytes: the end of the connection, or only of what goes to the gateway.
fn give_up(half: &mut Half, target: Of) -> Result<(), Broken> {
    match target {
        Of::Client => Err(Broken),
        Of::Stream => {
            *half = Half::new(State::Discarded);
            Ok(())
        }
    }
}

fn read(side: &mut Side, buffer: &mut [u8]) -> Result<usize, Errno> {
    let read = rustix::io::retry_on_intr(|| rustix::net::recv(&side.socket, &mut *buffer, RecvFlags::DONTWAIT));
    if read == Err(Errno::AGAIN) {
        side.readable = false;
    }
    read.map(|(_, count)| count)
}

fn write(side: &mut Side, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let written = rustix::io::retry_on_intr(|| rustix::net::send(&side.socket, bytes, flags));
    if written == Err(Errno::AGAIN) {
        side.writable = false;
    }
    written
}

/// Closes a client's connection so that it sees a failure, not an end.
pub(super) fn reset(client: OwnedFd) {
    // If it cannot be reset it is closed.
    let _ = sockopt::set_socket_linger(&client, Some(Duration::ZERO));
    drop(client);
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixStream,
    };

    use super::*;

    /// A relay between two pairs, and their other ends: the client's and the gateway's.
    fn relay(opening: &[u8]) -> (Relay, UnixStream, UnixStream) {
        let (client, inner) = UnixStream::pair().expect("a pair");
        let (gateway, stream) = UnixStream::pair().expect("a pair");
        (Relay::new(inner.into(), stream.into(), opening.to_vec()), client, gateway)
    }

    fn run(relay: &mut Relay) -> Turn {
        run_with(relay, CHUNK_BYTES)
    }

    fn run_with(relay: &mut Relay, room: usize) -> Turn {
        let mut scratch = vec![0; room];
        for of in [Of::Client, Of::Stream] {
            relay.ready(of, true, true);
        }
        loop {
            let turn = relay.turn(&mut scratch);
            if turn != Turn::Goes {
                return turn;
            }
        }
    }

    fn read_all(mut from: UnixStream) -> Vec<u8> {
        let mut all = Vec::new();
        from.read_to_end(&mut all).expect("reads");
        all
    }

    #[test]
    fn the_opening_comes_first_and_bytes_go_both_ways() {
        let (mut relay, mut client, mut gateway) = relay(b"open");
        client.write_all(b"question").expect("writes");
        gateway.write_all(b"answer").expect("writes");
        assert_eq!(run(&mut relay), Turn::Waits);
        let mut seen = [0; 12];
        gateway.read_exact(&mut seen).expect("reads");
        assert_eq!(&seen, b"openquestion");
        let mut seen = [0; 6];
        client.read_exact(&mut seen).expect("reads");
        assert_eq!(&seen, b"answer");
    }

    #[test]
    fn each_half_ends_by_itself() {
        let (mut relay, client, mut gateway) = relay(b"");
        client.shutdown(std::net::Shutdown::Write).expect("shuts down");
        assert_eq!(run(&mut relay), Turn::Waits);
        assert_eq!(gateway.read(&mut [0; 1]).expect("reads"), 0);
        gateway.write_all(b"late").expect("writes");
        drop(gateway);
        assert_eq!(run(&mut relay), Turn::Over);
        drop(relay);
        assert_eq!(read_all(client), b"late");
    }

    #[test]
    fn a_side_that_does_not_read_stops_the_other_at_one_chunk() {
        for room in [CHUNK_BYTES, FIRST_CHUNK_BYTES] {
            stops_at_one_chunk(room);
        }
    }

    fn stops_at_one_chunk(room: usize) {
        let (mut relay, client, mut gateway) = relay(b"");
        gateway.set_nonblocking(true).expect("sets");
        let mut sent = 0;
        loop {
            let mut moved = 0;
            while let Ok(count) = gateway.write(&[7; 4096]) {
                moved += count;
            }
            sent += moved;
            if moved == 0 {
                break;
            }
            assert_eq!(run_with(&mut relay, room), Turn::Waits);
            assert!(relay.kept() <= room);
        }
        let reader = std::thread::spawn(move || read_all(client).len());
        drop(gateway);
        while run(&mut relay) != Turn::Over && relay.down.state != State::Closed {
            std::thread::yield_now();
        }
        drop(relay);
        assert_eq!(reader.join().expect("ends"), sent);
    }

    #[test]
    fn an_answer_is_delivered_although_nobody_takes_the_question() {
        let (mut relay, mut client, mut gateway) = relay(b"open");
        gateway.write_all(b"403").expect("writes");
        drop(gateway);
        client.write_all(&[1; 1000]).expect("writes");
        assert_eq!(run(&mut relay), Turn::Lingers);
        client.write_all(&[1; 1000]).expect("writes");
        assert_eq!(run(&mut relay), Turn::Lingers);
        client.shutdown(std::net::Shutdown::Write).expect("shuts down");
        assert_eq!(run(&mut relay), Turn::Over);
        assert_eq!(read_all(client), b"403");
    }

    #[test]
    fn a_client_that_is_gone_takes_its_stream_along() {
        let (mut relay, client, mut gateway) = relay(b"");
        drop(client);
        gateway.write_all(b"x").expect("writes");
        assert_eq!(run(&mut relay), Turn::Over);
    }
}
