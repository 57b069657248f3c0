//! The simulator passes the suite of every backend, and needs no time for it.

use std::{sync::Arc, time::Duration};

use backend::{
    conformance::Suite,
    simulator::{Simulator, SimulatorConfig},
};

#[tokio::test(start_paused = true)]
async fn the_simulator_conforms() {
    let report = Suite::new(Arc::new(Simulator::default())).run_all().await;
    report.assert_passed();
    assert_eq!(report.skipped, []);
}

#[tokio::test(start_paused = true)]
async fn a_simulator_that_takes_its_time_to_boot_conforms() {
    let config = SimulatorConfig { boot: Duration::from_millis(200), seed: 7, ..SimulatorConfig::default() };
    Suite::new(Arc::new(Simulator::new(config))).run_all().await.assert_passed();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_and_cancellations_conform_on_several_threads_too() {
    let simulator = Arc::new(Simulator::default());
    for part in ["kill", "destroy", "who_waits", "dropped", "closing", "ten_sandboxes"] {
        Suite::new(simulator.clone()).only(part).run_all().await.assert_passed();
    }
}
