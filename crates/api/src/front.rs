//! The outermost layer: every request passes here first, and every answer last.
//!
//! It gives the request its id, keeps web pages out where calls need no identity, writes problem documents, adds the
//! headers that every answer has, counts, and logs one line. Nothing of the request's headers or body is ever logged.

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{access::Operation, browser, failure::Failure, state::App};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const JSON_CSP: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// What the metrics and the log call a request that reached no operation.
const UNMATCHED: &str = "unmatched";

pub(crate) async fn front(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    // The caller's own x-request-id is not taken over: it could be made to collide with another tenant's.
    let mut buffer = Uuid::encode_buffer();
    let id: &str = Uuid::new_v4().as_hyphenated().encode_lower(&mut buffer);
    let allowed = if app.settings().profile_is_dev {
        browser::refuse_web_pages(request.uri(), request.headers())
    } else {
        Ok(())
    };
    let mut response = match allowed {
        Ok(()) => next.run(request).await,
        Err(refused) => refused.into_response(),
    };
    let failure = response.extensions_mut().remove::<Failure>();
    if let Some(failure) = failure.clone() {
        failure.render(id, &mut response);
    }
    complete(response.headers_mut(), id);
    let operation = response.extensions().get::<Operation>().map_or(UNMATCHED, |operation| operation.id());
    note(operation, id, &response, started, failure.as_ref());
    response
}

/// Adds what every answer has, unless the handler decided otherwise.
fn complete(headers: &mut HeaderMap, id: &str) {
    let id = HeaderValue::from_str(id).expect("a UUID is visible ASCII");
    headers.insert(X_REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(JSON_CSP);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn note(operation: &'static str, id: &str, response: &Response, started: Instant, failure: Option<&Failure>) {
    let elapsed = started.elapsed();
    let status = response.status();
    metrics::counter!("http_requests_total", "operation" => operation, "status" => status.as_str().to_owned())
        .increment(1);
    metrics::histogram!("http_request_duration_seconds", "operation" => operation).record(elapsed.as_secs_f64());
    let ms = elapsed.as_secs_f64() * 1000.0;
    let status = status.as_u16();
    match failure.and_then(Failure::cause) {
        Some(cause) => {
            let cause: &dyn std::error::Error = cause;
            tracing::error!(request = id, operation, status, ms, error = %Chain(cause), "request failed");
        }
        None if status >= 500 => tracing::warn!(request = id, operation, status, ms, "request failed"),
        None if matches!(status, 401 | 403) => tracing::info!(request = id, operation, status, ms, "request refused"),
        None => tracing::debug!(request = id, operation, status, ms, "request"),
    }
}

/// An error with everything behind it, on one line.
struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
