//! Triggers in the document.

use uuid::Uuid;
use wire::{
    CreateSession, CreateTrigger, FiringCause, FiringOutcome, Overlap, Trigger, TriggerId, TriggerKind, TriggerRun,
    TriggerWithSecret, UpdateTrigger,
};

use super::{at, id, org};

pub(super) fn create() -> CreateTrigger {
    let Trigger { name, kind, session, enabled, overlap, jitter_ms, .. } = scheduled();
    CreateTrigger { name, kind, session, enabled, overlap, jitter_ms }
}

pub(super) fn update() -> UpdateTrigger {
    UpdateTrigger { enabled: Some(false), ..UpdateTrigger::default() }
}

pub(super) fn scheduled() -> Trigger {
    Trigger {
        id: TriggerId::from_uuid(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057)),
        org_id: org(),
        name: "nightly-report".into(),
        kind: TriggerKind::Schedule { cron: "30 2 * * mon-fri".into(), timezone: "Europe/Berlin".into() },
        session: CreateSession { code: Some("print('good morning')".into()), ..CreateSession::default() },
        enabled: true,
        overlap: Overlap::Skip,
        jitter_ms: None,
        secret_version: None,
        created_by: "key_01890a5d-ac96-774b-bcce-b302099a0002".into(),
        created_at: at(0),
        updated_at: at(0),
        next_fire_at: Some(at(10_000_000)),
    }
}

pub(super) fn scheduled_with_secret() -> TriggerWithSecret {
    TriggerWithSecret { trigger: scheduled(), secret: None }
}

pub(super) fn called_with_secret() -> TriggerWithSecret {
    let trigger = Trigger {
        name: "on-push".into(),
        kind: TriggerKind::Webhook,
        secret_version: Some(2),
        next_fire_at: None,
        ..scheduled()
    };
    TriggerWithSecret { trigger, secret: Some("whsec_<base64 of 32 random bytes>".into()) }
}

pub(super) fn run() -> TriggerRun {
    TriggerRun {
        cause: FiringCause::Manual,
        due_at: at(0),
        fired_at: at(0),
        outcome: FiringOutcome::Started,
        session_id: Some(id()),
        detail: None,
    }
}
