//! Output of programs on a terminal, made harmless.
//!
//! Bytes from a sandbox are hostile, and a terminal obeys what it is sent: it moves the cursor over earlier lines, sets
//! titles and clipboards, answers questions as if they were typed. What is shown therefore has text, line breaks, tabs
//! and colours (SGR, `ESC [ … m`) and nothing else; everything else is made visible instead. A pipe or a file gets the
//! bytes as they are.

use std::fmt::Write;

/// The longest list of colour parameters that is passed on.
const MAX_SGR: usize = 32;
/// Puts the colours back.
const RESET: &str = "\u{1b}[0m";

/// Turns one stream of output into text that a terminal may be sent. Keeps what was cut in the middle.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    /// The beginning of a character whose rest has not come yet.
    cut: Vec<u8>,
    state: State,
    /// Colours may be on.
    coloured: bool,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Text,
    /// Behind a carriage return.
    Return,
    /// Behind an escape.
    Escape,
    /// Behind `ESC [`, with the parameters so far.
    Control(String),
}

impl Filter {
    /// The next bytes as text.
    pub(crate) fn pass(&mut self, bytes: &[u8]) -> String {
        let mut pending = std::mem::take(&mut self.cut);
        pending.extend_from_slice(bytes);
        let mut out = String::with_capacity(pending.len());
        let mut rest = pending.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.take(text, &mut out);
                    break;
                }
                Err(error) => {
                    let (good, bad) = rest.split_at(error.valid_up_to());
                    self.take(std::str::from_utf8(good).unwrap_or_default(), &mut out);
                    let Some(length) = error.error_len() else {
                        self.cut = bad.to_vec();
                        break;
                    };
                    self.take("\u{fffd}", &mut out);
                    rest = &bad[length..];
                }
            }
        }
        out
    }

    /// What is left at the end of the stream, and an end to its colours.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        if !std::mem::take(&mut self.cut).is_empty() {
            self.take("\u{fffd}", &mut out);
        }
        match std::mem::take(&mut self.state) {
            State::Text => {}
            State::Return => out.push('\n'),
            State::Escape => show('\u{1b}', &mut out),
            State::Control(parameters) => show_control(&parameters, &mut out),
        }
        if std::mem::take(&mut self.coloured) {
            out.push_str(RESET);
        }
        out
    }

    fn take(&mut self, text: &str, out: &mut String) {
        for c in text.chars() {
            self.step(c, out);
        }
    }

    fn step(&mut self, c: char, out: &mut String) {
        match std::mem::take(&mut self.state) {
            State::Text => self.text(c, out),
            State::Return => {
                // Without a line feed it would let a line be written over.
                out.push('\n');
                if c != '\n' {
                    self.text(c, out);
                }
            }
            State::Escape => {
                if c == '[' {
                    self.state = State::Control(String::new());
                } else {
                    show('\u{1b}', out);
                    self.text(c, out);
                }
            }
            State::Control(mut parameters) => match c {
                '0'..='9' | ';' | ':' if parameters.len() < MAX_SGR => {
                    parameters.push(c);
                    self.state = State::Control(parameters);
                }
                'm' => {
                    self.coloured = true;
                    out.push_str("\u{1b}[");
                    out.push_str(&parameters);
                    out.push('m');
                }
                _ => {
                    show_control(&parameters, out);
                    self.text(c, out);
                }
            },
        }
    }

    fn text(&mut self, c: char, out: &mut String) {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => self.state = State::Return,
            '\u{1b}' => self.state = State::Escape,
            _ => show(c, out),
        }
    }
}

/// A text in one piece, without colours.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\n' | '\t') { out.push(c) } else { show(c, &mut out) }
    }
    out
}

fn show_control(parameters: &str, out: &mut String) {
    show('\u{1b}', out);
    out.push('[');
    out.push_str(parameters);
}

fn show(c: char, out: &mut String) {
    match c {
        // The pictures of control characters.
        '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
        '\u{7f}' => out.push('\u{2421}'),
        // C1 controls, and those that turn the direction of the text around.
        '\u{80}'..='\u{9f}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{061c}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => {
            write!(out, "<U+{:04X}>", u32::from(c)).expect("writing to a string");
        }
        _ => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pass(bytes: &[u8]) -> String {
        let mut filter = Filter::default();
        let mut out = filter.pass(bytes);
        out.push_str(&filter.finish());
        out
    }

    #[test]
    fn text_and_colours_stay() {
        assert_eq!(pass("häl\tlo\r\n\u{1b}[1;31mred\u{1b}[m".as_bytes()), "häl\tlo\n\u{1b}[1;31mred\u{1b}[m\u{1b}[0m");
        assert_eq!(pass(b"plain\n"), "plain\n");
    }

    #[test]
    fn everything_else_becomes_visible() {
        for (sent, shown) in [
            ("\u{1b}[2J", "␛[2J"),
            ("\u{1b}]0;title\u{7}", "␛]0;title␇"),
            ("\u{1b}]52;c;ZXZpbA==\u{1b}\\", "␛]52;c;ZXZpbA==␛\\"),
            ("\u{1b}[6n", "␛[6n"),
            ("\u{1b}[?1049h", "␛[?1049h"),
            ("\u{1b}\u{1b}[2J", "␛␛[2J"),
            ("\u{1b}[1\u{1b}[2Jm", "␛[1␛[2Jm"),
            ("\u{1b}", "␛"),
            ("\u{1b}[1;", "␛[1;"),
            ("\u{9b}2J\u{85}", "<U+009B>2J<U+0085>"),
            ("good\rbad", "good\nbad"),
            ("over\u{8}\u{8}\u{7f}\u{0}", "over␈␈␡␀"),
            ("a\u{202e}b\u{2066}", "a<U+202E>b<U+2066>"),
        ] {
            assert_eq!(pass(sent.as_bytes()), shown);
        }
        assert_eq!(pass(b"\x9b2J\xff\xc3"), "\u{fffd}2J\u{fffd}\u{fffd}");
        let long = format!("\u{1b}[{}m", "1;".repeat(40));
        assert!(pass(long.as_bytes()).starts_with("␛["));
    }

    proptest! {
        #[test]
        fn no_terminal_is_ever_told_anything_but_colours(bytes: Vec<u8>, sgr in "(\u{1b}?\\[?[0-9;?]{0,3}[mJH\r]?){0,20}") {
            for sent in [bytes, sgr.into_bytes()] {
                let mut shown = pass(&sent);
                while let Some(at) = shown.find("\u{1b}[") {
                    let end = shown[at..].find('m').map(|end| at + end).expect("colours end");
                    prop_assert!(shown[at + 2..end].bytes().all(|b| b.is_ascii_digit() || matches!(b, b';' | b':')));
                    shown.replace_range(at..=end, "");
                }
                prop_assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{:?}", shown);
            }
        }

        #[test]
        fn cuts_make_no_difference(bytes: Vec<u8>, at in any::<prop::sample::Index>()) {
            let at = at.index(bytes.len() + 1);
            let mut filter = Filter::default();
            let cut = [filter.pass(&bytes[..at]), filter.pass(&bytes[at..]), filter.finish()].concat();
            prop_assert_eq!(cut, pass(&bytes));
        }
    }
}
