//! A server for the time of one command: `run` and `demo` start one when no other is named.
//!
//! It is the whole server, API included, on a loopback port of its own. Other users of the machine can reach that port,
//! so it authenticates like any other: the key is made here, and known to this process alone.
//!
//! Its data directory is a slot: the first of `embedded/0`, `embedded/1`, … that no other process holds. A server that
//! was killed leaves its slot, and the next one that takes it has the same instance name, so that it finds and removes
//! the sandboxes that were left. When it ends by itself, the slot is removed.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use client::Client;
use engine::Engine;
use model::access::Subject;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use wire::Role;

use crate::{
    audit, backends,
    data_dir::DataDir,
    logging, platform, process,
    settings::{Layers, Settings, State, layers::Flags},
};

/// The org of whoever runs the command.
const ORG: &str = "local";
/// Commands of one user at the same time.
const SLOTS: u32 = 1000;
/// How long sessions that nobody waits for may still take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a command decides about its server.
#[derive(Clone, Debug, Default)]
pub(crate) struct EmbeddedOptions {
    /// Name of the backend; the strongest that works when none.
    pub(crate) backend: Option<String>,
    /// The key `egress_permit`, if not what the environment says.
    pub(crate) permit: Option<String>,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Embedded {
    running: Running,
    slot: Slot,
}

#[derive(Debug)]
struct Running {
    client: Client,
    engine: Engine,
    state: State,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Embedded {
    /// Starts it; what an earlier one left behind in the same slot is removed first.
    pub(crate) async fn start(options: EmbeddedOptions) -> anyhow::Result<Self> {
        process::harden();
        let parent = Layers::embedded(Flags::new()).and_then(|layers| State::read(&layers))?.data_dir.join("embedded");
        Self::start_in(&parent, options).await
    }

    async fn start_in(parent: &Path, options: EmbeddedOptions) -> anyhow::Result<Self> {
        let slot =
            Slot::take(parent).with_context(|| format!("no place for a data directory in {}", parent.display()))?;
        match Running::start(options, &slot.dir).await {
            Ok(running) => Ok(Self { running, slot }),
            Err(error) => {
                // What it says matters more than what is left of a directory.
                let _ = slot.remove();
                Err(error)
            }
        }
    }

    /// A client that may do everything; its base URL is where the server listens.
    pub(crate) fn client(&self) -> Client {
        self.running.client.clone()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &Path {
        self.slot.dir.path()
    }

    /// Ends what still runs, removes every sandbox, and the data directory.
    pub(crate) async fn shutdown(self) -> anyhow::Result<()> {
        self.running.stop().await?;
        self.slot.remove()
    }

    /// The same, and checks the audit log before it is removed; gives the number of its entries.
    pub(crate) async fn shutdown_and_verify(self) -> anyhow::Result<u64> {
        let state = self.running.stop().await?;
        let verified = audit::verify_all(&state, self.slot.dir.path()).await;
        self.slot.remove()?;
        verified
    }
}

impl Running {
    async fn start(options: EmbeddedOptions, dir: &DataDir) -> anyhow::Result<Self> {
        let settings = settings(options, dir.path())?;
        logging::start(&settings.log);
        let chosen = backends::choose(&settings, dir).await?;
        let engine = platform::start(&settings, dir, &chosen).await?;
        let org = engine.ensure_org(ORG).await.context("the org cannot be made")?;
        let key = engine.create_key(org, "embedded", Role::Owner, None, Subject::Operator).await;
        let key = key.context("the key cannot be made")?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
        let url = format!("http://{}", listener.local_addr().context("the listener has no address")?);
        let client = Client::new(&url, Some(key.presented))?;
        let api_settings = platform::api_settings(&settings);
        let router = api::router(engine.clone(), api_settings.clone());
        let stop = CancellationToken::new();
        let served = tokio::spawn(api::serve(listener, router, api_settings, stop.clone()));
        Ok(Self { client, engine, state: settings.state, stop, served })
    }

    async fn stop(self) -> anyhow::Result<State> {
        let reclaimed = self.engine.shutdown(PATIENCE).await;
        self.stop.cancel();
        self.served.await.context("the API's listener failed")?;
        reclaimed.context("not everything was reclaimed")?;
        Ok(self.state)
    }
}

fn settings(options: EmbeddedOptions, data_dir: &Path) -> anyhow::Result<Settings> {
    let data_dir = data_dir.to_str().context("the data directory's path is not UTF-8")?;
    let mut decided = Flags::from([
        ("data_dir", data_dir.to_owned()),
        ("profile", "selfhost".to_owned()),
        ("listen", "127.0.0.1:0".to_owned()),
        ("metrics_listen", "off".to_owned()),
        ("database_url", format!("sqlite:{data_dir}/enclave.db")),
    ]);
    decided.extend(options.backend.map(|backend| ("backend", backend)));
    decided.extend(options.permit.map(|permit| ("egress_permit", permit)));
    if std::env::var_os("ENCLAVE_LOG_LEVEL").is_none_or(|level| level.is_empty()) {
        // The terminal belongs to the program that is run.
        decided.insert("log_level", "error".to_owned());
    }
    Ok(Settings::read(&Layers::embedded(decided)?)?)
}

/// A data directory that this process holds.
#[derive(Debug)]
struct Slot {
    dir: DataDir,
    lock_path: PathBuf,
    _lock: File,
}

impl Slot {
    /// Takes one that a killed process left, else the first one that is free. What was left in it is recovered like any
    /// server's.
    fn take(parent: &Path) -> anyhow::Result<Self> {
        let parent_dir = DataDir::prepare(parent, true)?;
        let entries = fs::read_dir(parent_dir.path())?;
        let left: BTreeSet<u32> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
        let free = (0..SLOTS).filter(|number| !left.contains(number));
        for number in left.iter().copied().chain(free) {
            let lock_path = parent_dir.path().join(format!("{number}.lock"));
            let Some(lock) = try_lock(&lock_path).with_context(|| lock_path.display().to_string())? else { continue };
            let dir = DataDir::prepare(&parent_dir.path().join(number.to_string()), true)?;
            return Ok(Self { dir, lock_path, _lock: lock });
        }
        bail!("{SLOTS} commands hold one already")
    }

    /// The lock goes last: nobody takes the slot while it is being removed.
    fn remove(self) -> anyhow::Result<()> {
        let path = self.dir.path();
        fs::remove_dir_all(path).with_context(|| format!("{} cannot be removed", path.display()))?;
        fs::remove_file(&self.lock_path).with_context(|| format!("{} cannot be removed", self.lock_path.display()))
    }
}

/// The lock at `path`, unless another process has it. A file that was removed between opening and locking is no lock.
fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let same = fs::metadata(path).is_ok_and(|found| file.metadata().is_ok_and(|held| held.ino() == found.ino()));
    Ok(same.then_some(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_but_the_command_itself_gets_in_and_nothing_stays() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("embedded");
        let options = EmbeddedOptions { backend: Some("simulator".into()), ..EmbeddedOptions::default() };
        let embedded = Embedded::start_in(&parent, options).await.unwrap();
        let client = embedded.client();
        let stranger = Client::new(client.base_url().as_str(), None).unwrap();
        let refused = stranger.sessions(&client::ListSessions::default()).await.unwrap_err();
        assert_eq!(refused.problem().unwrap().code, wire::ErrorCode::Unauthenticated);

        let request = wire::CreateSession { code: Some("# sim: exit 0".into()), ..wire::CreateSession::default() };
        let created = client.create(&request).await.unwrap();
        client.result(created.id, Duration::from_secs(10)).await.unwrap();
        assert!(embedded.shutdown_and_verify().await.unwrap() > 5);
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_start_that_fails_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("embedded");
        let error = Embedded::start_in(
            &parent,
            EmbeddedOptions { backend: Some("docker".into()), ..EmbeddedOptions::default() },
        )
        .await
        .unwrap_err();
        assert!(error.to_string().contains("does not have the backend docker yet"), "{error:#}");
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
    }

    #[test]
    fn slots_are_taken_by_one_and_given_back() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("embedded");
        let first = Slot::take(&parent).unwrap();
        let second = Slot::take(&parent).unwrap();
        assert_ne!(first.dir.instance(), second.dir.instance());
        let (instance, path) = (first.dir.instance(), first.dir.path().to_owned());
        first.remove().unwrap();
        assert!(!path.exists());
        let (left, used) = (second.dir.instance(), second.dir.path().to_owned());
        drop(second);
        let again = Slot::take(&parent).unwrap();
        assert_eq!((again.dir.instance(), again.dir.path()), (left, used.as_path()), "what was left goes first");
        assert_eq!(Slot::take(&parent).unwrap().dir.instance(), instance);
    }

    #[test]
    fn a_killed_process_leaves_its_slot_to_the_next_one() {
        let temp = tempfile::tempdir().unwrap();
        let killed = Slot::take(temp.path().join("e").as_path()).unwrap();
        let instance = killed.dir.instance();
        drop(killed);
        assert_eq!(Slot::take(temp.path().join("e").as_path()).unwrap().dir.instance(), instance);
    }

    #[test]
    fn a_lock_that_was_removed_is_none() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.lock");
        let held = try_lock(&path).unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        let next = try_lock(&path).unwrap().unwrap();
        drop((held, next));
    }
}
