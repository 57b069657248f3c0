//! What the program and the documents say of it.

use std::{fs, path::Path};

use crate::place::Place;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

/// The words of a text that start like this.
fn words<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = &'a str> {
    let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    text.split(move |c| !part(c)).filter(move |word| word.starts_with(start) && word.len() > start.len())
}

#[test]
fn the_help_of_serve_explains_every_key() {
    let reference = document("configuration.md");
    let help = Place::new().run(&["serve", "--help"]);
    assert_eq!(help.code, 0);
    let variables: Vec<_> =
        reference.lines().filter_map(|line| line.strip_prefix("- environment: `")?.strip_suffix('`')).collect();
    assert!(variables.len() > 20, "{variables:?}");
    for variable in variables {
        assert!(help.stdout().contains(&format!("[env: {variable}]")), "{variable}");
        let key = variable.strip_prefix("ENCLAVE_").unwrap().to_ascii_lowercase();
        assert!(help.stdout().contains(&format!("[file: {key}]")), "{key}");
        assert!(help.stdout().contains(&format!("--{} ", key.replace('_', "-"))), "{key}");
    }
    assert_eq!(help.stdout().matches("[default: ").count(), help.stdout().matches("[file: ").count());
}

#[test]
fn the_command_line_page_has_every_command_flag_and_exit_code() {
    let page = document("cli.md");
    let place = Place::new();
    for command in [
        "run",
        "fleet run",
        "fleet list",
        "fleet show",
        "fleet cancel",
        "key create",
        "key list",
        "key revoke",
        "binding create",
        "binding list",
        "binding show",
        "binding rotate",
        "binding delete",
        "files list",
        "files get",
        "files put",
        "files remove",
        "artifacts list",
        "artifacts get",
        "trigger create",
        "trigger list",
        "trigger runs",
        "trigger fire",
        "trigger pause",
        "trigger resume",
        "trigger delete",
        "audit verify",
        "image build",
        "image list",
        "demo",
        "doctor",
    ] {
        let words_of: Vec<_> = command.split(' ').chain(["--help"]).collect();
        let help = place.run(&words_of);
        assert_eq!(help.code, 0, "{command}");
        assert!(page.contains(&format!("enclave {command}")), "{command} is not in docs/cli.md");
        let section = page.split(&format!("enclave {command}")).nth(1).unwrap_or_default();
        for flag in words(help.stdout(), "--").filter(|flag| !matches!(*flag, "--help" | "--version")) {
            assert!(section.contains(&format!("`{flag}")) || page.contains(&format!("`{flag}")), "{command} {flag}");
        }
    }
    for command in ["serve", "openapi", "completions", "man", "version"] {
        assert!(page.contains(&format!("enclave {command}")), "{command} is not in docs/cli.md");
    }
    let help = place.run(&["run", "--help"]);
    let codes = help.stdout().split("Exit codes:").nth(1).unwrap();
    let codes: Vec<_> = codes.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(codes.len() >= 9, "{codes:?}");
    for code in codes {
        assert!(page.contains(&format!("| {code} |")), "exit code {code} is not in docs/cli.md");
    }
}

#[test]
fn the_openapi_document_is_that_of_the_api() {
    let left = Place::new().run(&["openapi"]);
    let document: serde_json::Value = serde_json::from_slice(&left.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[test]
fn completions_manual_pages_and_the_version_are_printed() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let left = place.run(&["completions", shell]);
        assert!(left.code == 0 && left.stdout().contains("enclave"), "{shell}");
    }
    assert!(place.run(&["man"]).stdout().contains(".TH enclave 1"));
    assert!(place.run(&["man", "key", "create"]).stdout().contains("\\-\\-role"));
    assert_eq!(place.run(&["man", "nothing"]).code, 1);
    let version = format!("enclave {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(place.run(&["version"]).stdout(), version);
    assert_eq!(place.run(&["--version"]).stdout(), version);
}
