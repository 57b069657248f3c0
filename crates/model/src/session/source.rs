//! `source`: a program that comes out of a git repository. Everything in it is hostile until it has been through here.

use std::{fmt, net::IpAddr};

use protocol::path;
use wire::{FieldError, GitSource};

use super::could_be_binding;
use crate::{
    binding::{Upstream, has_dots},
    egress::Host,
};

/// Of a URL; servers take little more.
const MAX_URL_BYTES: usize = 2048;
/// Of a ref; git's own bound is that of a file name.
const MAX_REF_BYTES: usize = 255;

/// A repository and what of it, every value decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Where it is.
    pub url: RepoUrl,
    /// Branch, tag, or a whole commit id.
    pub reference: String,
    /// Directory inside it that becomes the working directory.
    pub subpath: Option<String>,
    /// The file to run, below that.
    pub entrypoint: String,
    /// The binding that adds the credential.
    pub credential: Option<String>,
}

/// The URL of a repository: `http` or `https`, a host, perhaps a port, a path, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoUrl {
    /// Whether it is `https`.
    pub tls: bool,
    /// The host, in its one spelling.
    pub host: Host,
    /// The port, written out or not.
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
}

/// Why a text is not the URL of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotARepoUrl {
    /// See the constant.
    #[error("must be at most {MAX_URL_BYTES} bytes")]
    TooLong,
    /// `ssh`, `git`, `file`, `ext::`, `user@host:path`, a path.
    #[error("must begin with https:// or http://")]
    Scheme,
    /// `user:password@`. A credential is a binding.
    #[error("must hold no user and no password: the credential of a private repository is a binding")]
    UserInfo,
    /// It cannot be a host or a port.
    #[error("must have a host name or an address, and a port if any")]
    Authority,
    /// Queries, fragments, spaces, backslashes, control characters.
    #[error("must have a path of letters, digits and - . _ ~ % + @ / alone, without an empty part, . and ..")]
    Path,
}

impl std::str::FromStr for RepoUrl {
    type Err = NotARepoUrl;

    /// Stricter than any URL parser: what one would read differently from another is refused.
    fn from_str(text: &str) -> Result<Self, NotARepoUrl> {
        if text.len() > MAX_URL_BYTES {
            return Err(NotARepoUrl::TooLong);
        }
        let scheme = |scheme: &str| {
            let (head, rest) = text.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        let (tls, rest) = match (scheme("https://"), scheme("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return Err(NotARepoUrl::Scheme),
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            return Err(NotARepoUrl::UserInfo);
        }
        // The colons of an address in brackets are its own.
        let (host, port) = match authority.rfind(':').filter(|at| !authority[*at..].contains(']')) {
            Some(at) => (&authority[..at], Some(&authority[at + 1..])),
            None => (authority, None),
        };
        if host.contains(':') && !host.starts_with('[') {
            return Err(NotARepoUrl::Authority);
        }
        let host = host.parse::<Host>().map_err(|_| NotARepoUrl::Authority)?;
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port > 0).ok_or(NotARepoUrl::Authority)?
            }
            Some(_) => return Err(NotARepoUrl::Authority),
        };
        let path = path.strip_suffix('/').unwrap_or(path);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%+@/".contains(&byte);
        if !path.bytes().all(plain) || path.split('/').any(str::is_empty) || has_dots(path) {
            return Err(NotARepoUrl::Path);
        }
        Ok(Self { tls, host, port, path: format!("/{path}") })
    }
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "https://" } else { "http://" })?;
        match &self.host {
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
            Host::Address(IpAddr::V4(_)) | Host::Name(_) => write!(f, "{}", self.host)?,
        }
        if self.port != if self.tls { 443 } else { 80 } {
            write!(f, ":{}", self.port)?;
        }
        f.write_str(&self.path)
    }
}

impl RepoUrl {
    /// The path of this repository below a binding's upstream; none when it is not below it.
    pub fn below(&self, upstream: &Upstream) -> Option<String> {
        if (self.tls, &self.host, self.port) != (upstream.tls, &upstream.host, upstream.port) {
            return None;
        }
        self.path.strip_prefix(&upstream.base).filter(|rest| rest.starts_with('/')).map(str::to_owned)
    }
}

/// Decides on a source; none when it has a fault.
pub(super) fn decide(source: GitSource, faults: &mut Vec<FieldError>) -> Option<Repository> {
    let before = faults.len();
    let mut fault = |field: &str, message: String| faults.push(FieldError::new(format!("source.{field}"), message));
    let url = source.repo.parse::<RepoUrl>().map_err(|error| fault("repo", error.to_string())).ok();
    if !is_ref(&source.reference) {
        fault(
            "ref",
            format!(
                "must be a branch, a tag or a whole commit id: 1 to {MAX_REF_BYTES} bytes, by the rules of git check-ref-format"
            ),
        );
    }
    if let Some(Err(error)) = source.subpath.as_deref().map(in_tree) {
        fault("subpath", error);
    }
    if let Err(error) = in_tree(&source.entrypoint) {
        fault("entrypoint", error);
    }
    if let Some(name) = &source.credential
        && !could_be_binding(name)
    {
        fault("credential", "must be the id or the name of a binding of kind git".to_owned());
    }
    let GitSource { repo: _, reference, subpath, entrypoint, credential } = source;
    let url = url.filter(|_| faults.len() == before)?;
    Some(Repository { url, reference, subpath, entrypoint, credential })
}

fn in_tree(path: &str) -> Result<(), String> {
    path::check(path).map_err(|error| error.to_string())?;
    if path.split('/').any(is_git_directory) {
        return Err("must not lead into .git, which is not copied".to_owned());
    }
    Ok(())
}

/// Whether a component is git's own directory, as the file systems of other systems would read it too.
pub fn is_git_directory(name: &str) -> bool {
    name.trim_end_matches(['.', ' ']).eq_ignore_ascii_case(".git")
}

/// The rules of `git check-ref-format --allow-onelevel`, and nothing that could be an option or a refspec.
fn is_ref(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && !part.starts_with('.') && part.strip_suffix(".lock").is_none();
    (1..=MAX_REF_BYTES).contains(&name.len())
        && !name.starts_with(['-', '+'])
        && !name.ends_with('.')
        && name != "@"
        && !name.contains("..")
        && !name.contains("@{")
        && !name.chars().any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
        && name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Result<String, NotARepoUrl> {
        text.parse::<RepoUrl>().map(|url| url.to_string())
    }

    #[test]
    fn urls_have_one_form() {
        for (text, form) in [
            ("https://example.org/a/b.git", "https://example.org/a/b.git"),
            ("HTTPS://Example.ORG.:443/a/", "https://example.org/a"),
            ("http://git.example:8080/~u/r%20x", "http://git.example:8080/~u/r%20x"),
            ("https://0x7f.1/r", "https://127.0.0.1/r"),
            ("https://[::FFFF:10.0.0.1]:8443/r", "https://10.0.0.1:8443/r"),
            ("https://[2001:DB8::1]/r", "https://[2001:db8::1]/r"),
        ] {
            assert_eq!(url(text).as_deref(), Ok(form), "{text}");
            assert_eq!(url(form).as_deref(), Ok(form));
        }
    }

    #[test]
    fn anything_but_plain_http_is_refused() {
        for (text, error) in [
            ("", NotARepoUrl::Scheme),
            ("file:///etc", NotARepoUrl::Scheme),
            ("/srv/repo", NotARepoUrl::Scheme),
            ("ext::sh -c id", NotARepoUrl::Scheme),
            ("git@example.org:a/b", NotARepoUrl::Scheme),
            ("ssh://example.org/a", NotARepoUrl::Scheme),
            ("git://example.org/a", NotARepoUrl::Scheme),
            ("--upload-pack=id", NotARepoUrl::Scheme),
            ("https:example.org/a", NotARepoUrl::Scheme),
            ("https://user:secret@example.org/a", NotARepoUrl::UserInfo),
            ("https://example.org@evil.example/a", NotARepoUrl::UserInfo),
            ("https:///a", NotARepoUrl::Authority),
            ("https://-x y/a", NotARepoUrl::Authority),
            ("https://example.org:0/a", NotARepoUrl::Authority),
            ("https://example.org:+1/a", NotARepoUrl::Authority),
            ("https://example.org:99999/a", NotARepoUrl::Authority),
            ("https://a:b:1/a", NotARepoUrl::Authority),
            ("https://example.org\\@evil/a", NotARepoUrl::UserInfo),
            ("https://example.org\\evil/a", NotARepoUrl::Authority),
            ("https://example.org", NotARepoUrl::Path),
            ("https://example.org/", NotARepoUrl::Path),
            ("https://example.org//a", NotARepoUrl::Path),
            ("https://example.org/a/../b", NotARepoUrl::Path),
            ("https://example.org/a/%2E%2e/b", NotARepoUrl::Path),
            ("https://example.org/a?b", NotARepoUrl::Path),
            ("https://example.org/a#b", NotARepoUrl::Path),
            ("https://example.org/a b", NotARepoUrl::Path),
            ("https://example.org/a\nb", NotARepoUrl::Path),
            ("https://example.org/ü", NotARepoUrl::Path),
        ] {
            assert_eq!(url(text), Err(error), "{text:?}");
        }
        assert_eq!(url(&format!("https://a/{}", "a".repeat(MAX_URL_BYTES))), Err(NotARepoUrl::TooLong));
    }

    #[test]
    fn a_repository_is_below_its_bindings_upstream_or_not() {
        let repository: RepoUrl = "https://example.org/team/repo".parse().unwrap();
        let below = |upstream: &str| upstream.parse().ok().and_then(|upstream| repository.below(&upstream));
        for (upstream, path) in [
            ("https://example.org", "/team/repo"),
            ("https://example.org/", "/team/repo"),
            ("https://EXAMPLE.org:443/team", "/repo"),
            ("https://example.org/team/", "/repo"),
        ] {
            assert_eq!(below(upstream).as_deref(), Some(path), "{upstream}");
        }
        for upstream in [
            "http://example.org",
            "https://example.org:8443",
            "https://other.example",
            "https://example.org/te",
            "https://example.org/team/repo",
            "https://example.org/other",
            "",
        ] {
            assert_eq!(below(upstream), None, "{upstream}");
        }
    }

    #[test]
    fn refs_follow_the_rules_of_git() {
        for name in ["main", "v1.0", "feature/a-b", "refs/tags/x", "HEAD", "@x", &"a1".repeat(20), "zwölf"] {
            assert!(is_ref(name), "{name}");
        }
        for name in [
            "",
            "-x",
            "--upload-pack=id",
            "+main",
            "a..b",
            "a b",
            "a\tb",
            "a\0",
            "a~1",
            "a^",
            "a:b",
            "a?",
            "a*",
            "a[",
            "a\\b",
            "@",
            "a@{1}",
            "/a",
            "a/",
            "a//b",
            ".a",
            "a/.b",
            "a.lock",
            "a.lock/b",
            "a.",
            &"a".repeat(256),
        ] {
            assert!(!is_ref(name), "{name:?}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let mut faults = Vec::new();
        let source = GitSource {
            repo: "file:///etc".into(),
            reference: "-x".into(),
            subpath: Some("../x".into()),
            entrypoint: "hooks/.GIT/x".into(),
            credential: Some(String::new()),
        };
        assert_eq!(decide(source, &mut faults), None);
        let fields: Vec<_> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["source.repo", "source.ref", "source.subpath", "source.entrypoint", "source.credential"]);
    }

    proptest! {
        #[test]
        fn what_is_taken_is_taken_again_in_its_one_form(text in "https?://[a-zA-Z0-9.:@\\[\\]-]{0,20}/[a-zA-Z0-9/.%?#@ ~-]{0,20}") {
            if let Ok(url) = text.parse::<RepoUrl>() {
                prop_assert_eq!(url.to_string().parse::<RepoUrl>(), Ok(url));
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}", upstream in ".{0,30}") {
            if let (Ok(url), Ok(upstream)) = (text.parse::<RepoUrl>(), upstream.parse()) {
                let _ = url.below(&upstream);
            }
            let _ = is_ref(&text);
        }
    }
}
