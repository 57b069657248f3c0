//! Programs out of repositories, over a backend whose clones are told what to say.

use std::{sync::Arc, time::Duration};

use engine::{Config, CreateError, CreateRequest};
use protocol::{Exit, GuestFrame, Start, Stream};
use serde_json::json;
use wire::{AuditType, CreateSession, FaultCode, File, GitSource, Outcome, Phase, Session, SessionResult, Source};

use super::{
    backend::{Script, Wrapped},
    support::{World, eventually, quick, world, world_on},
};

const COMMIT: &str = "5662fcbdb30e1767e10d6ff11d9a154a93e86ce1";

async fn cloning(script: impl Fn(&Start) -> Vec<GuestFrame> + Send + Sync + 'static) -> World {
    cloning_with(quick(), script).await
}

async fn cloning_with(config: Config, script: impl Fn(&Start) -> Vec<GuestFrame> + Send + Sync + 'static) -> World {
    let world = world_on(config, Wrapped::cloning).await;
    let script: Script = Arc::new(script);
    *world.backend.clones.lock().unwrap() = Some(script);
    world
}

fn asked(change: impl FnOnce(&mut GitSource)) -> CreateRequest {
    let mut source = GitSource {
        repo: "https://example.org/team/repo".into(),
        reference: "main".into(),
        entrypoint: "app/main.py".into(),
        ..GitSource::default()
    };
    change(&mut source);
    let request = CreateSession { source: Some(Source::Git(source)), ..CreateSession::default() };
    CreateRequest { request, shape_faults: Vec::new(), idempotency: None, uploads: None }
}

async fn run(world: &World, asked: CreateRequest) -> (Session, SessionResult, Vec<AuditType>) {
    let session = world.engine.create(&world.caller, asked).await.unwrap();
    world.end_of(&session).await
}

fn record(kind: u8, path: &str, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(path.len()).unwrap().to_be_bytes();
    [&[kind][..], &length, &(content.len() as u64).to_be_bytes(), path.as_bytes(), content].concat()
}

/// An honest clone of these files.
fn tree(files: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes: Vec<u8> = files.iter().flat_map(|(path, text)| record(b'f', path, text.as_bytes())).collect();
    bytes.extend([&[b'e', 0, 0, 0, 0][..], &(files.len() as u64).to_be_bytes()].concat());
    bytes
}

fn says(start: &Start, stdout: &[u8], result: &serde_json::Value, code: u8) -> Vec<GuestFrame> {
    let session_id = start.session_id.clone();
    let output = stdout.chunks(1000).map(|part| GuestFrame::Output { stream: Stream::Stdout, data: part.into() });
    let mut frames = vec![GuestFrame::Started { session_id: session_id.clone() }];
    frames.extend(output);
    frames.push(GuestFrame::Result { json: result.to_string().into_bytes() });
    frames.push(GuestFrame::Exited { session_id, exit: Exit::Code(code) });
    frames
}

fn cloned(start: &Start, files: &[(&str, &str)]) -> Vec<GuestFrame> {
    let skipped = json!({"links": 1, "submodules": 0, "names": 2});
    says(start, &tree(files), &json!({"commit": COMMIT, "skipped": skipped}), 0)
}

async fn event(world: &World, session: &Session, kind: AuditType) -> serde_json::Value {
    let events = world.engine.audit(&world.caller, session.id, 0, 100).await.unwrap().items;
    events.into_iter().find(|event| event.kind == kind).unwrap().data
}

#[tokio::test]
async fn a_program_out_of_a_repository_runs_with_the_tree_around_it() {
    let world = cloning(|start| {
        assert_eq!(start.args[..4], ["https://example.org/team/repo", "https://example.org/team/repo", "main", "sub"]);
        let names: Vec<_> = start.env.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"https_proxy") && start.code.contains("GIT_CONFIG_NOSYSTEM"), "{names:?}");
        let program = "# sim: cat app/words.txt\n# sim: cat own.txt\n# sim: result 7";
        cloned(start, &[("app/main.py", program), ("app/words.txt", "from the tree\n"), ("own.txt", "the tree's\n")])
    })
    .await;
    let mut asked = asked(|source| source.subpath = Some("sub".into()));
    asked.request.files =
        vec![File { path: "own.txt".into(), content: Some("the request's\n".into()), ..File::default() }];
    let (session, result, trail) = run(&world, asked).await;
    assert_eq!(result.stdout_tail, "from the tree\nthe request's\n", "{result:?}");
    assert_eq!(result.value(), Some(7.into()));
    let expected = [
        AuditType::SessionCreated,
        AuditType::CloneStarted,
        AuditType::CloneCompleted,
        AuditType::SandboxProvisioned,
        AuditType::FileWritten,
        AuditType::SandboxStarted,
        AuditType::WorkloadExited,
        AuditType::ResultCollected,
        AuditType::SessionTornDown,
    ];
    assert_eq!(trail, expected);
    let started = event(&world, &session, AuditType::CloneStarted).await;
    assert_eq!(started, json!({"repo": "https://example.org/team/repo", "ref": "main"}));
    let completed = event(&world, &session, AuditType::CloneCompleted).await;
    let skipped = json!({"links": 1, "submodules": 0, "names": 2});
    assert_eq!(completed, json!({"commit": COMMIT, "files": 3, "bytes": 84, "skipped": skipped}));
    assert_eq!(world.standing().await, []);
}

#[tokio::test]
async fn a_clone_that_fails_ends_the_session_with_its_reason_in_one_line() {
    let text = "remote: \u{1b}[2Jgone\nfatal: repository not found";
    let world = cloning(move |start| says(start, b"f", &json!({"error": text}), 1)).await;
    let (session, result, trail) = run(&world, asked(|_| ())).await;
    let fault = result.fault.unwrap();
    assert_eq!((result.outcome, fault.code), (Outcome::Faulted, FaultCode::CloneFailed));
    let detail = "remote: \u{fffd}[2Jgone; fatal: repository not found";
    assert_eq!(fault.detail, format!("the repository could not be cloned: {detail}"));
    assert_eq!(event(&world, &session, AuditType::CloneFailed).await, json!({"detail": detail}));
    assert!(!trail.contains(&AuditType::SandboxProvisioned), "the workload never had a sandbox: {trail:?}");
    assert_eq!(world.standing().await, []);
}

#[tokio::test]
async fn what_a_clone_that_was_taken_over_sends_costs_its_own_session() {
    let fine = || json!({"commit": COMMIT, "skipped": {"links": 0, "submodules": 0, "names": 0}});
    let program = ("app/main.py", "# sim: exit 0");
    let cases: Vec<(Vec<u8>, serde_json::Value, &str)> = vec![
        (tree(&[program, ("../../etc/cron.d/x", "x")]), fine(), "no tree: a name must have no empty part"),
        (tree(&[program, (".git/hooks/post-checkout", "x")]), fine(), "no tree: a name leads into .git"),
        (tree(&[program])[..20].to_vec(), fine(), "no tree: it is cut short"),
        (vec![0xff; 5000], fine(), "no tree: "),
        (tree(&[("other.py", "x")]), fine(), "the entrypoint: there is no file app/main.py"),
        (tree(&[("app/main.py", "")]), fine(), "the entrypoint: app/main.py is empty"),
        (tree(&[("app/main.py", "a\0")]), fine(), "app/main.py is no text"),
        (
            tree(&[program]),
            json!({"commit": "main; rm", "skipped": fine()["skipped"]}),
            "the commit that came has no id",
        ),
        (tree(&[program]), json!([]), "ended before it was done"),
        (record(b'l', "app/main.py", b"../../../etc/shadow"), fine(), "no tree: a link leads out"),
    ];
    for (bytes, result, words) in cases {
        let world = cloning(move |start| says(start, &bytes, &result, 0)).await;
        let (_, result, _) = run(&world, asked(|_| ())).await;
        let fault = result.fault.unwrap();
        assert_eq!(fault.code, FaultCode::CloneFailed, "{words}");
        assert!(fault.detail.contains(words), "{words}: {}", fault.detail);
        assert_eq!(world.standing().await, []);
    }
    let world =
        cloning(|start| vec![GuestFrame::Exited { session_id: start.session_id.clone(), exit: Exit::Code(0) }]).await;
    let (_, result, _) = run(&world, asked(|_| ())).await;
    assert_eq!(result.fault.unwrap().code, FaultCode::ProtocolViolation);
}

#[tokio::test]
async fn another_commit_than_the_one_that_was_asked_for_is_refused() {
    let world = cloning(|start| cloned(start, &[("app/main.py", "# sim: exit 0")])).await;
    let (_, result, _) = run(&world, asked(|source| source.reference = COMMIT.to_uppercase())).await;
    assert_eq!(result.outcome, Outcome::Succeeded);
    let (_, result, _) = run(&world, asked(|source| source.reference = "1".repeat(40))).await;
    assert!(result.fault.unwrap().detail.contains("another commit came"));
}

#[tokio::test]
async fn a_tree_has_to_fit_on_the_sessions_disk() {
    let large = "x".repeat(600_000);
    let world = cloning(move |start| cloned(start, &[("app/main.py", "# sim: exit 0"), ("large", &large)])).await;
    let mut asked = asked(|_| ());
    asked.request.limits.disk_bytes = Some(1 << 20);
    asked.request.files = vec![File { path: "more".into(), content: Some("x".repeat(600_000)), ..File::default() }];
    let (_, result, _) = run(&world, asked).await;
    assert!(result.fault.as_ref().unwrap().detail.contains("more than limits.diskBytes"), "{result:?}");
}

#[tokio::test]
async fn a_clone_that_takes_too_long_or_is_cancelled_leaves_nothing() {
    let config = Config { clone_patience: Duration::from_millis(50), ..quick() };
    let world = cloning_with(config, |_| Vec::new()).await;
    let (_, result, _) = run(&world, asked(|_| ())).await;
    assert!(result.fault.unwrap().detail.contains("it took longer than"));
    assert_eq!(world.standing().await, []);

    let world = cloning(|_| Vec::new()).await;
    let session = world.engine.create(&world.caller, asked(|_| ())).await.unwrap();
    world.sandbox().await;
    let cancelled = world.engine.cancel(&world.caller, session.id).await.unwrap();
    assert_eq!(cancelled.outcome, Some(Outcome::Cancelled));
    let (_, _, trail) = world.end_of(&session).await;
    assert!(trail.contains(&AuditType::CloneFailed) && !trail.contains(&AuditType::SandboxStarted), "{trail:?}");
    assert_eq!(world.standing().await, []);
}

#[tokio::test]
async fn a_clone_that_a_crash_cut_short_is_removed_before_the_first_session() {
    let world = cloning(|_| Vec::new()).await;
    let session = world.engine.create(&world.caller, asked(|_| ())).await.unwrap();
    world.sandbox().await;
    let restarted = world.restarted(quick(), world.backend.clone()).await;
    let ended = restarted.session(&world.caller, session.id).await.unwrap();
    assert_eq!((ended.fault.unwrap().code, ended.phase), (FaultCode::ServerRestarted, Phase::TornDown));
    assert_eq!(world.standing().await, []);
}

#[tokio::test]
async fn a_drain_ends_a_clone() {
    let world = cloning(|_| Vec::new()).await;
    let session = world.engine.create(&world.caller, asked(|_| ())).await.unwrap();
    world.sandbox().await;
    world.engine.shutdown(Duration::ZERO).await.unwrap();
    let ended = world.engine.session(&world.caller, session.id).await.unwrap();
    assert_eq!(ended.fault.unwrap().code, FaultCode::ServerDrained);
    assert_eq!(world.standing().await, []);
}

#[tokio::test]
async fn what_is_left_of_a_clone_is_gone_before_its_session_counts_as_torn_down() {
    let world = cloning(|_| Vec::new()).await;
    let session = world.engine.create(&world.caller, asked(|_| ())).await.unwrap();
    let clone = world.sandbox().await;
    world.backend.stubborn.lock().unwrap().insert(clone.clone());
    let engine = world.engine.clone();
    let (caller, id) = (world.caller.clone(), session.id);
    let cancelling = tokio::spawn(async move { engine.cancel(&caller, id).await });
    eventually("its end is told", async || world.now(&session).await.outcome.is_some()).await;
    assert!(world.now(&session).await.torn_down_at.is_none());
    world.backend.stubborn.lock().unwrap().clear();
    cancelling.await.unwrap().unwrap();
    let (_, _, trail) = world.end_of(&session).await;
    assert!(trail.contains(&AuditType::ResidueFound), "{trail:?}");
}

#[tokio::test]
async fn what_cannot_be_cloned_is_refused_before_anything_starts() {
    let simulated = world().await;
    let refused = simulated.engine.create(&simulated.caller, asked(|_| ())).await;
    let Err(CreateError::NotEnforceable { faults, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(faults[0].field, "source");
    let world = cloning(|_| panic!("nothing starts")).await;
    let good = || match asked(|_| ()).request.source {
        Some(Source::Git(source)) => source,
        None => unreachable!("it has one"),
    };
    for (field, source) in [
        ("source.repo", GitSource { repo: "http://169.254.169.254/r".into(), ..good() }),
        ("source.repo", GitSource { repo: "file:///etc".into(), ..good() }),
        ("source.ref", GitSource { reference: "--upload-pack=id".into(), ..good() }),
        ("source.credential", GitSource { credential: Some("github".into()), ..good() }),
    ] {
        let refused = world.engine.create(&world.caller, asked(|own| *own = source)).await;
        let Err(CreateError::Invalid(faults)) = refused else { panic!("{refused:?}") };
        assert_eq!(faults.iter().map(|fault| fault.field.as_str()).collect::<Vec<_>>(), [field]);
    }
}
