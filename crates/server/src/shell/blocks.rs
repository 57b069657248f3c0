//! Turns out of a script: standard input that is no terminal.

use std::io::{self, BufRead, BufReader, Read as _, Stdin};

use wire::Language;

use crate::shell::complete::is_closed;

/// Bytes of a script. Each of its turns is bounded by the server as well.
const MAX_SCRIPT_BYTES: u64 = 16 * 1024 * 1024;

/// The turns on standard input.
pub(super) struct Blocks {
    /// None while it is being read.
    pieces: Option<Pieces<BufReader<io::Take<Stdin>>>>,
}

impl Blocks {
    pub(super) fn of_stdin(language: Language) -> Self {
        let from = BufReader::new(io::stdin().take(MAX_SCRIPT_BYTES));
        Self { pieces: Some(Pieces { language, from, ahead: None }) }
    }

    /// The next turn; none at the end. Read by a thread of its own.
    pub(super) async fn next(&mut self) -> io::Result<Option<String>> {
        let Some(mut pieces) = self.pieces.take() else { return Ok(None) };
        let read = tokio::task::spawn_blocking(move || {
            let piece = pieces.next();
            (pieces, piece)
        });
        let (pieces, piece) = read.await.map_err(io::Error::other)?;
        self.pieces = Some(pieces);
        piece
    }
}

/// The pieces of a script: a blank line ends one when nothing is open and the next line is not indented.
struct Pieces<R> {
    language: Language,
    from: R,
    /// The line that began the next piece.
    ahead: Option<String>,
}

impl<R: BufRead> Pieces<R> {
    fn next(&mut self) -> io::Result<Option<String>> {
        let mut piece = self.ahead.take().unwrap_or_default();
        let mut after_blank = false;
        let mut line = String::new();
        while self.from.read_line(&mut line)? > 0 {
            let text = line.trim_end_matches(['\n', '\r']).to_owned();
            line.clear();
            let blank = text.trim().is_empty();
            if piece.is_empty() && blank {
                continue;
            }
            if after_blank && !blank && !text.starts_with([' ', '\t']) && is_closed(self.language, &piece) {
                self.ahead = Some(text);
                return Ok(Some(piece));
            }
            after_blank = blank;
            if !piece.is_empty() {
                piece.push('\n');
            }
            piece.push_str(&text);
        }
        Ok((!piece.trim().is_empty()).then_some(piece))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(language: Language, text: &str) -> Vec<String> {
        let mut pieces = Pieces { language, from: text.as_bytes(), ahead: None };
        let read = std::iter::from_fn(|| pieces.next().unwrap());
        read.map(|piece| piece.trim_end().to_owned()).collect()
    }

    #[test]
    fn a_blank_line_ends_a_turn_where_nothing_is_open() {
        let script = "\n\nx = 1\ny = 2\n\ndef f():\n    a = 1\n\n    return a\n\n\ns = '''a\n\nb'''\n\nx + y\n";
        let expected = ["x = 1\ny = 2", "def f():\n    a = 1\n\n    return a", "s = '''a\n\nb'''", "x + y"];
        assert_eq!(pieces(Language::Python, script), expected);
        let script = "function f() {\n  a();\n\nb();\n}\n\nf()";
        assert_eq!(pieces(Language::Node, script), ["function f() {\n  a();\n\nb();\n}", "f()"]);
        assert_eq!(pieces(Language::Python, "\n \n"), Vec::<String>::new());
    }
}
