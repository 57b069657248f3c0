//! Stand-in: every bound call is refused. Replaced as a whole by the service bindings.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use model::{
    egress::{Reason, Refused},
    gateway::{BoundService, Credential},
};
use protocol::egress::INTERNAL_DOMAIN;
use wire::BindingId;

use crate::{
    answer::{Body, problem},
    outside::Outside,
    tell::Teller,
};

pub(crate) struct Bindings;

#[expect(clippy::unused_self, clippy::unused_async, reason = "a stand-in")]
impl Bindings {
    pub(crate) fn new(_services: Vec<BoundService>, _outside: Arc<Outside>, _teller: Teller) -> Self {
        Self
    }

    pub(crate) fn rotate(&self, _binding: BindingId, _credential: Credential) {}

    pub(crate) fn name_of(host: &str) -> Option<&str> {
        host.strip_suffix(INTERNAL_DOMAIN)?.strip_suffix('.')
    }

    pub(crate) async fn serve(&self, name: &str, _request: Request<Incoming>) -> Response<Body> {
        let refused = Refused::flat(Reason::Binding, format!("there is no binding {name}"));
        problem(StatusCode::FORBIDDEN, "binding_denied", &refused)
    }
}
