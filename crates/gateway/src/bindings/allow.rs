//! What a binding allows to be asked: methods and paths.
//!
//! A path is read before it is compared. One that different servers read differently is refused, or has to be allowed in
//! each reading; none is ever rewritten.

use http::Method;
use model::pattern::Pattern;
use percent_encoding::percent_decode_str;
use wire::{BindingAllow, BindingKind};

/// Longest path that is looked at. Servers take some 8 KiB.
const MAX_PATH_BYTES: usize = 8 * 1024;

/// Longest list in a refusal.
const MAX_SHOWN_BYTES: usize = 400;

/// What git asks for when it only reads.
const UPLOAD_PACK: &str = "git-upload-pack";

/// What git asks for when it pushes.
const RECEIVE_PACK: &str = "git-receive-pack";

/// A binding's rules.
#[derive(Debug)]
pub(super) struct Allow {
    rules: Vec<Rule>,
    is_git: bool,
}

#[derive(Debug)]
struct Rule {
    methods: Vec<String>,
    paths: Vec<Pattern>,
}

/// A path as it may be read: its segments, once with encoded slashes inside them, and once divided by these as well.
type Readings = Vec<Vec<String>>;

impl Allow {
    pub(super) fn new(kind: &BindingKind, rules: &[BindingAllow]) -> Self {
        let rule = |rule: &BindingAllow| Rule {
            methods: rule.methods.iter().map(|method| method.to_ascii_uppercase()).collect(),
            paths: rule.paths.iter().map(|path| Pattern::new(path)).collect(),
        };
        Self { rules: rules.iter().map(rule).collect(), is_git: matches!(kind, BindingKind::Git { .. }) }
    }

    /// Whether this may be asked; why not, if not.
    pub(super) fn decide(&self, method: &Method, path: &str, query: Option<&str>) -> Result<(), String> {
        if matches!(*method, Method::CONNECT | Method::TRACE) {
            return Err(format!("{method} is never allowed through a binding"));
        }
        let readings = read(path).map_err(|why| format!("the path {why}"))?;
        let allowed = readings
            .iter()
            .all(|path| if self.is_git { self.allows_git(method, path, query) } else { self.allows(method, path) });
        if allowed { Ok(()) } else { Err(format!("it allows only {}", self.shown())) }
    }

    /// Whether the rules tell requests apart by their method.
    pub(super) fn has_methods(&self) -> bool {
        self.is_git || self.rules.iter().any(|rule| !rule.methods.is_empty())
    }

    fn allows(&self, method: &Method, path: &[String]) -> bool {
        self.rules.is_empty() || self.rules.iter().any(|rule| rule.allows(method, path))
    }

    fn allows_git(&self, method: &Method, path: &[String], query: Option<&str>) -> bool {
        let Some((last, repository)) = path.split_last() else { return false };
        let pairs: Vec<_> = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
        let asks_to_push = last == RECEIVE_PACK || pairs.iter().any(|(_, value)| value.contains(RECEIVE_PACK));
        if asks_to_push {
            let (pushed, repository) = match last.as_str() {
                RECEIVE_PACK => (*method == Method::POST, repository),
                // Asking what is there, before a push.
                "refs" => match repository.split_last() {
                    Some((info, repository)) if info == "info" => (*method == Method::GET, repository),
                    Some(_) | None => return false,
                },
                _ => return false,
            };
            let push: Vec<String> = repository.iter().cloned().chain([RECEIVE_PACK.to_owned()]).collect();
            return pushed
                && self.rules.iter().any(|rule| rule.names(RECEIVE_PACK) && rule.allows(&Method::POST, &push));
        }
        if !self.rules.is_empty() {
            return self.allows(method, path);
        }
        match last.as_str() {
            UPLOAD_PACK => *method == Method::POST,
            "refs" => {
                let upload = matches!(&pairs[..], [(key, value)] if key == "service" && value == UPLOAD_PACK);
                *method == Method::GET && upload && repository.last().is_some_and(|info| info == "info")
            }
            _ => false,
        }
    }

    /// The rules, for people.
    fn shown(&self) -> String {
        if self.rules.is_empty() && self.is_git {
            return "cloning and fetching: GET …/info/refs?service=git-upload-pack, POST …/git-upload-pack".to_owned();
        }
        let all: Vec<String> = self.rules.iter().map(Rule::shown).collect();
        let mut shown = all.join("; ");
        if shown.len() > MAX_SHOWN_BYTES {
            shown.truncate(shown.floor_char_boundary(MAX_SHOWN_BYTES));
            shown.push('…');
        }
        shown
    }
}

impl Rule {
    fn allows(&self, method: &Method, path: &[String]) -> bool {
        let has_method = self.methods.is_empty() || self.methods.iter().any(|own| own == method.as_str());
        has_method && (self.paths.is_empty() || self.paths.iter().any(|pattern| pattern.fits(path)))
    }

    /// Whether a path of it ends in exactly this.
    fn names(&self, last: &str) -> bool {
        self.paths.iter().any(|path| path.last() == Some(last))
    }

    fn shown(&self) -> String {
        let methods = if self.methods.is_empty() { "any method".to_owned() } else { self.methods.join(", ") };
        let paths: Vec<String> = self.paths.iter().map(|path| format!("/{path}")).collect();
        if paths.is_empty() { format!("{methods} on any path") } else { format!("{methods} on {}", paths.join(", ")) }
    }
}

/// Reads a path as it stands in a request.
fn read(path: &str) -> Result<Readings, &'static str> {
    if path.len() > MAX_PATH_BYTES {
        return Err("is too long");
    }
    let inner = path.strip_prefix('/').ok_or("does not begin with a slash")?;
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has characters that have to be percent-encoded");
    }
    if path.contains('\\') {
        return Err("has a backslash");
    }
    let mut kept = Vec::new();
    let mut divided = Vec::new();
    let mut raw = inner.split('/').peekable();
    while let Some(segment) = raw.next() {
        let decoded = decode(segment)?;
        let is_last = raw.peek().is_none();
        let parts: Vec<&str> = decoded.split('/').collect();
        for (at, part) in parts.iter().enumerate() {
            // `..;x` is `..` to servers that know parameters of segments.
            if matches!(part.split(';').next(), Some("." | "..")) {
                return Err("has a segment of dots");
            }
            // Only the end of a path may be empty: it is a folder then.
            if part.is_empty() && !(is_last && at + 1 == parts.len()) {
                return Err("has an empty segment");
            }
        }
        divided.extend(parts.into_iter().map(str::to_owned));
        kept.push(decoded);
    }
    if kept == divided { Ok(vec![kept]) } else { Ok(vec![kept, divided]) }
}

fn decode(segment: &str) -> Result<String, &'static str> {
    for (at, _) in segment.match_indices('%') {
        let is_escape =
            segment.as_bytes().get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        if !is_escape {
            return Err("has a percent sign that begins no escape");
        }
    }
    let decoded = percent_decode_str(segment).decode_utf8().map_err(|_| "is not UTF-8 when decoded")?;
    if decoded.chars().any(char::is_control) {
        return Err("has an encoded control character");
    }
    if decoded.contains('\\') {
        return Err("has an encoded backslash");
    }
    // Decoded once more, as some servers do, it would be another path.
    let again = percent_decode_str(&decoded).decode_utf8_lossy();
    if again != decoded && again.chars().any(|c| matches!(c, '/' | '\\' | '.' | '%') || c.is_control()) {
        return Err("is encoded twice");
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests;
