//! Operations on fleets.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod members;
pub(crate) mod results;
pub(crate) mod stream;

use axum::extract::{FromRequestParts, Path};
use engine::MemberFilter;
use http::request::Parts;
use serde::Deserialize;
use wire::{FleetId, MemberPhase};

use crate::{failure::Failure, query::Query, state::App};

/// The fleet's id in the path. Whatever is not an id is a fleet that does not exist.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Id(pub(crate) FleetId);

impl FromRequestParts<App> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let text = Path::<String>::from_request_parts(parts, app).await.map_err(|_| Failure::no_fleet())?;
        text.parse().map(Self).map_err(|_| Failure::no_fleet())
    }
}

/// Members of a page.
const MAX_MEMBERS: u32 = 1000;

/// Which members a page has; `default` of them if nobody says how many.
fn member_filter(fleet: FleetId, mut query: Query, default: u32) -> Result<MemberFilter, Failure> {
    let cursor = query.cursor();
    let limit = query.number("limit", 1..=MAX_MEMBERS).unwrap_or(default);
    let phase = query.one("phase").and_then(|text| {
        let word = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(&text);
        let phase = MemberPhase::deserialize(word).ok();
        if phase.is_none() {
            query.fault("phase", "must be queued, pending, running, succeeded, failed, killed or skipped");
        }
        phase
    });
    query.finish()?;
    Ok(MemberFilter { fleet, cursor, limit, phase })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_read_and_have_defaults() {
        let fleet: FleetId = "flt_01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let read = |text: &str| member_filter(fleet, Query::parse(text), 100);
        let plain = read("").unwrap();
        assert_eq!((plain.cursor, plain.limit, plain.phase), (None, 100, None));
        for phase in MemberPhase::ALL {
            let text = format!("phase={}&limit=1000", phase.as_str());
            assert_eq!(read(&text).unwrap().phase, Some(phase));
        }
        for text in ["limit=0", "limit=1001", "cursor=", "phase=torn_down", "phase=failed&phase=killed", "x=1"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
