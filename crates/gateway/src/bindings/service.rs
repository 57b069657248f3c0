//! One binding: where it leads, what it allows, and its secret of the moment.

use std::{
    error::Error,
    io,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, IF_RANGE, LOCATION, RANGE},
    request::Parts,
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as HttpBody, Incoming};
use jiff::Timestamp;
use model::{
    egress::Reason,
    gateway::{BoundService, Credential},
    secret::Secret,
};
use wire::{BindingId, BindingKind, BindingSpec};

use super::{
    allow::Allow,
    budget::Budget,
    client::{self, Outgoing, Roots, ServiceClient},
    guard::Scanner,
    headers,
    inject::{self, Fixed, Injector},
    oauth::Tokens,
    origin::Origin,
    query, redirect,
    relay::{Counted, PATIENCE, Relay},
    sigv4::{self, Asked, Payload, Signer},
    turned::{Call, Turned},
    watch::Watch,
};
use crate::{activity::Activity, answer::Body, outside::Outside};

/// A body that has to be signed as a whole is kept in memory up to this.
const MAX_SIGNED_BYTES: usize = 1024 * 1024;

/// See the module.
pub(super) struct Service {
    pub(super) id: BindingId,
    spec: BindingSpec,
    pub(super) allow: Allow,
    pub(super) budget: Arc<Budget>,
    outside: Arc<Outside>,
    watch: Arc<Watch>,
    /// What is trusted where tokens come from: what the host trusts, and what is trusted for the service.
    token_roots: Roots,
    reach: Result<Reach, &'static str>,
    injector: RwLock<Result<Arc<Injector>, &'static str>>,
}

struct Reach {
    origin: Arc<Origin>,
    client: ServiceClient,
}

/// A request as it will be sent.
struct Prepared {
    headers: HeaderMap,
    path: String,
    query: Option<zeroize::Zeroizing<String>>,
    body: Outgoing,
    /// The token in it, and where it is from.
    token: Option<(Arc<Tokens>, Secret)>,
}

impl Service {
    /// `host` are the certificates that the host trusts.
    pub(super) fn new(bound: BoundService, outside: &Arc<Outside>, host: &Roots) -> Self {
        let BoundService { id, spec, credential } = bound;
        let pem = spec.upstream.ca_pem.as_deref();
        let own = pem.map(|pem| Roots::none().with_pem(pem)).transpose();
        let token_roots = pem.map_or_else(|| Ok(host.clone()), |pem| host.with_pem(pem));
        let reach = Origin::parse(&spec.upstream.url).and_then(|origin| {
            let origin = Arc::new(origin);
            let roots = own?;
            let client = client::client(origin.clone(), outside.clone(), roots.as_ref().unwrap_or(host))?;
            Ok(Reach { origin, client })
        });
        let service = Self {
            id,
            allow: Allow::new(&spec.kind, &spec.allow),
            budget: Arc::new(Budget::new(spec.budget)),
            spec,
            outside: outside.clone(),
            watch: Arc::new(Watch::new()),
            token_roots: token_roots.unwrap_or_else(|_| Roots::none()),
            reach,
            injector: RwLock::new(Err("it has no secret")),
        };
        service.rotate(&credential);
        service
    }

    /// Whether the host's certificates are needed for it.
    pub(super) fn needs_roots(spec: &BindingSpec) -> bool {
        match &spec.kind {
            BindingKind::OAuth2ClientCredentials { .. } | BindingKind::OAuth2Refresh { .. } => true,
            BindingKind::Header { .. }
            | BindingKind::Bearer
            | BindingKind::Basic { .. }
            | BindingKind::Query { .. }
            | BindingKind::AwsSigV4 { .. }
            | BindingKind::Git { .. } => spec.upstream.ca_pem.is_none(),
        }
    }

    /// Uses another secret from the next call on. Tokens that came from the old one are forgotten.
    pub(super) fn rotate(&self, credential: &Credential) {
        let watched = self.watch.credential(inject::watched(&self.spec.kind, credential));
        let fixed =
            Fixed { spec: &self.spec, outside: &self.outside, token_roots: &self.token_roots, watch: &self.watch };
        let injector = match watched {
            Ok(()) => Injector::new(&fixed, credential).map(Arc::new),
            Err(_) => Err("its secret is too large"),
        };
        *self.injector.write().unwrap_or_else(PoisonError::into_inner) = injector;
    }

    /// Asks the service. Everything was allowed.
    pub(super) async fn ask<B>(&self, call: &Call, parts: Parts, body: B) -> Result<Response<Body>, Turned>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let unusable = |why: &str| Turned::Upstream(format!("the binding cannot be used, {why}"));
        let reach = self.reach.as_ref().map_err(|why| unusable(why))?;
        let injector = self.injector.read().unwrap_or_else(PoisonError::into_inner).clone().map_err(unusable)?;
        let (activity, spent) = (Arc::new(Activity::new()), Arc::new(OnceLock::new()));
        let body = Counted {
            inner: body.map_err(io::Error::other).boxed_unsync(),
            call: call.clone(),
            budget: self.budget.clone(),
            activity: activity.clone(),
            spent: spent.clone(),
        };
        let over = || spent.get().cloned().map(Turned::Budget);
        let prepared = self.prepare(reach, &injector, &parts, body.boxed_unsync()).await;
        let Prepared { headers, path, query, body, token } = prepared.map_err(|why| over().unwrap_or(why))?;

        let uri = reach.origin.uri(&path, query.as_deref().map(String::as_str));
        let uri = uri.ok_or_else(|| Turned::Denied("its path or query is too long".to_owned()))?;
        let mut request = Request::new(body);
        (*request.method_mut(), *request.uri_mut(), *request.headers_mut()) = (parts.method, uri, headers);

        let idle = Duration::from_millis(self.outside.limits.idle_ms);
        let answered = tokio::select! {
            biased;
            answered = reach.client.request(request) => answered,
            () = activity.idle_for(idle) => {
                return Err(Turned::Upstream(format!("no answer for {} s", idle.as_secs())));
            }
        };
        let response = answered.map_err(|error| match client::refusal(&error) {
            Some(refused) if refused.reason != Reason::NotResolved => Turned::Address(refused.clone()),
            Some(_) | None => over().unwrap_or_else(|| Turned::Upstream(client::failure(&error))),
        })?;
        if let (StatusCode::UNAUTHORIZED, Some((tokens, token))) = (response.status(), &token) {
            tokens.refused(token).await;
        }
        self.answer(call, reach, &injector, &path, response).await
    }

    async fn prepare(
        &self,
        reach: &Reach,
        injector: &Injector,
        parts: &Parts,
        body: Outgoing,
    ) -> Result<Prepared, Turned> {
        let mut headers = headers::of_request(&parts.headers, injector.own_header(), !self.allow.has_methods());
        if injector.shows_secret() {
            // A service that shows the secret must not be asked for half of it. Servers may always answer with the whole.
            headers.remove(RANGE);
            headers.remove(IF_RANGE);
        }
        if let Some(size) = body.size_hint().exact()
            && parts.headers.contains_key(CONTENT_LENGTH)
        {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        }
        let path = reach.origin.path(parts.uri.path());
        let given = parts.uri.query();
        let mut prepared =
            Prepared { headers, path, query: given.map(|query| query.to_owned().into()), body, token: None };
        match injector {
            Injector::Header { name, value } => {
                prepared.headers.insert(name, value.clone());
            }
            Injector::Query { parameter, value } => {
                prepared.query = Some(query::with(given.unwrap_or_default(), parameter, value.expose()));
            }
            Injector::Token(tokens) => {
                let token = tokens.token().await.map_err(|why| Turned::Upstream(why.to_string()))?;
                let value = inject::bearer(&token).map_err(|why| Turned::Upstream(why.to_owned()))?;
                prepared.headers.insert(AUTHORIZATION, value);
                prepared.token = Some((tokens.clone(), token));
            }
            Injector::Signature(signer) => prepared = sign(signer, reach, parts, prepared).await?,
        }
        Ok(prepared)
    }

    async fn answer(
        &self,
        call: &Call,
        reach: &Reach,
        injector: &Injector,
        path: &str,
        response: Response<Incoming>,
    ) -> Result<Response<Body>, Turned> {
        let (parts, body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Turned::Upstream("it changed the protocol without being asked".to_owned()));
        }
        let coding = headers::coding(&parts.headers).map_err(|why| Turned::Upstream(why.to_owned()))?;
        let mut headers = headers::of_response(&parts.headers);
        let hidden = match injector {
            Injector::Query { parameter, .. } => Some(parameter.as_str()),
            Injector::Header { .. } | Injector::Token(_) | Injector::Signature(_) => None,
        };
        if let Some(location) = headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
            let asked = reach.origin.url(path);
            let to = redirect::rewritten(&reach.origin, &self.spec.name, &asked, location, hidden);
            if let Some(to) = to.and_then(|to| HeaderValue::from_str(&to).ok()) {
                headers.insert(LOCATION, to);
            }
        }
        let forms = self.watch.forms();
        let known = forms.borrow().clone();
        let shows = |(name, value): (&http::HeaderName, &HeaderValue)| {
            Scanner::finds(&known, name.as_str().as_bytes()) || Scanner::finds(&known, value.as_bytes())
        };
        if headers.iter().any(shows) {
            return Err(Turned::Reflected);
        }
        let idle = Duration::from_millis(self.outside.limits.idle_ms);
        let relay = Relay::new(body, coding, forms, idle, call.clone(), self.budget.clone())?;
        let is_events = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let body = relay.into_body(if is_events { Duration::ZERO } else { PATIENCE }).await?;
        // A new head: the reason phrase of the service's is not looked at, and stays behind.
        let mut answer = Response::new(body);
        (*answer.status_mut(), *answer.headers_mut()) = (parts.status, headers);
        Ok(answer)
    }
}

async fn sign(signer: &Signer, reach: &Reach, parts: &Parts, mut prepared: Prepared) -> Result<Prepared, Turned> {
    sigv4::clean(&mut prepared.headers);
    let query = sigv4::query(parts.uri.query().unwrap_or_default());
    let payload = match signer.payload(&prepared.headers, prepared.body.is_end_stream()) {
        Payload::Is(payload) => payload,
        Payload::ForeignChunks => {
            let why =
                "its body is signed in chunks with a key that the service does not know; turn chunked signing off";
            return Err(Turned::Denied(why.to_owned()));
        }
        Payload::Hash => {
            let whole = Limited::new(prepared.body, MAX_SIGNED_BYTES).collect().await.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Turned::TooLarge(format!("it takes signed bodies of at most {MAX_SIGNED_BYTES} bytes"))
                } else {
                    Turned::Upstream("the body broke off".to_owned())
                }
            })?;
            let whole = whole.to_bytes();
            let digest = sigv4::digest(&whole);
            prepared.body = Full::new(whole).map_err(|never| match never {}).boxed_unsync();
            digest
        }
    };
    let asked =
        Asked { method: &parts.method, authority: &reach.origin.authority, path: &prepared.path, query: &query };
    let done = signer.sign(&mut prepared.headers, &asked, &payload, Timestamp::now());
    done.map_err(|()| Turned::Upstream("what it is asked cannot be signed".to_owned()))?;
    prepared.query = Some(query).filter(|query| !query.is_empty()).map(Into::into);
    Ok(prepared)
}
