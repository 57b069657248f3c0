//! `GET /v1/sessions`

use axum::{Json, extract::State};
use engine::SessionFilter;
use serde::Deserialize;
use wire::{Phase, SessionPage};

use crate::{
    failure::Failure,
    gate::Identity,
    query::{DEFAULT_LIMIT, MAX_LIMIT, Query},
    state::App,
};

const MAX_LABELS: usize = 32;

/// List sessions, newest first
///
/// Filters are combined with "and".
#[utoipa::path(
    get, path = "/v1/sessions", operation_id = "listSessions", tag = "sessions",
    params(
        ("cursor" = Option<String>, Query, max_length = 512, description = "`nextCursor` of the page before."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100, description = "Sessions per page, 1 to 100; 20 if absent."),
        ("phase" = Option<Phase>, Query, description = "Only sessions that are in this phase now."),
        ("label" = Option<Vec<String>>, Query, explode,
            description = "Only sessions with this label, written `name:value`. May be repeated; all must match. \
                The name ends at the first colon.",
            example = json!(["team:search"])),
    ),
    responses((status = 200, description = "A page of sessions.", body = SessionPage)),
)]
pub(crate) async fn list_sessions(
    State(app): State<App>,
    Identity { caller, .. }: Identity,
    query: Query,
) -> Result<Json<SessionPage>, Failure> {
    let filter = filter(query)?;
    Ok(Json(app.engine().sessions(&caller, filter).await?))
}

fn filter(mut query: Query) -> Result<SessionFilter, Failure> {
    let cursor = query.cursor();
    let limit = query.number("limit", 1..=MAX_LIMIT).unwrap_or(DEFAULT_LIMIT);
    let phase = query.one("phase").and_then(|text| {
        let phase = phase(&text);
        if phase.is_none() {
            query.fault("phase", "must be pending, running, paused, succeeded, failed, killed or torn_down");
        }
        phase
    });
    let texts = query.all("label");
    if texts.len() > MAX_LABELS {
        query.fault("label", format!("may be given at most {MAX_LABELS} times"));
    }
    let mut labels = Vec::new();
    for text in texts {
        match text.split_once(':') {
            Some((name, value)) if !name.is_empty() => labels.push((name.to_owned(), value.to_owned())),
            Some(_) | None => query.fault("label", "must be name:value"),
        }
    }
    query.finish()?;
    Ok(SessionFilter { cursor, limit, phase, labels })
}

fn phase(text: &str) -> Option<Phase> {
    let word = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    Phase::deserialize(word).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<SessionFilter> {
        filter(Query::parse(text)).ok()
    }

    #[test]
    fn filters_are_read_and_have_defaults() {
        let plain = read("").unwrap();
        assert_eq!((plain.cursor, plain.limit, plain.phase, plain.labels), (None, 20, None, vec![]));
        let full = read("cursor=abc&limit=100&phase=torn_down&label=team:a&label=url:http://x").unwrap();
        assert_eq!((full.cursor.as_deref(), full.limit, full.phase), (Some("abc"), 100, Some(Phase::TornDown)));
        assert_eq!(full.labels, [("team".into(), "a".into()), ("url".into(), "http://x".into())]);
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in [
            "limit=0",
            "limit=101",
            "limit=",
            "phase=Pending",
            "phase=",
            "label=a",
            "label=:a",
            "cursor=",
            "page=2",
            "limit=1&limit=2",
            "phases=pending",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
        assert!(read(&"label=a:b&".repeat(33)).is_none());
        assert!(read(&format!("cursor={}", "a".repeat(513))).is_none());
    }

    #[test]
    fn every_phase_can_be_asked_for_and_is_named_in_the_refusal() {
        for word in ["pending", "running", "paused", "succeeded", "failed", "killed", "torn_down"] {
            assert_eq!(phase(word).unwrap().as_str(), word);
        }
    }
}
