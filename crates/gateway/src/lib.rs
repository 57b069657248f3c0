//! The only way out of a sandbox: a process of its own for each session, which decides, resolves, connects, adds secrets
//! and tells what it did.
//!
//! The backend starts it with two descriptors ([`run`]): the control socket to the server ([`model::gateway`]), and the
//! pipe to the session's runner ([`protocol::egress`]). What comes through the pipe is hostile, every byte of it; which
//! session it is of is known from the descriptor alone. A stream ends by itself when it says something that cannot be
//! read; it never ends another one.

mod activity;
mod answer;
#[doc(hidden)]
pub mod bindings;
mod captured;
mod control;
mod dns;
mod first;
#[doc(hidden)]
pub mod fuzz;
mod guard;
mod hop;
mod http_proxy;
mod metered;
mod outside;
mod own;
mod pins;
mod pipe;
mod protect;
mod relay;
mod run;
mod session;
mod socks;
mod tell;
mod tunnel;
mod way;

pub use run::{GatewayError, Options, run, serve};
pub use way::{Blocked, Way};
