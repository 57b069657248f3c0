use protocol::{Exit, GuestFrame, Language, MAX_RESULT_BYTES};

use crate::support::{has, python};

macro_rules! need_python {
    () => {
        if !has(Language::Python, module_path!()) {
            return;
        }
    };
}

#[test]
fn a_program_prints_and_hands_in_a_result() {
    need_python!();
    let run = python("print('hi')\nenclave.result({'a': [1, 2.5, None, True, 'é']})").run();
    assert_eq!(run.clean(), "hi\n");
    assert_eq!(run.result().as_deref(), Some(r#"{"a":[1,2.5,null,true,"é"]}"#));
    assert!(matches!(run.frames[..2], [GuestFrame::Hello { version: protocol::VERSION }, GuestFrame::Started { .. }]));
}

#[test]
fn the_module_is_global_and_importable_and_knows_the_session() {
    need_python!();
    let code = "import enclave as m, os\nfrom enclave import result\nprint(m is enclave, result is m.result, \
                m.session_id, os.environ['ENCLAVE_SESSION_ID'])\nresult(1)\nm.result(2)";
    let run = python(code).run();
    assert_eq!(run.clean(), "True True ses_0197 ses_0197\n");
    assert_eq!(run.result().as_deref(), Some("2"));
}

#[test]
fn arguments_and_environment_are_exactly_those_of_the_session() {
    need_python!();
    let code =
        "import sys, os, json\nprint(json.dumps([sys.argv[1:], dict(os.environ), sys.stdin.read()], sort_keys=True))";
    let case = python(code).with(|start| {
        start.args = vec!["a b".into(), String::new(), "ü".into()];
        start.env = [("X", "1=2"), ("LANG", "C"), ("ENCLAVE_SESSION_ID", "forged"), ("ENCLAVE_Y", "forged")]
            .map(|(name, value)| (name.into(), value.into()))
            .into();
    });
    let (path, home) = (case.path.clone(), case.workspace());
    let expected = format!(
        "[[\"a b\", \"\", \"\\u00fc\"], {{\"ENCLAVE_SESSION_ID\": \"ses_0197\", \"HOME\": \"{0}\", \"LANG\": \"C\", \
         \"PATH\": \"{path}:{0}/.local/bin\", \"X\": \"1=2\"}}, \"\"]\n",
        home.display()
    );
    assert_eq!(case.run().clean(), expected);
}

#[test]
fn an_uncaught_exception_is_a_trace_of_the_programs_own_lines_and_exit_code_1() {
    need_python!();
    let case = python("def f(x):\n    return 1 / x\n\nf(0)\n");
    let run = case.run();
    let main = case.workspace().join("main.py");
    let trace = run.stderr();
    assert_eq!(run.exit(), Exit::Code(1));
    assert!(trace.starts_with("Traceback (most recent call last):\n  File"), "{trace}");
    for line in [&format!("  File \"{}\", line 4, in <module>", main.display()), "    return 1 / x", "    f(0)"] {
        assert!(trace.contains(line), "{trace}");
    }
    assert!(trace.ends_with("ZeroDivisionError: division by zero\n") && !trace.contains("<string>"), "{trace}");
}

#[test]
fn a_syntax_error_shows_the_line() {
    need_python!();
    let run = python("print('never')\ndef f(:\n    pass\n").run();
    assert_eq!((run.exit(), run.stdout().as_str()), (Exit::Code(1), ""));
    let trace = run.stderr();
    assert!(trace.contains("main.py\", line 2") && trace.contains("def f(:") && !trace.contains("<string>"), "{trace}");
}

#[test]
fn a_trace_has_its_lines_even_when_the_program_could_not_be_put_on_disk() {
    need_python!();
    let case = python("x = 1\nraise ValueError('told')\n");
    for name in ["main.py", ".enclave-main.py"] {
        std::fs::write(case.workspace().join(name), "other = 'text'\nother = 'text'\n").expect("writes");
    }
    let trace = case.run().stderr();
    assert!(trace.contains("raise ValueError('told')\n") && !trace.contains("other"), "{trace}");
    let kept = std::fs::read_to_string(case.workspace().join("main.py")).expect("reads");
    assert!(kept.starts_with("other"), "a file of the caller's was written over");
}

#[test]
fn every_way_to_exit_is_honoured() {
    need_python!();
    for (code, exit) in [
        ("pass", Exit::Code(0)),
        ("import sys; sys.exit(7)", Exit::Code(7)),
        ("import sys; sys.exit('told')", Exit::Code(1)),
        ("import os; os._exit(9)", Exit::Code(9)),
        ("raise KeyboardInterrupt", Exit::Code(130)),
        ("exit(3)", Exit::Code(3)),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", Exit::Signal(11)),
        ("import os; os.abort()", Exit::Signal(6)),
        ("import os; os.kill(0, 15)", Exit::Signal(15)),
    ] {
        assert_eq!(python(code).run().exit(), exit, "{code}");
    }
}

#[test]
fn exit_handlers_and_threads_are_waited_for_as_in_any_program() {
    need_python!();
    let code = "import atexit, sys, threading, time\natexit.register(print, 'last')\n\
                threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n\
                sys.excepthook = lambda *a: print('hook', a[1])\nraise ValueError('x')";
    let run = python(code).run();
    assert_eq!(
        (run.exit(), run.stdout().as_str(), run.stderr().as_str()),
        (Exit::Code(1), "hook x\nthread\nlast\n", "")
    );
}

#[test]
fn subprocesses_threads_asyncio_and_multiprocessing_work() {
    need_python!();
    let code = r"
import asyncio, enclave, multiprocessing, subprocess, sys, threading

def square(x):
    return x * x, enclave.session_id

if __name__ == '__main__':
    for method in ('fork', 'spawn', 'forkserver'):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, pool.map(square, range(3)))
    thread = threading.Thread(target=enclave.result, args=(['from a thread'],))
    thread.start(); thread.join()
    print(subprocess.run([sys.executable, '-c', 'print(40 + 2)'], capture_output=True, text=True).stdout, end='')
    async def f():
        await asyncio.sleep(0)
        return 'async'
    print(asyncio.run(f()))
";
    let run = python(code).run();
    let squares = "[(0, 'ses_0197'), (1, 'ses_0197'), (4, 'ses_0197')]";
    let expected = format!("fork {squares}\nspawn {squares}\nforkserver {squares}\n42\nasync\n");
    assert_eq!(run.clean(), expected);
    assert_eq!(run.result().as_deref(), Some(r#"["from a thread"]"#));
}

#[test]
fn modules_of_the_workspace_and_of_pythonpath_are_imported_and_own_names_are_not_shadowed() {
    need_python!();
    let code = "import helper, extra, enclave, sys, inspect\nprint(helper.x, extra.y, enclave.session_id)\n\
                def f(): pass\nprint(inspect.getsource(f).strip(), __name__, __file__ == sys.argv[0])";
    let case = python(code);
    let dir = case.workspace().join("lib");
    std::fs::create_dir(&dir).expect("creates");
    std::fs::write(case.workspace().join("helper.py"), "x = 1").expect("writes");
    std::fs::write(case.workspace().join("enclave.py"), "raise SystemExit('shadowed')").expect("writes");
    std::fs::write(dir.join("extra.py"), "y = 2").expect("writes");
    let case = case.with(|start| start.env = vec![("PYTHONPATH".into(), dir.to_str().expect("text").into())]);
    assert_eq!(case.run().clean(), "1 2 ses_0197\ndef f(): pass __main__ True\n");
}

#[test]
fn a_result_that_is_no_json_is_refused_with_a_clear_error() {
    need_python!();
    let code = r"
def refused(value):
    try:
        enclave.result(value)
    except (TypeError, ValueError) as error:
        print(type(error).__name__, error)

nested = []
for _ in range(99): nested = [nested]
loop = []; loop.append(loop)
refused({1, 2}); refused({'a': {(1,): 2}}); refused(float('nan')); refused([float('-inf')])
refused('\ud800'); refused(loop); refused('x' * (1 << 20)); refused([nested])
enclave.result(nested)
enclave.result('x' * ((1 << 20) - 2))
";
    let run = python(code).run();
    let expected = [
        "TypeError enclave.result: set is not JSON serialisable",
        "TypeError enclave.result: keys must be str, int, float, bool or None, not tuple",
        "ValueError enclave.result: Out of range float values are not JSON compliant",
        "ValueError enclave.result: Out of range float values are not JSON compliant",
        "ValueError enclave.result: a string holds an unpaired surrogate, which JSON cannot carry",
        "ValueError enclave.result: Circular reference detected",
        "ValueError enclave.result: 1048578 bytes of JSON, at most 1048576 are allowed",
        "ValueError enclave.result: nested deeper than 100 levels",
    ];
    let lines = run.lines();
    for (line, expected) in lines.iter().zip(expected) {
        // The wording about NaN and keys is Python's own and differs by version.
        assert_eq!(line.split(' ').next(), expected.split(' ').next());
        assert!(line == expected || expected.contains("Out of range") || expected.contains("keys must"), "{line}");
    }
    assert_eq!((lines.len(), run.exit()), (expected.len(), Exit::Code(0)), "{}", run.stderr());
    assert_eq!(run.result().map(|json| json.len()), Some(MAX_RESULT_BYTES));
}

#[test]
fn a_binding_is_its_address_or_a_clear_error() {
    need_python!();
    let code = "import os\nos.environ['ENCLAVE_SVC_DB'] = 'http://db'\nprint(enclave.binding('DB'))\n\
                try: enclave.binding('NO')\nexcept KeyError as error: print(error.args[0])";
    assert_eq!(python(code).run().clean(), "http://db\nthis session has no service binding named 'NO'\n");
}
