use std::{path::PathBuf, process::Command};

use protocol::{Exit, Language};
use tempfile::TempDir;

use crate::support::{Case, Run, has, node, path};

/// The language host starts in two ways. Both must behave the same.
pub(crate) enum Host {
    Evaluated,
    Snapshot(TempDir),
}

impl Host {
    fn run(&self, code: &str) -> Run {
        self.case(code).run()
    }

    pub(crate) fn case(&self, code: &str) -> Case {
        let dir = match self {
            Self::Evaluated => PathBuf::from("/nonexistent"),
            Self::Snapshot(dir) => dir.path().into(),
        };
        node(code).options(&["--snapshots", dir.to_str().expect("text")])
    }
}

/// Runs the test with each, and skips what this machine lacks.
pub(crate) fn with_each_host(test: &str, check: impl Fn(&Host)) {
    if !has(Language::Node, test) {
        return;
    }
    check(&Host::Evaluated);
    let case = node("");
    let dir = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .expect("creates");
    let mut command = Command::new(case.runner());
    command.args(["--language", "node", "--write-snapshot"]).arg(dir.path()).env("PATH", path());
    let output = command.output().expect("starts");
    if !output.status.success() {
        println!("SKIP {test} from a snapshot: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let blob = String::from_utf8(output.stdout).expect("text");
    std::fs::set_permissions(blob.trim(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("opens");
    check(&Host::Snapshot(dir));
}

#[test]
fn a_program_prints_and_hands_in_a_result() {
    with_each_host("node::result", |host| {
        let run = host.run("console.log('hi'); enclave.result({a: [1, 2.5, null, true, 'é']}); enclave.result([2])");
        assert_eq!(run.clean(), "hi\n");
        assert_eq!(run.result().as_deref(), Some("[2]"));
    });
}

#[test]
fn a_script_is_a_main_module_of_the_workspace() {
    with_each_host("node::script", |host| {
        let code = "const helper = require('./helper'); const own = require('enclave');\n\
                    console.log(helper.x, own === enclave, own.session_id, require.main === module, \
                    __filename === process.argv[1], typeof fs, process.execArgv.length, typeof crypto.subtle);\n\
                    console.log(require.resolve('./helper').endsWith('/workspace/helper.js'))";
        let case = host.case(&code.replace("typeof crypto.subtle", "typeof require('crypto').subtle"));
        std::fs::write(case.workspace().join("helper.js"), "exports.x = 1").expect("writes");
        assert_eq!(case.run().clean(), "1 true ses_0197 true true undefined 0 object\ntrue\n");
    });
}

#[test]
fn import_and_top_level_await_make_it_a_module() {
    with_each_host("node::module", |host| {
        let imports = "import fs from 'fs';\nimport enclave, { result } from 'enclave';\nimport * as all from \"enclave\";\n\
                       import { x } from './helper.mjs';\nresult({ x, same: enclave === globalThis.enclave, id: all.session_id });\n\
                       console.log(typeof fs.readFileSync, import.meta.url.startsWith('file://'));";
        let case = host.case(imports);
        std::fs::write(case.workspace().join("helper.mjs"), "export const x = 1").expect("writes");
        let run = case.run();
        assert_eq!(run.clean(), "function true\n");
        assert_eq!(run.result().as_deref(), Some(r#"{"x":1,"same":true,"id":"ses_0197"}"#));
        let awaits = "const os = require('os');\nconst x = await Promise.resolve(3);\nconsole.log(x, os.EOL.length)";
        assert_eq!(host.run(awaits).clean(), "3 1\n");
        assert_eq!(host.run("export const a = 1; console.log(a)").clean(), "1\n");
        assert_eq!(host.run("// import and await in a comment\nconsole.log(typeof module)").clean(), "object\n");
        assert_eq!(
            host.run("#!/usr/bin/env node\nimport('fs').then((fs) => console.log(typeof fs.read))").clean(),
            "function\n"
        );
    });
}

#[test]
fn arguments_and_environment_are_exactly_those_of_the_session() {
    with_each_host("node::environment", |host| {
        let code =
            "console.log(JSON.stringify([process.argv.slice(2), process.env, require('fs').readFileSync(0, 'utf8')]))";
        let case = host.case(code).with(|start| {
            start.args = vec!["a b".into(), String::new()];
            start.env = vec![("X".into(), "1".into()), ("ENCLAVE_SESSION_ID".into(), "forged".into())];
        });
        let (path, home) = (case.path.clone(), case.workspace());
        let expected = format!(
            r#"[["a b",""],{{"PATH":"{path}:{0}/.local/bin","HOME":"{0}","LANG":"C.UTF-8","X":"1","ENCLAVE_SESSION_ID":"ses_0197"}},""]"#,
            home.display()
        );
        assert_eq!(case.run().clean(), expected + "\n");
    });
}

#[test]
fn an_uncaught_error_is_a_trace_without_the_hosts_frames_and_exit_code_1() {
    with_each_host("node::errors", |host| {
        for code in [
            "function f() {\n  throw new Error('told');\n}\nf();",
            "import 'fs';\nthrow new Error('told');",
            "const x = await 1;\nthrow new Error('told');",
            "setTimeout(() => {\n throw new Error('told'); }, 1);",
            "Promise.reject(new Error('told'))",
        ] {
            let run = host.run(code);
            let trace = run.stderr();
            assert_eq!(run.exit(), Exit::Code(1), "{code}");
            assert!(trace.contains("Error: told") && trace.contains("/workspace/main."), "{trace}");
            assert!(!trace.contains("enclave:") && !trace.contains("[eval]"), "{trace}");
        }
        for (code, words) in
            [("let x = ;", "SyntaxError"), ("require('./no')", "Cannot find module"), ("import './no.mjs'", "no.mjs")]
        {
            let run = host.run(code);
            assert_eq!(run.exit(), Exit::Code(1), "{code}");
            assert!(run.stderr().contains(words), "{}", run.stderr());
        }
    });
}

#[test]
fn every_way_to_exit_is_honoured() {
    with_each_host("node::exit", |host| {
        for (code, exit) in [
            ("", Exit::Code(0)),
            ("process.exit(7)", Exit::Code(7)),
            ("process.exitCode = 5", Exit::Code(5)),
            ("await 1; process.exit(6)", Exit::Code(6)),
            ("await new Promise(() => {})", Exit::Code(13)),
            ("process.kill(process.pid, 'SIGKILL')", Exit::Signal(9)),
            ("process.abort()", Exit::Signal(6)),
        ] {
            assert_eq!(host.run(code).exit(), exit, "{code}");
        }
    });
}

#[test]
fn workers_forks_and_subprocesses_work() {
    with_each_host("node::processes", |host| {
        let code = "const { fork, execFileSync } = require('child_process');\nconst { Worker, isMainThread } = require('worker_threads');\n\
            if (process.argv[2] === 'child') console.log('child');\nelse if (!isMainThread) require('worker_threads').parentPort.postMessage('worker');\n\
            else {\n  process.stdout.write(execFileSync('echo', ['sub']));\n  fork(__filename, ['child']).on('exit', (code) => {\n\
            new Worker(__filename).on('message', (message) => console.log(message, code));\n  });\n}";
        assert_eq!(host.run(code).clean(), "sub\nchild\nworker 0\n");
    });
}

#[test]
fn a_result_that_is_no_json_is_refused_with_a_clear_error() {
    with_each_host("node::refused", |host| {
        let code = "const refused = (value) => { try { enclave.result(value) } catch (error) { console.log(error.name, error.message) } };\n\
            let nested = []; for (let i = 0; i < 99; i += 1) nested = [nested];\nconst loop = []; loop.push(loop);\n\
            refused(undefined); refused(() => 1); refused({ a: 1n }); refused([NaN]); refused({ a: -Infinity });\n\
            refused('\\ud800'); refused({ '\\udc00': 1 }); refused('x'.repeat(1 << 20)); refused([nested]); refused(loop);\n\
            enclave.result(nested); enclave.result('x'.repeat((1 << 20) - 2));\n\
            try { enclave.binding('NO') } catch (error) { console.log(error.message) }\n\
            process.env.ENCLAVE_SVC_DB = 'http://db'; console.log(enclave.binding('DB'));";
        let run = host.run(code);
        let lines = run.lines();
        let expected = [
            "TypeError enclave.result: undefined is not JSON serialisable",
            "TypeError enclave.result: function is not JSON serialisable",
            "TypeError enclave.result: Do not know how to serialize a BigInt",
            "RangeError enclave.result: NaN is not a JSON number",
            "RangeError enclave.result: -Infinity is not a JSON number",
            "RangeError enclave.result: a string holds an unpaired surrogate, which JSON cannot carry",
            "RangeError enclave.result: a string holds an unpaired surrogate, which JSON cannot carry",
            "RangeError enclave.result: 1048578 bytes of JSON, at most 1048576 are allowed",
            "RangeError enclave.result: nested deeper than 100 levels",
        ];
        assert_eq!(&lines[..expected.len()], expected);
        let circular = lines.iter().position(|line| line.starts_with("TypeError enclave.result: Converting circular"));
        assert_eq!(circular, Some(expected.len()));
        assert_eq!(&lines[lines.len() - 2..], ["this session has no service binding named \"NO\"", "http://db"]);
        assert_eq!((run.exit(), run.result().map(|json| json.len())), (Exit::Code(0), Some(1 << 20)));
    });
}

#[test]
fn two_programs_do_not_draw_the_same_random_numbers_nor_share_a_clock() {
    with_each_host("node::random", |host| {
        let code =
            "console.log(Math.random(), crypto.randomUUID(), Math.abs(Date.now() - performance.timeOrigin) < 60000)";
        let code = code.replace("crypto.", "require('crypto').");
        let (one, other) = (host.run(&code).clean(), host.run(&code).clean());
        let (one, other): (Vec<_>, Vec<_>) = (one.split(' ').collect(), other.split(' ').collect());
        assert!(one[0] != other[0] && one[1] != other[1], "{one:?} {other:?}");
        assert_eq!((one[2], other[2]), ("true\n", "true\n"));
    });
}

#[test]
fn a_snapshot_that_this_node_cannot_read_is_done_without() {
    with_each_host("node::broken_snapshot", |host| {
        let Host::Snapshot(dir) = host else { return };
        let blob = std::fs::read_dir(dir.path()).expect("lists").flatten().next().expect("one").path();
        std::fs::write(blob, "of another processor").expect("writes");
        let run = host.run("console.log('still')");
        assert_eq!((run.stdout().as_str(), run.exit()), ("still\n", Exit::Code(0)));
        assert!(run.log.contains("starting without a snapshot"), "{}", run.log);
    });
}
