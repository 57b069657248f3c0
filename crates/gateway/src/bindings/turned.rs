//! Why a call has no answer of its service: what the workload is told of it, and what is written down.

use http::{HeaderValue, Response, StatusCode, header::RETRY_AFTER};
use model::egress::{Reason, Refused};
use serde_json::json;
use wire::{AuditSource, AuditType, BindingId};

use super::budget::Spent;
use crate::{
    answer::{Body, problem},
    tell::Teller,
};

/// Bounds of what a workload chose and that is written down.
const MAX_NAME_BYTES: usize = 64;
const MAX_PATH_BYTES: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) enum Turned {
    /// There is no binding of that name.
    Unknown(String),
    /// It does not allow this.
    Denied(String),
    /// The deployment does not allow where it leads.
    Address(Refused),
    /// It is used up.
    Budget(Spent),
    /// The body cannot be signed.
    TooLarge(String),
    /// The service, or the binding itself, is at fault.
    Upstream(String),
    /// The answer had the secret in it.
    Reflected,
}

/// One call, for events.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) binding: Option<BindingId>,
    name: String,
    method: String,
    path: String,
    teller: Teller,
}

impl Call {
    pub(super) fn new(binding: Option<BindingId>, name: &str, method: &str, path: &str, teller: Teller) -> Self {
        Self {
            binding,
            name: bounded(name, MAX_NAME_BYTES),
            method: bounded(method, MAX_NAME_BYTES),
            path: bounded(path, MAX_PATH_BYTES),
            teller,
        }
    }

    /// Counts bytes that went through.
    pub(super) fn count(&self, bytes: usize) {
        self.teller.count(bytes as u64);
    }

    /// Tells that the service is about to be asked.
    pub(super) async fn invoked(&self) {
        self.teller.tell(AuditType::BindingInvoked, AuditSource::Gateway, self.data(), None).await;
    }

    /// Tells why it was turned away. What the service did wrong is no decision of ours.
    pub(super) async fn turned(&self, why: &Turned) {
        if matches!(why, Turned::Upstream(_)) {
            return;
        }
        let refused = why.refused(&self.name);
        let mut data = self.data();
        data["reason"] = why.reason().into();
        data["detail"] = refused.detail.clone().into();
        let attempted = format!("binding {}: {} {}", self.name, self.method, self.path);
        let denial = Some(refused.denial(attempted));
        self.teller.tell(AuditType::BindingDenied, AuditSource::Gateway, data, denial).await;
    }

    /// What the workload is told.
    pub(super) fn answer(&self, why: &Turned) -> Response<Body> {
        let mut response = problem(why.status(), why.code(), &why.refused(&self.name));
        if let Turned::Budget(Spent { retry_after: Some(seconds), .. }) = why {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*seconds));
        }
        response
    }

    fn data(&self) -> serde_json::Value {
        let mut data = json!({ "name": self.name, "method": self.method, "path": self.path });
        if let Some(binding) = &self.binding {
            data["binding"] = binding.to_string().into();
        }
        data
    }
}

impl Turned {
    fn status(&self) -> StatusCode {
        match self {
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Denied(_) | Self::Address(_) => StatusCode::FORBIDDEN,
            Self::Budget(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Upstream(_) | Self::Reflected => StatusCode::BAD_GATEWAY,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "binding_unknown",
            Self::Denied(_) | Self::Address(_) | Self::TooLarge(_) => "binding_denied",
            Self::Budget(_) => "binding_budget",
            Self::Upstream(_) => "binding_upstream",
            Self::Reflected => "secret_reflected",
        }
    }

    /// The word in the event.
    fn reason(&self) -> &'static str {
        match self {
            Self::Address(refused) => refused.reason.as_str(),
            Self::Reflected => "secret_reflected",
            Self::Unknown(_) | Self::Denied(_) | Self::Budget(_) | Self::TooLarge(_) | Self::Upstream(_) => {
                Reason::Binding.as_str()
            }
        }
    }

    fn refused(&self, name: &str) -> Refused {
        let detail = match self {
            Self::Unknown(others) => format!("this session has no binding named {name}; {others}"),
            Self::Denied(why) => format!("binding {name} does not allow this: {why}"),
            Self::Address(refused) => {
                let detail = format!("binding {name} leads where it must not: {}", refused.detail);
                return Refused { detail, ..refused.clone() };
            }
            Self::Budget(spent) => format!("binding {name}: {}", spent.detail),
            Self::TooLarge(why) | Self::Upstream(why) => format!("the service of binding {name}: {why}"),
            Self::Reflected => format!("the answer of the service of binding {name} carried the secret, and was cut"),
        };
        Refused::flat(Reason::Binding, detail)
    }
}

fn bounded(text: &str, most: usize) -> String {
    text[..text.floor_char_boundary(most)].to_owned()
}
