//! Bindings in the document.

use uuid::Uuid;
use wire::{
    Binding, BindingAllow, BindingBudget, BindingId, BindingKind, BindingSecret, BindingSpec, BindingUpstream,
    CreateBinding, UpdateBinding,
};

use super::{at, org};

pub(super) fn create() -> CreateBinding {
    CreateBinding { spec: spec(), secret: secret() }
}

pub(super) fn update() -> UpdateBinding {
    UpdateBinding { allow: Some(allow()), budget: Some(budget()), ..UpdateBinding::default() }
}

pub(super) fn secret() -> BindingSecret {
    BindingSecret { value: "the token itself".into(), ..BindingSecret::default() }
}

pub(super) fn binding() -> Binding {
    Binding {
        id: BindingId::from_uuid(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057)),
        org_id: org(),
        spec: spec(),
        secret_version: 1,
        rotated_at: at(0),
        created_at: at(0),
        updated_at: at(0),
    }
}

fn spec() -> BindingSpec {
    BindingSpec {
        name: "github".into(),
        kind: BindingKind::Bearer,
        upstream: BindingUpstream { url: "https://api.example.com/v1".into(), ca_pem: None },
        allow: allow(),
        budget: Some(budget()),
    }
}

fn allow() -> Vec<BindingAllow> {
    vec![BindingAllow { methods: vec!["GET".into()], paths: vec!["/repos/**".into(), "/user".into()] }]
}

fn budget() -> BindingBudget {
    BindingBudget { calls: Some(1000), bytes: None, window_ms: Some(3_600_000) }
}
