//! Turns of an interactive session in Node, with the language host out of the command line and out of a snapshot.

use protocol::{Exit, GuestFrame, HostFrame};
use serde_json::json;

use crate::node::with_each_host;

#[test]
fn turns_share_what_they_define_and_tell_the_value_of_the_last_expression() {
    with_each_host("turns_node::share", |host| {
        let (mut open, _case) = host.case("").interactive();
        assert_eq!(open.run(1, "const x = 20").report, json!({ "status": "completed", "value": null, "error": null }));
        assert_eq!(open.run(2, "function f(y) { return x + y }\nf(22)").value(), Some("42"));
        assert_eq!(open.run(3, "const x = 1; class A {}\nlet text = 'a'; text").value(), Some("'a'"));
        assert_eq!(open.run(4, "f(1) + new A().constructor.name").value(), Some("'2A'"));
        assert_eq!(open.run(5, "console.log(_, require('enclave') === enclave); undefined").stdout, "2A true\n");
        for (number, (code, value)) in (6..).zip([
            ("10n ** 20n", "100000000000000000000n"),
            ("-0", "-0"),
            ("null", "null"),
            ("Symbol('s')", "Symbol(s)"),
        ]) {
            assert_eq!(open.run(number, code).value(), Some(value), "{code}");
        }
        let told = open.run(10, "{ a: [1, null], b: 'é' }");
        let all =
            json!({ "text/plain": "{ a: [ 1, null ], b: 'é' }", "application/json": { "a": [1, null], "b": "é" } });
        assert_eq!(told.report["value"], all);
    });
}

#[test]
fn awaits_promises_and_imports_work_anywhere() {
    with_each_host("turns_node::async", |host| {
        let (mut open, case) = host.case("").interactive();
        std::fs::write(case.workspace().join("own.mjs"), "export default 1; export const two = 2").expect("writes");
        assert_eq!(open.run(1, "const v = await new Promise((done) => setTimeout(done, 5, 7)); v").value(), Some("7"));
        assert_eq!(open.run(2, "v + 1").value(), Some("8"));
        assert_eq!(open.run(3, "Promise.resolve(9)").value(), Some("9"));
        assert_eq!(open.run(4, "Promise.reject(new RangeError('no'))").error(), ("RangeError", "no"));
        let code = "import own, { two as zwei } from './own.mjs';\nimport * as fs from 'fs'; import 'os'\n[own, zwei, typeof fs.readFileSync, \"import('x')\"]";
        let told = open.run(5, code);
        assert_eq!(told.report["value"]["application/json"], json!([1, 2, "function", "import('x')"]), "{told:?}");
        assert_eq!(open.run(6, "(await import('enclave')).session_id").value(), Some("'ses_0197'"));
        assert_eq!(open.run(7, "[zwei, require('os') === (await import('os')).default]").value(), Some("[ 2, true ]"));
    });
}

#[test]
fn a_prelude_runs_first_and_its_failure_ends_the_session() {
    with_each_host("turns_node::prelude", |host| {
        let (mut open, _case) = host.case("const x = await 3; console.log('prelude')").interactive();
        let first = open.run(1, "x");
        assert_eq!((first.value(), first.stdout.as_str()), (Some("3"), "prelude\n"));
        let (open, _case) = host.case("throw new TypeError('no')").interactive();
        let run = open.finish();
        assert_eq!(run.exit(), Exit::Code(1));
        assert!(run.stderr().starts_with("TypeError: no\n    at main.js:1:7\n"), "{run:?}");
    });
}

#[test]
fn an_error_is_told_with_the_turns_own_lines_and_the_session_lives() {
    with_each_host("turns_node::errors", |host| {
        let (mut open, _case) = host.case("").interactive();
        open.run(1, "function f() {\n  throw new TypeError('bad') }");
        let failed = open.run(2, "let y = 1\nf()");
        assert_eq!((failed.status(), failed.error()), ("failed", ("TypeError", "bad")));
        assert_eq!(failed.traceback(), "TypeError: bad\n    at f (turn-1:2:9)\n    at turn-2:2:1");
        let syntax = open.run(3, "let z =\na b");
        assert_eq!(syntax.error().0, "SyntaxError");
        assert!(syntax.traceback().starts_with("turn-3:2\na b\n  ^\nSyntaxError: Unexpected identifier"), "{syntax:?}");
        assert_eq!(open.run(4, "throw { code: 5 }").error(), ("Uncaught", "{ code: 5 }"));
        assert_eq!(open.run(5, "throw null").error(), ("Uncaught", "null"));
        let later = "setTimeout(() => { throw new Error('later') }); Promise.reject(new Error('lost'));\n\
                     await new Promise((done) => setTimeout(done, 20)); y";
        let told = open.run(6, later);
        assert_eq!(told.value(), Some("1"));
        assert!(
            told.stderr.contains("Uncaught Error: later") && told.stderr.contains("Uncaught Error: lost"),
            "{told:?}"
        );
    });
}

#[test]
fn an_endless_turn_is_interrupted_and_its_variables_are_kept() {
    with_each_host("turns_node::interrupt", |host| {
        let (mut open, _case) = host.case("").interactive();
        open.run(1, "let x = 41; const { execSync } = require('child_process'); function spin() { for (;;); }");
        let endless =
            ["spin()", "try { spin() } catch {} finally { x = 0 }", "await 1; spin()", "await new Promise(() => {})"];
        let more = [
            "execSync('echo in; exec sleep 1000', { stdio: 'inherit' })",
            "({ toString() {}, get [Symbol.toStringTag]() { spin() } })",
        ];
        for (number, code) in (1..).map(|at| 2 * at).zip(endless.into_iter().chain(more)) {
            let head = if code.contains("echo in") { "" } else { "console.log('in');\n" };
            let told = open.interrupt(number, &format!("{head}{code}"));
            assert_eq!((told.status(), told.error().0), ("interrupted", "Interrupted"), "{code}");
            let after = open.run(number + 1, "process.nextTick(() => x++); await new Promise(setImmediate); x--");
            assert_eq!(after.value(), Some("42"), "{code}");
        }
    });
}

#[test]
fn an_interrupt_that_comes_too_late_or_too_early_does_nothing() {
    with_each_host("turns_node::late", |host| {
        let (mut open, _case) = host.case("").interactive();
        open.run(1, "process.on('SIGINT', () => {})");
        for number in 2..100 {
            open.begin(number, "process.on('SIGINT', () => {}); process.removeAllListeners('SIGINT')");
            open.send(&HostFrame::Interrupt { turn: number + 1 });
            open.send(&HostFrame::Interrupt { turn: number });
            let told = open.turned(number);
            assert!(matches!(told.status(), "completed" | "interrupted"), "{told:?}");
            open.send(&HostFrame::Interrupt { turn: number });
        }
        assert_eq!(
            open.run(1000, "await new Promise((done) => setTimeout(done, 20, 'still'))").value(),
            Some("'still'")
        );
    });
}

#[test]
fn the_signal_for_a_turn_that_has_ended_is_not_taken_for_one_to_the_next() {
    with_each_host("turns_node::next", |host| {
        let (mut open, _case) = host.case("").interactive();
        for number in (1..200).step_by(2) {
            let told = open.interrupt(number, "console.log('in'); await new Promise(() => {})");
            assert_eq!(told.status(), "interrupted");
            let told = open.run(number + 1, "for (let end = Date.now() + 3; Date.now() < end; );");
            assert_eq!(told.status(), "completed", "{number}");
        }
    });
}

#[test]
fn an_interrupt_behind_a_prelude_is_for_the_turn_alone() {
    with_each_host("turns_node::prelude", |host| {
        let prelude = "let x = 41; const until = Date.now() + 500; while (Date.now() < until);";
        let (mut open, _case) = host.case(prelude).interactive();
        open.begin(1, "for (;;);");
        open.send(&HostFrame::Interrupt { turn: 1 });
        assert_eq!(open.turned(1).status(), "interrupted");
        assert_eq!(open.run(2, "x + 1").value(), Some("42"));
    });
}

#[test]
fn all_that_a_turn_wrote_comes_before_its_end() {
    with_each_host("turns_node::output", |host| {
        let (mut open, _case) = host.case("").interactive();
        let code = "process.stdout.write('a'.repeat(300000)); process.stderr.write('b'.repeat(300000));\n\
                    enclave.result('r'.repeat(1000000)); console.log('c')";
        let told = open.run(1, code);
        assert_eq!((told.stdout, told.stderr), (format!("{}c\n", "a".repeat(300_000)), "b".repeat(300_000)));
        open.hang_up();
        let run = open.finish();
        assert!(run.result().is_some() && matches!(run.frames.last(), Some(GuestFrame::Turned(_))));
    });
}

#[test]
fn what_offers_rich_forms_is_told_in_them_and_what_is_too_large_is_left_out() {
    with_each_host("turns_node::rich", |host| {
        let (mut open, _case) = host.case("").interactive();
        let code = r"
class Rich {
  [Symbol.for('nodejs.util.inspect.custom')]() { return 'rich' }
  _repr_html_() { return '<b>é</b>' }
  _repr_png_() { return Buffer.from([0x89, 0x50, 0x4e, 0x47]) }
  _repr_json_() { return { a: 1 } }
}
new Rich()";
        let all = json!({
            "text/plain": "rich", "text/html": "<b>é</b>", "image/png": "iVBORw==", "application/json": { "a": 1 }
        });
        assert_eq!(open.run(1, code).report["value"], all);
        let told = open.run(2, "['\\ud800', 'x'.repeat(1 << 17)]");
        let text = told.value().expect("a value");
        assert!(text.len() < 70_000 && text.contains("more characters"), "{}", text.len());
        let told = open.run(3, "({ _repr_png_: () => Buffer.alloc(2 << 20), _repr_html_: () => 'h'.repeat(1 << 20) })");
        assert!(told.value().expect("a value").contains("[image/png of 2796206 bytes left out"), "{:?}", told.value());
        assert_eq!(told.report["value"]["text/html"].as_str().map(str::len), Some(1 << 20));
        let broken = "({ [Symbol.for('nodejs.util.inspect.custom')]() { throw new TypeError('x') } })";
        assert_eq!(open.run(4, broken).value(), Some("<inspect failed: TypeError>"));
        let told = open.run(5, "throw new Error('v'.repeat(1 << 22))");
        assert!(told.error().1.len() < 70_000 && told.traceback().len() < 70_000);
    });
}

#[test]
fn the_input_is_read_when_it_is_asked_for() {
    with_each_host("turns_node::input", |host| {
        let (mut open, case) = host.case("").interactive();
        assert_eq!(open.run(1, "enclave.input").value(), Some("null"));
        std::fs::write(case.workspace().join("input.json"), "{").expect("writes");
        assert_eq!(open.run(2, "enclave.input").error().0, "SyntaxError");
        std::fs::write(case.workspace().join("input.json"), "{\"i\": 7}").expect("writes");
        assert_eq!(open.run(3, "process.chdir('/'); enclave.input.i").value(), Some("7"));
        let one_shot = host.case("import { input } from 'enclave'; console.log(input.i, enclave.input === input)");
        std::fs::write(one_shot.workspace().join("input.json"), "{\"i\": 8}").expect("writes");
        assert_eq!(one_shot.run().clean(), "8 true\n");
    });
}

#[test]
fn leaving_the_process_ends_the_session_with_that_code() {
    with_each_host("turns_node::leave", |host| {
        let (mut open, _case) = host.case("").interactive();
        open.run(1, "const server = require('http').createServer().listen(0)");
        assert_eq!(open.run(2, "server.listening").value(), Some("true"));
        open.begin(3, "process.exit(7)");
        assert_eq!(open.finish().exit(), Exit::Code(7));
    });
}
