//! Which headers go on, in either direction.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, ACCEPT_ENCODING, TRANSFER_ENCODING, UPGRADE},
};

use super::guard::Coding;
use crate::hop;

/// What ends at every hop (RFC 9110, section 7.6.1), and what is as good as that.
const OF_A_HOP: [&str; 8] =
    ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "proxy-connection", "http2-settings"];

/// What the workload has no say in, besides what begins with `x-forwarded-` or `proxy-`: who asks, what for, and from where.
/// The last ones make some servers ignore the path that was allowed.
const NOT_FROM_INSIDE: [&str; 10] = [
    "authorization",
    "host",
    "content-length",
    "expect",
    "forwarded",
    "x-real-ip",
    "accept-encoding",
    "x-original-url",
    "x-rewrite-url",
    "x-http-host-override",
];

/// What makes some servers ignore the method that was allowed.
const OTHER_METHOD: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// What would lead the workload past the binding.
const NOT_FROM_OUTSIDE: [&str; 4] =
    ["alt-svc", "strict-transport-security", "proxy-authenticate", "proxy-authentication-info"];

/// Whether a request wants to become something that is not HTTP. Offers of HTTP/2 may be ignored, others not.
pub(super) fn wants_upgrade(headers: &HeaderMap) -> bool {
    let offers = |value: &HeaderValue| {
        let text = value.to_str().unwrap_or("?");
        text.split(',').any(|offer| !offer.trim().eq_ignore_ascii_case("h2c"))
    };
    headers.get_all(UPGRADE).iter().any(offers)
}

/// What of a request's headers goes to the service. `own` is the header that the binding itself sets.
pub(super) fn of_request(headers: &HeaderMap, own: Option<&HeaderName>, is_method_free: bool) -> HeaderMap {
    let named = hop::named(headers);
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        // Many servers take `_` for `-`.
        let plain = name.as_str().replace('_', "-");
        let is = |list: &[&str]| list.contains(&plain.as_str());
        let dropped = is(&OF_A_HOP)
            || is(&NOT_FROM_INSIDE)
            || (!is_method_free && is(&OTHER_METHOD))
            || plain.starts_with("proxy-")
            || plain.starts_with("x-forwarded-")
            || own.is_some_and(|own| own.as_str().replace('_', "-") == plain)
            || named.contains(name);
        if !dropped {
            kept.append(name.clone(), value.clone());
        }
    }
    kept.insert(ACCEPT_ENCODING, accepted(headers));
    kept
}

/// What of a response's headers goes to the workload.
pub(super) fn of_response(headers: &HeaderMap) -> HeaderMap {
    let named = hop::named(headers);
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let is = |list: &[&str]| list.contains(&name.as_str());
        if !is(&OF_A_HOP) && !is(&NOT_FROM_OUTSIDE) && !named.contains(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// How a response is encoded: none when it is not.
pub(super) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, &'static str> {
    let whole = |name: HeaderName| -> Vec<String> {
        let words = |value: &HeaderValue| -> Vec<String> {
            let text = value.to_str().unwrap_or("?");
            text.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty()).collect()
        };
        headers.get_all(name).iter().flat_map(words).collect()
    };
    if whole(TRANSFER_ENCODING).iter().any(|word| word != "chunked") {
        return Err("it answered in a transfer coding that was not asked for");
    }
    let codings: Vec<String> = whole(header::CONTENT_ENCODING).into_iter().filter(|word| word != "identity").collect();
    match &codings[..] {
        [] => Ok(None),
        [one] => Coding::named(one).map(Some).ok_or("it answered in a coding that was not asked for"),
        [_, _, ..] => Err("it answered in several codings"),
    }
}

/// Those codings of the request that can be looked into.
fn accepted(headers: &HeaderMap) -> HeaderValue {
    let is_known = |offer: &&str| {
        let name = offer.split(';').next().unwrap_or_default().trim();
        Coding::named(name).is_some() || name.eq_ignore_ascii_case("identity")
    };
    let offers: Vec<&str> = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(is_known)
        .collect();
    // Without this header a server may choose any.
    HeaderValue::from_str(&offers.join(", "))
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_ends_at_a_hop_or_says_who_asks_does_not_go_on() {
        let headers = map(&[
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("keep-alive", "1"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer mine"),
            ("x-api-key", "mine"),
            ("x_api_key", "mine"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x_forwarded_host", "other"),
            ("forwarded", "for=x"),
            ("host", "svc.enclave.internal"),
            ("x-http-method-override", "DELETE"),
            ("x-original-url", "/admin"),
            ("expect", "100-continue"),
            ("cookie", "a=b"),
            ("accept", "*/*"),
        ]);
        let own = HeaderName::from_static("x-api-key");
        let kept = of_request(&headers, Some(&own), false);
        assert_eq!(names(&kept), ["accept", "accept-encoding", "cookie"]);
        assert!(names(&of_request(&headers, Some(&own), true)).contains(&"x-http-method-override"));
        assert_eq!(
            names(&of_request(&headers, Some(&header::COOKIE), false)),
            ["accept", "accept-encoding", "x-api-key", "x_api_key"]
        );
    }

    #[test]
    fn only_codings_that_can_be_looked_into_are_asked_for() {
        let accepted = |value| accepted(&map(&[("accept-encoding", value)]));
        assert_eq!(accepted("gzip, deflate, br, zstd, *;q=0.1"), "gzip, deflate, br");
        assert_eq!(accepted("br;q=1.0, identity;q=0.5"), "br;q=1.0, identity;q=0.5");
        assert_eq!(accepted("zstd"), "identity");
        assert_eq!(super::accepted(&HeaderMap::new()), "identity");
    }

    #[test]
    fn codings_that_cannot_be_looked_into_are_told() {
        let coding = |value| coding(&map(&[("content-encoding", value)]));
        assert_eq!(coding("identity"), Ok(None));
        assert_eq!(coding("GZip"), Ok(Some(Coding::Gzip)));
        assert_eq!(coding("identity, br"), Ok(Some(Coding::Brotli)));
        assert!(coding("zstd").is_err());
        assert!(coding("gzip, br").is_err());
        assert!(super::coding(&map(&[("transfer-encoding", "gzip, chunked")])).is_err());
        assert_eq!(super::coding(&map(&[("transfer-encoding", "chunked")])), Ok(None));
    }

    #[test]
    fn upgrades_are_seen_and_offers_of_http2_are_not_upgrades() {
        assert!(wants_upgrade(&map(&[("upgrade", "websocket")])));
        assert!(wants_upgrade(&map(&[("upgrade", "h2c, websocket")])));
        assert!(!wants_upgrade(&map(&[("upgrade", "h2c")])));
        assert!(!wants_upgrade(&HeaderMap::new()));
    }
}
