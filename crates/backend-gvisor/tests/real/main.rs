//! The backend against real gVisor sandboxes on this host. What a host lacks is a printed skip.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clone;
mod confinement;
mod conformance;
mod crash;
mod egress;
mod gateway;
mod honest;
mod lifecycle;
mod limits;
mod out;
mod stand_in;
mod support;
mod turns;
