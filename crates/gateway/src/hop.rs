//! What of a message belongs to the connection that it came over, by its own word. Asked by whoever sends one on.

use http::{HeaderMap, HeaderName, header::CONNECTION};

/// The headers that the Connection header names. What is no name names none.
pub(crate) fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}
