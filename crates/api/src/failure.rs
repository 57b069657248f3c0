//! A request that is refused: the problem document, what goes into headers beside it, and the cause for the log alone.
//!
//! Handlers and layers return a [`Failure`]; [`crate::front`] writes it out, since only it knows the request's id.

mod files;
mod terminals;

use std::{error::Error, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use engine::{
    AuthError, BindingError, CancelError, CreateError, FireError, FleetListError, HookError, ListError, NotFired,
    ReadError, ResultError, StoreError, TriggerError, TurnError, TurnListError, WebhookSecretError,
};
use http::{HeaderName, HeaderValue, StatusCode, header};
use wire::{ErrorCode, FieldError, Problem};

/// Faults that a problem document lists; the rest is counted. A body of 2 MiB can have a million faults, and its answer
/// must not be larger than it.
pub(crate) const MAX_FAULTS: usize = 100;
const MAX_FIELD_CHARS: usize = 160;
const MAX_TEXT_CHARS: usize = 400;

type Cause = Arc<dyn Error + Send + Sync>;

/// Why a request is not served.
#[derive(Clone, Debug)]
pub(crate) struct Failure(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    problem: Problem,
    retry_after: Option<Duration>,
    header: Option<(HeaderName, HeaderValue)>,
    cause: Option<Cause>,
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        let problem = Problem::new(code, detail);
        Self(Box::new(Inner { problem, retry_after: None, header: None, cause: None }))
    }

    /// Fields or parameters are wrong.
    pub(crate) fn invalid(faults: Vec<FieldError>) -> Self {
        Self::listing(ErrorCode::InvalidRequest, "the request", faults)
    }

    pub(crate) fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such session")
    }

    pub(crate) fn no_turn() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such session, or it has no such turn")
    }

    /// A turn that could not be read.
    pub(crate) fn of_turn(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::no_turn(),
            ReadError::Store(cause) => Self::store(cause),
        }
    }

    pub(crate) fn no_fleet() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such fleet")
    }

    /// Why a fleet could not be read.
    pub(crate) fn of_fleet(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::no_fleet(),
            ReadError::Store(cause) => Self::store(cause),
        }
    }

    pub(crate) fn no_binding() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such binding")
    }

    pub(crate) fn no_trigger() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such trigger")
    }

    pub(crate) fn no_terminal() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such session, or it has no such terminal")
    }

    pub(crate) fn no_delivery() -> Self {
        Self::new(ErrorCode::NotFound, "there is no such delivery")
    }

    pub(crate) fn timeout() -> Self {
        Self::new(ErrorCode::Timeout, "the request took longer than this server allows")
    }

    /// A fault of ours; the log has it under the request's id.
    pub(crate) fn internal() -> Self {
        Self::new(ErrorCode::Internal, "the server failed; its log has the cause under this request's id")
    }

    /// The records behind the engine do not answer, or are not what they should be: then trying again is of no use.
    fn store(cause: StoreError) -> Self {
        let mut failure = if cause.may_pass() {
            Self::new(ErrorCode::Unavailable, "the server cannot reach its records; try again")
        } else {
            Self::internal()
        };
        failure.0.cause = Some(Arc::new(cause));
        failure
    }

    fn listing(code: ErrorCode, what: &str, faults: Vec<FieldError>) -> Self {
        let detail = match faults.len() {
            1 => format!("{what} has a fault"),
            count if count > MAX_FAULTS => format!("{what} has {count} faults; the first {MAX_FAULTS} are listed"),
            count => format!("{what} has {count} faults"),
        };
        let mut failure = Self::new(code, detail);
        failure.0.problem.errors = faults;
        failure
    }

    /// The log has this under the request's id.
    fn caused_by(mut self, cause: impl Error + Send + Sync + 'static) -> Self {
        self.0.cause = Some(Arc::new(cause));
        self
    }

    pub(crate) fn with_retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    pub(crate) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    pub(crate) fn cause(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.0.cause.as_deref()
    }

    /// Writes the problem document of the request with this id into `response`, which was made from this failure.
    pub(crate) fn render(mut self, request_id: &str, response: &mut Response) {
        let problem = &mut self.0.problem;
        request_id.clone_into(&mut problem.request_id);
        bound(&mut problem.detail, MAX_TEXT_CHARS);
        problem.errors.truncate(MAX_FAULTS);
        for fault in &mut problem.errors {
            bound(&mut fault.field, MAX_FIELD_CHARS);
            bound(&mut fault.message, MAX_TEXT_CHARS);
        }
        let body = serde_json::to_vec(problem).expect("problems have string keys only");
        *response.body_mut() = Body::from(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.remove(header::CONTENT_LENGTH);
        if let Some(wait) = self.0.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if let Some((name, value)) = self.0.header {
            headers.insert(name, value);
        }
    }
}

/// Keeps a text of the caller's short and printable.
fn bound(text: &mut String, chars: usize) {
    let control = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}');
    if text.chars().any(control) {
        *text = text.chars().map(|c| if control(c) { '\u{fffd}' } else { c }).collect();
    }
    if let Some((cut, _)) = text.char_indices().nth(chars) {
        text.truncate(cut);
        text.push('…');
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.0.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Missing => Self::unauthenticated(
                "this operation requires an API key: Authorization: Bearer ek_…",
                "Bearer realm=\"enclave\"",
            ),
            AuthError::Invalid => Self::invalid_key(),
            AuthError::Store(cause) => Self::store(cause),
        }
    }
}

impl Failure {
    /// What was presented is no key that works. Says nothing about why.
    pub(crate) fn invalid_key() -> Self {
        Self::unauthenticated("the API key is not valid", "Bearer realm=\"enclave\", error=\"invalid_token\"")
    }

    fn unauthenticated(detail: &str, challenge: &'static str) -> Self {
        Self::new(ErrorCode::Unauthenticated, detail)
            .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge))
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Invalid(faults) => Self::invalid(faults),
            CreateError::NotSupported(faults) => Self::listing(ErrorCode::NotSupported, "the request", faults),
            CreateError::NotEnforceable { backend, faults } => {
                Self::listing(ErrorCode::NotEnforceable, &format!("the policy, on backend {backend},"), faults)
            }
            CreateError::Busy { retry_after } => {
                Self::new(ErrorCode::Busy, "too many sessions are waiting; try again").with_retry_after(retry_after)
            }
            CreateError::Sealed { binding, source } => {
                let detail = format!("the secret of {binding} cannot be opened by this server; it has to be set again");
                let mut failure = Self::new(ErrorCode::Unavailable, detail);
                failure.0.cause = Some(Arc::new(source));
                failure
            }
            CreateError::NotFired(NotFired::Gone | NotFired::Taken | NotFired::Overlaps) => {
                Self::new(ErrorCode::WrongState, "the firing was not taken up")
            }
            CreateError::Draining => Self::new(ErrorCode::Unavailable, "the server is shutting down"),
            CreateError::IdempotencyConflict => Self::new(
                ErrorCode::IdempotencyConflict,
                "the Idempotency-Key was used for another request in the last 24 hours",
            ),
            CreateError::Store(cause) | CreateError::NotFired(NotFired::Store(cause)) => Self::store(cause),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NotFound => Self::not_found(),
            ReadError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<ListError> for Failure {
    fn from(error: ListError) -> Self {
        match error {
            ListError::BadCursor => Self::invalid(vec![FieldError::new("cursor", "is not a nextCursor of this list")]),
            ListError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<FleetListError> for Failure {
    fn from(error: FleetListError) -> Self {
        match error {
            FleetListError::NotFound => Self::no_fleet(),
            FleetListError::List(error) => error.into(),
        }
    }
}

impl From<ResultError> for Failure {
    fn from(error: ResultError) -> Self {
        match error {
            ResultError::NotFound => Self::not_found(),
            ResultError::NotFinished => {
                Self::new(ErrorCode::NotFinished, "the session has not finished; waitMs waits for it")
            }
            ResultError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<BindingError> for Failure {
    fn from(error: BindingError) -> Self {
        match error {
            BindingError::Invalid(faults) => Self::invalid(faults),
            BindingError::NameTaken => Self::new(ErrorCode::Conflict, "the org has a binding of this name"),
            BindingError::NotFound => Self::no_binding(),
            BindingError::Contended => {
                let detail = "the binding is being changed by others at the same time; try again";
                Self::new(ErrorCode::Unavailable, detail).with_retry_after(Duration::from_secs(1))
            }
            BindingError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<TriggerError> for Failure {
    fn from(error: TriggerError) -> Self {
        match error {
            TriggerError::Invalid(faults) => Self::invalid(faults),
            TriggerError::Session(refused) => refused.into(),
            TriggerError::NameTaken => Self::new(ErrorCode::Conflict, "the org has a trigger of this name"),
            TriggerError::NotFound => Self::no_trigger(),
            TriggerError::NoSecret => {
                Self::new(ErrorCode::WrongState, "the trigger is fired by a schedule, not by calls")
            }
            TriggerError::Contended => {
                let detail = "the trigger is being changed by others at the same time; try again";
                Self::new(ErrorCode::Unavailable, detail).with_retry_after(Duration::from_secs(1))
            }
            TriggerError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<FireError> for Failure {
    fn from(error: FireError) -> Self {
        match error {
            FireError::Gone => Self::no_trigger(),
            FireError::Taken | FireError::Overtaken => {
                Self::new(ErrorCode::Replayed, "a call with this webhook-id was taken already")
            }
            FireError::Later(refused) => refused.into(),
            FireError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<HookError> for Failure {
    fn from(error: HookError) -> Self {
        match error {
            // A trigger that went away in the middle is one that was never there.
            HookError::NotSigned | HookError::Fire(FireError::Gone) => {
                Self::new(ErrorCode::Unauthenticated, "the call is not signed for a trigger that takes calls")
            }
            HookError::Disabled => Self::new(ErrorCode::WrongState, "the trigger is paused"),
            HookError::Fire(error) => error.into(),
            HookError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<WebhookSecretError> for Failure {
    fn from(error: WebhookSecretError) -> Self {
        match error {
            WebhookSecretError::Contended => {
                let detail = "the secret is being replaced by others at the same time; try again";
                Self::new(ErrorCode::Unavailable, detail).with_retry_after(Duration::from_secs(1))
            }
            WebhookSecretError::Store(cause) => Self::store(cause),
        }
    }
}

impl From<TurnError> for Failure {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::Invalid(faults) => Self::invalid(faults),
            TurnError::WrongState(detail) => Self::new(ErrorCode::WrongState, detail),
            TurnError::QueueFull { waiting } => {
                let detail = format!("{waiting} turns are waiting already; try again when one has ended");
                Self::new(ErrorCode::TurnQueueFull, detail)
            }
            TurnError::Draining => Self::new(ErrorCode::Unavailable, "the server is shutting down"),
            TurnError::Unavailable => {
                Self::new(ErrorCode::Unavailable, "what became of the turn is not recorded; the session has ended")
            }
            TurnError::Read(error) => error.into(),
        }
    }
}

impl From<TurnListError> for Failure {
    fn from(error: TurnListError) -> Self {
        match error {
            TurnListError::Read(error) => error.into(),
            TurnListError::List(error) => error.into(),
        }
    }
}

impl From<CancelError> for Failure {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::NotFound => Self::not_found(),
            CancelError::Store(cause) => Self::store(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rendered(failure: Failure) -> (Response, String) {
        let mut response = failure.clone().into_response();
        failure.render("the-id", &mut response);
        let body = std::mem::take(response.body_mut());
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        (response, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn the_answer_to_a_million_faults_is_small_and_says_how_many_there_were() {
        let faults = (0..1_000_000).map(|n| FieldError::new(format!("args[{n}]"), "must be a string")).collect();
        let (_, body) = rendered(Failure::invalid(faults)).await;
        assert!(body.len() < 10_000, "{}", body.len());
        assert!(body.contains("1000000 faults; the first 100 are listed"));
    }

    #[tokio::test]
    async fn what_the_caller_sent_comes_back_short_and_printable() {
        let field = format!("a\u{0}\u{202e}{}", "é".repeat(1_000_000));
        let (_, body) = rendered(Failure::invalid(vec![FieldError::new(field.clone(), field)])).await;
        assert!(body.len() < 2000, "{}", body.len());
        assert!(body.contains("a\u{fffd}\u{fffd}é"));
    }

    #[tokio::test]
    async fn records_that_do_not_answer_are_asked_again_and_damaged_ones_are_not() {
        for (cause, status) in [
            (StoreError::Closed, 503),
            (StoreError::Tampered { seq: 7 }, 500),
            (StoreError::ForeignRecord, 500),
            (StoreError::Taken("ses_secret".into()), 500),
        ] {
            let failure = Failure::from(ReadError::Store(cause));
            assert!(failure.cause().is_some(), "the log has the cause");
            let (response, body) = rendered(failure).await;
            assert_eq!(response.status(), status);
            assert!(!body.contains("secret") && !body.contains("audit log"), "{body}");
        }
    }

    #[tokio::test]
    async fn a_secret_that_does_not_open_is_told_by_its_binding_and_the_log_has_why() {
        let binding = wire::BindingId::from_uuid(uuid::Uuid::nil());
        let source = engine::UnsealError::OtherKey { found: "aa".into(), own: "bb".into() };
        let failure = Failure::from(CreateError::from(engine::BoundError::Sealed { binding, source }));
        assert_eq!(failure.cause().unwrap().to_string(), "sealed under the key aa; this server has the key bb");
        let (response, body) = rendered(failure).await;
        assert_eq!(response.status(), 503);
        assert!(body.contains(&binding.to_string()) && !body.contains("key aa"), "{body}");
    }

    #[tokio::test]
    async fn a_refusal_that_may_be_retried_says_when_in_whole_seconds() {
        let (response, body) =
            rendered(Failure::from(CreateError::Busy { retry_after: Duration::from_millis(1200) })).await;
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(body.contains("\"requestId\":\"the-id\""));
    }
}
