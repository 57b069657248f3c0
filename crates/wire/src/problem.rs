//! Errors as RFC 9457 problem documents.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What went wrong, for programs. Closed: a client may match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body is not JSON, or not JSON that is safe to read (duplicate keys, too deep). 400.
    MalformedJson,
    /// The request was read, and one or more fields are wrong; `errors` lists all of them. 400.
    InvalidRequest,
    /// The content has another digest than `Content-Digest` says; nothing of it was kept. 400.
    DigestMismatch,
    /// No identity, or one that is not valid. 401.
    Unauthenticated,
    /// The identity is known and may not do this. 403.
    Forbidden,
    /// It does not exist, or it belongs to another org. 404.
    NotFound,
    /// The path exists, the method does not. 405.
    MethodNotAllowed,
    /// The session has not finished yet. 409.
    NotFinished,
    /// The same `Idempotency-Key` came with another body. 409.
    IdempotencyConflict,
    /// The object is in a state in which this cannot be done. 409.
    WrongState,
    /// There is something of that name already. 409.
    Conflict,
    /// The session has as many turns waiting as it may have. 409.
    TurnQueueFull,
    /// The session has as many terminals as it may have, or the terminal as many clients. 409.
    TooManyTerminals,
    /// A signed call with this id was taken already. 409.
    Replayed,
    /// It is no regular file, or no directory where one is needed. Links are neither. 409.
    NotAFile,
    /// The body is larger than this server takes. 413.
    BodyTooLarge,
    /// The file does not fit within the session's `diskBytes`, or claims more than that. 413.
    DiskExceeded,
    /// The body is of another type than the operation takes, or is encoded. 415.
    UnsupportedMediaType,
    /// The range begins behind the end. 416.
    RangeNotSatisfiable,
    /// The deployment's backend cannot enforce what was asked for. 422.
    NotEnforceable,
    /// The request asks for a part of the contract that this deployment does not offer. 422.
    NotSupported,
    /// Too many sessions or transfers are waiting already; `Retry-After` says when to come again. 429.
    Busy,
    /// A fault of ours; the log has it under the request id. 500.
    Internal,
    /// The request took longer than this server allows. 503.
    Timeout,
    /// The server is shutting down, or a part that it needs is not there. 503.
    Unavailable,
}

impl ErrorCode {
    /// The HTTP status that goes with the code; one code always has the same one.
    pub fn status(self) -> u16 {
        match self {
            Self::MalformedJson | Self::InvalidRequest | Self::DigestMismatch => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::NotFinished
            | Self::IdempotencyConflict
            | Self::WrongState
            | Self::Conflict
            | Self::TurnQueueFull
            | Self::TooManyTerminals
            | Self::Replayed
            | Self::NotAFile => 409,
            Self::BodyTooLarge | Self::DiskExceeded => 413,
            Self::UnsupportedMediaType => 415,
            Self::RangeNotSatisfiable => 416,
            Self::NotEnforceable | Self::NotSupported => 422,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::Timeout | Self::Unavailable => 503,
        }
    }

    /// The `title`: the same sentence for every problem of this code.
    pub fn title(self) -> &'static str {
        match self {
            Self::MalformedJson => "The body is not acceptable JSON",
            Self::InvalidRequest => "The request is not valid",
            Self::DigestMismatch => "The content is not what its digest says",
            Self::Unauthenticated => "Authentication is required",
            Self::Forbidden => "Not allowed",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::NotFinished => "The session has not finished",
            Self::IdempotencyConflict => "The idempotency key was used for another request",
            Self::WrongState => "Wrong state",
            Self::Conflict => "The name is taken",
            Self::TurnQueueFull => "Too many turns are waiting",
            Self::TooManyTerminals => "Too many terminals",
            Self::Replayed => "The call was taken already",
            Self::NotAFile => "Not a regular file",
            Self::BodyTooLarge => "The body is too large",
            Self::DiskExceeded => "The file does not fit on the session's disk",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::RangeNotSatisfiable => "The range begins behind the end",
            Self::NotEnforceable => "The policy cannot be enforced here",
            Self::NotSupported => "Not offered by this deployment",
            Self::Busy => "Too many are waiting",
            Self::Internal => "Internal error",
            Self::Timeout => "The request took too long",
            Self::Unavailable => "Temporarily unavailable",
        }
    }

    /// The code as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::InvalidRequest => "invalid_request",
            Self::DigestMismatch => "digest_mismatch",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NotFinished => "not_finished",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::WrongState => "wrong_state",
            Self::Conflict => "conflict",
            Self::TurnQueueFull => "turn_queue_full",
            Self::TooManyTerminals => "too_many_terminals",
            Self::Replayed => "replayed",
            Self::NotAFile => "not_a_file",
            Self::BodyTooLarge => "body_too_large",
            Self::DiskExceeded => "disk_exceeded",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::RangeNotSatisfiable => "range_not_satisfiable",
            Self::NotEnforceable => "not_enforceable",
            Self::NotSupported => "not_supported",
            Self::Busy => "busy",
            Self::Internal => "internal",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
        }
    }
}

/// One field of a request, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FieldError {
    /// Path of the field: `limits.cpu`, `files[2].path`; `(body)` for the whole.
    #[schema(example = "limits.memoryBytes")]
    pub field: String,
    /// What is wrong, in words.
    #[schema(example = "must be at most 17179869184")]
    pub message: String,
}

impl FieldError {
    /// Pairs a path with what is wrong there.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The same fault, of something that stands at `path` in a larger whole.
    #[must_use]
    pub fn under(self, path: &str) -> Self {
        let field = if self.field == "(body)" { path.to_owned() } else { format!("{path}.{}", self.field) };
        Self { field, message: self.message }
    }
}

/// An error, `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// `urn:enclave:problem:<code>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:enclave:problem:not_found")]
    pub kind: String,
    /// The same for every problem of this code.
    pub title: String,
    /// The HTTP status, repeated.
    pub status: u16,
    /// What happened this time, in words that help the caller.
    pub detail: String,
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// Id of the request, as in the `x-request-id` header and in the server's log.
    pub request_id: String,
    /// Every fault of the request, for `invalid_request` and `not_enforceable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

impl Problem {
    /// A problem without a request id yet; the API layer adds that.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:enclave:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            detail: detail.into(),
            code,
            request_id: String::new(),
            errors: Vec::new(),
        }
    }

    /// Adds the list of faults.
    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }
}
