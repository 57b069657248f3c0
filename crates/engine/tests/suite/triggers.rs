//! Triggers on a clock that the tests move: what is due, missed, late, overlaps, and who may call.

use std::time::Duration;

use engine::{Engine, FireError, HookError, HookHeaders, SessionFilter, TriggerError};
use model::{access::Caller, secret::Secret, webhook::signature::SigningSecret};
use serde_json::{Value, json};
use store::Store;
use wire::{
    AuditType, CreateTrigger, FiringCause, FiringOutcome, Outcome, Phase, Trigger, TriggerRun, TriggerWithSecret,
    UpdateTrigger,
};

use super::webhooks::receiver::{Place, TICK};

const MINUTE: Duration = Duration::from_mins(1);

fn schedule(script: &str, more: &Value) -> Value {
    let mut body = json!({
        "name": "nightly", "kind": {"type": "schedule", "cron": "* * * * *"}, "session": {"code": script}, "overlap": "allow",
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn hook(script: &str) -> Value {
    json!({"name": "hook", "kind": {"type": "webhook"}, "session": {"code": script}, "overlap": "allow"})
}

async fn try_create(engine: &Engine, caller: &Caller, body: &Value) -> Result<TriggerWithSecret, TriggerError> {
    let (request, faults) = CreateTrigger::parse(body.to_string().as_bytes()).unwrap();
    engine.create_trigger(caller, request, faults).await
}

async fn create(place: &Place, body: &Value) -> Trigger {
    try_create(&place.engine, &place.caller, body).await.unwrap().trigger
}

async fn change(place: &Place, trigger: &Trigger, body: &Value) -> Trigger {
    let (change, faults) = UpdateTrigger::parse(body.to_string().as_bytes()).unwrap();
    place.engine.update_trigger(&place.caller, trigger.id, change, faults).await.unwrap()
}

async fn runs(place: &Place, trigger: &Trigger) -> Vec<TriggerRun> {
    place.store.tenant(place.caller.org).trigger_runs(trigger.id, 100).await.unwrap()
}

/// Waits until the trigger has so many runs, and gives them.
async fn ran(place: &Place, trigger: &Trigger, times: usize) -> Vec<TriggerRun> {
    place.until("it fires", async || runs(place, trigger).await.len() >= times).await;
    runs(place, trigger).await
}

async fn sessions(place: &Place) -> Vec<wire::Session> {
    let filter = SessionFilter { limit: 100, ..SessionFilter::default() };
    place.store.tenant(place.caller.org).sessions(filter).await.unwrap().items
}

fn outcomes(runs: &[TriggerRun]) -> Vec<FiringOutcome> {
    runs.iter().map(|run| run.outcome).collect()
}

#[tokio::test]
async fn a_schedule_fires_when_it_is_due_and_not_before() {
    let place = Place::new().await;
    let trigger = create(&place, &schedule("# sim: exit 0", &json!({"jitterMs": 30_000}))).await;
    let mut starts = Vec::new();
    for round in 1..=5 {
        let next = place.engine.trigger(&place.caller, trigger.id).await.unwrap().next_fire_at.unwrap();
        let pause = Duration::from_millis(u64::try_from(next.as_millis() - place.now().as_millis()).unwrap());
        place.advance(pause.checked_sub(TICK).unwrap()).await;
        assert_eq!(runs(&place, &trigger).await.len(), round - 1);
        place.advance(2 * TICK).await;
        let run = ran(&place, &trigger, round).await.remove(0);
        assert_eq!(
            (run.cause, run.outcome, run.due_at.as_millis() % 60_000),
            (FiringCause::Schedule, FiringOutcome::Started, 0)
        );
        let late = next.as_millis() - run.due_at.as_millis();
        assert!((0..=30_000).contains(&late), "{late}");
        starts.push(late);
    }
    starts.dedup();
    assert!(starts.len() > 1, "each firing is late by its own part: {starts:?}");
    let session = sessions(&place).await.remove(0);
    assert_eq!(session.created_by, trigger.id.to_string());
    place.until("its end", async || sessions(&place).await[0].phase == Phase::TornDown).await;
    let trail = place.trail(session.id).await;
    assert_eq!((trail[1].kind, &trail[1].data["cause"]), (AuditType::TriggerFired, &json!("schedule")));
    store::verify(&place.store, place.caller.org).await.unwrap();
}

#[tokio::test]
async fn what_was_missed_while_nobody_was_there_fires_once() {
    let place = Place::new().await;
    let trigger = create(&place, &schedule("# sim: exit 0", &json!({}))).await;
    place.engine.shutdown(Duration::ZERO).await.unwrap();
    place.advance(180 * MINUTE + TICK).await;
    assert_eq!(runs(&place, &trigger).await, []);
    let _next = place.another().await;
    let run = ran(&place, &trigger, 1).await.remove(0);
    assert_eq!(run.due_at.as_millis(), trigger.created_at.as_millis() + 60_000, "the first that was missed");
    place.advance(MINUTE).await;
    assert_eq!(ran(&place, &trigger, 2).await.len(), 2, "and then as before");
    assert_eq!(sessions(&place).await.len(), 2);
}

#[tokio::test]
async fn two_servers_on_one_database_start_each_firing_once() {
    let place = Place::new().await;
    let _other = place.another().await;
    let trigger = create(&place, &schedule("# sim: exit 0", &json!({}))).await;
    for round in 1..=20 {
        place.advance(MINUTE + TICK).await;
        ran(&place, &trigger, round).await;
    }
    let (runs, sessions) = (runs(&place, &trigger).await, sessions(&place).await);
    assert_eq!((runs.len(), sessions.len()), (20, 20));
    let mut started: Vec<_> = runs.iter().map(|run| run.session_id.unwrap()).collect();
    started.sort_unstable();
    started.dedup();
    assert_eq!(started.len(), 20);
    let mut due: Vec<_> = runs.iter().map(|run| run.due_at).collect();
    due.dedup();
    assert_eq!(due.len(), 20);
}

#[tokio::test]
async fn overlaps_are_skipped_allowed_or_wait() {
    let place = Place::new().await;
    let session = json!({"code": "# sim: hang", "limits": {"wallClockMs": 86_400_000}});
    let trigger = create(&place, &schedule("", &json!({"overlap": "skip", "session": session}))).await;
    place.advance(MINUTE + TICK).await;
    let first = ran(&place, &trigger, 1).await[0].session_id.unwrap();
    place.advance(MINUTE).await;
    let skipped = ran(&place, &trigger, 2).await.remove(0);
    assert_eq!((skipped.outcome, skipped.session_id), (FiringOutcome::Skipped, None));
    change(&place, &trigger, &json!({"overlap": "queue"})).await;
    for round in 3..=19 {
        place.advance(MINUTE).await;
        ran(&place, &trigger, round).await;
    }
    let told = outcomes(&runs(&place, &trigger).await);
    assert_eq!(told[0], FiringOutcome::Skipped, "sixteen wait, and no more");
    assert_eq!(told[1..17], [FiringOutcome::Queued; 16]);

    change(&place, &trigger, &json!({"enabled": false})).await;
    place.engine.cancel(&place.caller, first).await.unwrap();
    place.until("the first that waits", async || sessions(&place).await.len() == 2).await;
    assert_eq!(outcomes(&runs(&place, &trigger).await)[16], FiringOutcome::Started, "the one that waited longest");
    let waiting = sessions(&place).await.remove(0);
    place.engine.cancel(&place.caller, waiting.id).await.unwrap();
    place.until("the next", async || sessions(&place).await.len() == 3).await;

    change(&place, &trigger, &json!({"overlap": "allow"})).await;
    let run = place.engine.fire_trigger(&place.caller, trigger.id).await.unwrap();
    assert_eq!((run.outcome, run.cause), (FiringOutcome::Started, FiringCause::Manual), "paused, and by hand");
}

#[tokio::test]
async fn a_paused_trigger_fires_nothing_and_goes_on_from_when_it_is_enabled() {
    let place = Place::new().await;
    let trigger = create(&place, &schedule("# sim: exit 0", &json!({"enabled": false}))).await;
    assert_eq!(trigger.next_fire_at, None);
    place.advance(10 * MINUTE).await;
    let enabled = change(&place, &trigger, &json!({"enabled": true})).await;
    assert!(enabled.next_fire_at.unwrap() > place.now(), "what was missed on purpose is not caught up on");
    place.advance(MINUTE + TICK).await;
    assert_eq!(ran(&place, &trigger, 1).await.len(), 1);
    let deleted = place.engine.delete_trigger(&place.caller, trigger.id).await.unwrap();
    assert_eq!(deleted.id, trigger.id);
    place.advance(10 * MINUTE).await;
    assert!(place.engine.trigger(&place.caller, trigger.id).await.is_err());
    assert_eq!(sessions(&place).await.len(), 1);
}

#[tokio::test]
async fn a_session_that_would_be_refused_is_refused_with_its_trigger_and_later_told_in_its_runs() {
    let place = Place::new().await;
    let body = json!({
        "name": "a b", "kind": {"type": "schedule", "cron": "0 0 30 2 *"}, "surplus": 1,
        "session": {"code": "", "limits": {"pids": 1, "cpu": "x"}, "webhookUrl": "http://10.0.0.1/", "nothing": 1},
    });
    let refused = try_create(&place.engine, &place.caller, &body).await;
    let Err(TriggerError::Invalid(faults)) = refused else { panic!("{refused:?}") };
    let mut fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
    fields.sort_unstable();
    let expected = [
        "kind.cron",
        "name",
        "session.code",
        "session.limits.cpu",
        "session.limits.pids",
        "session.nothing",
        "surplus",
    ];
    assert_eq!(fields, expected);
    let unbound = schedule("1", &json!({"session": {"code": "1", "serviceBindings": ["github"]}}));
    let refused = try_create(&place.engine, &place.caller, &unbound).await;
    let Err(TriggerError::Invalid(faults)) = refused else { panic!("{refused:?}") };
    assert_eq!(faults[0].field, "session.serviceBindings[0]");

    let binding = json!({
        "name": "github", "kind": {"type": "bearer"}, "upstream": {"url": "https://api.example.com"},
        "secret": {"value": "a secret of ours"},
    });
    let (request, _) = wire::CreateBinding::parse(binding.to_string().as_bytes()).unwrap();
    let binding = place.engine.create_binding(&place.caller, request, vec![]).await.unwrap();
    let trigger = create(&place, &unbound).await;
    place.engine.delete_binding(&place.caller, binding.id).await.unwrap();
    place.advance(MINUTE + TICK).await;
    let run = ran(&place, &trigger, 1).await.remove(0);
    assert_eq!(run.outcome, FiringOutcome::Refused);
    assert_eq!(run.detail.as_deref(), Some("session.serviceBindings[0] is not a binding of this org"));
    let name_taken = try_create(&place.engine, &place.caller, &schedule("1", &json!({}))).await;
    assert!(matches!(name_taken, Err(TriggerError::NameTaken)), "{name_taken:?}");
}

/// A caller who knows a secret.
struct Sender {
    secret: SigningSecret,
}

impl Sender {
    fn new(made: &TriggerWithSecret) -> Self {
        let secret = Secret::from(made.secret.clone().unwrap());
        Self { secret: SigningSecret::try_from(secret).unwrap() }
    }

    async fn call(
        &self,
        place: &Place,
        trigger: &Trigger,
        id: &str,
        late: i64,
        body: &[u8],
    ) -> Result<TriggerRun, HookError> {
        let seconds = place.now().as_millis() / 1000 - late;
        let (timestamp, signature) = (seconds.to_string(), self.secret.sign(id, seconds, body));
        let headers = HookHeaders { id, timestamp: &timestamp, signature: &signature };
        place.engine.hook(Some(trigger.id), headers, body.to_vec()).await
    }
}

#[tokio::test]
async fn a_signed_call_fires_once_and_its_body_reaches_the_workload() {
    let place = Place::new().await;
    let made = try_create(&place.engine, &place.caller, &hook("# sim: exit 0")).await.unwrap();
    let (trigger, sender) = (&made.trigger, Sender::new(&made));
    let body = b"\xff\0not JSON";
    let run = sender.call(&place, trigger, "msg_1", 0, body).await.unwrap();
    assert_eq!((run.outcome, run.cause), (FiringOutcome::Started, FiringCause::Webhook));
    let session = run.session_id.unwrap();
    let result = place.engine.result(&place.caller, session, Duration::from_secs(1)).await;
    if result.is_err() {
        place.until("its end", async || sessions(&place).await[0].outcome.is_some()).await;
    }
    assert_eq!(sessions(&place).await[0].outcome, Some(Outcome::Succeeded));
    let trail = place.trail(session).await;
    let written = trail.iter().find(|event| event.kind == AuditType::FileWritten).unwrap();
    let digest = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(body));
    assert!(written.data.to_string().contains("trigger.json"), "{}", written.data);
    assert!(written.data.to_string().contains(&digest), "{}", written.data);

    for _ in 0..2 {
        let replayed = sender.call(&place, trigger, "msg_1", 0, body).await;
        assert!(matches!(replayed, Err(HookError::Fire(FireError::Taken))), "{replayed:?}");
        place.advance(4 * MINUTE).await;
    }
    for (late, is_taken) in [(300, true), (301, false), (-300, true), (-301, false)] {
        let called = sender.call(&place, trigger, &format!("late{late}"), late, body).await;
        assert_eq!(called.is_ok(), is_taken, "{late}: {called:?}");
    }
    change(&place, trigger, &json!({"enabled": false})).await;
    let paused = sender.call(&place, trigger, "msg_2", 0, body).await;
    assert!(matches!(paused, Err(HookError::Disabled)), "{paused:?}");
    let rotated = place.engine.rotate_trigger_secret(&place.caller, trigger.id).await.unwrap();
    change(&place, trigger, &json!({"enabled": true})).await;
    let old = sender.call(&place, trigger, "msg_3", 0, body).await;
    assert!(matches!(old, Err(HookError::NotSigned)), "{old:?}");
    Sender::new(&rotated).call(&place, trigger, "msg_3", 0, body).await.unwrap();
}

#[tokio::test]
async fn what_is_not_signed_by_who_knows_the_secret_fires_nothing() {
    let place = Place::new().await;
    let made = try_create(&place.engine, &place.caller, &hook("# sim: exit 0")).await.unwrap();
    let other = try_create(&place.engine, &place.of_org("other").await, &hook("# sim: exit 0")).await.unwrap();
    let scheduled = create(&place, &schedule("# sim: exit 0", &json!({}))).await;
    let sender = Sender::new(&made);
    for trigger in [&other.trigger, &scheduled] {
        let refused = sender.call(&place, trigger, "msg_1", 0, b"{}").await;
        assert!(matches!(refused, Err(HookError::NotSigned)), "{refused:?}");
    }
    let seconds = place.now().as_millis() / 1000;
    let time = seconds.to_string();
    let signature = sender.secret.sign("msg_1", seconds, b"{}");
    let right = HookHeaders { id: "msg_1", timestamp: &time, signature: &signature };
    let padded = format!("0{time}");
    let long = "x".repeat(257);
    let (empty, spaced) = (sender.secret.sign("", seconds, b"{}"), sender.secret.sign("a b", seconds, b"{}"));
    let long_signature = sender.secret.sign(&long, seconds, b"{}");
    for (headers, body) in [
        (HookHeaders { id: "msg_2", ..right }, b"{}".as_slice()),
        (HookHeaders { timestamp: &padded, ..right }, b"{}"),
        (HookHeaders { signature: &signature[..20], ..right }, b"{}"),
        (HookHeaders { signature: "", ..right }, b"{}"),
        (HookHeaders { id: "", signature: &empty, ..right }, b"{}"),
        (HookHeaders { id: "a b", signature: &spaced, ..right }, b"{}"),
        (HookHeaders { id: &long, signature: &long_signature, ..right }, b"{}"),
        (right, b"{} "),
        (HookHeaders::default(), b"{}"),
    ] {
        let refused = place.engine.hook(Some(made.trigger.id), headers, body.to_vec()).await;
        assert!(matches!(refused, Err(HookError::NotSigned)), "{headers:?}: {refused:?}");
    }
    for nobody in [None, Some("trg_01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap())] {
        let refused = place.engine.hook(nobody, right, b"{}".to_vec()).await;
        assert!(matches!(refused, Err(HookError::NotSigned)), "{refused:?}");
    }
    assert_eq!(sessions(&place).await, []);
    place.engine.hook(Some(made.trigger.id), right, b"{}".to_vec()).await.unwrap();
}
