//! The demo's git server, for tests.

#[path = "../../../src/demo/forge.rs"]
mod served;

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
