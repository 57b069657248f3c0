//! From a request to a session that may be admitted: every fault of the content at once.

mod artifacts;
mod files;
mod source;

use std::collections::BTreeMap;

use wire::{CreateSession, Egress, EgressMode, EgressRule, ExecMode, FieldError, Language, Source};

pub use artifacts::Glob;
pub use files::{InlineFile, Uploaded};
pub use source::{NotARepoUrl, RepoUrl, Repository, is_git_directory};

use crate::{interactive::Interactive, limits::Limits, webhook::WebhookUrl};

/// Bytes of `code`. The body limit of the API is larger, so that this fault is told by name.
pub const MAX_CODE_BYTES: usize = 1024 * 1024;
pub(crate) const MAX_ARGS: usize = 256;
const MAX_ENV: usize = 256;
const MAX_LABELS: usize = 32;
const MAX_RULES: usize = 256;
/// Bindings that one session may use.
pub const MAX_BINDINGS: usize = 32;
/// Of a name or an id.
const MAX_BINDING_NAME: usize = 64;
/// Bytes of all arguments, and of the whole environment: well under what `execve` takes.
pub(crate) const MAX_TEXT_BYTES: usize = 64 * 1024;
const MAX_LABEL_BYTES: usize = 256;

/// A session as the platform understands it: everything decided, nothing trusted left to check.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionSpec {
    /// The program; empty when it comes from `source`, and in an interactive session that begins with nothing.
    pub code: String,
    /// Where else it comes from.
    pub source: Option<Repository>,
    /// What is put into its working directory.
    pub files: Vec<InlineFile>,
    /// Which of its files are kept when it has ended.
    pub artifacts: Vec<Glob>,
    /// What it is written in.
    pub language: Language,
    /// One program or turns.
    pub exec_mode: ExecMode,
    /// Its bounds, when it is interactive.
    pub interactive: Option<Interactive>,
    /// Its limits.
    pub limits: Limits,
    /// What it may reach.
    pub egress: Egress,
    /// The bindings that it may use, by id or name.
    pub service_bindings: Vec<String>,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// The backend asked for.
    pub backend: Option<String>,
    /// The image asked for.
    pub image: Option<String>,
    /// Where to tell that it ended. The deployment decides whether that may be reached.
    pub webhook_url: Option<WebhookUrl>,
}

/// Why a request is not a session: the fields that are wrong. 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} fields are wrong", .0.len())]
pub struct Refusal(pub Vec<FieldError>);

impl SessionSpec {
    /// Decides on a request that was read with `shape_faults`; those and the faults of its content are told together.
    /// `uploaded` came beside it; `maxima` and `bounds` are the most that it may ask for, `backends` the names.
    pub fn decide(
        request: CreateSession,
        uploaded: &[Uploaded],
        mut shape_faults: Vec<FieldError>,
        maxima: &Limits,
        bounds: &Interactive,
        backends: &[&str],
    ) -> Result<Self, Refusal> {
        let misread = Misread::of(&shape_faults);
        let mut faults = Vec::new();
        let interactive = decide_interactive(&request, bounds, &misread, &mut faults);
        let mut limits = Limits::decide(&request.limits, maxima, &mut faults);
        if let (Some(interactive), None) = (&interactive, request.limits.wall_clock_ms) {
            // The default is for programs; what bounds a conversation is its lifetime.
            limits.wall_clock_ms = interactive.max_lifetime_ms;
        }
        check_code(&request, &misread, &mut faults);
        let files = files::decide(request.files, uploaded, limits.disk_bytes, &mut faults);
        let artifacts = artifacts::decide(request.artifacts, &mut faults);
        let source = request.source.and_then(|Source::Git(source)| source::decide(source, &mut faults));
        check_args(&request.args, &mut faults);
        check_env(&request.env, &mut faults);
        check_labels(&request.labels, &mut faults);
        check_egress(&request.egress, &misread, &mut faults);
        check_bindings(&request.service_bindings, &mut faults);
        let webhook_url = request.webhook_url.as_deref().and_then(|url| WebhookUrl::decide(url, &mut faults));
        check_backend(request.backend.as_deref(), backends, &mut faults);
        // A field that could not be read has one fault, not two.
        shape_faults.extend(faults.into_iter().filter(|fault| !misread.has(&fault.field)));
        if !shape_faults.is_empty() {
            return Err(Refusal(shape_faults));
        }
        Ok(Self {
            code: request.code.unwrap_or_default(),
            source,
            files,
            artifacts,
            language: request.language,
            exec_mode: request.exec_mode,
            interactive,
            limits,
            egress: request.egress,
            service_bindings: request.service_bindings,
            args: request.args,
            env: request.env,
            labels: request.labels,
            backend: request.backend,
            image: request.image,
            webhook_url,
        })
    }
}

impl SessionSpec {
    /// Whether it may reach anything: then there is a gateway.
    pub fn has_egress(&self) -> bool {
        self.egress.mode == EgressMode::Allowlist || !self.service_bindings.is_empty()
    }
}

/// Paths of the fields that could not be read. Something else stands in their place, which is not to be judged.
pub(crate) struct Misread(Vec<String>);

impl Misread {
    pub(crate) fn of(shape_faults: &[FieldError]) -> Self {
        Self(shape_faults.iter().map(|fault| fault.field.clone()).collect())
    }

    /// The field, or what it is in.
    pub(crate) fn covers(&self, field: &str) -> bool {
        let around = |misread: &String| field.strip_prefix(misread).is_some_and(|rest| rest.starts_with(['.', '[']));
        self.has(field) || self.0.iter().any(around)
    }

    fn has(&self, field: &str) -> bool {
        self.0.iter().any(|misread| misread == field || misread.starts_with("(body)"))
    }

    /// The field, or one inside it.
    fn has_within(&self, field: &str) -> bool {
        let inside = |misread: &String| misread.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'));
        self.has(field) || self.0.iter().any(inside)
    }
}

/// The bounds of an interactive session.
fn decide_interactive(
    request: &CreateSession,
    maxima: &Interactive,
    misread: &Misread,
    faults: &mut Vec<FieldError>,
) -> Option<Interactive> {
    match (request.exec_mode, &request.interactive) {
        (ExecMode::Interactive, asked) => Some(Interactive::decide(&asked.unwrap_or_default(), maxima, faults)),
        (ExecMode::Oneshot, Some(_)) if !misread.has("execMode") => {
            faults.push(FieldError::new("interactive", "is for sessions whose execMode is interactive"));
            None
        }
        (ExecMode::Oneshot, Some(_) | None) => None,
    }
}

fn check_code(request: &CreateSession, misread: &Misread, faults: &mut Vec<FieldError>) {
    match (&request.code, &request.source) {
        (None, None) if misread.has_within("source") || request.exec_mode == ExecMode::Interactive => {}
        (None, None) => faults.push(FieldError::new("code", "exactly one of code and source is required")),
        (Some(_), Some(_)) => {
            faults.push(FieldError::new("source", "exactly one of code and source may be given, not both"));
        }
        (Some(code), None) => {
            if code.trim().is_empty() && request.exec_mode == ExecMode::Oneshot {
                faults.push(FieldError::new("code", "must not be empty"));
            }
            if code.len() > MAX_CODE_BYTES {
                faults.push(FieldError::new("code", format!("must be at most {MAX_CODE_BYTES} bytes")));
            }
            refuse_nul("code", code, faults);
        }
        (None, Some(_)) => {}
    }
}

fn check_args(args: &[String], faults: &mut Vec<FieldError>) {
    if args.len() > MAX_ARGS {
        faults.push(FieldError::new("args", format!("must be at most {MAX_ARGS}")));
    }
    if args.iter().map(String::len).sum::<usize>() > MAX_TEXT_BYTES {
        faults.push(FieldError::new("args", format!("must be at most {MAX_TEXT_BYTES} bytes together")));
    }
    for (index, arg) in args.iter().enumerate() {
        refuse_nul(&format!("args[{index}]"), arg, faults);
    }
}

pub(crate) fn check_env(env: &BTreeMap<String, String>, faults: &mut Vec<FieldError>) {
    if env.len() > MAX_ENV {
        faults.push(FieldError::new("env", format!("must have at most {MAX_ENV} entries")));
    }
    if env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>() > MAX_TEXT_BYTES {
        faults.push(FieldError::new("env", format!("must be at most {MAX_TEXT_BYTES} bytes together")));
    }
    for (name, value) in env {
        let path = format!("env.{}", shown(name));
        let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !starts || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            faults.push(FieldError::new(&path, "must be a name of letters, digits and _, not starting with a digit"));
        }
        if name.starts_with("ENCLAVE_") {
            faults.push(FieldError::new(&path, "names starting with ENCLAVE_ are the platform's own"));
        }
        refuse_nul(&path, value, faults);
    }
}

pub(crate) fn check_labels(labels: &BTreeMap<String, String>, faults: &mut Vec<FieldError>) {
    if labels.len() > MAX_LABELS {
        faults.push(FieldError::new("labels", format!("must have at most {MAX_LABELS} entries")));
    }
    for (name, value) in labels {
        let path = format!("labels.{}", shown(name));
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
        if name.is_empty() || name.len() > 63 || !name.bytes().all(allowed) {
            faults.push(FieldError::new(&path, "must be 1 to 63 of letters, digits and . _ - /"));
        }
        if value.len() > MAX_LABEL_BYTES || value.chars().any(char::is_control) {
            faults.push(FieldError::new(
                &path,
                format!("must be at most {MAX_LABEL_BYTES} bytes without control characters"),
            ));
        }
    }
}

fn check_egress(egress: &Egress, misread: &Misread, faults: &mut Vec<FieldError>) {
    if egress.mode == EgressMode::DenyAll && !egress.allow.is_empty() && !misread.has("egress.mode") {
        faults.push(FieldError::new("egress.allow", "must be empty when mode is deny_all"));
    }
    if egress.allow.len() > MAX_RULES {
        faults.push(FieldError::new("egress.allow", format!("must have at most {MAX_RULES} entries")));
    }
    for (index, rule) in egress.allow.iter().enumerate() {
        let path = format!("egress.allow[{index}]");
        match rule {
            EgressRule::Cidr(cidr) => check_cidr(&path, cidr, faults),
            EgressRule::Target(target) => match (&target.cidr, &target.domain) {
                (Some(cidr), None) => check_cidr(&format!("{path}.cidr"), cidr, faults),
                (None, Some(domain)) => check_domain(&format!("{path}.domain"), domain, faults),
                (None, None) | (Some(_), Some(_)) => {
                    faults.push(FieldError::new(path, "must have exactly one of cidr and domain"));
                }
            },
        }
    }
}

/// Whether each could be a binding; the engine knows which there are.
fn check_bindings(bindings: &[String], faults: &mut Vec<FieldError>) {
    if bindings.len() > MAX_BINDINGS {
        faults.push(FieldError::new("serviceBindings", format!("must have at most {MAX_BINDINGS} entries")));
    }
    for (index, name) in bindings.iter().enumerate() {
        let path = format!("serviceBindings[{index}]");
        if !could_be_binding(name) {
            faults.push(FieldError::new(path, "must be the id or the name of a binding"));
        } else if bindings[..index].contains(name) {
            faults.push(FieldError::new(path, "is listed twice"));
        }
    }
}

/// Whether a text could be the id or the name of a binding.
fn could_be_binding(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_BINDING_NAME && !name.chars().any(char::is_control)
}

fn check_backend(asked: Option<&str>, known: &[&str], faults: &mut Vec<FieldError>) {
    if asked.is_some_and(|asked| !known.contains(&asked)) {
        let message = format!("is not a backend of this deployment; it has: {}", known.join(", "));
        faults.push(FieldError::new("backend", message));
    }
}

fn check_cidr(path: &str, cidr: &str, faults: &mut Vec<FieldError>) {
    if cidr.parse::<ipnet::IpNet>().is_err() {
        faults.push(FieldError::new(path, "must be a CIDR such as 203.0.113.0/24 or 2001:db8::/32"));
    }
}

fn check_domain(path: &str, domain: &str, faults: &mut Vec<FieldError>) {
    let name = domain.strip_prefix("*.").unwrap_or(domain);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        faults.push(FieldError::new(path, "must be a domain name, which may start with *."));
    }
}

pub(crate) fn refuse_nul(path: &str, text: &str, faults: &mut Vec<FieldError>) {
    if text.contains('\0') {
        faults.push(FieldError::new(path, "must not contain NUL"));
    }
}

/// A caller's own text inside a path of ours: short, and printable.
fn shown(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::limits::CEILING;

    pub(crate) fn spec() -> SessionSpec {
        decide(&json!({"code": "print(1)"})).unwrap()
    }

    fn decide(body: &serde_json::Value) -> Result<SessionSpec, Refusal> {
        let (request, faults) = CreateSession::parse(body.to_string().as_bytes()).unwrap();
        SessionSpec::decide(request, &[], faults, &CEILING, &crate::interactive::CEILING, &["gvisor"])
    }

    fn faults(body: &serde_json::Value) -> Vec<String> {
        match decide(body) {
            Err(Refusal(faults)) => faults.into_iter().map(|fault| fault.field).collect(),
            other => panic!("not invalid: {other:?}"),
        }
    }

    #[test]
    fn code_and_source_exclude_one_another() {
        let source = json!({"type": "git", "repo": "https://example.org/r", "ref": "main", "entrypoint": "a.py"});
        assert_eq!(faults(&json!({})), ["code"]);
        assert_eq!(faults(&json!({"code": "1", "source": source})), ["source"]);
    }

    #[test]
    fn a_field_of_the_wrong_type_has_one_fault() {
        assert_eq!(faults(&json!({"code": 5, "surplus": 1})), ["code", "surplus"]);
        assert_eq!(faults(&json!([])), ["(body)"]);
    }

    #[test]
    fn what_follows_from_a_misread_field_is_no_fault_of_its_own() {
        assert_eq!(faults(&json!({"source": {"type": "svn"}})), ["source.type"]);
        assert_eq!(faults(&json!({"source": 5})), ["source", "source.type"]);
        let rule = json!({"mode": "open", "allow": ["10.0.0.0/8"]});
        assert_eq!(faults(&json!({"code": "1", "egress": rule})), ["egress.mode"]);
        // What stands beside it is judged all the same.
        assert_eq!(faults(&json!({"code": "", "source": {"type": "svn"}})), ["source.type", "code"]);
        assert_eq!(faults(&json!({"sources": 5})), ["sources", "code"]);
    }

    #[test]
    fn an_unknown_backend_is_told_with_the_other_faults() {
        assert_eq!(faults(&json!({"code": "", "backend": "moon"})), ["code", "backend"]);
        assert_eq!(faults(&json!({"code": "1", "backend": 5})), ["backend"]);
        decide(&json!({"code": "1", "backend": "gvisor"})).unwrap();
    }

    #[test]
    fn shape_and_content_are_told_together() {
        let told = faults(&json!({
            "code": "a\u{0}b", "env": {"1A": "x", "ENCLAVE_X": "y", "OK": "\u{0}"}, "labels": {"a b": "c"},
            "limits": {"pids": 1, "cpu": "x"}, "args": ["\u{0}"], "egress": {"allow": ["1.2.3.4/33"]}
        }));
        for field in [
            "code",
            "env.1A",
            "env.ENCLAVE_X",
            "env.OK",
            "labels.a b",
            "limits.pids",
            "limits.cpu",
            "args[0]",
            "egress.allow",
            "egress.allow[0]",
        ] {
            assert!(told.contains(&field.to_owned()), "{field} is missing in {told:?}");
        }
    }

    #[test]
    fn an_interactive_session_needs_no_code_and_lives_as_long_as_its_bounds_say() {
        let bounds = json!({"idleTtlMs": 1000, "maxLifetimeMs": 5000});
        let spec = decide(&json!({"execMode": "interactive", "interactive": bounds})).unwrap();
        let decided = spec.interactive.unwrap();
        assert_eq!((decided.idle_ttl_ms, decided.max_lifetime_ms, decided.turn_timeout_ms), (1000, 5000, 60_000));
        assert_eq!(spec.limits.wall_clock_ms, 5000, "the default of programs does not end it");
        let spec = decide(&json!({"execMode": "interactive", "code": "", "limits": {"wallClockMs": 700}})).unwrap();
        assert_eq!(spec.limits.wall_clock_ms, 700);
    }

    #[test]
    fn bounds_without_turns_to_bound_are_a_fault() {
        assert_eq!(faults(&json!({"code": "1", "interactive": {}})), ["interactive"]);
        assert_eq!(faults(&json!({"code": "1", "execMode": "chat", "interactive": {}})), ["execMode"]);
        assert_eq!(
            faults(&json!({"execMode": "interactive", "interactive": {"idleTtlMs": 1}})),
            ["interactive.idleTtlMs"]
        );
    }

    #[test]
    fn allowlist_entries_are_cidrs_or_domains() {
        decide(&json!({"code": "1", "egress": {"mode": "allowlist", "allow": ["10.0.0.0/8", "::/0", {"domain": "*.example.org", "ports": [443]}]}}))
            .unwrap();
        let told = faults(&json!({"code": "1", "egress": {"mode": "allowlist", "allow": [
            "10.0.0.0/8/8", {"domain": "-x.org"}, {"domain": "a b"}, {}, {"cidr": "::/0", "domain": "x"}
        ]}}));
        assert_eq!(told.len(), 5, "{told:?}");
    }

    proptest! {
        #[test]
        fn no_body_makes_the_parser_panic(body in ".{0,200}", extra in proptest::collection::vec(any::<u8>(), 0..64)) {
            for bytes in [body.as_bytes(), &extra] {
                if let Ok((request, faults)) = CreateSession::parse(bytes) {
                    let _ = SessionSpec::decide(request, &[], faults, &CEILING, &crate::interactive::CEILING, &[]);
                }
            }
        }
    }
}
