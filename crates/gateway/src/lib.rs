//! The only way out of a sandbox: a process of its own for each session, which decides, resolves, connects, adds secrets
//! and tells what it did.

mod answer;
#[doc(hidden)]
pub mod bindings;
mod outside;
mod tell;
