//! How many sessions a second the store takes: each one creation and three updates with seven audit events, from 64 tasks.
//!
//! `cargo run --release -p store --example throughput [-- FILE [SECONDS]]`; without a file, in a temporary directory.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use store::{
    conformance::support::{World, draft, result, update},
    sqlite::Sqlite,
};
use tokio::task::JoinSet;
use wire::{AuditType, Phase};

const TASKS: usize = 64;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().map(PathBuf::from);
    let seconds = arguments.next().map_or(5, |text| text.parse().expect("a number of seconds"));
    let store = match &path {
        Some(path) => Sqlite::open(path).await,
        None => Sqlite::open_in_memory().await,
    };
    let world = World::of(Arc::new(store.expect("the database opens"))).await;
    let (done, started) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let end = started + Duration::from_secs(seconds);
    let mut tasks = JoinSet::new();
    for _ in 0..TASKS {
        let (world, done) = (world.clone(), Arc::clone(&done));
        tasks.spawn(async move {
            while Instant::now() < end {
                life(&world).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.expect("no task fails");
    }
    let (sessions, elapsed) = (done.load(Ordering::Relaxed), started.elapsed());
    let each_second = sessions * 1000 / u64::try_from(elapsed.as_millis()).expect("a short run").max(1);
    println!("{sessions} sessions in {elapsed:.1?}: {each_second} a second");
    world.store.close().await;
}

/// Created; provisioned and started; ended with a result; torn down.
async fn life(world: &World) {
    let session = world.created().await;
    let mut running = update(&session, Phase::Running);
    running.sandbox = Some("sbx-1".to_owned());
    running.drafts.insert(0, draft(AuditType::SandboxProvisioned, session.id));
    world.tenant.update_session(running).await.expect("a live session is updated");
    let mut ended = update(&session, Phase::Succeeded);
    ended.result = Some(result(session.id, Some(json!({ "answer": 42 }))));
    ended.drafts.push(draft(AuditType::ResultCollected, session.id));
    world.tenant.update_session(ended).await.expect("a live session is updated");
    let mut gone = update(&session, Phase::TornDown);
    gone.drafts.push(draft(AuditType::AccessDenied, session.id));
    world.tenant.update_session(gone).await.expect("a live session is updated");
}
