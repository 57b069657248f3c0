//! A secret as a parameter of the query.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use zeroize::Zeroizing;

/// The query without a parameter, however that is spelled; the rest as it was.
pub(super) fn without(query: &str, parameter: &str) -> String {
    let names_it = |pair: &&str| {
        let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
        percent_decode_str(&name).decode_utf8_lossy().trim().eq_ignore_ascii_case(parameter)
    };
    // Some servers divide at semicolons as well.
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.split(';').any(|part| names_it(&part))).collect();
    kept.join("&")
}

/// The query with a parameter, and no other of its name.
pub(super) fn with(query: &str, parameter: &str, value: &str) -> Zeroizing<String> {
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let rest = without(query, parameter);
    let divider = if rest.is_empty() { "" } else { "&" };
    Zeroizing::new(format!("{rest}{divider}{}={}", encode(parameter), encode(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_the_only_one_of_its_name() {
        assert_eq!(*with("a=1&key=mine&K%45y=mine&b;key=mine&c=%2F", "key", "s&c/ret"), "a=1&c=%2F&key=s%26c%2Fret");
        assert_eq!(*with("", "api key", "x"), "api%20key=x");
    }
}
