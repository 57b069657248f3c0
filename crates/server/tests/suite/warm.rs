//! Sandboxes that are booted ahead: used by the next session, and no more left behind than others.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use wire::{AuditType, CreateSession, Outcome};

use crate::{
    faults::sandboxes_below,
    server::{Server, backends},
};

const PATIENCE: Duration = Duration::from_mins(2);

/// The names of the server's sandboxes.
fn sandboxes(server: &Server) -> Vec<String> {
    let below = server.groups().iter().flat_map(|group| sandboxes_below(group)).collect::<Vec<PathBuf>>();
    let mut names: Vec<String> =
        below.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// Waits until exactly one sandbox is there that is none of these.
async fn another(server: &Server, than: &[String]) -> String {
    let began = Instant::now();
    loop {
        if let [one] = &sandboxes(server)[..]
            && !than.contains(one)
        {
            return one.clone();
        }
        assert!(began.elapsed() < PATIENCE, "{:?} {}", sandboxes(server), server.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Runs a session, and says in which sandbox.
async fn run(server: &Server, number: i32) -> String {
    let client = server.client();
    let code = format!("open('x', 'x').write('{number}')\nenclave.result({number})");
    let session = client.create(&CreateSession { code: Some(code), ..CreateSession::default() }).await.unwrap();
    let result = client.result(session.id, PATIENCE).await.unwrap();
    assert_eq!((result.outcome, result.value()), (Outcome::Succeeded, Some(number.into())));
    let trail = client.audit(session.id, None).await.unwrap().items;
    let event = trail.iter().find(|event| event.kind == AuditType::SandboxProvisioned).unwrap();
    event.data["sandbox"].as_str().unwrap().to_owned()
}

/// Waits until the kernel says that no process of a sandbox runs; not where it has no tree of version 2.
async fn rests(server: &Server, sandbox: &str) {
    let events: Vec<PathBuf> = server
        .groups()
        .iter()
        .map(|group| group.join(sandbox).join("cgroup.events"))
        .filter(|file| file.exists())
        .collect();
    let [events] = &events[..] else { return println!("SKIP that a sandbox rests: no cgroup v2 here") };
    let began = Instant::now();
    while !std::fs::read_to_string(events).unwrap().contains("frozen 1") {
        assert!(began.elapsed() < PATIENCE, "{} {}", events.display(), server.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_gets_the_sandbox_that_was_booted_ahead_and_none_is_left() {
    let name = "a_session_gets_the_sandbox_that_was_booted_ahead_and_none_is_left";
    if !backends(name).contains(&"gvisor") {
        return;
    }
    let mut server = Server::start("gvisor", &["--warm", "1"]).await;
    let mut seen = Vec::new();
    let mut was_used = false;
    for round in 0..20 {
        // It is there, but may still be booting: a session that comes before it is ready gets one of its own.
        seen.push(another(&server, &seen).await);
        let used = run(&server, round).await;
        if seen.contains(&used) {
            was_used = true;
            break;
        }
        seen.pop();
        seen.push(used);
    }
    assert!(was_used, "{seen:?}");
    seen.push(another(&server, &seen).await);
    // It is stopped when it has booted to its end, goes on for a session, and is removed as any other.
    rests(&server, seen.last().unwrap()).await;
    assert_eq!(run(&server, 100).await, *seen.last().unwrap());
    seen.push(another(&server, &seen).await);
    rests(&server, seen.last().unwrap()).await;
    // One is ready. The next server removes it, and boots another.
    server.restart().await;
    seen.push(another(&server, &seen).await);
    let (left_well, _) = server.terminate();
    assert!(left_well, "{}", server.log());
    assert_eq!(sandboxes(&server), Vec::<String>::new());
}
