//! Content from strangers: what is let in is read back, and breaks nothing.

use serde_json::{Value, json};
use wire::{AuditType, Phase};

use super::{
    Subject, bindings,
    support::{World, draft, key, message, new, org_id, result, update},
};
use crate::{AuditFilter, Created, Idempotency, SessionFilter, verify};

const TEXTS: &[&str] = &[
    "",
    " ",
    "null",
    "'; DROP TABLE sessions; --",
    "\" \\ / \u{8} \u{c} \n \r \t",
    "a\u{0}b",
    "\u{0}",
    "\\u0000 \\ud800 %00 ?1 :x @x $x",
    "{\"a\":[1]}",
    "ünïcödé \u{202e} \u{feff} 👩‍👩‍👧 \u{10ffff}",
];

pub async fn text_from_strangers_comes_back_as_it_went_in(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut sent = Vec::new();
    for text in TEXTS {
        let text = (*text).to_owned();
        let mut session = world.session();
        session.labels = [(text.clone(), text.clone())].into();
        session.env = [(text.clone(), text.clone())].into();
        session.args = vec![text.clone()];
        session.created_by.clone_from(&text);
        let mut created = new(&session);
        created.drafts[0] = draft(AuditType::SessionCreated, session.id).by(text.clone());
        created.drafts[0].data = json!({ (text.clone()): text, "other": [text] });
        created.idempotency = Some(Idempotency { key: text.clone(), request_digest: text.clone() });
        let recorded = world.tenant.create_session(created.clone()).await;
        assert!(matches!(recorded, Ok(Created::New(_))), "{text:?}: {recorded:?}");
        assert_eq!(world.tenant.session(session.id).await.expect("a read"), Some(session.clone()));
        let event = &world.audit_of(session.id).await[0];
        assert_eq!((&event.actor, &event.data), (&text, &created.drafts[0].data));
        let again = world.tenant.create_session(created).await;
        assert!(matches!(again, Ok(Created::Existing(_))), "{text:?}: {again:?}");

        let mut end = update(&session, Phase::Running);
        let mut given = result(session.id, Some(json!({ (text.clone()): text })));
        given.stdout_tail.clone_from(&text);
        let told = message(&text);
        (end.result, end.sandbox, end.outbox) = (Some(given.clone()), Some(text.clone()), vec![told.clone()]);
        world.tenant.update_session(end).await.expect("a live session is updated");
        assert_eq!(world.tenant.result(session.id).await.expect("a read"), Some(given));
        let unfinished = world.system.unfinished().await.expect("a read");
        let found = unfinished.into_iter().find(|unfinished| unfinished.session.id == session.id);
        assert_eq!(found.expect("it is not torn down").sandbox, Some(text.clone()));
        sent.push(told);

        let (mut key, created) = key(world.org, &text);
        key.secret_hash.clone_from(&text);
        world.tenant.create_key(key.clone(), created).await.expect("a key is recorded");
        assert_eq!(world.system.key(key.id).await.expect("a read"), Some(key));
        let bound = bindings::created(&world, &text).await;
        assert_eq!(world.tenant.binding_named(&text).await.expect("a read"), Some(bound));
        let org = world.system.ensure_org(&text, org_id()).await.expect("an org is made");
        assert_eq!(world.system.ensure_org(&text, org_id()).await.expect("an org is found"), org);
        assert_eq!(org.name, text);
    }
    assert_eq!(subject.outbox(world.org).await, sent);
    assert_eq!(world.verified().await, 4 * TEXTS.len() as u64);
}

pub async fn labels_from_strangers_are_found_by_themselves_only(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let mut sessions = Vec::new();
    for text in TEXTS {
        let mut session = world.session();
        session.labels = [((*text).to_owned(), (*text).to_owned())].into();
        world.tenant.create_session(new(&session)).await.expect("a session is recorded");
        sessions.push(session);
    }
    for (text, session) in TEXTS.iter().zip(sessions) {
        let labels = vec![((*text).to_owned(), (*text).to_owned())];
        let page = world.tenant.sessions(SessionFilter { limit: 100, labels, ..SessionFilter::default() }).await;
        assert_eq!(page.expect("a page").items, [session], "{text:?}");
    }
    for near in ["ab", "a", "\u{1}", "%", "_", "*"] {
        let labels = vec![(near.to_owned(), near.to_owned())];
        let page = world.tenant.sessions(SessionFilter { limit: 100, labels, ..SessionFilter::default() }).await;
        assert_eq!(page.expect("a page").items, [], "{near:?}");
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!("deep"), |inner, level| if level % 2 == 0 { json!([inner]) } else { json!({ "d": inner }) })
}

/// A workload gives any JSON that `serde_json` reads; a result that can be recorded but not read would hide its session's
/// end for good.
pub async fn the_deepest_result_that_is_let_in_is_read_back(subject: &dyn Subject) {
    let world = World::new(subject).await;
    for levels in [1, 64, 120, 125, 126, 127] {
        let value = nested(levels);
        assert!(serde_json::from_str::<Value>(&value.to_string()).is_ok(), "{levels} levels are let in");
        let session = world.created().await;
        let mut end = update(&session, Phase::Succeeded);
        end.result = Some(result(session.id, Some(value)));
        world.tenant.update_session(end.clone()).await.expect("a live session is updated");
        let read = world.tenant.result(session.id).await;
        assert!(read.is_ok(), "a result of {levels} levels was recorded and cannot be read: {read:?}");
        assert_eq!(read.expect("checked above"), end.result);
    }
}

/// Data that the chain cannot carry is refused; what is accepted never makes the org's log unreadable.
pub async fn audit_data_that_is_accepted_verifies(subject: &dyn Subject) {
    let mut accepted = 0;
    let mut data = vec![
        json!(null),
        json!({}),
        json!([u64::MAX, i64::MIN, 0, -1]),
        json!({ "z": 1, "a": { "é": 1, "e": 2 } }),
        json!(0.1 + 0.2),
        json!([1e300, 5e-324, 1.0, -0.0, 123_456_789.123_456_79, 2.0_f64.powi(70)]),
        json!("x".repeat(1 << 20)),
    ];
    data.extend([100, 120, 125, 126, 127, 128, 200, 1000].map(nested));
    for data in data {
        let shown: String = data.to_string().chars().take(60).collect();
        let world = World::new(subject).await;
        let session = world.created().await;
        let odd = model::audit::Draft { data, ..draft(AuditType::AccessDenied, session.id) };
        let written = world.tenant.append_audit(vec![odd]).await;
        let all = AuditFilter { session: None, after_seq: 0, limit: 10 };
        let read = world.tenant.audit(all).await;
        assert!(read.is_ok(), "{shown} was accepted and makes the log unreadable: {read:?}");
        let verified = verify(&*world.store, world.org).await;
        assert!(verified.is_ok(), "{shown} was accepted and breaks the chain: {verified:?}");
        assert_eq!(read.expect("checked above").len(), if written.is_ok() { 2 } else { 1 });
        accepted += u32::from(written.is_ok());
    }
    assert!(accepted >= 6, "ordinary data is accepted");
}
