//! Processes that write to one file: several at once, and killed at any moment.
//!
//! The child is this test binary again, told by the environment to write until it is killed.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rand::RngExt as _;
use store::{
    AuditFilter, Store,
    conformance::support::{World, event_of, kinds, result, update},
    sqlite::Sqlite,
    verify,
};
use tokio::task::JoinSet;
use wire::{AuditEvent, AuditType, Phase};

const CHILD: &str = "STORE_TEST_WRITER";
const ROUNDS: usize = 5;

/// Writes whole lives of sessions in eight tasks, and says what was answered, until it is killed.
fn write_until_killed(path: &Path) -> ! {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(path).await.unwrap());
        let world = World::of(store).await;
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let world = world.clone();
            tasks.spawn(async move {
                loop {
                    let session = world.created().await;
                    println!("answered {} pending", session.id);
                    for phase in [Phase::Running, Phase::Succeeded, Phase::TornDown] {
                        let mut change = update(&session, phase);
                        change.result = (phase == Phase::Succeeded).then(|| result(session.id, None));
                        world.tenant.update_session(change).await.unwrap();
                        println!("answered {} {}", session.id, phase.as_str());
                    }
                }
            });
        }
        tasks.join_next().await.unwrap().unwrap();
        unreachable!("writers have no end")
    })
}

fn writer(path: &Path, test: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

/// A writer that is listened to all the time: one that nobody hears stops in the middle of a transaction, and the others
/// wait for it.
struct Heard {
    count: Arc<AtomicUsize>,
    listening: JoinHandle<BTreeMap<String, String>>,
}

impl Heard {
    fn listen(mut output: BufReader<ChildStdout>) -> Self {
        let count = Arc::<AtomicUsize>::default();
        let listening = thread::spawn({
            let count = Arc::clone(&count);
            move || {
                let mut answers = BTreeMap::new();
                while answered(&mut output, 1, &mut answers) == 1 {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                answers
            }
        });
        Self { count, listening }
    }
}

/// The phases that the child was told are recorded, by session, from `lines` of its answers on.
fn answered(output: &mut BufReader<ChildStdout>, most: usize, answers: &mut BTreeMap<String, String>) -> usize {
    let (mut line, mut seen) = (String::new(), 0);
    while seen < most && output.read_line(&mut line).unwrap() > 0 {
        // The test harness may have begun the line; the kill may have cut it.
        if let Some((_, answer)) = line.trim_end_matches('\n').split_once("answered ")
            && line.ends_with('\n')
            && let Some((id, phase)) = answer.split_once(' ')
        {
            answers.insert(id.to_owned(), phase.to_owned());
            seen += 1;
        }
        line.clear();
    }
    seen
}

/// Every session shows the phase of its last audit event, has a result if it ended, and is where its writer was told.
async fn consistent(store: &dyn Store, answers: &BTreeMap<String, String>) {
    let (mut sessions, mut missing) = (0, answers.clone());
    for org in store.system().orgs().await.unwrap() {
        verify(store, org.id).await.unwrap();
        let tenant = store.tenant(org.id);
        let mut logs: BTreeMap<_, Vec<AuditEvent>> = BTreeMap::new();
        let mut after_seq = 0;
        loop {
            let page = tenant.audit(AuditFilter { session: None, after_seq, limit: 1000 }).await.unwrap();
            let Some(last) = page.last() else { break };
            after_seq = last.seq;
            for event in page {
                logs.entry(event.session_id.unwrap()).or_default().push(event);
            }
        }
        for (id, log) in &logs {
            let session = tenant.session(*id).await.unwrap().expect("a session with audit events is there");
            assert_eq!(log.last().map(|event| event.kind), Some(event_of(session.phase)), "{id}: {:?}", kinds(log));
            assert_eq!(log.first().map(|event| event.kind), Some(AuditType::SessionCreated));
            assert_eq!(tenant.result(*id).await.unwrap().is_some(), session.phase >= Phase::Succeeded);
            if let Some(told) = missing.remove(&id.to_string()) {
                let order = ["pending", "running", "succeeded", "torn_down"];
                let place = |phase: &str| order.iter().position(|word| *word == phase).unwrap();
                assert!(place(session.phase.as_str()) >= place(&told), "{id} was answered as {told}");
            }
            sessions += 1;
        }
    }
    assert!(sessions > 0);
    assert!(missing.is_empty(), "answered and lost: {missing:?}");
}

#[test]
fn a_writer_killed_at_any_moment_leaves_state_and_audit_together() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("enclave.db");
    let mut answers = BTreeMap::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for round in 0..ROUNDS {
        let (mut child, mut output) =
            writer(&path, "sqlite::killed::a_writer_killed_at_any_moment_leaves_state_and_audit_together");
        let most = rand::rng().random_range(1..2000);
        assert_eq!(answered(&mut output, most, &mut answers), most, "the writer of round {round} lived so long");
        child.kill().unwrap();
        answered(&mut output, usize::MAX, &mut answers);
        child.wait().unwrap();
        runtime.block_on(async {
            let store = Sqlite::open(&path).await.unwrap();
            consistent(&store, &answers).await;
            store.close().await;
        });
    }
    assert!(answers.len() >= ROUNDS);
}

/// Two children write to one org each and this process to a third; then all of them to the same file, still.
#[test]
fn processes_that_write_one_file_at_once_make_chains_that_verify() {
    if let Some(path) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&path));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("enclave.db");
    let test = "sqlite::killed::processes_that_write_one_file_at_once_make_chains_that_verify";
    let children = [writer(&path, test), writer(&path, test)].map(|(child, output)| (child, Heard::listen(output)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store: Arc<dyn Store> = Arc::new(Sqlite::open(&path).await.unwrap());
        let world = World::of(store).await;
        for _ in 0..200 {
            world.created().await;
        }
        while children.iter().any(|(_, heard)| heard.count.load(Ordering::Relaxed) < 400) {
            assert!(!children.iter().any(|(_, heard)| heard.listening.is_finished()), "a writer has ended");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(world.verified().await, 200);
        world.store.close().await;
    });
    let mut answers = BTreeMap::new();
    for (mut child, heard) in children {
        child.kill().unwrap();
        answers.append(&mut heard.listening.join().unwrap());
        child.wait().unwrap();
    }
    runtime.block_on(async {
        let store = Sqlite::open(&path).await.unwrap();
        assert_eq!(store.system().orgs().await.unwrap().len(), 3);
        consistent(&store, &answers).await;
        store.close().await;
    });
}
