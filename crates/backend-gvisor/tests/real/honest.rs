//! Honest programs.

use crate::support::{host, node, python};

#[tokio::test]
async fn an_honest_python_program_runs_to_its_end() {
    let Some(host) = host("an_honest_python_program_runs_to_its_end").await else { return };
    let ended = host
        .run(&python("import os, sys\nprint('hello', os.getcwd(), os.getuid())\nenclave.result({'n': 6 * 7})"))
        .await;
    println!("{ended:?}");
    assert_eq!(ended.seen.stdout, "hello /workspace 65534\n");
    assert_eq!(ended.seen.results, [r#"{"n":42}"#]);
    assert_eq!(ended.seen.exit, Some(0));
    assert_eq!(ended.observation.exceeded, None);
}

#[tokio::test]
async fn an_honest_node_program_runs_to_its_end() {
    let Some(host) = host("an_honest_node_program_runs_to_its_end").await else { return };
    let ended = host.run(&node("console.log('hello', process.cwd(), process.getuid()); enclave.result({n: 42})")).await;
    println!("{ended:?}");
    assert_eq!(ended.seen.stdout, "hello /workspace 65534\n");
    assert_eq!(ended.seen.results, [r#"{"n":42}"#]);
    assert_eq!(ended.seen.exit, Some(0));
}
