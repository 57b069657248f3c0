//! The suite finds what it is for: backends that break one rule each, and the cases that say so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use backend::{
    AssignError, Capabilities, DestroyError, Observation, ObserveError, PrepareError, Prepared, Residue, Sandbox,
    SandboxId, SandboxLimit, SandboxSpec, SandboxUsage, SessionBackend, Shape, Termination,
    conformance::{Report, Suite},
    simulator::{Simulator, SimulatorConfig},
};
use model::limits::Limits;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    ListsNothing,
    TakesAnyImage,
    ForgetsLimits,
    KillsNothing,
    DestroysNothing,
    CallsEverythingExited,
    KeepsAnswering,
    CountsNothing,
    AlwaysExceeded,
    WaitAnswersOnce,
    LeavesResidue,
}

/// The simulator with one fault.
#[derive(Debug)]
struct Faulty {
    simulator: Simulator,
    broken: Broken,
    waited: AtomicBool,
}

#[async_trait]
impl SessionBackend for Faulty {
    fn capabilities(&self) -> &Capabilities {
        self.simulator.capabilities()
    }

    async fn prepare(&self, shape: &Shape) -> Result<Prepared, PrepareError> {
        let mut shape = shape.clone();
        if self.broken == Broken::TakesAnyImage {
            shape.image = "default".into();
        }
        self.simulator.prepare(&shape).await
    }

    async fn assign(&self, prepared: Prepared, spec: &SandboxSpec) -> Result<Sandbox, AssignError> {
        let mut limits = spec.limits;
        if self.broken == Broken::ForgetsLimits {
            limits = Limits { memory_bytes: u64::MAX, cpu_time_ms: None, ..limits };
        }
        self.simulator.assign(prepared, &SandboxSpec { limits, gateway: None, grace: spec.grace }).await
    }

    async fn wait(&self, id: &SandboxId) -> Result<Termination, ObserveError> {
        if self.broken == Broken::WaitAnswersOnce && self.waited.swap(true, Ordering::Relaxed) {
            return std::future::pending().await;
        }
        match (self.broken, self.simulator.wait(id).await) {
            (Broken::CallsEverythingExited, Ok(_)) | (Broken::KeepsAnswering, Err(_)) => Ok(Termination::Exited),
            (_, answer) => answer,
        }
    }

    async fn overrun(&self, id: &SandboxId) -> Result<SandboxLimit, ObserveError> {
        self.simulator.overrun(id).await
    }

    async fn observe(&self, id: &SandboxId) -> Result<Observation, ObserveError> {
        match (self.broken, self.simulator.observe(id).await) {
            (Broken::CountsNothing, Ok(seen)) => Ok(Observation { usage: SandboxUsage::default(), ..seen }),
            (Broken::AlwaysExceeded, Ok(seen)) => Ok(Observation { exceeded: Some(SandboxLimit::Memory), ..seen }),
            (_, answer) => answer,
        }
    }

    async fn kill(&self, id: &SandboxId) -> Result<(), ObserveError> {
        if self.broken == Broken::KillsNothing { Ok(()) } else { self.simulator.kill(id).await }
    }

    async fn destroy(&self, id: &SandboxId) -> Result<Residue, DestroyError> {
        if self.broken == Broken::LeavesResidue {
            return Ok(Residue(vec!["cgroup".into()]));
        }
        if self.broken == Broken::DestroysNothing { Ok(Residue::none()) } else { self.simulator.destroy(id).await }
    }

    async fn list(&self) -> Result<Vec<SandboxId>, ObserveError> {
        if self.broken == Broken::ListsNothing { Ok(Vec::new()) } else { self.simulator.list().await }
    }
}

async fn run(broken: Broken, case: &str) -> Report {
    let simulator = Simulator::new(SimulatorConfig::default());
    let faulty = Faulty { simulator, broken, waited: AtomicBool::new(false) };
    Suite::new(Arc::new(faulty)).with_patience(Duration::from_secs(5)).only(case).run_all().await
}

#[tokio::test(start_paused = true)]
async fn every_broken_rule_is_found_by_the_case_that_is_about_it() {
    for (broken, case) in [
        (Broken::ListsNothing, "a_prepared_sandbox_is_listed_and_belongs_to_nobody"),
        (Broken::TakesAnyImage, "an_unknown_image_is_refused"),
        (Broken::ForgetsLimits, "memory_over_the_limit_ends_it"),
        (Broken::ForgetsLimits, "cpu_time_over_the_limit_ends_it"),
        (Broken::KillsNothing, "killing_ends_a_running_program"),
        (Broken::DestroysNothing, "destroying_a_running_program_ends_it"),
        (Broken::CallsEverythingExited, "everybody_who_waits_gets_the_same_answer"),
        (Broken::CallsEverythingExited, "files_over_the_limit_end_it"),
        (Broken::KeepsAnswering, "a_destroyed_sandbox_is_gone"),
        (Broken::CountsNothing, "usage_is_plausible_and_stays_readable"),
        (Broken::AlwaysExceeded, "an_exit_code_comes_back"),
        (Broken::WaitAnswersOnce, "killing_twice_or_after_the_end_changes_nothing"),
        (Broken::LeavesResidue, "destroying_twice_or_something_unknown_leaves_nothing"),
        (Broken::LeavesResidue, "a_dropped_prepare_leaves_what_is_listed_and_can_be_destroyed"),
    ] {
        let found = run(broken, case).await.failed;
        assert!(found.iter().any(|(name, _)| name.starts_with(case)), "{broken:?} was not found by {case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_report_panics_with_the_names_and_the_reasons() {
    let report = run(Broken::TakesAnyImage, "an_unknown_image_is_refused").await;
    let panicked = std::panic::catch_unwind(|| report.assert_passed()).expect_err("it panics");
    let text = panicked.downcast_ref::<String>().expect("a text");
    assert!(text.contains("FAILED   an_unknown_image_is_refused: \"no-such-image\" gave Ok"), "{text}");
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "no case was run")]
async fn a_report_without_cases_is_not_a_pass() {
    Suite::new(Arc::new(Simulator::default())).only("no such case").run_all().await.assert_passed();
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_is_named_with_its_reason() {
    let suite = Suite::new(Arc::new(Simulator::default())).skip("an_unknown_image_is_refused", "to be seen");
    let report = suite.run_all().await;
    report.assert_passed();
    assert_eq!(report.skipped, [("an_unknown_image_is_refused".to_owned(), "to be seen".to_owned())]);
}
