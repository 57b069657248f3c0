//! Literals of Python and JavaScript, as JSON values.

use model::Language;
use serde_json::{Map, Number, Value};

/// Deeper values are refused by the real `enclave.result`, too.
const MAX_DEPTH: usize = 100;

/// The value, if the text is one literal and nothing else.
pub(super) fn parse(text: &str, language: Language) -> Option<Value> {
    let mut rest = Rest { text, language };
    let value = rest.value(0)?;
    rest.skip();
    rest.text.is_empty().then_some(value)
}

struct Rest<'a> {
    text: &'a str,
    language: Language,
}

impl<'a> Rest<'a> {
    fn skip(&mut self) {
        self.text = self.text.trim_start();
    }

    fn take(&mut self, wanted: char) -> bool {
        self.skip();
        let rest = self.text.strip_prefix(wanted);
        self.text = rest.unwrap_or(self.text);
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        self.skip();
        if depth > MAX_DEPTH {
            return None;
        }
        match self.text.chars().next()? {
            '[' => self.list('[', ']', depth).map(|(values, _)| Value::Array(values)),
            '(' => match self.list('(', ')', depth)? {
                (mut values, 0) if values.len() == 1 => values.pop(),
                (values, _) => (self.language == Language::Python).then_some(Value::Array(values)),
            },
            '{' => self.object(depth),
            '"' | '\'' | '`' => self.string().map(Value::String),
            '0'..='9' | '-' | '.' => self.number(),
            _ => self.word(),
        }
    }

    /// The values between two brackets, and how many commas there were.
    fn list(&mut self, open: char, close: char, depth: usize) -> Option<(Vec<Value>, usize)> {
        let (mut values, mut commas) = (Vec::new(), 0);
        self.take(open);
        while !self.take(close) {
            values.push(self.value(depth + 1)?);
            if self.take(',') {
                commas += 1;
            } else if self.take(close) {
                break;
            } else {
                return None;
            }
        }
        Some((values, commas))
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        let mut map = Map::new();
        self.take('{');
        while !self.take('}') {
            let key = self.key()?;
            if !self.take(':') {
                return None;
            }
            map.insert(key, self.value(depth + 1)?);
            if !self.take(',') {
                if self.take('}') {
                    break;
                }
                return None;
            }
        }
        Some(Value::Object(map))
    }

    fn key(&mut self) -> Option<String> {
        self.skip();
        if self.text.starts_with(['"', '\'']) {
            return self.string();
        }
        let key = self.run(|char| char.is_alphanumeric() || matches!(char, '_' | '$'))?;
        // In Python a bare name is a variable.
        (self.language == Language::Node || key.bytes().all(|byte| byte.is_ascii_digit())).then(|| key.to_owned())
    }

    fn string(&mut self) -> Option<String> {
        let quote = self.text.chars().next()?;
        let mut chars = self.text.char_indices().skip(1);
        let mut value = String::new();
        while let Some((at, char)) = chars.next() {
            match char {
                _ if char == quote => {
                    self.text = &self.text[at + 1..];
                    return Some(value);
                }
                '\\' => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    't' => value.push('\t'),
                    'r' => value.push('\r'),
                    same @ ('\\' | '\'' | '"' | '`') => value.push(same),
                    _ => return None,
                },
                '\n' if quote != '`' => return None,
                '$' if quote == '`' => return None,
                _ => value.push(char),
            }
        }
        None
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.take('-');
        let mut digits: String = self.run(|char| char.is_ascii_alphanumeric() || matches!(char, '_' | '.'))?.into();
        digits.retain(|char| char != '_');
        if negative {
            digits.insert(0, '-');
        }
        if let Ok(whole) = digits.parse::<i64>() {
            return Some(whole.into());
        }
        if !digits.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit() || first == '.') {
            return None;
        }
        digits.parse().ok().and_then(Number::from_f64).map(Value::Number)
    }

    fn word(&mut self) -> Option<Value> {
        let word = self.run(|char| char.is_alphanumeric() || char == '_')?;
        match (self.language, word) {
            (Language::Python, "True") | (Language::Node, "true") => Some(Value::Bool(true)),
            (Language::Python, "False") | (Language::Node, "false") => Some(Value::Bool(false)),
            (Language::Python, "None") | (Language::Node, "null") => Some(Value::Null),
            _ => None,
        }
    }

    fn run(&mut self, belongs: impl Fn(char) -> bool) -> Option<&'a str> {
        let end = self.text.find(|char| !belongs(char)).unwrap_or(self.text.len());
        let (run, rest) = self.text.split_at(end);
        self.text = rest;
        (!run.is_empty()).then_some(run)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_of_both_languages_become_json() {
        let python = "{'a': [1, -2.5, True, None,], \"b\": ('x\\n', 1_000), 3: (4), 'c': ()}";
        let expected = json!({ "a": [1, -2.5, true, null], "b": ["x\n", 1000], "3": 4, "c": [] });
        assert_eq!(parse(python, Language::Python), Some(expected));
        let node = "{ a: [1, true, null], 'b': { c: `d` }, }";
        assert_eq!(parse(node, Language::Node), Some(json!({ "a": [1, true, null], "b": { "c": "d" } })));
    }

    #[test]
    fn what_is_not_a_literal_is_none() {
        for text in ["", "x", "f(1)", "[1", "1 + 1", "{'a': b}", "f'{x}'", "{a: 1}", "nan", "true", "\"a", "[1 2]"] {
            assert_eq!(parse(text, Language::Python), None, "{text}");
        }
        for text in ["`${x}`", "True", "(1, 2)", "undefined", "-Infinity"] {
            assert_eq!(parse(text, Language::Node), None, "{text}");
        }
        assert_eq!(parse(&"[".repeat(100_000), Language::Python), None);
    }
}
