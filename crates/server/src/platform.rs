//! Store, backend and engine put together: the same for a server and for one that a command starts for itself.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context;
use engine::{Clock, Config, Engine, Ids, Keep, Keys, Parts};
use model::{egress::Deployment, gateway::GatewayLimits, webhook::Receivers};
use store::{Store, sqlite::Sqlite};

use crate::{
    artifact_store::ArtifactStore,
    backends::Chosen,
    courier::HttpCourier,
    data_dir::{DataDir, make_private},
    secrets,
    settings::{Profile, Settings, State},
};

/// Room for several of the largest bodies at once.
const BODIES_AT_ONCE: usize = 32;

/// Opens the database of a data directory.
pub(crate) async fn open_store(state: &State, dir: &DataDir) -> anyhow::Result<Arc<dyn Store>> {
    let path: PathBuf = state.database.clone().unwrap_or_else(|| dir.database());
    make_private(&path)?;
    let store = Sqlite::open(&path).await.context("the database cannot be used")?;
    Ok(Arc::new(store))
}

/// The keys of a data directory, whether or not a server runs on it.
pub(crate) async fn open_keys(state: &State, dir: &DataDir) -> anyhow::Result<(Keys, Arc<dyn Store>)> {
    let pepper = dir.pepper()?;
    let store = open_store(state, dir).await?;
    Ok((Keys::new(Arc::clone(&store), pepper, Clock::System, Ids::from_os()), store))
}

/// Starts the engine: whatever an earlier process left is ended and removed before this returns.
pub(crate) async fn start(settings: &Settings, dir: &DataDir, chosen: &Chosen) -> anyhow::Result<Engine> {
    let receivers = Receivers::new(settings.webhook_permitted.clone());
    let courier = HttpCourier::new(settings.egress.resolver, receivers.clone()).context("webhooks cannot be sent")?;
    let parts = Parts {
        store: open_store(&settings.state, dir).await?,
        backends: vec![Arc::clone(&chosen.backend)],
        clock: Clock::System,
        ids: Ids::from_os(),
        pepper: dir.pepper()?,
        vault: secrets::vault(&settings.secrets_key, dir).await?,
        courier: Arc::new(courier),
    };
    let place = settings.sessions.artifact_store.clone();
    let depot = place.unwrap_or_else(|| ArtifactStore::Directory(dir.artifacts())).open().await?;
    let (age, org_bytes) = (settings.sessions.artifact_retention, settings.sessions.artifact_quota);
    let config = Config { receivers, artifacts: Some(Keep { depot, age, org_bytes }), ..config(settings) };
    Engine::start(config, parts).await.context("the engine does not start")
}

fn config(settings: &Settings) -> Config {
    let sessions = &settings.sessions;
    Config {
        profile: match sessions.profile {
            Profile::Dev => engine::Profile::Dev,
            Profile::SelfHost | Profile::Hosted => engine::Profile::SelfHost,
        },
        max_concurrency: sessions.max_concurrency,
        max_queue: sessions.max_queue,
        maxima: sessions.maxima,
        interactive: sessions.interactive,
        replay_bytes: sessions.replay_bytes,
        deployment: Deployment { permitted: settings.egress.permitted.clone(), own: Vec::new() },
        gateway: GatewayLimits { bytes: settings.egress.bytes, ..GatewayLimits::default() },
        ..Config::default()
    }
}

/// The API's settings.
pub(crate) fn api_settings(settings: &Settings) -> api::Settings {
    let defaults = api::Settings::default();
    let body_limit = settings.listening.body_limit;
    api::Settings {
        profile_is_dev: settings.sessions.profile == Profile::Dev,
        body_limit,
        body_budget: defaults.body_budget.max(body_limit.saturating_mul(BODIES_AT_ONCE)),
        max_connections: settings.listening.max_connections,
        ..defaults
    }
}
