//! The opening of a stream from a runner that may have been taken over: it is one or it is not, without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| gateway::fuzz::opening(bytes));
