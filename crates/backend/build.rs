//! Builds the runner as a static binary, for `payload.rs` to embed.
//!
//! A nested cargo with a target directory of its own: the runner needs other flags (static C runtime, size) than the
//! rest of the workspace, and cargo has no stable way to say so for one package.

use std::{env, fs, path::PathBuf, process::Command};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let target = env::var("TARGET").expect("cargo sets it");
    let root = manifest.join("../..");
    for watched in
        ["crates/runner/src", "crates/runner/hosts", "crates/runner/Cargo.toml", "crates/protocol", "Cargo.lock"]
    {
        println!("cargo:rerun-if-changed={}", root.join(watched).display());
    }

    let target_dir = out.join("runner-target");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(&root)
        .args(["build", "--quiet", "--locked", "--profile", "runner", "--package", "runner", "--target", &target])
        .arg("--target-dir")
        .arg(&target_dir)
        // System calls by way of libc, whose call sites gVisor replaces by a jump: see ADR 11.
        .env("RUSTFLAGS", "-C target-feature=+crt-static --cfg rustix_use_libc")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    // Clippy and coverage wrap rustc; the payload is a product and is built without them.
    for wrapper in ["RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        cargo.env_remove(wrapper);
    }
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "the runner does not build; see above");
    fs::copy(target_dir.join(&target).join("runner/enclave-runner"), out.join("enclave-runner"))
        .expect("copy the runner");
}
