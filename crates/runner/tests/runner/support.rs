//! Starts runners and reads what they say, with a deadline on everything.

mod turns;

use std::{
    io::{Read as _, Write as _},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use protocol::{Decoder, Exit, GuestFrame, GuestLimit, GuestOrder, HostFrame, Language, Start, Stream};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
/// Who runs the runner when root runs the tests.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether the interpreter can be run by whom the tests run it as; says so if not.
pub(crate) fn has(language: Language, test: &str) -> bool {
    let name = match language {
        Language::Python => "python3",
        Language::Node => "node",
    };
    let mut command = Command::new("/usr/bin/env");
    command.args([name, "--version"]).env("PATH", path()).stdout(Stdio::null()).stderr(Stdio::null());
    if is_root() {
        command.uid(NOBODY);
    }
    let found = command.status().is_ok_and(|status| status.success());
    if !found {
        println!("SKIP {test}: {name} for an ordinary user");
    }
    found
}

/// Where interpreters are looked for: what an ordinary user of the machine can reach.
pub(crate) fn path() -> String {
    std::env::var("ENCLAVE_TEST_PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".into())
}

/// A program to run, and the sandbox to run it in.
pub(crate) struct Case {
    pub(crate) start: Start,
    pub(crate) dir: TempDir,
    pub(crate) options: Vec<String>,
    pub(crate) path: String,
    /// What to start instead of the runner itself, with the runner's command line as arguments.
    pub(crate) wrapper: Vec<String>,
}

pub(crate) fn python(code: &str) -> Case {
    Case::new(Language::Python, code)
}

pub(crate) fn node(code: &str) -> Case {
    Case::new(Language::Node, code)
}

impl Case {
    pub(crate) fn new(language: Language, code: &str) -> Self {
        // Not in /tmp, which some tests put a disk on.
        let dir = tempfile::tempdir_in("/var/tmp").expect("creates");
        let workspace = dir.path().join("workspace");
        std::fs::create_dir(&workspace).expect("creates");
        // A copy that an ordinary user can reach, wherever the build directory is.
        std::fs::copy(env!("CARGO_BIN_EXE_enclave-runner"), dir.path().join("runner")).expect("copies");
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("opens");
        if is_root() {
            chown(&workspace, Some(NOBODY), Some(NOBODY)).expect("gives away");
        }
        let start = Start {
            session_id: "ses_0197".into(),
            language,
            code: code.into(),
            args: vec![],
            env: vec![],
            pids: 128,
            output_bytes: 64 << 20,
            disk_bytes: 1 << 30,
            entrypoint: None,
            interactive: false,
            stays: false,
        };
        let options = ["--language", language.as_str(), "--workspace", workspace.to_str().expect("text")];
        Self { start, dir, options: options.map(String::from).into(), path: path(), wrapper: vec![] }
    }

    pub(crate) fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    pub(crate) fn runner(&self) -> PathBuf {
        self.dir.path().join("runner")
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Start)) -> Self {
        change(&mut self.start);
        self
    }

    pub(crate) fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(ToString::to_string));
        self
    }

    /// Starts a runner that has no program yet.
    pub(crate) fn open(&self) -> Open {
        let runner = self.runner().to_str().expect("text").to_owned();
        let words: Vec<_> = self.wrapper.iter().chain([&runner]).chain(&self.options).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().env("PATH", &self.path).env("SECRET", "of the host");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if is_root() && self.wrapper.is_empty() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().expect("starts");
        let (stdin, mut stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        let mut stderr = child.stderr.take().expect("piped");
        let (send, frames) = channel();
        let reader = std::thread::spawn(move || {
            let (mut decoder, mut chunk) = (Decoder::new(), vec![0; 1 << 16]);
            while let Ok(count @ 1..) = stdout.read(&mut chunk) {
                decoder.push(&chunk[..count]);
                while let Some(frame) = decoder.next_frame().expect("an honest runner writes frames") {
                    let _ = send.send(frame);
                }
            }
            assert!(!decoder.is_mid_frame(), "the runner stopped in the middle of a frame");
        });
        let log = std::thread::spawn(move || {
            let mut log = String::new();
            let _ = stderr.read_to_string(&mut log);
            log
        });
        let mut order = GuestOrder::new();
        order.assign(&self.start.session_id);
        Open { child, stdin, frames, reader: Some(reader), log: Some(log), order, seen: vec![] }
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self) -> Run {
        let mut open = self.open();
        open.send(&HostFrame::Start(Box::new(self.start.clone())));
        open.finish()
    }
}

/// A runner that lives.
pub(crate) struct Open {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    frames: Receiver<GuestFrame>,
    reader: Option<JoinHandle<()>>,
    log: Option<JoinHandle<String>>,
    order: GuestOrder,
    seen: Vec<GuestFrame>,
}

impl Open {
    pub(crate) fn send(&mut self, frame: &HostFrame) {
        self.send_bytes(&protocol::encode(frame).expect("encodes"));
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        // A runner that has gone shows it by its frames.
        let _ = self.stdin.as_mut().expect("open").write_all(bytes);
    }

    /// The host dies.
    pub(crate) fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// The next frame; every one is checked to come in order.
    pub(crate) fn next(&mut self) -> Option<GuestFrame> {
        match self.frames.recv_timeout(PATIENCE) {
            Ok(frame) => {
                self.order.check(&frame).expect("in order");
                self.seen.push(frame.clone());
                Some(frame)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the runner says nothing more after {:?}", self.seen.last()),
        }
    }

    /// Reads frames until this limit is exceeded.
    pub(crate) fn wait_for_exceeded(&mut self, limit: GuestLimit) {
        while !self.seen.contains(&GuestFrame::Exceeded { limit }) {
            assert!(self.next().is_some(), "ended within its limits: {:?}", self.seen);
        }
    }

    /// Reads frames until stdout holds the text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        while !Run::text(&self.seen, Stream::Stdout).contains(text) {
            assert!(self.next().is_some(), "ended without {text:?}: {:?}", self.seen);
        }
    }

    /// Reads all that comes, and waits for the process.
    pub(crate) fn finish(mut self) -> Run {
        while self.next().is_some() {}
        self.reader.take().expect("once").join().expect("frames were well formed");
        let log = self.log.take().expect("once").join().expect("read");
        let status = eventually(|| self.child.try_wait().expect("waits"));
        Run { frames: std::mem::take(&mut self.seen), status, log }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a runner said in its life.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) frames: Vec<GuestFrame>,
    pub(crate) status: ExitStatus,
    pub(crate) log: String,
}

impl Run {
    fn text(frames: &[GuestFrame], wanted: Stream) -> String {
        let bytes: Vec<u8> = frames
            .iter()
            .filter_map(|frame| {
                let GuestFrame::Output { stream, data } = frame else { return None };
                (*stream == wanted).then_some(data.as_slice())
            })
            .flatten()
            .copied()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub(crate) fn stdout(&self) -> String {
        Self::text(&self.frames, Stream::Stdout)
    }

    pub(crate) fn stderr(&self) -> String {
        Self::text(&self.frames, Stream::Stderr)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.stdout().lines().map(str::to_owned).collect()
    }

    /// The last result, which is the one that counts.
    pub(crate) fn result(&self) -> Option<String> {
        self.frames.iter().rev().find_map(|frame| {
            let GuestFrame::Result { json } = frame else { return None };
            Some(String::from_utf8(json.clone()).expect("text"))
        })
    }

    pub(crate) fn exit(&self) -> Exit {
        match self.frames.last() {
            Some(GuestFrame::Exited { exit, .. }) => *exit,
            other => panic!("no exit but {other:?} in {self:?}"),
        }
    }

    pub(crate) fn fault(&self) -> &str {
        match self.frames.last() {
            Some(GuestFrame::Fault { message }) => message,
            other => panic!("no fault but {other:?} in {self:?}"),
        }
    }

    pub(crate) fn exceeded(&self) -> Vec<GuestLimit> {
        self.frames
            .iter()
            .filter_map(|frame| {
                let GuestFrame::Exceeded { limit } = frame else { return None };
                Some(*limit)
            })
            .collect()
    }

    /// Asserts an end with exit code 0 and nothing on stderr, and gives stdout.
    pub(crate) fn clean(&self) -> String {
        assert_eq!((self.exit(), self.stderr().as_str()), (Exit::Code(0), ""), "{self:?}");
        assert!(self.status.success() && self.log.is_empty(), "{self:?}");
        self.stdout()
    }
}

/// Polls until there is something, with a deadline.
pub(crate) fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never happened");
        std::thread::yield_now();
    }
}

/// Whether a process with this word in its command line exists.
pub(crate) fn is_running(word: &str) -> bool {
    let entries = std::fs::read_dir("/proc").expect("lists").flatten();
    let numbers = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    let own = std::process::id().to_string();
    numbers
        .filter(|entry| *entry.file_name() != *own)
        .filter_map(|entry| std::fs::read(Path::new(&entry.path()).join("cmdline")).ok())
        .any(|command| String::from_utf8_lossy(&command).contains(word))
}
