//! Bearer tokens from an OAuth 2 token endpoint: kept until shortly before they end, and fetched by one at a time.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, Limited};
use model::secret::Secret;
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};
use url::{Url, form_urlencoded};
use zeroize::Zeroizing;

use super::{
    client::{self, Outgoing, ServiceClient},
    origin::Origin,
    watch::Watch,
};

/// A token is fetched anew so long before it ends, or after half its life if that is short.
const EARLY: Duration = Duration::from_mins(1);

/// How long a token lasts that does not say (RFC 6749 only recommends that it does).
const DEFAULT_LIFE: Duration = Duration::from_mins(5);

/// Longest life that is believed.
const MAX_LIFE: Duration = Duration::from_hours(24);

/// The endpoint is not asked again so soon after it has failed, nor because a service refuses a token that is as young as
/// this: the workload must not be able to make us ask all the time.
const PAUSE: Duration = Duration::from_secs(2);
const YOUNG: Duration = Duration::from_secs(30);

/// How long the endpoint may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest answer. Tokens are at most some kilobytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How tokens are asked for.
#[derive(Debug)]
pub(super) enum Grant {
    Client { secret: Secret, scopes: Vec<String> },
    Refresh { client_secret: Option<Secret> },
}

/// See the module.
pub(super) struct Tokens {
    endpoint: Endpoint,
    client: ServiceClient,
    client_id: String,
    grant: Grant,
    watch: Arc<Watch>,
    state: Arc<Mutex<State>>,
}

/// Where tokens are to be had.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) origin: Arc<Origin>,
    path: String,
    query: Option<String>,
}

struct State {
    /// The refresh token: the endpoint may give another with each token.
    refresh: Option<Secret>,
    token: Option<Token>,
    failed: Option<(Instant, NoToken)>,
    /// The endpoint wants the client's secret in the form.
    in_form: bool,
}

#[derive(Clone)]
struct Token {
    value: Secret,
    fetched: Instant,
    until: Instant,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoToken {
    /// The endpoint was not reached.
    #[error("its token endpoint cannot be asked: {0}")]
    Unreached(String),
    /// It said no.
    #[error("its token endpoint answered with {0}")]
    Refused(StatusCode),
    /// It gave nothing that can be used.
    #[error("its token endpoint gave no token that can be used")]
    Useless,
}

/// Not `Debug`, and read from a buffer that is wiped.
#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    expires_in: Option<serde_json::Value>,
    #[serde(default)]
    refresh_token: Option<Secret>,
}

impl Endpoint {
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut url = Url::parse(text).map_err(|_| "the URL of its token endpoint is none")?;
        let (path, query) = (url.path().to_owned(), url.query().map(str::to_owned));
        url.set_query(None);
        Ok(Self { origin: Arc::new(Origin::parse(url.as_str())?), path, query })
    }
}

impl Tokens {
    /// `refresh` is the refresh token, where there is one.
    pub(super) fn new(
        endpoint: Endpoint,
        client: ServiceClient,
        client_id: String,
        grant: Grant,
        refresh: Option<Secret>,
        watch: Arc<Watch>,
    ) -> Arc<Self> {
        let state = Arc::new(Mutex::new(State { refresh, token: None, failed: None, in_form: false }));
        Arc::new(Self { endpoint, client, client_id, grant, watch, state })
    }

    /// A token that is good for now.
    pub(super) async fn token(self: &Arc<Self>) -> Result<Secret, NoToken> {
        let mut state = self.state.clone().lock_owned().await;
        let now = Instant::now();
        if let Some(token) = state.token.as_ref().filter(|token| now < token.until) {
            return Ok(token.value.clone());
        }
        if let Some((at, why)) = &state.failed
            && now.duration_since(*at) < PAUSE
        {
            return Err(why.clone());
        }
        let tokens = self.clone();
        // On its own: whoever asked may go away, and the answer may have the only refresh token that is still good.
        let fetching = tokio::spawn(async move {
            let fetched = match timeout(PATIENCE, tokens.fetch(&mut state)).await {
                Ok(fetched) => fetched,
                Err(_) => Err(NoToken::Unreached("it takes too long".to_owned())),
            };
            state.failed = fetched.as_ref().err().map(|why| (Instant::now(), why.clone()));
            state.token = fetched.as_ref().ok().cloned();
            fetched.map(|token| token.value)
        });
        fetching.await.unwrap_or(Err(NoToken::Useless))
    }

    /// The service refuses a token: it is not used again, unless it is so young that another would not help.
    pub(super) async fn refused(&self, value: &Secret) {
        let mut state = self.state.lock().await;
        if state.token.as_ref().is_some_and(|token| token.value == *value && token.fetched.elapsed() >= YOUNG) {
            state.token = None;
        }
    }

    async fn fetch(&self, state: &mut State) -> Result<Token, NoToken> {
        let asked = Instant::now();
        let (mut status, mut body) = self.ask(state).await?;
        let wants_form = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::BAD_REQUEST);
        if wants_form && !state.in_form && self.client_secret().is_some() {
            // Some endpoints take the client's secret only in the form.
            state.in_form = true;
            let (again, answer) = self.ask(state).await?;
            state.in_form = again.is_success();
            (status, body) = (again, answer);
        }
        if !status.is_success() {
            return Err(NoToken::Refused(status));
        }
        let answer: Answer = serde_json::from_slice(&body).map_err(|_| NoToken::Useless)?;
        let is_bearer = answer.token_type.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
        if !is_bearer || answer.access_token.is_empty() {
            return Err(NoToken::Useless);
        }
        if let Some(refresh) = answer.refresh_token
            && matches!(self.grant, Grant::Refresh { .. })
            && !refresh.is_empty()
        {
            self.watch.token(refresh.clone()).map_err(|_| NoToken::Useless)?;
            state.refresh = Some(refresh);
        }
        self.watch.token(answer.access_token.clone()).map_err(|_| NoToken::Useless)?;
        let life = life(answer.expires_in.as_ref());
        let until = asked + life.saturating_sub(EARLY).max(life / 2);
        Ok(Token { value: answer.access_token, fetched: Instant::now(), until })
    }

    fn client_secret(&self) -> Option<&Secret> {
        match &self.grant {
            Grant::Client { secret, .. } => Some(secret),
            Grant::Refresh { client_secret } => client_secret.as_ref(),
        }
    }

    async fn ask(&self, state: &State) -> Result<(StatusCode, Zeroizing<Vec<u8>>), NoToken> {
        let answered = self.client.request(self.request(state)?).await;
        let response = answered.map_err(|error| NoToken::Unreached(client::failure(&error)))?;
        let status = response.status();
        let body =
            Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|_| NoToken::Useless)?;
        Ok((status, Zeroizing::new(body.to_bytes().to_vec())))
    }

    fn request(&self, state: &State) -> Result<Request<Outgoing>, NoToken> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        match &self.grant {
            Grant::Client { scopes, .. } => {
                form.append_pair("grant_type", "client_credentials");
                if !scopes.is_empty() {
                    form.append_pair("scope", &scopes.join(" "));
                }
            }
            Grant::Refresh { .. } => {
                form.append_pair("grant_type", "refresh_token");
                form.append_pair("refresh_token", state.refresh.as_ref().map_or("", Secret::expose));
            }
        }
        let mut request = Request::builder()
            .method(Method::POST)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        match self.client_secret() {
            Some(secret) if !state.in_form => request = request.header(AUTHORIZATION, self.basic(secret)?),
            Some(secret) => {
                form.append_pair("client_id", &self.client_id);
                form.append_pair("client_secret", secret.expose());
            }
            None => {
                form.append_pair("client_id", &self.client_id);
            }
        }
        let Endpoint { origin, path, query } = &self.endpoint;
        let uri = origin.uri(path, query.as_deref()).ok_or(NoToken::Useless)?;
        let body = Full::new(Bytes::from(form.finish())).map_err(|never| match never {}).boxed_unsync();
        request.uri(uri).body(body).map_err(|_| NoToken::Useless)
    }

    /// Both parts are form-encoded first (RFC 6749, section 2.3.1).
    fn basic(&self, secret: &Secret) -> Result<HeaderValue, NoToken> {
        let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = Zeroizing::new(format!("{}:{}", encode(&self.client_id), encode(secret.expose())));
        let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&text).map_err(|_| NoToken::Useless)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Some endpoints write the number as a text.
fn life(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = expires_in.and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
    seconds.map_or(DEFAULT_LIFE, Duration::from_secs).min(MAX_LIFE)
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}
