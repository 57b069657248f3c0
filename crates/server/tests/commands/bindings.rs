//! `enclave binding` against a server, the example of its page, and a secret that is hunted for.

use std::{fs, io::Write, path::Path, process::Stdio};

use serde_json::Value;

use crate::place::{Left, Place, Server};

const FIRST: &str = "canary-first-of-the-command";
const SECOND: &str = "canary-second-of-the-command";

/// Somebody with a key at a server.
struct Caller {
    place: Place,
    server: Server,
    key: String,
}

impl Caller {
    fn new() -> Self {
        let place = Place::new();
        let server = place.serve(&["--backend", "simulator"]);
        let key = place.run(&["key", "create", "--org", "acme", "--role", "admin"]).stdout().trim().to_owned();
        Self { place, server, key }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.place.command(args);
        command.env("ENCLAVE_BASE_URL", &self.server.url).env("ENCLAVE_API_KEY", &self.key);
        command
    }

    fn enclave(&self, args: &[&str], input: &str) -> Left {
        let mut child =
            self.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that does not read leaves a broken pipe.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Left {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn holds(bytes: &[u8], what: &str) -> bool {
    bytes.windows(what.len()).any(|window| window == what.as_bytes())
}

#[test]
fn a_binding_is_made_shown_rotated_and_deleted_and_its_secret_is_nowhere() {
    let mut caller = Caller::new();
    let file = caller.place.file("secret", format!("{SECOND}\n"));
    let create = ["binding", "create", "github", "--url", "https://api.example.com/v1", "--secret-stdin"];
    let kind = ["--header", "x-api-key:Token {secret}", "--allow", "GET,POST /repos/**", "--max-calls", "5"];
    let made = caller.enclave(&[create.as_slice(), &kind, &["--json"]].concat(), &format!("{FIRST}\n"));
    assert_eq!(made.code, 0, "{}", made.stderr);
    let binding: Value = serde_json::from_slice(&made.stdout).unwrap();
    assert_eq!(binding["kind"]["template"], "Token {secret}");
    assert_eq!(binding["allow"][0]["paths"][0], "/repos/**");
    let again = caller.enclave(&[create.as_slice(), &["--bearer"]].concat(), FIRST);
    assert_eq!((again.code, again.stdout()), (1, ""));
    assert!(again.stderr.contains("conflict"), "{}", again.stderr);
    let faulty = ["binding", "create", "No", "--url", "ftp://x", "--bearer", "--secret-stdin"];
    let faulty = caller.enclave(&faulty, "canary");
    assert_eq!(faulty.code, 1);
    for field in ["name: ", "upstream.url: ", "secret.value: "] {
        assert!(faulty.stderr.contains(field), "{}", faulty.stderr);
    }

    let id = binding["id"].as_str().unwrap();
    let listed = caller.enclave(&["binding", "list"], "");
    assert!(listed.stdout().contains(id) && listed.stdout().contains("github"), "{}", listed.stdout());
    for name in ["github", id] {
        let shown = caller.enclave(&["binding", "show", name, "--json"], "");
        assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap(), binding);
    }
    let rotated = caller.enclave(&["binding", "rotate", "github", "--secret-file", &file], "");
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    let shown = caller.enclave(&["binding", "show", "github"], "");
    assert!(shown.stdout().contains("\"secretVersion\": 2"), "{}", shown.stdout());

    // While the server runs, what it wrote last is in the log beside the database.
    let mut looked_at = Vec::new();
    for entry in crate::place::entries(&caller.place.data()) {
        let Ok(bytes) = fs::read(caller.place.data().join(&entry)) else { continue };
        assert!(!holds(&bytes, "canary"), "{entry} holds a secret");
        looked_at.push(entry);
    }
    for file in ["enclave.db", "enclave.db-wal", "secrets.key"] {
        assert!(looked_at.iter().any(|entry| entry == file), "{file} is not in {looked_at:?}");
    }

    let deleted = caller.enclave(&["binding", "delete", "github"], "");
    assert_eq!(deleted.code, 0, "{}", deleted.stderr);
    for args in [["binding", "show", "github"], ["binding", "delete", "github"], ["binding", "show", id]] {
        assert_eq!(caller.enclave(&args, "").code, 1, "{args:?}");
    }
    let log = caller.server.log();
    assert!(log.contains("made a key for the secrets of bindings"), "{log}");
    for left in [&made, &again, &faulty, &listed, &rotated, &shown, &deleted] {
        assert!(!holds(&left.stdout, "canary") && !left.stderr.contains("canary"), "{left:?}");
    }
    assert!(!log.contains("canary"), "{log}");
    caller.server.signal("TERM");
    assert_eq!(caller.server.left(), 0);
    assert_eq!(caller.place.run(&["audit", "verify"]).code, 0);
    for entry in crate::place::entries(&caller.place.data()) {
        let bytes = fs::read(caller.place.data().join(&entry)).unwrap_or_default();
        assert!(!holds(&bytes, "canary"), "{entry} holds a secret");
    }
}

#[test]
fn a_secret_is_not_taken_from_the_command_line_or_left_out() {
    let caller = Caller::new();
    let create = ["binding", "create", "github", "--url", "https://api.example.com", "--bearer"];
    let none = caller.enclave(&create, "");
    assert_eq!((none.code, none.stdout()), (1, ""));
    assert!(none.stderr.contains("--secret-file or --secret-stdin"), "{}", none.stderr);
    for option in ["--secret", "--token", "--value"] {
        assert_eq!(caller.enclave(&[create.as_slice(), &[option, "x"]].concat(), "").code, 2, "{option}");
    }
    let both = [create.as_slice(), &["--secret-stdin", "--secret-file", "x"]].concat();
    assert_eq!(caller.enclave(&both, "").code, 2);
}

#[test]
fn the_example_of_the_page_runs() {
    let caller = Caller::new();
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bindings.md");
    let page = fs::read_to_string(page).unwrap();
    let block = |language: &str, at: usize| {
        let rest = page.split(&format!("```{language}\n")).nth(at).expect("the page has the block");
        rest.split("```").next().unwrap().to_owned()
    };
    let binary = Path::new(env!("CARGO_BIN_EXE_enclave"));
    let script = format!("set -eu\n{}", block("sh", 1));
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut command = std::process::Command::new("bash");
    let folder = tempfile::tempdir().unwrap();
    command.args(["-c", &script]).current_dir(folder.path()).env("PATH", path);
    command.env("ENCLAVE_BASE_URL", &caller.server.url).env("ENCLAVE_API_KEY", &caller.key);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("github") && !said.contains("token-itself"), "{said}");

    // What the commands did is what the page says of HTTP.
    let (request, faults) = wire::CreateBinding::parse(block("json", 1).as_bytes()).unwrap();
    assert_eq!(faults, []);
    let answer: wire::Binding = serde_json::from_str(&block("json", 2)).unwrap();
    assert_eq!(request.spec, answer.spec);
    let shown = said.split_once("\n{").unwrap().1.split("\n}\n").next().unwrap();
    let shown: wire::Binding = serde_json::from_str(&format!("{{{shown}\n}}")).unwrap();
    assert_eq!(shown.spec, answer.spec);
}

#[test]
fn a_server_with_another_key_says_which_bindings_it_cannot_open_and_takes_their_secrets_anew() {
    let mut caller = Caller::new();
    let create = ["binding", "create", "github", "--url", "https://api.example.com", "--bearer", "--secret-stdin"];
    assert_eq!(caller.enclave(&create, FIRST).code, 0);
    caller.server.signal("TERM");
    caller.server.left();
    let key = caller.place.file("key", "07".repeat(32));
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    caller.server = caller.place.serve(&["--backend", "simulator", "--secrets-key-file", &key]);
    assert!(caller.server.log().contains("does not open the secret"), "{}", caller.server.log());
    let rotated = caller.enclave(&["binding", "rotate", "github", "--secret-stdin"], SECOND);
    assert_eq!(rotated.code, 0, "{}", rotated.stderr);
    caller.server.signal("TERM");
    caller.server.left();
    caller.server = caller.place.serve(&["--backend", "simulator", "--secrets-key-file", &key]);
    assert!(!caller.server.log().contains("does not open the secret"), "{}", caller.server.log());
}

#[test]
fn what_is_no_key_for_secrets_stops_the_start_and_is_not_shown() {
    let place = Place::new();
    for (args, why) in [
        (["--secrets-key-command", "echo canary"], "32 bytes"),
        (["--secrets-key-command", "exit 3"], "ended with"),
        (["--secrets-key-file", "/nonexistent/key"], "/nonexistent/key"),
        (["--secrets-key", "canary"], "unexpected argument"),
    ] {
        let all = [["--backend", "simulator"], args].concat();
        let Err(left) = place.try_serve(&all) else { panic!("it started with {args:?}") };
        assert!(left.stderr.contains(why), "{args:?}: {}", left.stderr);
        assert!(!left.stderr.contains("canary") || why == "unexpected argument", "{}", left.stderr);
    }
    let config = place.file("secrets.toml", "secrets_key = 'canary'\n");
    let left = place.run(&["serve", "--config", &config]);
    assert_eq!(left.code, 2);
    assert!(left.stderr.contains("from the environment alone") && !left.stderr.contains("canary"), "{}", left.stderr);
}
