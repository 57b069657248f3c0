//! The one place that a binding leads to: scheme, host, port and base path.

use std::net::IpAddr;

use http::{Uri, uri};
use model::{binding::Upstream, egress::Host};
use url::Url;
use zeroize::Zeroizing;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) is_tls: bool,
    pub(super) host: Host,
    pub(super) port: u16,
    /// Host, and port where it is not the scheme's own.
    pub(super) authority: String,
    /// Without a slash at its end.
    base: String,
    root: Url,
}

impl Origin {
    /// Reads it by the rule by which the server took it.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let Upstream { tls: is_tls, host, port, base } = text.parse().map_err(|_| "its URL is not one of a service")?;
        let scheme = if is_tls { "https" } else { "http" };
        let place = match &host {
            Host::Address(IpAddr::V6(address)) => format!("{scheme}://[{address}]:{port}/"),
            Host::Address(IpAddr::V4(_)) | Host::Name(_) => format!("{scheme}://{host}:{port}/"),
        };
        // Two readers of a URL: where they do not agree on the host, neither is followed.
        let root = Url::parse(&place).map_err(|_| "its URL is none")?;
        let authority = match (root.host_str(), root.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err("its URL has no host"),
        };
        Ok(Self { is_tls, host, port, authority, base, root })
    }

    /// Where a path of the binding is.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The whole of where a request goes.
    pub(super) fn uri(&self, path: &str, query: Option<&str>) -> Option<Uri> {
        let all = Zeroizing::new(match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        });
        uri::Builder::new()
            .scheme(if self.is_tls { "https" } else { "http" })
            .authority(self.authority.as_str())
            .path_and_query(all.as_str())
            .build()
            .ok()
    }

    /// The same as a URL, without the query.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.root.clone();
        url.set_path(path);
        url
    }

    /// The binding's path for a URL inside, none for one outside.
    pub(super) fn below<'a>(&self, url: &'a Url) -> Option<&'a str> {
        let same = url.scheme() == self.root.scheme()
            && url.host() == self.root.host()
            && url.port_or_known_default() == Some(self.port)
            && url.username().is_empty()
            && url.password().is_none();
        let rest = url.path().strip_prefix(&self.base).filter(|_| same)?;
        match rest {
            "" => Some("/"),
            rest if rest.starts_with('/') => Some(rest),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_and_leads_below_its_base() {
        let origin = Origin::parse("https://Api.Test.:443/v1/").unwrap();
        assert_eq!((origin.authority.as_str(), origin.port, origin.is_tls), ("api.test", 443, true));
        let path = origin.path("/a%2eb");
        assert_eq!(origin.uri(&path, Some("x=1")).unwrap(), "https://api.test/v1/a%2eb?x=1");
        let origin = Origin::parse("http://[::1]:8080").unwrap();
        assert_eq!((origin.authority.as_str(), origin.is_tls), ("[::1]:8080", false));
        assert_eq!(origin.uri(&origin.path("/"), None).unwrap(), "http://[::1]:8080/");
        for wrong in
            ["api.test", "ftp://api.test", "https://u@api.test", "https://api.test?x", "https://api.test#x", "https://"]
        {
            assert!(Origin::parse(wrong).is_err(), "{wrong}");
        }
    }
}
