//! Request bodies: JSON by name, read within the deployment's limits on size, on time, and on all bodies together.

use std::sync::Arc;

use axum::{body::Body, extract::Request};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use wire::{ErrorCode, FieldError, JsonError};

use crate::{
    failure::{Failure, MAX_FAULTS},
    query::Query,
    state::{App, BODY_UNIT},
};

/// A body that was read. Its bytes count against the budget as long as it is held.
#[derive(Debug, Default)]
pub(crate) struct Json {
    pub(crate) bytes: Vec<u8>,
    /// Gives the budget back when the request is decided.
    pub(crate) held: Option<OwnedSemaphorePermit>,
}

/// Reads the body, which must say that it is JSON. A body that is too large by its own account is not read at all.
pub(crate) async fn read_json(app: &App, headers: &HeaderMap, body: Body) -> Result<Json, Failure> {
    read_json_within(app, headers, body, app.settings().body_limit).await
}

/// The same, of an operation with a limit of its own.
pub(crate) async fn read_json_within(
    app: &App,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Json, Failure> {
    if !is_json(headers) {
        let detail = "the body must be application/json, in UTF-8, without a content encoding";
        return Err(Failure::new(ErrorCode::UnsupportedMediaType, detail));
    }
    read_bytes(app, app.bodies(), headers, body, limit).await
}

/// Reads a body of any kind, of at most so many bytes, which count against this budget.
pub(crate) async fn read_bytes(
    app: &App,
    budget: &Arc<Semaphore>,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
) -> Result<Json, Failure> {
    if announced(headers).is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large(limit));
    }
    let deadline = Instant::now() + app.settings().body_timeout;
    let mut json = Json::default();
    let mut body = body;
    loop {
        let frame = match tokio::time::timeout_at(deadline, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => return Ok(json),
            Ok(Some(Err(_))) => {
                return Err(Failure::invalid(vec![FieldError::new("(body)", "could not be read to its end")]));
            }
            Err(_) => return Err(Failure::new(ErrorCode::Timeout, "the body took too long to arrive")),
        };
        let Ok(data) = frame.into_data() else { continue };
        json.push(budget, &data, limit)?;
    }
}

fn too_large(limit: usize) -> Failure {
    Failure::new(ErrorCode::BodyTooLarge, format!("a body may have at most {limit} bytes"))
}

impl Json {
    /// Takes bytes in, up to the limit. What they need is only taken from the budget as they come, so that a client cannot hold what it
    /// has not sent, and nobody waits for it, so that bodies that are half read cannot wait for one another.
    pub(crate) fn push(&mut self, budget: &Arc<Semaphore>, data: &[u8], limit: usize) -> Result<(), Failure> {
        if data.len() > limit.saturating_sub(self.bytes.len()) {
            return Err(too_large(limit));
        }
        let holds = self.bytes.len().div_ceil(BODY_UNIT);
        let needs = (self.bytes.len() + data.len()).div_ceil(BODY_UNIT);
        let more = u32::try_from(needs - holds).unwrap_or(u32::MAX);
        if more > 0 {
            let permit = budget.clone().try_acquire_many_owned(more).map_err(|_| {
                Failure::new(ErrorCode::Unavailable, "too many request bodies are being read; try again")
                    .with_retry_after(std::time::Duration::from_secs(1))
            })?;
            match &mut self.held {
                Some(held) => held.merge(permit),
                None => self.held = Some(permit),
            }
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// Reads the bytes of a body: what could be read, beside every fault of shape.
pub(crate) type Parse<T> = fn(&[u8]) -> Result<(T, Vec<FieldError>), JsonError>;

/// What a body says, and every fault: those that are known already, then those of its shape.
pub(crate) fn parsed<T>(
    bytes: &[u8],
    mut faults: Vec<FieldError>,
    parse: Parse<T>,
) -> Result<(T, Vec<FieldError>), Failure> {
    let (what, shape) = parse(bytes)
        .map_err(|error| Failure::new(ErrorCode::MalformedJson, format!("the body cannot be read as JSON: {error}")))?;
    faults.extend(shape);
    if faults.len() > MAX_FAULTS {
        // More than will be told anyway: not worth deciding on the rest.
        return Err(Failure::invalid(faults));
    }
    Ok((what, faults))
}

/// What was read of a body, and what could not be.
pub(crate) struct Asked<T> {
    pub(crate) what: T,
    pub(crate) faults: Vec<FieldError>,
    /// Gives the budget of bodies back when the request is decided.
    _held: Option<OwnedSemaphorePermit>,
}

/// Reads a whole request. The bytes of its body, which may hold a secret, are wiped.
pub(crate) async fn read<T>(app: &App, query: Query, request: Request, parse: Parse<T>) -> Result<Asked<T>, Failure> {
    let (parts, body) = request.into_parts();
    let Json { mut bytes, held } = read_json(app, &parts.headers, body).await?;
    let parsed = parsed(&bytes, query.faults(), parse);
    model::secret::wipe(&mut bytes);
    let (what, faults) = parsed?;
    Ok(Asked { what, faults, _held: held })
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (types.next(), types.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let utf8 = parts.filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => {
            charset.trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        Some(_) => true,
        None => false,
    });
    json && utf8 && !headers.contains_key(header::CONTENT_ENCODING)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn verdict(pairs: &[(HeaderName, &str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        is_json(&headers)
    }

    #[test]
    fn only_utf8_json_is_json() {
        let content = header::CONTENT_TYPE;
        for value in ["application/json", "Application/JSON; charset=UTF-8", "application/json;charset=\"utf-8\";"] {
            assert!(verdict(&[(content.clone(), value)]), "{value}");
        }
        for value in [
            "",
            "text/plain",
            "text/json",
            "application/json+x",
            "application/jsonx",
            "application/json; charset=utf-16",
            "application/json; what",
            "multipart/form-data, application/json",
        ] {
            assert!(!verdict(&[(content.clone(), value)]), "{value}");
        }
        assert!(!verdict(&[]));
        assert!(!verdict(&[(content.clone(), "application/json"), (content.clone(), "application/json")]));
        assert!(!verdict(&[(content, "application/json"), (header::CONTENT_ENCODING, "gzip")]));
    }
}
