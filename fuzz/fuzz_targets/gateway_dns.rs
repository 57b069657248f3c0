//! A DNS message from a sandbox: whatever it is, its answer is a message, and short enough for UDP.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| gateway::fuzz::dns(bytes));
