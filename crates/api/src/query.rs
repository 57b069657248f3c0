//! Query strings, read strictly: every parameter is known, given once unless it may repeat, and within its bounds, and
//! all faults are told at once.

use std::{ops::RangeInclusive, str::FromStr};

use axum::extract::FromRequestParts;
use http::request::Parts;
use url::form_urlencoded;
use wire::FieldError;

use crate::{failure::Failure, state::App};

/// Parameters that no operation takes more of, whatever they are.
const MAX_PARAMETERS: usize = 100;

/// Items of a page when nobody says how many.
pub(crate) const DEFAULT_LIMIT: u32 = 20;
/// The most items of a page.
pub(crate) const MAX_LIMIT: u32 = 100;
/// Cursors are made by the store and short; anything longer is none.
const MAX_CURSOR_BYTES: usize = 512;

/// The parameters of a request, taken out one by one.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    faults: Vec<FieldError>,
}

impl FromRequestParts<App> for Query {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _app: &App) -> Result<Self, Failure> {
        Ok(Self::parse(parts.uri.query().unwrap_or("")))
    }
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            if query.pairs.len() == MAX_PARAMETERS {
                query.fault("(query)", format!("must have at most {MAX_PARAMETERS} parameters"));
                break;
            }
            // The decoder writes this for bytes that are not UTF-8.
            if name.contains('\u{fffd}') || value.contains('\u{fffd}') {
                query.fault(&name, "must be UTF-8");
                continue;
            }
            query.pairs.push((name.into_owned(), value.into_owned()));
        }
        query
    }

    pub(crate) fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(FieldError::new(name, message));
    }

    /// Every value of a parameter that may repeat.
    pub(crate) fn all(&mut self, name: &str) -> Vec<String> {
        self.pairs.extract_if(.., |(given, _)| given == name).map(|(_, value)| value).collect()
    }

    /// The value of a parameter that may be given once.
    pub(crate) fn one(&mut self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        if values.len() > 1 {
            self.fault(name, "may be given only once");
        }
        values.pop()
    }

    /// Where a page begins.
    pub(crate) fn cursor(&mut self) -> Option<String> {
        let cursor = self.one("cursor");
        if cursor.as_ref().is_some_and(|cursor| cursor.is_empty() || cursor.len() > MAX_CURSOR_BYTES) {
            self.fault("cursor", "is not a nextCursor of this list");
        }
        cursor
    }

    /// A whole number within bounds.
    pub(crate) fn number<T>(&mut self, name: &str, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let text = self.one(name)?;
        match number(&text, &bounds) {
            Ok(value) => Some(value),
            Err(message) => {
                self.fault(name, message);
                None
            }
        }
    }

    /// Ends the reading: what was not taken is unknown, and a fault by name.
    pub(crate) fn faults(mut self) -> Vec<FieldError> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.fault(&name, "is not a known parameter");
        }
        self.faults
    }

    /// Ends the reading, refusing the request if there was any fault.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        let faults = self.faults();
        if faults.is_empty() { Ok(()) } else { Err(Failure::invalid(faults)) }
    }
}

/// Reads a whole number that is written in digits alone.
pub(crate) fn number<T>(text: &str, bounds: &RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + std::fmt::Display,
{
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|value| digits && bounds.contains(value))
        .ok_or_else(|| format!("must be a whole number from {} to {}", bounds.start(), bounds.end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(query: Query) -> Vec<String> {
        query.faults().into_iter().map(|fault| fault.field).collect()
    }

    #[test]
    fn every_fault_of_a_query_is_told_by_name() {
        let mut query = Query::parse("limit=0&wait=1&wait=2&surplus&b%C3=1&x=%ff");
        assert_eq!(query.number("limit", 1..=100_u32), None);
        query.one("wait");
        assert_eq!(fields(query), ["b\u{fffd}", "x", "limit", "wait", "surplus"]);
    }

    #[test]
    fn numbers_are_digits_within_bounds() {
        for text in ["", " 1", "1 ", "+1", "-1", "1.0", "1e1", "0x1", "١", "101", "18446744073709551616"] {
            assert!(number::<u32>(text, &(1..=100)).is_err(), "{text:?}");
        }
        assert_eq!(number::<u32>("007", &(1..=100)), Ok(7));
    }

    #[test]
    fn repeated_values_come_in_order_and_decoded() {
        let mut query = Query::parse("label=a:b%20c&limit=5&label=d+e:%2B");
        assert_eq!(query.all("label"), ["a:b c", "d e:+"]);
        assert_eq!(query.number("limit", 1..=100_u32), Some(5));
        assert_eq!(fields(query), Vec::<String>::new());
    }

    #[test]
    fn a_flood_of_parameters_is_one_fault() {
        let text = "a&".repeat(100_000);
        let mut query = Query::parse(&text);
        query.all("a");
        assert_eq!(fields(query), ["(query)"]);
    }
}
