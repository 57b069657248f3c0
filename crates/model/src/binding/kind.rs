//! How a secret goes into a request, and what may be said about it.

use wire::{BindingKind, FieldError};

use super::{at_most, is_header_text, upstream};

/// Bytes of names and ids: more than any service gives out.
const MAX_WORD: usize = 256;
const MAX_TEMPLATE: usize = 1024;
const MAX_SCOPES: usize = 32;
const PLACE: &str = "{secret}";

/// Headers that are about the connection, the message or its frame, and not the caller's to set.
const NOT_FOR_SECRETS: [&str; 15] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header of this name (in lower case) may be one that a binding sets.
pub fn may_carry_secret(header: &str) -> bool {
    !NOT_FOR_SECRETS.contains(&header)
}

pub(super) fn check(kind: &BindingKind, faults: &mut Vec<FieldError>) {
    match kind {
        BindingKind::Header { name, template } => {
            check_header("kind.name", name, faults);
            check_template("kind.template", template, faults);
        }
        BindingKind::Bearer => {}
        BindingKind::Basic { username } | BindingKind::Git { username } => check_user(username, faults),
        BindingKind::Query { parameter } => word("kind.parameter", parameter, |c| !c.is_control(), faults),
        BindingKind::OAuth2ClientCredentials { token_url, client_id, scopes } => {
            upstream::check_url("kind.tokenUrl", token_url, faults);
            word("kind.clientId", client_id, |c| matches!(c, ' '..='~'), faults);
            at_most("kind.scopes", scopes.len(), MAX_SCOPES, faults);
            for (index, scope) in scopes.iter().take(MAX_SCOPES).enumerate() {
                let allowed = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
                word(&format!("kind.scopes[{index}]"), scope, allowed, faults);
            }
        }
        BindingKind::OAuth2Refresh { token_url, client_id } => {
            upstream::check_url("kind.tokenUrl", token_url, faults);
            word("kind.clientId", client_id, |c| matches!(c, ' '..='~'), faults);
        }
        BindingKind::AwsSigV4 { region, service, access_key_id } => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            word("kind.region", region, allowed, faults);
            word("kind.service", service, allowed, faults);
            word("kind.accessKeyId", access_key_id, allowed, faults);
        }
    }
}

fn word(path: &str, text: &str, allowed: impl Fn(char) -> bool, faults: &mut Vec<FieldError>) {
    if text.is_empty() || text.len() > MAX_WORD {
        faults.push(FieldError::new(path, format!("must be 1 to {MAX_WORD} bytes")));
    } else if !text.chars().all(allowed) {
        faults.push(FieldError::new(path, "holds a character that cannot stand here"));
    }
}

fn check_header(path: &str, name: &str, faults: &mut Vec<FieldError>) {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > MAX_WORD || !name.bytes().all(token) {
        faults.push(FieldError::new(path, "must be the name of a header, such as x-api-key"));
    } else if !may_carry_secret(&name.to_ascii_lowercase()) {
        faults.push(FieldError::new(path, "is a header of the connection or the message, which carries no secret"));
    }
}

fn check_template(path: &str, template: &str, faults: &mut Vec<FieldError>) {
    if template.matches(PLACE).count() != 1 {
        faults.push(FieldError::new(path, "must contain {secret} exactly once"));
    }
    if template.len() > MAX_TEMPLATE || !is_header_text(template) {
        let message = format!("must be at most {MAX_TEMPLATE} ASCII characters, without control characters");
        faults.push(FieldError::new(path, message));
    }
}

/// The user of basic authentication ends at the first colon.
fn check_user(username: &str, faults: &mut Vec<FieldError>) {
    if username.len() > MAX_WORD || username.chars().any(|c| c == ':' || c.is_control()) {
        let message = format!("must be at most {MAX_WORD} bytes, without a colon and without control characters");
        faults.push(FieldError::new("kind.username", message));
    }
}
