//! An answer of a service, in any pieces and codings: the secret never leaves, and nothing else is changed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| gateway::bindings::guard::prove(bytes));
