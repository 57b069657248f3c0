//! The session's gateway, as its driver sees it: what it has to know, what it tells, and its end.
//!
//! What a gateway tells is recorded as it comes, in a task beside the driver's own, so that a slow store slows the
//! session's traffic down and nothing else: the gateway waits, because it moves nothing that it has not told.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use backend::Gateway;
use model::{
    audit::Draft,
    egress::Policy,
    gateway::{FromGateway, GatewayEvent, GatewaySpec},
};
use protocol::egress::{HTTP_PROXY_PORT, INSIDE, INTERNAL_DOMAIN};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use wire::{AuditSource, AuditType, Denial, SessionId};

use crate::{
    BoundError, Inner,
    driver::{Driver, services::Services},
    live::Live,
};

/// Events that are recorded in one transaction.
const AT_ONCE: usize = 64;
/// How long what is told waits for more after something was recorded. What is told once is recorded at once, and who
/// tells a thousand things a second has them recorded a hundred times.
const BREATH: Duration = Duration::from_millis(10);
/// Refusals that a result repeats; the audit log has them all.
const MAX_DENIALS: usize = 100;
/// How long a gateway whose sandbox has ended may take to tell the rest.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// What a gateway has told so far.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// What was refused, each once.
    pub(super) denials: Vec<Denial>,
    /// Bytes that went through.
    pub(super) bytes: u64,
    /// Whether the gateway ended because its pipe had.
    is_done: bool,
    seen: HashSet<(String, String)>,
}

/// How a gateway ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its pipe had ended: with the sandbox, which has its own way to say so, or by the runner, which then has no way out.
    WithItsPipe,
    /// Before that.
    Failed,
}

/// The gateway of a session, if it has one.
pub(super) struct Egress {
    listening: Option<AbortOnDropHandle<()>>,
    heard: Arc<Mutex<Heard>>,
}

impl Egress {
    /// Listens to a gateway.
    pub(super) fn of(driver: &mut Driver, gateway: Option<Gateway>) -> Self {
        let heard = Arc::<Mutex<Heard>>::default();
        let services = driver.services.take();
        let listening = gateway.map(|gateway| {
            let listener = Listener {
                inner: Arc::clone(&driver.inner),
                live: Arc::clone(&driver.live),
                session: driver.session.id,
                heard: Arc::clone(&heard),
            };
            AbortOnDropHandle::new(tokio::spawn(listener.run(gateway, services)))
        });
        Self { listening, heard }
    }

    /// Whether there is a gateway that has not ended.
    pub(super) fn is_open(&self) -> bool {
        self.listening.is_some()
    }

    /// Resolves when the gateway has ended, with how. Cancel-safe. Never, if there is none.
    pub(super) async fn ended(&mut self) -> End {
        match &mut self.listening {
            Some(listening) => {
                // A listener that panicked has ended as well.
                let _ = listening.await;
                self.listening = None;
                if lock(&self.heard).is_done { End::WithItsPipe } else { End::Failed }
            }
            None => std::future::pending().await,
        }
    }

    /// Takes what the gateway of an ended sandbox still has to tell, and gives everything.
    pub(super) async fn close(mut self, session: SessionId) -> Heard {
        if self.is_open() && timeout(END_PATIENCE, self.ended()).await.is_err() {
            tracing::warn!(%session, "the gateway of an ended sandbox did not end");
        }
        drop(self.listening.take());
        std::mem::take(&mut lock(&self.heard))
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Heard {
    fn denied(&mut self, denial: &Denial) {
        let key = (denial.attempted.clone(), denial.reason.clone());
        if self.denials.len() < MAX_DENIALS && self.seen.insert(key) {
            self.denials.push(denial.clone());
        }
    }
}

struct Listener {
    inner: Arc<Inner>,
    live: Arc<Live>,
    session: SessionId,
    heard: Arc<Mutex<Heard>>,
}

impl Listener {
    async fn run(self, mut gateway: Gateway, mut services: Option<Services>) {
        let handle = gateway.handle();
        let following = async {
            match &mut services {
                Some(services) => services.follow(&handle).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(following);
        let mut due = Instant::now();
        let mut is_open = true;
        while is_open {
            let mut drafts = Vec::new();
            while drafts.len() < AT_ONCE {
                let message = tokio::select! {
                    biased;
                    message = gateway.next() => message,
                    () = &mut following => None,
                    () = sleep_until(due), if !drafts.is_empty() => break,
                };
                let Some(message) = message else {
                    is_open = false;
                    break;
                };
                self.take(message, &mut drafts);
            }
            self.live.record(&self.inner, self.session, drafts, "egress").await;
            due = Instant::now() + BREATH;
        }
    }

    fn take(&self, message: FromGateway, drafts: &mut Vec<Draft>) {
        match message {
            FromGateway::Ready => {}
            FromGateway::Usage { egress_bytes } => self.moved(egress_bytes),
            FromGateway::Done { egress_bytes } => {
                self.moved(egress_bytes);
                lock(&self.heard).is_done = true;
            }
            FromGateway::Event(GatewayEvent { ts: _, kind, source, data, denial }) => {
                if kind == AuditType::BindingInvoked {
                    self.live.spent.send_modify(|spent| spent.binding_calls += 1);
                }
                if let Some(denial) = &denial {
                    lock(&self.heard).denied(denial);
                }
                drafts.push(Draft {
                    // The log's times are of one clock.
                    ts: self.inner.clock.now(),
                    kind,
                    session_id: Some(self.session),
                    actor: actor(source).into(),
                    source,
                    data,
                });
            }
        }
    }

    /// This gateway has moved so much by now.
    fn moved(&self, bytes: u64) {
        let mut heard = lock(&self.heard);
        let more = bytes.saturating_sub(heard.bytes);
        heard.bytes = bytes;
        drop(heard);
        if more > 0 {
            self.live.spent.send_modify(|spent| spent.egress_bytes = spent.egress_bytes.saturating_add(more));
        }
    }
}

fn actor(source: AuditSource) -> &'static str {
    match source {
        AuditSource::Platform => "platform",
        AuditSource::Gateway => "gateway",
        AuditSource::Runner => "runner",
    }
}

impl Driver {
    /// What the session's gateway has to know, if it is to have one.
    pub(super) async fn gateway_spec(&mut self) -> Result<Option<GatewaySpec>, BoundError> {
        if !self.spec.has_egress() {
            return Ok(None);
        }
        let (services, bindings) =
            Services::open(&self.inner, self.session.org_id, &self.spec.service_bindings).await?;
        self.services = Some(services);
        Ok(Some(GatewaySpec {
            session: self.session.id,
            policy: Policy::new(&self.spec.egress, self.inner.config.deployment.clone()),
            limits: self.inner.config.gateway,
            bindings,
        }))
    }

    /// The variables by which programs find the way out. The caller's own come after them, and win.
    pub(super) fn egress_env(&self) -> Vec<(String, String)> {
        if !self.spec.has_egress() {
            return Vec::new();
        }
        let mut env = proxy_env(&format!("localhost,127.0.0.1,::1,.{INTERNAL_DOMAIN}"));
        env.extend(self.services.iter().flat_map(Services::env));
        env
    }
}

/// The variables that lead to the gateway, but for what `none` lists.
pub(super) fn proxy_env(none: &str) -> Vec<(String, String)> {
    let http = format!("http://{INSIDE}:{HTTP_PROXY_PORT}");
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    // Node looks at the others only if it is told to. No ALL_PROXY: some clients give up on SOCKS where they lack a
    // package for it, also when they would not use it.
    let mut env = vec![variable("NODE_USE_ENV_PROXY", "1")];
    for (name, value) in [("HTTP_PROXY", http.as_str()), ("HTTPS_PROXY", &http), ("NO_PROXY", none)] {
        env.push(variable(name, value));
        env.push(variable(&name.to_ascii_lowercase(), value));
    }
    env
}
