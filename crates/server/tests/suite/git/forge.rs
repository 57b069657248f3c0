//! The demo's git server, for tests.

#[path = "../../../src/demo/forge.rs"]
mod served;

use std::path::{Path, PathBuf};

pub(crate) use self::served::Forge;

/// What `/private` wants as the password.
pub(crate) const TOKEN: &str = "canary-token-of-the-forge";

/// Starts it, or prints why the test is skipped.
pub(crate) fn start(test: &str) -> Option<Forge> {
    Forge::start(TOKEN).map_err(|error| println!("SKIP {test}: {error}")).ok()
}

/// Changes a published repository with a script that runs in it.
pub(crate) fn change(forge: &Forge, path: &str, script: &str) -> String {
    served::run(&forge.served(path), "sh", &["-ec", script]).unwrap()
}

/// Where repositories of a real server are, for looks at what must not be there.
pub(crate) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found
}
