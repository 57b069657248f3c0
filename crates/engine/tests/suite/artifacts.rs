//! Files that are collected when a program has ended, however it did.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use engine::{Config, Depot, Keep};
use futures::TryStreamExt as _;
use wire::{AuditType, FaultCode, KillReason, Outcome, Session, SessionResult, SkippedBecause};

use super::support::{World, eventually, quick, request, world_with};

const LEAVE: &str = "# sim: write out/a.txt left\n# sim: write b x\n";

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self, org_bytes: u64) -> Config {
        let depot = Depot::open(self.folder.path().to_owned()).unwrap();
        Config { artifacts: Some(Keep { depot, age: Duration::from_hours(1), org_bytes }), ..quick() }
    }

    fn sessions(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }
}

async fn leave(world: &World, script: &str, wall_clock_ms: u64) -> Session {
    let mut asked = request(&format!("{LEAVE}{script}"));
    asked.request.artifacts = vec!["out/**".into()];
    asked.request.limits.wall_clock_ms = Some(wall_clock_ms);
    asked.request.limits.memory_bytes = Some(64 << 20);
    asked.request.limits.cpu_time_ms = Some(100);
    asked.request.limits.disk_bytes = Some(64 << 20);
    world.engine.create(&world.caller, asked).await.unwrap()
}

fn paths(result: &SessionResult) -> Vec<(&str, u64)> {
    result.artifacts.iter().map(|artifact| (artifact.path.as_str(), artifact.size)).collect()
}

#[tokio::test]
async fn what_a_program_left_is_kept_however_it_ended() {
    let place = Place::new();
    let world = world_with(place.config(1 << 30)).await;
    for (script, wall, outcome, reason) in [
        ("# sim: exit 0", 60_000, Outcome::Succeeded, None),
        ("# sim: exit 3", 60_000, Outcome::Failed, None),
        ("# sim: signal 11", 60_000, Outcome::Failed, None),
        ("# sim: hang", 200, Outcome::Killed, Some(KillReason::WallClockExceeded)),
        ("# sim: fork 1000", 60_000, Outcome::Killed, Some(KillReason::PidsExceeded)),
        ("# sim: cpu 60s", 60_000, Outcome::Killed, Some(KillReason::CpuExceeded)),
        ("# sim: disk 1GiB", 60_000, Outcome::Killed, Some(KillReason::DiskExceeded)),
        ("# sim: memory 64GiB", 60_000, Outcome::Killed, Some(KillReason::MemoryExceeded)),
        ("# sim: output 1GiB", 60_000, Outcome::Killed, Some(KillReason::OutputExceeded)),
    ] {
        let session = leave(&world, script, wall).await;
        let (_, result, trail) = world.end_of(&session).await;
        assert_eq!((result.outcome, result.kill_reason), (outcome, reason), "{script}: {result:?}");
        assert_eq!(paths(&result), [("out/a.txt", 4)], "{script}");
        assert_eq!(result.artifacts_skipped, [], "{script}");
        let end = [AuditType::ResultCollected, AuditType::ArtifactCollected, AuditType::SessionTornDown];
        assert!(trail.ends_with(&end), "{script}: {trail:?}");
        let content = world.engine.artifact(&world.caller, session.id, "out/a.txt").await.unwrap();
        let bytes: Vec<_> = content.bytes(1..4).await.unwrap().try_collect().await.unwrap();
        assert_eq!(bytes.concat(), b"eft");
    }
    let session = leave(&world, "# sim: hang", 60_000).await;
    world.running(&session).await;
    world.engine.cancel(&world.caller, session.id).await.unwrap();
    let (_, result, _) = world.end_of(&session).await;
    assert_eq!((result.outcome, paths(&result)), (Outcome::Cancelled, vec![("out/a.txt", 4)]));
}

#[tokio::test]
async fn where_the_sandbox_is_gone_with_its_files_that_is_told() {
    let place = Place::new();
    let world = world_with(place.config(1 << 30)).await;
    let session = leave(&world, "# sim: frame garbage", 60_000).await;
    let (session, result, _) = world.end_of(&session).await;
    assert_eq!(session.fault.unwrap().code, FaultCode::ProtocolViolation);
    assert_eq!(result.artifacts, []);
    let [skipped] = &result.artifacts_skipped[..] else { panic!("{result:?}") };
    assert_eq!((skipped.path.as_str(), skipped.because), ("**", SkippedBecause::SandboxGone));
    assert_eq!(place.sessions(), 0);
}

#[tokio::test]
async fn the_oldest_make_room_and_what_nobody_names_is_swept() {
    let place = Place::new();
    // Begun long ago by a server that died before it could name it.
    let orphan = place.folder.path().join("ses_01890a5d-ac96-774b-bcce-b302099a8057");
    fs::create_dir(&orphan).unwrap();
    fs::write(orphan.join("0"), "x").unwrap();
    let long_ago = SystemTime::now() - Duration::from_hours(2);
    fs::File::open(&orphan).unwrap().set_modified(long_ago).unwrap();
    let world = world_with(place.config(7)).await;
    eventually("the orphan is swept", async || !orphan.exists()).await;
    let first = leave(&world, "# sim: exit 0", 60_000).await;
    world.end_of(&first).await;
    let second = leave(&world, "# sim: exit 0", 60_000).await;
    world.end_of(&second).await;
    let kept = async |session: &Session| world.engine.artifacts(&world.caller, session.id).await.unwrap().items.len();
    eventually("the first makes room", async || kept(&first).await == 0).await;
    eventually("and its content goes", async || place.sessions() == 1).await;
    assert_eq!(kept(&second).await, 1);
    let result = world.engine.result(&world.caller, first.id, Duration::ZERO).await.unwrap();
    assert_eq!(paths(&result), [("out/a.txt", 4)], "the result still names it");
}

#[tokio::test]
async fn files_are_shut_to_callers_when_the_program_has_ended() {
    let place = Place::new();
    let world = world_with(place.config(1 << 30)).await;
    let session = leave(&world, "# sim: hang", 60_000).await;
    world.running(&session).await;
    let upload = engine::Upload { path: "in".into(), mode: 0o644, size: None, digest: None };
    let endless = futures::stream::once(async { Ok::<_, engine::FileError>(bytes::Bytes::from_static(b"x")) });
    let endless = futures::StreamExt::chain(endless, futures::stream::pending());
    let writing = tokio::spawn({
        let (engine, caller) = (world.engine.clone(), world.caller.clone());
        async move { engine.write_file(&caller, session.id, upload, endless).await }
    });
    eventually("it is read", async || world.engine.read_file(&world.caller, session.id, "b").await.is_ok()).await;
    world.engine.cancel(&world.caller, session.id).await.unwrap();
    let (_, result, _) = world.end_of(&session).await;
    assert_eq!(paths(&result), [("out/a.txt", 4)]);
    writing.abort();
    let refused = world.engine.read_file(&world.caller, session.id, "b").await;
    assert!(matches!(refused, Err(engine::FileError::NotRunning)), "{refused:?}");
}
