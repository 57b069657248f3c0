//! Fleets in the document.

use serde_json::json;
use uuid::Uuid;
use wire::{
    Completion, CreateFleet, CreateSession, Fleet, FleetBudget, FleetCounts, FleetId, FleetMember, FleetMembers,
    FleetPhase, FleetProgress, FleetResult, FleetTemplate, FleetUsage, MemberPhase, Outcome,
};

use super::{at, id, labels, org, usage};

pub(super) fn create() -> CreateFleet {
    let template = CreateSession {
        code: Some("shard = enclave.input\nenclave.result(sum(shard['numbers']))".into()),
        ..CreateSession::default()
    };
    let inputs = vec![json!({ "numbers": [1, 2] }).into(), json!({ "numbers": [3, 4] }).into()];
    CreateFleet {
        name: "shards of the nightly index".into(),
        members: FleetMembers::Template(Box::new(FleetTemplate { template, inputs })),
        max_concurrency: Some(8),
        budget: Some(budget()),
        completion: Completion::All,
        labels: labels(),
    }
}

fn budget() -> FleetBudget {
    FleetBudget { cpu_ms: Some(60_000), ..FleetBudget::default() }
}

pub(super) fn pending() -> Fleet {
    Fleet {
        id: FleetId::from_uuid(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057)),
        org_id: org(),
        created_by: "key_01890a5d-ac96-774b-bcce-b302099a0002".into(),
        name: "shards of the nightly index".into(),
        phase: FleetPhase::Pending,
        reason: None,
        completion: Completion::All,
        max_concurrency: Some(8),
        budget: Some(budget()),
        used: FleetUsage::default(),
        counts: FleetCounts { total: 2, queued: 2, ..FleetCounts::default() },
        labels: labels(),
        created_at: at(0),
        started_at: None,
        finished_at: None,
    }
}

pub(super) fn ended() -> Fleet {
    Fleet {
        phase: FleetPhase::Succeeded,
        used: FleetUsage { cpu_ms: 122, wall_ms: 140, ..FleetUsage::default() },
        counts: FleetCounts { total: 2, succeeded: 2, ..FleetCounts::default() },
        started_at: Some(at(190)),
        finished_at: Some(at(280)),
        ..pending()
    }
}

pub(super) fn member() -> FleetMember {
    FleetMember {
        index: 0,
        session_id: Some(id()),
        phase: MemberPhase::Succeeded,
        outcome: Some(Outcome::Succeeded),
        kill_reason: None,
        fault: None,
        reason: None,
        started_at: Some(at(190)),
        finished_at: Some(at(260)),
        usage: Some(usage()),
    }
}

pub(super) fn result() -> FleetResult {
    FleetResult {
        index: 0,
        session_id: Some(id()),
        phase: MemberPhase::Succeeded,
        outcome: Some(Outcome::Succeeded),
        exit_code: Some(0),
        result: Some(json!(3).into()),
    }
}

pub(super) fn progress() -> FleetProgress {
    let Fleet { phase, reason, counts, used, .. } = ended();
    FleetProgress { phase, reason, counts, used }
}
