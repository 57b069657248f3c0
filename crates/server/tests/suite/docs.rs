//! The documented examples: every `sh` block of a page runs, in order, against a server.

use std::{fs, path::Path, process::Command};

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_api_guide_runs() {
    let blocks = examples("api.md");
    assert!(blocks.len() >= 10, "only {} examples were found", blocks.len());
    play(&blocks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_of_the_page_on_fleets_runs() {
    let blocks = examples("fleets.md");
    assert!(!blocks.is_empty());
    // The page stands on the tools of the guide's first example.
    let tools = examples("api.md").swap_remove(0);
    play(&[vec![tools], blocks].concat()).await;
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
