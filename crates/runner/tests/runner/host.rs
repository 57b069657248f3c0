use std::{
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use protocol::{GuestFrame, HostFrame, Language, MAX_FRAME_BYTES, VERSION};

use crate::support::{Case, eventually, has, is_root, is_running, python};

fn start(case: &Case) -> HostFrame {
    HostFrame::Start(Box::new(case.start.clone()))
}

#[test]
fn hello_comes_at_once_and_a_host_that_hangs_up_ends_everything() {
    let case = python("");
    let mut open = case.open();
    assert_eq!(open.next(), Some(GuestFrame::Hello { version: VERSION }));
    open.hang_up();
    let run = open.finish();
    assert_eq!((run.status.code(), run.frames.len()), (Some(1), 1), "{run:?}");
}

#[test]
fn a_host_that_hangs_up_in_the_middle_ends_the_program_and_all_its_children() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let mark = format!("8{:09}", std::process::id());
    let code = format!(
        "import os, subprocess\nif os.fork() == 0:\n    os.setsid()\n    subprocess.run(['sleep', '{mark}'])\n\
         subprocess.Popen(['sleep', '{mark}'])\nprint('up')\nsubprocess.run(['sleep', '{mark}'])"
    );
    let case = python(&code);
    let mut open = case.open();
    open.send(&start(&case));
    open.wait_for("up\n");
    eventually(|| is_running(&mark).then_some(()));
    open.hang_up();
    assert_eq!(open.finish().status.code(), Some(1));
    assert!(!is_running(&mark));
}

#[test]
fn a_host_that_reads_no_more_ends_everything() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let case = python("while True: print('x' * 1000)");
    let mut command = Command::new(case.runner());
    command
        .args(&case.options)
        .env("PATH", &case.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, &protocol::encode(&start(&case)).expect("encodes")).expect("writes");
    drop(child.stdout.take());
    let status = eventually(|| child.try_wait().expect("waits"));
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_start_that_comes_in_pieces_is_one_start() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let case = python(&format!("print('whole')\n# {}", "x".repeat(300_000)));
    let mut open = case.open();
    for piece in protocol::encode(&start(&case)).expect("encodes").chunks(7000) {
        open.send_bytes(piece);
    }
    assert_eq!(open.finish().clean(), "whole\n");
}

#[test]
fn what_is_no_frame_or_no_sensible_start_is_a_fault() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let case = python("import time; time.sleep(1000)");
    let encoded = |change: fn(&mut protocol::Start)| {
        let mut start = case.start.clone();
        change(&mut start);
        protocol::encode(&HostFrame::Start(Box::new(start))).expect("encodes")
    };
    let twice = [encoded(|_| ()), encoded(|_| ())].concat();
    let oversized = u32::try_from(MAX_FRAME_BYTES + 1).expect("fits").to_be_bytes().to_vec();
    for (bytes, words) in [
        (b"\0\0\0\x02\x09\x09".to_vec(), "malformed"),
        (oversized, "over the limit"),
        (twice, "second program"),
        (encoded(|start| start.language = Language::Node), "prepared for python"),
        (encoded(|start| start.env = vec![("A=B".into(), "x".into())]), "environment variable \"A=B\""),
        (encoded(|start| start.env = vec![("A".into(), "\0".into())]), "environment variable \"A\""),
    ] {
        let mut open = case.open();
        open.send_bytes(&bytes);
        let run = open.finish();
        assert!(run.fault().contains(words), "{run:?}");
        assert_eq!(run.status.code(), Some(1));
    }
}

#[test]
fn a_missing_interpreter_is_a_fault() {
    let mut case = python("");
    case.path = case.workspace().to_str().expect("text").into();
    let run = case.run();
    assert!(run.fault().contains("no executable python3"), "{run:?}");
    assert!(matches!(run.frames[..], [GuestFrame::Hello { .. }, GuestFrame::Fault { .. }]));
}

#[test]
fn an_interpreter_that_dies_before_the_program_is_a_fault_with_its_last_words() {
    let mut case = python("");
    let fake = case.dir.path().join("python3");
    std::fs::write(&fake, "#!/bin/sh\necho cannot load >&2\nexit 3\n").expect("writes");
    std::fs::set_permissions(&fake, PermissionsExt::from_mode(0o755)).expect("opens");
    case.path = format!("{}:/usr/bin:/bin", case.dir.path().display());
    let mut open = case.open();
    assert_eq!(open.next(), Some(GuestFrame::Hello { version: VERSION }));
    let run = open.finish();
    assert!(run.fault().contains("exit code 3: cannot load"), "{run:?}");
}

#[test]
fn a_working_directory_that_is_not_there_is_a_fault() {
    if !has(Language::Python, module_path!()) {
        return;
    }
    let case = python("").options(&["--workspace", "/nonexistent"]);
    assert!(case.run().fault().contains("python3: No such file"), "{:?}", case.run());
}

#[test]
fn what_was_asked_for_and_cannot_be_had_is_a_fault() {
    for option in ["--cgroup", "--disk"] {
        let case = python("print('never')").options(&[option, "/nonexistent"]);
        let run = case.run();
        assert!(run.fault().contains("need root"), "{run:?}");
        if is_root() {
            let mut case = python("print('never')").options(&[option, "/nonexistent"]);
            case.wrapper = vec!["/usr/bin/env".into()];
            let run = case.run();
            assert!(run.fault().contains("at /nonexistent: No such file"), "{run:?}");
        }
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_to_the_operator() {
    let case = python("").options(&["--frobnicate"]);
    let run = case.open().finish();
    assert_eq!((run.status.code(), run.frames.len()), (Some(2), 0), "{run:?}");
    assert!(run.log.contains("unknown option --frobnicate") && run.log.contains("usage:"), "{}", run.log);
}
