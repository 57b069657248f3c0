//! The same on gVisor, where it is: programs that really run.

use serde_json::{Value, json};

use crate::place::{Place, entries};

/// Whether gVisor works here; if not, the skip is printed.
pub(crate) fn works(place: &Place, test: &str) -> bool {
    let left = place.run_with_input(&["run", "-", "--backend", "gvisor"], b"print('here')");
    if left.code == 0 {
        return true;
    }
    println!("SKIP {test}: {}", left.stderr.lines().next().unwrap_or("no reason given"));
    false
}

#[test]
fn programs_run_and_leave_what_they_should() {
    let place = Place::new();
    if !works(&place, "programs_run_and_leave_what_they_should") {
        return;
    }
    let python =
        place.file("a.py", "import sys\nprint(sys.argv[1], end='')\nenclave.result({'n': 6 * 7})\nsys.exit(3)");
    let left = place.run(&["run", &python, "--json", "--", "word"]);
    assert_eq!(left.code, 3, "{}", left.stderr);
    let object: Value = serde_json::from_str(left.stdout()).unwrap();
    assert_eq!((&object["result"], &object["stdoutTail"]), (&json!({"n": 42}), &json!("word")));
    assert_eq!(object["session"]["backend"], "gvisor", "auto takes it");

    let node = place.file("a.js", "process.stdout.write('hi'); enclave.result([process.env.A])");
    let left = place.run(&["run", &node, "--env", "A=b"]);
    assert_eq!((left.code, left.stdout()), (0, "hi"), "{}", left.stderr);
    assert!(left.stderr.contains("\"b\""), "{}", left.stderr);
    assert_eq!(entries(&place.data().join("embedded")), Vec::<String>::new());
}

#[test]
fn a_strict_umask_keeps_nothing_from_a_sandbox() {
    let place = Place::new();
    if !works(&place, "a_strict_umask_keeps_nothing_from_a_sandbox") {
        return;
    }
    for mask in [0o077, 0o177] {
        // In this process, which the command has it from; nextest gives each test its own.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        let left =
            place.run_with_input(&["run", "-", "--backend", "gvisor"], b"open('a', 'w').write('b'); print('here')");
        rustix::process::umask(before);
        assert_eq!((left.code, left.stdout()), (0, "here\n"), "{mask:o}: {}", left.stderr);
    }
}

#[test]
fn limits_end_programs_for_the_right_reason() {
    let place = Place::new();
    if !works(&place, "limits_end_programs_for_the_right_reason") {
        return;
    }
    let cases = [
        ("while True: pass", ["--wall", "1s"], 124, "wall_clock_exceeded"),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", ["--memory", "128MiB"], 137, "memory_exceeded"),
        ("print('x' * (1 << 22))", ["--output", "64KiB"], 137, "output_exceeded"),
    ];
    for (code, args, expected, reason) in cases {
        let file = place.file("a.py", code);
        let left = place.run(&[&["run", &file], args.as_slice()].concat());
        assert_eq!(left.code, expected, "{code}: {}", left.stderr);
        assert!(left.stderr.contains(&format!("killed, {reason}")), "{code}: {}", left.stderr);
    }
}

#[test]
fn a_server_on_gvisor_says_what_it_is() {
    let place = Place::new();
    if !works(&place, "a_server_on_gvisor_says_what_it_is") {
        return;
    }
    let mut server = place.serve(&["--profile", "hosted"]);
    let log = server.log();
    assert!(log.contains(r#""backend":"gvisor","isolation":"userspace_kernel","profile":"hosted""#), "{log}");
    assert!(log.contains("the strongest that works here"), "{log}");
    server.signal("TERM");
    assert_eq!(server.left(), 0);
    assert_eq!(entries(&place.data().join("sandboxes/sandboxes")), Vec::<String>::new(), "no sandbox is left");
}

#[test]
fn the_demo_goes_as_it_says() {
    let place = Place::new();
    let mut backends = vec!["simulator"];
    if works(&place, "the_demo_goes_as_it_says on gvisor") {
        backends.push("gvisor");
    }
    for backend in backends {
        let left = place.run(&["demo", "--json", "--backend", backend]);
        let shown: Value = serde_json::from_str(left.stdout().lines().last().unwrap_or_default()).unwrap();
        let checks = shown["checks"].as_array().unwrap();
        let wrong: Vec<_> = checks.iter().filter(|check| check["ok"] != true).collect();
        assert!(wrong.is_empty() && checks.len() >= 16, "{backend}: {wrong:#?}\n{}", left.stderr);
        assert_eq!((left.code, &shown["ok"]), (0, &json!(true)), "{backend}");
    }
}
