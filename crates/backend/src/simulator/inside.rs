//! What a program finds inside a sandbox, as the model has it: no network, no host, its own environment.

use std::net::IpAddr;

use model::Language;
use protocol::Start;
use serde_json::{Map, Value, json};

use super::{gateway::Tried, program::Reach};

/// Processes and threads of a language host at rest.
pub(super) fn processes(language: Language) -> u32 {
    match language {
        Language::Python => 1,
        Language::Node => 11,
    }
}

/// Arguments and environment, as a program would hand them back.
pub(super) fn mirror(start: &Start) -> Vec<u8> {
    let own =
        [("PATH", "/usr/local/bin:/usr/bin:/bin:/workspace/.local/bin"), ("HOME", "/workspace"), ("LANG", "C.UTF-8")];
    let own = own.into_iter().map(|(name, value)| (name.to_owned(), value));
    // Names that are the runner's are not the caller's to set.
    let given = start.env.iter().filter(|(name, _)| !name.starts_with("ENCLAVE_"));
    let given = given.map(|(name, value)| (name.clone(), value.as_str()));
    let last = [("ENCLAVE_SESSION_ID".to_owned(), start.session_id.as_str())];
    let env: Map<String, Value> = own.chain(given).chain(last).map(|(name, value)| (name, value.into())).collect();
    json!({ "args": start.args, "env": env }).to_string().into_bytes()
}

/// The line about a try to reach something: it fails, for there is nothing to reach it by.
pub(super) fn connect(reach: Reach, to: &str) -> String {
    let by_name = match reach {
        Reach::Tcp | Reach::Udp => false,
        Reach::Dns => true,
        Reach::Http => host(to).parse::<IpAddr>().is_err(),
    };
    let why = if by_name { "Temporary failure in name resolution" } else { "Network is unreachable" };
    format!("blocked  {} {to}: {why}\n", reach.as_str())
}

/// The line about a try that a gateway has decided.
pub(super) fn told(tried: &str, how: &Tried) -> String {
    match how {
        Tried::Reached(Some(address)) => format!("reached  {tried}: {address}\n"),
        Tried::Reached(None) => format!("reached  {tried}\n"),
        Tried::Refused(why) => {
            let status = if tried.starts_with("http ") || tried.starts_with("bind ") { "403 " } else { "" };
            format!("blocked  {tried}: {status}egress denied: {why}\n")
        }
    }
}

/// What a program dies of that is refused the network.
pub(super) fn exception(language: Language, reach: Reach, why: &str) -> String {
    match (language, reach) {
        (Language::Python, Reach::Http) => format!("urllib.error.HTTPError: HTTP Error 403: egress denied: {why}"),
        (Language::Python, Reach::Tcp | Reach::Udp | Reach::Dns) => {
            format!("ConnectionResetError: [Errno 104] Connection reset by peer: egress denied: {why}")
        }
        (Language::Node, Reach::Tcp | Reach::Udp | Reach::Dns | Reach::Http) => {
            format!("TypeError: fetch failed: egress denied: {why}")
        }
    }
}

/// The host of a URL, without brackets and port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(v6),
        None => authority.split(':').next().unwrap_or(authority),
    }
}

/// The line about a try to read a file.
pub(super) fn read(path: &str) -> String {
    // What every image has and everybody may read, and what is the program's own.
    let harmless = ["/workspace", "/tmp", "/etc/os-release", "/etc/passwd", "/proc/self/status", "/proc/self/cmdline"];
    let private = ["/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/root", "/proc/1/", "/dev/"];
    if path.contains("..") || private.iter().any(|prefix| path.starts_with(prefix)) {
        format!("refused  {path}: Permission denied\n")
    } else if harmless
        .iter()
        .any(|own| path == *own || path.strip_prefix(own).is_some_and(|rest| rest.starts_with('/')))
    {
        format!("opened   {path}\n")
    } else {
        format!("refused  {path}: No such file or directory\n")
    }
}

/// What an uncaught exception leaves on stderr.
pub(super) fn trace(language: Language, text: &str, line: usize) -> String {
    match language {
        Language::Python => {
            format!(
                "Traceback (most recent call last):\n  File \"/workspace/main.py\", line {line}, in <module>\n{text}\n"
            )
        }
        Language::Node => format!("/workspace/main.js:{line}\n\n{text}\n    at /workspace/main.js:{line}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_reached_by_address_or_by_name() {
        for (reach, to, why) in [
            (Reach::Tcp, "169.254.169.254:80", "Network is unreachable"),
            (Reach::Http, "http://[fd00:ec2::254]:80/latest", "Network is unreachable"),
            (Reach::Http, "https://example.com:8443?q", "Temporary failure in name resolution"),
            (Reach::Dns, "example.com", "Temporary failure in name resolution"),
        ] {
            assert_eq!(connect(reach, to), format!("blocked  {} {to}: {why}\n", reach.as_str()));
        }
    }

    #[test]
    fn only_harmless_files_open() {
        assert!(read("/workspace/data.csv").starts_with("opened"));
        for path in
            ["/etc/shadow", "/proc/1/environ", "/workspace/../etc/shadow", "/var/run/docker.sock", "/workspaces"]
        {
            assert!(read(path).starts_with("refused"), "{path}");
        }
    }
}
