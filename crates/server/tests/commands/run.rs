//! `enclave run`.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::place::{Left, Place, entries, signal, wait};

/// Runs a program on the simulator of an embedded server.
fn run(place: &Place, code: &str, args: &[&str]) -> Left {
    let file = place.file("program.py", code);
    place.run(&[&["run", &file, "--backend", "simulator"], args].concat())
}

#[test]
fn the_exit_code_follows_the_outcome() {
    let place = Place::new();
    let cases: &[(&str, &[&str], i32, &str)] = &[
        ("# sim: exit 0", &[], 0, "succeeded · "),
        ("# sim: exit 7", &[], 7, "failed, exit code 7 · "),
        ("# sim: signal 11", &[], 139, "failed, exit code 139 · "),
        ("# sim: hang", &["--wall", "100ms"], 124, "killed, wall_clock_exceeded (limit 100 ms) · "),
        ("# sim: memory 1GiB", &["--memory", "64MiB"], 137, "killed, memory_exceeded (limit 64 MiB) · "),
        ("# sim: fork 500", &["--pids", "32"], 137, "killed, pids_exceeded (limit 32) · "),
        ("# sim: disk 1GiB", &["--disk", "8MiB"], 137, "killed, disk_exceeded (limit 8 MiB) · "),
        ("# sim: output 1MiB", &["--output", "1KiB"], 137, "killed, output_exceeded (limit 1 KiB) · "),
        ("# sim: cpu 10s", &["--cpu-time", "50ms", "--cpu", "2"], 137, "killed, cpu_exceeded (limit 50 ms) · "),
        ("# sim: frame garbage", &[], 125, "faulted, "),
    ];
    for (program, args, code, verdict) in cases {
        let left = run(&place, program, args);
        assert_eq!(left.code, *code, "{program}: {}", left.stderr);
        assert!(left.stderr.contains(&format!("enclave: {verdict}")), "{program}: {}", left.stderr);
        if verdict.starts_with("killed") {
            assert!(left.stderr.contains(" · enforced by "), "{program}: {}", left.stderr);
        }
    }
    assert_eq!(entries(&place.data().join("embedded")), Vec::<String>::new(), "nothing is left of the servers");
}

#[test]
fn stdout_is_the_programs_byte_for_byte() {
    let place = Place::new();
    let code = "# sim: stdout one\\n\\xff\\x1b[2J no line end\n# sim: stderr oops\\n\n# sim: result {\"a\": 1}";
    let left = run(&place, code, &[]);
    assert_eq!(left.stdout, b"one\n\xff\x1b[2J no line end");
    assert!(left.stderr.starts_with("oops\nenclave: succeeded"), "{}", left.stderr);
    assert!(left.stderr.ends_with("enclave: result {\n  \"a\": 1\n}\n"), "{}", left.stderr);
}

#[test]
fn artifacts_are_saved_and_nothing_is_replaced() {
    let place = Place::new();
    let code = "# sim: write out/a.txt one\n# sim: write out/deep/b two\n# sim: write c three\n# sim: exit 3";
    let to = place.file("saved", "");
    std::fs::remove_file(&to).unwrap();
    let left = run(&place, code, &["--artifact", "out/**", "--save-to", &to]);
    assert_eq!(left.code, 3, "{}", left.stderr);
    assert!(left.stderr.contains("enclave: 2 artifacts saved in "), "{}", left.stderr);
    let read = |path: &str| std::fs::read_to_string(std::path::Path::new(&to).join(path)).unwrap();
    assert_eq!((read("out/a.txt").as_str(), read("out/deep/b").as_str()), ("one", "two"));
    assert_eq!(entries(std::path::Path::new(&to)), ["out"]);
    std::fs::write(std::path::Path::new(&to).join("out/a.txt"), "mine").unwrap();
    let left = run(&place, code, &["--artifact", "out/**", "--save-to", &to]);
    assert!(
        left.stderr.contains("0 artifacts saved") && left.stderr.contains("not saved: out/a.txt"),
        "{}",
        left.stderr
    );
    assert_eq!(read("out/a.txt"), "mine");
    let refused = run(&place, code, &["--artifact", "../x"]);
    assert!(refused.stderr.contains("artifacts[0]"), "{}", refused.stderr);
}

#[test]
fn json_is_one_object_alone_on_stdout() {
    let place = Place::new();
    let code = "# sim: stdout {\"outcome\": \"forged\"}\\n\n# sim: result [1, null]\n# sim: exit 3";
    let left = run(&place, code, &["--json", "--label", "team=x", "--env", "A=b", "--", "-v"]);
    assert_eq!(left.code, 3);
    assert_eq!(left.stdout().lines().count(), 1, "{}", left.stdout());
    let object: Value = serde_json::from_str(left.stdout()).unwrap();
    assert_eq!(object["outcome"], "failed");
    assert_eq!(object["exitCode"], 3);
    assert_eq!(object["result"], json!([1, null]));
    assert_eq!(object["stdoutTail"], "{\"outcome\": \"forged\"}\n");
    assert_eq!(object["sessionId"], object["session"]["id"]);
    assert_eq!(object["session"]["phase"], "torn_down");
    assert_eq!(object["session"]["labels"], json!({"team": "x"}));
    assert_eq!(object["session"]["env"], json!({"A": "b"}));
    assert_eq!(object["session"]["args"], json!(["-v"]));
    assert!(left.stderr.contains("forged"), "the program's output goes to stderr: {}", left.stderr);
}

#[test]
fn a_refusal_names_every_field_and_leaves_with_2() {
    let place = Place::new();
    let left = run(&place, "# sim: exit 0", &["--memory", "1KiB", "--pids", "1", "--image", "none", "--json"]);
    assert_eq!(left.code, 2);
    for field in ["enclave:   limits.memoryBytes: must be at least", "enclave:   limits.pids: must be at least"] {
        assert!(left.stderr.contains(field), "{field} in {}", left.stderr);
    }
    let object: Value = serde_json::from_str(left.stdout()).unwrap();
    assert_eq!(object["error"]["code"], "invalid_request");
    assert_eq!(object["error"]["errors"].as_array().unwrap().len(), 2);
    assert_eq!(run(&place, "", &[]).code, 2, "an empty program");
    assert_eq!(place.run(&["run", "/nonexistent.py", "--backend", "simulator"]).code, 2);
    assert_eq!(place.run(&["run"]).code, 2);
}

#[test]
fn a_server_that_is_not_there_leaves_3() {
    let place = Place::new();
    let file = place.file("a.py", "# sim: exit 0");
    let left = place.run(&["run", &file, "--server", "http://127.0.0.1:9", "--json"]);
    assert_eq!(left.code, 3, "{}", left.stderr);
    assert!(left.stderr.contains("http://127.0.0.1:9/: cannot talk to the server"), "{}", left.stderr);
    let object: Value = serde_json::from_str(left.stdout()).unwrap();
    assert!(object["error"]["detail"].is_string());
    let left = place.run(&["run", &file, "--server", "http://user:canary@127.0.0.1:9"]);
    assert_eq!(left.code, 2);
    assert!(!left.stderr.contains("canary"), "{}", left.stderr);
}

#[test]
fn backends_that_are_not_there_are_said_to_be_so() {
    let place = Place::new();
    let file = place.file("a.py", "# sim: exit 0");
    let left = place.run(&["run", &file, "--backend", "firecracker"]);
    assert_eq!(left.code, 2);
    assert!(left.stderr.contains("does not have the backend firecracker yet"), "{}", left.stderr);
}

#[test]
fn programs_come_from_stdin_and_languages_from_extensions() {
    let place = Place::new();
    let args = ["run", "-", "--backend", "simulator", "--json"];
    let left = place.run_with_input(&args, b"# sim: stdout from stdin");
    let object: Value = serde_json::from_str(left.stdout()).unwrap();
    assert_eq!((&object["stdoutTail"], &object["session"]["language"]), (&json!("from stdin"), &json!("python")));
    for (name, language) in
        [("a.js", "node"), ("a.mjs", "node"), ("a.cjs", "node"), ("a.py", "python"), ("a", "python")]
    {
        let file = place.file(name, if language == "node" { "// sim: exit 0" } else { "# sim: exit 0" });
        let left = place.run(&["run", &file, "--backend", "simulator", "--json"]);
        let object: Value = serde_json::from_str(left.stdout()).unwrap();
        assert_eq!(object["session"]["language"], language, "{name}");
    }
    let file = place.file("b.py", "// sim: exit 4");
    assert_eq!(place.run(&["run", &file, "--backend", "simulator", "--language", "node"]).code, 4);
}

#[test]
fn a_named_server_is_used_with_the_key_of_the_environment() {
    let place = Place::new();
    let server = place.serve(&["--backend", "simulator"]);
    let key = place.run(&["key", "create", "--org", "acme", "--role", "developer"]).stdout().trim().to_owned();
    let file = place.file("a.py", "# sim: stdout remote\n# sim: exit 5");
    let mut command = place.command(&["run", &file]);
    let output = command.env("ENCLAVE_BASE_URL", &server.url).env("ENCLAVE_API_KEY", &key).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(5), b"remote".as_slice()));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!said.contains(&key), "{said}");
    // As it was called at first.
    let left = place.run(&["run", &file, "--url", &server.url]);
    assert_eq!(left.code, 2);
    assert!(left.stderr.contains("(unauthenticated)"), "{}", left.stderr);
}

#[test]
fn ctrl_c_cancels_the_session_and_waits_for_its_end() {
    let place = Place::new();
    let file = place.file("a.py", "# sim: stdout ready\\n\n# sim: hang");
    let mut command = place.command(&["run", &file, "--backend", "simulator", "--wall", "10m"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n", "output comes while the program runs");
    signal(child.id(), "INT");
    assert_eq!(wait(&mut child), 130);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("enclave: cancelled · "), "{said}");
    assert_eq!(entries(&place.data().join("embedded")), Vec::<String>::new());
}

#[test]
fn a_program_whose_output_nobody_reads_is_cancelled() {
    let place = Place::new();
    let file = place.file("a.py", "# sim: output 8MiB\n# sim: hang");
    let mut command = place.command(&["run", &file, "--backend", "simulator", "--wall", "10m"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut first = [0; 1];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    assert_eq!(wait(&mut child), 141);
}
