//! What is modelled of a turn: its variables, what it prints of them, and its value; everything else is what any program
//! is modelled as.
//!
//! Understood line by line, in code that has no blocks: `x = …` (in Node also with `const`, `let` or `var`), `print(…)` or
//! `console.log(…)`, and an expression as the last line; an expression is made of whole numbers, texts in quotes, names,
//! `+`, `-` and `*`. A turn with a script is that script alone.

use std::collections::BTreeMap;

use model::Language;
use protocol::MAX_TURN_REPORT_BYTES;
use serde_json::{Value as Json, json};

use super::{program::Program, script};

/// Variables that a session may have; a turn that makes more fails.
const MAX_VARIABLES: usize = 1000;
/// Longest text that a variable holds.
const MAX_TEXT: usize = 64 * 1024;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A whole number.
    Number(i64),
    /// A text.
    Text(String),
}

/// What a turn dies of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Raised {
    pub(super) name: String,
    pub(super) value: String,
}

/// One thing that a turn does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Gives a name a value.
    Set(String, Expression),
    /// Prints a value.
    Print(Expression),
    /// Its value, in the end.
    Value(Expression),
    /// What any program does.
    Play(Program),
}

/// `a + b * c …`: sums of products.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Expression(Vec<(Sign, Vec<Atom>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    Plus,
    Minus,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    Literal(Value),
    Name(String),
}

/// The steps of a turn.
pub(super) fn steps(code: &str, language: Language, has_way_out: bool) -> Vec<Step> {
    let whole = || vec![Step::Play(Program::read(code, language, has_way_out))];
    if script::read(code, language).is_some() || code.lines().any(|line| is_of_a_block(line, language)) {
        return whole();
    }
    let lines: Vec<_> = code.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let (mut steps, mut rest) = (Vec::new(), String::new());
    for (at, line) in lines.iter().enumerate() {
        let step = step(line, language, at + 1 == lines.len());
        if step.is_some() && !rest.is_empty() {
            steps.push(Step::Play(Program::read(&std::mem::take(&mut rest), language, has_way_out)));
        }
        match step {
            Some(step) => steps.push(step),
            None => rest.extend([line, "\n"]),
        }
    }
    if !rest.is_empty() {
        steps.push(Step::Play(Program::read(&rest, language, has_way_out)));
    }
    steps
}

fn is_of_a_block(line: &str, language: Language) -> bool {
    match language {
        Language::Python => line.starts_with([' ', '\t']) || line.contains(": ") || line.trim_end().ends_with(':'),
        Language::Node => line.contains(['{', '}', '(']) && !line.starts_with("console.log("),
    }
}

fn step(line: &str, language: Language, last: bool) -> Option<Step> {
    let (print, line) = match language {
        Language::Python => ("print(", line),
        Language::Node => ("console.log(", line.strip_suffix(';').unwrap_or(line)),
    };
    if let Some(printed) = line.strip_prefix(print).and_then(|rest| rest.strip_suffix(')')) {
        return expression(printed).map(Step::Print);
    }
    let declared = match language {
        Language::Python => line,
        Language::Node => ["const ", "let ", "var "].iter().find_map(|word| line.strip_prefix(word)).unwrap_or(line),
    };
    if let Some((name, value)) = declared.split_once('=').filter(|(name, _)| is_name(name.trim())) {
        return Some(Step::Set(name.trim().to_owned(), expression(value)?));
    }
    expression(line).filter(|_| last).map(Step::Value)
}

fn is_name(text: &str) -> bool {
    const WORDS: [&str; 8] = ["pass", "None", "True", "False", "null", "true", "false", "undefined"];
    let head = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
    head && text.chars().all(|char| char.is_ascii_alphanumeric() || char == '_') && !WORDS.contains(&text)
}

fn expression(text: &str) -> Option<Expression> {
    let (mut sums, mut sign, mut rest) = (Vec::new(), Sign::Plus, text.trim_start());
    if let Some(negative) = rest.strip_prefix('-') {
        (sign, rest) = (Sign::Minus, negative);
    }
    loop {
        let mut product = Vec::new();
        let operator = loop {
            let (atom, after) = atom(rest.trim_start())?;
            product.push(atom);
            let mut chars = after.trim_start().chars();
            let operator = chars.next();
            rest = chars.as_str();
            if operator != Some('*') {
                break operator;
            }
        };
        sums.push((sign, product));
        sign = match operator {
            None => return Some(Expression(sums)),
            Some('+') => Sign::Plus,
            Some('-') => Sign::Minus,
            Some(_) => return None,
        };
    }
}

fn atom(text: &str) -> Option<(Atom, &str)> {
    let first = text.chars().next()?;
    if matches!(first, '"' | '\'') {
        let (inner, after) = text[1..].split_once(first)?;
        return (!inner.contains('\\')).then(|| (Atom::Literal(Value::Text(inner.to_owned())), after));
    }
    let end = text.find(|char: char| !(char.is_ascii_alphanumeric() || char == '_')).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    match word.parse() {
        Ok(number) => Some((Atom::Literal(Value::Number(number)), after)),
        Err(_) => is_name(word).then(|| (Atom::Name(word.to_owned()), after)),
    }
}

/// The variables of a session.
#[derive(Debug, Default)]
pub(super) struct Variables(BTreeMap<String, Value>);

impl Variables {
    pub(super) fn set(&mut self, name: &str, value: Value) -> Result<(), Raised> {
        let long = matches!(&value, Value::Text(text) if text.len() > MAX_TEXT);
        if long || self.0.len() >= MAX_VARIABLES && !self.0.contains_key(name) {
            return Err(Raised { name: "MemoryError".to_owned(), value: "more than is modelled".to_owned() });
        }
        self.0.insert(name.to_owned(), value);
        Ok(())
    }

    pub(super) fn evaluate(&self, expression: &Expression, language: Language) -> Result<Value, Raised> {
        let mut sum: Option<Value> = None;
        for (sign, product) in &expression.0 {
            let mut value: Option<Value> = None;
            for atom in product {
                let next = self.look_up(atom, language)?;
                value = Some(match value {
                    None => next,
                    Some(value) => combine(value, next, i64::checked_mul)?,
                });
            }
            let value = value.unwrap_or(Value::Number(0));
            sum = Some(match (sum, sign) {
                (None, Sign::Plus) => value,
                (None, Sign::Minus) => combine(Value::Number(0), value, i64::checked_sub)?,
                (Some(Value::Text(mut text)), Sign::Plus) if matches!(value, Value::Text(_)) => {
                    text.push_str(&value.text());
                    Value::Text(text)
                }
                (Some(sum), Sign::Plus) => combine(sum, value, i64::checked_add)?,
                (Some(sum), Sign::Minus) => combine(sum, value, i64::checked_sub)?,
            });
        }
        Ok(sum.unwrap_or(Value::Number(0)))
    }

    fn look_up(&self, atom: &Atom, language: Language) -> Result<Value, Raised> {
        let name = match atom {
            Atom::Literal(value) => return Ok(value.clone()),
            Atom::Name(name) => name,
        };
        self.0.get(name).cloned().ok_or_else(|| match language {
            Language::Python => Raised { name: "NameError".to_owned(), value: format!("name '{name}' is not defined") },
            Language::Node => Raised { name: "ReferenceError".to_owned(), value: format!("{name} is not defined") },
        })
    }
}

fn combine(left: Value, right: Value, how: fn(i64, i64) -> Option<i64>) -> Result<Value, Raised> {
    let raised = |name: &str, value: &str| Raised { name: name.to_owned(), value: value.to_owned() };
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            how(left, right).map(Value::Number).ok_or_else(|| raised("OverflowError", "larger than is modelled"))
        }
        (Value::Text(_), _) | (_, Value::Text(_)) => Err(raised("TypeError", "not modelled for these types")),
    }
}

impl Value {
    /// As it is printed.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// As a console shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("'{text}'"),
        }
    }
}

/// How a turn ended, as its report.
pub(super) fn report(outcome: &Outcome, number: u32) -> Vec<u8> {
    let (status, value, error) = match outcome {
        Outcome::Completed(value) => {
            ("completed", value.as_ref().map(|value| json!({ "text/plain": value.shown() })), Json::Null)
        }
        Outcome::Failed(Raised { name, value }) => ("failed", None, error(name, value, number)),
        Outcome::Interrupted => ("interrupted", None, error("KeyboardInterrupt", "", number)),
    };
    let report = json!({ "status": status, "value": value, "error": error }).to_string().into_bytes();
    assert!(report.len() <= MAX_TURN_REPORT_BYTES, "texts of the model are bounded");
    report
}

fn error(name: &str, value: &str, number: u32) -> Json {
    let said = if value.is_empty() { name.to_owned() } else { format!("{name}: {value}") };
    json!({ "name": name, "value": value, "traceback": format!("  File \"<turn {number}>\"\n{said}\n") })
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Completed(Option<Value>),
    Failed(Raised),
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(variables: &mut Variables, code: &str, language: Language) -> Result<Option<Value>, Raised> {
        let mut last = None;
        for step in steps(code, language, false) {
            match step {
                Step::Set(name, expression) => {
                    let value = variables.evaluate(&expression, language)?;
                    variables.set(&name, value)?;
                }
                Step::Print(expression) | Step::Value(expression) => {
                    last = Some(variables.evaluate(&expression, language)?);
                }
                Step::Play(_) => {}
            }
        }
        Ok(last)
    }

    #[test]
    fn variables_are_kept_and_expressions_have_values() {
        let mut variables = Variables::default();
        for (code, language, expected) in [
            ("x = 20", Language::Python, None),
            ("y = x * 2 + 3 - 1\ny", Language::Python, Some(Value::Number(42))),
            ("-x + 1", Language::Python, Some(Value::Number(-19))),
            ("const t = 'a' + \"b\"; t", Language::Node, None),
            ("const t = 'a' + \"b\";\nt + 'c'", Language::Node, Some(Value::Text("abc".into()))),
            ("x == 20", Language::Python, None),
            ("f(x)", Language::Python, None),
        ] {
            assert_eq!(value(&mut variables, code, language), Ok(expected), "{code}");
        }
        assert_eq!(
            value(&mut variables, "nope", Language::Python).map_err(|raised| raised.name),
            Err("NameError".into())
        );
        assert_eq!(
            value(&mut variables, "1 + 't'", Language::Python).map_err(|raised| raised.name),
            Err("TypeError".into())
        );
    }

    #[test]
    fn what_is_no_plain_line_is_what_any_program_is() {
        for (code, language) in [
            ("while True: pass", Language::Python),
            ("for i in range(3):\n    x = 1", Language::Python),
            ("# sim: stdout hi\nx = 1", Language::Python),
            ("while (true) {}", Language::Node),
        ] {
            assert!(matches!(steps(code, language, false)[..], [Step::Play(_)]), "{code}");
        }
    }

    #[test]
    fn a_session_holds_only_so_much() {
        let mut variables = Variables::default();
        for number in 0..MAX_VARIABLES {
            variables.set(&format!("v{number}"), Value::Number(0)).expect("there is room");
        }
        assert!(variables.set("one_more", Value::Number(0)).is_err());
        assert!(variables.set("v0", Value::Text("x".repeat(MAX_TEXT + 1))).is_err());
    }
}
