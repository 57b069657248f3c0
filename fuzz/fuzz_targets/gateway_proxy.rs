//! A proxy's client: its requests are framed and read without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| gateway::fuzz::proxy(bytes));
