//! Turns of an interactive session in Python.

use protocol::{Exit, GuestFrame, HostFrame, Language};
use serde_json::json;

use crate::support::{Open, has, python};

macro_rules! need_python {
    () => {
        if !has(Language::Python, module_path!()) {
            return;
        }
    };
}

fn session() -> (Open, crate::support::Case) {
    python("").interactive()
}

#[test]
fn turns_share_what_they_define_and_tell_the_value_of_the_last_expression() {
    need_python!();
    let (mut open, _case) = session();
    assert_eq!(open.run(1, "x = 20").report, json!({ "status": "completed", "value": null, "error": null }));
    assert_eq!(open.run(2, "def f(y):\n    return x + y\n\nf(22)").value(), Some("42"));
    assert_eq!(open.run(3, "'a'; f(0);").value(), None);
    assert_eq!(open.run(4, "import enclave as e\nprint(x, e is enclave, __name__)\n'text'").value(), Some("'text'"));
    assert_eq!(open.run(5, "_").value(), Some("'text'"));
    assert_eq!(open.run(7, "# nothing").value(), None);
    open.hang_up();
    let run = open.finish();
    assert_eq!(run.stdout(), "20 True __main__\n");
}

#[test]
fn a_prelude_runs_first_and_its_failure_ends_the_session() {
    need_python!();
    let (mut open, _case) = python("import os\nx = os.path.basename(__file__)\nprint('prelude')").interactive();
    let first = open.run(1, "x");
    assert_eq!((first.value(), first.stdout.as_str()), (Some("'main.py'"), "prelude\n"));
    let (open, _case) = python("raise ValueError('no')").interactive();
    let run = open.finish();
    assert_eq!(run.exit(), Exit::Code(1));
    assert!(run.stderr().ends_with("ValueError: no\n"), "{run:?}");
}

#[test]
fn an_error_is_told_with_the_turns_own_lines_and_the_session_lives() {
    need_python!();
    let (mut open, _case) = session();
    open.run(1, "def f(x):\n    return 1 / x");
    let failed = open.run(2, "y = 1\nf(0)");
    assert_eq!((failed.status(), failed.error()), ("failed", ("ZeroDivisionError", "division by zero")));
    let trace = failed.traceback();
    let expected = ["\"<turn 2>\", line 2, in <module>\n    f(0)", "\"<turn 1>\", line 2, in f\n    return 1 / x"];
    assert!(expected.iter().all(|part| trace.contains(part)) && !trace.contains("<enclave>"), "{trace}");
    assert_eq!((failed.stderr.as_str(), &failed.report["value"]), ("", &json!(null)));
    let syntax = open.run(3, "a b");
    assert_eq!(syntax.error().0, "SyntaxError");
    assert!(syntax.traceback().contains("\"<turn 3>\", line 1\n    a b\n"), "{syntax:?}");
    for (number, code) in (4..).zip(["import sys; sys.exit(3)", "exit()", "raise SystemExit"]) {
        assert_eq!(open.run(number, code).error().0, "SystemExit", "{code}");
    }
    assert_eq!(open.run(9, "raise KeyboardInterrupt").status(), "failed");
    assert_eq!(open.run(10, "y").value(), Some("1"));
}

#[test]
fn all_that_a_turn_wrote_comes_before_its_end() {
    need_python!();
    let (mut open, _case) = session();
    let code = "import os, sys\nsys.stdout.write('a' * 300000)\nos.write(2, b'b' * 300000)\nsys.stdout.write('c')\n\
                enclave.result([1]); print('last', end='')";
    open.begin(1, code);
    let told = open.turned(1);
    assert_eq!(told.stdout, format!("{}clast", "a".repeat(300_000)));
    assert_eq!(told.stderr, "b".repeat(300_000));
    open.run(2, "enclave.result([2])");
    open.hang_up();
    let run = open.finish();
    let ends = |frame: &GuestFrame| matches!(frame, GuestFrame::Result { .. } | GuestFrame::Turned(_));
    let order: Vec<_> = run.frames.iter().filter(|frame| ends(frame)).collect();
    assert!(
        matches!(
            order[..],
            [GuestFrame::Result { .. }, GuestFrame::Turned(_), GuestFrame::Result { .. }, GuestFrame::Turned(_)]
        ),
        "{order:?}"
    );
}

#[test]
fn an_endless_turn_is_interrupted_and_its_variables_are_kept() {
    need_python!();
    let (mut open, _case) = session();
    // An interrupted import leaves half of a package behind.
    let head = "import asyncio, subprocess, time\nx = 41\nprint('in', flush=True)\n";
    let (lost, more) =
        (["while True: pass", "time.sleep(1000)"], ["subprocess.run(['sleep', '1000'])", "await asyncio.sleep(1000)"]);
    for (number, code) in (1..).zip(lost.into_iter().chain(more)) {
        // With the semicolon it is one piece of code: nothing of the host's own is between its lines.
        let told = open.interrupt(number, &format!("{head}{code};"));
        assert_eq!((told.status(), told.error().0), ("interrupted", "KeyboardInterrupt"), "{code}");
        let trace = told.traceback();
        // What awaits is not where the interpreter is.
        let is_told = trace.contains(&format!("\"<turn {number}>\"")) || code.contains("await");
        assert!(is_told && !trace.contains("<enclave>"), "{code}: {trace}");
    }
    assert_eq!(open.run(10, "x + 1").value(), Some("42"));
    assert_eq!(open.run(11, "await asyncio.sleep(0, 'again')").value(), Some("'again'"));
}

#[test]
fn an_interrupt_in_front_of_what_awaits_leaves_asyncio_whole() {
    need_python!();
    let (mut open, _case) = session();
    let slow = "import _signal, sys\nclass Slow:\n    def find_spec(self, name, path, target=None):\n        \
                if name == 'asyncio.events':\n            print('in', flush=True)\n            \
                while 2 not in _signal.sigpending(): pass\nsys.meta_path.insert(0, Slow())";
    open.run(1, slow);
    let told = open.interrupt(2, "async def f(): return 'again'\nawait f()");
    assert_eq!(told.status(), "interrupted", "{told:?}");
    assert_eq!(open.run(3, "await f()").value(), Some("'again'"));
}

#[test]
fn an_interrupt_right_in_front_of_a_system_call_ends_it_and_is_told_once() {
    need_python!();
    let (mut open, _case) = session();
    // To compare them takes a while in which Python notes an interrupt, and looks at none.
    open.run(1, "import signal, threading, time\na = b = 0.5\nfor _ in range(4): a, b = [a] * 120, [b] * 120");
    let waits = ["time.sleep(999 + (a == b))", "lock.acquire(timeout=999 + (a == b))"];
    open.run(2, "lock = threading.Lock(); lock.acquire(); told = []");
    for (number, code) in (3..).zip(waits) {
        let told = open.interrupt(number, &format!("print('in', flush=True)\n{code}"));
        assert_eq!((told.status(), told.error().0), ("interrupted", "KeyboardInterrupt"), "{code}");
    }
    // Being reminded of it is nothing that a program's own handler is told.
    let code = "_ = signal.signal(signal.SIGINT, lambda *_: told.append(1))\nprint('in', flush=True)\n\
                time.sleep((a == b) / 2); time.sleep(0.5); len(told)";
    assert_eq!(open.interrupt(9, code).value(), Some("1"));
}

#[test]
fn a_turn_that_catches_its_interrupt_goes_on() {
    need_python!();
    let (mut open, _case) = session();
    let code = "try:\n    print('in', flush=True)\n    while True: pass\nexcept KeyboardInterrupt: n = 1\nn + 1";
    for number in 1..3 {
        assert_eq!(open.interrupt(number, code).value(), Some("2"));
    }
}

#[test]
fn an_interrupt_that_comes_too_late_or_too_early_does_nothing() {
    need_python!();
    let (mut open, _case) = session();
    open.send(&HostFrame::Interrupt { turn: 1 });
    for number in 1..300 {
        open.begin(number, "0");
        open.send(&HostFrame::Interrupt { turn: number + 1 });
        open.send(&HostFrame::Interrupt { turn: number });
        let told = open.turned(number);
        assert!(matches!(told.status(), "completed" | "interrupted"), "{told:?}");
        open.send(&HostFrame::Interrupt { turn: number });
    }
    assert_eq!(open.run(300, "sum(i for i in range(100000))").value(), Some("4999950000"));
}

#[test]
fn an_interrupt_behind_a_prelude_is_for_the_turn_alone() {
    need_python!();
    let code = "import time\nprint('in', flush=True)\ntime.sleep(0.3)\nprint('out')";
    let (mut open, _case) = python(code).interactive();
    while !matches!(open.next().expect("it goes on"), GuestFrame::Output { .. }) {}
    open.begin(1, "while True: pass");
    open.send(&HostFrame::Interrupt { turn: 1 });
    let told = open.turned(1);
    assert_eq!((told.status(), told.stdout.as_str()), ("interrupted", "out\n"), "{told:?}");
    assert_eq!(open.run(2, "1").value(), Some("1"));
}

#[test]
fn what_offers_rich_forms_is_told_in_them() {
    need_python!();
    let (mut open, _case) = session();
    let code = r"
class Rich:
    def __repr__(self): return 'rich'
    def _repr_html_(self): return '<b>é</b>'
    def _repr_png_(self): return b'\x89PNG'
    def _repr_json_(self): return {'a': [1, 2.5, None]}
class Bundle:
    def _repr_mimebundle_(self, include=None, exclude=None): return {'text/html': '<i>', 'text/x': 'y'}, {}
    def _repr_html_(self): raise ValueError
    def __repr__(self): return 'bundle'
class Broken:
    def __repr__(self): raise ValueError('no')
    def __getattr__(self, name): return lambda: self
Rich()";
    let told = open.run(1, code);
    let all = json!({
        "text/plain": "rich", "text/html": "<b>é</b>", "image/png": "iVBORw==", "application/json": { "a": [1, 2.5, null] }
    });
    assert_eq!(told.report["value"], all);
    assert_eq!(open.run(2, "Bundle()").report["value"], json!({ "text/plain": "bundle", "text/html": "<i>" }));
    assert_eq!(open.run(3, "Broken()").report["value"], json!({ "text/plain": "<repr failed: ValueError>" }));
    assert_eq!(open.run(4, "Rich").report["value"], json!({ "text/plain": "<class '__main__.Rich'>" }));
    assert_eq!(open.run(5, "[{'a': '\\ud800'}]").value(), Some("[{'a': '\\ud800'}]"));
    let figure = "import sys, types\nclass Figure:\n    __module__ = 'matplotlib.figure'\n    def __repr__(self): return 'figure'\n    \
                  def savefig(self, file, format, **_): file.write(b'\\x89PNG')\nFigure()";
    let shown = json!({ "text/plain": "figure", "image/png": "iVBORw==" });
    assert_eq!(open.run(6, figure).report["value"], shown);
    let pyplot = "plt = sys.modules['matplotlib.pyplot'] = types.ModuleType('pyplot')\nopened = [1]\n\
                  plt.get_fignums = lambda: opened\nplt.figure = lambda n: Figure()\nplt.close = lambda _: opened.clear()";
    assert_eq!(open.run(7, pyplot).report["value"], shown);
    assert_eq!(open.run(8, "len(opened)").report["value"], json!({ "text/plain": "0" }));
}

#[test]
fn what_is_too_large_for_a_report_is_cut_or_left_out_and_that_is_said() {
    need_python!();
    let (mut open, _case) = session();
    let told = open.run(1, "'\\x01' * (1 << 20)");
    let text = told.value().expect("a value");
    assert!(text.len() < 70_000 && text.ends_with("more characters)"), "{}", text.len());
    let code = "class Big:\n    def __repr__(self): return 'big'\n    def _repr_png_(self): return bytes(2 << 20)\n    \
                def _repr_html_(self): return 'h' * (1 << 20)\n    def _repr_json_(self): return ['j' * (1 << 20)]\nBig()";
    let told = open.run(2, code);
    let text = told.value().expect("a value");
    assert!(
        text.starts_with("big\n[image/png of 2097152 bytes left out") && text.contains("[application/json"),
        "{text}"
    );
    assert_eq!(told.report["value"]["text/html"].as_str().map(str::len), Some(1 << 20));
    let told = open.run(3, "def f(n): raise ValueError('v' * (1 << 22)) from (f(n - 1) if n else None)\nf(20)");
    let (name, value) = told.error();
    assert!(name == "ValueError" && value.len() < 70_000 && told.traceback().len() < 70_000);
}

#[test]
fn the_input_is_read_when_it_is_asked_for() {
    need_python!();
    let (mut open, case) = session();
    assert_eq!(open.run(1, "enclave.input").value(), None);
    std::fs::write(case.workspace().join("input.json"), "{").expect("writes");
    assert_eq!(open.run(2, "enclave.input").error().0, "ValueError");
    std::fs::write(case.workspace().join("input.json"), "{\"i\": 7}").expect("writes");
    assert_eq!(open.run(3, "import os; os.chdir('/'); enclave.input['i']").value(), Some("7"));
    assert_eq!(
        open.run(4, "from enclave import input\ninput, enclave.session_id").value(),
        Some("({'i': 7}, 'ses_0197')")
    );
    assert_eq!(open.run(5, "enclave.nothing").error().0, "AttributeError");
}

#[test]
fn what_a_turn_installs_starts_and_changes_is_there_for_the_next() {
    need_python!();
    let (mut open, case) = session();
    let code = "import os, subprocess, sys\nfrom __future__ import annotations\n\
                child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1000)'])\n\
                try: import later\nexcept ImportError: print('not yet')";
    // A future statement has to come first in a piece of code, here as anywhere.
    assert_eq!(open.run(1, code).error().0, "SyntaxError");
    open.run(2, "from __future__ import annotations\nimport os, subprocess, sys");
    let told = open.run(3, &code.replace("from __future__ import annotations\n", ""));
    assert_eq!(told.stdout, "not yet\n", "{told:?}");
    let user = open.run(4, "os.path.join(os.path.expanduser('~/.local/lib'), 'python%d.%d' % sys.version_info[:2])");
    let user = user.value().expect("a path").trim_matches('\'').to_owned();
    assert!(user.starts_with(case.workspace().to_str().expect("text")), "{user}");
    open.run(
        5,
        &format!("os.makedirs('{user}/site-packages')\nopen('{user}/site-packages/later.py', 'w').write('x = 3')"),
    );
    assert_eq!(open.run(6, "import later\nlater.x, child.poll()").value(), Some("(3, None)"));
    assert_eq!(open.run(7, "def f(x: undefined): pass\nf.__annotations__").value(), Some("{'x': 'undefined'}"));
    assert_eq!(open.run(8, "await __import__('asyncio').sleep(0)\ny = 5").value(), None);
    assert_eq!(open.run(9, "y, input()").error().0, "EOFError");
}

#[test]
fn leaving_the_interpreter_ends_the_session_with_that_code() {
    need_python!();
    let (mut open, _case) = session();
    assert_eq!(open.run(1, "import os\nos.fork() or print('child')\nos.wait() and None").stdout, "child\n");
    open.begin(2, "os._exit(7)");
    assert_eq!(open.finish().exit(), Exit::Code(7));
}
