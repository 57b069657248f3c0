//! Service bindings.

use tokio::task::JoinSet;
use wire::{AuditType, Timestamp};

use super::{
    Subject,
    support::{World, binding, binding_draft, binding_id, kinds},
};
use crate::{AuditFilter, BindingChange, BindingError, BindingFilter, BindingRecord, StoreError, Tenant};

/// Records a new binding.
pub async fn created(world: &World, name: &str) -> BindingRecord {
    let record = binding(world.org, name);
    let draft = binding_draft(AuditType::BindingCreated, record.binding.id);
    let change = BindingChange::Create { record: record.clone(), draft };
    world.tenant.change_binding(change).await.expect("a binding is recorded");
    record
}

/// A change of everything but the name.
pub fn changed(record: &BindingRecord) -> BindingChange {
    let mut record = record.clone();
    record.binding.secret_version += 1;
    record.binding.updated_at = Timestamp::from_millis(1_795_500_000_999);
    record.binding.spec.upstream.url.push_str("/changed");
    record.sealed.push(7);
    let draft = |kind| binding_draft(kind, record.binding.id);
    let drafts = vec![draft(AuditType::BindingUpdated), draft(AuditType::BindingRotated)];
    BindingChange::Update { record, drafts }
}

/// The end of one.
pub fn deleted(record: &BindingRecord) -> BindingChange {
    let id = record.binding.id;
    BindingChange::Delete { id, draft: binding_draft(AuditType::BindingDeleted, id) }
}

async fn log(world: &World) -> Vec<AuditType> {
    let filter = AuditFilter { session: None, after_seq: 0, limit: 1000 };
    kinds(&world.tenant.audit(filter).await.expect("a read"))
}

pub async fn a_binding_is_read_back_as_it_was_given(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let record = created(&world, "github").await;
    let id = record.binding.id;
    assert_eq!(world.tenant.binding(id).await.expect("a read"), Some(record.clone()));
    assert_eq!(world.tenant.binding_named("github").await.expect("a read"), Some(record.clone()));
    assert_eq!(world.tenant.binding(binding_id()).await.expect("a read"), None);
    assert_eq!(world.tenant.binding_named("GitHub").await.expect("a read"), None);
    let again = subject.reopen().await;
    assert_eq!(again.tenant(world.org).binding(id).await.expect("a read"), Some(record.clone()));
    assert!(again.system().sealed().await.expect("a read").contains(&(id.to_string(), record.sealed)));
    assert_eq!(log(&world).await, [AuditType::BindingCreated]);
}

pub async fn a_name_is_taken_once_in_an_org_and_free_again_after_a_deletion(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (tenant, record) = (world.tenant.clone(), binding(world.org, "github"));
        let draft = binding_draft(AuditType::BindingCreated, record.binding.id);
        tasks.spawn(async move { tenant.change_binding(BindingChange::Create { record, draft }).await });
    }
    let mut made = 0;
    while let Some(done) = tasks.join_next().await {
        match done.expect("no task panics") {
            Ok(()) => made += 1,
            Err(error) => assert!(matches!(error, BindingError::NameTaken), "{error:?}"),
        }
    }
    assert_eq!(made, 1);
    created(&other, "github").await;
    let first = world.tenant.binding_named("github").await.expect("a read").expect("it is there");
    world.tenant.change_binding(deleted(&first)).await.expect("a binding is deleted");
    created(&world, "github").await;
    assert_eq!((world.verified().await, other.verified().await), (3, 1));
}

pub async fn a_binding_id_that_is_taken_fails_alone(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let first = created(&world, "first").await;
    let mut same = binding(world.org, "second");
    same.binding.id = first.binding.id;
    let draft = binding_draft(AuditType::BindingCreated, same.binding.id);
    let refused = world.tenant.change_binding(BindingChange::Create { record: same, draft }).await;
    assert!(matches!(refused, Err(BindingError::Store(StoreError::Taken(_)))), "{refused:?}");
    assert_eq!(world.tenant.binding(first.binding.id).await.expect("a read"), Some(first));
    assert_eq!(world.verified().await, 1);
}

pub async fn a_change_is_made_only_on_what_it_was_decided_on(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let record = created(&world, "github").await;
    let mut tasks = JoinSet::new();
    for _ in 0..20 {
        let (tenant, change) = (world.tenant.clone(), changed(&record));
        tasks.spawn(async move { tenant.change_binding(change).await });
    }
    let mut made = 0;
    while let Some(done) = tasks.join_next().await {
        match done.expect("no task panics") {
            Ok(()) => made += 1,
            Err(error) => assert!(matches!(error, BindingError::Stale), "{error:?}"),
        }
    }
    assert_eq!(made, 1, "one of those that were decided on the same state");
    let now = world.tenant.binding(record.binding.id).await.expect("a read").expect("it is there");
    let BindingChange::Update { record: expected, .. } = changed(&record) else { panic!("it is an update") };
    assert_eq!((&now.binding, &now.sealed), (&expected.binding, &expected.sealed));
    assert_eq!(now.revision, record.revision + 1);
    world.tenant.change_binding(changed(&now)).await.expect("what is decided anew is made");
    let mut renamed = world.tenant.binding(record.binding.id).await.expect("a read").expect("it is there");
    "other".clone_into(&mut renamed.binding.spec.name);
    assert!(matches!(world.tenant.change_binding(changed(&renamed)).await, Err(BindingError::Stale)));
    let (updated, rotated) = (AuditType::BindingUpdated, AuditType::BindingRotated);
    assert_eq!(log(&world).await, [AuditType::BindingCreated, updated, rotated, updated, rotated]);
}

pub async fn a_deleted_binding_is_gone_for_good(subject: &dyn Subject) {
    let world = World::new(subject).await;
    let record = created(&world, "github").await;
    world.tenant.change_binding(deleted(&record)).await.expect("a binding is deleted");
    assert_eq!(world.tenant.binding(record.binding.id).await.expect("a read"), None);
    assert_eq!(world.tenant.binding_named("github").await.expect("a read"), None);
    for change in [changed(&record), deleted(&record)] {
        let refused = world.tenant.change_binding(change).await;
        assert!(matches!(refused, Err(BindingError::NotFound)), "{refused:?}");
    }
    assert_eq!(log(&world).await, [AuditType::BindingCreated, AuditType::BindingDeleted]);
}

pub async fn bindings_are_listed_by_name_in_pages_without_gaps(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    for name in ["m", "b", "z", "a-b", "a", "c1", "c"] {
        created(&world, name).await;
    }
    created(&other, "aa").await;
    let mut names = Vec::new();
    let mut cursor = None;
    loop {
        let page = page(&world.tenant, BindingFilter { cursor, limit: 2, name: None }).await;
        assert!(page.items.len() <= 2);
        names.extend(page.items.into_iter().map(|binding| binding.spec.name));
        // Neither what goes behind the reader nor what comes before it moves the pages.
        if names.len() == 4 {
            let gone = world.tenant.binding_named("a").await.expect("a read").expect("it is there");
            world.tenant.change_binding(deleted(&gone)).await.expect("a binding is deleted");
            created(&world, "a0").await;
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(names, ["a", "a-b", "b", "c", "c1", "m", "z"]);
    let only = BindingFilter { name: Some("c1".to_owned()), limit: 10, cursor: None };
    let found = page(&world.tenant, only).await;
    assert_eq!(found.items.iter().map(|binding| binding.spec.name.as_str()).collect::<Vec<_>>(), ["c1"]);
    let none = page(&world.tenant, BindingFilter { name: Some("aa".to_owned()), limit: 10, cursor: None }).await;
    assert!(none.items.is_empty() && none.next_cursor.is_none());
}

pub async fn a_cursor_of_another_list_of_bindings_is_refused(subject: &dyn Subject) {
    let (world, other) = (World::new(subject).await, World::new(subject).await);
    for name in ["a", "b"] {
        created(&world, name).await;
        created(&other, name).await;
    }
    let theirs = page(&other.tenant, BindingFilter { limit: 1, ..BindingFilter::default() }).await.next_cursor;
    for cursor in [theirs.expect("there is a second page"), "nonsense".to_owned(), String::new()] {
        let filter = BindingFilter { cursor: Some(cursor), limit: 1, name: None };
        let refused = world.tenant.bindings(filter).await;
        assert!(matches!(refused, Err(StoreError::BadCursor)), "{refused:?}");
    }
}

async fn page(tenant: &std::sync::Arc<dyn Tenant>, filter: BindingFilter) -> wire::BindingPage {
    tenant.bindings(filter).await.expect("a page")
}
