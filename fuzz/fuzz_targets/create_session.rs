//! A request body from a stranger: reading it and deciding on it never panics, and what is accepted keeps the rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{interactive, limits::CEILING, session::SessionSpec};
use wire::CreateSession;

fuzz_target!(|body: &[u8]| {
    let Ok((request, faults)) = CreateSession::parse(body) else { return };
    let bounds = &interactive::CEILING;
    let Ok(spec) = SessionSpec::decide(request, &[], faults, &CEILING, bounds, &["gvisor"]) else { return };
    let needs_code = spec.source.is_none() && spec.interactive.is_none();
    assert!((!needs_code || !spec.code.trim().is_empty()) && !spec.code.contains('\0'));
    assert!(spec.limits.memory_bytes <= CEILING.memory_bytes && spec.limits.pids <= CEILING.pids);
    assert!(spec.env.iter().all(|(name, value)| !name.starts_with("ENCLAVE_") && !value.contains('\0')));
    // What was accepted can be shown and read again.
    let shown = serde_json::to_vec(&spec.limits.view()).expect("limits are JSON");
    serde_json::from_slice::<wire::LimitsView>(&shown).expect("and read back");
});
