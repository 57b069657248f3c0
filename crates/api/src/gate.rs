//! What stands before every handler: how long it may take, who is asking, and whether they may.
//!
//! One gate is made per route and knows its operation, so no handler can be reached around the table in
//! [`crate::access`]. The body is not touched before the caller is known and allowed.

use std::{panic::AssertUnwindSafe, str::FromStr, time::Duration};

use axum::{
    extract::{FromRequestParts, Path, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use http::{HeaderMap, header, request::Parts};
use model::access::{Caller, Subject};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::error::Elapsed;
use wire::{BindingId, DeliveryId, ErrorCode, FleetId, Scope, SessionId, TriggerId};

use crate::{
    access::{Access, Operation, Patience},
    failure::Failure,
    routes::sessions::result::MAX_WAIT,
    state::App,
};

/// The longest that a body may take whose pace is bounded where it is read.
const MAX_UPLOAD: Duration = Duration::from_hours(6);

/// The gate of one operation.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) app: App,
    pub(crate) operation: Operation,
}

pub(crate) async fn gate(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let operation = gate.operation;
    let limit = gate.limit();
    let work = AssertUnwindSafe(gate.pass(request, next)).catch_unwind();
    let mut response = match within(limit, work).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(failure))) => failure.into_response(),
        // The panic hook has written where it was; what it carried may hold anything, and goes nowhere.
        Ok(Err(_panic)) => Failure::internal().into_response(),
        Err(_elapsed) => Failure::timeout().into_response(),
    };
    response.extensions_mut().insert(operation);
    response
}

/// What comes of it in time; of what has no limit, whenever that is.
async fn within<T>(limit: Option<Duration>, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    match limit {
        Some(limit) => tokio::time::timeout(limit, work).await,
        None => Ok(work.await),
    }
}

impl Gate {
    fn limit(&self) -> Option<Duration> {
        let ordinary = self.app.settings().request_timeout;
        match self.operation.patience() {
            Patience::Ordinary => Some(ordinary),
            Patience::LongPoll => Some(ordinary.saturating_add(MAX_WAIT)),
            Patience::Turn => None,
            Patience::Upload => Some(ordinary.saturating_add(MAX_UPLOAD)),
        }
    }

    async fn pass(self, mut request: Request, next: Next) -> Result<Response, Failure> {
        match self.operation.access() {
            // The handler checks the signature: it is over the body.
            Access::Public | Access::Signature => {}
            Access::Scope(scope) => {
                let presented = bearer(request.headers())?;
                let caller = identify(&self.app, presented).await?;
                if !caller.allows(scope) {
                    self.app.engine().note_denied(&caller, self.operation.id()).await;
                    return Err(not_allowed(&caller, scope));
                }
                request.extensions_mut().insert(Identity { caller, scope });
            }
        }
        Ok(next.run(request).await)
    }
}

/// Who presents this. A call without a key is somebody only where the deployment said so to both the engine and the API.
async fn identify(app: &App, presented: Option<&str>) -> Result<Caller, Failure> {
    let caller = app.engine().authenticate(presented).await?;
    match caller.subject {
        Subject::Key(_) => Ok(caller),
        // Triggers call nobody.
        Subject::Dev | Subject::Operator if app.settings().profile_is_dev => Ok(caller),
        Subject::Trigger(_) | Subject::Dev | Subject::Operator => Err(engine::AuthError::Missing.into()),
    }
}

fn not_allowed(caller: &Caller, scope: Scope) -> Failure {
    let narrowed =
        if model::access::role_allows(caller.role, scope) { ", and this key was narrowed to others" } else { "" };
    let detail = format!("this requires the scope {scope}; the caller's role is {}{narrowed}", caller.role);
    Failure::new(ErrorCode::Forbidden, detail)
}

/// The token of `Authorization: Bearer …`. A header that is there and says anything else is refused, never ignored.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Failure> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.split_once(' ')).and_then(|(scheme, rest)| {
        let token = rest.trim_start_matches(' ');
        let whole = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        (scheme.eq_ignore_ascii_case("bearer") && whole).then_some(token)
    });
    match (token, values.next()) {
        (Some(token), None) => Ok(Some(token)),
        (None, _) | (Some(_), Some(_)) => Err(Failure::invalid_key()),
    }
}

/// The caller of a protected operation. Only a [`gate`] puts it into a request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) caller: Caller,
    scope: Scope,
}

impl FromRequestParts<App> for Identity {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Failure> {
        parts.extensions.remove::<Self>().ok_or_else(Failure::internal)
    }
}

/// A caller whose call stays open, and what it takes to ask again whether they may make it.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) caller: Caller,
    scope: Scope,
    presented: Option<SecretString>,
    app: App,
}

impl FromRequestParts<App> for Standing {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Identity { caller, scope } = Identity::from_request_parts(parts, app).await?;
        let presented = bearer(&parts.headers)?.map(SecretString::from);
        Ok(Self { caller, scope, presented, app: app.clone() })
    }
}

impl Standing {
    /// The same caller, if they may also do what takes this scope, for as long as they stay.
    pub(crate) async fn raised(self, scope: Scope, operation: Operation) -> Result<Self, Failure> {
        if self.caller.allows(scope) {
            return Ok(Self { scope, ..self });
        }
        self.app.engine().note_denied(&self.caller, operation.id()).await;
        Err(not_allowed(&self.caller, scope))
    }

    /// Fails when the key was revoked or narrowed since, and when nobody can say.
    pub(crate) async fn check(&self) -> Result<(), Failure> {
        let presented = self.presented.as_ref().map(ExposeSecret::expose_secret);
        let now = identify(&self.app, presented).await?;
        if now.org == self.caller.org && now.allows(self.scope) {
            return Ok(());
        }
        Err(not_allowed(&now, self.scope))
    }
}

/// The id in the path. Whatever is none is that of something that does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id<T>(pub(crate) T);

impl<T: InPath> FromRequestParts<App> for Id<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, app).await.map_err(|_| T::absent())?;
        text.parse().map(Self).map_err(|_| T::absent())
    }
}

/// What an [`Id`] is of.
pub(crate) trait InPath: FromStr {
    /// There is none.
    fn absent() -> Failure;
}

impl InPath for SessionId {
    fn absent() -> Failure {
        Failure::not_found()
    }
}

impl InPath for BindingId {
    fn absent() -> Failure {
        Failure::no_binding()
    }
}

impl InPath for FleetId {
    fn absent() -> Failure {
        Failure::no_fleet()
    }
}

impl InPath for TriggerId {
    fn absent() -> Failure {
        Failure::no_trigger()
    }
}

impl InPath for DeliveryId {
    fn absent() -> Failure {
        Failure::no_delivery()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(values: &[&[u8]]) -> Result<Option<String>, ()> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        bearer(&headers).map(|token| token.map(ToOwned::to_owned)).map_err(|_| ())
    }

    #[test]
    fn the_scheme_is_read_in_any_case() {
        for value in ["Bearer ek_1", "bearer ek_1", "BEARER   ek_1"] {
            assert_eq!(read(&[value.as_bytes()]), Ok(Some("ek_1".into())));
        }
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn a_header_that_is_not_a_bearer_token_is_refused_and_not_ignored() {
        for value in ["", "Bearer", "Bearer ", "ek_1", "Basic ek_1", "Bearer ek_1 ek_2", "Bearer a\tb", " Bearer ek_1"]
        {
            assert_eq!(read(&[value.as_bytes()]), Err(()), "{value:?}");
        }
        assert_eq!(read(&[b"Bearer \xff"]), Err(()));
        assert_eq!(read(&[b"Bearer ek_1", b"Bearer ek_1"]), Err(()));
    }
}
