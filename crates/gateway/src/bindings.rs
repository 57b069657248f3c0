//! Service bindings: what the workload asks at `http://<name>.enclave.internal` is checked, given its secret, and sent to
//! the one service that the binding names. The secret never goes inside: not with a redirect, and not in what the
//! service answers, in whatever form.
//!
//! Called by whatever serves HTTP to the workload.

mod allow;
mod budget;
mod client;
#[doc(hidden)]
pub mod guard;
mod headers;
mod inject;
mod oauth;
mod origin;
mod query;
mod redirect;
mod relay;
mod service;
mod sigv4;
mod turned;
mod watch;

use std::{collections::BTreeMap, error::Error, fmt, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body as HttpBody;
use model::gateway::{BoundService, Credential};
use protocol::egress::below_internal;
use wire::BindingId;

use crate::{answer::Body, outside::Outside, tell::Teller};
use client::Roots;
use service::Service;
use turned::{Call, Turned};

/// The bindings of a session.
pub(crate) struct Bindings {
    services: BTreeMap<String, Service>,
    teller: Teller,
}

impl Bindings {
    /// These. One that cannot be used is there nevertheless, and says why when it is called.
    pub(crate) fn new(services: Vec<BoundService>, outside: Arc<Outside>, teller: Teller) -> Self {
        let needed = services.iter().any(|bound| Service::needs_roots(&bound.spec));
        let roots = if needed { Roots::of_host() } else { Roots::none() };
        let service = move |bound: BoundService| (bound.spec.name.clone(), Service::new(bound, &outside, &roots));
        Self { services: services.into_iter().map(service).collect(), teller }
    }

    /// A binding has another secret, from the next call on.
    #[expect(clippy::needless_pass_by_value, reason = "what is not needed any more is wiped here")]
    pub(crate) fn rotate(&self, binding: BindingId, credential: Credential) {
        for service in self.services.values().filter(|service| service.id == binding) {
            service.rotate(&credential);
        }
    }

    /// The binding's name, if `host` (in lower case, without a port) is that of one.
    pub(crate) fn name_of(host: &str) -> Option<&str> {
        below_internal(host).filter(|name| !name.is_empty() && !name.contains('.'))
    }

    /// Asks the service of a binding, or says why not.
    pub(crate) async fn serve<B>(&self, name: &str, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let (method, path) = (request.method().as_str(), request.uri().path());
        let service = self.services.get(name);
        let call = Call::new(service.map(|service| service.id), name, method, path, self.teller.clone());
        let answered = match service {
            Some(service) => attempt(service, &call, request).await,
            None => Err(self.unknown()),
        };
        match answered {
            Ok(response) => response,
            Err(why) => {
                call.turned(&why).await;
                call.answer(&why)
            }
        }
    }

    fn unknown(&self) -> Turned {
        let names: Vec<&str> = self.services.keys().map(String::as_str).collect();
        Turned::Unknown(if names.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has {}", names.join(", "))
        })
    }
}

async fn attempt<B>(service: &Service, call: &Call, request: Request<B>) -> Result<Response<Body>, Turned>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    if headers::wants_upgrade(&parts.headers) {
        return Err(Turned::Denied("bindings carry HTTP, and nothing that it may be upgraded to".to_owned()));
    }
    service.allow.decide(&parts.method, parts.uri.path(), parts.uri.query()).map_err(Turned::Denied)?;
    service.budget.call().map_err(Turned::Budget)?;
    call.invoked().await;
    service.ask(call, parts, body).await
}

impl fmt::Debug for Bindings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bindings").field("names", &self.services.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
