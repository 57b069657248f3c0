//! What a language host says of a turn. It is in the workload's hands: read strictly, and believed no more than the
//! workload is. What cannot be read makes the turn a failed one, and the session goes on.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::MAX_TURN_REPORT_BYTES;
use serde::Deserialize;
use serde_json::value::RawValue;
use wire::{JsonText, TurnError, TurnStatus, TurnValue};

use super::supervise::MAX_RESULT_DEPTH;

/// The first bytes of a PNG file.
const PNG: [u8; 8] = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n'];

/// How a turn ended, as far as can be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) status: TurnStatus,
    pub(super) value: Option<TurnValue>,
    pub(super) error: Option<TurnError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said<'a> {
    status: Status,
    #[serde(borrow, default)]
    value: Option<Forms<'a>>,
    #[serde(default)]
    error: Option<Raised>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Completed,
    Failed,
    Interrupted,
}

/// MIME types that this version does not know are passed over.
#[derive(Deserialize)]
struct Forms<'a> {
    #[serde(rename = "text/plain", default)]
    plain: Option<String>,
    #[serde(rename = "text/html", default)]
    html: Option<String>,
    #[serde(rename = "application/json", borrow, default)]
    json: Option<&'a RawValue>,
    #[serde(rename = "image/png", default)]
    png: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raised {
    name: String,
    value: String,
    traceback: String,
}

/// Why a report says nothing.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("it is larger than {MAX_TURN_REPORT_BYTES} bytes")]
    TooLarge,
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("its picture is not a PNG file in base64")]
    Picture,
}

impl Report {
    /// Reads it.
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self::try_read(bytes).unwrap_or_else(|why| Self {
            status: TurnStatus::Failed,
            value: None,
            error: Some(TurnError {
                name: "MalformedReport".into(),
                value: format!("what the language host said of the turn cannot be read: {why}"),
                traceback: String::new(),
            }),
        })
    }

    fn try_read(bytes: &[u8]) -> Result<Self, Unreadable> {
        if bytes.len() > MAX_TURN_REPORT_BYTES {
            return Err(Unreadable::TooLarge);
        }
        let said: Said<'_> = serde_json::from_slice(bytes)?;
        Ok(Self {
            status: match said.status {
                Status::Completed => TurnStatus::Completed,
                Status::Failed => TurnStatus::Failed,
                Status::Interrupted => TurnStatus::Interrupted,
            },
            value: said.value.map(value).transpose()?,
            error: said.error.map(|Raised { name, value, traceback }| TurnError { name, value, traceback }),
        })
    }
}

fn value(forms: Forms<'_>) -> Result<TurnValue, Unreadable> {
    let json = forms.json.map(|json| JsonText::parse(json.get().as_bytes(), MAX_RESULT_DEPTH)).transpose()?;
    if let Some(png) = &forms.png {
        let picture = STANDARD.decode(png).map_err(|_| Unreadable::Picture)?;
        if !picture.starts_with(&PNG) {
            return Err(Unreadable::Picture);
        }
    }
    Ok(TurnValue { plain: forms.plain, html: forms.html, json, png: forms.png })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(report: &serde_json::Value) -> Report {
        Report::read(report.to_string().as_bytes())
    }

    fn is_malformed(report: &serde_json::Value) -> bool {
        let read = read(report);
        read.status == TurnStatus::Failed && read.error.is_some_and(|error| error.name == "MalformedReport")
    }

    #[test]
    fn a_report_is_read_as_it_was_written_and_unknown_forms_are_passed_over() {
        let picture = STANDARD.encode([PNG.as_slice(), b"rest"].concat());
        let Report { status, value, error } = read(&json!({
            "status": "completed", "error": null,
            "value": {"text/plain": "<Figure>", "image/png": picture, "application/json": {"b": [1, 2.50]}, "x/y": 5},
        }));
        let value = value.unwrap();
        assert_eq!((status, error, value.plain.as_deref()), (TurnStatus::Completed, None, Some("<Figure>")));
        assert_eq!((value.png.as_deref(), value.html), (Some(picture.as_str()), None));
        assert_eq!(value.json.unwrap().as_str(), r#"{"b":[1,2.5]}"#);
        let raised = json!({"name": "KeyError", "value": "'a'", "traceback": "Traceback"});
        let failed = read(&json!({"status": "failed", "value": null, "error": raised}));
        assert_eq!((failed.status, failed.error.unwrap().name.as_str()), (TurnStatus::Failed, "KeyError"));
        assert_eq!(read(&json!({"status": "interrupted"})).status, TurnStatus::Interrupted);
    }

    #[test]
    fn what_cannot_be_read_is_a_failed_turn_that_says_why() {
        let deep = format!(
            r#"{{"status":"completed","value":{{"application/json":{}{}}}}}"#,
            "[".repeat(101),
            "]".repeat(101)
        );
        assert_eq!(Report::read(deep.as_bytes()).status, TurnStatus::Failed);
        assert_eq!(Report::read(b"\xff").status, TurnStatus::Failed);
        assert_eq!(Report::read(br#"{"status":"completed"} x"#).status, TurnStatus::Failed);
        for report in [
            json!({}),
            json!([]),
            json!({"status": "queued"}),
            json!({"status": "aborted"}),
            json!({"status": "completed", "number": 7}),
            json!({"status": "completed", "value": "2"}),
            json!({"status": "completed", "value": {"text/plain": 2}}),
            json!({"status": "completed", "value": {"image/png": "no base64!"}}),
            json!({"status": "completed", "value": {"image/png": STANDARD.encode("no picture")}}),
            json!({"status": "failed", "error": {"name": "E"}}),
            json!({"status": "failed", "error": "E"}),
        ] {
            assert!(is_malformed(&report), "{report}");
        }
        let large = json!({"status": "completed", "value": {"text/plain": "x".repeat(MAX_TURN_REPORT_BYTES)}});
        assert!(is_malformed(&large));
    }

    proptest! {
        #[test]
        fn no_report_makes_the_reader_panic(text in ".{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            Report::read(text.as_bytes());
            Report::read(&bytes);
        }
    }
}
