//! The frames themselves. Variants are only ever appended: postcard encodes a variant by its position.

use serde::{Deserialize, Serialize};

use crate::{
    files::{FileCall, FileReply},
    terminals::{TerminalCall, TerminalReply},
};

/// Version of this protocol. Both sides refuse another one: host and runner ship in the same binary.
pub const VERSION: u16 = 4;

/// Largest chunk of output that the runner puts into one frame.
pub const OUTPUT_CHUNK_BYTES: usize = 32 * 1024;

/// Largest part of a file in one frame: far under the frame's own limit, and few enough frames for a large file.
pub const PUT_CHUNK_BYTES: usize = 512 * 1024;

/// Largest structured result, as JSON text. The language hosts raise an error above it; the host refuses it.
pub const MAX_RESULT_BYTES: usize = 1024 * 1024;

/// Largest report of a turn, as JSON text: a picture of a usual size in base64, or a long text, and room for the rest.
pub const MAX_TURN_REPORT_BYTES: usize = 2 * 1024 * 1024;

/// Largest message of a runner that gives up. It goes into a line of the host's log, which must not grow with it.
pub const MAX_FAULT_BYTES: usize = 2048;

/// What runs the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Language {
    /// CPython, as the image has it.
    Python,
    /// Node.js, as the image has it.
    Node,
}

impl Language {
    /// The word used on the runner's command line and in image manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }
}

/// Everything that the runner has to know of a session. It is the first thing of any tenant that enters the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The session's id; the runner repeats it in [`GuestFrame::Started`] and [`GuestFrame::Exited`].
    pub session_id: String,
    /// The language host to give the code to.
    pub language: Language,
    /// The program, as text.
    pub code: String,
    /// Arguments, `sys.argv[1..]` and `process.argv[2..]`.
    pub args: Vec<String>,
    /// The whole environment of the workload besides what the runner itself sets (PATH, HOME, LANG, ENCLAVE_*).
    pub env: Vec<(String, String)>,
    /// Processes and threads that the workload may have at once. One more is an overrun that the runner reports.
    pub pids: u32,
    /// Bytes of stdout and stderr together after which the runner stops forwarding and reports an overrun.
    pub output_bytes: u64,
    /// Bytes that its files may take. When it ends with more than that, the runner reports an overrun.
    pub disk_bytes: u64,
    /// The file that the program is, below the working directory and put there before; none when it is text alone.
    pub entrypoint: Option<String>,
    /// Whether the language host waits for [`HostFrame::Turn`] once the code, which may be empty then, has run.
    pub interactive: bool,
    /// Whether the runner stays when its program has ended, until the host closes the pipe: for files that the host still
    /// wants.
    pub stays: bool,
}

/// A piece of code for the language host of an interactive session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// Its number in the session: from 1, and always greater than the one before.
    pub number: u32,
    /// The code, as text.
    pub code: String,
}

/// How a turn ended, as the workload says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    /// [`Turn::number`], repeated.
    pub number: u32,
    /// JSON text of at most [`MAX_TURN_REPORT_BYTES`], unparsed, written by the very process that ran the turn:
    /// `{"status": "completed" | "failed" | "interrupted", "value": {MIME type: representation} | null,
    /// "error": {"name", "value", "traceback"} | null}`.
    #[serde(with = "serde_bytes")]
    pub report: Vec<u8>,
}

/// A part of something that is put below the working directory before the program starts. It belongs to the workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Where, by the rules of [`crate::path`]. Directories on the way are made; nothing that is there is replaced.
    pub path: String,
    /// What.
    pub kind: PutKind,
    /// The next part of the file; of a link the whole target. At most [`PUT_CHUNK_BYTES`].
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
    /// Whether it is the last part. Until then every frame has the same path.
    pub last: bool,
}

/// What can be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PutKind {
    /// A regular file with these permission bits.
    File {
        /// Of 0o777.
        mode: u32,
    },
    /// A symbolic link. It is never followed while files are put.
    Link,
}

/// How far a disk may be over [`Start::disk_bytes`] before that counts, on both sides: a file system counts its own
/// bookkeeping of a file as part of it, and the program itself is one of the files.
pub const DISK_TOLERANCE_BYTES: u64 = 256 * 1024;

/// From the host to the runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostFrame {
    /// Run this one program. Sent once.
    Start(Box<Start>),
    /// A part of a file. Only before the start; the start's confirmation says that all of them are there.
    Put(Put),
    /// Run this piece of code. Only in an interactive session, once it has started, and while no other turn runs.
    Turn(Turn),
    /// Interrupt this turn if it still runs.
    Interrupt {
        /// [`Turn::number`].
        turn: u32,
    },
    /// Something to be done with files. Only behind the start.
    File(FileCall),
    /// End the program and everything that it started. Only behind the start; [`GuestFrame::Exited`] follows.
    Stop,
    /// Something for a terminal. Only behind the start.
    Terminal(TerminalCall),
}

/// Which of the workload's pipes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// A limit that is watched from inside. A hint: a runner that lies about it can only end its own session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum GuestLimit {
    /// More processes and threads than [`Start::pids`].
    Pids,
    /// More output than [`Start::output_bytes`].
    Output,
    /// More in files than [`Start::disk_bytes`]. The host watches this too; only the runner sees it to the very end.
    Disk,
}

/// How the workload's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exit {
    /// It exited with this code, 0 to 255.
    Code(u8),
    /// A signal ended it.
    Signal(u8),
}

impl Exit {
    /// The exit code as a shell would show it: 128 + n for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => i32::from(code),
            Self::Signal(signal) => 128 + i32::from(signal),
        }
    }
}

/// From the runner to the host. Hostile until [`GuestOrder`] has seen it, and a hint after that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestFrame {
    /// First frame, as soon as the runner runs.
    Hello {
        /// [`VERSION`] of the runner.
        version: u16,
    },
    /// The program was handed to the language host.
    Started {
        /// [`Start::session_id`], repeated.
        session_id: String,
    },
    /// Bytes that the workload wrote, in the order in which it wrote them on that stream.
    Output {
        /// On which stream.
        stream: Stream,
        /// At most [`OUTPUT_CHUNK_BYTES`] of them.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// What the workload gave to `enclave.result`: JSON text, unparsed. The last one counts.
    Result {
        /// At most [`MAX_RESULT_BYTES`].
        #[serde(with = "serde_bytes")]
        json: Vec<u8>,
    },
    /// The workload went over a limit that is watched from inside; the host is expected to end the sandbox.
    Exceeded {
        /// Which one.
        limit: GuestLimit,
    },
    /// The workload's first process ended, everything else in the sandbox was killed, and all output was sent.
    Exited {
        /// [`Start::session_id`], repeated.
        session_id: String,
        /// How.
        exit: Exit,
    },
    /// The runner could not do its work (no interpreter in the image, say). Last frame.
    Fault {
        /// For the operator's log; never shown to other tenants, never trusted. At most [`MAX_FAULT_BYTES`].
        message: String,
    },
    /// Something could not be put into the working directory. Last frame.
    NotPut {
        /// Why.
        reason: NotPut,
        /// For people: which file, and what the system said. At most [`MAX_FAULT_BYTES`].
        message: String,
    },
    /// The turn that the host asked for last has ended, and all that it wrote was sent.
    Turned(Turned),
    /// The answer to a call, also behind [`GuestFrame::Exited`] where the runner stays.
    File(FileReply),
    /// Something about a terminal, while the program runs. What is not said to have ended ends with [`GuestFrame::Exited`].
    Terminal(TerminalReply),
}

/// Why a file could not be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum NotPut {
    /// The disk is full.
    NoSpace,
    /// Something of that name is there, or a file where a directory would have to be.
    InTheWay,
    /// Anything else.
    Failed,
}
