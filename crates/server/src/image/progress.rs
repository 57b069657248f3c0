//! Shows what a build is doing: a running clock on a terminal, one line a step elsewhere. On stderr, so that stdout
//! stays the result's.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// The steps of one build.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    terminal: bool,
}

impl Progress {
    /// Announces the build.
    pub(crate) fn start(title: &str) -> Self {
        eprintln!("{title}");
        Self { started: Instant::now(), terminal: std::io::stderr().is_terminal() }
    }

    /// Runs a step and shows how long it took. A step that fails leaves its own message to the caller.
    pub(crate) fn step<T, E>(&self, what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let bar = self.terminal.then(|| {
            let style = ProgressStyle::with_template("  {spinner} {elapsed:>4}  {msg}").expect("a valid template");
            let bar = ProgressBar::new_spinner().with_style(style).with_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        let started = Instant::now();
        let result = work();
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        if result.is_ok() {
            eprintln!("  {:>6.1} s  {what}", started.elapsed().as_secs_f64());
        }
        result
    }

    /// Says something that is no step.
    #[expect(clippy::unused_self, reason = "said among the steps of a build, by what shows those")]
    pub(crate) fn note(&self, message: &str) {
        eprintln!("            {message}");
    }

    /// Announces the result.
    pub(crate) fn finish(self, message: &str) {
        eprintln!("  {:>6.1} s  {message}", self.started.elapsed().as_secs_f64());
    }
}
