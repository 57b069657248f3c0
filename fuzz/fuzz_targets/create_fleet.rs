//! The body of a request for a fleet from a stranger: reading it and deciding on it never panics, and what is accepted
//! keeps the rules.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::{fleet::FleetSpec, limits::CEILING};
use wire::{CreateFleet, MAX_FLEET_MEMBERS};

fuzz_target!(|body: &[u8]| {
    let Ok((request, faults)) = CreateFleet::parse(body) else { return };
    let Ok(spec) = FleetSpec::decide(request, faults, &CEILING, &["gvisor"]) else { return };
    assert!((1..=MAX_FLEET_MEMBERS).contains(&spec.total()) && !spec.specs.is_empty());
    assert!(spec.specs.iter().all(|(_, member)| member.limits.memory_bytes <= CEILING.memory_bytes));
});
