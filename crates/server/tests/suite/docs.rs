//! The documented examples: every `sh` block of a page runs, in order, against a server.

use std::{fs, path::Path, process::Command};

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_api_guide_runs() {
    let blocks = ["api.md", "files.md", "turns.md", "terminals.md", "fleets.md"].map(examples);
    assert!(blocks.iter().all(|blocks| !blocks.is_empty()), "{blocks:?}");
    // The pages stand on the tools of the guide's first example.
    play(&blocks.concat()).await;
}

fn examples(page: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
    let text = fs::read_to_string(page).unwrap();
    text.split("```sh\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("a block that is opened is closed").0.to_owned())
        .collect()
}

async fn play(blocks: &[String]) {
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
