//! The configuration: read once at the start, then handed on as plain data.
//!
//! [`keys`] is the table of everything that can be said; [`layers`] decides who says it; here the text becomes values,
//! one struct per concern, and every fault is found before anything starts.

pub(crate) mod flags;
pub(crate) mod keys;
pub(crate) mod layers;
#[cfg(test)]
mod reference;
pub(crate) mod values;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use backend_gvisor::Platform;
use model::{
    egress::Permit,
    interactive::{CEILING as LIFE, FLOOR_MS, Interactive},
    limits::{CEILING, FLOOR, Limits},
};
use secrecy::SecretString;

pub(crate) use layers::{ConfigError, Layers};

use crate::{
    artifact_store::ArtifactStore,
    settings::keys::{Fallback, Key},
};

/// Memory that one session is taken to need when places are counted by default.
const PLACE_BYTES: u64 = 512 << 20;

/// Everything that a server is told.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) listening: Listening,
    pub(crate) state: State,
    pub(crate) secrets_key: SecretsKey,
    pub(crate) sessions: Sessions,
    pub(crate) egress: Egress,
    /// Addresses that webhooks may be sent to besides public ones.
    pub(crate) webhook_permitted: Vec<Permit>,
    pub(crate) gvisor: Gvisor,
    pub(crate) log: Log,
    pub(crate) worker_threads: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct Listening {
    pub(crate) listen: String,
    /// None when off.
    pub(crate) metrics_listen: Option<String>,
    pub(crate) max_connections: usize,
    pub(crate) body_limit: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) data_dir: PathBuf,
    /// Whether `data_dir` is where it is by default.
    pub(crate) is_default: bool,
    /// None for the file in `data_dir`.
    pub(crate) database: Option<PathBuf>,
}

/// Where the key comes from under which the secrets of bindings are sealed.
#[derive(Clone, Debug)]
pub(crate) enum SecretsKey {
    /// A file of the data directory, made if it is not there.
    DataDir,
    File(PathBuf),
    /// Here it is.
    Given(SecretString),
    /// A command for `sh` that prints it.
    Command(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Sessions {
    pub(crate) profile: Profile,
    pub(crate) backend: BackendChoice,
    pub(crate) max_concurrency: usize,
    pub(crate) max_queue: usize,
    /// Sandboxes that are kept booted ahead.
    pub(crate) warm: usize,
    pub(crate) replay_bytes: usize,
    /// None for the one in `data_dir`.
    pub(crate) artifact_store: Option<ArtifactStore>,
    pub(crate) artifact_retention: Duration,
    pub(crate) artifact_quota: u64,
    pub(crate) drain: Duration,
    pub(crate) maxima: Limits,
    pub(crate) interactive: Interactive,
}

#[derive(Clone, Debug)]
pub(crate) struct Egress {
    pub(crate) permitted: Vec<Permit>,
    /// None for the host's.
    pub(crate) resolver: Option<SocketAddr>,
    pub(crate) bytes: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Gvisor {
    pub(crate) image_dir: PathBuf,
    /// None for the first one in PATH.
    pub(crate) runsc: Option<PathBuf>,
    pub(crate) platform: Platform,
    pub(crate) cgroup_parent: Option<PathBuf>,
}

#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) format: LogFormat,
    pub(crate) filter: String,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    SelfHost,
    Hosted,
}

impl Profile {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::SelfHost => "selfhost",
            Self::Hosted => "hosted",
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Dev, Self::SelfHost, Self::Hosted]
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a profile: dev, selfhost or hosted"))
    }
}

/// Which backend was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BackendChoice {
    Auto,
    Gvisor,
    Simulator,
}

impl FromStr for BackendChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "gvisor" => Ok(Self::Gvisor),
            "simulator" => Ok(Self::Simulator),
            "firecracker" | "docker" | "kubernetes" => {
                Err(format!("this version does not have the backend {text} yet; it has gvisor and simulator"))
            }
            _ => Err(format!("{text:?} is not a backend: auto, gvisor or simulator")),
        }
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Auto,
    Human,
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "human" => Ok(Self::Human),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a log format: auto, human or json")),
        }
    }
}

impl Settings {
    /// Reads every key, or says everything that is wrong.
    pub(crate) fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let mut reader = Reader { layers, faults: Vec::new(), read: Vec::new() };
        let settings = reader.all();
        debug_assert_eq!(reader.read.len(), keys::KEYS.len(), "every key of the table is read once");
        if reader.faults.is_empty() { Ok(settings) } else { Err(ConfigError(reader.faults)) }
    }
}

impl State {
    /// Reads the keys of this section alone: for commands that work on a data directory without a server.
    pub(crate) fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let mut reader = Reader { layers, faults: Vec::new(), read: Vec::new() };
        let state = reader.state();
        if reader.faults.is_empty() { Ok(state) } else { Err(ConfigError(reader.faults)) }
    }
}

/// Where images are, for commands that want nothing else of the configuration.
pub(crate) fn image_dir(layers: &Layers) -> Result<PathBuf, ConfigError> {
    let mut reader = Reader { layers, faults: Vec::new(), read: Vec::new() };
    let dir = reader.image_dir();
    if reader.faults.is_empty() { Ok(dir) } else { Err(ConfigError(reader.faults)) }
}

struct Reader<'a> {
    layers: &'a Layers,
    faults: Vec<String>,
    read: Vec<&'static str>,
}

impl Reader<'_> {
    fn image_dir(&mut self) -> PathBuf {
        self.given("image_dir", path).unwrap_or_else(crate::image::default_dir)
    }

    fn all(&mut self) -> Settings {
        let maxima = self.maxima();
        Settings {
            listening: Listening {
                listen: self.text("listen", address).unwrap_or_default(),
                metrics_listen: self
                    .text("metrics_listen", |text| if text == "off" { Ok(None) } else { address(text).map(Some) })
                    .flatten(),
                max_connections: self
                    .text("max_connections", |text| values::number(text, &(1..=1_000_000)))
                    .unwrap_or(1),
                body_limit: self.text("body_limit", |text| bytes(text, 1 << 10, 1 << 30)).unwrap_or(0),
            },
            state: self.state(),
            secrets_key: self.secrets_key(),
            sessions: Sessions {
                profile: self.text("profile", str::parse).unwrap_or(Profile::Hosted),
                backend: self.text("backend", str::parse).unwrap_or(BackendChoice::Auto),
                max_concurrency: self
                    .given("max_concurrency", |text| values::number(text, &(1..=100_000)))
                    .unwrap_or_else(default_concurrency),
                max_queue: self.text("max_queue", |text| values::number(text, &(0..=1_000_000))).unwrap_or(0),
                warm: self.text("warm", |text| values::number(text, &(0..=10_000))).unwrap_or(0),
                replay_bytes: self.text("replay_buffer", |text| bytes(text, 1 << 20, 1 << 40)).unwrap_or(0),
                artifact_store: self.given("artifact_store", str::parse),
                artifact_retention: self.text("artifact_retention", values::duration).unwrap_or_default(),
                artifact_quota: self.text("artifact_quota", values::size).unwrap_or(0),
                drain: Duration::from_secs(
                    self.text("drain_seconds", |text| values::number(text, &(0..=86_400))).unwrap_or(0),
                ),
                interactive: self.interactive(&maxima),
                maxima,
            },
            egress: Egress {
                permitted: self.text("egress_permit", values::permits).unwrap_or_default(),
                resolver: self.given("egress_resolver", resolver),
                bytes: self.text("egress_bytes", values::size).unwrap_or(0),
            },
            webhook_permitted: self.text("webhook_permit", values::permits).unwrap_or_default(),
            gvisor: Gvisor {
                image_dir: self.image_dir(),
                runsc: self.given("runsc", path),
                platform: self.text("runsc_platform", platform).unwrap_or_default(),
                cgroup_parent: self.given("cgroup_parent", cgroup),
            },
            log: Log {
                format: self.text("log_format", str::parse).unwrap_or(LogFormat::Auto),
                filter: self.text("log_level", filter).unwrap_or_default(),
            },
            worker_threads: self
                .given("worker_threads", |text| values::number(text, &(1..=1024)))
                .unwrap_or_else(|| cores().min(8)),
        }
    }

    fn state(&mut self) -> State {
        let given = self.given("data_dir", path);
        let is_default = given.is_none();
        let data_dir = given.or_else(default_data_dir).unwrap_or_else(|| {
            self.faults.push("data_dir has no default here: neither XDG_DATA_HOME nor HOME is set".into());
            PathBuf::new()
        });
        State { is_default, data_dir, database: self.given("database_url", database) }
    }

    fn secrets_key(&mut self) -> SecretsKey {
        let file = self.given("secrets_key_file", path).map(SecretsKey::File);
        let given = self.given("secrets_key", |text| Ok(SecretsKey::Given(text.into())));
        let command = self.given("secrets_key_command", |text| Ok(SecretsKey::Command(text.to_owned())));
        let mut all = [file, given, command].into_iter().flatten();
        let first = all.next().unwrap_or(SecretsKey::DataDir);
        if all.next().is_some() {
            self.faults.push("give one of secrets_key_file, secrets_key and secrets_key_command, not several".into());
        }
        first
    }

    fn maxima(&mut self) -> Limits {
        let at_most = |floor: u64, ceiling: u64| move |text: &str| within(values::size(text)?, floor, ceiling, "bytes");
        let at_most_ms =
            |floor: u64, ceiling: u64| move |text: &str| within(values::millis(text)?, floor, ceiling, "ms");
        let cpu_time = (FLOOR.cpu_time_ms.unwrap_or(0), CEILING.cpu_time_ms.unwrap_or(u64::MAX));
        Limits {
            cpu_millis: self.text("max_cpu", cpu_millis).unwrap_or(0),
            cpu_time_ms: self.text("max_cpu_time", at_most_ms(cpu_time.0, cpu_time.1)),
            memory_bytes: self.text("max_memory", at_most(FLOOR.memory_bytes, CEILING.memory_bytes)).unwrap_or(0),
            wall_clock_ms: self
                .text("max_wall_clock", at_most_ms(FLOOR.wall_clock_ms, CEILING.wall_clock_ms))
                .unwrap_or(0),
            pids: self.text("max_pids", |text| values::number(text, &(FLOOR.pids..=CEILING.pids))).unwrap_or(0),
            disk_bytes: self.text("max_disk", at_most(FLOOR.disk_bytes, CEILING.disk_bytes)).unwrap_or(0),
            output_bytes: self.text("max_output", at_most(FLOOR.output_bytes, CEILING.output_bytes)).unwrap_or(0),
        }
    }

    /// What bounds a conversation: its lifetime is a time like that of a program, and nothing of it is longer.
    fn interactive(&mut self, maxima: &Limits) -> Interactive {
        let life =
            self.given("max_lifetime", |text| within(values::millis(text)?, FLOOR_MS, LIFE.max_lifetime_ms, "ms"));
        let life = life.unwrap_or(maxima.wall_clock_ms);
        let idle = self.given("max_idle_ttl", |text| within(values::millis(text)?, FLOOR_MS, LIFE.idle_ttl_ms, "ms"));
        Interactive {
            idle_ttl_ms: idle.unwrap_or(life).min(life),
            max_lifetime_ms: life,
            turn_timeout_ms: life,
            turn_budget_ms: Some(life),
        }
    }

    /// A key that has a default as text.
    fn text<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let key = self.key(name);
        let Fallback::Text(fallback) = key.default else { unreachable!("{name} has no default as text") };
        if self.layers.get(key).is_some() {
            return self.parsed(key, parse);
        }
        Some(parse(fallback).unwrap_or_else(|fault| unreachable!("the default of {name}: {fault}")))
    }

    /// A key whose default is worked out by the caller.
    fn given<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let key = self.key(name);
        self.parsed(key, parse)
    }

    fn key(&mut self, name: &'static str) -> &'static Key {
        self.read.push(name);
        keys::find(name).unwrap_or_else(|| unreachable!("{name} is in the table"))
    }

    fn parsed<T>(&mut self, key: &Key, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let given = self.layers.get(key)?;
        parse(&given.text).map_err(|fault| self.faults.push(format!("{}: {fault}", given.origin.spell(key)))).ok()
    }
}

fn address(text: &str) -> Result<String, String> {
    let port =
        text.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_some() { Ok(text.to_owned()) } else { Err(format!("{text:?} is not an address: 127.0.0.1:8088")) }
}

fn resolver(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an address and a port: 192.0.2.53:53"))
}

fn bytes(text: &str, least: u64, most: u64) -> Result<usize, String> {
    let bytes = within(values::size(text)?, least, most, "bytes")?;
    usize::try_from(bytes).map_err(|_| "is too much for this machine".to_owned())
}

fn within(value: u64, least: u64, most: u64, unit: &str) -> Result<u64, String> {
    if (least..=most).contains(&value) { Ok(value) } else { Err(format!("must be from {least} to {most} {unit}")) }
}

fn cpu_millis(text: &str) -> Result<u32, String> {
    let millis = (values::cores(text)? * 1000.0).round();
    let (least, most) = (FLOOR.cpu_millis, CEILING.cpu_millis);
    if !(f64::from(least)..=f64::from(most)).contains(&millis) {
        return Err(format!("must be from {} to {} cores", f64::from(least) / 1000.0, f64::from(most) / 1000.0));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked against the range just above")]
    let millis = millis as u32;
    Ok(millis)
}

fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(PathBuf::from(text)) }
}

fn cgroup(text: &str) -> Result<PathBuf, String> {
    let parent = Path::new(text.trim_start_matches('/'));
    let plain = parent.components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if plain && parent.components().next().is_some() {
        Ok(parent.to_owned())
    } else {
        Err(format!("{text:?} is not a path below the root of a cgroup hierarchy"))
    }
}

fn platform(text: &str) -> Result<Platform, String> {
    [Platform::Systrap, Platform::Ptrace, Platform::Kvm]
        .into_iter()
        .find(|platform| platform.as_str() == text)
        .ok_or_else(|| format!("{text:?} is not a platform: systrap, ptrace or kvm"))
}

/// The URL itself is never repeated: it may hold a password.
fn database(url: &str) -> Result<PathBuf, String> {
    if url.starts_with("postgres:") || url.starts_with("postgresql:") {
        return Err("this version does not have the Postgres store yet; it has sqlite:PATH".into());
    }
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
    path.filter(|path| !path.is_empty() && !path.contains('?') && *path != ":memory:")
        .map(PathBuf::from)
        .ok_or_else(|| "must be sqlite:PATH".to_owned())
}

fn filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{text:?} is not a log filter: {error}")),
    }
}

fn default_data_dir() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some("/var/lib/enclave".into());
    }
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = set("XDG_DATA_HOME").filter(|dir| dir.is_absolute());
    Some(data.or_else(|| set("HOME").map(|home| home.join(".local/share")))?.join("enclave"))
}

fn default_concurrency() -> usize {
    let memory = rustix::system::sysinfo();
    let total = memory.totalram.saturating_mul(u64::from(memory.mem_unit));
    let by_memory = usize::try_from(total / 4 * 3 / PLACE_BYTES).unwrap_or(usize::MAX);
    (cores() * 4).min(by_memory).max(1)
}

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests;
