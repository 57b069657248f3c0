//! SOCKS5 from a sandbox, and the first bytes behind it, a ClientHello among them: read without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| gateway::fuzz::first(bytes));
