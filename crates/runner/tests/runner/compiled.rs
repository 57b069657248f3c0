//! Python's host program out of a compiled file: the same to a program as out of the command line.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use protocol::{Exit, Language};

use crate::support::{Case, has, path, python};

const PROGRAMS: [&str; 6] = [
    "print('hi'); enclave.result({'a': [1, 2.5, None, True, 'é']})",
    "import enclave as m, os, sys\nprint(m is enclave, m.session_id, sys.argv[1:], sys.flags.isolated, __name__, os.path.basename(__file__))",
    "def f(x):\n    return 1 / x\n\nf(0)\n",
    "print(1\n",
    "import sys\nsys.exit(7)",
    "import multiprocessing\ndef child(q): q.put(enclave.session_id)\nif __name__ == '__main__':\n    context = multiprocessing.get_context('spawn')\n    q = context.Queue()\n    p = context.Process(target=child, args=(q,))\n    p.start()\n    p.join()\n    print(p.exitcode)",
];

/// A directory with the compiled host, and the host.
fn compiled(case: &Case) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("creates");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("opens");
    let mut command = Command::new(case.runner());
    command.args(["--language", "python", "--write-snapshot"]).arg(dir.path()).env("PATH", path());
    let output = command.output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = String::from_utf8(output.stdout).expect("text").trim().to_owned();
    std::fs::set_permissions(&made, PermissionsExt::from_mode(0o644)).expect("opens");
    (dir, made)
}

fn from(dir: &Path, code: &str) -> Case {
    python(code).options(&["--snapshots", dir.to_str().expect("text")])
}

#[test]
fn a_program_cannot_tell_a_compiled_host_from_one_that_was_not() {
    if !has(Language::Python, "compiled::same") {
        return;
    }
    let (dir, _) = compiled(&python(""));
    for code in PROGRAMS {
        let (plain, fast) = (python(code).run(), from(dir.path(), code).run());
        // Each has a directory of its own.
        let lines = |text: String| text.lines().filter(|line| !line.contains("File \"")).collect::<Vec<_>>().join("\n");
        let told = |run: &crate::support::Run| (run.exit(), run.stdout(), lines(run.stderr()), run.result());
        assert_eq!(told(&fast), told(&plain), "{code}");
        assert!(!fast.log.contains("snapshot"), "{}", fast.log);
    }
}

#[test]
fn a_compiled_host_that_this_python_cannot_read_is_done_without() {
    if !has(Language::Python, "compiled::broken") {
        return;
    }
    let (dir, made) = compiled(&python(""));
    std::fs::write(made, "of another version").expect("writes");
    let run = from(dir.path(), "print('still')").run();
    assert_eq!((run.stdout().as_str(), run.exit()), ("still\n", Exit::Code(0)));
    assert!(run.log.contains("starting without a snapshot"), "{}", run.log);
}
