//! Looking into a statement's text without being fooled by strings and brackets.

/// Walks over the characters that stand outside of strings and brackets.
struct Outside<'a> {
    chars: std::str::CharIndices<'a>,
    depth: usize,
}

impl Iterator for Outside<'_> {
    type Item = (usize, char);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, found) = self.chars.next()?;
            match found {
                '"' | '\'' | '`' => {
                    while self.chars.next().is_some_and(|(_, inner)| {
                        if inner == '\\' {
                            self.chars.next();
                        }
                        inner != found
                    }) {}
                }
                '(' | '[' | '{' => self.depth += 1,
                ')' | ']' | '}' => self.depth = self.depth.saturating_sub(1),
                _ if self.depth == 0 => return Some((at, found)),
                _ => {}
            }
        }
    }
}

/// Where a character first stands outside of strings and brackets.
pub(super) fn find(text: &str, wanted: char) -> Option<usize> {
    Outside { chars: text.char_indices(), depth: 0 }.find(|(_, found)| *found == wanted).map(|(at, _)| at)
}

/// Cuts at every such place, and trims the pieces.
pub(super) fn cut(text: &str, at: char) -> Vec<&str> {
    let mut start = 0;
    let places = Outside { chars: text.char_indices(), depth: 0 }.filter(|(_, found)| *found == at);
    let mut pieces: Vec<_> =
        places.map(|(end, _)| text[std::mem::replace(&mut start, end + at.len_utf8())..end].trim()).collect();
    pieces.push(text[start..].trim());
    pieces
}

/// The arguments of a call that is the whole text: `name(a, b)` gives `a` and `b`.
pub(super) fn call<'a>(text: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let rest = text.strip_prefix(name)?.trim_start();
    let inner = rest.strip_prefix('(')?.strip_suffix(')')?;
    // The first bracket may close early: `f(a) + g(b)`.
    let mut outside = Outside { chars: inner.char_indices(), depth: 1 };
    if outside.next().is_some() || outside.depth == 0 {
        return None;
    }
    if inner.trim().is_empty() {
        return Some(Vec::new());
    }
    let mut arguments = cut(inner, ',');
    if arguments.last().is_some_and(|last| last.is_empty()) {
        arguments.pop();
    }
    Some(arguments)
}

/// The same for the first of these names that fits.
pub(super) fn any_call<'a>(text: &'a str, names: &[&str]) -> Option<Vec<&'a str>> {
    names.iter().find_map(|name| call(text, name))
}

/// The two sides of `name = value`, declared or not.
pub(super) fn assignment(text: &str) -> Option<(&str, &str)> {
    let text = ["const ", "let ", "var "].iter().find_map(|word| text.strip_prefix(word)).unwrap_or(text);
    let at = find(text, '=')?;
    let (name, value) = (text[..at].trim(), text[at + 1..].trim());
    let plain = value.chars().next().is_some_and(|next| !matches!(next, '=' | '>'));
    (plain && is_name(name)).then_some((name, value))
}

/// Whether it is a name, perhaps with dots.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.chars().all(|char| char.is_alphanumeric() || matches!(char, '_' | '.' | '$'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_brackets_hide_what_is_inside() {
        assert_eq!(find("f(a;b) + 'x;\\';' ; c", ';'), Some(17));
        assert_eq!(cut("1, (2, 3), \"4,5\", [6, {7: 8, 9: 0}]", ','), ["1", "(2, 3)", "\"4,5\"", "[6, {7: 8, 9: 0}]"]);
    }

    #[test]
    fn only_a_call_that_is_the_whole_text_has_arguments() {
        assert_eq!(call("print(\"a)\", 1, )", "print"), Some(vec!["\"a)\"", "1"]));
        assert_eq!(call("exit ()", "exit"), Some(vec![]));
        assert_eq!(call("f(1) + f(2)", "f"), None);
        assert_eq!(call("printf(1)", "print"), None);
    }

    #[test]
    fn comparisons_and_arrows_are_not_assignments() {
        assert_eq!(assignment("const a = 1"), Some(("a", "1")));
        for text in ["a == 1", "a => 1", "f(a=1)", "a[0] = 1", "a += 1"] {
            assert_eq!(assignment(text), None, "{text}");
        }
    }
}
