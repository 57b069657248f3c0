//! The suite that every backend passes: the rules of [`SessionBackend`](crate::SessionBackend), each with a case that
//! tries it from outside.
//!
//! ```ignore
//! Suite::new(backend).run_all().await.assert_passed();
//! ```
//!
//! Called from the tests of every backend crate. The programs are real sources that carry a script for the simulator
//! in their comments, so that the same text runs everywhere and the same is to be observed. What a backend cannot be
//! asked is a named skip. Nothing here sleeps for a result: under a paused clock the suite takes no time, and elsewhere
//! times are deadlines.

mod cases;
mod context;
mod programs;
mod report;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use model::Language;
use tokio::time::timeout;

use self::{
    cases::{Case, Scope},
    context::{Checked, Context, Failed},
};
use crate::{SandboxId, SessionBackend, Shape};

pub use report::Report;

/// Writable bytes of a sandbox, unless a case is about them.
const DISK_BYTES: u64 = 64 * 1024 * 1024;
/// How long one case may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A backend and what the suite has to know of it.
pub struct Suite {
    backend: Arc<dyn SessionBackend>,
    shape: Arc<dyn Fn(Language) -> Shape + Send + Sync>,
    patience: Duration,
    skips: Vec<(String, String)>,
    only: Option<String>,
}

impl std::fmt::Debug for Suite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suite").field("backend", &self.backend.capabilities().name).finish_non_exhaustive()
    }
}

impl Suite {
    /// For a backend that nobody else uses meanwhile. Sandboxes are made of its first image.
    pub fn new(backend: Arc<dyn SessionBackend>) -> Self {
        let image = backend.capabilities().images.first().cloned().unwrap_or_default();
        let shape = move |language| Shape { image: image.clone(), language, disk_bytes: DISK_BYTES, egress: false };
        Self { backend, shape: Arc::new(shape), patience: PATIENCE, skips: Vec::new(), only: None }
    }

    /// Makes sandboxes of other shapes.
    #[must_use]
    pub fn with_shape(mut self, shape: impl Fn(Language) -> Shape + Send + Sync + 'static) -> Self {
        self.shape = Arc::new(shape);
        self
    }

    /// Gives each case another deadline.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Leaves out a case, for a reason that the report repeats.
    ///
    /// # Panics
    ///
    /// When there is no such case.
    #[must_use]
    pub fn skip(mut self, case: &str, why: &str) -> Self {
        assert!(cases::ALL.iter().any(|known| known.name == case), "there is no case {case}");
        self.skips.push((case.to_owned(), why.to_owned()));
        self
    }

    /// Runs only cases whose names contain this, for one who looks into a failure. The others are not reported.
    #[must_use]
    pub fn only(mut self, part: &str) -> Self {
        self.only = Some(part.to_owned());
        self
    }

    /// Runs every case, one after the other.
    pub async fn run_all(self) -> Report {
        let mut report = Report::default();
        let numbered = Arc::new(AtomicU64::new(0));
        for case in cases::ALL.iter().filter(|case| self.only.as_ref().is_none_or(|part| case.name.contains(part))) {
            for language in self.languages(case) {
                let name = match case.scope {
                    Scope::Language => format!("{} ({})", case.name, language.as_str()),
                    Scope::Backend | Scope::Model => case.name.to_owned(),
                };
                if let Some(why) = self.cannot(case, language) {
                    report.skipped.push((name, why));
                    continue;
                }
                let (backend, shape) = (Arc::clone(&self.backend), Arc::clone(&self.shape));
                let (patience, numbered) = (self.patience, Arc::clone(&numbered));
                match check(case, Context { backend, shape, language, patience, numbered }).await {
                    Ok(()) => report.passed.push(name),
                    Err(Failed(why)) => report.failed.push((name, why)),
                }
            }
        }
        report
    }

    fn languages(&self, case: &Case) -> Vec<Language> {
        match case.scope {
            Scope::Language => vec![Language::Python, Language::Node],
            Scope::Backend => self.backend.capabilities().languages.first().copied().into_iter().collect(),
            // The scripts are comments of Python.
            Scope::Model => vec![Language::Python],
        }
    }

    /// Why this backend cannot be asked.
    fn cannot(&self, case: &Case, language: Language) -> Option<String> {
        let capabilities = self.backend.capabilities();
        if let Some((_, why)) = self.skips.iter().find(|(name, _)| name == case.name) {
            return Some(why.clone());
        }
        if case.scope == Scope::Model && capabilities.executes {
            return Some("its runner is real and cannot be told to misbehave".to_owned());
        }
        (!capabilities.languages.contains(&language)).then(|| format!("it has no image for {}", language.as_str()))
    }
}

/// Runs one case; whatever it leaves is removed, and is a failure of its own.
async fn check(case: &Case, context: Context) -> Checked {
    let before = context.backend.list().await?;
    let patience = context.patience;
    let outcome = timeout(patience, (case.check)(context.clone())).await;
    let outcome = outcome.unwrap_or_else(|_| Err(Failed(format!("not done after {patience:?}"))));
    let left = swept(&context, &before).await;
    outcome.and(left)
}

async fn swept(context: &Context, before: &[SandboxId]) -> Checked {
    match timeout(context.patience, context.sweep(before)).await {
        Ok(Ok(0)) => Ok(()),
        Ok(Ok(left)) => Err(Failed(format!("{left} sandboxes were left"))),
        Ok(Err(failed)) => Err(failed),
        Err(_) => Err(Failed(format!("what was left is not removed after {:?}", context.patience))),
    }
}
