//! Reading JSON from strangers: bounded depth, no duplicate keys, and every fault of a document at once.
//!
//! serde's derive stops at the first fault and lets the last of two equal keys win. A request body is therefore first
//! read into a [`Value`] by [`parse_strict`], then taken apart with [`Object`], which notes each fault and goes on.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use crate::problem::FieldError;

/// Arrays and objects inside one another that a request body may have. No contract shape needs more than six; labels
/// and inputs are flat.
pub const MAX_JSON_DEPTH: usize = 32;

/// Why a body is not usable JSON at all.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// Parses a whole document, refusing duplicate keys and nesting over [`MAX_JSON_DEPTH`].
pub fn parse_strict(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = de::DeserializeSeed::deserialize(Strict { depth: 0 }, &mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| JsonError(error.to_string()))?;
    Ok(value)
}

/// The fields of an object as their texts, duplicate keys refused; none for anything else. What is in them is skipped
/// over, and checked by whoever reads it.
pub(crate) fn raw_fields(bytes: &[u8]) -> Result<Option<Vec<(String, &RawValue)>>, JsonError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{') {
        reader.deserialize_map(RawFields).map(Some)
    } else {
        de::IgnoredAny::deserialize(&mut reader).map(|_| None)
    };
    read.and_then(|read| reader.end().map(|()| read)).map_err(|error| JsonError(error.to_string()))
}

/// The first `most` items of an array as their texts, and how many it has; none for anything else.
pub(crate) fn raw_items(text: &RawValue, most: usize) -> Result<Option<(Vec<&RawValue>, usize)>, JsonError> {
    if !text.get().starts_with('[') {
        return Ok(None);
    }
    let mut reader = serde_json::Deserializer::from_str(text.get());
    reader.deserialize_seq(RawItems { most }).map(Some).map_err(|error| JsonError(error.to_string()))
}

struct RawFields;

impl<'de> Visitor<'de> for RawFields {
    type Value = Vec<(String, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut seen = std::collections::HashSet::new();
        let mut fields = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format_args!("duplicate key {key:?}")));
            }
            fields.push((key, entries.next_value()?));
        }
        Ok(fields)
    }
}

struct RawItems {
    most: usize,
}

impl<'de> Visitor<'de> for RawItems {
    type Value = (Vec<&'de RawValue>, usize);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() < self.most
            && let Some(item) = items.next_element()?
        {
            kept.push(item);
        }
        let mut count = kept.len();
        while kept.len() == self.most && items.next_element::<de::IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok((kept, count))
    }
}

/// Arrays and objects inside one another: 0 for a scalar, 1 for `[]` and for `[1, 2]`.
pub fn json_depth(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        Value::Array(items) => 1 + items.iter().map(json_depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(json_depth).max().unwrap_or(0),
    }
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= MAX_JSON_DEPTH {
            return Err(E::custom(format_args!("nested deeper than {MAX_JSON_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> de::DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(deeper)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(deeper)?;
            if map.contains_key(&key) {
                return Err(de::Error::custom(format_args!("duplicate key {key:?}")));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// An object being taken apart field by field. Faults are collected under the object's own path.
#[derive(Debug)]
pub struct Object<'f> {
    path: String,
    fields: Map<String, Value>,
    faults: &'f mut Vec<FieldError>,
}

impl<'f> Object<'f> {
    /// Starts on `value`; anything but an object is a fault, and reads as an empty one.
    pub fn new(path: &str, value: Value, faults: &'f mut Vec<FieldError>) -> Self {
        let got = kind(&value);
        let fields = if let Value::Object(fields) = value {
            fields
        } else {
            faults.push(FieldError::new(name_or_body(path), format!("must be an object, not {got}")));
            Map::new()
        };
        Self { path: path.to_owned(), fields, faults }
    }

    /// The full path of one of this object's fields.
    pub fn path_of(&self, field: &str) -> String {
        if self.path.is_empty() { field.to_owned() } else { format!("{}.{field}", self.path) }
    }

    /// Notes a fault of one of this object's fields.
    pub fn fault(&mut self, field: &str, message: impl Into<String>) {
        let path = self.path_of(field);
        self.faults.push(FieldError::new(path, message));
    }

    /// Where faults go, for a nested object.
    pub fn faults(&mut self) -> &mut Vec<FieldError> {
        self.faults
    }

    /// Whether a field is there. `null` counts as absent.
    pub fn has(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(|value| !value.is_null())
    }

    /// Takes a field as it is. `null` counts as absent.
    pub fn raw(&mut self, field: &str) -> Option<Value> {
        self.fields.remove(field).filter(|value| !value.is_null())
    }

    /// Takes a field as it is and reads it with `read`, which gets its path.
    pub fn nested<T>(&mut self, field: &str, read: impl FnOnce(&str, Value, &mut Vec<FieldError>) -> T) -> Option<T> {
        let value = self.raw(field)?;
        let path = self.path_of(field);
        Some(read(&path, value, self.faults))
    }

    /// The same for a field that must be there.
    pub fn required_nested<T>(
        &mut self,
        field: &str,
        read: impl FnOnce(&str, Value, &mut Vec<FieldError>) -> T,
    ) -> Option<T> {
        if !self.has(field) {
            self.fault(field, "is required");
        }
        self.nested(field, read)
    }

    /// Takes an optional field of a given type.
    pub fn optional<T: DeserializeOwned>(&mut self, field: &str) -> Option<T> {
        let value = self.raw(field)?;
        let expected_from = kind(&value);
        match serde_json::from_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(field, readable(&error, expected_from));
                None
            }
        }
    }

    /// Takes a field that must be there. The type's default stands in for a fault, so that reading can go on.
    pub fn required<T: DeserializeOwned + Default>(&mut self, field: &str) -> T {
        if !self.has(field) {
            self.fault(field, "is required");
            return T::default();
        }
        self.optional(field).unwrap_or_default()
    }

    /// Takes a field that is an array, and reads each of its items with `read`.
    pub fn list<T>(
        &mut self,
        field: &str,
        mut read: impl FnMut(&str, Value, &mut Vec<FieldError>) -> Option<T>,
    ) -> Vec<T> {
        let path = self.path_of(field);
        let Some(value) = self.raw(field) else { return Vec::new() };
        let got = kind(&value);
        let Value::Array(items) = value else {
            self.fault(field, format!("must be an array, not {got}"));
            return Vec::new();
        };
        items
            .into_iter()
            .enumerate()
            .filter_map(|(index, item)| read(&format!("{path}[{index}]"), item, self.faults))
            .collect()
    }

    /// Ends the reading: whatever was not taken is unknown, and a fault by name.
    pub fn finish(self) {
        for field in self.fields.keys() {
            let path = if self.path.is_empty() { field.clone() } else { format!("{}.{field}", self.path) };
            self.faults.push(FieldError::new(path, "is not a known field"));
        }
    }
}

fn name_or_body(path: &str) -> String {
    if path.is_empty() { "(body)".to_owned() } else { path.to_owned() }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// serde's message without its position, which counts from the field and would only confuse.
fn readable(error: &serde_json::Error, got: &str) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    match text.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid type") => format!("must be {expected}, not {got}"),
        Some((found, expected)) if found.starts_with("invalid value") => {
            format!("must be {expected}, not {}", found.rsplit(' ').next().unwrap_or(got))
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        assert!(parse_strict(br#"{"a":1,"a":2}"#).unwrap_err().to_string().contains("duplicate key \"a\""));
        assert!(parse_strict(br#"[{"b":{"c":1,"c":1}}]"#).is_err());
    }

    #[test]
    fn nesting_is_bounded_and_deep_nesting_does_not_overflow() {
        let deep = "[".repeat(100_000);
        assert!(parse_strict(deep.as_bytes()).unwrap_err().to_string().contains("nested deeper"));
        let fits = format!("{}1{}", "[".repeat(MAX_JSON_DEPTH), "]".repeat(MAX_JSON_DEPTH));
        assert!(parse_strict(fits.as_bytes()).is_ok());
    }

    #[test]
    fn depth_counts_containers_and_takes_the_deepest() {
        for (text, levels) in [("1", 0), ("[]", 1), ("[1,2]", 1), (r#"{"a":[],"b":[[{}]]}"#, 4)] {
            assert_eq!(json_depth(&parse_strict(text.as_bytes()).unwrap()), levels, "{text}");
        }
    }

    #[test]
    fn trailing_bytes_and_lone_surrogates_are_refused() {
        assert!(parse_strict(b"{} {}").is_err());
        assert!(parse_strict(br#""\ud800""#).is_err());
        assert!(parse_strict(b"\"\xff\"").is_err());
    }

    #[test]
    fn every_fault_is_reported_with_its_path() {
        let value = parse_strict(br#"{"a":"x","list":[1,"two"],"surplus":true}"#).unwrap();
        let mut faults = Vec::new();
        let mut object = Object::new("", value, &mut faults);
        assert_eq!(object.optional::<u32>("a"), None);
        let numbers = object.list("list", |path, item, faults| {
            if let Some(number) = item.as_u64() {
                Some(number)
            } else {
                faults.push(FieldError::new(path, "must be a number"));
                None
            }
        });
        assert_eq!(numbers, [1]);
        let _: String = object.required("b");
        object.finish();
        let told: Vec<_> = faults.iter().map(|fault| format!("{} {}", fault.field, fault.message)).collect();
        assert_eq!(
            told,
            [
                "a must be u32, not a string",
                "list[1] must be a number",
                "b is required",
                "surplus is not a known field"
            ]
        );
    }
}
