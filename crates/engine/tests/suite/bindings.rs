//! Bindings: what is kept of them, who gets them, and where their secrets are not.

use model::{
    access::{Caller, Subject},
    gateway::BoundService,
};
use serde_json::{Value, json};
use store::{AuditFilter, Store};
use tokio::task::JoinSet;
use wire::{AuditType, Binding, BindingSecret, CreateBinding, Role, UpdateBinding};

use engine::{BindingError, BoundError, UnsealError, Vault};

use super::support::{World, quick, world};

const FIRST: &str = "canary-first-secret";
const SECOND: &str = "canary-second-secret";

fn request(body: &Value) -> CreateBinding {
    let (request, faults) = CreateBinding::parse(body.to_string().as_bytes()).unwrap();
    assert_eq!(faults, []);
    request
}

fn secret(value: &str) -> BindingSecret {
    BindingSecret { value: value.to_owned(), ..BindingSecret::default() }
}

fn change(body: &Value) -> UpdateBinding {
    UpdateBinding::parse(body.to_string().as_bytes()).unwrap().0
}

async fn create(world: &World, name: &str) -> Binding {
    let body = json!({
        "name": name, "kind": {"type": "bearer"}, "upstream": {"url": "https://api.example.com/v1"},
        "secret": {"value": FIRST},
    });
    world.engine.create_binding(&world.caller, request(&body), vec![]).await.unwrap()
}

async fn bound(world: &World, asked: &[&str]) -> Result<Vec<BoundService>, BoundError> {
    let asked: Vec<_> = asked.iter().map(|asked| (*asked).to_owned()).collect();
    world.engine.bound(world.caller.org, &asked).await
}

async fn log(world: &World) -> Vec<wire::AuditEvent> {
    let filter = AuditFilter { session: None, after_seq: 0, limit: 1000 };
    world.store.tenant(world.caller.org).audit(filter).await.unwrap()
}

#[tokio::test]
async fn a_session_gets_what_it_asks_for_by_id_or_name_with_the_secret_opened() {
    let world = world().await;
    let (github, maps) = (create(&world, "github").await, create(&world, "maps").await);
    let found = bound(&world, &["maps", &github.id.to_string()]).await.unwrap();
    assert_eq!(found.iter().map(|bound| bound.id).collect::<Vec<_>>(), [maps.id, github.id]);
    assert_eq!(found[0].spec, maps.spec);
    assert!(found.iter().all(|bound| bound.credential.value.expose() == FIRST));

    let absent = "bnd_01890a5d-ac96-774b-bcce-b302099a8057";
    let refused = bound(&world, &["github", "nothing", absent, &github.id.to_string()]).await;
    let Err(BoundError::Invalid(faults)) = refused else { panic!("{refused:?}") };
    let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["serviceBindings[1]", "serviceBindings[2]", "serviceBindings[3]"]);
    assert_eq!(faults[0].message, "is not a binding of this org");
    assert!(matches!(bound(&world, &["x"; 33]).await, Err(BoundError::Invalid(_))));

    let other = world.engine.ensure_org("another").await.unwrap();
    let stranger = world.engine.bound(other, &["github".to_owned()]).await;
    assert!(matches!(stranger, Err(BoundError::Invalid(_))), "{stranger:?}");
}

#[tokio::test]
async fn a_rotation_is_told_and_its_secret_is_for_who_goes_to_the_same_place() {
    let world = world().await;
    let binding = create(&world, "github").await;
    let held = bound(&world, &["github"]).await.unwrap().remove(0);
    let mut rotations = world.engine.rotations();
    let (caller, org) = (&world.caller, world.caller.org);

    let rotated = world.engine.rotate_binding(caller, binding.id, secret(SECOND), vec![]).await.unwrap();
    assert_eq!((rotated.secret_version, &rotated.spec), (2, &binding.spec));
    let told = rotations.recv().await.unwrap();
    assert_eq!((told.org, told.binding), (org, binding.id));
    let now = world.engine.bound_now(org, &held).await.unwrap().unwrap();
    assert_eq!(now.value.expose(), SECOND);

    // What a binding may be asked changes, and where it leads does not.
    let narrowed = change(&json!({"allow": [{"methods": ["GET"]}]}));
    world.engine.update_binding(caller, binding.id, narrowed, vec![]).await.unwrap();
    assert!(rotations.try_recv().is_err(), "no secret was replaced");
    assert!(world.engine.bound_now(org, &held).await.unwrap().is_some());

    let elsewhere = change(&json!({"upstream": {"url": "https://b.example.com"}, "secret": {"value": FIRST}}));
    world.engine.update_binding(caller, binding.id, elsewhere, vec![]).await.unwrap();
    rotations.recv().await.unwrap();
    assert_eq!(world.engine.bound_now(org, &held).await.unwrap(), None, "the new secret is not for the old place");
    let deleted = world.engine.delete_binding(caller, binding.id).await.unwrap();
    assert_eq!(deleted.secret_version, 3);
    assert_eq!(world.engine.bound_now(org, &held).await.unwrap(), None);
    let gone = world.engine.delete_binding(caller, binding.id).await;
    assert!(matches!(gone, Err(BindingError::NotFound)), "{gone:?}");
}

#[tokio::test]
async fn rotations_at_the_same_time_are_all_made_one_after_another() {
    let world = world().await;
    let binding = create(&world, "github").await;
    let mut tasks = JoinSet::new();
    for n in 0..20 {
        let (engine, caller) = (world.engine.clone(), world.caller.clone());
        let next = secret(&format!("canary-number-{n}"));
        tasks.spawn(async move { engine.rotate_binding(&caller, binding.id, next, vec![]).await });
    }
    let mut versions = Vec::new();
    while let Some(done) = tasks.join_next().await {
        versions.push(done.unwrap().unwrap().secret_version);
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..=21).collect::<Vec<_>>());
    assert!(bound(&world, &["github"]).await.unwrap()[0].credential.value.expose().starts_with("canary-number-"));
}

#[tokio::test]
async fn each_change_is_audited_with_who_made_it_and_never_with_a_secret() {
    let world = world().await;
    let (engine, caller) = (&world.engine, &world.caller);
    let binding = create(&world, "github").await;
    let same = change(&json!({"upstream": {"url": "https://api.example.com/v1"}}));
    assert_eq!(engine.update_binding(caller, binding.id, same, vec![]).await.unwrap(), binding, "nothing changes");
    let both = change(&json!({"upstream": {"url": "https://b.example.com:8443/x"}, "secret": {"value": SECOND}}));
    engine.update_binding(caller, binding.id, both, vec![]).await.unwrap();
    let refused = engine.update_binding(caller, binding.id, change(&json!({"budget": {"calls": 0}})), vec![]).await;
    assert!(matches!(refused, Err(BindingError::Invalid(_))), "{refused:?}");
    let key = Caller {
        subject: Subject::Key("key_01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()),
        role: Role::Admin,
        ..caller.clone()
    };
    engine.delete_binding(&key, binding.id).await.unwrap();
    let log = log(&world).await;
    let kinds: Vec<_> = log.iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        [AuditType::BindingCreated, AuditType::BindingUpdated, AuditType::BindingRotated, AuditType::BindingDeleted]
    );
    let data = json!({"binding": binding.id, "name": "github", "kind": "bearer", "upstream": "api.example.com:443"});
    assert_eq!(log[0].data, data);
    assert_eq!(
        (&log[1].data["fields"], &log[1].data["upstream"]),
        (&json!(["upstream"]), &json!("b.example.com:8443"))
    );
    assert_eq!(log[2].data["secretVersion"], 2);
    assert_eq!(log[3].actor, key.subject.to_string());
    assert!(!serde_json::to_string(&log).unwrap().contains("canary"));
}

#[tokio::test]
async fn no_file_of_the_database_has_a_secret() {
    let world = world().await;
    let binding = create(&world, "github").await;
    world.engine.rotate_binding(&world.caller, binding.id, secret(SECOND), vec![]).await.unwrap();
    let mut looked_at = 0;
    for entry in std::fs::read_dir(world.folder()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"));
        looked_at += bytes.len();
    }
    assert!(looked_at > 10_000, "{looked_at}");
}

#[tokio::test]
async fn another_key_opens_nothing_says_so_and_takes_secrets_anew() {
    let world = world().await;
    let binding = create(&world, "github").await;
    let engine = world.restarted_with_vault(quick(), Vault::new([6; 32])).await;
    let refused = engine.bound(world.caller.org, &["github".to_owned()]).await;
    let Err(BoundError::Sealed { binding: id, source }) = refused else { panic!("{refused:?}") };
    let keys = (Vault::new(super::support::VAULT_KEY).key_id(), Vault::new([6; 32]).key_id());
    assert_eq!((id, source), (binding.id, UnsealError::OtherKey { found: keys.0, own: keys.1 }));
    engine.rotate_binding(&world.caller, binding.id, secret(SECOND), vec![]).await.unwrap();
    let opened = engine.bound(world.caller.org, &["github".to_owned()]).await.unwrap();
    assert_eq!(opened[0].credential.value.expose(), SECOND);
}

#[tokio::test]
async fn a_secret_in_another_row_does_not_open() {
    let world = world().await;
    let (github, maps) = (create(&world, "github").await, create(&world, "maps").await);
    let tenant = world.store.tenant(world.caller.org);
    let mut record = tenant.binding(maps.id).await.unwrap().unwrap();
    record.sealed = tenant.binding(github.id).await.unwrap().unwrap().sealed;
    tenant.change_binding(store::BindingChange::Update { record, drafts: vec![] }).await.unwrap();
    let refused = bound(&world, &["maps"]).await;
    assert!(matches!(refused, Err(BoundError::Sealed { source: UnsealError::Damaged, .. })), "{refused:?}");
}
