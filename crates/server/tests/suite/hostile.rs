//! The hostile suite: programs that attack, on every backend that is here, through the public API.
//!
//! Each program under `hostile/` says in its first comment lines what it tries and what must become of it:
//!
//! - `try:` what it tries, in words;
//! - `limits:` `name=value` pairs of the session's limits;
//! - `env:` `NAME=value` pairs;
//! - `allow:` an entry of its allowlist, as JSON; may be repeated. Without one, nothing is allowed;
//! - `bind:` a binding that it may use; may be repeated;
//! - `expect:` outcomes, and kill reasons behind `killed`, any of which is right;
//! - `expect-exit:` the exit code;
//! - `expect-result:` the exact JSON result;
//! - `expect-denied:` the reason and a part of the words of a refusal that must be in the audit log and in the result; may
//!   be repeated;
//! - `expect-denied-really:` the same, only where programs are executed;
//! - `sim:` what the simulator models instead of executing.
//!
//! `{HTTP_PORT}` and its like stand for addresses of this run: see [`World::fill`].
//!
//! After each of them the audit trail must tell the story to its end, and after all of them nothing may be left, and an
//! honest program must run as if nothing had been.

mod case;

use std::{fs, path::Path, time::Duration};

use futures::{StreamExt, stream};
use serde_json::Value;
use wire::CreateSession;

use crate::{
    hostile::case::Case,
    residue,
    server::{Server, backends},
    world::{World, own_address},
};

/// Sessions at once: enough to be neighbours to one another.
const AT_ONCE: usize = 3;

fn cases(world: &World, server: &Server) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let mut paths: Vec<_> = fs::read_dir(root)
        .unwrap()
        .flat_map(|family| fs::read_dir(family.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .collect();
    paths.sort();
    let own = own_address().map_or_else(|| "127.0.0.1".to_owned(), |address| address.to_string());
    let fill = |text: &str| {
        world.fill(text).replace("{SERVER_PORT}", &server.port().to_string()).replace("{OWN_ADDRESS}", &own)
    };
    paths.iter().map(|path| Case::read(path, fill)).collect()
}

async fn suite(backend: &str) {
    let canary = tempfile::Builder::new().prefix("enclave-canary-").tempfile().unwrap();
    fs::write(canary.path(), "canary-of-the-host").unwrap();
    let world = World::start().await;
    let arguments = world.arguments();
    let server = Server::start(backend, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let client = server.client();
    let binding = serde_json::json!({
        "name": "api", "kind": {"type": "bearer"}, "secret": {"value": "canary-of-a-binding"},
        "upstream": {"url": format!("http://{}", world.http)},
    });
    client.create_binding(&serde_json::from_value(binding).unwrap()).await.unwrap();
    let cases = cases(&world, &server);
    assert!(cases.len() >= 35, "only {} hostile programs were found", cases.len());
    let ran: Vec<Result<Vec<String>, String>> = stream::iter(&cases)
        .map(|case| {
            let client = client.clone();
            async move { case.run(&client).await.map_err(|error| format!("{}: {error}", case.name)) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let failures: Vec<&String> = ran.iter().filter_map(|ran| ran.as_ref().err()).collect();
    assert!(failures.is_empty(), "{} of {} on {backend}:\n{failures:#?}", failures.len(), cases.len());

    let sandboxes: Vec<String> = ran.into_iter().filter_map(Result::ok).flatten().collect();
    assert_eq!(sandboxes.len(), cases.len(), "each had one sandbox");
    assert_eq!(residue::search(&sandboxes, &server.data), Vec::<String>::new());

    let honest =
        CreateSession { code: Some("# sim: result 42\nenclave.result(42)".into()), ..CreateSession::default() };
    let id = client.create(&honest).await.unwrap().id;
    let result = client.result(id, Duration::from_mins(1)).await.unwrap();
    assert_eq!(result.value(), Some(Value::from(42)), "the next session does not run as if nothing had been");
    assert_eq!(world.trespassers(), 0, "a service that nobody may reach was reached");
    let leaked: Vec<_> = world.resolved().into_iter().filter(|name| name.starts_with("secret-")).collect();
    assert_eq!(leaked, Vec::<String>::new(), "names that are not allowed have left as DNS queries");
    let reached: Vec<_> = world.requests().into_iter().filter(|request| request.path.contains("leak")).collect();
    assert!(reached.is_empty(), "{reached:#?}");
    println!("{} hostile programs on {backend}", cases.len());
    server.audit_verifies().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_programs_are_contained_on_the_simulator_as_modelled() {
    suite("simulator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_programs_are_contained_by_gvisor() {
    if backends("hostile_programs_are_contained_by_gvisor").contains(&"gvisor") {
        suite("gvisor").await;
    }
}
