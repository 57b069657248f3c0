//! Making a terminal: a pair of descriptors, and a program that has one of them for its terminal.
//!
//! It is done by the thread that serves files, which acts as the workload's user and has no capability: so what runs in
//! a terminal is the workload's in every respect, and this process needs no privilege for it once the program runs.

use std::{
    ffi::{CStr, CString},
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::AtomicI32,
};

use protocol::terminals::{MAX_NOT_OPENED_BYTES, OpenTerminal, TerminalSaid, TerminalSize};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pty::OpenptFlags,
    termios::{InputModes, OptionalActions, Winsize},
};

use crate::{
    exec::{self, Identity, Input, Program},
    filter::Filter,
    interpreter::{DEFAULT_PATH, NOBODY, OPEN_FILES, nonblocking},
    setup::User,
};

/// The shells that are looked for, the best first.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
/// What the terminal understands, to who asks.
const KIND: (&str, &str) = ("TERM", "xterm-256color");

/// What the terminals of a sandbox have in common.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) user: User,
    /// Where programs start.
    pub(crate) directory: PathBuf,
    /// The environment of the session's program.
    pub(crate) env: Vec<(String, String)>,
    /// Where the workload is counted, if somewhere: the list of processes, open for writing.
    pub(crate) cgroup: Option<File>,
}

/// A terminal that has a program.
#[derive(Debug)]
pub(crate) struct Pty {
    /// The end of whoever looks at it. Does not block.
    pub(crate) master: OwnedFd,
    /// Held so that the terminal outlasts programs that close it: its end is that of its first program.
    _slave: OwnedFd,
}

/// Why there is none.
#[derive(Debug)]
pub(crate) struct NotOpened {
    is_command: bool,
    message: String,
}

impl NotOpened {
    /// As it is said to the host.
    pub(crate) fn said(self) -> TerminalSaid {
        let Self { is_command, mut message } = self;
        message.truncate(message.floor_char_boundary(MAX_NOT_OPENED_BYTES));
        TerminalSaid::NotOpened { is_command, message }
    }
}

/// Makes a terminal. `number` has its program's before that can end.
pub(crate) fn open(ground: &Ground, asked: &OpenTerminal, number: &AtomicI32) -> Result<Pty, NotOpened> {
    let failed = |errno: Errno| NotOpened { is_command: false, message: format!("a terminal: {errno}") };
    let (master, slave) = pair(asked.size).map_err(failed)?;
    let filter = Filter::new()
        .map_err(|error| NotOpened { is_command: false, message: format!("the filter of system calls: {error}") })?;
    let unusable = |text: &str| NotOpened { is_command: true, message: format!("{text:?} holds a zero byte") };
    let string = |text: &str| CString::new(text).map_err(|_| unusable(text));
    let env = environment(ground, asked);
    let variables: Vec<_> =
        env.iter().map(|(name, value)| string(&format!("{name}={value}"))).collect::<Result<_, _>>()?;
    let variables: Vec<&CStr> = variables.iter().map(CString::as_c_str).collect();
    let arguments: Vec<_> = asked.command.iter().map(|word| string(word)).collect::<Result<_, _>>()?;
    let directory = string(&ground.directory.to_string_lossy())?;
    let mut met = Errno::NOENT;
    for path in candidates(asked, &env) {
        let path = string(&path)?;
        let mut arguments: Vec<&CStr> = arguments.iter().map(CString::as_c_str).collect();
        if arguments.is_empty() {
            arguments.push(&path);
        }
        let spawned = exec::spawn(&Program {
            path: &path,
            arguments: &arguments,
            environment: &variables,
            directory: &directory,
            identity: match ground.user {
                User::Nobody => Identity::Acting(NOBODY),
                User::Same => Identity::Same,
            },
            descriptors: &[slave.as_fd(), slave.as_fd(), slave.as_fd()],
            input: Input::Terminal,
            cgroup: ground.cgroup.as_ref().map(|list| list.as_fd()),
            number,
            open_files: OPEN_FILES,
            filter: &filter,
        });
        match spawned {
            Ok(_) => return Ok(Pty { master, _slave: slave }),
            // There may be another of that name.
            Err(errno @ (Errno::NOENT | Errno::NOTDIR)) => {
                met = if met == Errno::NOENT { errno } else { met };
            }
            Err(errno @ Errno::ACCESS) => met = errno,
            Err(errno) => {
                met = errno;
                break;
            }
        }
    }
    let name = asked.command.first().map_or("no shell of this image", String::as_str);
    // The number of processes, or memory: the command may be as good as any.
    let is_command = !matches!(met, Errno::AGAIN | Errno::NOMEM | Errno::PERM);
    Err(NotOpened { is_command, message: format!("{name}: {met}") })
}

/// Both ends: whoever looks, and the program.
fn pair(size: TerminalSize) -> Result<(OwnedFd, OwnedFd), Errno> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&master)?;
    rustix::pty::unlockpt(&master)?;
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let slave = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    nonblocking(master.as_fd())?;
    resize(&master, size)?;
    // So that deleting a character deletes all of its bytes. Without, it is an older terminal.
    if let Ok(mut modes) = rustix::termios::tcgetattr(&slave) {
        modes.input_modes |= InputModes::IUTF8;
        let _ = rustix::termios::tcsetattr(&slave, OptionalActions::Now, &modes);
    }
    Ok((master, slave))
}

/// Gives the terminal a size, which its programs are told.
pub(crate) fn resize(master: &OwnedFd, size: TerminalSize) -> Result<(), Errno> {
    let TerminalSize { rows, cols } = size;
    rustix::termios::tcsetwinsize(master, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 })
}

/// The session's, the terminal's own, and what was asked for, each over those before.
fn environment(ground: &Ground, asked: &OpenTerminal) -> Vec<(String, String)> {
    let (name, value) = KIND;
    let own = [(name.to_owned(), value.to_owned())];
    let mut env: Vec<(String, String)> = Vec::new();
    for (name, value) in ground.env.iter().chain(&own).chain(&asked.env) {
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), value.clone()));
    }
    env
}

/// Where the program may be.
fn candidates(asked: &OpenTerminal, env: &[(String, String)]) -> Vec<String> {
    let Some(name) = asked.command.first() else { return SHELLS.map(str::to_owned).into() };
    if name.contains('/') {
        return vec![name.clone()];
    }
    let path = env.iter().find(|(name, _)| name == "PATH").map_or(DEFAULT_PATH, |(_, path)| path);
    let within =
        |dir: &str| Path::new(if dir.is_empty() { "." } else { dir }).join(name).to_string_lossy().into_owned();
    path.split(':').map(within).collect()
}
