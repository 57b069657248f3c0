//! The documented examples: every `sh` block of the guide runs, in order, against a server.

use std::{fs, path::Path, process::Command};

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_api_guide_runs() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let text = ["api.md", "turns.md"].map(|page| fs::read_to_string(docs.join(page)).unwrap()).concat();
    let blocks: Vec<&str> = text
        .split("```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a block that is opened is closed").0)
        .collect();
    assert!(blocks.len() >= 10, "only {} examples were found", blocks.len());
    let server = Server::start("simulator", &[]).await;
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", &blocks.join("\n")])
        .current_dir(folder.path())
        .env("ENCLAVE_BASE_URL", server.url())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let faults = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{said}\n{faults}", output.status);
}
