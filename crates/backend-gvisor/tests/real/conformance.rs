//! The suite of every backend, on real sandboxes.

use backend::conformance::Suite;

use crate::support::host;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gvisor_backend_conforms() {
    let Some(host) = host("the_gvisor_backend_conforms").await else { return };
    let report = Suite::new(host.gvisor.clone()).run_all().await;
    for (case, why) in &report.skipped {
        println!("left out: {case}: {why}");
    }
    report.assert_passed();
    assert!(report.passed.len() > 20, "only {} cases ran", report.passed.len());
}
