//! Python source as statements: logical lines, nested by their indentation.

use super::{MAX_DEPTH, Statement, text};

/// Words that begin a block.
const COMPOUND: [&str; 13] =
    ["while", "for", "if", "elif", "else", "try", "except", "finally", "with", "def", "class", "async", "match"];

/// A line that may go over several lines of the file.
struct Logical {
    line: usize,
    lines: usize,
    indent: usize,
    text: String,
}

pub(super) fn split(source: &str) -> Vec<Statement> {
    let lines = logical_lines(source);
    let mut at = 0;
    block(&lines, &mut at, 0, 0)
}

fn block(lines: &[Logical], at: &mut usize, indent: usize, depth: usize) -> Vec<Statement> {
    let mut statements = Vec::new();
    while let Some(logical) = lines.get(*at).filter(|logical| logical.indent >= indent) {
        *at += 1;
        let Some((header, inline)) = header(&logical.text) else {
            statements.extend(simple(logical, &logical.text));
            continue;
        };
        let body = match lines.get(*at) {
            _ if !inline.is_empty() => simple(logical, inline),
            Some(next) if next.indent > logical.indent && depth < MAX_DEPTH => block(lines, at, next.indent, depth + 1),
            _ => Vec::new(),
        };
        statements.push(Statement {
            line: logical.line,
            lines: logical.lines,
            text: header.to_owned(),
            body: Some(body),
        });
    }
    statements
}

/// What stands before and after the colon of a line that begins a block.
fn header(line: &str) -> Option<(&str, &str)> {
    let word = line.split(|char: char| !char.is_alphanumeric() && char != '_').next().unwrap_or_default();
    if !COMPOUND.contains(&word) {
        return None;
    }
    let colon = text::find(line, ':')?;
    Some((line[..colon].trim(), line[colon + 1..].trim()))
}

/// The statements of one line.
fn simple(logical: &Logical, line: &str) -> Vec<Statement> {
    let pieces = text::cut(line, ';').into_iter().filter(|piece| !piece.is_empty());
    let statement =
        |piece: &str| Statement { line: logical.line, lines: logical.lines, text: piece.to_owned(), body: None };
    pieces.map(statement).collect()
}

fn logical_lines(source: &str) -> Vec<Logical> {
    let mut lines = Vec::new();
    let (mut text, mut line, mut depth) = (String::new(), 1, 0_usize);
    // The line of the first character that is not white.
    let mut first = None;
    let mut chars = source.char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        if !char.is_whitespace() && char != '#' {
            first.get_or_insert(line);
        }
        match char {
            '#' => while chars.next_if(|(_, next)| *next != '\n').is_some() {},
            '"' | '\'' => {
                let end = at + string_len(&source[at..], char);
                line += source[at..end].matches('\n').count();
                text.push_str(&source[at..end]);
                while chars.next_if(|(next, _)| *next < end).is_some() {}
            }
            '\\' if chars.next_if(|(_, next)| *next == '\n').is_some() => line += 1,
            '\n' => {
                line += 1;
                if depth > 0 {
                    text.push(' ');
                } else {
                    finish(&mut lines, &text, first.take().unwrap_or(line)..line);
                    text.clear();
                }
            }
            _ => {
                match char {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                text.push(char);
            }
        }
    }
    finish(&mut lines, &text, first.unwrap_or(line)..line + 1);
    lines
}

fn finish(lines: &mut Vec<Logical>, text: &str, place: std::ops::Range<usize>) {
    let trimmed = text.trim();
    if !trimmed.is_empty() {
        let indent = text.chars().take_while(|char| char.is_whitespace()).map(|char| if char == '\t' { 8 } else { 1 });
        lines.push(Logical { line: place.start, lines: place.len(), indent: indent.sum(), text: trimmed.to_owned() });
    }
}

/// The length of the string that the text begins with, quotes included. One that is not closed ends with its line.
fn string_len(text: &str, quote: char) -> usize {
    let triple: String = [quote; 3].iter().collect();
    if let Some(inner) = text.strip_prefix(&triple) {
        return inner.find(&triple).map_or(text.len(), |end| end + 6);
    }
    let mut escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return at,
            _ if char == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `line+lines text`, bodies indented.
    fn show(statements: &[Statement], indent: usize) -> String {
        let one = |Statement { line, lines, text, body }: &Statement| {
            let body = show(body.as_deref().unwrap_or_default(), indent + 1);
            format!("{:indent$}{line}+{lines} {text}\n{body}", "")
        };
        statements.iter().map(one).collect::<Vec<_>>().concat()
    }

    #[test]
    fn lines_are_joined_cut_and_nested() {
        let source = "import os; x = ';' # a; b\n\nwhile True: os.fork()\nf(1,\n  2)\nfor i in range(3):\n    if i:\n        \
            g()\n    h()\n'''a\n:'''\ny = 1 + \\\n  2";
        assert_eq!(
            show(&split(source), 0),
            "1+1 import os\n1+1 x = ';'\n3+1 while True\n 3+1 os.fork()\n4+2 f(1,   2)\n6+1 for i in range(3)\n \
             7+1 if i\n  8+1 g()\n 9+1 h()\n10+2 '''a\n:'''\n12+2 y = 1 +   2\n"
        );
    }

    #[test]
    fn hostile_nesting_is_cut_off() {
        let lines: Vec<_> = (0..2_000).map(|depth| format!("{:depth$}if x:\n", "")).collect();
        assert!(!split(&lines.concat()).is_empty());
        for text in ["(", " ", "\\\n", "'", "if x:\t", ";"] {
            split(&text.repeat(500_000));
        }
        split("'''");
    }
}
