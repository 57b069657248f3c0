//! The parsers of what comes from a sandbox, for the fuzz targets. Not an interface.

use http::HeaderMap;

use crate::{dns, first::Look, guard, http_proxy, session, socks};

/// The opening of a stream.
pub fn opening(bytes: &[u8]) {
    let _ = session::parse_opening(bytes);
}

/// A DNS message: an answer to it is a message, too, and short enough for UDP.
pub fn dns(bytes: &[u8]) {
    if let Some(answer) = dns::answered_without_resolving(bytes) {
        assert!(answer.len() <= dns::MAX_ANSWER_BYTES, "{}", answer.len());
        assert!(dns::is_message(&answer), "an answer that is no message");
    }
}

/// The requests of a proxy's client.
pub fn proxy(bytes: &[u8]) {
    let _ = guard::frame(bytes);
    let mut headers = [httparse::EMPTY_HEADER; guard::MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(bytes), Ok(httparse::Status::Complete(_))) {
        return;
    }
    let (Some(Ok(method)), Some(Ok(uri))) = (request.method.map(str::parse), request.path.map(str::parse)) else {
        return;
    };
    let mut map = HeaderMap::new();
    for header in request.headers.iter() {
        if let (Ok(name), Ok(value)) = (header.name.parse::<http::HeaderName>(), header.value.try_into()) {
            map.append(name, value);
        }
    }
    let _ = http_proxy::target(&method, &uri, &map);
}

/// SOCKS5, and the first bytes behind it.
pub fn first(bytes: &[u8]) {
    let _ = socks::greeting(bytes);
    let _ = socks::request(bytes);
    let mut look = Look::default();
    for end in 0..=bytes.len() {
        if look.at(&bytes[..end]).is_some() {
            break;
        }
    }
}
