//! The public contract: ids, closed enums, requests, views, stream frames and error codes.
//!
//! Everything that a user of Enclave can see is defined here, and OpenAPI is generated from it. JSON fields are
//! camelCase, enum values snake_case, times RFC 3339 UTC with milliseconds, durations end in `Ms`, sizes in `Bytes`.
//! The crate knows no rules beyond shapes: what a request may ask for is decided in `model`.

mod access;
mod audit;
mod backend;
mod binding;
mod file;
mod fleet;
mod frame;
mod id;
mod json;
mod json_text;
mod problem;
mod request;
mod session;
mod terminal;
mod time;
mod trigger;
mod turn;
mod webhook;

pub use access::{Role, Scope};
pub use audit::{AuditEvent, AuditPage, AuditSource, AuditType};
pub use backend::{BackendPage, BackendView, Health, HealthStatus, Isolation, Readiness, ReadyBackend};
pub use binding::{
    Binding, BindingAllow, BindingBudget, BindingKind, BindingPage, BindingSecret, BindingSpec, BindingUpstream,
    CreateBinding, UpdateBinding,
};
pub use file::{FileEntry, FileKind, FilePage, StoredFile};
pub use fleet::{
    Completion, CreateFleet, ENOUGH_FAULTS, Fleet, FleetBudget, FleetCounts, FleetEnd, FleetEndReason, FleetFrame,
    FleetMember, FleetMemberPage, FleetMembers, FleetPage, FleetPhase, FleetProgress, FleetResult, FleetResultPage,
    FleetTemplate, FleetUsage, MAX_FLEET_INPUT_BYTES, MAX_FLEET_MEMBERS, MemberPhase,
};
pub use frame::{Chunk, End, FrameKind, Gap, PhaseChange, StreamFrame};
pub use id::{BindingId, DeliveryId, FleetId, IdError, KeyId, OrgId, SessionId, TerminalId, TriggerId};
pub use json::{JsonError, MAX_JSON_DEPTH, Object, json_depth, parse_strict};
pub use json_text::JsonText;
pub use problem::{ErrorCode, FieldError, Problem};
pub use request::{
    CreateSession, Egress, EgressMode, EgressRule, EgressTarget, File, GitSource, Interactive, Limits, Source,
};
pub use session::{
    Artifact, ArtifactPage, Denial, Enforcement, ExecMode, FaultCode, InteractiveView, KillReason, Language,
    LimitsView, Outcome, Phase, Session, SessionFault, SessionPage, SessionResult, SkippedArtifact, SkippedBecause,
    Usage,
};
pub use terminal::{
    CreateTerminal, Terminal, TerminalAttached, TerminalControl, TerminalEvent, TerminalExit, TerminalGap,
    TerminalPage, TerminalSize, TerminalState,
};
pub use time::Timestamp;
pub use trigger::{
    CreateTrigger, FiringCause, FiringOutcome, Overlap, Trigger, TriggerKind, TriggerPage, TriggerRun, TriggerRuns,
    TriggerWithSecret, UpdateTrigger,
};
pub use turn::{CreateTurn, InterruptedBy, Turn, TurnChange, TurnError, TurnFrame, TurnPage, TurnStatus, TurnValue};
pub use webhook::{
    DeliveryPage, DeliveryStatus, RotatedWebhookSecret, SessionFinished, WebhookAttempt, WebhookDelivery, WebhookEvent,
    WebhookEventType, WebhookSecretView,
};
