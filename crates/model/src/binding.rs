//! From a request to a binding that may be kept: every fault of the content at once. Messages name fields and rules and
//! never repeat a secret.

mod kind;
#[cfg(test)]
mod tests;
mod upstream;

use wire::{
    BindingAllow, BindingBudget, BindingKind, BindingSecret, BindingSpec, CreateBinding, FieldError, UpdateBinding,
};

pub use kind::may_carry_secret;
pub(crate) use upstream::has_dots;
pub use upstream::{NotAnUpstream, Upstream};

use crate::{gateway::Credential, secret::Secret, session::Misread};

/// Characters of a name: it is a DNS label and part of a variable's name.
const MAX_NAME: usize = 40;
/// Fewer bytes are guessed, and found by chance in answers, where the gateway looks for them.
const MIN_SECRET: usize = 8;
/// Bytes of a secret: more than any token, and less than servers take in a header.
const MAX_SECRET: usize = 16 * 1024;
const MAX_ALLOW: usize = 32;
const MAX_METHODS: usize = 16;
const MAX_PATHS: usize = 64;
const MAX_METHOD_BYTES: usize = 32;
const MAX_PATH_BYTES: usize = 1024;

/// Decides on a new binding, which was read with `shape`.
pub fn create(request: CreateBinding, shape: Vec<FieldError>) -> Result<(BindingSpec, Credential), Vec<FieldError>> {
    let CreateBinding { mut spec, secret } = request;
    let mut faults = Vec::new();
    check_name(&spec.name, &mut faults);
    check_spec(&mut spec, &mut faults);
    check_secret("secret", &spec.kind, &secret, &mut faults);
    told(shape, faults)?;
    Ok((spec, credential(secret)))
}

/// Decides on a change of a binding that is `now` so; gives what it is afterwards, and its new secret if it has one.
///
/// A secret goes only to where whoever gave it said. Whoever leads a binding elsewhere has to give the secret, so that the
/// right to change bindings is no way to read their secrets.
pub fn update(
    now: &BindingSpec,
    change: UpdateBinding,
    shape: Vec<FieldError>,
) -> Result<(BindingSpec, Option<Credential>), Vec<FieldError>> {
    let mut spec = BindingSpec {
        name: now.name.clone(),
        kind: change.kind.unwrap_or_else(|| now.kind.clone()),
        upstream: change.upstream.unwrap_or_else(|| now.upstream.clone()),
        allow: change.allow.unwrap_or_else(|| now.allow.clone()),
        budget: change.budget.or(now.budget),
    };
    let mut faults = Vec::new();
    check_spec(&mut spec, &mut faults);
    match &change.secret {
        Some(secret) => check_secret("secret", &spec.kind, secret, &mut faults),
        None if !same_destination(now, &spec) && shape.is_empty() => faults.push(FieldError::new(
            "secret",
            "is required when the upstream, the type of the kind or its tokenUrl changes: a secret goes only to where \
             whoever gave it said",
        )),
        None => {}
    }
    told(shape, faults)?;
    Ok((spec, change.secret.map(credential)))
}

/// Decides on a new secret for a binding of this kind.
pub fn rotate(
    kind: &BindingKind,
    secret: BindingSecret,
    shape: Vec<FieldError>,
) -> Result<Credential, Vec<FieldError>> {
    let mut faults = Vec::new();
    check_secret("", kind, &secret, &mut faults);
    told(shape, faults)?;
    Ok(credential(secret))
}

/// Whether a secret that was given for one goes to the same place, in the same role, in the other. A session that runs
/// with an earlier version of a binding takes a new secret only if so.
pub fn same_destination(one: &BindingSpec, other: &BindingSpec) -> bool {
    one.upstream == other.upstream
        && one.kind.as_str() == other.kind.as_str()
        && one.kind.token_url() == other.kind.token_url()
}

fn credential(secret: BindingSecret) -> Credential {
    Credential {
        value: secret.value.into(),
        client_secret: secret.client_secret.map(Secret::from),
        session_token: secret.session_token.map(Secret::from),
    }
}

/// Faults of shape and of content together; a field that could not be read has one fault, not two.
fn told(mut shape: Vec<FieldError>, faults: Vec<FieldError>) -> Result<(), Vec<FieldError>> {
    let misread = Misread::of(&shape);
    shape.extend(faults.into_iter().filter(|fault| !misread.covers(&fault.field)));
    if shape.is_empty() { Ok(()) } else { Err(shape) }
}

fn check_name(name: &str, faults: &mut Vec<FieldError>) {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !starts || name.len() > MAX_NAME || !name.bytes().all(allowed) || name.ends_with('-') {
        let message =
            format!("must be 1 to {MAX_NAME} of a-z, 0-9 and -, starting with a letter and not ending with -");
        faults.push(FieldError::new("name", message));
    }
}

/// Checks all but the name, and brings it into its one form.
fn check_spec(spec: &mut BindingSpec, faults: &mut Vec<FieldError>) {
    kind::check(&spec.kind, faults);
    upstream::check(&spec.upstream, faults);
    check_allow(&spec.allow, faults);
    if spec.budget == Some(BindingBudget::default()) {
        spec.budget = None;
    }
    if let Some(budget) = &spec.budget {
        check_budget(budget, faults);
    }
}

fn check_allow(allow: &[BindingAllow], faults: &mut Vec<FieldError>) {
    at_most("allow", allow.len(), MAX_ALLOW, faults);
    for (index, entry) in allow.iter().take(MAX_ALLOW).enumerate() {
        let path = format!("allow[{index}]");
        at_most(&format!("{path}.methods"), entry.methods.len(), MAX_METHODS, faults);
        at_most(&format!("{path}.paths"), entry.paths.len(), MAX_PATHS, faults);
        for (at, method) in entry.methods.iter().take(MAX_METHODS).enumerate() {
            check_method(&format!("{path}.methods[{at}]"), method, faults);
        }
        for (at, pattern) in entry.paths.iter().take(MAX_PATHS).enumerate() {
            check_pattern(&format!("{path}.paths[{at}]"), pattern, faults);
        }
    }
}

fn at_most(path: &str, has: usize, most: usize, faults: &mut Vec<FieldError>) {
    if has > most {
        faults.push(FieldError::new(path, format!("must have at most {most} entries")));
    }
}

fn check_method(path: &str, method: &str, faults: &mut Vec<FieldError>) {
    let allowed = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if method.is_empty() || method.len() > MAX_METHOD_BYTES || !method.bytes().all(allowed) {
        faults.push(FieldError::new(path, "must be a method in capitals, such as GET"));
    } else if matches!(method, "TRACE" | "CONNECT") {
        faults.push(FieldError::new(path, "is never passed on: it answers with what it was sent, or leads elsewhere"));
    }
}

fn check_pattern(path: &str, pattern: &str, faults: &mut Vec<FieldError>) {
    let whole = pattern.split('/').all(|segment| !segment.contains("**") || segment == "**");
    let plain = pattern.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\'));
    if !pattern.starts_with('/') || pattern.len() > MAX_PATH_BYTES || !plain || !whole || has_dots(pattern) {
        let message = format!(
            "must be a path of at most {MAX_PATH_BYTES} visible ASCII characters that starts with /, without a query and \
             without . and .. segments; ** is a whole segment"
        );
        faults.push(FieldError::new(path, message));
    }
}

fn check_budget(budget: &BindingBudget, faults: &mut Vec<FieldError>) {
    for (field, value) in [("calls", budget.calls), ("bytes", budget.bytes), ("windowMs", budget.window_ms)] {
        if value == Some(0) {
            faults.push(FieldError::new(format!("budget.{field}"), "must be more than 0"));
        }
    }
    if budget.window_ms.is_some() && budget.calls.is_none() && budget.bytes.is_none() {
        faults.push(FieldError::new("budget.windowMs", "bounds nothing without calls or bytes"));
    }
}

fn check_secret(path: &str, kind: &BindingKind, secret: &BindingSecret, faults: &mut Vec<FieldError>) {
    let field = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    check_secret_text(&field("value"), &secret.value, in_header(kind), faults);
    let refresh = matches!(kind, BindingKind::OAuth2Refresh { .. });
    let sigv4 = matches!(kind, BindingKind::AwsSigV4 { .. });
    for (name, value, fits, only, header) in [
        ("clientSecret", &secret.client_secret, refresh, "oauth2_refresh", false),
        ("sessionToken", &secret.session_token, sigv4, "aws_sigv4", true),
    ] {
        match value {
            Some(value) if fits => check_secret_text(&field(name), value, header, faults),
            Some(_) => faults.push(FieldError::new(field(name), format!("is for the kind {only} only"))),
            None => {}
        }
    }
}

/// Whether the secret stands in a header as it is.
fn in_header(kind: &BindingKind) -> bool {
    match kind {
        BindingKind::Header { .. } | BindingKind::Bearer => true,
        BindingKind::Basic { .. }
        | BindingKind::Query { .. }
        | BindingKind::OAuth2ClientCredentials { .. }
        | BindingKind::OAuth2Refresh { .. }
        | BindingKind::AwsSigV4 { .. }
        | BindingKind::Git { .. } => false,
    }
}

fn check_secret_text(path: &str, text: &str, in_header: bool, faults: &mut Vec<FieldError>) {
    if !(MIN_SECRET..=MAX_SECRET).contains(&text.len()) {
        faults.push(FieldError::new(path, format!("must be {MIN_SECRET} to {MAX_SECRET} bytes")));
    }
    if text.chars().any(char::is_control) {
        faults.push(FieldError::new(path, "must not contain control characters, line breaks included"));
    } else if in_header && !is_header_text(text) {
        faults.push(FieldError::new(path, "must be ASCII, without a space at its ends, to stand in a header"));
    }
}

/// What a header's value may be without anybody taking it for something else.
fn is_header_text(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~')) && text.trim() == text
}
