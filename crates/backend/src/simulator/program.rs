//! What a program is modelled as: a list of things that can be observed of it.

use std::{net::IpAddr, time::Duration};

use model::Language;
use protocol::Stream;

use super::{recognise, script};

/// One thing that a program does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// Writes these bytes.
    Write(Stream, Vec<u8>),
    /// Writes so many bytes of filler.
    Flood(Stream, u64),
    /// Waits.
    Sleep(Duration),
    /// Burns CPU time; for ever when none is named.
    Cpu(Option<Duration>),
    /// Takes memory and keeps it.
    Memory(u64),
    /// Starts processes that stay.
    Fork(u32),
    /// Starts threads that stay.
    Threads(u32),
    /// Writes to files and keeps them.
    Disk(u64),
    /// Writes this to a file of the working directory.
    Save { path: String, data: Vec<u8>, append: bool },
    /// Gives JSON text to `enclave.result`, valid or not.
    Result(Vec<u8>),
    /// Hands back the arguments and the environment as the result.
    Mirror,
    /// Ends with this code.
    Exit(u8),
    /// Dies of this signal.
    Signal(u8),
    /// Dies of an exception on this line.
    Raise {
        /// The exception, as the last line of a trace shows it.
        text: String,
        /// Where it happened, counted from 1.
        line: usize,
    },
    /// Tries to reach something over the network, and prints how that went.
    Connect(Reach, String),
    /// An HTTP request, likewise.
    Request { method: String, url: String },
    /// A call of a binding, likewise.
    Invoke { name: String, method: String, path: String },
    /// Makes a name resolve to this for the rest of the program.
    Name(String, IpAddr),
    /// Reaches something over the network, or dies of an exception on this line.
    Need {
        /// By what.
        reach: Reach,
        /// What.
        to: String,
        /// Counted from 1.
        line: usize,
    },
    /// Tries to read a file.
    Read(String),
    /// Writes out a file that was put into its working directory.
    Cat(String),
    /// Waits for ever.
    Hang,
    /// The runner, not the program, misbehaves.
    Frame(Misbehaviour),
}

/// By what something is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    Tcp,
    Udp,
    Dns,
    Http,
}

impl Reach {
    pub(super) const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Dns, Self::Http];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Dns => "dns",
            Self::Http => "http",
        }
    }
}

/// What a runner that was taken over might send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misbehaviour {
    /// A frame of bytes that mean nothing.
    Garbage,
    /// A frame that announces more than a frame may hold.
    Oversized,
    /// A frame that may not come now.
    WrongOrder,
    /// An exit in the name of another session.
    OtherSession,
    /// A second hello.
    HelloAgain,
    /// A chunk of output larger than a runner may send.
    Excessive,
    /// Nothing any more, and no end either.
    Silent,
    /// It goes away in the middle of a frame.
    Die,
}

impl Misbehaviour {
    pub(super) const ALL: [Self; 8] = [
        Self::Garbage,
        Self::Oversized,
        Self::WrongOrder,
        Self::OtherSession,
        Self::HelloAgain,
        Self::Excessive,
        Self::Silent,
        Self::Die,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Garbage => "garbage",
            Self::Oversized => "oversized",
            Self::WrongOrder => "wrong-order",
            Self::OtherSession => "other-session",
            Self::HelloAgain => "hello-again",
            Self::Excessive => "excessive",
            Self::Silent => "silent",
            Self::Die => "die",
        }
    }
}

/// A whole program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) instructions: Vec<Instruction>,
    /// Where to go on after the last instruction, for a program that has no end. From there on at least one instruction
    /// takes time.
    pub(super) again: Option<usize>,
}

impl Program {
    /// Reads the script in the source's comments or, if there is none, what is recognised of the source itself.
    /// Whoever has a way out may use the network in more ways.
    pub(super) fn read(source: &str, language: Language, has_way_out: bool) -> Self {
        script::read(source, language).unwrap_or_else(|| recognise::read(source, language, has_way_out))
    }
}
