//! The table of operations: what each requires of its caller, and which problems it may answer with.
//!
//! A route cannot be made without a row here ([`crate::router`]), the document is completed from it
//! ([`crate::openapi`]), and [`crate::gate`] enforces it before a handler sees the request.

use wire::{ErrorCode, Scope};

/// What an operation requires of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Public,
    /// No identity: the request itself is signed.
    Signature,
    /// An identity that has this scope.
    Scope(Scope),
}

/// How long an operation may take until its answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// The deployment's limit.
    Ordinary,
    /// The deployment's limit on top of the longest wait that a caller may ask for.
    LongPoll,
    /// As long as what it runs, which has limits of its own.
    Turn,
    /// As long as its body takes, whose pace is bounded where it is read; and the deployment's limit for the rest.
    Upload,
}

macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $access:expr, $patience:ident, [$($code:ident),*];)+) => {
        /// An operation of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $variant,)+
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its `operationId`.
            pub fn id(self) -> &'static str {
                match self { $(Self::$variant => $id,)+ }
            }

            /// What it requires of its caller.
            pub fn access(self) -> Access {
                match self { $(Self::$variant => $access,)+ }
            }

            pub(crate) fn patience(self) -> Patience {
                match self { $(Self::$variant => Patience::$patience,)+ }
            }

            /// Problems that only this operation has, beside those of its kind of access.
            fn own_problems(self) -> &'static [ErrorCode] {
                match self { $(Self::$variant => &[$(ErrorCode::$code),*],)+ }
            }
        }
    };
}

const READ: Access = Access::Scope(Scope::SessionsRead);
const WRITE: Access = Access::Scope(Scope::SessionsWrite);
const BINDINGS_READ: Access = Access::Scope(Scope::BindingsRead);
const BINDINGS_WRITE: Access = Access::Scope(Scope::BindingsWrite);
const TRIGGERS_READ: Access = Access::Scope(Scope::TriggersRead);
const TRIGGERS_WRITE: Access = Access::Scope(Scope::TriggersWrite);
const KEYS_READ: Access = Access::Scope(Scope::KeysRead);
const KEYS_WRITE: Access = Access::Scope(Scope::KeysWrite);
const AUDIT: Access = Access::Scope(Scope::AuditRead);

operations! {
    /// `GET /healthz`
    GetHealth = "getHealth", Access::Public, Ordinary, [];
    /// `GET /readyz`
    GetReadiness = "getReadiness", Access::Public, Ordinary, [];
    /// `GET /openapi.json`
    GetOpenApi = "getOpenApi", Access::Public, Ordinary, [];
    /// `GET /docs`
    GetDocs = "getDocs", Access::Public, Ordinary, [];
    /// `GET /v1/backends`
    ListBackends = "listBackends", READ, Ordinary, [];
    /// `POST /v1/sessions`
    CreateSession = "createSession", WRITE, Ordinary,
        [MalformedJson, IdempotencyConflict, BodyTooLarge, UnsupportedMediaType, NotEnforceable, NotSupported, Busy];
    /// `GET /v1/sessions`
    ListSessions = "listSessions", READ, Ordinary, [];
    /// `GET /v1/sessions/{id}`
    GetSession = "getSession", READ, Ordinary, [NotFound];
    /// `DELETE /v1/sessions/{id}`
    DeleteSession = "deleteSession", WRITE, Ordinary, [NotFound];
    /// `GET /v1/sessions/{id}/result`
    GetSessionResult = "getSessionResult", READ, LongPoll, [NotFound, NotFinished];
    /// `GET /v1/sessions/{id}/stream`
    StreamSession = "streamSession", READ, Ordinary, [NotFound];
    /// `GET /v1/sessions/{id}/audit`
    GetSessionAudit = "getSessionAudit", AUDIT, Ordinary, [NotFound];
    /// `POST /v1/sessions/{id}/turns`
    CreateTurn = "createTurn", WRITE, Turn,
        [MalformedJson, NotFound, WrongState, TurnQueueFull, BodyTooLarge, UnsupportedMediaType];
    /// `GET /v1/sessions/{id}/turns`
    ListTurns = "listTurns", READ, Ordinary, [NotFound];
    /// `GET /v1/sessions/{id}/turns/{number}`
    GetTurn = "getTurn", READ, LongPoll, [NotFound];
    /// `POST /v1/sessions/{id}/turns/{number}/interrupt`
    InterruptTurn = "interruptTurn", WRITE, Ordinary, [NotFound];
    /// `POST /v1/fleets`
    CreateFleet = "createFleet", WRITE, Ordinary,
        [MalformedJson, IdempotencyConflict, BodyTooLarge, UnsupportedMediaType, NotEnforceable, NotSupported, Busy];
    /// `GET /v1/fleets`
    ListFleets = "listFleets", READ, Ordinary, [];
    /// `GET /v1/fleets/{id}`
    GetFleet = "getFleet", READ, Ordinary, [NotFound];
    /// `DELETE /v1/fleets/{id}`
    DeleteFleet = "deleteFleet", WRITE, Ordinary, [NotFound];
    /// `GET /v1/fleets/{id}/members`
    ListFleetMembers = "listFleetMembers", READ, Ordinary, [NotFound];
    /// `GET /v1/fleets/{id}/results`
    GetFleetResults = "getFleetResults", READ, Ordinary, [NotFound];
    /// `GET /v1/fleets/{id}/stream`
    StreamFleet = "streamFleet", READ, Ordinary, [NotFound];
    /// `GET /v1/sessions/{id}/files`
    ListFiles = "listFiles", READ, Ordinary, [NotFound, WrongState, NotAFile];
    /// `GET /v1/sessions/{id}/files/{path}`
    ReadFile = "readFile", READ, Ordinary, [NotFound, WrongState, NotAFile, DiskExceeded, RangeNotSatisfiable, Busy];
    /// `PUT /v1/sessions/{id}/files/{path}`
    WriteFile = "writeFile", WRITE, Upload,
        [DigestMismatch, NotFound, WrongState, NotAFile, DiskExceeded, UnsupportedMediaType, Busy];
    /// `DELETE /v1/sessions/{id}/files/{path}`
    DeleteFile = "deleteFile", WRITE, Ordinary, [NotFound, WrongState, NotAFile];
    /// `POST /v1/sessions/{id}/terminals`
    CreateTerminal = "createTerminal", WRITE, Ordinary,
        [MalformedJson, NotFound, WrongState, TooManyTerminals, BodyTooLarge, UnsupportedMediaType];
    /// `GET /v1/sessions/{id}/terminals`
    ListTerminals = "listTerminals", READ, Ordinary, [NotFound, WrongState];
    /// `GET /v1/sessions/{id}/terminals/{terminal}`
    GetTerminal = "getTerminal", READ, Ordinary, [NotFound, WrongState, TooManyTerminals];
    /// `DELETE /v1/sessions/{id}/terminals/{terminal}`
    DeleteTerminal = "deleteTerminal", WRITE, Ordinary, [NotFound, WrongState];
    /// `GET /v1/sessions/{id}/artifacts`
    ListArtifacts = "listArtifacts", READ, Ordinary, [NotFound];
    /// `GET /v1/sessions/{id}/artifacts/{path}`
    GetArtifact = "getArtifact", READ, Ordinary, [NotFound, RangeNotSatisfiable];
    /// `POST /v1/bindings`
    CreateBinding = "createBinding", BINDINGS_WRITE, Ordinary,
        [MalformedJson, Conflict, BodyTooLarge, UnsupportedMediaType];
    /// `GET /v1/bindings`
    ListBindings = "listBindings", BINDINGS_READ, Ordinary, [];
    /// `GET /v1/bindings/{id}`
    GetBinding = "getBinding", BINDINGS_READ, Ordinary, [NotFound];
    /// `PATCH /v1/bindings/{id}`
    UpdateBinding = "updateBinding", BINDINGS_WRITE, Ordinary,
        [MalformedJson, NotFound, BodyTooLarge, UnsupportedMediaType];
    /// `DELETE /v1/bindings/{id}`
    DeleteBinding = "deleteBinding", BINDINGS_WRITE, Ordinary, [NotFound];
    /// `PUT /v1/bindings/{id}/secret`
    RotateBinding = "rotateBinding", BINDINGS_WRITE, Ordinary,
        [MalformedJson, NotFound, BodyTooLarge, UnsupportedMediaType];
    /// `GET /v1/webhooks/deliveries`
    ListDeliveries = "listDeliveries", READ, Ordinary, [];
    /// `POST /v1/webhooks/deliveries/{id}/retry`
    RetryDelivery = "retryDelivery", WRITE, Ordinary, [NotFound];
    /// `GET /v1/webhooks/secret`
    GetWebhookSecret = "getWebhookSecret", KEYS_READ, Ordinary, [];
    /// `POST /v1/webhooks/secret`
    RotateWebhookSecret = "rotateWebhookSecret", KEYS_WRITE, Ordinary, [];
    /// `POST /v1/triggers`
    CreateTrigger = "createTrigger", TRIGGERS_WRITE, Ordinary,
        [MalformedJson, Conflict, BodyTooLarge, UnsupportedMediaType, NotEnforceable, NotSupported];
    /// `GET /v1/triggers`
    ListTriggers = "listTriggers", TRIGGERS_READ, Ordinary, [];
    /// `GET /v1/triggers/{id}`
    GetTrigger = "getTrigger", TRIGGERS_READ, Ordinary, [NotFound];
    /// `PATCH /v1/triggers/{id}`
    UpdateTrigger = "updateTrigger", TRIGGERS_WRITE, Ordinary,
        [MalformedJson, NotFound, BodyTooLarge, UnsupportedMediaType, NotEnforceable, NotSupported];
    /// `DELETE /v1/triggers/{id}`
    DeleteTrigger = "deleteTrigger", TRIGGERS_WRITE, Ordinary, [NotFound];
    /// `GET /v1/triggers/{id}/runs`
    GetTriggerRuns = "getTriggerRuns", TRIGGERS_READ, Ordinary, [NotFound];
    /// `POST /v1/triggers/{id}/fire`
    FireTrigger = "fireTrigger", TRIGGERS_WRITE, Ordinary, [NotFound, Busy];
    /// `POST /v1/triggers/{id}/secret`
    RotateTriggerSecret = "rotateTriggerSecret", TRIGGERS_WRITE, Ordinary, [NotFound, WrongState];
    /// `POST /v1/hooks/{id}`
    CallHook = "callHook", Access::Signature, Ordinary, [InvalidRequest, BodyTooLarge, WrongState, Replayed, Busy];
}

impl Operation {
    /// Every problem that this operation may answer with, in the order of their statuses.
    pub fn problems(self) -> Vec<ErrorCode> {
        // A web page is refused everywhere, public operations included, where calls need no identity.
        let mut codes = vec![ErrorCode::Forbidden, ErrorCode::Internal, ErrorCode::Timeout];
        match self.access() {
            Access::Public => {}
            Access::Signature => codes.extend([ErrorCode::Unauthenticated, ErrorCode::Unavailable]),
            Access::Scope(_) => {
                codes.extend([ErrorCode::InvalidRequest, ErrorCode::Unauthenticated, ErrorCode::Unavailable]);
            }
        }
        codes.extend(self.own_problems());
        codes.sort_by_key(|code| code.status());
        codes
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_operations_share_an_id() {
        let ids: BTreeSet<_> = Operation::ALL.iter().map(|operation| operation.id()).collect();
        assert_eq!(ids.len(), Operation::ALL.len());
    }

    #[test]
    fn nothing_below_v1_is_public() {
        let public: Vec<_> =
            Operation::ALL.iter().filter(|operation| operation.access() == Access::Public).map(|o| o.id()).collect();
        assert_eq!(public, ["getHealth", "getReadiness", "getOpenApi", "getDocs"]);
    }
}
