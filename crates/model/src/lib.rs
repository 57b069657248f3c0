//! The rules: what may be asked for, how a session moves through its life, who may do what, and how the audit log is
//! chained. Pure: no I/O, no clock and no randomness of its own; both come in as arguments.
//!
//! The contract's closed enums are re-exported from `wire`, so that there is one of each.

pub mod access;
pub mod audit;
pub mod binding;
pub mod capability;
pub mod egress;
pub mod fleet;
pub mod gateway;
pub mod interactive;
pub mod limits;
pub mod pattern;
pub mod phase;
pub mod secret;
pub mod session;
pub mod terminal;
pub mod trigger;
pub mod webhook;

pub use wire::{
    AuditEvent, AuditSource, AuditType, Enforcement, ExecMode, FaultCode, Isolation, KeyId, KillReason, Language,
    OrgId, Outcome, Phase, Role, Scope, SessionFault, SessionId, Timestamp, Usage,
};
