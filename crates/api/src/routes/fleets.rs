//! Operations on fleets.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod members;
pub(crate) mod results;
pub(crate) mod stream;

use engine::MemberFilter;
use serde::Deserialize;
use wire::{FleetId, MemberPhase};

use crate::{failure::Failure, query::Query};

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
