//! What can happen while a session is created.

use engine::{Config, CreateError, CreateRequest};
use store::SessionFilter;
use wire::{FaultCode, Outcome, Phase};

use super::{
    store::Hold,
    support::{PATIENCE, quick, request, world, world_with},
};

fn keyed(script: &str, key: &str, body: &str) -> CreateRequest {
    CreateRequest { idempotency: Some((key.into(), body.as_bytes().to_vec())), ..request(script) }
}

#[tokio::test]
async fn beyond_ceiling_and_queue_callers_are_told_to_come_again() {
    let world = world_with(Config { max_concurrency: 1, max_queue: 1, ..Config::default() }).await;
    let first = world.start("# sim: hang").await;
    let second = world.start("# sim: result 2").await;
    let refused = world.engine.create(&world.caller, request("# sim: result 3")).await;
    assert!(matches!(refused, Err(CreateError::Busy { .. })), "{refused:?}");
    world.engine.cancel(&world.caller, first.id).await.unwrap();
    let (_, result, _) = world.end_of(&second).await;
    assert_eq!(result.value(), Some(2.into()));
    world.start("# sim: result 3").await;
}

#[tokio::test]
async fn an_idempotency_key_makes_one_session() {
    let world = world().await;
    let keyed = |body| keyed("# sim: result 1", "key", body);
    let first = world.engine.create(&world.caller, keyed("a")).await.unwrap();
    assert_eq!(world.engine.create(&world.caller, keyed("a")).await.unwrap().id, first.id);
    let conflict = world.engine.create(&world.caller, keyed("b")).await;
    assert!(matches!(conflict, Err(CreateError::IdempotencyConflict)), "{conflict:?}");
}

#[tokio::test]
async fn a_repeat_is_answered_although_every_place_is_taken() {
    let world = world_with(Config { max_concurrency: 1, max_queue: 0, ..Config::default() }).await;
    let create = async |key, body| world.engine.create(&world.caller, keyed("# sim: hang", key, body)).await;
    let first = create("key", "a").await.unwrap();
    assert_eq!(create("key", "a").await.unwrap().id, first.id);
    let conflict = create("key", "b").await;
    assert!(matches!(conflict, Err(CreateError::IdempotencyConflict)), "{conflict:?}");
    let refused = create("another key", "a").await;
    assert!(matches!(refused, Err(CreateError::Busy { .. })), "{refused:?}");
    let refused = world.engine.create(&world.caller, request("# sim: hang")).await;
    assert!(matches!(refused, Err(CreateError::Busy { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_drain_waits_for_a_creation_that_began_before_it_and_ends_its_session() {
    let world = world().await;
    world.orders.hold(Hold::BeforeCommit);
    let (engine, caller) = (world.engine.clone(), world.caller.clone());
    let creation = tokio::spawn(async move { engine.create(&caller, request("# sim: hang")).await });
    world.orders.held().await;
    let engine = world.engine.clone();
    let drain = tokio::spawn(async move { engine.shutdown(PATIENCE).await });
    // Everything that a drain that does not wait has to do is done long before this is over.
    let still_waits = tokio::time::timeout(std::time::Duration::from_millis(300), async {
        while !drain.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    assert!(still_waits.await.is_err(), "the drain did not wait");
    world.orders.let_go();
    let session = creation.await.unwrap().unwrap();
    drain.await.unwrap().unwrap();
    let ended = world.now(&session).await;
    assert_eq!(ended.fault.unwrap().code, FaultCode::ServerDrained);
    assert_eq!((ended.phase, ended.started_at), (Phase::TornDown, None));
}

#[tokio::test]
async fn a_session_can_be_ended_as_soon_as_it_is_recorded() {
    let world = world().await;
    world.orders.hold(Hold::AfterCommit);
    let (engine, caller) = (world.engine.clone(), world.caller.clone());
    let creation = tokio::spawn(async move { engine.create(&caller, request("# sim: hang")).await });
    world.orders.held().await;
    let filter = SessionFilter { limit: 1, ..SessionFilter::default() };
    let found = world.engine.sessions(&world.caller, filter).await.unwrap().items.remove(0);
    let frames = world.engine.stream(&world.caller, found.id, 0).await.unwrap();
    let (ended, ()) = tokio::join!(world.engine.cancel(&world.caller, found.id), async {
        tokio::task::yield_now().await;
        world.orders.let_go();
    });
    let ended = ended.unwrap();
    assert_eq!((ended.outcome, ended.phase), (Some(Outcome::Cancelled), Phase::TornDown));
    assert_eq!(ended.started_at, None);
    let frames: Vec<_> = tokio::time::timeout(PATIENCE, futures::StreamExt::collect(frames)).await.unwrap();
    assert_eq!(frames.last().map(|frame| frame.kind), Some(wire::FrameKind::End));
    assert_eq!(creation.await.unwrap().unwrap().id, found.id);
}

#[tokio::test]
async fn a_creation_that_made_nothing_leaves_nothing_to_watch() {
    let world = world().await;
    world.orders.hold(Hold::BeforeCommit);
    let (engine, caller) = (world.engine.clone(), world.caller.clone());
    let repeat = tokio::spawn(async move { engine.create(&caller, keyed("# sim: result 1", "key", "a")).await });
    world.orders.held().await;
    let first = world.engine.create(&world.caller, keyed("# sim: result 1", "key", "a")).await.unwrap();
    world.orders.let_go();
    assert_eq!(repeat.await.unwrap().unwrap().id, first.id);
    world.end_of(&first).await;
    // What was entered for it would be waited for.
    world.engine.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn files_beside_a_request_are_bounded_by_what_it_asks_for_and_by_the_default_if_it_does_not() {
    let maxima = model::limits::Limits { disk_bytes: 1 << 30, ..model::limits::CEILING };
    let world = world_with(Config { maxima, ..quick() }).await;
    for (asked, most) in [(None, 512 << 20), (Some(1 << 20), 1 << 20), (Some(1 << 40), 1 << 30)] {
        assert_eq!(world.engine.disk_bytes(asked), most, "{asked:?}");
    }
}
