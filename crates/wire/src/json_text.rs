//! JSON that is passed on and not looked into.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// JSON kept as its text: small objects take a hundred times as much memory as a tree. Every instance can be read, and has
/// no white space between its tokens, so no line breaks.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// Takes a document with at most `max_depth` arrays and objects inside one another.
    pub fn parse(bytes: &[u8], max_depth: usize) -> Result<Self, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_slice(bytes);
        Walk { max_depth, depth: 0 }.deserialize(&mut reader)?;
        reader.end()?;
        let text = str::from_utf8(bytes).map_err(de::Error::custom)?;
        Ok(Self::of(without_space(text)))
    }

    fn of(text: String) -> Self {
        Self(RawValue::from_string(text).expect("it was read before, or written by us"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The value, to look into.
    pub fn value(&self) -> Value {
        let mut reader = serde_json::Deserializer::from_str(self.as_str());
        reader.disable_recursion_limit();
        Value::deserialize(&mut reader).expect("it was read before, or written by us")
    }
}

impl From<Value> for JsonText {
    fn from(value: Value) -> Self {
        Self::of(value.to_string())
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JsonText {}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get().as_bytes(), usize::MAX).map_err(de::Error::custom)
    }
}

/// Valid JSON without the white space between its tokens.
fn without_space(text: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    let keep = |c: &char| {
        let between = !in_string && c.is_ascii_whitespace();
        (in_string, escaped) = match c {
            _ if escaped => (in_string, false),
            '\\' => (in_string, true),
            '"' => (!in_string, false),
            _ => (in_string, false),
        };
        !between
    };
    text.chars().filter(keep).collect()
}

/// Reads a document and keeps nothing of it. Numbers and escapes are looked at, as they would be for a tree.
#[derive(Clone, Copy)]
struct Walk {
    max_depth: usize,
    depth: usize,
}

impl Walk {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= self.max_depth {
            return Err(E::custom(format_args!("nested deeper than {} levels", self.max_depth)));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let deeper = self.deeper()?;
        while items.next_element_seed(deeper)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let deeper = self.deeper()?;
        while entries.next_key_seed(deeper)?.is_some() {
            entries.next_value_seed(deeper)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_stays_as_it_was_but_for_the_space_between_its_tokens() {
        for (given, kept) in [
            (" { \"b\" :\r\n[ 1 ,\t2 ],\"a\" : \" \\\" x \\\\\" }\n", "{\"b\":[1,2],\"a\":\" \\\" x \\\\\"}"),
            ("12345678901234567890123", "12345678901234567890123"),
            ("\"\u{2028} \u{e9}\"", "\"\u{2028} \u{e9}\""),
            ("null", "null"),
        ] {
            let text = JsonText::parse(given.as_bytes(), 8).unwrap();
            assert_eq!(text.as_str(), kept);
            assert_eq!(text.value(), serde_json::from_str::<Value>(given).unwrap());
            assert_eq!(serde_json::to_string(&text).unwrap(), kept);
            assert_eq!(serde_json::from_str::<JsonText>(given).unwrap(), text);
        }
    }

    #[test]
    fn what_no_reader_could_read_is_refused() {
        let bad: [&[u8]; 9] =
            [b"", b"{", b"1 2", b"\"\\ud800\"", b"{\"\\ud800\":1}", b"1e999", b"\"\xff\"", b"\"\n\"", b"{'a':1}"];
        for text in bad {
            assert!(JsonText::parse(text, 8).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn depth_is_bounded_and_deep_nesting_does_not_overflow() {
        let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
        JsonText::parse(nested(8).as_bytes(), 8).unwrap();
        let refused = JsonText::parse(nested(9).as_bytes(), 8).unwrap_err();
        assert!(refused.to_string().starts_with("nested deeper than 8 levels"), "{refused}");
        assert!(serde_json::from_str::<JsonText>(&nested(100_000)).is_err());
        assert_eq!(JsonText::parse(br#"{"a":[{}]}"#, 3).unwrap().value(), serde_json::json!({"a": [{}]}));
    }
}
