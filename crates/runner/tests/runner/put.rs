//! Files that are there before the program, and programs that are one of them.

use protocol::{Exit, GuestFrame, HostFrame, Language, NotPut, Put, PutKind};

use crate::{
    pid1::sandboxed,
    support::{Case, NOBODY, Run, has, node, python},
};

fn file(path: &str, data: &[u8]) -> HostFrame {
    HostFrame::Put(Put { path: path.into(), kind: PutKind::File { mode: 0o644 }, data: data.into(), last: true })
}

/// Puts these, then starts the program.
fn run(case: &Case, puts: &[HostFrame]) -> Run {
    let mut open = case.open();
    for put in puts {
        open.send(put);
    }
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.finish()
}

fn not_put(run: &Run) -> (NotPut, &str) {
    match run.frames.last() {
        Some(GuestFrame::NotPut { reason, message }) => (*reason, message),
        other => panic!("not refused but {other:?} in {run:?}"),
    }
}

#[test]
fn the_program_finds_its_files_and_may_change_them() {
    if !has(Language::Python, "put::files") {
        return;
    }
    let code = "import os, helper\nprint(helper.WORD, open('data/in.txt').read(), os.getcwd() == os.path.dirname(__file__))\n\
                open('data/in.txt', 'a').write('!')\nos.rename('data', 'moved')\nprint(open('moved/in.txt').read())";
    let puts = [file("helper.py", b"WORD = 'helped'"), file("data/in.txt", "zwölf".as_bytes())];
    assert_eq!(run(&python(code), &puts).clean(), "helped zwölf True\nzwölf!\n");
}

#[test]
fn as_root_they_belong_to_the_workload_and_fill_its_disk() {
    let code = "import os\nfor path in ('a', 'a/b', 'a/link'):\n    of = os.lstat(path)\n    \
                print(of.st_uid, of.st_gid, oct(of.st_mode))\nprint(open('/proc/1/status').read().split('Threads:')[1].split()[0])";
    let Some(case) = sandboxed("put::owner", python(code)) else { return };
    let link = HostFrame::Put(Put { path: "a/link".into(), kind: PutKind::Link, data: b"b".into(), last: true });
    let own = format!("{NOBODY} {NOBODY}");
    // The thread that put them has gone; beside the loop there is the one that serves files from now on.
    let expected = format!("{own} 0o40755\n{own} 0o100644\n{own} 0o120777\n2\n");
    assert_eq!(run(&case, &[file("a/b", b"x"), link]).clean(), expected);

    let Some(case) = sandboxed("put::full", python("print('never')")) else { return };
    let block = vec![0; protocol::PUT_CHUNK_BYTES];
    let part =
        |last| HostFrame::Put(Put { path: "big".into(), kind: PutKind::File { mode: 0 }, data: block.clone(), last });
    let run =
        run(&case, &[[const { false }; 19].as_slice(), &[true]].concat().into_iter().map(part).collect::<Vec<_>>());
    assert_eq!(not_put(&run).0, NotPut::NoSpace, "{run:?}");
    assert_eq!(run.stdout(), "");
}

#[test]
fn a_name_that_leads_out_ends_the_sandbox_with_its_reason() {
    if !has(Language::Python, "put::names") {
        return;
    }
    for path in ["../outside", "/tmp/enclave-outside", "a/../../outside"] {
        let case = python("print('never')");
        let run = run(&case, &[file(path, b"x")]);
        let (reason, message) = not_put(&run);
        assert_eq!((reason, run.stdout().as_str()), (NotPut::Failed, ""), "{message}");
        assert!(!case.dir.path().join("outside").exists());
    }
    let run = run(&python("print('never')"), &[file("a", b"x"), file("a/b", b"x")]);
    assert_eq!(not_put(&run), (NotPut::InTheWay, "a/b: Not a directory (os error 20)"));
}

#[test]
fn a_file_that_is_not_whole_or_comes_too_late_is_refused() {
    if !has(Language::Python, "put::order") {
        return;
    }
    let half = Put { path: "a".into(), kind: PutKind::File { mode: 0 }, data: b"x".into(), last: false };
    let half = HostFrame::Put(half);
    let unfinished = run(&python("print('never')"), std::slice::from_ref(&half));
    assert_eq!(not_put(&unfinished), (NotPut::Failed, "a file is not whole"));
    let case = python("print('there', flush=True)\nwhile True: pass");
    let mut open = case.open();
    open.send(&HostFrame::Start(Box::new(case.start.clone())));
    open.wait_for("there");
    open.send(&half);
    assert!(open.finish().fault().contains("after the start"));
}

#[test]
fn a_python_program_that_is_a_file_is_run_as_that_file() {
    if !has(Language::Python, "put::entrypoint") {
        return;
    }
    let code = "import sys, helper, top\ndef show(): print(__file__.removeprefix(sys.path[1] + '/'), sys.argv[0] == __file__, helper.W, top.W)\n\
                import multiprocessing\ndef double(n): return n * 2\nif __name__ == '__main__':\n    show()\n    \
                with multiprocessing.get_context('spawn').Pool(1) as pool: print(pool.map(double, [2]))";
    let case = python(code).with(|start| start.entrypoint = Some("src/app.py".into()));
    let puts =
        [file("src/app.py", code.as_bytes()), file("src/helper.py", b"W = 'beside'"), file("top.py", b"W = 'above'")];
    let run = run(&case, &puts);
    assert_eq!(run.clean(), "src/app.py True beside above\n[4]\n");
    assert!(!case.workspace().join("main.py").exists(), "no second copy");
}

#[test]
fn a_node_program_that_is_a_file_is_run_as_that_file() {
    if !has(Language::Node, "put::entrypoint_node") {
        return;
    }
    let helpers =
        [file("src/helper.js", b"exports.w = 'beside';"), file("src/helper.mjs", b"export const w = 'module';")];
    let script = "const { w } = require('./helper'); console.log(w, __filename === process.argv[1], require('path').basename(__filename));";
    let module = "import { w } from './helper.mjs'; console.log(w, process.argv[1].split('/').pop());";
    let bound = "import { session_id } from 'enclave'; import { w } from './helper.mjs'; console.log(w, session_id);";
    for (name, code, expected) in [
        ("src/app.js", script, "beside true app.js\n"),
        ("src/app.mjs", module, "module app.mjs\n"),
        ("src/app.js", module, "module app.js\n"),
        ("src/app.mjs", bound, "module ses_0197\n"),
    ] {
        let case = node(code).with(|start| start.entrypoint = Some(name.into()));
        let run = run(&case, &[&helpers[..], &[file(name, code.as_bytes())]].concat());
        assert_eq!(run.exit(), Exit::Code(0), "{run:?}");
        assert_eq!(run.clean(), expected, "{name}");
    }
}
