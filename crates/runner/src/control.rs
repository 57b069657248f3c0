//! The channel between the runner and the language host: what is said on it, and how little of it is believed.
//!
//! Towards the host program goes one message ([`encode_start`]), in an interactive session followed by turns and
//! interrupts ([`encode_turn`], [`encode_interrupt`]). From it come a "started", results and reports of turns ([`Inbox`]). The program runs in the same process as its language host, so what comes is as hostile as the
//! program: lengths are bounded before anything is kept, and the first malformed byte ends the channel.

use protocol::{MAX_RESULT_BYTES, MAX_TURN_REPORT_BYTES, Start, Turn, Turned};

/// What the caller's environment may not set. The host refuses it; what comes nevertheless is left out.
const RESERVED: &str = "ENCLAVE_";
/// What of that comes from the host: the base URLs of service bindings.
const SERVICES: &str = "ENCLAVE_SVC_";

/// Length of the kind and the length in front of a payload.
const HEADER: usize = 5;
/// Length of the number in front of a turn's report.
const NUMBER: usize = 4;

/// Why a program cannot be handed to the language host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StartError {
    /// A name or value that no environment can hold.
    Environment(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "environment variable {name:?} has no valid name or value"),
        }
    }
}

/// The whole environment of the program: the runner's own names, the caller's over them, and then what the caller
/// may not change.
pub(crate) fn environment(base: &[(&str, &str)], start: &Start) -> Result<Vec<(String, String)>, StartError> {
    let mut env: Vec<(String, String)> = base.iter().map(|&(name, value)| (name.into(), value.into())).collect();
    for (name, value) in &start.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(StartError::Environment(name.clone()));
        }
        if name.starts_with(RESERVED) && !name.starts_with(SERVICES) {
            continue;
        }
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), value.clone()));
    }
    env.push((format!("{RESERVED}SESSION_ID"), start.session_id.clone()));
    Ok(env)
}

/// The message that starts the program; the language hosts describe it.
pub(crate) fn encode_start(base_env: &[(&str, &str)], start: &Start) -> Result<Vec<u8>, StartError> {
    let env = environment(base_env, start)?;
    let limit = MAX_RESULT_BYTES.to_string();
    let count = start.args.len().to_string();
    let entrypoint = start.entrypoint.as_deref().unwrap_or("");
    let report = if start.interactive { MAX_TURN_REPORT_BYTES.to_string() } else { String::new() };
    let strings = [limit.as_str(), &start.session_id, entrypoint, &report, &count].into_iter();
    let strings = strings.chain(start.args.iter().map(String::as_str));
    let strings = strings.chain(env.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    Ok(encode(strings.chain([start.code.as_str()])))
}

/// The message that starts a turn.
pub(crate) fn encode_turn(turn: &Turn) -> Vec<u8> {
    encode([turn.number.to_string().as_str(), &turn.code].into_iter())
}

/// The message that says which turn the signal behind it is meant for.
pub(crate) fn encode_interrupt(turn: u32) -> Vec<u8> {
    encode([turn.to_string().as_str()].into_iter())
}

fn encode<'a>(strings: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut message = vec![0; 4];
    for string in strings {
        message.extend_from_slice(&prefix(string.len()));
        message.extend_from_slice(string.as_bytes());
    }
    let whole = prefix(message.len() - 4);
    message[..4].copy_from_slice(&whole);
    message
}

fn prefix(len: usize) -> [u8; 4] {
    u32::try_from(len).expect("it fits into one frame, which is smaller").to_be_bytes()
}

/// What the language host says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    /// It has the program and runs it now.
    Started,
    /// The program's result so far, as it claims.
    Result(Vec<u8>),
    /// A turn's end, as the program claims.
    Turned(Turned),
}

/// The bytes were not messages. Nothing after them can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Garbage;

/// Cuts bytes from the language host into messages. Holds at most one of them, and what the last read brought.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    buffer: Vec<u8>,
}

impl Inbox {
    /// Adds bytes, and hands over the messages that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], mut take: impl FnMut(Message)) -> Result<(), Garbage> {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let unread = &self.buffer[at..];
            let Some((&[kind, a, b, c, d], rest)) = unread.split_first_chunk::<HEADER>() else { break };
            let len = u32::from_be_bytes([a, b, c, d]) as usize;
            let known = match kind {
                b'S' => len == 0,
                b'R' => len <= MAX_RESULT_BYTES,
                b'T' => (NUMBER..=NUMBER + MAX_TURN_REPORT_BYTES).contains(&len),
                _ => false,
            };
            if !known {
                return Err(Garbage);
            }
            let Some(payload) = rest.get(..len) else {
                self.buffer.reserve_exact(at + HEADER + len - self.buffer.len());
                break;
            };
            take(match (kind, payload.split_first_chunk::<NUMBER>()) {
                (b'T', Some((number, report))) => {
                    Message::Turned(Turned { number: u32::from_be_bytes(*number), report: report.to_vec() })
                }
                (b'R', _) => Message::Result(payload.to_vec()),
                _ => Message::Started,
            });
            at += HEADER + len;
        }
        self.buffer.drain(..at);
        if self.buffer.is_empty() {
            self.buffer.shrink_to(64 * 1024);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use protocol::Language;

    use super::*;

    fn start(env: &[(&str, &str)]) -> Start {
        Start {
            session_id: "ses_1".into(),
            language: Language::Python,
            code: "pass".into(),
            args: vec!["a".into(), String::new()],
            env: env.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
            pids: 1,
            output_bytes: 1,
            disk_bytes: 1,
            entrypoint: Some("src/app.py".into()),
            interactive: false,
            stays: false,
        }
    }

    fn strings(mut message: &[u8]) -> Vec<String> {
        let mut take = || {
            let (len, rest) = message.split_first_chunk::<4>()?;
            let (string, rest) = rest.split_at(u32::from_be_bytes(*len) as usize);
            message = rest;
            Some(String::from_utf8(string.to_vec()).expect("text"))
        };
        std::iter::from_fn(&mut take).collect()
    }

    #[test]
    fn the_caller_may_override_path_but_nothing_of_ours() {
        let own = [("ENCLAVE_SESSION_ID", "ses_2"), ("ENCLAVE_X", "1"), ("ENCLAVE_SVC_API", "http://api")];
        let start = start(&[[("PATH", "/mine"), ("A", "b")].as_slice(), &own].concat());
        let message = encode_start(&[("PATH", "/usr/bin"), ("HOME", "/workspace")], &start).expect("encodes");
        assert_eq!(usize::try_from(u32::from_be_bytes(message[..4].try_into().expect("four"))), Ok(message.len() - 4));
        assert_eq!(
            strings(&message[4..]),
            [
                "1048576",
                "ses_1",
                "src/app.py",
                "",
                "2",
                "a",
                "",
                "HOME",
                "/workspace",
                "PATH",
                "/mine",
                "A",
                "b",
                "ENCLAVE_SVC_API",
                "http://api",
                "ENCLAVE_SESSION_ID",
                "ses_1",
                "pass"
            ]
        );
    }

    #[test]
    fn an_environment_that_cannot_be_set_is_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0")] {
            assert_eq!(encode_start(&[], &start(&[(name, value)])), Err(StartError::Environment(name.into())));
        }
    }

    fn message(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&prefix(payload.len()));
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn messages_survive_any_cutting() {
        let report = message(b'T', b"\0\0\0\x07{}");
        let bytes = [message(b'S', b""), message(b'R', b"[1]"), report, message(b'R', b"")].concat();
        for cut in 1..bytes.len() {
            let (mut inbox, mut seen) = (Inbox::default(), Vec::new());
            for chunk in bytes.chunks(cut) {
                inbox.push(chunk, |message| seen.push(message)).expect("well formed");
            }
            let turned = Message::Turned(Turned { number: 7, report: b"{}".into() });
            assert_eq!(seen, [Message::Started, Message::Result(b"[1]".into()), turned, Message::Result(vec![])]);
        }
    }

    #[test]
    fn an_oversized_or_unknown_message_is_garbage_before_its_payload_is_kept() {
        let oversized = u32::try_from(MAX_RESULT_BYTES + 1).expect("fits").to_be_bytes();
        let report = u32::try_from(NUMBER + MAX_TURN_REPORT_BYTES + 1).expect("fits").to_be_bytes();
        let oversized = [[b"R".as_slice(), &oversized].concat(), [b"T".as_slice(), &report].concat()];
        let unknown = [message(b'S', b"x"), message(b'T', b"\0\0\0"), message(b'Q', b""), vec![0; 5]];
        for bytes in oversized.into_iter().chain(unknown) {
            assert_eq!(Inbox::default().push(&bytes, |_| ()), Err(Garbage));
        }
    }
}
