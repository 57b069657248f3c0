//! `enclave files` and `enclave artifacts` against a server, and large files beside a request.

use std::time::Instant;

use serde_json::{Value, json};

use crate::place::{Left, PATIENCE, Place};

#[test]
fn files_are_listed_copied_both_ways_and_removed_on_the_command_line() {
    let place = Place::new();
    let server = place.serve(&["--backend", "simulator", "--profile", "dev"]);
    let enclave = |args: &[&str]| {
        let mut command = place.command(args);
        let output = command.env("ENCLAVE_BASE_URL", &server.url).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        Left { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
    };
    let request = json!({
        "name": "made",
        "kind": {"type": "webhook"},
        "session": {"code": "# sim: write out/a.txt hello\n# sim: write b x\n# sim: hang", "artifacts": ["out/**", "in/*"]},
    });
    let file = place.file("trigger.json", request.to_string());
    assert_eq!(enclave(&["trigger", "create", &file]).code, 0);
    let fired: Value = serde_json::from_slice(&enclave(&["trigger", "fire", "made", "--json"]).stdout).unwrap();
    let id = fired["sessionId"].as_str().unwrap();
    // It takes a moment until it runs.
    let began = Instant::now();
    let patiently = |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "it does not come");
        }
    };
    patiently(&|| enclave(&["files", "get", id, "b", "-"]).stdout == b"x");

    let listed = enclave(&["files", "list", id, "--recursive"]);
    assert!(
        listed.stdout().lines().any(|line| line.starts_with("- 0644") && line.ends_with("  out/a.txt")),
        "{listed:?}"
    );
    let listed: Value = serde_json::from_slice(&enclave(&["files", "list", id, "out", "--json"]).stdout).unwrap();
    assert_eq!(listed[0]["path"], "out/a.txt");
    let local = place.file("local.bin", vec![7; 3 << 20]);
    let stored = enclave(&["files", "put", id, &local, "in/there.bin"]);
    assert_eq!((stored.code, stored.stdout().ends_with("  3145728  in/there.bin\n")), (0, true), "{stored:?}");
    let back = place.path("back.bin").to_str().unwrap().to_owned();
    assert_eq!(enclave(&["files", "get", id, "in/there.bin", &back]).code, 0);
    assert_eq!(std::fs::read(&back).unwrap(), std::fs::read(&local).unwrap());
    let again = enclave(&["files", "get", id, "in/there.bin", &back]);
    assert!(again.code == 1 && again.stderr.contains("back.bin cannot be made"), "{again:?}");
    assert_eq!(enclave(&["files", "remove", id, "b"]).code, 0);
    let absent = enclave(&["files", "get", id, "b", "-"]);
    assert!(absent.code == 1 && absent.stderr.contains("not_found"), "{absent:?}");
    let out = enclave(&["files", "put", id, &local, "../x"]);
    assert!(out.code == 1 && out.stderr.contains("is no path below /workspace"), "{out:?}");
    let unreadable = enclave(&["files", "put", id, "/nonexistent/x"]);
    assert!(unreadable.code == 1 && unreadable.stderr.contains("/nonexistent/x cannot be read"), "{unreadable:?}");

    assert!(delete(&server.url, id), "the session ends");
    patiently(&|| enclave(&["artifacts", "list", id]).stdout().lines().count() == 2);
    let to = place.path("saved");
    let one = enclave(&["artifacts", "get", id, "out/a.txt", "--to", to.to_str().unwrap()]);
    assert_eq!((one.code, std::fs::read(to.join("out/a.txt")).unwrap()), (0, b"hello".to_vec()), "{one:?}");
    let rest = enclave(&["artifacts", "get", id, "--to", to.to_str().unwrap()]);
    assert!(rest.code == 1 && rest.stderr.contains("not saved: out/a.txt"), "{rest:?}");
    assert!(rest.stdout().ends_with("  in/there.bin\n") && to.join("in/there.bin").exists(), "{rest:?}");
    let none = enclave(&["artifacts", "get", id, "other"]);
    assert!(none.code == 1 && none.stderr.contains("has left no \"other\""), "{none:?}");
}

fn delete(url: &str, id: &str) -> bool {
    let url = format!("{url}/v1/sessions/{id}");
    let curl = std::process::Command::new("curl").args(["-fsS", "-o", "/dev/null", "-X", "DELETE", &url]).status();
    curl.unwrap().success()
}

#[test]
fn a_large_file_goes_beside_the_request() {
    let place = Place::new();
    let content = "0123456789abcdef".repeat(1 << 17);
    let large = place.file("large.txt", &content);
    let program = place.file("cat.py", "# sim: cat in/large.txt");
    let left = place.run(&[
        "run",
        &program,
        "--backend",
        "simulator",
        "--output",
        "8MiB",
        "--file",
        &format!("{large}:in/large.txt"),
    ]);
    assert_eq!((left.code, left.stdout.len()), (0, content.len()), "{}", left.stderr);
    assert!(left.stdout == content.as_bytes());
    let refused = place.run(&["run", &program, "--backend", "simulator", "--disk", "1MiB", "--file", &large]);
    assert!(refused.code == 2 && refused.stderr.contains("disk_exceeded"), "{refused:?}");
    let misplaced = place.run(&["run", &program, "--backend", "simulator", "--file", &format!("{large}:../x")]);
    assert!(misplaced.code == 2 && misplaced.stderr.contains("file[0]: "), "{misplaced:?}");
}
