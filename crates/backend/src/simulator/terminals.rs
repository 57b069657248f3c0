//! The model of terminals: a shell that echoes what is typed as a terminal does and knows `echo`, `seq`, `stty size` and
//! `exit`. What it says goes to the host by a task of its own, within the same credit as the real runner's.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use protocol::{
    Exit, GuestFrame, encode,
    terminals::{
        OpenTerminal, TERMINAL_CHUNK_BYTES, TERMINAL_WINDOW_BYTES, TerminalCall, TerminalOp, TerminalReply,
        TerminalSaid, TerminalSize,
    },
};
use tokio::{io::AsyncWriteExt as _, sync::mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::clerk::Pipe;

const PROMPT: &[u8] = b"$ ";
const INTERRUPT: u8 = 0x03;
const END_OF_INPUT: u8 = 0x04;
const ERASE: u8 = 0x7f;

/// All terminals of a sandbox.
#[derive(Debug)]
pub(super) struct Terminals {
    screens: BTreeMap<u32, Screen>,
    /// Bounded by the credit that the host gives, and by the calls that it makes.
    said: mpsc::UnboundedSender<Vec<u8>>,
    _writer: AbortOnDropHandle<()>,
}

/// Says that nothing may be said of terminals any more.
#[derive(Clone, Debug, Default)]
pub(super) struct Silence(Arc<AtomicBool>);

impl Silence {
    /// From here on.
    pub(super) fn begin(&self) {
        self.0.store(true, Ordering::Release);
    }
}

/// One of them.
#[derive(Debug)]
struct Screen {
    size: TerminalSize,
    /// What was typed since the last line.
    line: Vec<u8>,
    /// What was typed while something ran.
    typed: VecDeque<u8>,
    /// What was written and not sent.
    pending: VecDeque<u8>,
    /// Numbers that are still to be written.
    counting: Option<std::ops::RangeInclusive<u64>>,
    credit: u64,
    exit: Option<Exit>,
}

impl Terminals {
    pub(super) fn new(to_host: Pipe, silence: Silence) -> Self {
        let (said, mut heard) = mpsc::unbounded_channel::<Vec<u8>>();
        let writer = tokio::spawn(async move {
            while let Some(frame) = heard.recv().await {
                let mut pipe = to_host.lock().await;
                // Behind the program's exit there are none, and a frame that was begun is written whole.
                if silence.0.load(Ordering::Acquire) || pipe.write_all(&frame).await.is_err() {
                    return;
                }
            }
        });
        Self { screens: BTreeMap::new(), said, _writer: AbortOnDropHandle::new(writer) }
    }

    /// Does what the host asks for.
    pub(super) fn take(&mut self, TerminalCall { terminal, op }: TerminalCall) {
        match op {
            TerminalOp::Open(asked) => self.open(terminal, &asked),
            TerminalOp::Input(data) => {
                if let Some(screen) = self.screens.get_mut(&terminal) {
                    screen.typed.extend(data);
                }
            }
            TerminalOp::Resize(size) => {
                if let Some(screen) = self.screens.get_mut(&terminal) {
                    screen.size = size;
                }
            }
            TerminalOp::Ack { bytes } => {
                if let Some(screen) = self.screens.get_mut(&terminal) {
                    screen.credit += u64::from(bytes);
                }
            }
            TerminalOp::Close => {
                if self.screens.remove(&terminal).is_some() {
                    self.say(terminal, TerminalSaid::Ended(Exit::Signal(1)));
                }
            }
        }
        self.go_on(terminal);
    }

    fn open(&mut self, terminal: u32, asked: &OpenTerminal) {
        let words: Vec<_> = asked.command.iter().map(String::as_str).collect();
        let mut screen = Screen::new(asked.size);
        match words.as_slice() {
            [] | ["sh" | "bash" | "/bin/sh" | "/bin/bash"] => screen.pending.extend(PROMPT),
            [command @ ("echo" | "seq" | "stty"), rest @ ..] => {
                screen.run(&[&[*command], rest].concat().join(" "));
                screen.exit = Some(Exit::Code(0));
            }
            [command, ..] => {
                let message = format!("{command}: No such file or directory");
                return self.say(terminal, TerminalSaid::NotOpened { is_command: true, message });
            }
        }
        self.screens.insert(terminal, screen);
        self.say(terminal, TerminalSaid::Opened);
    }

    /// Whatever can be done now.
    fn go_on(&mut self, terminal: u32) {
        loop {
            let Some(screen) = self.screens.get_mut(&terminal) else { return };
            let (took, output) = (screen.take(), screen.output());
            let ended = screen.exit.filter(|_| screen.is_at_rest());
            let is_done = took == 0 && output.is_empty();
            if took > 0 {
                self.say(terminal, TerminalSaid::Took { bytes: took });
            }
            if !output.is_empty() {
                self.say(terminal, TerminalSaid::Output(output));
            }
            if let Some(exit) = ended {
                self.screens.remove(&terminal);
                return self.say(terminal, TerminalSaid::Ended(exit));
            }
            if is_done {
                return;
            }
        }
    }

    fn say(&self, terminal: u32, said: TerminalSaid) {
        let frame = encode(&GuestFrame::Terminal(TerminalReply { terminal, said }));
        // A host that has gone hears nothing.
        let _ = self.said.send(frame.expect("what is said of terminals is small"));
    }
}

impl Screen {
    fn new(size: TerminalSize) -> Self {
        Self {
            size,
            line: Vec::new(),
            typed: VecDeque::new(),
            pending: VecDeque::new(),
            counting: None,
            credit: TERMINAL_WINDOW_BYTES,
            exit: None,
        }
    }

    /// Nothing runs, and all that was written is sent.
    fn is_at_rest(&self) -> bool {
        self.pending.is_empty() && self.counting.is_none()
    }

    /// Takes what was typed, up to what makes something run; gives how much that was.
    fn take(&mut self) -> u32 {
        let mut took = 0;
        if self.typed.contains(&INTERRUPT) && self.counting.take().is_some() {
            self.pending.extend(PROMPT);
        }
        while self.exit.is_none() && (self.is_at_rest() || (self.counting.is_none() && took > 0)) {
            let Some(byte) = self.typed.pop_front() else { break };
            took += 1;
            match byte {
                b'\r' | b'\n' => {
                    self.pending.extend(b"\r\n");
                    let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
                    self.run(&line);
                    if self.counting.is_some() || self.exit.is_some() {
                        break;
                    }
                    self.pending.extend(PROMPT);
                }
                ERASE => {
                    if self.line.pop().is_some() {
                        self.pending.extend(b"\x08 \x08");
                    }
                }
                INTERRUPT => {
                    self.line.clear();
                    self.pending.extend(b"^C\r\n");
                    self.pending.extend(PROMPT);
                }
                END_OF_INPUT if self.line.is_empty() => {
                    self.exit = Some(Exit::Code(0));
                    break;
                }
                byte => {
                    self.line.push(byte);
                    self.pending.push_back(byte);
                }
            }
        }
        took
    }

    fn run(&mut self, line: &str) {
        let words: Vec<_> = line.split_whitespace().collect();
        let mut text = String::new();
        match words.as_slice() {
            [] => {}
            ["echo", rest @ ..] => text = format!("{}\r\n", rest.join(" ")),
            ["stty", "size"] => text = format!("{} {}\r\n", self.size.rows, self.size.cols),
            ["seq", first, last] => match (first.parse(), last.parse()) {
                (Ok(first), Ok(last)) => self.counting = Some(first..=last),
                (Ok(_) | Err(_), Ok(_) | Err(_)) => text.push_str("seq: invalid argument\r\n"),
            },
            ["exit"] => self.exit = Some(Exit::Code(0)),
            ["exit", code] => self.exit = Some(Exit::Code(code.parse().unwrap_or(2))),
            [command, ..] => text = format!("sh: {command}: command not found\r\n"),
        }
        self.pending.extend(text.as_bytes());
    }

    /// The next part of what was written, as far as there is credit.
    fn output(&mut self) -> Vec<u8> {
        while self.pending.len() < TERMINAL_CHUNK_BYTES {
            let Some(numbers) = &mut self.counting else { break };
            let Some(number) = numbers.next() else {
                self.counting = None;
                if self.exit.is_none() {
                    self.pending.extend(PROMPT);
                }
                break;
            };
            let mut line = String::new();
            write!(line, "{number}\r\n").expect("a String takes any text");
            self.pending.extend(line.as_bytes());
        }
        let most = usize::try_from(self.credit).unwrap_or(usize::MAX).min(TERMINAL_CHUNK_BYTES).min(self.pending.len());
        self.credit -= most as u64;
        self.pending.drain(..most).collect()
    }
}
