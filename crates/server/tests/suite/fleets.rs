//! Fleets, end to end: a hostile member among honest ones, a server that dies in the middle, and ten thousand members.

use std::time::{Duration, Instant};

use client::{Client, ListMembers};
use futures::StreamExt;
use serde_json::json;
use wire::{
    CreateFleet, CreateSession, FaultCode, Fleet, FleetFrame, FleetId, FleetMember, FleetMembers, FleetPhase,
    FleetResult, FleetTemplate, KillReason, Limits, MemberPhase, Outcome, Phase,
};

use crate::server::{Server, backends};

/// What all tests here are content to wait for.
const PATIENCE: Duration = Duration::from_mins(5);

/// Shard i gives i*i+1.
fn shard(i: u64) -> CreateSession {
    let code = format!("# sim: result {}\ni = {i}\nenclave.result(i * i + 1)", i * i + 1);
    CreateSession { code: Some(code), limits: small(), ..CreateSession::default() }
}

fn small() -> Limits {
    Limits { memory_bytes: Some(96 << 20), ..Limits::default() }
}

/// Takes more memory than it may have.
fn hostile() -> CreateSession {
    let code = "# sim: memory 1GiB\nheld = [b'x' * (16 << 20) for _ in range(64)]";
    CreateSession { code: Some(code.into()), limits: small(), ..CreateSession::default() }
}

fn fleet(members: FleetMembers) -> CreateFleet {
    CreateFleet { name: "shards".into(), members, max_concurrency: Some(8), ..CreateFleet::default() }
}

/// The fleet once it has finished, by its stream.
pub(crate) async fn finished(client: &Client, id: FleetId) -> Fleet {
    let mut frames = client.fleet_stream(id, 0);
    let following = async {
        let mut last = 0;
        while let Some(frame) = frames.next().await {
            let (seq, frame) = frame.unwrap();
            assert!(seq > last, "frame {seq} came after frame {last}");
            last = seq;
            if let FleetFrame::Progress(progress) = frame {
                let counts = progress.counts;
                assert!(counts.pending + counts.running <= 8, "more than the ceiling: {counts:?}");
            }
        }
    };
    tokio::time::timeout(PATIENCE, following).await.expect("it finishes");
    let fleet = client.fleet(id).await.unwrap();
    assert!(fleet.phase.is_terminal() && fleet.finished_at.is_some(), "{fleet:#?}");
    fleet
}

async fn results(client: &Client, id: FleetId) -> Vec<FleetResult> {
    let page = client.fleet_results(id, &ListMembers::default()).await.unwrap();
    assert_eq!(page.next_cursor, None, "one page");
    page.items
}

pub(crate) async fn members(client: &Client, id: FleetId) -> Vec<FleetMember> {
    let which = ListMembers { limit: Some(1000), ..ListMembers::default() };
    client.fleet_members(id, &which).await.unwrap().items
}

async fn a_hundred_and_a_hostile_one(backend: &str) {
    let server = Server::start(backend, &["--max-concurrency", "8"]).await;
    let client = server.client();
    let listed = (0..100).map(shard).chain([hostile()]).collect();
    let began = Instant::now();
    let made = client.create_fleet(&fleet(FleetMembers::Listed(listed))).await.unwrap();
    let ended = finished(&client, made.id).await;
    println!("{backend}: 101 members in {:?}", began.elapsed());
    let results = results(&client, made.id).await;
    let sum: u64 = results.iter().filter_map(|result| result.result.as_ref()?.value().as_u64()).sum();
    assert_eq!(sum, 328_450);
    assert_eq!((ended.counts.succeeded, ended.counts.killed, ended.counts.total), (100, 1, 101), "{ended:#?}");
    assert_eq!((ended.phase, ended.reason), (FleetPhase::Failed, None), "`all` cannot be met");
    let members = members(&client, made.id).await;
    assert_eq!(members[100].kill_reason, Some(KillReason::MemoryExceeded), "{:#?}", members[100]);
    assert!(members[..100].iter().all(|member| member.phase == MemberPhase::Succeeded));
    server.audit_verifies().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hostile_member_changes_nothing_for_a_hundred_others_on_the_simulator() {
    a_hundred_and_a_hostile_one("simulator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hostile_member_changes_nothing_for_a_hundred_others_on_gvisor() {
    if backends("one_hostile_member_changes_nothing_for_a_hundred_others_on_gvisor").contains(&"gvisor") {
        a_hundred_and_a_hostile_one("gvisor").await;
    }
}

/// Killed twice in the middle: what ran then is told so, what had ended stays, and what waited goes on.
async fn killed_in_the_middle(backend: &str) {
    let mut server = Server::start(backend, &["--max-concurrency", "8"]).await;
    let client = server.client();
    let slow = |i: u64| {
        // Not in step with one another: some are under way at any moment.
        let millis = 200 + i * 37 % 200;
        let code = format!(
            "# sim: sleep {millis}ms\n# sim: result {i}\nimport time\ntime.sleep({millis} / 1000)\nenclave.result({i})"
        );
        CreateSession { code: Some(code), limits: small(), ..CreateSession::default() }
    };
    let made = client.create_fleet(&fleet(FleetMembers::Listed((0..40).map(slow).collect()))).await.unwrap();
    for killed_after in [5, 15] {
        let mut frames = client.fleet_stream(made.id, 0);
        let enough = async {
            while let Some(Ok((_, frame))) = frames.next().await {
                if let FleetFrame::Progress(progress) = frame
                    && progress.counts.succeeded >= killed_after
                    && progress.counts.running > 0
                {
                    return;
                }
            }
            panic!("it ended before it was killed");
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("members succeed");
        server.kill();
        server.restart().await;
    }
    let ended = finished(&client, made.id).await;
    let (members, results) = (members(&client, made.id).await, results(&client, made.id).await);
    let mut cut = 0;
    for (member, result) in members.iter().zip(&results) {
        let session = client.session(member.session_id.unwrap()).await.unwrap();
        assert_eq!((session.outcome, member.index), (member.outcome, result.index));
        match member.phase {
            MemberPhase::Succeeded => assert_eq!(result.result.as_ref().unwrap().value(), json!(member.index)),
            MemberPhase::Failed => {
                assert_eq!(member.outcome, Some(Outcome::Faulted), "{member:#?}");
                assert_eq!(member.fault.as_ref().unwrap().code, FaultCode::ServerRestarted, "{member:#?}");
                assert_eq!(session.phase, Phase::TornDown);
                cut += 1;
            }
            MemberPhase::Queued
            | MemberPhase::Pending
            | MemberPhase::Running
            | MemberPhase::Killed
            | MemberPhase::Skipped => panic!("{member:#?}"),
        }
    }
    assert!((1..=16).contains(&cut), "{cut} were under way");
    assert_eq!((ended.counts.failed, ended.counts.succeeded), (cut, 40 - cut), "{ended:#?}");
    assert_eq!((ended.phase, ended.reason), (FleetPhase::Failed, None));
    server.audit_verifies().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_survives_kill_9_on_the_simulator() {
    killed_in_the_middle("simulator").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_survives_kill_9_on_gvisor() {
    if backends("a_fleet_survives_kill_9_on_gvisor").contains(&"gvisor") {
        killed_in_the_middle("gvisor").await;
    }
}

/// Each input is in its member's working directory, for the program that every member is.
#[tokio::test(flavor = "multi_thread")]
async fn each_input_reaches_its_member() {
    for backend in backends("each_input_reaches_its_member") {
        let server = Server::start(backend, &["--max-concurrency", "4"]).await;
        let client = server.client();
        let code = "# sim: cat input.json\nprint(open('/workspace/input.json').read(), end='')";
        let template = CreateSession { code: Some(code.into()), limits: small(), ..CreateSession::default() };
        let inputs = vec![json!({"n": [1, "ü"]}).into(), json!(2).into()];
        let template = FleetTemplate { template, inputs };
        let made = client.create_fleet(&fleet(FleetMembers::Template(Box::new(template)))).await.unwrap();
        assert_eq!(finished(&client, made.id).await.phase, FleetPhase::Succeeded, "on {backend}");
        for (member, text) in members(&client, made.id).await.iter().zip([r#"{"n":[1,"ü"]}"#, "2"]) {
            let result = client.result(member.session_id.unwrap(), Duration::ZERO).await.unwrap();
            assert_eq!(result.stdout_tail, text, "on {backend}");
        }
    }
}

/// Ten thousand members, while others use the server. How long they wait is printed, and is in docs/benchmarks.md; it is
/// asserted only where nothing else runs, with ENCLAVE_BENCH set.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_members_leave_the_server_small_and_quick() {
    let server = Server::start("simulator", &["--max-concurrency", "8"]).await;
    let client = server.client();
    let template = CreateSession { code: Some("# sim: result 1".into()), ..CreateSession::default() };
    let inputs = (0..10_000).map(|n: u32| json!({ "shard": n }).into()).collect();
    let members = FleetMembers::Template(Box::new(FleetTemplate { template, inputs }));
    let began = Instant::now();
    let made = client.create_fleet(&fleet(members)).await.unwrap();
    let accepted = began.elapsed();
    let (mut gets, mut posts, mut most) = (Vec::new(), Vec::new(), 0);
    loop {
        let asked = Instant::now();
        let now = client.fleet(made.id).await.unwrap();
        gets.push(asked.elapsed());
        most = most.max(server.resident());
        if now.phase.is_terminal() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{now:#?}");
        let asked = Instant::now();
        client.create(&CreateSession { code: Some("# sim: exit 0".into()), ..CreateSession::default() }).await.unwrap();
        posts.push(asked.elapsed());
        let asked = Instant::now();
        client.sessions(&client::ListSessions::default()).await.unwrap();
        gets.push(asked.elapsed());
    }
    let took = began.elapsed();
    let ended = client.fleet(made.id).await.unwrap();
    assert_eq!((ended.phase, ended.counts.succeeded), (FleetPhase::Succeeded, 10_000));
    let p99 = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() * 99 / 100]
    };
    let (get, post) = (p99(&mut gets), p99(&mut posts));
    println!(
        "10,000 members: accepted in {accepted:?}, over in {took:?}, at most {} MiB; p99 of {} GET {get:?}, of {} POST {post:?}",
        most >> 20,
        gets.len(),
        posts.len()
    );
    assert!(most < 300 << 20, "{} MiB", most >> 20);
    if std::env::var_os("ENCLAVE_BENCH").is_some() {
        assert!(get < Duration::from_millis(100) && post < Duration::from_millis(100), "{get:?} {post:?}");
    }
}
