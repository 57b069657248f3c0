//! JavaScript source as statements: cut at semicolons and line ends, nested by the braces of blocks.

use super::{MAX_DEPTH, Statement};

/// Words that begin a block with a condition in brackets.
const WITH_BRACKETS: [&str; 6] = ["while", "for", "if", "switch", "with", "catch"];
/// Words that begin a block by themselves.
const BARE: [&str; 4] = ["do", "try", "else", "finally"];
/// Words whose block begins at the next brace.
const UP_TO_BRACE: [&str; 2] = ["function", "class"];

pub(super) fn split(source: &str) -> Vec<Statement> {
    Scanner { source, at: 0, line: 1 }.block(0)
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

/// Where a piece of text ends.
#[derive(Clone, Copy)]
enum End {
    /// At a semicolon, a line end or the end of the surrounding block.
    Statement,
    /// After the bracket that closes the first one.
    Brackets,
    /// Before a brace.
    Brace,
}

impl Scanner<'_> {
    fn block(&mut self, depth: usize) -> Vec<Statement> {
        let mut statements = Vec::new();
        loop {
            self.skip(true);
            match self.peek() {
                None => return statements,
                Some('}') => {
                    self.advance();
                    if depth > 0 {
                        return statements;
                    }
                }
                Some('{') => {
                    self.advance();
                    if depth < MAX_DEPTH {
                        statements.extend(self.block(depth + 1));
                    }
                }
                Some(_) => statements.push(self.statement(depth)),
            }
        }
    }

    fn statement(&mut self, depth: usize) -> Statement {
        let first = self.line;
        let word = self.word().to_owned();
        let (text, is_compound) = if WITH_BRACKETS.contains(&word.as_str()) {
            (self.text(End::Brackets), true)
        } else if BARE.contains(&word.as_str()) {
            self.at += word.len();
            (word, true)
        } else if UP_TO_BRACE.contains(&word.as_str()) {
            (self.text(End::Brace), true)
        } else {
            (self.text(End::Statement), false)
        };
        let lines = self.line - first + 1;
        let body = is_compound.then(|| self.body(depth));
        Statement { line: first, lines, text: text.trim().to_owned(), body }
    }

    fn body(&mut self, depth: usize) -> Vec<Statement> {
        self.skip(false);
        match self.peek() {
            Some(';') => {
                self.advance();
                Vec::new()
            }
            _ if depth >= MAX_DEPTH => Vec::new(),
            Some('{') => {
                self.advance();
                self.block(depth + 1)
            }
            Some('}') | None => Vec::new(),
            Some(_) => vec![self.statement(depth + 1)],
        }
    }

    /// Takes text, without comments and line breaks.
    fn text(&mut self, end: End) -> String {
        let (mut text, mut depth) = (String::new(), 0_usize);
        while let Some(next) = self.peek() {
            if self.source[self.at..].starts_with("//") || self.source[self.at..].starts_with("/*") {
                self.comment();
                continue;
            }
            match (end, next) {
                (End::Statement, ';' | '\n' | '}') | (End::Brackets | End::Brace, '{' | '}') if depth == 0 => break,
                _ => {}
            }
            if matches!(next, '"' | '\'' | '`') {
                self.string(next, &mut text);
                continue;
            }
            self.advance();
            text.push(if next == '\n' { ' ' } else { next });
            match next {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            if matches!(end, End::Brackets) && next == ')' && depth == 0 {
                break;
            }
        }
        text
    }

    /// A string; one that is not closed ends with its line, unless it may go over several.
    fn string(&mut self, quote: char, text: &mut String) {
        let mut escaped = true;
        while let Some(next) = self.peek() {
            if next == '\n' && quote != '`' {
                return;
            }
            self.advance();
            text.push(next);
            if next == quote && !escaped {
                return;
            }
            // The opening quote itself does not close.
            escaped = next == '\\' && !escaped;
        }
    }

    fn skip(&mut self, semicolons: bool) {
        while let Some(next) = self.peek() {
            let rest = &self.source[self.at..];
            if next.is_whitespace() || (semicolons && next == ';') {
                self.advance();
            } else if rest.starts_with("//") || rest.starts_with("/*") {
                self.comment();
            } else {
                return;
            }
        }
    }

    fn comment(&mut self) {
        let rest = &self.source[self.at..];
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else {
            rest[2..].find("*/").map_or(rest.len(), |end| end + 4)
        };
        self.line += rest[..len].matches('\n').count();
        self.at += len;
    }

    fn word(&self) -> &str {
        let rest = &self.source[self.at..];
        let end = rest.find(|char: char| !char.is_alphanumeric() && char != '_' && char != '$').unwrap_or(rest.len());
        &rest[..end]
    }

    fn peek(&self) -> Option<char> {
        self.source[self.at..].chars().next()
    }

    fn advance(&mut self) {
        if let Some(next) = self.peek() {
            self.at += next.len_utf8();
            self.line += usize::from(next == '\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `line+lines text`, bodies in braces.
    fn show(statements: &[Statement]) -> String {
        let one = |Statement { line, lines, text, body }: &Statement| {
            let body = body.as_ref().map(|body| format!(" {{{}}}", show(body))).unwrap_or_default();
            format!("{line}+{lines} {text}{body}")
        };
        statements.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn statements_end_at_semicolons_lines_and_braces() {
        assert_eq!(
            show(&split(
                "a(); b('x;y') // c\n/* d\n */ e({\n f: 1,\n})\nwhile (true) { g(); h() }\nfor (;;);\nif (x) i()"
            )),
            "1+1 a(); 1+1 b('x;y'); 3+3 e({  f: 1, }); 6+1 while (true) {6+1 g(); 6+1 h()}; 7+1 for (;;) {}; \
             8+1 if (x) {8+1 i()}"
        );
    }

    #[test]
    fn functions_and_chained_blocks_keep_their_bodies() {
        assert_eq!(
            show(&split(
                "function f(a = {}) { b() }\ntry { c() } catch (e) { d } finally { g }\nconst h = () => { i; };"
            )),
            "1+1 function f(a = {}) {1+1 b()}; 2+1 try {2+1 c()}; 2+1 catch (e) {2+1 d}; 2+1 finally {2+1 g}; \
             3+1 const h = () => { i; }"
        );
    }

    #[test]
    fn hostile_nesting_is_cut_off() {
        for text in ["{", "(", "while(1)", "if(x){", "do ", "`", "/*", "}"] {
            split(&text.repeat(100_000));
        }
    }
}
