//! What the gateway itself answers over HTTP: problem documents that say what was refused, why, and what would allow it.

use std::io;

use bytes::Bytes;
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::ext::ReasonPhrase;
use model::egress::{Reason, Refused};
use serde::Serialize;

/// The body of every answer.
pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// Longest reason phrase. Clients print the status line whole, and bound the header of an answer at 8 KiB or more.
const MAX_PHRASE_BYTES: usize = 400;

/// Like the API's problem documents; the codes are the gateway's own.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Problem<'a> {
    #[serde(rename = "type")]
    kind: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed_by: Option<&'a str>,
}

/// A refusal, for whoever reads bodies and for whoever reads only the status line (pip and curl show that).
pub(crate) fn problem(status: StatusCode, code: &'static str, refused: &Refused) -> Response<Body> {
    document(status, code, &refused.detail, Some(refused.reason), refused.allowed_by.as_deref())
}

/// Something that was not refused and yet did not go well.
pub(crate) fn failure(status: StatusCode, code: &'static str, detail: &str) -> Response<Body> {
    document(status, code, detail, None, None)
}

fn document(
    status: StatusCode,
    code: &'static str,
    detail: &str,
    reason: Option<Reason>,
    allowed_by: Option<&str>,
) -> Response<Body> {
    let title = code.replace('_', " ");
    let document = Problem {
        kind: format!("urn:enclave:problem:{code}"),
        title: &title,
        status: status.as_u16(),
        detail,
        code,
        reason: reason.map(Reason::as_str),
        allowed_by,
    };
    let text = serde_json::to_vec(&document).expect("strings and a number have a JSON form");
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    if let Ok(phrase) = ReasonPhrase::try_from(phrase(&title, detail, allowed_by)) {
        response.extensions_mut().insert(phrase);
    }
    response
}

/// A body that is there already.
pub(crate) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// The status line's words: printable ASCII, and short.
fn phrase(title: &str, detail: &str, allowed_by: Option<&str>) -> Vec<u8> {
    let allow = allowed_by.map(|rule| format!("; allow {rule}")).unwrap_or_default();
    let text = format!("{title}: {detail}{allow}");
    let printable = |byte| if matches!(byte, b' '..=b'~') { byte } else { b'?' };
    text.bytes().map(printable).take(MAX_PHRASE_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(detail: &str) -> Refused {
        let allowed_by = Some(r#"{"domain":"pypi.test","ports":[443]}"#.to_owned());
        Refused { reason: Reason::NotAllowed, detail: detail.to_owned(), allowed_by }
    }

    #[tokio::test]
    async fn the_status_line_and_the_body_name_the_rule() {
        let answer =
            problem(StatusCode::FORBIDDEN, "egress_denied", &refused("no entry of egress.allow names pypi.test"));
        let phrase = answer.extensions().get::<ReasonPhrase>().unwrap().as_bytes();
        assert_eq!(
            std::str::from_utf8(phrase).unwrap(),
            r#"egress denied: no entry of egress.allow names pypi.test; allow {"domain":"pypi.test","ports":[443]}"#
        );
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&body).unwrap(),
            serde_json::json!({
                "type": "urn:enclave:problem:egress_denied",
                "title": "egress denied",
                "status": 403,
                "detail": "no entry of egress.allow names pypi.test",
                "code": "egress_denied",
                "reason": "not_allowed",
                "allowedBy": r#"{"domain":"pypi.test","ports":[443]}"#,
            })
        );
    }

    #[test]
    fn what_a_stranger_named_cannot_split_the_status_line() {
        let answer = problem(
            StatusCode::FORBIDDEN,
            "egress_denied",
            &refused(&format!("a\r\nSet-Cookie: x\u{7f}é{}", "y".repeat(1000))),
        );
        let phrase = answer.extensions().get::<ReasonPhrase>().unwrap().as_bytes();
        assert!(phrase.len() <= MAX_PHRASE_BYTES);
        assert!(phrase.iter().all(|byte| matches!(byte, b' '..=b'~')));
    }
}
