//! Where values come from: defaults, below the file, below the environment, below the command line.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::settings::keys::{self, KEYS, Key};

/// A configuration is a page or two.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Variables of that prefix that belong to clients, scripts and tests.
const NOT_OURS: &[&str] =
    &["BASE_URL", "API_KEY", "CONFIG", "FIRECRACKER", "UPDATE", "SESSION_ID", "PREFIX", "BINARY", "SVC_"];

/// Everything that is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[error("the configuration is wrong:\n  {}", self.0.join("\n  "))]
pub(crate) struct ConfigError(pub(crate) Vec<String>);

/// Values as text, each with where it came from.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    values: BTreeMap<&'static str, Given>,
    /// What the operator should know, and what is no reason to stop.
    pub(crate) warnings: Vec<String>,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
}

pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// Without the text, which may be a secret.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    File(PathBuf),
    Environment,
    Flag,
    Embedding,
}

impl Origin {
    /// The key as it is spelled there.
    pub(super) fn spell(&self, key: &Key) -> String {
        match self {
            Self::File(path) => format!("{} in {}", key.name, path.display()),
            Self::Environment => key.env(),
            Self::Flag => format!("--{}", key.flag()),
            Self::Embedding => key.name.to_owned(),
        }
    }
}

/// Values given on the command line.
pub(crate) type Flags = BTreeMap<&'static str, String>;

impl Layers {
    /// What a server is configured with: the file at `config`, or else the first of the usual places, then the
    /// environment, then the flags.
    pub(crate) fn load(config: Option<&Path>, flags: Flags) -> Result<Self, ConfigError> {
        // An empty variable counts as not set.
        let file = match config.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Some(path.to_owned()),
            None => usual_places().into_iter().find(|path| path.exists()),
        };
        let mut layers = Self::default();
        let mut faults = Vec::new();
        if let Some(path) = file {
            match read_file(&path) {
                Ok(text) => layers.add_file(&path, &text, &mut faults),
                Err(error) => faults.push(format!("{} cannot be used: {error}", path.display())),
            }
            layers.file = Some(path);
        }
        layers.add_environment(std::env::vars_os(), &mut faults);
        layers.add(flags, &Origin::Flag);
        if faults.is_empty() { Ok(layers) } else { Err(ConfigError(faults)) }
    }

    /// What an embedded server is configured with: the environment, and what the embedding decides. It reads no file:
    /// that one describes the server of this machine, and need not be readable to whoever runs a program.
    pub(crate) fn embedded(decided: Flags) -> Result<Self, ConfigError> {
        let (mut layers, mut faults) = (Self::default(), Vec::new());
        layers.add_environment(std::env::vars_os(), &mut faults);
        layers.add(decided, &Origin::Embedding);
        if faults.is_empty() { Ok(layers) } else { Err(ConfigError(faults)) }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Given> {
        self.values.get(key.name)
    }

    fn add(&mut self, values: Flags, origin: &Origin) {
        for (name, text) in values {
            self.values.insert(name, Given { text, origin: origin.clone() });
        }
    }

    fn add_file(&mut self, path: &Path, text: &str, faults: &mut Vec<String>) {
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                return faults.push(format!("{} is not TOML: {}", path.display(), error.to_string().trim_end()));
            }
        };
        for (name, value) in table {
            let Some(key) = keys::find(&name) else {
                faults.push(format!("{name} in {} is not a key{}", path.display(), suggest(&name)));
                continue;
            };
            if key.is_secret() {
                faults.push(format!(
                    "{name} in {} is taken from the environment alone, as {}; {name}_file names a file of it",
                    path.display(),
                    key.env()
                ));
                continue;
            }
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
                    faults.push(format!("{name} in {} must be a string or a number", path.display()));
                    continue;
                }
            };
            self.values.insert(key.name, Given { text, origin: Origin::File(path.to_owned()) });
        }
    }

    /// A variable that is a letter or two away from a key is an error: a limit that was meant and is not set is worse
    /// than a server that does not start. Any other unknown one is a warning: orchestrators put variables of their own
    /// beside ours (`ENCLAVE_SERVICE_HOST`).
    fn add_environment(&mut self, vars: impl Iterator<Item = (OsString, OsString)>, faults: &mut Vec<String>) {
        let mut unknown = Vec::new();
        for (variable, value) in vars {
            let Some(name) = variable.to_str().and_then(|name| name.strip_prefix("ENCLAVE_")) else { continue };
            let Some(key) = KEYS.iter().find(|key| key.name.to_ascii_uppercase() == name) else {
                if !is_not_ours(name) {
                    unknown.push(name.to_owned());
                }
                continue;
            };
            match value.into_string() {
                // `ENCLAVE_X=` is how many tools write "not set".
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    self.values.insert(key.name, Given { text, origin: Origin::Environment });
                }
                Err(_) => faults.push(format!("{} is not UTF-8", key.env())),
            }
        }
        unknown.sort();
        for name in unknown {
            match closest(&name.to_ascii_lowercase()) {
                Some(key) => faults.push(format!("ENCLAVE_{name} is not a key; did you mean {}?", key.env())),
                None => self.warnings.push(format!("ENCLAVE_{name} is set, and is not a key of the configuration")),
            }
        }
    }
}

#[cfg(test)]
impl Layers {
    pub(crate) fn of_flags(flags: Flags) -> Self {
        let mut layers = Self::default();
        layers.say_by_flags(flags);
        layers
    }

    pub(crate) fn of_file(text: &str) -> Self {
        let (mut layers, mut faults) = (Self::default(), Vec::new());
        layers.add_file(Path::new("f"), text, &mut faults);
        assert_eq!(faults, Vec::<String>::new());
        layers
    }

    pub(crate) fn say_in_environment(&mut self, pairs: &[(&str, &str)]) {
        let mut faults = Vec::new();
        self.add_environment(pairs.iter().map(|(key, value)| (key.into(), value.into())), &mut faults);
        assert_eq!(faults, Vec::<String>::new());
    }

    pub(crate) fn say_by_flags(&mut self, flags: Flags) {
        self.add(flags, &Origin::Flag);
    }
}

fn is_not_ours(name: &str) -> bool {
    NOT_OURS.iter().any(|other| if other.ends_with('_') { name.starts_with(other) } else { name == *other })
        || name.starts_with("TEST_")
        || name.contains("SERVICE_HOST")
        || name.contains("SERVICE_PORT")
        || name == "PORT"
        || name.starts_with("PORT_")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}

fn suggest(name: &str) -> String {
    closest(name).map_or_else(String::new, |key| format!("; did you mean {}?", key.name))
}

/// The key that is at most two edits away.
fn closest(name: &str) -> Option<&'static Key> {
    KEYS.iter().map(|key| (distance(key.name, name), key)).filter(|(d, _)| *d <= 2).min_by_key(|(d, _)| *d).map(|x| x.1)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn usual_places() -> Vec<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(".config"));
    let xdg = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute()).or_else(home);
    let own = xdg.map(|dir| dir.join("enclave/enclave.toml"));
    [PathBuf::from("/etc/enclave/enclave.toml")].into_iter().chain(own).collect()
}

/// Why a file is not used.
#[derive(Debug)]
enum FileFault {
    Io(io::Error),
    NotAFile,
    TooLarge,
    Others,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NotAFile => f.write_str("it is not a regular file"),
            Self::TooLarge => write!(f, "it is larger than {MAX_FILE_BYTES} bytes"),
            Self::Others => f.write_str(
                "other users could change it, and with it who may call and what is isolated: it must belong to root or \
                 to the server's user, and be writable by nobody else (chmod go-w)",
            ),
        }
    }
}

fn read_file(path: &Path) -> Result<String, FileFault> {
    let file = fs::File::open(path).map_err(FileFault::Io)?;
    let metadata = file.metadata().map_err(FileFault::Io)?;
    if !metadata.is_file() {
        return Err(FileFault::NotAFile);
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.mode() & 0o022 != 0 || (metadata.uid() != 0 && metadata.uid() != own) {
        return Err(FileFault::Others);
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(FileFault::TooLarge);
    }
    io::read_to_string(file).map_err(FileFault::Io)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> (Layers, Vec<String>) {
        let (mut layers, mut faults) = (Layers::default(), Vec::new());
        layers.add_environment(pairs.iter().map(|(key, value)| (key.into(), value.into())), &mut faults);
        (layers, faults)
    }

    #[test]
    fn unknown_keys_of_a_file_are_errors_by_name() {
        let (mut layers, mut faults) = (Layers::default(), Vec::new());
        let text = "lisen = 'x'\nmax_queue = 5\n[limits]\ncpu = 1\n";
        layers.add_file(Path::new("f"), text, &mut faults);
        assert_eq!(faults, ["limits in f is not a key", "lisen in f is not a key; did you mean listen?"]);
        assert_eq!(layers.get(keys::find("max_queue").unwrap()).unwrap().text, "5");
    }

    #[test]
    fn values_of_a_file_are_text_or_numbers() {
        for text in
            ["listen = true", "listen = ['a']", "listen = {a = 1}", "listen = 2026-01-01", "listen", "=", "\u{0}"]
        {
            let mut faults = Vec::new();
            Layers::default().add_file(Path::new("f"), text, &mut faults);
            assert_eq!(faults.len(), 1, "{text}");
        }
    }

    #[test]
    fn a_mistyped_variable_is_an_error_and_a_foreign_one_a_warning() {
        let (layers, faults) = environment(&[
            ("ENCLAVE_MAX_MEMROY", "1GiB"),
            ("ENCLAVE_PROFLE", "hosted"),
            ("ENCLAVE_COLOUR_OF_THE_SKY", "grey"),
            ("ENCLAVE_BASE_URL", "http://x"),
            ("ENCLAVE_SVC_MAPS", "x"),
            ("ENCLAVE_SERVICE_HOST", "10.0.0.1"),
            ("ENCLAVE_PORT_8088_TCP_ADDR", "10.0.0.1"),
            ("ENCLAVE_API_PORT", "tcp://10.0.0.1"),
            ("LISTEN", "x"),
        ]);
        assert_eq!(
            faults,
            [
                "ENCLAVE_MAX_MEMROY is not a key; did you mean ENCLAVE_MAX_MEMORY?",
                "ENCLAVE_PROFLE is not a key; did you mean ENCLAVE_PROFILE?"
            ]
        );
        assert_eq!(layers.warnings, ["ENCLAVE_COLOUR_OF_THE_SKY is set, and is not a key of the configuration"]);
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let (layers, faults) = environment(&[("ENCLAVE_LISTEN", ""), ("ENCLAVE_MAX_QUEUE", "7")]);
        assert_eq!(faults, Vec::<String>::new());
        assert!(layers.get(keys::find("listen").unwrap()).is_none());
        assert_eq!(layers.get(keys::find("max_queue").unwrap()).unwrap().origin, Origin::Environment);
    }

    #[test]
    fn a_file_that_others_could_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("enclave.toml");
        fs::write(&path, "max_queue = 5").unwrap();
        for (mode, good) in [(0o600, true), (0o644, true), (0o664, false), (0o646, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_file(&path).is_ok(), good, "{mode:o}");
        }
        assert!(matches!(read_file(dir.path()), Err(FileFault::NotAFile)));
    }

    #[test]
    fn distances_are_counted_in_edits() {
        for (a, b, edits) in [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("abc", "abd", 1), ("listen", "lisen", 1)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
