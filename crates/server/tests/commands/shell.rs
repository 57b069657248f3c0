//! `enclave shell`, by script and by hand.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc,
    time::Instant,
};

use crate::{
    gvisor::works,
    place::{PATIENCE, Place, entries},
};

/// The smallest PNG file.
const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=";

#[test]
fn a_script_is_a_conversation_of_its_pieces() {
    let place = Place::new();
    if !works(&place, "a_script_is_a_conversation_of_its_pieces") {
        return;
    }
    let script = format!(
        "x = 20\nprint('set')\n\ndef f(n):\n    y = n + 1\n\n    return y\n\nf(x)\n\nimport base64\nclass Plot:\n    def _repr_png_(self):\n        \
         return base64.b64decode('{PNG}')\n\nPlot()\n"
    );
    let pictures = place.path("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let args = ["shell", "--backend", "gvisor", "--pictures", pictures.to_str().unwrap()];
    let left = place.run_with_input(&args, script.as_bytes());
    assert_eq!(left.code, 0, "{}", left.stderr);
    assert!(left.stdout().starts_with("set\n21\n"), "{left:?}");
    let saved = entries(&pictures);
    assert_eq!(saved.len(), 1, "{saved:?}");
    assert!(left.stderr.contains(&saved[0]), "its path is printed: {}", left.stderr);
    let picture = std::fs::read(pictures.join(&saved[0])).unwrap();
    assert!(picture.starts_with(b"\x89PNG\r\n\x1a\n"));
    assert_eq!(entries(&place.data().join("embedded")), Vec::<String>::new(), "nothing is left of the server");
}

#[test]
fn the_first_turn_of_a_script_that_fails_ends_it_with_its_traceback() {
    let place = Place::new();
    if !works(&place, "the_first_turn_of_a_script_that_fails_ends_it_with_its_traceback") {
        return;
    }
    let left = place.run_with_input(&["shell", "--backend", "gvisor"], b"1 / 0\n\nprint('never')\n");
    assert_eq!((left.code, left.stdout()), (1, ""), "{}", left.stderr);
    assert!(left.stderr.contains("Traceback") && left.stderr.contains("ZeroDivisionError"), "{}", left.stderr);
    let left = place
        .run_with_input(&["shell", "--backend", "gvisor", "--idle", "500ms", "--turn", "200ms"], b"while True: pass\n");
    assert_eq!(left.code, 130, "{}", left.stderr);
    let left = place.run_with_input(&["shell", "--backend", "gvisor"], b"import os\nos._exit(7)\n");
    assert_eq!(left.code, 4, "{}", left.stderr);
    assert!(left.stderr.contains("the session has ended: failed, exit code 7"), "{}", left.stderr);
}

#[test]
fn what_makes_no_conversation_is_refused() {
    let place = Place::new();
    for (args, said) in [
        (&["shell", "--session", "ses_01890a5d-ac96-774b-bcce-b302099a8057"][..], "--session needs the server"),
        (&["shell", "--backend", "simulator", "--idle", "1ms"], "interactive.idleTtlMs: must be at least 10"),
        (&["shell", "--server", "http://127.0.0.1:1", "--session", "ses_1"], "invalid value 'ses_1'"),
    ] {
        let left = place.run_with_input(args, b"1\n");
        assert_eq!(left.code, 2, "{args:?}: {}", left.stderr);
        assert!(left.stderr.contains(said), "{args:?}: {}", left.stderr);
    }
}

#[test]
fn a_person_has_a_prompt_several_lines_and_ctrl_c() {
    let place = Place::new();
    if !works(&place, "a_person_has_a_prompt_several_lines_and_ctrl_c") {
        return;
    }
    let mut terminal = Terminal::open(&place, &["shell", "--backend", "gvisor"]);
    terminal.expect(">>> ");
    terminal.types("x = 20\r");
    terminal.expect(">>> ");
    terminal.types("for i in range(2):\r    print('line', i)\r\r");
    terminal.expect("line 1");
    terminal.expect(">>> ");
    // Once it says so it runs: what is typed before a line was read would drop that line.
    terminal.types("exec('print(\"spin\" + \"ning\")\\nwhile True: pass')\r");
    terminal.expect("spinning");
    terminal.types("\x03");
    terminal.expect("KeyboardInterrupt");
    terminal.expect(">>> ");
    terminal.types("x + 1\r");
    terminal.expect("21");
    terminal.expect(">>> ");
    terminal.types("\x04");
    assert_eq!(terminal.wait(), 0);
    let history = std::fs::read_to_string(place.path("home/.local/state/enclave/history.python")).unwrap();
    assert!(history.contains("x = 20"), "{history}");
}

/// A terminal with the command in it: Python knows how to make one.
pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    shown: mpsc::Receiver<Vec<u8>>,
    /// What came since the last thing that was expected.
    seen: String,
}

impl Terminal {
    pub(crate) fn open(place: &Place, args: &[&str]) -> Self {
        let command = place.command(args);
        let mut python = std::process::Command::new("python3");
        let program = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        python.args(["-c", program]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => python.env(name, value),
                None => python.env_remove(name),
            };
        }
        python.env("TERM", "xterm").env_remove("XDG_STATE_HOME");
        let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (keys, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, shown) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, shown, seen: String::new() }
    }

    pub(crate) fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits for a text, and forgets what came up to it.
    pub(crate) fn expect(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.seen.contains(text) {
            match self.shown.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                Err(silence) => panic!("{text:?} does not come, {silence}: {}", self.seen),
            }
        }
        let at = self.seen.find(text).unwrap() + text.len();
        self.seen.drain(..at);
    }

    pub(crate) fn wait(mut self) -> i32 {
        drop(self.keys);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}
