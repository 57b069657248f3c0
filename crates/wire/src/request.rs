//! What callers ask for. Shapes only; `model::session` decides what may be asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    json::{JsonError, Object, parse_strict},
    problem::FieldError,
    session::{ExecMode, Language},
};

/// A request for a session. Exactly one of `code` and `source` must be given; an interactive session needs neither, and
/// runs what it is given before its first turn.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSession {
    /// The program, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "print('hello'); enclave.result({'answer': 42})")]
    pub code: Option<String>,
    /// Where else the program comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What the program is written in.
    #[serde(default)]
    pub language: Language,
    /// One program or turns.
    #[serde(default)]
    pub exec_mode: ExecMode,
    /// What it may reach.
    #[serde(default)]
    pub egress: Egress,
    /// Bindings, by id or name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub service_bindings: Vec<String>,
    /// Hard limits; what is not given has a default.
    #[serde(default)]
    pub limits: Limits,
    /// Files to put into the working directory before the start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<File>,
    /// Globs of files to collect at the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Arguments of the program. Not for secrets: shown in the session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment of the program. Not for secrets: shown in the session.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Bounds of an interactive session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interactive: Option<Interactive>,
    /// Where to tell that the session ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_url: Option<String>,
    /// The caller's own labels, to filter by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name of a backend of this deployment; its default otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// Name of a built image; the deployment's default otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Where a program comes from, if not from `code`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Source {
    /// A git repository.
    Git(GitSource),
}

/// A git repository, cloned shallow, one repository, no submodules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitSource {
    /// Its URL, `https` or `http`.
    pub repo: String,
    /// Branch, tag or commit.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Directory inside it that becomes the working directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// File to run.
    pub entrypoint: String,
    /// A binding of kind git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Whether a session may reach anything at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EgressMode {
    /// Nothing.
    #[default]
    DenyAll,
    /// What `allow` lists.
    Allowlist,
}

/// What a session may reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Egress {
    /// Nothing, or a list.
    #[serde(default)]
    pub mode: EgressMode,
    /// The list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<EgressRule>,
}

/// One entry of an allowlist: a CIDR as text, or an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum EgressRule {
    /// Addresses on every port.
    Cidr(String),
    /// Addresses or names, on given ports.
    Target(EgressTarget),
}

/// Addresses (`cidr`) or names (`domain`), exactly one of them, on given ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressTarget {
    /// Addresses, v4 or v6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// A name; may start with `*.`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Ports; every one when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// Hard limits. What is absent has the deployment's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// CPU rate in cores, default 1.0; more is throttled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 1.0)]
    pub cpu: Option<f64>,
    /// CPU time in milliseconds; unbounded by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_time_ms: Option<u64>,
    /// Memory in bytes, default 512 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Time in milliseconds, default 60 000; an interactive session has none unless it is given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_clock_ms: Option<u64>,
    /// Processes and threads at once, default 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Bytes in `/workspace` and `/tmp` together, default 512 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Bytes of stdout and stderr together, default 10 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
}

/// A file to put into the working directory. Exactly one of `content` and `contentBase64`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    /// Path below `/workspace`.
    pub path: String,
    /// The content as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The content, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_base64: Option<String>,
    /// Unix permission bits, default 0o644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Bounds of an interactive session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interactive {
    /// Milliseconds without a turn after which it ends, default 300 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ttl_ms: Option<u64>,
    /// Milliseconds after which it ends in any case, default 3 600 000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_lifetime_ms: Option<u64>,
    /// Milliseconds after which a turn is interrupted, default 60 000. One that does not stop then ends the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_timeout_ms: Option<u64>,
    /// Milliseconds that all turns together may take; unbounded by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turn_budget_ms: Option<u64>,
}

impl CreateSession {
    /// Reads a request body. What could be read comes back beside every fault of shape, so that faults of content can
    /// be reported together with them.
    pub fn parse(body: &[u8]) -> Result<(Self, Vec<FieldError>), JsonError> {
        let value = parse_strict(body)?;
        let mut faults = Vec::new();
        let request = Self::read(value, &mut faults);
        Ok((request, faults))
    }

    /// The same, of one inside of something larger: its faults stand under `path`.
    pub(crate) fn read_at(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut own = Vec::new();
        let request = Self::read(value, &mut own);
        faults.extend(own.into_iter().map(|fault| fault.under(path)));
        request
    }

    fn read(value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new("", value, faults);
        let source = object.nested("source", Source::read).flatten();
        let egress = object.nested("egress", Egress::read);
        let limits = object.nested("limits", Limits::read);
        let interactive = object.nested("interactive", Interactive::read);
        let request = Self {
            code: object.optional("code"),
            source,
            language: object.optional("language").unwrap_or_default(),
            exec_mode: object.optional("execMode").unwrap_or_default(),
            egress: egress.unwrap_or_default(),
            service_bindings: object.list("serviceBindings", read_text),
            limits: limits.unwrap_or_default(),
            files: object.list("files", |path, value, faults| Some(File::read(path, value, faults))),
            artifacts: object.list("artifacts", read_text),
            args: object.list("args", read_text),
            env: object.text_map("env"),
            interactive,
            webhook_url: object.optional("webhookUrl"),
            labels: object.text_map("labels"),
            backend: object.optional("backend"),
            image: object.optional("image"),
        };
        object.finish();
        request
    }
}

impl Source {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Option<Self> {
        let mut object = Object::new(path, value, faults);
        let kind: String = object.required("type");
        match kind.as_str() {
            "git" => {
                let git = GitSource {
                    repo: object.required("repo"),
                    reference: object.required("ref"),
                    subpath: object.optional("subpath"),
                    entrypoint: object.required("entrypoint"),
                    credential: object.optional("credential"),
                };
                object.finish();
                Some(Self::Git(git))
            }
            "" => None,
            _ => {
                object.fault("type", "must be \"git\"");
                None
            }
        }
    }
}

impl Egress {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let mode = object.optional("mode").unwrap_or_default();
        let allow = object.list("allow", |path, value, faults| {
            if let Value::String(cidr) = value {
                return Some(EgressRule::Cidr(cidr));
            }
            Some(EgressRule::Target(EgressTarget::read(path, value, faults)))
        });
        object.finish();
        Self { mode, allow }
    }
}

impl EgressTarget {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let target = Self {
            cidr: object.optional("cidr"),
            domain: object.optional("domain"),
            ports: object.list("ports", |path, value, faults| {
                let port = value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
                if port.is_none() {
                    faults.push(FieldError::new(path, "must be a port number, 1 to 65535"));
                }
                port
            }),
        };
        object.finish();
        target
    }
}

impl Limits {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let limits = Self {
            cpu: object.optional("cpu"),
            cpu_time_ms: object.optional("cpuTimeMs"),
            memory_bytes: object.optional("memoryBytes"),
            wall_clock_ms: object.optional("wallClockMs"),
            pids: object.optional("pids"),
            disk_bytes: object.optional("diskBytes"),
            output_bytes: object.optional("outputBytes"),
        };
        object.finish();
        limits
    }
}

impl File {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let file = Self {
            path: object.required("path"),
            content: object.optional("content"),
            content_base64: object.optional("contentBase64"),
            mode: object.optional("mode"),
        };
        object.finish();
        file
    }
}

impl Interactive {
    fn read(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Self {
        let mut object = Object::new(path, value, faults);
        let bounds = Self {
            idle_ttl_ms: object.optional("idleTtlMs"),
            max_lifetime_ms: object.optional("maxLifetimeMs"),
            turn_timeout_ms: object.optional("turnTimeoutMs"),
            turn_budget_ms: object.optional("turnBudgetMs"),
        };
        object.finish();
        bounds
    }
}

pub(crate) fn read_text(path: &str, value: Value, faults: &mut Vec<FieldError>) -> Option<String> {
    if let Value::String(text) = value {
        return Some(text);
    }
    faults.push(FieldError::new(path, "must be a string"));
    None
}

impl Object<'_> {
    /// Takes an object whose values are strings.
    pub(crate) fn text_map(&mut self, field: &str) -> BTreeMap<String, String> {
        let Some(value) = self.raw(field) else { return BTreeMap::new() };
        let path = self.path_of(field);
        let Value::Object(entries) = value else {
            self.fault(field, "must be an object of strings");
            return BTreeMap::new();
        };
        entries
            .into_iter()
            .filter_map(|(key, value)| {
                read_text(&format!("{path}.{key}"), value, self.faults()).map(|text| (key, text))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_request_is_read_as_serde_would() {
        let body = serde_json::json!({
            "code": "print(1)", "language": "node", "egress": {"mode": "allowlist", "allow": ["10.0.0.0/8", {"domain": "*.example.org", "ports": [443]}]},
            "limits": {"cpu": 0.5, "memoryBytes": 1}, "files": [{"path": "a", "content": "b"}], "args": ["x"], "env": {"A": "b"},
            "interactive": {"idleTtlMs": 5}, "labels": {"team": "a"}, "backend": "gvisor", "image": "default"
        });
        let (request, faults) = CreateSession::parse(body.to_string().as_bytes()).unwrap();
        assert_eq!(faults, []);
        assert_eq!(request, serde_json::from_value(body).unwrap());
    }

    #[test]
    fn all_faults_come_at_once_and_by_name() {
        let body = br#"{"code": 1, "langauge": "python", "language": "ruby", "limits": {"cpu": "fast", "ram": 1, "pids": -1},
            "egress": {"mode": "open", "allow": [{"ports": [0]}]}, "env": {"A": 1}, "args": "x", "files": [{}], "source": {"type": "svn"}}"#;
        let (_, faults) = CreateSession::parse(body).unwrap();
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        for expected in [
            "code",
            "langauge",
            "language",
            "limits.cpu",
            "limits.ram",
            "limits.pids",
            "egress.mode",
            "egress.allow[0].ports[0]",
            "env.A",
            "args",
            "files[0].path",
            "source.type",
        ] {
            assert!(fields.contains(&expected), "{expected} is missing in {faults:#?}");
        }
    }

    #[test]
    fn a_body_that_is_not_an_object_is_a_fault() {
        let (_, faults) = CreateSession::parse(b"[1]").unwrap();
        assert_eq!(faults, [FieldError::new("(body)", "must be an object, not an array")]);
    }
}
