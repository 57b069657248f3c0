//! Where a response says to go on. Never followed here: what stays inside the upstream is rewritten to the binding's own
//! URL, so that the workload may follow; everything else is handed back, and has no credential.

use protocol::egress::base_url;
use url::Url;

use super::origin::Origin;

/// What `Location` should say instead, for a response to a request for `asked`.
pub(super) fn rewritten(
    origin: &Origin,
    binding: &str,
    asked: &Url,
    location: &str,
    hidden: Option<&str>,
) -> Option<String> {
    let mut to = asked.join(location).ok()?;
    if let Some(parameter) = hidden {
        // The service may have copied the query with the secret in it.
        let kept = super::query::without(to.query().unwrap_or_default(), parameter);
        to.set_query(Some(kept.as_str()).filter(|kept| !kept.is_empty()));
    }
    let Some(rest) = origin.below(&to) else { return Some(to.into()) };
    let mut inside = format!("{}{rest}", base_url(binding));
    if let Some(query) = to.query() {
        inside = format!("{inside}?{query}");
    }
    if let Some(fragment) = to.fragment() {
        inside = format!("{inside}#{fragment}");
    }
    Some(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_is_rewritten_and_outside_is_handed_back() {
        let origin = Origin::parse("https://api.test/v1/").unwrap();
        let asked = Url::parse("https://api.test/v1/a/b?key=secret").unwrap();
        for (location, to) in [
            ("https://api.test/v1/c?x=1#y", "http://svc.enclave.internal/c?x=1#y"),
            ("https://API.test:443/v1", "http://svc.enclave.internal/"),
            ("/v1/c/", "http://svc.enclave.internal/c/"),
            ("c?key=secret&x=%41", "http://svc.enclave.internal/a/c?x=%41"),
            ("?KEY=secret", "http://svc.enclave.internal/a/b"),
            ("https://api.test/v1/../v2?key=secret", "https://api.test/v2"),
            ("/v1/%2e%2e/v2", "https://api.test/v2"),
            ("/v10", "https://api.test/v10"),
            ("http://api.test/v1/c", "http://api.test/v1/c"),
            ("https://api.test:8443/v1/c", "https://api.test:8443/v1/c"),
            ("https://u:p@api.test/v1/c", "https://u:p@api.test/v1/c"),
            ("//evil.test/v1/c?k%65y=secret", "https://evil.test/v1/c"),
        ] {
            assert_eq!(rewritten(&origin, "svc", &asked, location, Some("key")).as_deref(), Some(to), "{location}");
        }
        assert_eq!(rewritten(&origin, "svc", &asked, "https://[", None), None);
    }
}
