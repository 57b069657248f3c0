//! Content of files: what comes in, at the pace of who sends it, and what goes out, which is never more than a download.

use std::time::Duration;

use axum::{body::Body, response::Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use engine::{Digest, FileError};
use futures::{Stream, TryStreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};
use wire::FieldError;

/// RFC 9530.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// Bytes a second below which a transfer is given up, whichever way: a slow client must not hold for ever what others
/// wait for.
const LEAST_PACE: u64 = 16 * 1024;

/// How long a transfer may take for what it has moved.
#[derive(Clone, Copy, Debug)]
struct Pace {
    began: Instant,
    /// How long nothing at all may move.
    stall: Duration,
    bytes: u64,
}

impl Pace {
    fn new(stall: Duration) -> Self {
        Self { began: Instant::now(), stall, bytes: 0 }
    }

    /// By when the next piece has to move.
    fn until(&self) -> Instant {
        let earned = Duration::from_secs(self.bytes / LEAST_PACE);
        (Instant::now() + self.stall).min(self.began + self.stall + earned)
    }
}

/// A body as it comes in. Slow ones and those that break off end with an error.
pub(crate) fn incoming(body: Body, stall: Duration) -> impl Stream<Item = Result<Bytes, FileError>> {
    stream::try_unfold((body, Pace::new(stall)), |(mut body, mut pace)| async move {
        loop {
            match timeout_at(pace.until(), body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    pace.bytes = pace.bytes.saturating_add(data.len() as u64);
                    return Ok(Some((data, (body, pace))));
                }
                Ok(Some(Err(_))) => return Err(FileError::BrokenOff),
                Ok(None) => return Ok(None),
                Err(_) => return Err(FileError::Slow),
            }
        }
    })
}

/// A body as it goes out; readers that are slow beyond measure are left with half of it.
pub(crate) fn outgoing<E>(content: impl Stream<Item = Result<Bytes, E>> + Send + 'static, stall: Duration) -> Body
where
    E: Into<axum::BoxError> + 'static,
{
    let mut pace = Pace::new(stall);
    Body::from_stream(content.map_err(Into::into).and_then(move |piece| {
        let late = Instant::now() > pace.began + pace.stall + Duration::from_secs(pace.bytes / LEAST_PACE);
        pace.bytes = pace.bytes.saturating_add(piece.len() as u64);
        std::future::ready(if late { Err(axum::BoxError::from("the reader is too slow")) } else { Ok(piece) })
    }))
}

/// The headers of somebody's file: bytes to be saved, whatever they look like.
pub(crate) fn as_download(response: &mut Response, bytes: u64) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
}

/// `Content-Digest` of a content.
pub(crate) fn content_digest(digest: &Digest) -> HeaderValue {
    HeaderValue::from_str(&format!("sha-256=:{}:", STANDARD.encode(digest))).expect("base64 is visible")
}

/// The SHA-256 that a caller says the content has. Other algorithms may stand beside it.
pub(crate) fn announced_digest(headers: &HeaderMap, faults: &mut Vec<FieldError>) -> Option<Digest> {
    let mut found = None;
    let mut members = 0;
    for value in headers.get_all(CONTENT_DIGEST) {
        for member in value.to_str().unwrap_or("?").split(',').map(str::trim) {
            members += 1;
            let Some(encoded) = member.strip_prefix("sha-256=:").and_then(|rest| rest.strip_suffix(':')) else {
                continue;
            };
            found = STANDARD.decode(encoded).ok().and_then(|bytes| Digest::try_from(bytes).ok());
        }
    }
    if members > 0 && found.is_none() {
        faults.push(FieldError::new("Content-Digest", "must have sha-256=:…:, with the base64 of 32 bytes"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Result<Option<Digest>, ()> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CONTENT_DIGEST, HeaderValue::from_static(value));
        }
        let mut faults = Vec::new();
        let found = announced_digest(&headers, &mut faults);
        if faults.is_empty() { Ok(found) } else { Err(()) }
    }

    #[test]
    fn the_digest_is_found_among_others_and_never_ignored() {
        let sha256 = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[sha256]), Ok(Some([0; 32])));
        assert_eq!(content_digest(&[0; 32]), sha256);
        let also = "sha-512=:AA==:, sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        assert_eq!(read(&[also]), Ok(Some([0; 32])));
        assert_eq!(read(&["sha-512=:AA==:", sha256]), Ok(Some([0; 32])));
        for wrong in ["", "sha-256", "sha-256=::", "sha-256=:AA==:", "sha-512=:AA==:", "sha-256=AAAA", "md5=:AA==:"] {
            assert_eq!(read(&[wrong]), Err(()), "{wrong}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_is_given_up() {
        let dripping = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Some((Ok::<_, axum::Error>(Bytes::from_static(b"x")), ()))
        });
        let began = Instant::now();
        let ended = incoming(Body::from_stream(dripping), Duration::from_mins(1)).try_collect::<Vec<_>>().await;
        assert!(matches!(ended, Err(FileError::Slow)), "{ended:?}");
        assert_eq!(began.elapsed(), Duration::from_mins(1));
        let silent = stream::pending::<Result<Bytes, axum::Error>>();
        let ended = incoming(Body::from_stream(silent), Duration::from_mins(1)).try_collect::<Vec<_>>().await;
        assert!(matches!(ended, Err(FileError::Slow)), "{ended:?}");
    }
}
