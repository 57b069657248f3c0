//! `enclave trigger` against a server.

use serde_json::{Value, json};

use crate::place::{Left, Place};

#[test]
fn a_trigger_is_made_fired_paused_and_deleted_on_the_command_line() {
    let place = Place::new();
    let server = place.serve(&["--backend", "simulator"]);
    let key = place.run(&["key", "create", "--org", "acme", "--role", "developer"]).stdout().trim().to_owned();
    let enclave = |args: &[&str]| {
        let mut command = place.command(args);
        let output = command.env("ENCLAVE_BASE_URL", &server.url).env("ENCLAVE_API_KEY", &key).output().unwrap();
        Left {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    };
    let request = json!({"name": "on-push", "kind": {"type": "webhook"}, "session": {"code": "# sim: exit 0"}});
    let file = place.file("trigger.json", request.to_string());
    let made = enclave(&["trigger", "create", &file]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    assert!(made.stdout().contains("on-push") && made.stdout().contains("secret: whsec_"), "{}", made.stdout());
    let listed = enclave(&["trigger", "list"]);
    assert!(listed.stdout().contains("POST /v1/hooks/trg_") && !listed.stdout().contains("whsec_"));
    let fired: Value = serde_json::from_slice(&enclave(&["trigger", "fire", "on-push", "--json"]).stdout).unwrap();
    assert_eq!(fired["outcome"], "started", "{fired}");
    let runs = enclave(&["trigger", "runs", "on-push"]);
    assert!(runs.stdout().contains(fired["sessionId"].as_str().unwrap()), "{}", runs.stdout());
    assert!(enclave(&["trigger", "pause", "on-push"]).stdout().contains("paused"));
    assert!(!enclave(&["trigger", "resume", "on-push"]).stdout().contains("paused"));
    assert_eq!(enclave(&["trigger", "delete", "on-push"]).code, 0);
    let gone = enclave(&["trigger", "fire", "on-push"]);
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("there is no trigger"), "{}", gone.stderr);

    let faulty = place.file("faulty.json", json!({"name": 5, "kind": {"type": "mail"}}).to_string());
    let refused = enclave(&["trigger", "create", &faulty]);
    assert_eq!(refused.code, 1);
    for field in ["name", "kind.type", "session"] {
        assert!(refused.stderr.contains(&format!("{field}: ")), "{}", refused.stderr);
    }
}
