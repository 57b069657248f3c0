//! Sandboxes that were booted ahead: taken once, made again, gone at the end, and nothing else is different.

use std::{sync::Arc, time::Duration};

use backend::{
    SandboxSpec, SessionBackend, Shape,
    conformance::Suite,
    pool::Pool,
    simulator::{FailurePlan, Simulator, SimulatorConfig, Step},
};
use model::{Language, limits::Limits};
use tokio::time::Instant;

const BOOT: Duration = Duration::from_millis(200);

fn slow() -> Arc<Simulator> {
    Arc::new(Simulator::new(SimulatorConfig { boot: BOOT, seed: 7, ..SimulatorConfig::default() }))
}

fn shape(language: Language) -> Shape {
    let image = Simulator::default().capabilities().images[0].clone();
    Shape { image, language, disk_bytes: 1 << 20, egress: false }
}

/// Waits until so many are ready.
async fn until_ready(pool: &Pool, count: usize) {
    let until = Instant::now() + Duration::from_mins(1);
    while pool.ready() != count {
        assert!(Instant::now() < until, "{} are ready, not {count}", pool.ready());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_conforms_as_what_is_under_it_does() {
    let pool = Arc::new(Pool::new(Arc::new(Simulator::default()), 2));
    let report = Suite::new(pool.clone()).run_all().await;
    report.assert_passed();
    pool.close().await;
    assert_eq!(pool.list().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn what_is_ready_is_had_at_once_and_only_once() {
    let (under, python) = (slow(), shape(Language::Python));
    let pool = Pool::new(under.clone(), 1);
    pool.expect(&python);
    until_ready(&pool, 1).await;
    assert_eq!(pool.list().await.unwrap(), [], "it belongs to the pool");
    assert_eq!(under.list().await.unwrap().len(), 1);

    let began = Instant::now();
    let first = pool.prepare(&python).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(pool.list().await.unwrap(), std::slice::from_ref(&first.id), "it belongs to who took it");
    let second = pool.prepare(&python).await.unwrap();
    assert!(began.elapsed() >= BOOT, "nothing was ready, so it was booted");
    assert_ne!(first.id, second.id);
    until_ready(&pool, 1).await;

    let spec = SandboxSpec { limits: Limits::default(), gateway: None, grace: Duration::ZERO };
    pool.assign(first, &spec).await.unwrap();
    pool.close().await;
    let left = under.list().await.unwrap();
    assert_eq!(left.len(), 2, "what was taken is not the pool's to remove: {left:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_last_is_what_is_ready() {
    let pool = Pool::new(slow(), 2);
    for language in [Language::Python, Language::Python, Language::Node] {
        pool.expect(&shape(language));
    }
    until_ready(&pool, 2).await;
    let began = Instant::now();
    pool.prepare(&shape(Language::Node)).await.unwrap();
    pool.prepare(&shape(Language::Python)).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    pool.prepare(&Shape { disk_bytes: 1 << 21, ..shape(Language::Node) }).await.unwrap();
    assert!(began.elapsed() >= BOOT, "another size is another sandbox");
}

#[tokio::test(start_paused = true)]
async fn one_that_ends_while_it_waits_is_removed_and_made_again() {
    let (under, python) = (slow(), shape(Language::Python));
    let pool = Pool::new(under.clone(), 1);
    pool.expect(&python);
    until_ready(&pool, 1).await;
    let dead = under.list().await.unwrap().remove(0);
    under.kill(&dead).await.unwrap();
    until_ready(&pool, 0).await;
    until_ready(&pool, 1).await;
    let taken = pool.prepare(&python).await.unwrap();
    assert_ne!(taken.id, dead);
    assert!(!under.list().await.unwrap().contains(&dead));
}

#[tokio::test(start_paused = true)]
async fn a_boot_ahead_that_fails_is_tried_again_and_harms_nobody() {
    let failures = FailurePlan::default();
    let config = SimulatorConfig { failures: failures.clone(), ..SimulatorConfig::default() };
    let pool = Pool::new(Arc::new(Simulator::new(config)), 1);
    failures.fail_next(Step::Prepare, 1);
    pool.expect(&shape(Language::Python));
    until_ready(&pool, 1).await;
}
