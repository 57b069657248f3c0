//! `enclave serve`: from the configuration to a listening server, and from a signal to nothing left.

use std::{io, net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::{Context, bail};
use backend::pool::Pool;
use clap::Args;
use engine::Engine;
use tokio::{
    net::{TcpListener, lookup_host},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    backends,
    data_dir::DataDir,
    logging, metrics, platform, process,
    settings::{
        Layers, Profile, Settings,
        flags::{AllFlags, ConfigFlag},
    },
    signals::Signals,
};

/// How long an address may be in use by a server that was killed a moment ago: what it had forked dies after it.
const RELEASE_PATIENCE: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Threads for work that blocks. Most of it is short; the end of a sandbox whose processes do not die takes seconds, and
/// must not keep others from being killed.
const BLOCKING_THREADS: usize = 256;

const EXIT_CODES: &str = "\
Exit codes:
  0  a signal ended it, and everything was reclaimed
  1  it could not start, or failed; stderr says why
  2  the command line or the configuration is wrong

Every key can also stand in the configuration file and in the environment; docs/configuration.md lists them.";

/// Serve the REST API.
///
/// On SIGTERM or SIGINT it takes no further sessions, lets those that run finish for as long as drain_seconds says, ends
/// the rest, removes every sandbox, and leaves. A second signal ends running sessions at once.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    config: ConfigFlag,
    #[command(flatten)]
    flags: AllFlags,
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let layers = Layers::load(args.config.config.as_deref(), args.flags.0)?;
    let settings = Settings::read(&layers)?;
    logging::start(&settings.log);
    for warning in &layers.warnings {
        tracing::warn!("{warning}");
    }
    if let Some(file) = &layers.file {
        tracing::info!(file = %file.display(), "configuration read");
    }
    process::harden();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.worker_threads)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .context("the runtime does not start")?;
    let served = runtime.block_on(serve(&settings));
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve(settings: &Settings) -> anyhow::Result<()> {
    let signals = Signals::take().context("signals cannot be taken")?;
    let profile = settings.sessions.profile;
    let listener = bind(&settings.listening.listen, profile).await?;
    let metrics_listener = match &settings.listening.metrics_listen {
        Some(address) => Some(bind(address, profile).await?),
        None => None,
    };
    let address = listener.local_addr().context("the listener has no address")?;
    if profile == Profile::Dev {
        eprint!("{}", banner(address));
    } else if !is_loopback(address) {
        tracing::warn!(%address, "the API speaks plain HTTP: keys and output can be read on the network on their way");
    }

    let dir = DataDir::prepare(&settings.state.data_dir, settings.state.is_default)?;
    let _lock = dir.lock()?;
    let mut chosen = backends::choose(settings, &dir).await?;
    let pool = chosen.warmed(settings.sessions.warm);
    let capabilities = chosen.backend.capabilities();
    tracing::info!(backend = capabilities.name, why = chosen.why, kernel = capabilities.enforcement.kernel, "backend");
    if !capabilities.executes {
        tracing::warn!(backend = capabilities.name, "this backend executes nothing; every result is a model");
    }
    if let Some(listener) = metrics_listener {
        let address = listener.local_addr().context("the listener has no address")?;
        let handle = metrics::collect(capabilities.name, profile.as_str())?;
        tokio::spawn(metrics::serve(listener, handle));
        tracing::info!(url = %format_args!("http://{address}/metrics"), "metrics");
    }
    let engine = platform::start(settings, &dir, &chosen).await?;
    // Only now: what an earlier process left has been removed, and what is booted from here on is ours.
    if let (Some(pool), Some(usual)) = (&pool, backends::usual_shape(capabilities, &settings.sessions.maxima)) {
        pool.expect(&usual);
    }

    let api_settings = platform::api_settings(settings);
    let router = api::router(engine.clone(), api_settings.clone());
    let stop = CancellationToken::new();
    let mut served = tokio::spawn(api::serve(listener, router, api_settings, stop.clone()));
    tracing::info!(
        url = %format_args!("http://{address}"),
        backend = capabilities.name,
        isolation = capabilities.isolation.as_str(),
        profile = profile.as_str(),
        max_concurrency = settings.sessions.max_concurrency,
        data_dir = %dir.path().display(),
        "listening"
    );

    let failed = tokio::select! {
        () = signals.at_least(1) => false,
        _ = &mut served => true,
    };
    let reclaimed = drain(&engine, pool.as_deref(), settings, &signals).await;
    stop.cancel();
    if failed {
        bail!("the API's listener ended by itself");
    }
    served.await.context("the API's listener failed")?;
    reclaimed.context("not everything was reclaimed")?;
    tracing::info!("stopped; nothing is left");
    Ok(())
}

/// Ends the engine. The API goes on meanwhile: it refuses creations, and serves results and streams to their end.
async fn drain(
    engine: &Engine,
    pool: Option<&Pool>,
    settings: &Settings,
    signals: &Signals,
) -> Result<(), engine::ShutdownError> {
    let patience = settings.sessions.drain;
    engine.stop_admitting();
    if let Some(pool) = pool {
        pool.close().await;
    }
    tracing::info!(seconds = patience.as_secs(), "stopping: no further sessions; a second signal ends those that run");
    let drained = engine.shutdown(patience);
    tokio::pin!(drained);
    tokio::select! {
        reclaimed = &mut drained => return reclaimed,
        () = signals.at_least(2) => tracing::warn!("a second signal: running sessions are ended"),
    }
    tokio::join!(drained, engine.shutdown(std::time::Duration::ZERO)).1
}

/// Listens. In the dev profile every address that the name stands for must be loopback: which of them is taken would
/// otherwise be chance.
async fn bind(address: &str, profile: Profile) -> anyhow::Result<TcpListener> {
    let addresses: Vec<SocketAddr> =
        lookup_host(address).await.with_context(|| format!("{address} is not an address of this host"))?.collect();
    match profile {
        Profile::Dev => {
            if let Some(open) = addresses.iter().find(|address| !is_loopback(**address)) {
                bail!(
                    "profile dev lets anybody who reaches it act as an owner, and listens on loopback only: {address} \
                     is {open}. Take 127.0.0.1, or profile selfhost with API keys (enclave key create)"
                );
            }
        }
        Profile::SelfHost | Profile::Hosted => {}
    }
    let until = Instant::now() + RELEASE_PATIENCE;
    loop {
        match TcpListener::bind(addresses.as_slice()).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => sleep(LOOK_AGAIN).await,
            bound => return bound.with_context(|| format!("cannot listen on {address}")),
        }
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn banner(address: SocketAddr) -> String {
    let lines = [
        "DEV PROFILE: nobody is asked who they are.".to_owned(),
        format!("Every call to http://{address} without an API key acts as the"),
        "owner of org dev. Whoever can reach this port, any user and any".to_owned(),
        "program of this machine, can run programs and read every result.".to_owned(),
        "For anything but development: --profile selfhost.".to_owned(),
    ];
    let width = lines.iter().map(String::len).max().unwrap_or(0);
    let rule = "!".repeat(width + 6);
    let body: Vec<_> = lines.iter().map(|line| format!("!! {line:<width$} !!")).collect();
    format!("{rule}\n{}\n{rule}\n", body.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_dev_profile_listens_on_loopback_only() {
        for open in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0"] {
            let error = bind(open, Profile::Dev).await.unwrap_err().to_string();
            assert!(error.contains("loopback only"), "{error}");
        }
        for closed in ["127.0.0.1:0", "localhost:0", "127.9.9.9:0"] {
            bind(closed, Profile::Dev).await.unwrap();
        }
        bind("0.0.0.0:0", Profile::SelfHost).await.unwrap();
    }

    #[test]
    fn the_banner_is_a_box() {
        let banner = banner("127.0.0.1:8088".parse().unwrap());
        let widths: Vec<_> = banner.lines().map(str::len).collect();
        assert!(widths.len() > 4 && widths.iter().all(|width| *width == widths[0]), "{banner}");
    }
}
