//! Which backend runs sessions, and whether the profile may have it.

use std::{net::SocketAddr, path::Path, sync::Arc};

use backend::{
    GatewayProgram, SessionBackend, Shape,
    pool::Pool,
    simulator::{Simulator, SimulatorConfig},
};
use backend_gvisor::{Gvisor, GvisorConfig, ImageRef, OpenError, find_runsc};
use engine::Ids;
use model::{capability::Capabilities, limits::Limits};
use wire::Isolation;

use crate::{
    data_dir::DataDir,
    doctor, image,
    settings::{BackendChoice, Profile, Settings},
};

/// The image that sessions get when they name none.
const DEFAULT_IMAGE: &str = "default";

/// A backend, and why it is this one.
pub(crate) struct Chosen {
    pub(crate) backend: Arc<dyn SessionBackend>,
    pub(crate) why: String,
}

impl Chosen {
    /// Keeps so many of its sandboxes booted ahead.
    pub(crate) fn warmed(&mut self, places: usize) -> Option<Arc<Pool>> {
        if places == 0 || !self.backend.capabilities().executes {
            return None;
        }
        let pool = Arc::new(Pool::new(Arc::clone(&self.backend), places));
        self.backend = pool.clone();
        Some(pool)
    }
}

/// What a session gets that asks for nothing in particular.
pub(crate) fn usual_shape(capabilities: &Capabilities, maxima: &Limits) -> Option<Shape> {
    let disk_bytes = Limits::default().disk_bytes.min(maxima.disk_bytes);
    let image = capabilities.images.first()?.clone();
    Some(Shape { image, language: *capabilities.languages.first()?, disk_bytes, egress: false })
}

/// Why there is no backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoBackend {
    /// Nothing that isolates works here.
    #[error(
        "no backend works on this host; `enclave doctor` tries every part of it.{missing}\n  simulator: executes nothing, \
         and is taken only when named: --backend simulator"
    )]
    Auto {
        /// What doctor misses, or else why the backend does not open.
        missing: String,
    },
    /// The one that was asked for does not work.
    #[error("the backend gvisor does not work on this host: {0}\n  to fix it: {fix}", fix = .0.fix())]
    Gvisor(NoGvisor),
    /// The profile is for a stronger one.
    #[error(
        "profile hosted runs programs of strangers, and refuses the backend {name}: {reason}. Take profile selfhost, or \
         a backend with a kernel boundary"
    )]
    Profile { name: &'static str, reason: &'static str },
}

/// Why gVisor does not work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoGvisor {
    #[error("there is no runsc in PATH")]
    NoRunsc,
    #[error("this program does not find itself: {0}")]
    Program(std::io::Error),
    #[error("{0}")]
    Image(#[from] image::ImageError),
    #[error("{}", chain(.0))]
    Open(#[from] OpenError),
}

impl NoGvisor {
    /// What to do about it.
    pub(crate) fn fix(&self) -> &'static str {
        match self {
            Self::NoRunsc => "install gVisor (the Debian package runsc, or `make setup`), or name it with --runsc",
            Self::Image(_) | Self::Open(OpenError::NoImage | OpenError::Image(_)) => {
                "enclave image build (another place with --image-dir)"
            }
            Self::Program(_) | Self::Open(OpenError::Gateway { .. }) => "start it from a file that stays there",
            Self::Open(OpenError::NotRoot) => "run it as root; the sandboxes themselves run as users of their own",
            Self::Open(OpenError::InUse(_)) => "stop the other server, or take another --data-dir",
            Self::Open(OpenError::Runsc { .. }) => {
                "install another version of gVisor, and name it with --runsc; `enclave doctor` says more"
            }
            Self::Open(
                OpenError::Instance(_)
                | OpenError::StateDir { .. }
                | OpenError::Cgroup(_)
                | OpenError::Process { .. }
                | OpenError::Boot(_),
            ) => "`enclave doctor` tries every part, and says what each needs",
        }
    }
}

/// An error and its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Opens the backend that the settings ask for.
pub(crate) async fn choose(settings: &Settings, dir: &DataDir) -> Result<Chosen, NoBackend> {
    let profile = settings.sessions.profile;
    let chosen = match settings.sessions.backend {
        BackendChoice::Simulator => {
            // Looked at before it is made: `hosted` and the simulator never exist together.
            if profile == Profile::Hosted {
                return Err(NoBackend::Profile { name: "simulator", reason: "it executes nothing" });
            }
            let seed = u64::from_le_bytes(Ids::from_os().bytes());
            let backend = Simulator::new(SimulatorConfig { seed, ..SimulatorConfig::default() });
            Chosen { backend: Arc::new(backend), why: "it was named; nothing is executed".into() }
        }
        BackendChoice::Gvisor => {
            let backend = gvisor(settings, dir).await.map_err(NoBackend::Gvisor)?;
            Chosen { backend: Arc::new(backend), why: "it was named, and a trial sandbox booted".into() }
        }
        BackendChoice::Auto => {
            let backend = match gvisor(settings, dir).await {
                Ok(backend) => backend,
                Err(error) => return Err(NoBackend::Auto { missing: missing(settings, &error).await }),
            };
            let why = "the strongest that works here: a trial sandbox booted under a kernel of its own";
            Chosen { backend: Arc::new(backend), why: why.into() }
        }
    };
    admit(profile, chosen.backend.capabilities())?;
    Ok(chosen)
}

/// Everything that is missing at once: who installs one thing only to be told of the next gives up.
async fn missing(settings: &Settings, error: &NoGvisor) -> String {
    let mut lines = doctor::missing(settings).await;
    if lines.is_empty() {
        lines.push(format!("gvisor: {error}\n    to fix it: {}", error.fix()));
    }
    lines.iter().map(|line| format!("\n  {line}")).collect::<Vec<_>>().concat()
}

/// `hosted` takes only what puts a kernel between strangers and the host.
fn admit(profile: Profile, capabilities: &Capabilities) -> Result<(), NoBackend> {
    match profile {
        Profile::Dev | Profile::SelfHost => Ok(()),
        Profile::Hosted => {
            let refuse = |reason| Err(NoBackend::Profile { name: capabilities.name, reason });
            match capabilities.isolation {
                Isolation::Microvm | Isolation::UserspaceKernel if capabilities.executes => Ok(()),
                Isolation::Microvm | Isolation::UserspaceKernel | Isolation::Simulated => refuse("it executes nothing"),
                Isolation::Container => refuse("its sandboxes share the host's kernel"),
            }
        }
    }
}

async fn gvisor(settings: &Settings, dir: &DataDir) -> Result<Gvisor, NoGvisor> {
    let given = &settings.gvisor;
    let runsc = given.runsc.clone().or_else(find_runsc).ok_or(NoGvisor::NoRunsc)?;
    let mut config = GvisorConfig::new(runsc, dir.sandboxes(), dir.instance());
    config.platform = given.platform;
    config.cgroup_parent.clone_from(&given.cgroup_parent);
    config.images = images(&given.image_dir)?;
    config.gateway = Some(gateway(settings.egress.resolver)?);
    Ok(Gvisor::open(config).await?)
}

/// This very program, as a gateway.
fn gateway(resolver: Option<SocketAddr>) -> Result<GatewayProgram, NoGvisor> {
    let program = std::env::current_exe().map_err(NoGvisor::Program)?;
    let mut arguments = vec!["gateway".to_owned()];
    arguments.extend(resolver.map(|address| format!("--resolver={address}")));
    Ok(GatewayProgram { program, arguments })
}

/// The default image, which must be there and be what was built, and the others as far as they are.
fn images(dir: &Path) -> Result<Vec<ImageRef>, NoGvisor> {
    let found = |image: image::Image| ImageRef { name: image.manifest.name, root: image.path };
    let mut images = vec![found(image::load(dir, DEFAULT_IMAGE)?)];
    for name in image::names(dir).unwrap_or_default().into_iter().filter(|name| name != DEFAULT_IMAGE) {
        match image::load(dir, &name) {
            Ok(image) => images.push(found(image)),
            Err(error) => tracing::warn!(image = name, %error, "an image is left out"),
        }
    }
    Ok(images)
}

#[cfg(test)]
mod tests {
    use wire::{Enforcement, ExecMode, Language};

    use super::*;

    fn capabilities(isolation: Isolation, executes: bool) -> Capabilities {
        let none = String::new;
        Capabilities {
            name: "test",
            isolation,
            executes,
            languages: vec![Language::Python],
            exec_modes: vec![ExecMode::Oneshot],
            images: vec![],
            enforcement: Enforcement {
                kernel: none(),
                egress: none(),
                cpu: none(),
                memory: none(),
                pids: none(),
                disk: none(),
                wall_clock: none(),
            },
            egress_allowlist: false,
            egress_enforcement: None,
        }
    }

    #[test]
    fn hosted_takes_only_a_kernel_boundary() {
        for (isolation, executes, admitted) in [
            (Isolation::Microvm, true, true),
            (Isolation::UserspaceKernel, true, true),
            (Isolation::UserspaceKernel, false, false),
            (Isolation::Container, true, false),
            (Isolation::Simulated, false, false),
            (Isolation::Simulated, true, false),
        ] {
            let capabilities = capabilities(isolation, executes);
            assert_eq!(admit(Profile::Hosted, &capabilities).is_ok(), admitted, "{isolation:?} {executes}");
            assert!(admit(Profile::SelfHost, &capabilities).is_ok());
        }
    }
}
