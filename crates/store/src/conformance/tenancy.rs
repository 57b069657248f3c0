//! One org's handle and another org's rows: every method of `Tenant`.

use model::audit::Head;
use wire::{AuditType, Phase, Session, TurnStatus};

use super::{
    Subject, bindings,
    support::{World, binding_draft, key, key_draft, message, new, result, update},
    turns,
};
use crate::{
    AuditFilter, BindingChange, BindingError, BindingFilter, BindingRecord, Created, Idempotency, KeyRecord,
    SessionFilter, TurnFilter, UpdateError,
};

/// An org with one of everything.
struct Victim {
    world: World,
    session: Session,
    key: KeyRecord,
    binding: BindingRecord,
}

impl Victim {
    async fn new(subject: &dyn Subject) -> Self {
        let world = World::new(subject).await;
        let mut session = world.session();
        session.labels = [("secret".to_owned(), "yes".to_owned())].into();
        let idempotency = Some(Idempotency { key: "key".to_owned(), request_digest: "digest".to_owned() });
        let recorded = world.tenant.create_session(crate::NewSession { idempotency, ..new(&session) }).await;
        recorded.expect("a session is recorded");
        let mut end = update(&session, Phase::Succeeded);
        end.result = Some(result(session.id, None));
        end.sandbox = Some("box".to_owned());
        let session = end.session.clone();
        world.tenant.update_session(end).await.expect("a live session is updated");
        world.created().await;
        let (key, created) = key(world.org, "victim's");
        world.tenant.create_key(key.clone(), created).await.expect("a key is recorded");
        let binding = bindings::created(&world, "victims").await;
        let turn = turns::record(session.id, 1, TurnStatus::Running);
        world.tenant.record_turn(turn).await.expect("a turn is recorded");
        Self { world, session, key, binding }
    }
}

pub async fn no_read_reaches_another_orgs_rows(subject: &dyn Subject) {
    let (victim, thief) = (Victim::new(subject).await, World::new(subject).await);
    let tenant = &thief.tenant;
    assert_eq!(tenant.session(victim.session.id).await.expect("a read"), None);
    assert_eq!(tenant.result(victim.session.id).await.expect("a read"), None);
    assert_eq!(tenant.turn(victim.session.id, 1).await.expect("a read"), None);
    assert_eq!(tenant.open_turns(victim.session.id).await.expect("a read"), []);
    let turns = TurnFilter { session: victim.session.id, cursor: None, limit: 10 };
    assert_eq!(tenant.turns(turns).await.expect("a page").items, []);
    let idempotency = Idempotency { key: "key".to_owned(), request_digest: "digest".to_owned() };
    assert_eq!(tenant.repeated(&idempotency).await.expect("a read"), None);
    for filter in [
        SessionFilter { limit: 10, ..SessionFilter::default() },
        SessionFilter { limit: 10, phase: Some(Phase::Succeeded), ..SessionFilter::default() },
        SessionFilter { limit: 10, labels: vec![("secret".to_owned(), "yes".to_owned())], ..SessionFilter::default() },
    ] {
        assert_eq!(
            victim.world.tenant.sessions(filter.clone()).await.expect("a page").items.last(),
            Some(&victim.session)
        );
        let page = tenant.sessions(filter).await.expect("a page");
        assert!(page.items.is_empty() && page.next_cursor.is_none());
    }
    for session in [None, Some(victim.session.id)] {
        let filter = AuditFilter { session, after_seq: 0, limit: 10 };
        assert_eq!(tenant.audit(filter).await.expect("a read"), []);
    }
    assert_eq!(tenant.audit_head().await.expect("a read"), Head::default());
    assert_eq!(tenant.keys().await.expect("a read"), []);
    assert_eq!(tenant.binding(victim.binding.binding.id).await.expect("a read"), None);
    assert_eq!(tenant.binding_named("victims").await.expect("a read"), None);
    for name in [None, Some("victims".to_owned())] {
        let page = tenant.bindings(BindingFilter { name, limit: 10, cursor: None }).await.expect("a page");
        assert!(page.items.is_empty() && page.next_cursor.is_none());
    }
}

pub async fn no_write_reaches_another_orgs_rows(subject: &dyn Subject) {
    let (victim, thief) = (Victim::new(subject).await, World::new(subject).await);
    let tenant = &thief.tenant;

    let mut stolen = victim.session.clone();
    stolen.org_id = thief.org;
    let mut change = update(&stolen, Phase::TornDown);
    change.result = Some(result(stolen.id, Some("stolen".into())));
    change.outbox = vec![message("stolen")];
    change.sandbox = Some("stolen".to_owned());
    let refused = tenant.update_session(change).await;
    assert!(matches!(refused, Err(UpdateError::NotLive(_))), "{refused:?}");

    let turn = turns::record(victim.session.id, 1, TurnStatus::Completed);
    let refused = tenant.record_turn(turn).await;
    assert!(matches!(refused, Err(UpdateError::NotLive(_))), "{refused:?}");

    // The same id in another org is another session, and tells nothing of the first.
    let same = tenant.create_session(new(&stolen)).await;
    assert!(matches!(same, Ok(Created::New(_))), "{same:?}");
    let idempotency = Some(Idempotency { key: "key".to_owned(), request_digest: "another".to_owned() });
    let keyed = tenant.create_session(crate::NewSession { idempotency, ..new(&thief.session()) }).await;
    assert!(matches!(keyed, Ok(Created::New(_))), "{keyed:?}");

    let id = victim.key.id;
    assert!(!tenant.revoke_key(id, key_draft(AuditType::KeyRevoked, id)).await.expect("nothing is revoked"));
    let mut copied = victim.key.clone();
    (copied.org, copied.secret_hash) = (thief.org, "11".repeat(32));
    assert!(tenant.create_key(copied, key_draft(AuditType::KeyCreated, id)).await.is_err());

    let mut stolen = victim.binding.clone();
    let foreign = tenant.change_binding(bindings::changed(&stolen)).await;
    assert!(matches!(foreign, Err(BindingError::Store(_))), "{foreign:?}");
    stolen.binding.org_id = thief.org;
    for change in [bindings::changed(&stolen), bindings::deleted(&stolen)] {
        let refused = tenant.change_binding(change).await;
        assert!(matches!(refused, Err(BindingError::NotFound)), "{refused:?}");
    }
    // The same id and name in another org are another binding, and tell nothing of the first.
    let draft = binding_draft(AuditType::BindingCreated, stolen.binding.id);
    let same = tenant.change_binding(BindingChange::Create { record: stolen, draft }).await;
    assert!(same.is_ok(), "{same:?}");

    let theirs = &victim.world;
    let turn = theirs.tenant.turn(victim.session.id, 1).await.expect("a read");
    assert_eq!(turn, Some(turns::record(victim.session.id, 1, TurnStatus::Running).turn));
    let bound = theirs.tenant.binding(victim.binding.binding.id).await.expect("a read");
    assert_eq!(bound, Some(victim.binding));
    assert_eq!(theirs.tenant.session(victim.session.id).await.expect("a read"), Some(victim.session.clone()));
    assert_eq!(theirs.tenant.result(victim.session.id).await.expect("a read"), Some(result(victim.session.id, None)));
    assert_eq!(theirs.system.key(id).await.expect("a read"), Some(victim.key.clone()));
    assert_eq!(theirs.tenant.keys().await.expect("a read"), [victim.key]);
    assert_eq!(subject.outbox(theirs.org).await, []);
    assert_eq!(subject.outbox(thief.org).await, []);
    let unfinished = theirs.system.unfinished().await.expect("a read");
    let found = unfinished.iter().find(|unfinished| unfinished.session == victim.session);
    assert_eq!(found.expect("still unfinished").sandbox.as_deref(), Some("box"));
    assert_eq!((theirs.verified().await, thief.verified().await), (6, 3));
}
