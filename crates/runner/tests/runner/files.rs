//! Files while a program runs and when it has ended, over the frames of a real runner.

use protocol::{
    Exit, GuestFrame, HostFrame, Language,
    files::{FileCall, FileDone, FileKind, FileOp, FileRefusal, MAX_FILE_CALLS, WhyNot},
};

use crate::support::{Open, has, node, python};

/// Asks, and waits for the answer.
pub(crate) fn ask(open: &mut Open, op: FileOp) -> Result<FileDone, FileRefusal> {
    open.send(&HostFrame::File(FileCall { id: 5, op }));
    loop {
        match open.next() {
            Some(GuestFrame::File(reply)) => {
                assert_eq!(reply.id, 5);
                return reply.outcome;
            }
            Some(_) => {}
            None => panic!("the runner has gone"),
        }
    }
}

fn upload(open: &mut Open, path: &str, data: &[u8]) -> Result<FileDone, FileRefusal> {
    ask(open, FileOp::Create { handle: 1, path: path.into(), mode: 0o644, size: None })?;
    ask(open, FileOp::Write { handle: 1, data: data.into() })?;
    ask(open, FileOp::Commit { handle: 1 })
}

fn download(open: &mut Open, path: &str) -> Vec<u8> {
    let opened = ask(open, FileOp::Open { handle: 2, path: path.into() });
    assert!(matches!(&opened, Ok(FileDone::Opened(facts)) if facts.kind == FileKind::File), "{opened:?}");
    let read = ask(open, FileOp::Read { handle: 2, offset: 0, bytes: 1 << 19 });
    let Ok(FileDone::Read(data)) = read else { panic!("{read:?}") };
    ask(open, FileOp::Close { handle: 2 }).expect("closes");
    data
}

#[test]
fn a_program_and_the_host_see_each_others_files() {
    if !has(Language::Python, "files::python") {
        return;
    }
    let code = "import os, time\nopen('out', 'w').write('from inside')\nprint('ready', flush=True)\n\
                while not os.path.exists('in/data'): time.sleep(0.005)\n\
                print(open('in/data').read())\nopen('in/data', 'a').write('!')\nprint('done', flush=True)\ntime.sleep(600)";
    let case = python(code);
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for("ready");
    assert_eq!(download(&mut open, "out"), b"from inside");
    upload(&mut open, "in/data", b"from outside").expect("uploads");
    open.wait_for("from outside\ndone");
    assert_eq!(download(&mut open, "in/data"), b"from outside!");
    ask(&mut open, FileOp::Remove { path: "in/data".into() }).expect("removes");
    assert!(!case.workspace().join("in/data").exists());
}

#[test]
fn files_are_there_when_the_program_has_ended_until_the_host_hangs_up() {
    if !has(Language::Python, "files::stays") {
        return;
    }
    let case = python("open('out', 'w').write('left')\nraise SystemExit(3)").with(|start| start.stays = true);
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    while !matches!(open.next(), Some(GuestFrame::Exited { exit: Exit::Code(3), .. })) {}
    assert_eq!(download(&mut open, "out"), b"left");
    let refused = ask(&mut open, FileOp::Open { handle: 1, path: "main.py.nothing".into() });
    assert_eq!(refused.expect_err("absent").why, WhyNot::Absent);
    open.hang_up();
    assert!(open.finish().status.success());
}

#[test]
fn a_program_that_is_stopped_leaves_its_files() {
    for (language, case) in [
        (
            Language::Python,
            python(
                "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen('out', 'w').write('left')\n\
                                   for _ in range(5): os.fork()\nprint('ready', flush=True)\nwhile True: pass",
            ),
        ),
        (Language::Node, node("require('fs').writeFileSync('out', 'left'); console.log('ready'); for (;;) ;")),
    ] {
        if !has(language, "files::stopped") {
            continue;
        }
        let case = case.with(|start| start.stays = true);
        let mut open = case.open();
        open.send(&HostFrame::Start(Box::new(case.start.clone())));
        open.wait_for("ready");
        open.send(&HostFrame::Stop);
        while !matches!(open.next().expect("it ends"), GuestFrame::Exited { exit: Exit::Signal(9), .. }) {}
        // A second one changes nothing.
        open.send(&HostFrame::Stop);
        assert_eq!(download(&mut open, "out"), b"left");
        open.hang_up();
        open.finish();
    }
}

#[test]
fn a_pipe_that_is_put_in_the_way_holds_nothing_up() {
    if !has(Language::Python, "files::fifo") {
        return;
    }
    let case = python("import os\nos.mkfifo('out')\nprint('ready', flush=True)\nimport time\ntime.sleep(600)");
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for("ready");
    let refused = ask(&mut open, FileOp::Open { handle: 1, path: "out".into() });
    assert_eq!(refused.expect_err("a pipe").why, WhyNot::WrongKind);
    assert_eq!(upload(&mut open, "out", b"replaces it"), Ok(FileDone::Done));
    assert_eq!(download(&mut open, "out"), b"replaces it");
}

#[test]
fn a_host_that_breaks_the_rules_is_told_and_the_sandbox_ends() {
    if !has(Language::Python, "files::rules") {
        return;
    }
    let list =
        |id| HostFrame::File(FileCall { id, op: FileOp::List { path: None, recursive: false, after: None, limit: 9 } });
    let case = python("print('ready', flush=True)\nwhile True: pass");
    for early in [list(1), HostFrame::Stop] {
        let mut open = case.open();
        open.send(&early);
        assert!(!open.finish().fault().is_empty());
    }
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for("ready");
    // In one piece, faster than any of them is answered.
    let flood = (0..100 * u32::try_from(MAX_FILE_CALLS).expect("few"))
        .flat_map(|id| protocol::encode(&list(id)).expect("encodes"));
    open.send_bytes(&flood.collect::<Vec<_>>());
    assert!(open.finish().fault().contains("too many calls"));
}
