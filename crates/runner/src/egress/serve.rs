//! The loop of the egress thread. Nothing that comes from inside ends it; the end of the gateway does.
//!
//! A turn takes a bounded piece of whatever there is to do, so that no client holds up another. Connections are watched
//! for changes only (edge-triggered): what is known to be ready is kept in [`Relay`], and who has more to do stands in a
//! queue, of which a turn serves as many as it has time for. Everything else is few, and is asked about in every turn.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use protocol::egress::Opening;
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    fd::{BorrowedFd, OwnedFd},
    io::Errno,
    net::SendFlags,
};

use super::{
    Egress,
    attempts::{Sight, Watch},
    control::{Answer, Control, Gone},
    dns::Stub,
    door::{Came, Door},
    relay::{CHUNK_BYTES, FIRST_CHUNK_BYTES, Of, Relay, Turn, reset},
    settle::Settle,
};

/// Attempts that wait to be told; more are not.
const MAX_ATTEMPTS: usize = 32;
/// Clients taken from one door before others get their turn.
const CLIENTS_A_TURN: usize = 32;
/// Answers of the gateway taken before others get their turn.
const ANSWERS_A_TURN: usize = 64;
/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// How long a turn copies: as long does a new client wait at most to be welcomed, however many others are busy.
const COPY_FOR: Duration = Duration::from_millis(2);
/// Bytes that connections may keep between them before each of them is offered little at once.
const MAX_KEPT: usize = 4 * 1024 * 1024;
/// How long a client may talk on to a gateway that has gone, so that it reads the answer before its connection breaks.
const LINGER: Duration = Duration::from_secs(5);

/// What is watched of a connection from the start.
const CHANGES: EventFlags = EventFlags::IN.union(EventFlags::RDHUP).union(EventFlags::ET);

/// What a stream is wanted for.
#[derive(Debug)]
enum Wanted {
    Connection(OwnedFd, Opening),
    Dns,
    Attempt(Opening),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Server {
    epoll: OwnedFd,
    control: Control,
    most: usize,
    /// Whether the control socket is watched for room to write.
    control_is_full: bool,
    doors: Vec<Door>,
    stub: Stub,
    stub_is_full: bool,
    watch: Watch,
    settle: Settle,
    wanted: VecDeque<Wanted>,
    /// How many of them are attempts.
    attempts: usize,
    relays: HashMap<u64, Carried>,
    /// What all of them keep.
    kept: usize,
    next: u64,
    /// Those that have something to do, each once.
    busy: VecDeque<u64>,
    lingering: VecDeque<(Instant, u64)>,
    scratch: Box<[u8]>,
}

/// A connection with its stream.
#[derive(Debug)]
struct Carried {
    relay: Relay,
    /// Whether it stands in the queue.
    busy: bool,
    lingers: bool,
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Control,
    Queries,
    Answers,
    Datagrams(Sight),
    Settle,
    Door(usize),
    Relay(u64, Of),
}

/// The first numbers are for what there is once.
const FIRST_DOOR: u64 = 8;
const FIRST_RELAY: u64 = 64;

impl Source {
    fn number(self) -> u64 {
        match self {
            Self::Control => 0,
            Self::Queries => 1,
            Self::Answers => 2,
            Self::Datagrams(Sight::Udp) => 3,
            Self::Datagrams(Sight::Icmp) => 4,
            Self::Datagrams(Sight::Udp6) => 5,
            Self::Settle => 6,
            Self::Door(number) => FIRST_DOOR + number as u64,
            Self::Relay(id, Of::Client) => FIRST_RELAY + 2 * id,
            Self::Relay(id, Of::Stream) => FIRST_RELAY + 2 * id + 1,
        }
    }

    fn of(number: u64) -> Self {
        match number {
            0 => Self::Control,
            1 => Self::Queries,
            2 => Self::Answers,
            3 => Self::Datagrams(Sight::Udp),
            4 => Self::Datagrams(Sight::Icmp),
            5 => Self::Datagrams(Sight::Udp6),
            6 => Self::Settle,
            _ if number < FIRST_RELAY => Self::Door(usize::try_from(number.saturating_sub(FIRST_DOOR)).unwrap_or(0)),
            _ => {
                let number = number - FIRST_RELAY;
                Self::Relay(number / 2, if number.is_multiple_of(2) { Of::Client } else { Of::Stream })
            }
        }
    }
}

impl Server {
    pub(super) fn new(egress: Egress, settle: Settle) -> Result<Self, Errno> {
        let Egress { control, most, doors, stub, watch } = egress;
        let server = Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            control,
            most,
            control_is_full: false,
            doors,
            stub,
            stub_is_full: false,
            watch,
            settle,
            wanted: VecDeque::new(),
            attempts: 0,
            relays: HashMap::new(),
            kept: 0,
            next: 0,
            busy: VecDeque::new(),
            lingering: VecDeque::new(),
            scratch: vec![0; CHUNK_BYTES].into(),
        };
        server.add(Source::Control, server.control.socket(), EventFlags::IN)?;
        server.add(Source::Queries, server.stub.socket(), EventFlags::IN)?;
        server.add(Source::Settle, server.settle.socket(), EventFlags::IN)?;
        for sight in Sight::ALL {
            server.add(Source::Datagrams(sight), server.watch.socket(sight), EventFlags::IN)?;
        }
        for (number, door) in server.doors.iter().enumerate() {
            server.add(Source::Door(number), door.socket(), EventFlags::IN)?;
        }
        Ok(server)
    }

    fn add(&self, source: Source, socket: BorrowedFd<'_>, flags: EventFlags) -> Result<(), Errno> {
        epoll::add(&self.epoll, socket, EventData::new_u64(source.number()), flags)
    }

    /// Serves until the gateway has gone. What is open then is closed, and nothing listens any more.
    pub(super) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                // Nothing that the workload does leads here.
                Err(_) => break,
            }
            if self.turn(&events).is_err() {
                break;
            }
        }
        for wanted in self.wanted.drain(..) {
            if let Wanted::Connection(client, _) = wanted {
                reset(client);
            }
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        if !self.busy.is_empty() {
            return Some(Timespec::default());
        }
        let (due, _) = self.lingering.front()?;
        // A little later than it is due, rather than a little too early, again and again.
        let wait = due.saturating_duration_since(Instant::now()) + Duration::from_millis(10);
        Timespec::try_from(wait).ok()
    }

    fn turn(&mut self, events: &[Event]) -> Result<(), Gone> {
        let now = Instant::now();
        for event in events {
            // Packed: a reference to it would not be aligned.
            let (data, flags) = (event.data, event.flags);
            match Source::of(data.u64()) {
                Source::Control => self.hear()?,
                Source::Queries => {
                    if self.stub.listen(now, &mut self.scratch) {
                        self.want(Wanted::Dns);
                    }
                    self.carry_queries();
                }
                Source::Answers => self.carry_queries(),
                Source::Datagrams(sight) => self.look(sight, now),
                Source::Settle => self.begin_to_settle(now),
                Source::Door(number) => self.welcome(number),
                Source::Relay(id, of) => self.wake(id, of, flags),
            }
        }
        self.copy(now);
        self.expire(now);
        self.control.flush()?;
        if self.attempts == 0 {
            self.settle.done();
        }
        let full = self.control.has_unsent();
        if full != self.control_is_full {
            self.control_is_full = full;
            let flags = if full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            let data = EventData::new_u64(Source::Control.number());
            epoll::modify(&self.epoll, self.control.socket(), data, flags).map_err(|_| Gone)?;
        }
        Ok(())
    }

    fn want(&mut self, what: Wanted) {
        self.control.want();
        self.wanted.push_back(what);
    }

    /// Takes the gateway's answers.
    fn hear(&mut self) -> Result<(), Gone> {
        for _ in 0..ANSWERS_A_TURN {
            let Some(answer) = self.control.answer()? else { break };
            let wanted = self.wanted.pop_front().ok_or(Gone)?;
            if let Wanted::Attempt(_) = wanted {
                self.attempts -= 1;
            }
            match (answer, wanted) {
                (Answer::Granted(stream), Wanted::Connection(client, opening)) => {
                    self.connect(client, stream, opening);
                }
                (Answer::Granted(stream), Wanted::Dns) => self.connect_stub(stream),
                (Answer::Granted(stream), Wanted::Attempt(opening)) => {
                    // It is short and the stream is new: it is taken whole, or the gateway has gone.
                    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                    let _ = rustix::net::send(stream, &encode(opening), flags);
                }
                (Answer::Refused, Wanted::Connection(client, _)) => reset(client),
                (Answer::Refused, Wanted::Dns) => self.stub.lost(),
                (Answer::Refused, Wanted::Attempt(_)) => {}
            }
        }
        Ok(())
    }

    fn connect(&mut self, client: OwnedFd, stream: OwnedFd, opening: Opening) {
        let id = self.next;
        self.next += 1;
        let relay = Relay::new(client, stream, encode(opening));
        for of in [Of::Client, Of::Stream] {
            // What cannot be watched is closed with the relay.
            if self.add(Source::Relay(id, of), relay.socket(of), CHANGES).is_err() {
                return;
            }
        }
        self.kept += relay.kept();
        self.relays.insert(id, Carried { relay, busy: true, lingers: false });
        // Its opening is a few bytes, which the gateway can do something about meanwhile.
        self.busy.push_front(id);
    }

    fn connect_stub(&mut self, stream: OwnedFd) {
        self.stub.granted(stream, encode(Opening::Dns));
        let watched = self.stub.stream().map(|stream| self.add(Source::Answers, stream, EventFlags::IN));
        self.stub_is_full = false;
        match watched {
            Some(Ok(())) => self.carry_queries(),
            Some(Err(_)) | None => self.stub.lost(),
        }
    }

    fn carry_queries(&mut self) {
        if self.stub.carry(&mut self.scratch).is_err() {
            return self.stub.lost();
        }
        let full = self.stub.has_unsent();
        if let Some(stream) = self.stub.stream()
            && full != self.stub_is_full
        {
            self.stub_is_full = full;
            let flags = if full { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            if epoll::modify(&self.epoll, stream, EventData::new_u64(Source::Answers.number()), flags).is_err() {
                self.stub.lost();
            }
        }
    }

    fn look(&mut self, sight: Sight, now: Instant) {
        let (mut news, stub) = (Vec::new(), &mut self.stub);
        self.watch.look(sight, now, |to| stub.is_answer(to), |of, to| news.push((of, to)));
        for (protocol, destination) in news {
            if self.attempts < MAX_ATTEMPTS {
                self.attempts += 1;
                self.want(Wanted::Attempt(Opening::Attempt { protocol, destination }));
            }
        }
    }

    /// Nobody sends any more: what the raw sockets hold is all that there will be.
    fn begin_to_settle(&mut self, now: Instant) {
        self.settle.begin();
        for sight in Sight::ALL {
            self.look(sight, now);
        }
    }

    fn welcome(&mut self, number: usize) {
        for _ in 0..CLIENTS_A_TURN {
            let Some(came) = self.doors.get(number).and_then(Door::accept) else { return };
            match came {
                Came::Client(client, opening) if self.relays.len() + self.wanted.len() < self.most => {
                    self.want(Wanted::Connection(client, opening));
                }
                Came::Client(client, _) | Came::Stray(client) => reset(client),
            }
        }
    }

    fn wake(&mut self, id: u64, of: Of, flags: EventFlags) {
        // An event of a relay that has ended in this very turn is nobody's.
        let Some(carried) = self.relays.get_mut(&id) else { return };
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let readable = broken || flags.intersects(EventFlags::IN | EventFlags::RDHUP);
        carried.relay.ready(of, readable, broken || flags.contains(EventFlags::OUT));
        if !std::mem::replace(&mut carried.busy, true) {
            self.busy.push_back(id);
        }
    }

    /// Gives each relay that has something to do its turn, once, or as many of them as there is time for.
    fn copy(&mut self, now: Instant) {
        let began = Instant::now();
        for _ in 0..self.busy.len() {
            if began.elapsed() > COPY_FOR {
                return;
            }
            let Some(id) = self.busy.pop_front() else { return };
            let Some(carried) = self.relays.get_mut(&id) else { continue };
            let room = if self.kept < MAX_KEPT { CHUNK_BYTES } else { FIRST_CHUNK_BYTES };
            let before = carried.relay.kept();
            let mut turn = carried.relay.turn(&mut self.scratch[..room]);
            // What cannot be watched is closed.
            if watch_for_room(&self.epoll, id, &mut carried.relay).is_err() {
                turn = Turn::Over;
            }
            self.kept = self.kept - before + carried.relay.kept();
            carried.busy = turn == Turn::Goes;
            match turn {
                Turn::Waits => {}
                Turn::Goes => self.busy.push_back(id),
                Turn::Lingers if std::mem::replace(&mut carried.lingers, true) => {}
                Turn::Lingers => self.lingering.push_back((now + LINGER, id)),
                Turn::Over => self.end(id),
            }
        }
    }

    fn end(&mut self, id: u64) {
        if let Some(carried) = self.relays.remove(&id) {
            self.kept -= carried.relay.kept();
        }
    }

    /// Ends those who have lingered long enough.
    fn expire(&mut self, now: Instant) {
        while let Some((_, id)) = self.lingering.pop_front_if(|(due, _)| *due <= now) {
            self.end(id);
        }
    }
}

/// Has it told when a socket that was full is not any more.
fn watch_for_room(epoll: &OwnedFd, id: u64, relay: &mut Relay) -> Result<(), Errno> {
    for of in [Of::Client, Of::Stream] {
        if relay.begins_to_wait_for_room(of) {
            let data = EventData::new_u64(Source::Relay(id, of).number());
            epoll::modify(epoll, relay.socket(of), data, CHANGES | EventFlags::OUT)?;
        }
    }
    Ok(())
}

fn encode(opening: Opening) -> Vec<u8> {
    protocol::encode(&opening).expect("an opening is a few bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_has_a_number_of_its_own() {
        let sources = [
            Source::Control,
            Source::Queries,
            Source::Answers,
            Source::Datagrams(Sight::Udp),
            Source::Datagrams(Sight::Icmp),
            Source::Datagrams(Sight::Udp6),
            Source::Settle,
            Source::Door(0),
            Source::Door(4),
            Source::Relay(0, Of::Client),
            Source::Relay(0, Of::Stream),
            Source::Relay(7, Of::Client),
        ];
        for source in sources {
            assert_eq!(Source::of(source.number()), source);
        }
    }
}
