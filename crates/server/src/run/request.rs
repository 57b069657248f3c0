//! From the command line to a request.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use clap::Args;
use client::{Client, ClientError, LocalFile};
use ipnet::IpNet;
use wire::{CreateSession, Egress, EgressMode, EgressRule, EgressTarget, GitSource, Language, Limits, Session, Source};

use crate::settings::values;

/// A larger file goes beside the request.
const MAX_INLINE_BYTES: u64 = 256 * 1024;
/// No server takes more in one request; the file is not read to its end to find that out.
const MAX_PROGRAM_BYTES: u64 = 16 * 1024 * 1024;

/// What a repository calls its default branch.
const DEFAULT_REF: &str = "HEAD";

/// The program and its policy.
#[derive(Args, Clone, Debug)]
pub(crate) struct ProgramArgs {
    /// The program, or - for standard input
    #[arg(value_name = "FILE", required_unless_present = "git", conflicts_with = "git")]
    file: Option<PathBuf>,
    /// Arguments of the program. Not for secrets: shown in the session
    #[arg(value_name = "ARGS", last = true)]
    args: Vec<String>,
    /// What the program is written in: python or node [default: by the file's extension, else python]
    #[arg(long, value_parser = language)]
    language: Option<Language>,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Repository that the program comes out of, and its branch, tag or whole commit id: https://example.org/repo#main
    #[arg(long, value_name = "URL[#REF]", requires = "entrypoint", help_heading = "Source")]
    git: Option<String>,
    /// File of the repository to run
    #[arg(long, value_name = "FILE", requires = "git", conflicts_with = "file", help_heading = "Source")]
    entrypoint: Option<String>,
    /// Directory of the repository that becomes the working directory
    #[arg(long, value_name = "DIR", requires = "git", conflicts_with = "file", help_heading = "Source")]
    subpath: Option<String>,
    /// Binding of kind git that adds the credential of a private repository
    #[arg(long, value_name = "BINDING", requires = "git", conflicts_with = "file", help_heading = "Source")]
    credential: Option<String>,
}

/// What any session is under, and what it finds.
#[derive(Args, Clone, Debug)]
pub(crate) struct PolicyArgs {
    /// CPU rate in cores; more is throttled
    #[arg(long, value_name = "CORES", value_parser = values::cores, help_heading = "Limits")]
    cpu: Option<f64>,
    /// CPU time of all its processes, 10s for example
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Limits")]
    cpu_time: Option<u64>,
    /// Memory, 512MiB for example
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = "Limits")]
    memory: Option<u64>,
    /// Time, 60s for example
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Limits")]
    wall: Option<u64>,
    /// Processes and threads at once
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pids: Option<u32>,
    /// Files that it writes, 512MiB for example
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = "Limits")]
    disk: Option<u64>,
    /// Output, 10MiB for example
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = "Limits")]
    output: Option<u64>,
    /// What it may reach, with ports or without: example.org:443, *.example.org, 203.0.113.0/24:80,443; may be repeated.
    /// Nothing, when not given
    #[arg(long = "allow", value_name = "RULE", value_parser = rule, help_heading = "Network")]
    allow: Vec<EgressRule>,
    /// Binding that it may use, by name or id; may be repeated
    #[arg(long = "bind", value_name = "BINDING", help_heading = "Network")]
    bind: Vec<String>,
    /// File to put into the working directory, under its own name or another; may be repeated
    #[arg(long = "file", value_name = "LOCAL[:PATH]", help_heading = "Source")]
    files: Vec<String>,
    /// Glob of files to collect when it has ended: out/*.png, **/report.csv; may be repeated
    #[arg(long = "artifact", value_name = "GLOB", help_heading = "Artifacts")]
    artifact: Vec<String>,
    /// Variable of the program's environment; may be repeated. Not for secrets: shown in the session
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<(String, String)>,
    /// Label of the session; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Image that the sandbox is made from
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
}

/// Why there is no request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is larger than {MAX_PROGRAM_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error("{} is not UTF-8", .0.display())]
    NotText(PathBuf),
    #[error("--file {0:?} has no name: LOCAL:PATH")]
    NoName(String),
    #[error("--{option} {name} is given twice")]
    Twice { option: &'static str, name: String },
}

impl ProgramArgs {
    /// The name of its file, if it has one.
    pub(crate) fn name(&self) -> Option<String> {
        let file = self.file.as_deref().filter(|file| *file != Path::new("-"));
        let name = file.or(self.entrypoint.as_deref().map(Path::new))?.file_name()?;
        Some(name.to_string_lossy().into_owned())
    }

    /// Reads the program and puts the request together.
    pub(crate) fn request(self) -> Result<Asked, ProgramError> {
        let program = self.file.as_deref().or(self.entrypoint.as_deref().map(Path::new));
        let language = self.language.unwrap_or_else(|| program.map(by_extension).unwrap_or_default());
        let source = self.git.map(|git| {
            let (repo, reference) = git.rsplit_once('#').unwrap_or((&git, DEFAULT_REF));
            Source::Git(GitSource {
                repo: repo.to_owned(),
                reference: reference.to_owned(),
                subpath: self.subpath,
                entrypoint: self.entrypoint.unwrap_or_default(),
                credential: self.credential,
            })
        });
        let code = self.file.as_deref().map(text).transpose()?;
        let Asked { request: policy, files } = self.policy.request()?;
        Ok(Asked { request: CreateSession { code, source, language, args: self.args, ..policy }, files })
    }
}

impl PolicyArgs {
    /// A request without anything to run.
    pub(crate) fn request(self) -> Result<Asked, ProgramError> {
        let (mut inline, mut files) = (Vec::new(), Vec::new());
        for given in &self.files {
            match file(given)? {
                Given::Inline(file) => inline.push(file),
                Given::Beside(file) => files.push(file),
            }
        }
        let request = CreateSession {
            files: inline,
            limits: Limits {
                cpu: self.cpu,
                cpu_time_ms: self.cpu_time,
                memory_bytes: self.memory,
                wall_clock_ms: self.wall,
                pids: self.pids,
                disk_bytes: self.disk,
                output_bytes: self.output,
            },
            egress: Egress {
                mode: if self.allow.is_empty() { EgressMode::DenyAll } else { EgressMode::Allowlist },
                allow: self.allow,
            },
            service_bindings: self.bind,
            artifacts: self.artifact,
            env: unique("env", self.env)?,
            labels: unique("label", self.labels)?,
            image: self.image,
            ..CreateSession::default()
        };
        Ok(Asked { request, files })
    }
}

/// What a command line asks for.
pub(crate) struct Asked {
    pub(crate) request: CreateSession,
    /// Files that are too large for it, beside it.
    pub(crate) files: Vec<LocalFile>,
}

impl Asked {
    /// Has the session made.
    pub(crate) async fn create(&self, client: &Client) -> Result<Session, ClientError> {
        if self.files.is_empty() {
            client.create(&self.request).await
        } else {
            client.create_with_files(&self.request, self.files.clone()).await
        }
    }

    /// The request with all files in it.
    pub(crate) fn inline(mut self) -> Result<CreateSession, ProgramError> {
        for LocalFile { local, path, executable } in self.files {
            self.request.files.push(inline(&local, path, executable)?);
        }
        Ok(self.request)
    }
}

/// A file, by how it gets there.
enum Given {
    Inline(wire::File),
    Beside(LocalFile),
}

/// A file for the working directory. What comes behind the last colon is its name there.
fn file(given: &str) -> Result<Given, ProgramError> {
    let (local, path) = given.rsplit_once(':').map_or((given, None), |(local, path)| (local, Some(path)));
    let local = Path::new(local);
    let name = || local.file_name().and_then(|name| name.to_str());
    let path = path.or_else(name).filter(|path| !path.is_empty()).ok_or_else(|| ProgramError::NoName(given.into()))?;
    let metadata = std::fs::metadata(local).ok().filter(std::fs::Metadata::is_file);
    let executable = metadata.as_ref().is_some_and(|of| of.permissions().mode() & 0o111 != 0);
    if metadata.is_some_and(|of| of.len() > MAX_INLINE_BYTES) {
        return Ok(Given::Beside(LocalFile { local: local.to_owned(), path: path.to_owned(), executable }));
    }
    inline(local, path.to_owned(), executable).map(Given::Inline)
}

fn inline(local: &Path, path: String, executable: bool) -> Result<wire::File, ProgramError> {
    let (content, content_base64) = match String::from_utf8(bytes(local)?) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    };
    Ok(wire::File { path, content, content_base64, mode: executable.then_some(0o755) })
}

fn text(path: &Path) -> Result<String, ProgramError> {
    String::from_utf8(bytes(path)?).map_err(|_| ProgramError::NotText(path.to_owned()))
}

pub(crate) fn bytes(path: &Path) -> Result<Vec<u8>, ProgramError> {
    let unreadable = |source| ProgramError::Unreadable { path: path.to_owned(), source };
    let source: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin()) } else { Box::new(File::open(path).map_err(unreadable)?) };
    let mut bytes = Vec::new();
    source.take(MAX_PROGRAM_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_PROGRAM_BYTES {
        return Err(ProgramError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

fn by_extension(path: &Path) -> Language {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("js" | "mjs" | "cjs") => Language::Node,
        Some(_) | None => Language::Python,
    }
}

pub(crate) fn language(text: &str) -> Result<Language, String> {
    [Language::Python, Language::Node]
        .into_iter()
        .find(|language| language.as_str() == text)
        .ok_or_else(|| format!("{text:?} is not a language: python or node"))
}

/// An entry of an allowlist: a CIDR or a domain, and ports behind a colon.
fn rule(text: &str) -> Result<EgressRule, String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, rest)) => (address, Some(rest)),
        None => (text, None),
    };
    // The colons of an IPv6 network stand before its prefix; a bare address is one with the whole prefix.
    let (host, ports) = match (prefix, address.parse::<IpAddr>()) {
        (None, Ok(_)) => (address, None),
        _ => prefix
            .unwrap_or(address)
            .split_once(':')
            .map_or((prefix.unwrap_or(address), None), |(host, ports)| (host, Some(ports))),
    };
    let ports = ports.map_or(Ok(Vec::new()), |ports| ports.split(',').map(str::parse).collect::<Result<Vec<u16>, _>>());
    let ports = ports.map_err(|_| format!("{text:?} has ports that are no numbers: example.org:443,8443"))?;
    let whole = if prefix.is_some() { format!("{address}/{host}") } else { host.to_owned() };
    let target = match (whole.parse::<IpNet>(), whole.parse::<IpAddr>()) {
        (Ok(net), _) => EgressTarget { cidr: Some(net.to_string()), domain: None, ports },
        (_, Ok(address)) => EgressTarget { cidr: Some(IpNet::from(address).to_string()), domain: None, ports },
        _ if prefix.is_some() => return Err(format!("{text:?} is not a CIDR: 203.0.113.0/24")),
        _ => EgressTarget { cidr: None, domain: Some(whole), ports },
    };
    Ok(EgressRule::Target(target))
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn unique(option: &'static str, pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, ProgramError> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs {
        if map.insert(name.clone(), value).is_some() {
            return Err(ProgramError::Twice { option, name });
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        program: ProgramArgs,
    }

    fn request(line: &[&str]) -> Result<CreateSession, String> {
        let line = Line::try_parse_from([&["run"], line].concat()).map_err(|error| error.to_string())?;
        line.program.request().map(|asked| asked.request).map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_becomes_a_request() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.mjs");
        std::fs::write(&file, "enclave.result(1)").unwrap();
        let line = "--cpu 0.5 --cpu-time 2s --memory 64MiB --wall 5s --pids 20 --disk 1MiB --output 1KiB --env A=b=c \
                    --label team=x --image y -- -v --json";
        let mut words = vec![file.to_str().unwrap()];
        words.extend(line.split_whitespace());
        let request = request(&words).unwrap();
        assert_eq!(request.code.as_deref(), Some("enclave.result(1)"));
        assert_eq!(request.language, Language::Node);
        assert_eq!(
            request.limits,
            Limits {
                cpu: Some(0.5),
                cpu_time_ms: Some(2000),
                memory_bytes: Some(64 << 20),
                wall_clock_ms: Some(5000),
                pids: Some(20),
                disk_bytes: Some(1 << 20),
                output_bytes: Some(1024),
            }
        );
        assert_eq!(request.args, ["-v", "--json"]);
        assert_eq!(request.env, BTreeMap::from([("A".into(), "b=c".into())]));
        assert_eq!(request.labels, BTreeMap::from([("team".into(), "x".into())]));
        assert_eq!(request.image.as_deref(), Some("y"));
    }

    #[test]
    fn a_repository_stands_in_the_place_of_a_program() {
        let line = "--git https://example.org/a/b#v1 --entrypoint app/main.mjs --subpath sub --credential github";
        let asked = request(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
        let source = GitSource {
            repo: "https://example.org/a/b".into(),
            reference: "v1".into(),
            subpath: Some("sub".into()),
            entrypoint: "app/main.mjs".into(),
            credential: Some("github".into()),
        };
        assert_eq!((asked.code, asked.source, asked.language), (None, Some(Source::Git(source)), Language::Node));
        let asked = request(&["--git", "https://example.org/a", "--entrypoint", "a.py", "--", "x"]).unwrap();
        let Some(Source::Git(source)) = asked.source else { panic!("no source") };
        assert_eq!((source.reference.as_str(), asked.args), ("HEAD", vec!["x".to_owned()]));
        for line in [
            &["--git", "https://example.org/a"][..],
            &["--entrypoint", "a.py", "/dev/null"],
            &["/dev/null", "--git", "https://example.org/a", "--entrypoint", "a.py"],
            &["--credential", "github", "/dev/null"],
        ] {
            assert!(request(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn files_come_along_under_their_name_or_another() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, tool) = (dir.path().join("in.txt"), dir.path().join("tool"));
        std::fs::write(&plain, "text").unwrap();
        std::fs::write(&tool, b"\xff").unwrap();
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let (plain, tool) = (plain.to_str().unwrap(), format!("{}:bin/tool", tool.display()));
        let asked = request(&["/dev/null", "--file", plain, "--file", &tool]).unwrap();
        let text = wire::File { path: "in.txt".into(), content: Some("text".into()), ..wire::File::default() };
        let bytes = wire::File {
            path: "bin/tool".into(),
            content: None,
            content_base64: Some("/w==".into()),
            mode: Some(0o755),
        };
        assert_eq!(asked.files, [text, bytes]);
        let large = dir.path().join("large");
        std::fs::write(&large, vec![0; 256 * 1024 + 1]).unwrap();
        let words = ["run", "/dev/null", "--file", plain, "--file", large.to_str().unwrap()];
        let asked = Line::try_parse_from(words).unwrap().program.request().unwrap();
        assert_eq!(asked.request.files.len(), 1);
        assert_eq!(asked.files, [LocalFile { local: large, path: "large".into(), executable: false }]);
        assert_eq!(asked.inline().unwrap().files[1].path, "large");
        assert!(request(&["/dev/null", "--file", "/"]).unwrap_err().contains("has no name"));
        assert!(request(&["/dev/null", "--file", &format!("{plain}:")]).unwrap_err().contains("has no name"));
        assert!(request(&["/dev/null", "--file", "/nonexistent"]).unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn rules_are_networks_or_names_with_ports_or_without() {
        let told = |text: &str| serde_json::to_value(rule(text).unwrap()).unwrap();
        for (text, expected) in [
            ("example.org", serde_json::json!({"domain": "example.org"})),
            ("*.example.org:443,8443", serde_json::json!({"domain": "*.example.org", "ports": [443, 8443]})),
            ("203.0.113.0/24", serde_json::json!({"cidr": "203.0.113.0/24"})),
            ("203.0.113.0/24:80", serde_json::json!({"cidr": "203.0.113.0/24", "ports": [80]})),
            ("203.0.113.7", serde_json::json!({"cidr": "203.0.113.7/32"})),
            ("203.0.113.7:22", serde_json::json!({"cidr": "203.0.113.7/32", "ports": [22]})),
            ("2001:db8::/32:443", serde_json::json!({"cidr": "2001:db8::/32", "ports": [443]})),
            ("2001:db8::1", serde_json::json!({"cidr": "2001:db8::1/128"})),
        ] {
            assert_eq!(told(text), expected, "{text}");
        }
        for text in ["203.0.113.0/33", "example.org:x", "example.org:", "a/b"] {
            assert!(rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_program_is_refused_here() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.py");
        std::fs::write(&file, b"\xff").unwrap();
        let file = file.to_str().unwrap();
        assert!(request(&[file]).unwrap_err().contains("is not UTF-8"));
        assert!(request(&["/dev/zero"]).unwrap_err().contains("is larger than"));
        assert!(request(&["/nonexistent.py"]).unwrap_err().contains("cannot be read"));
        assert!(request(&["/dev/null", "--env", "A=1", "--env", "A=2"]).unwrap_err().contains("given twice"));
        for bad in [["--env", "A"], ["--env", "=b"], ["--memory", "64MB"], ["--wall", "5"], ["--language", "ruby"]] {
            assert!(request(&[&["/dev/null"], bad.as_slice()].concat()).is_err(), "{bad:?}");
        }
    }
}
