//! What a binding is, from the command line.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{ArgGroup, Args};
use wire::{BindingAllow, BindingBudget, BindingKind, BindingSpec, BindingUpstream};

use crate::settings::values;

/// No server takes more certificates.
const MAX_CA_BYTES: u64 = 64 * 1024;

/// Everything but the name and the secret.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("kind").required(true).multiple(false))]
pub(super) struct SpecArgs {
    /// The service: scheme, host, port and base path, https://api.example.com/v1 for example
    #[arg(long, value_name = "URL")]
    url: String,
    /// Certificates (PEM) to trust for it, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Authorization: Bearer
    #[arg(long, group = "kind", help_heading = "How the secret goes into a request")]
    bearer: bool,
    /// A header; TEMPLATE has {secret} where the secret goes
    #[arg(long, value_name = "NAME[:TEMPLATE]", group = "kind", help_heading = "How the secret goes into a request")]
    header: Option<String>,
    /// Basic authentication; the secret is the password
    #[arg(long, value_name = "USER", group = "kind", help_heading = "How the secret goes into a request")]
    basic: Option<String>,
    /// A query parameter
    #[arg(long, value_name = "PARAM", group = "kind", help_heading = "How the secret goes into a request")]
    query: Option<String>,
    /// OAuth 2 client credentials; the secret is the client's
    #[arg(
        long = "oauth2-client-credentials",
        value_name = "TOKEN_URL",
        group = "kind",
        requires = "client_id",
        help_heading = "How the secret goes into a request"
    )]
    client_credentials: Option<String>,
    /// OAuth 2 with a refresh token, which is the secret
    #[arg(
        long = "oauth2-refresh",
        value_name = "TOKEN_URL",
        group = "kind",
        requires = "client_id",
        help_heading = "How the secret goes into a request"
    )]
    refresh: Option<String>,
    /// AWS signature version 4; the secret is the secret access key
    #[arg(
        long = "aws-sigv4",
        value_name = "REGION/SERVICE",
        group = "kind",
        requires = "access_key_id",
        help_heading = "How the secret goes into a request"
    )]
    sigv4: Option<String>,
    /// Git over HTTP; the secret is the password or token [default user: x-access-token]
    #[arg(
        long,
        value_name = "USER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "x-access-token",
        group = "kind",
        help_heading = "How the secret goes into a request"
    )]
    git: Option<String>,
    /// Id of the OAuth 2 client
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// OAuth 2 scope to ask for; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", requires = "client_credentials")]
    scopes: Vec<String>,
    /// Id of the AWS access key
    #[arg(long, value_name = "ID", requires = "sigv4")]
    access_key_id: Option<String>,
    /// What may be asked, 'GET,POST /path/**' for example; may be repeated [default: everything]
    #[arg(long = "allow", value_name = "METHODS [PATH]", value_parser = allow)]
    allow: Vec<BindingAllow>,
    /// Calls that one session may make
    #[arg(long, value_name = "N", help_heading = "Budget")]
    max_calls: Option<u64>,
    /// Bytes of bodies that one session may move, 10MiB for example
    #[arg(long, value_name = "SIZE", value_parser = values::size, help_heading = "Budget")]
    max_bytes: Option<u64>,
    /// The time in which both are counted, 1h for example [default: the session's life]
    #[arg(long, value_name = "DURATION", value_parser = values::millis, help_heading = "Budget")]
    window: Option<u64>,
}

impl SpecArgs {
    /// Puts it together. The server decides whether it is good.
    pub(super) fn spec(self, name: String) -> anyhow::Result<BindingSpec> {
        let kind = self.kind()?;
        let ca_pem = self.ca.as_deref().map(|path| super::secret::text_of(path, MAX_CA_BYTES)).transpose()?;
        let budget = BindingBudget { calls: self.max_calls, bytes: self.max_bytes, window_ms: self.window };
        Ok(BindingSpec {
            name,
            kind,
            upstream: BindingUpstream { url: self.url, ca_pem },
            allow: self.allow,
            budget: (budget != BindingBudget::default()).then_some(budget),
        })
    }

    fn kind(&self) -> anyhow::Result<BindingKind> {
        let id = |id: &Option<String>, option: &str| id.clone().with_context(|| format!("--{option} is missing"));
        if self.bearer {
            return Ok(BindingKind::Bearer);
        }
        if let Some(header) = &self.header {
            let (name, template) = header.split_once(':').unwrap_or((header, "{secret}"));
            return Ok(BindingKind::Header { name: name.to_owned(), template: template.trim_start().to_owned() });
        }
        if let Some(username) = self.basic.clone() {
            return Ok(BindingKind::Basic { username });
        }
        if let Some(parameter) = self.query.clone() {
            return Ok(BindingKind::Query { parameter });
        }
        if let Some(token_url) = self.client_credentials.clone() {
            let client_id = id(&self.client_id, "client-id")?;
            return Ok(BindingKind::OAuth2ClientCredentials { token_url, client_id, scopes: self.scopes.clone() });
        }
        if let Some(token_url) = self.refresh.clone() {
            return Ok(BindingKind::OAuth2Refresh { token_url, client_id: id(&self.client_id, "client-id")? });
        }
        if let Some(place) = &self.sigv4 {
            let (region, service) = place.split_once('/').context("--aws-sigv4 must be REGION/SERVICE")?;
            let access_key_id = id(&self.access_key_id, "access-key-id")?;
            return Ok(BindingKind::AwsSigV4 { region: region.into(), service: service.into(), access_key_id });
        }
        if let Some(username) = self.git.clone() {
            return Ok(BindingKind::Git { username });
        }
        bail!("one option must say how the secret goes into a request")
    }
}

/// `GET,POST /path/**`, `GET`, or `/path`.
fn allow(text: &str) -> Result<BindingAllow, String> {
    let mut words = text.split_whitespace();
    let (Some(first), second, None) = (words.next(), words.next(), words.next()) else {
        return Err("must be methods, a path, or both: 'GET,POST /path/**'".into());
    };
    let (methods, path) = if first.starts_with('/') { (None, Some(first)) } else { (Some(first), second) };
    if first.starts_with('/') && second.is_some() {
        return Err("methods come before the path: 'GET,POST /path/**'".into());
    }
    let methods = methods
        .filter(|methods| *methods != "*")
        .map_or_else(Vec::new, |methods| methods.split(',').map(ToOwned::to_owned).collect());
    Ok(BindingAllow { methods, paths: path.map(ToOwned::to_owned).into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use clap::{Parser, error::ErrorKind};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        spec: SpecArgs,
    }

    fn read(args: &[&str]) -> Result<BindingSpec, ErrorKind> {
        let all = ["x", "--url", "https://a.test"].iter().chain(args);
        let line = Line::try_parse_from(all).map_err(|error| error.kind())?;
        Ok(line.spec.spec("n".into()).unwrap())
    }

    #[test]
    fn each_kind_has_its_option() {
        let text = |text: &str| text.to_owned();
        for (args, kind) in [
            (vec!["--bearer"], BindingKind::Bearer),
            (vec!["--header", "x-key"], BindingKind::Header { name: text("x-key"), template: text("{secret}") }),
            (
                vec!["--header", "Authorization: Token {secret}:x"],
                BindingKind::Header { name: text("Authorization"), template: text("Token {secret}:x") },
            ),
            (vec!["--basic", "me"], BindingKind::Basic { username: text("me") }),
            (vec!["--query", "key"], BindingKind::Query { parameter: text("key") }),
            (
                vec!["--oauth2-client-credentials", "https://t", "--client-id", "c", "--scope", "a", "--scope", "b"],
                BindingKind::OAuth2ClientCredentials {
                    token_url: text("https://t"),
                    client_id: text("c"),
                    scopes: vec![text("a"), text("b")],
                },
            ),
            (
                vec!["--oauth2-refresh", "https://t", "--client-id", "c"],
                BindingKind::OAuth2Refresh { token_url: text("https://t"), client_id: text("c") },
            ),
            (
                vec!["--aws-sigv4", "eu-central-1/s3", "--access-key-id", "A"],
                BindingKind::AwsSigV4 { region: text("eu-central-1"), service: text("s3"), access_key_id: text("A") },
            ),
            (vec!["--git"], BindingKind::Git { username: text("x-access-token") }),
            (vec!["--git=me"], BindingKind::Git { username: text("me") }),
        ] {
            assert_eq!(read(&args).unwrap().kind, kind, "{args:?}");
        }
        assert_eq!(read(&[]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(read(&["--oauth2-refresh", "https://t"]), Err(ErrorKind::MissingRequiredArgument));
        assert_eq!(read(&["--bearer", "--git"]), Err(ErrorKind::ArgumentConflict));
    }

    #[test]
    fn what_may_be_asked_is_methods_and_a_path() {
        let spec = read(&[
            "--bearer",
            "--allow",
            "GET,POST /a/**",
            "--allow",
            "/b",
            "--allow",
            "PUT",
            "--allow",
            "* /c",
            "--max-bytes",
            "1MiB",
            "--window",
            "1h",
        ]);
        let spec = spec.unwrap();
        let entry = |methods: &[&str], paths: &[&str]| BindingAllow {
            methods: methods.iter().map(ToString::to_string).collect(),
            paths: paths.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(
            spec.allow,
            [entry(&["GET", "POST"], &["/a/**"]), entry(&[], &["/b"]), entry(&["PUT"], &[]), entry(&[], &["/c"])]
        );
        let budget = BindingBudget { calls: None, bytes: Some(1 << 20), window_ms: Some(3_600_000) };
        assert_eq!(spec.budget, Some(budget));
        assert_eq!(read(&["--bearer"]).unwrap().budget, None);
        for wrong in ["", "/a GET", "GET /a /b"] {
            assert_eq!(read(&["--bearer", "--allow", wrong]), Err(ErrorKind::ValueValidation), "{wrong}");
        }
    }
}
