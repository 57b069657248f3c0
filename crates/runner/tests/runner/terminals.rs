//! Terminals over the frames of a real runner, with the shell of this host.

use protocol::{
    Exit, GuestFrame, HostFrame, Language,
    files::{FileDone, FileOp},
    terminals::{
        MAX_TERMINALS, OpenTerminal, TERMINAL_CHUNK_BYTES, TERMINAL_INPUT_BYTES, TERMINAL_WINDOW_BYTES, TerminalCall,
        TerminalOp, TerminalReply, TerminalSaid, TerminalSize,
    },
};

use crate::{
    files::ask,
    support::{Case, Open, eventually, has, is_running, python},
};

const SIZE: TerminalSize = TerminalSize { rows: 24, cols: 80 };

/// A terminal as its host has it.
pub(crate) struct Terminal<'a> {
    open: &'a mut Open,
    number: u32,
    pub(crate) seen: Vec<u8>,
    unacked: u64,
    /// Input that was not taken.
    ahead: u64,
    acks: bool,
    pub(crate) ended: Option<Exit>,
}

/// Tells what was waited for, when nothing more comes.
struct Told<'a> {
    wanted: &'a str,
    seen: &'a str,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("waited for {:?}, saw {:?}", self.wanted, self.seen);
        }
    }
}

impl<'a> Terminal<'a> {
    fn of(open: &'a mut Open, number: u32) -> Self {
        Self { open, number, seen: vec![], unacked: 0, ahead: 0, acks: true, ended: None }
    }

    pub(crate) fn new(open: &'a mut Open, number: u32, command: &[&str]) -> Result<Self, String> {
        order(open, number, command);
        let mut terminal = Self::of(open, number);
        match terminal.next() {
            TerminalSaid::Opened => Ok(terminal),
            TerminalSaid::NotOpened { is_command: true, message } => Err(message),
            other @ (TerminalSaid::NotOpened { .. }
            | TerminalSaid::Output(_)
            | TerminalSaid::Took { .. }
            | TerminalSaid::Ended(_)) => panic!("{other:?}"),
        }
    }

    /// The next that is said of it.
    fn next(&mut self) -> TerminalSaid {
        loop {
            let frame = self.open.next().expect("the runner lives");
            if let GuestFrame::Terminal(TerminalReply { terminal, said }) = frame
                && terminal == self.number
            {
                self.take(&said);
                return said;
            }
        }
    }

    fn take(&mut self, said: &TerminalSaid) {
        match said {
            TerminalSaid::Output(data) => {
                self.seen.extend(data);
                self.unacked += data.len() as u64;
                assert!(self.unacked <= TERMINAL_WINDOW_BYTES, "more than the window");
                if self.acks {
                    self.ack(self.unacked);
                }
            }
            TerminalSaid::Took { bytes } => {
                self.ahead = self.ahead.checked_sub(u64::from(*bytes)).expect("no more than was sent");
            }
            TerminalSaid::Ended(exit) => self.ended = Some(*exit),
            TerminalSaid::Opened | TerminalSaid::NotOpened { .. } => {}
        }
    }

    fn call(&mut self, op: TerminalOp) {
        self.open.send(&HostFrame::Terminal(TerminalCall { terminal: self.number, op }));
    }

    fn ack(&mut self, bytes: u64) {
        self.unacked -= bytes;
        self.call(TerminalOp::Ack { bytes: u32::try_from(bytes).expect("within the window") });
    }

    pub(crate) fn types(&mut self, text: &str) {
        for part in text.as_bytes().chunks(TERMINAL_CHUNK_BYTES) {
            while self.ahead + part.len() as u64 > TERMINAL_INPUT_BYTES {
                self.next();
            }
            self.ahead += part.len() as u64;
            self.call(TerminalOp::Input(part.to_vec()));
        }
    }

    /// Waits for a text, and forgets what came up to it.
    pub(crate) fn expect(&mut self, text: &str) {
        loop {
            let seen = String::from_utf8_lossy(&self.seen).into_owned();
            if let Some(at) = seen.find(text) {
                self.seen = seen[at + text.len()..].into();
                return;
            }
            assert_eq!(self.ended, None, "ended without {text:?}: {seen}");
            let _told = Told { wanted: text, seen: &seen };
            self.next();
        }
    }

    pub(crate) fn end(&mut self) -> Exit {
        while self.ended.is_none() {
            self.next();
        }
        self.ended.expect("ended")
    }
}

fn order(open: &mut Open, terminal: u32, command: &[&str]) {
    let command = command.iter().map(ToString::to_string).collect();
    let asked = OpenTerminal { command, env: vec![("PS1".into(), "ready> ".into())], size: SIZE };
    open.send(&HostFrame::Terminal(TerminalCall { terminal, op: TerminalOp::Open(asked) }));
}

/// A session whose program waits.
pub(crate) fn waiting(test: &str) -> Option<(Case, Open)> {
    if !has(Language::Python, test) {
        return None;
    }
    let case = python("import time\nprint('ready', flush=True)\ntime.sleep(600)")
        .with(|start| start.env = vec![("COLOUR".into(), "blue".into())]);
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for("ready");
    Some((case, open))
}

/// A shell that reads no start-up files, so that this host's habits do not matter.
const SHELL: [&str; 2] = ["sh", "-i"];

#[test]
fn a_terminal_is_a_shell_with_a_size_and_the_environment_of_the_program() {
    let Some((case, mut open)) = waiting("terminals::shell") else { return };
    let mut shell = Terminal::new(&mut open, 1, &SHELL).expect("opens");
    shell.expect("ready> ");
    shell.types("test -t 0 && test -t 1 && test -t 2 && stty size; tty\n");
    shell.expect("24 80\r\n/dev/pts/");
    shell.call(TerminalOp::Resize(TerminalSize { rows: 50, cols: 132 }));
    shell.types("stty size; echo $COLOUR $TERM $HOME $ENCLAVE_SESSION_ID; pwd\n");
    let place = case.workspace().display().to_string();
    shell.expect(&format!("50 132\r\nblue xterm-256color {place} ses_0197\r\n{place}\r\nready> "));
    // Nothing of the runner's; 10 is the shell's own, of the terminal.
    shell.types("ls -m /proc/$$/fd; echo coun''ted\n");
    shell.expect("\r\n0, 1, 10, 2\r\ncounted");
    shell.types("exit 7\n");
    assert_eq!(shell.end(), Exit::Code(7));
}

#[test]
fn ctrl_c_is_for_what_runs_in_the_foreground_and_jobs_can_be_controlled() {
    let Some((_case, mut open)) = waiting("terminals::jobs") else { return };
    let mut shell = Terminal::new(&mut open, 1, &SHELL).expect("opens");
    shell.expect("ready> ");
    shell.types("sh -c 'echo begun; exec sleep 600'\n");
    shell.expect("begun\r\n");
    shell.types("\x03");
    shell.expect("ready> ");
    shell.types("echo $?\n");
    shell.expect("130\r\n");
    shell.types("sh -c 'echo begun; exec sleep 600'\n");
    shell.expect("begun\r\n");
    shell.types("\x1a");
    shell.expect("ready> ");
    shell.types("kill %1; fg; echo gone\n");
    shell.expect("gone\r\n");
    shell.types("\x04");
    shell.end();
}

#[test]
fn a_flood_that_nobody_takes_waits_and_holds_nothing_else_up() {
    let Some((_case, mut open)) = waiting("terminals::flood") else { return };
    let count = 100_000;
    let last = count.to_string();
    let mut flood = Terminal::new(&mut open, 1, &["seq", "1", &last]).expect("opens");
    flood.acks = false;
    while flood.unacked < TERMINAL_WINDOW_BYTES {
        flood.next();
    }
    // What came is checked against the window by whoever takes it.
    let listed = ask(flood.open, FileOp::List { path: None, recursive: false, after: None, limit: 10 });
    assert!(matches!(listed, Ok(FileDone::Listed { .. })), "{listed:?}");
    let mut other = Terminal::new(flood.open, 2, &SHELL).expect("opens");
    other.expect("ready> ");
    other.types("echo lively\n");
    other.expect("\r\nlively");
    let window = flood.unacked;
    flood.ack(window);
    flood.acks = true;
    assert_eq!(flood.end(), Exit::Code(0));
    let expected: String = (1..=count).map(|number| format!("{number}\r\n")).collect();
    assert!(flood.seen == expected.as_bytes(), "every byte, once, in order");
}

#[test]
fn input_that_nobody_reads_waits_and_holds_nothing_else_up() {
    let Some((_case, mut open)) = waiting("terminals::input") else { return };
    let mut idle = Terminal::new(&mut open, 1, &["sh", "-c", "stty raw -echo; echo deaf; sleep 600"]).expect("opens");
    idle.expect("deaf");
    for _ in 0..TERMINAL_INPUT_BYTES / TERMINAL_CHUNK_BYTES as u64 {
        idle.ahead += TERMINAL_CHUNK_BYTES as u64;
        idle.call(TerminalOp::Input(vec![b'x'; TERMINAL_CHUNK_BYTES]));
    }
    let mut other = Terminal::new(idle.open, 2, &SHELL).expect("opens");
    other.expect("ready> ");
    other.types("echo lively\n");
    other.expect("\r\nlively");
    let mut reader =
        Terminal::new(&mut *other.open, 3, &["sh", "-c", "stty raw -echo; echo ready; head -c 200000 | wc -c"])
            .expect("opens");
    reader.expect("ready");
    reader.types(&"y".repeat(200_000));
    reader.expect("200000");
    assert_eq!(reader.end(), Exit::Code(0));
}

#[test]
fn a_terminal_that_is_closed_leaves_no_process() {
    let Some((_case, mut open)) = waiting("terminals::closed") else { return };
    let word = format!("closed-{}", std::process::id());
    let mut shell = Terminal::new(&mut open, 1, &SHELL).expect("opens");
    shell.expect("ready> ");
    // In the background, in the foreground, and deaf to what asks it to go.
    shell.types(&format!("sh -c 'sleep 600; {word}' &\n"));
    shell.expect("ready> ");
    shell.types(&format!("sh -c \"trap '' HUP TERM INT; echo de''af; sleep 600; sleep 600; {word}\"\n"));
    shell.expect("deaf\r\n");
    assert!(is_running(&word));
    shell.call(TerminalOp::Close);
    shell.end();
    eventually(|| (!is_running(&word)).then_some(()));
    // The number is free for nobody, and the session goes on.
    let mut other = Terminal::new(shell.open, 2, &SHELL).expect("opens");
    other.expect("ready> ");
}

#[test]
fn what_cannot_be_run_is_said() {
    let Some((_case, mut open)) = waiting("terminals::absent") else { return };
    for command in [&["no-such-program"][..], &["/no/such/program"], &["/etc/passwd"], &["./nothing"], &["/"]] {
        let message = Terminal::new(&mut open, 1, command).err().expect("there is no such program");
        assert!(message.contains(command[0]), "{message}");
    }
    let mut honest = Terminal::new(&mut open, 2, &["sh", "-c", "kill -9 $$"]).expect("opens");
    assert_eq!(honest.end(), Exit::Signal(9));
}

#[test]
fn terminals_end_with_the_program() {
    if !has(Language::Python, "terminals::program") {
        return;
    }
    let word = format!("ends-{}", std::process::id());
    let case = python("import os, time\nprint('ready', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.005)");
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for("ready");
    let mut shell = Terminal::new(&mut open, 1, &SHELL).expect("opens");
    shell.expect("ready> ");
    shell.types(&format!("touch go; sh -c 'sleep 600; {word}'\n"));
    let run = open.finish();
    assert_eq!(run.exit(), Exit::Code(0));
    assert!(!is_running(&word));
}

#[test]
fn a_host_that_breaks_the_rules_of_terminals_is_told() {
    let input = |bytes| TerminalOp::Input(vec![0; bytes]);
    for (what, ops) in [
        ("more input", vec![input(TERMINAL_CHUNK_BYTES + 1)]),
        ("more output", vec![TerminalOp::Ack { bytes: u32::MAX }]),
    ] {
        let Some((_case, mut open)) = waiting("terminals::rules") else { return };
        let mut deaf = Terminal::new(&mut open, 1, &["sleep", "600"]).expect("opens");
        for op in ops {
            deaf.call(op);
        }
        assert!(open.finish().fault().contains(what));
    }
    let Some((_case, mut open)) = waiting("terminals::rules") else { return };
    // Of one that is not there, nothing is wrong.
    for op in [input(1), TerminalOp::Ack { bytes: 1 }, TerminalOp::Resize(SIZE), TerminalOp::Close] {
        open.send(&HostFrame::Terminal(TerminalCall { terminal: 9, op }));
    }
    for number in 0..=u32::try_from(MAX_TERMINALS).expect("few") {
        order(&mut open, number, &["sleep", "600"]);
    }
    assert!(open.finish().fault().contains("too many terminals"));
}
