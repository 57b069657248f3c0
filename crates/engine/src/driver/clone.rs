//! The clone step of a session whose program is in a git repository.
//!
//! It runs in a sandbox of its own, before the workload's exists: a fixed program of ours ([`PROGRAM`]) runs git, the
//! gateway lets it reach the repository and nothing else, and a credential is added by the gateway on the way, so that
//! none is ever in a sandbox. Git speaks with a hostile server there, and what comes out is believed no more than that:
//! [`tree`] reads it. The sandbox is removed before the workload's is made, or at the session's end at the latest.

pub(super) mod tree;

use std::{net::IpAddr, time::Duration};

use backend::{
    Sandbox, SandboxId, SandboxLimit, SandboxSpec, Shape,
    channel::{ChannelError, Receiver, Sender},
};
use model::{
    Language,
    audit::Draft,
    egress::{Host, Policy, Refused},
    gateway::{GatewayLimits, GatewaySpec},
    limits::Limits,
    phase::Verdict,
    session::{RepoUrl, Repository},
};
use protocol::{
    Exit, GuestFrame, HostFrame, OrderError, Start, Stream,
    egress::{INTERNAL_DOMAIN, base_url},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use wire::{AuditType, Egress as Allowed, EgressMode, EgressRule, EgressTarget, FaultCode};

use self::tree::{MAX_FILES, Reader, TreeError};
use crate::{
    bound::{BoundRepository, Unbound},
    driver::{
        Driver, Left, NotBooted, drained,
        egress::{Egress, Heard, proxy_env},
        inputs::{Files, Inputs, NoProgram},
        record::Change,
    },
    spool::Spool,
    view,
};

/// What runs in the sandbox.
const PROGRAM: &str = include_str!("clone/clone.py");
/// Room for what is fetched: one commit of the whole repository, packed.
const DISK_BYTES: u64 = 512 << 20;
/// Git holds one delta chain in memory, and an index of all objects.
const MEMORY_BYTES: u64 = 512 << 20;
/// Git, its helper for HTTP, index-pack, and Python with it.
const PIDS: u32 = 64;
/// The most of a tree, whatever the session's disk: it goes through a file on the host.
const MAX_TREE_BYTES: u64 = 512 << 20;
/// What the gateway carries for a clone: the pack, and the talk about it.
const MAX_WIRE_BYTES: u64 = DISK_BYTES + (64 << 20);
/// Around the contents in the stream: a header and a path for each file.
const FRAMING_BYTES: u64 = MAX_FILES as u64 * (13 + protocol::path::MAX_PATH_BYTES as u64);
/// Of what is told of a failure.
const MAX_DETAIL: usize = 600;

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
enum CloneError {
    /// What the program in the sandbox says: mostly git's own words.
    #[error("{0}")]
    Refused(String),
    #[error("the credential: {0}")]
    Unbound(#[from] Unbound),
    #[error("it took longer than {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error("the repository is too large to be cloned: it takes more than {DISK_BYTES} bytes at this ref")]
    TooLarge,
    #[error("the clone ran into its own limits of memory, processes or time")]
    Limit,
    #[error("what came out of the clone is no tree: {0}")]
    Tree(#[from] TreeError),
    #[error("the entrypoint: {0}")]
    NoProgram(#[from] NoProgram),
    #[error("the files have {0} bytes together with those of the request, more than limits.diskBytes")]
    Disk(u64),
    #[error("the sandbox of the clone ended before it was done")]
    Lost,
    #[error("the sandbox of the clone broke the protocol")]
    Violation(#[from] ChannelError),
    /// The session is to end, for a reason of its own.
    #[error("the session was ended")]
    Ended(Verdict),
}

/// What the program hands in.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Said {
    Failed { error: String },
    Cloned { commit: String, skipped: Skipped },
}

/// What of a tree is not copied.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Skipped {
    /// Symbolic links that lead out.
    links: u32,
    /// Other repositories.
    submodules: u32,
    /// Files whose names cannot be told or lead into `.git`.
    names: u32,
}

/// A clone that worked.
#[derive(Debug)]
struct Cloned {
    commit: String,
    skipped: Skipped,
    tree: Spool,
}

/// The policy under which a repository is cloned without a binding: its host and its port, and nothing else.
pub(crate) fn allowed(url: &RepoUrl) -> Allowed {
    let (cidr, domain) = match &url.host {
        Host::Name(name) => (None, Some(name.clone())),
        Host::Address(IpAddr::V4(address)) => (Some(format!("{address}/32")), None),
        Host::Address(IpAddr::V6(address)) => (Some(format!("{address}/128")), None),
    };
    let rule = EgressRule::Target(EgressTarget { cidr, domain, ports: vec![url.port] });
    Allowed { mode: EgressMode::Allowlist, allow: vec![rule] }
}

/// Whether this deployment lets anybody reach the repository's host, as far as its name says.
pub(crate) fn reachable(url: &RepoUrl, deployment: model::egress::Deployment) -> Result<(), Refused> {
    let policy = Policy::new(&allowed(url), deployment);
    match &url.host {
        Host::Name(name) => policy.name(name, Some(url.port)),
        Host::Address(address) => policy.address(*address, url.port, None),
    }
}

impl Driver {
    /// What is put into the working directory; clones the repository if the session has one.
    pub(super) async fn inputs(&mut self) -> Result<Inputs, NotBooted> {
        let files = Files { inline: std::mem::take(&mut self.spec.files), uploads: self.uploads.take() };
        let Some(repository) = self.spec.source.clone() else { return Ok(Inputs::of(files)) };
        let shown = json!({ "repo": repository.url.to_string(), "ref": repository.reference });
        self.note(AuditType::CloneStarted, shown).await?;
        let mut left = Left::Nothing;
        let cloned = self.cloned(&repository, files.bytes(), &mut left).await;
        let finished = match cloned {
            Ok(cloned) => {
                let Skipped { links, submodules, names } = cloned.skipped;
                let completed = json!({
                    "commit": cloned.commit,
                    "files": cloned.tree.entries().len(),
                    "bytes": cloned.tree.bytes(),
                    "skipped": { "links": links, "submodules": submodules, "names": names },
                });
                match Inputs::with(files, cloned.tree, &repository.entrypoint).await {
                    Ok((inputs, code)) => {
                        self.spec.code = code;
                        self.note(AuditType::CloneCompleted, completed).await.map(|()| inputs)
                    }
                    Err(error) => Err(self.clone_failed(error.into()).await),
                }
            }
            Err(error) => Err(self.clone_failed(error).await),
        };
        finished.map_err(|not_booted| NotBooted { left, ..not_booted })
    }

    async fn clone_failed(&mut self, error: CloneError) -> NotBooted {
        if matches!(error, CloneError::Tree(_) | CloneError::Violation(_) | CloneError::Lost | CloneError::NoProgram(_))
        {
            self.log_failure("clone", &error);
        }
        let mut detail = plain(&error.to_string());
        if let (CloneError::Refused(_), Some(denial)) = (&error, self.before.denials.first()) {
            detail = format!("{detail}; the gateway refused: {}", plain(&denial.reason));
        }
        let recorded = self.note(AuditType::CloneFailed, json!({ "detail": detail })).await;
        let verdict = match error {
            CloneError::Ended(verdict) => verdict,
            CloneError::Violation(_) => Verdict::Faulted(view::fault(FaultCode::ProtocolViolation, &detail)),
            CloneError::Refused(_)
            | CloneError::Unbound(_)
            | CloneError::TooSlow(_)
            | CloneError::TooLarge
            | CloneError::Limit
            | CloneError::Tree(_)
            | CloneError::NoProgram(_)
            | CloneError::Disk(_)
            | CloneError::Lost => {
                let detail = format!("the repository could not be cloned: {detail}");
                Verdict::Faulted(view::fault(FaultCode::CloneFailed, &detail))
            }
        };
        recorded.err().unwrap_or(NotBooted { verdict, left: Left::Nothing })
    }

    /// Records an event of the step. A session whose events cannot be recorded does not go on.
    async fn note(&mut self, kind: AuditType, data: Value) -> Result<(), NotBooted> {
        let draft = Draft::platform(self.inner.clock.now(), kind, self.session.id, data);
        let change = Change { state: self.state.clone(), drafts: vec![draft], sandbox: None, result: None };
        let unrecorded = |_| NotBooted { verdict: Verdict::Faulted(drained()), left: Left::Nothing };
        self.record(change).await.map_err(unrecorded)
    }

    /// Boots the sandbox, clones, and removes it. What is left of a boot that failed goes to `left`; what is left of the
    /// sandbox is kept for the session's end.
    async fn cloned(&mut self, repository: &Repository, own_bytes: u64, left: &mut Left) -> Result<Cloned, CloneError> {
        let bound = self.inner.bound_repository(self.session.org_id, repository).await?;
        let limits = self.clone_limits();
        let shape = Shape {
            // The deployment's default, which has git; the session's own image need not.
            image: self.backend.capabilities().images.first().cloned().unwrap_or_default(),
            language: Language::Python,
            disk_bytes: limits.disk_bytes,
            egress: true,
        };
        let gateway = self.clone_gateway(repository, bound.as_ref());
        let sandbox = self
            .boot(shape, SandboxSpec { limits, gateway: Some(gateway), grace: Duration::ZERO })
            .await
            .map_err(|not_booted| {
                *left = not_booted.left;
                CloneError::Ended(not_booted.verdict)
            })?;
        let Sandbox { id, channel, gateway } = sandbox;
        self.leftovers.push(id.clone());
        let egress = Egress::of(self, gateway);
        let (mut sender, mut receiver) = channel.assign(&self.session.id.to_string());
        let room = self.spec.limits.disk_bytes.saturating_sub(own_bytes);
        let start = self.clone_start(repository, bound.as_ref(), &limits, room.min(MAX_TREE_BYTES));
        let patience = self.inner.config.clone_patience;
        let outcome = tokio::select! {
            biased;
            by = self.live.cancelled() => Err(CloneError::Ended(Verdict::Cancelled { by })),
            () = self.inner.deadline.cancelled() => Err(CloneError::Ended(Verdict::Faulted(drained()))),
            outcome = timeout(patience, self.play(&id, start, &mut sender, &mut receiver)) => {
                outcome.unwrap_or(Err(CloneError::TooSlow(patience)))
            }
        };
        // With the sandbox its gateway ends, and has told everything then.
        if let Err(error) = self.inner.kill(self.backend.as_ref(), &id).await {
            self.log_failure("kill", &error);
        }
        self.before = egress.close(self.session.id).await;
        self.remove_clone(&id).await;
        let cloned = outcome?;
        let wanted = &repository.reference;
        if is_commit(wanted) && !wanted.eq_ignore_ascii_case(&cloned.commit) {
            return Err(CloneError::Refused("another commit came than the one that was asked for".to_owned()));
        }
        let bytes = cloned.tree.bytes().saturating_add(own_bytes);
        if bytes > self.spec.limits.disk_bytes { Err(CloneError::Disk(bytes)) } else { Ok(cloned) }
    }

    /// One try; what is left then is the session's end to remove.
    async fn remove_clone(&mut self, id: &SandboxId) {
        match self.inner.destroy(self.backend.as_ref(), id).await {
            Ok(residue) if residue.is_none() => {
                self.inner.reaper.disown(id);
                self.leftovers.retain(|left| left != id);
            }
            Ok(residue) => tracing::warn!(session = %self.session.id, sandbox = %id, residue = ?residue.0, "residue"),
            Err(error) => self.log_failure("destroy", &error),
        }
    }

    fn clone_limits(&self) -> Limits {
        let maxima = &self.inner.config.maxima;
        Limits {
            memory_bytes: MEMORY_BYTES.min(maxima.memory_bytes),
            disk_bytes: DISK_BYTES.min(maxima.disk_bytes),
            pids: PIDS.min(maxima.pids),
            cpu_millis: Limits::default().cpu_millis.min(maxima.cpu_millis),
            ..Limits::default()
        }
    }

    fn clone_gateway(&self, repository: &Repository, bound: Option<&BoundRepository>) -> GatewaySpec {
        let config = &self.inner.config;
        // With a credential, its binding is the only way: a redirect to the repository's own URL would be one without.
        let egress = if bound.is_some() { Allowed::default() } else { allowed(&repository.url) };
        GatewaySpec {
            session: self.session.id,
            policy: Policy::new(&egress, config.deployment.clone()),
            limits: GatewayLimits { bytes: config.gateway.bytes.min(MAX_WIRE_BYTES), ..config.gateway },
            bindings: bound.map(|bound| bound.service.clone()).into_iter().collect(),
        }
    }

    fn clone_start(
        &self,
        repository: &Repository,
        bound: Option<&BoundRepository>,
        limits: &Limits,
        most_bytes: u64,
    ) -> HostFrame {
        let shown = repository.url.to_string();
        let url = bound
            .map_or_else(|| shown.clone(), |bound| format!("{}{}", base_url(&bound.service.spec.name), bound.path));
        let subpath = repository.subpath.clone().unwrap_or_default();
        HostFrame::Start(Box::new(Start {
            session_id: self.session.id.to_string(),
            language: protocol::Language::Python,
            code: PROGRAM.to_owned(),
            args: vec![
                url,
                shown,
                repository.reference.clone(),
                subpath,
                most_bytes.to_string(),
                MAX_FILES.to_string(),
            ],
            // Nothing in that sandbox is worth reaching.
            env: proxy_env(&format!(".{INTERNAL_DOMAIN}")),
            pids: limits.pids,
            output_bytes: most_bytes.saturating_add(FRAMING_BYTES),
            disk_bytes: limits.disk_bytes,
            entrypoint: None,
            interactive: false,
            stays: false,
        }))
    }

    /// Runs the program to its end.
    async fn play(
        &self,
        id: &SandboxId,
        start: HostFrame,
        sender: &mut Sender,
        receiver: &mut Receiver,
    ) -> Result<Cloned, CloneError> {
        let most_bytes = self.spec.limits.disk_bytes.min(MAX_TREE_BYTES);
        let mut reader = Reader::new(most_bytes).await.map_err(TreeError::from)?;
        match sender.send(&start).await {
            // The pipe closes when the sandbox dies; why, comes from the backend.
            Ok(()) | Err(ChannelError::Io(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let (mut said, mut read) = (None, Ok(()));
        let exit = loop {
            match receiver.next().await {
                Ok(Some(GuestFrame::Output { stream: Stream::Stdout, data })) => {
                    // It may still say why it broke off.
                    if read.is_ok() {
                        read = reader.push(&data).await;
                    }
                }
                Ok(Some(GuestFrame::Result { json })) => said = Some(json),
                Ok(Some(GuestFrame::Exited { exit, .. })) => break exit,
                Ok(Some(GuestFrame::Exceeded { limit: protocol::GuestLimit::Disk })) => {
                    return Err(CloneError::TooLarge);
                }
                Ok(Some(GuestFrame::Exceeded { .. })) => return Err(CloneError::Limit),
                Ok(Some(GuestFrame::Started { .. } | GuestFrame::Output { stream: Stream::Stderr, .. })) => {}
                Ok(Some(GuestFrame::Fault { message } | GuestFrame::NotPut { message, .. })) => {
                    tracing::warn!(session = %self.session.id, message = %message.escape_debug(), "clone: runner fault");
                    return Err(CloneError::Lost);
                }
                Ok(Some(GuestFrame::Hello { .. } | GuestFrame::Turned(_))) => {
                    unreachable!(
                        "the channel's order check lets a hello through once, before this, and no turn was sent"
                    )
                }
                Ok(Some(GuestFrame::File(_) | GuestFrame::Terminal(_))) => {
                    return Err(ChannelError::from(OrderError::Unasked).into());
                }
                Ok(None) | Err(ChannelError::Io(_)) => {
                    return Err(self.limit_behind(id).await.map_or(CloneError::Lost, over));
                }
                Err(error) => return Err(error.into()),
            }
        };
        let said = said.and_then(|json| serde_json::from_slice::<Said>(&json).ok());
        let exceeded = self.inner.observe(self.backend.as_ref(), id).await.ok().and_then(|seen| seen.exceeded);
        match (said, exceeded, exit) {
            (_, Some(limit), _) => Err(over(limit)),
            (Some(Said::Failed { error }), None, _) => Err(CloneError::Refused(error)),
            (Some(Said::Cloned { commit, skipped }), None, Exit::Code(0)) => {
                read?;
                if !is_commit(&commit) {
                    return Err(CloneError::Refused("the commit that came has no id".to_owned()));
                }
                Ok(Cloned { commit, skipped, tree: reader.finish().await? })
            }
            (Some(Said::Cloned { .. }) | None, None, _) => {
                read?;
                Err(CloneError::Lost)
            }
        }
    }

    /// What was heard from the clone's gateway, for the session's result.
    pub(super) fn heard_before(&mut self) -> Heard {
        std::mem::take(&mut self.before)
    }
}

/// Whether a text is the whole id of a commit.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn over(limit: SandboxLimit) -> CloneError {
    match limit {
        SandboxLimit::Disk => CloneError::TooLarge,
        SandboxLimit::Cpu | SandboxLimit::Memory | SandboxLimit::Pids => CloneError::Limit,
    }
}

/// A stranger's words in one bounded line.
fn plain(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line: String = lines.join("; ").chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match line.char_indices().nth(MAX_DETAIL) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use model::egress::Deployment;

    use super::*;

    #[test]
    fn a_clone_reaches_its_host_and_port_and_nothing_else() {
        let url: RepoUrl = "https://git.example:8443/a/b".parse().unwrap();
        let policy = Policy::new(&allowed(&url), Deployment::default());
        assert!(policy.name("git.example", Some(8443)).is_ok());
        assert!(policy.name("git.example", Some(443)).is_err());
        assert!(policy.name("other.example", Some(8443)).is_err());
        assert!(policy.address("192.0.2.1".parse().unwrap(), 8443, None).is_err());
    }

    #[test]
    fn addresses_that_nobody_may_reach_are_known_before_anything_starts() {
        let reach = |url: &str| reachable(&url.parse().unwrap(), Deployment::default());
        for url in ["http://169.254.169.254/r", "http://0xa9fea9fe/r", "https://[::1]/r", "http://127.1:80/r"] {
            assert!(reach(url).is_err(), "{url}");
        }
        for url in ["https://93.184.216.34/r", "https://example.org/r", "http://10.0.0.1/r"] {
            assert!(reach(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn strangers_words_are_one_bounded_line() {
        assert_eq!(plain("fatal: a\n\n  remote: \u{1b}[2Jb\r\n"), "fatal: a; remote: \u{fffd}[2Jb");
        assert_eq!(plain(&"é".repeat(2 * MAX_DETAIL)).chars().count(), MAX_DETAIL + 1);
    }
}
