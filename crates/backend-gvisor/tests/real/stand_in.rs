//! A gateway that decides nothing: grants every stream, tells what each was for, and serves it by its port. The test
//! binary plays it in a process of its own, started by the backend as a real gateway would be.

use std::{
    env,
    io::{self, BufRead as _, BufReader, IoSlice, Read as _, Write as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{Arc, Mutex},
    thread,
};

use backend::GatewayProgram;
use model::gateway::{FromGateway, GatewayEvent, GatewayLimits, GatewaySpec, ToGateway};
use protocol::egress::{GRANTED, MAX_OPENING_BYTES, Opening, REFUSED, WANT};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::json;

const MODE: &str = "ENCLAVE_TEST_MODE";
const CONTROL: &str = "ENCLAVE_TEST_CONTROL";
const PIPE: &str = "ENCLAVE_TEST_PIPE";

/// Reads a line with a number, and sends so many bytes.
pub(crate) const SOURCE: u16 = 1000;
/// Counts what comes, to its end, and says how much it was.
pub(crate) const SINK: u16 = 1001;
/// Ends by breaking off in the middle of what it is told.
pub(crate) const SLAM: u16 = 1002;
/// What every name resolves to.
pub(crate) const RESOLVED: [u8; 4] = [192, 0, 2, 7];

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Serves,
    /// Grants nothing.
    Refuses,
    /// Ends before it is ready.
    Dies,
    /// Says something senseless when it is asked for a stream.
    Babbles,
}

/// The program, with the test binary at a place that any user can reach.
pub(crate) fn program(binary: &Path, mode: Mode) -> GatewayProgram {
    // A test binary takes no options of ours, so they go through the environment.
    let script = format!(
        "export {MODE}={mode:?} {CONTROL}=\"$2\" {PIPE}=\"$4\"; exec \"$0\" --exact stand_in::gateway --ignored"
    );
    let arguments = vec!["-c".into(), script, binary.to_str().unwrap().to_owned()];
    GatewayProgram { program: "/bin/sh".into(), arguments }
}

/// A specification that says nothing.
pub(crate) fn spec() -> GatewaySpec {
    GatewaySpec {
        session: "ses_00000000-0000-7000-8000-000000000001".parse().unwrap(),
        policy: model::egress::Policy::default(),
        limits: GatewayLimits::default(),
        bindings: Vec::new(),
    }
}

#[test]
#[ignore = "the gateway that other tests have started"]
fn gateway() {
    let Ok(mode) = env::var(MODE) else { return };
    let (control, pipe) = (inherited(CONTROL), inherited(PIPE));
    let mut line = String::new();
    BufReader::new(control.try_clone().unwrap()).read_line(&mut line).unwrap();
    assert!(matches!(serde_json::from_str(&line).unwrap(), ToGateway::Configure(_)));
    if mode == format!("{:?}", Mode::Dies) {
        return;
    }
    let told = Arc::new(Mutex::new(control));
    tell(&told, &FromGateway::Ready);
    eprintln!("serving as {}", rustix::process::getuid().as_raw());
    let mut byte = [0];
    let mut streams = Vec::new();
    while (&pipe).read(&mut byte).is_ok_and(|read| read == 1) {
        assert_eq!(byte[0], WANT);
        if mode == format!("{:?}", Mode::Refuses) {
            (&pipe).write_all(&[REFUSED]).unwrap();
            continue;
        }
        if mode == format!("{:?}", Mode::Babbles) {
            told.lock().unwrap().write_all(b"{\"type\":\"surprise\"}\n").unwrap();
        }
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let given = [theirs.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&given)));
        rustix::net::sendmsg(&pipe, &[IoSlice::new(&[GRANTED])], &mut ancillary, SendFlags::empty()).unwrap();
        let told = Arc::clone(&told);
        // What a client breaks off ends its thread alone.
        streams.push(thread::spawn(move || serve(ours, &told)));
    }
    // With the sandbox, their other ends have gone.
    for stream in streams {
        let _ = stream.join();
    }
    tell(&told, &FromGateway::Usage { egress_bytes: 4711 });
}

#[expect(unsafe_code, reason = "descriptors are inherited by number")]
fn inherited(name: &str) -> UnixStream {
    let number = env::var(name).unwrap().parse().unwrap();
    // SAFETY: the backend passed it for this purpose, and nobody else here takes it.
    UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) })
}

fn tell(told: &Mutex<UnixStream>, what: &FromGateway) {
    let mut line = serde_json::to_vec(what).unwrap();
    line.push(b'\n');
    // Nobody listens any more when the test is over.
    let _ = told.lock().unwrap().write_all(&line);
}

fn opening(stream: &mut UnixStream) -> Opening {
    let mut bytes = [0; MAX_OPENING_BYTES];
    stream.read_exact(&mut bytes[..4]).unwrap();
    let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    stream.read_exact(&mut bytes[4..4 + len]).unwrap();
    let mut decoder = protocol::Decoder::new();
    decoder.push(&bytes[..4 + len]);
    decoder.next_frame().unwrap().unwrap()
}

fn serve(mut stream: UnixStream, told: &Mutex<UnixStream>) {
    let opening = opening(&mut stream);
    tell(
        told,
        &FromGateway::Event(GatewayEvent {
            ts: serde_json::from_value(json!("2026-01-01T00:00:00.000Z")).unwrap(),
            kind: serde_json::from_value(json!("egress_allowed")).unwrap(),
            source: serde_json::from_value(json!("gateway")).unwrap(),
            data: json!({ "opening": format!("{opening:?}") }),
            denial: None,
        }),
    );
    match opening {
        Opening::Captured(to) if to.port() == SOURCE => {
            let mut line = String::new();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
            io::copy(&mut io::repeat(b'x').take(line.trim().parse().unwrap()), &mut stream).unwrap();
        }
        Opening::Captured(to) if to.port() == SINK => {
            let count = io::copy(&mut stream, &mut io::sink()).unwrap();
            write!(stream, "{count}").unwrap();
        }
        Opening::Captured(to) if to.port() == SLAM => {
            stream.read_exact(&mut [0]).unwrap();
            stream.write_all(b"no").unwrap();
        }
        Opening::Captured(_) => {
            io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
        }
        Opening::Http | Opening::Socks => {
            let mut bytes = [0; 1024];
            let len = stream.read(&mut bytes).unwrap();
            write!(stream, "{opening:?} {}", String::from_utf8_lossy(&bytes[..len])).unwrap();
        }
        Opening::Dns => while answer(&mut stream).is_some() {},
        Opening::Attempt { .. } => assert_eq!(stream.read(&mut [0]).unwrap(), 0),
    }
}

/// Answers one query: an A record, or nothing of that type.
fn answer(stream: &mut UnixStream) -> Option<()> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).ok()?;
    let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut query).ok()?;
    let end = 12 + query[12..].iter().position(|&byte| byte == 0)? + 5;
    let is_a = query[end - 4..end - 2] == [0, 1];
    let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0], &query[12..end]].concat();
    if is_a {
        answer.extend_from_slice(&[&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4][..], &RESOLVED].concat());
    }
    stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).ok()?;
    stream.write_all(&answer).ok()
}
