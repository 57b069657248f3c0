//! Whether what was typed is a whole turn, or goes on. A guess by brackets, quotes, colons and indentation, never more: the
//! interpreter has the last word, and a blank line ends whatever was open.

use wire::Language;

/// Whether a text is whole.
pub(super) fn is_complete(language: Language, text: &str) -> bool {
    let scan = scan(language, text);
    if scan.open {
        return false;
    }
    match language {
        Language::Node => true,
        Language::Python => {
            // The line that the cursor is on.
            let blank_at_end = text.rsplit_once('\n').is_some_and(|(_, last)| last.trim().is_empty());
            // What has begun a block goes on until a blank line says that it does not.
            !(scan.continued || (scan.block && !blank_at_end))
        }
    }
}

/// Whether a blank line may end a turn here: nothing is open.
pub(super) fn is_closed(language: Language, text: &str) -> bool {
    let scan = scan(language, text);
    !scan.open && !scan.continued
}

#[derive(Debug, Default)]
struct Scan {
    /// A bracket, a string of several lines or a comment of several lines is open at the end.
    open: bool,
    /// The last line ends with a backslash.
    continued: bool,
    /// A line ends with a colon, is indented, or is a decorator.
    block: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Code,
    /// A string that ends with its line, whatever is in it.
    Short(char),
    /// A string of several lines: `'''`, `"""`, or a template.
    Long(char),
    LineComment,
    BlockComment,
}

fn scan(language: Language, text: &str) -> Scan {
    let chars: Vec<char> = text.chars().collect();
    let (mut inside, mut depth, mut scan) = (Inside::Code, 0_i64, Scan::default());
    // Of the line so far: whether it began in the middle of something, and its last character of code.
    let (mut line_in_code, mut last, mut at_start) = (true, None, true);
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let next = chars.get(at + 1).copied();
        let triple = |quote: char| chars[at..].starts_with(&[quote; 3]);
        if c == '\n' {
            if inside == Inside::Code || inside == Inside::LineComment || matches!(inside, Inside::Short(_)) {
                scan.block |= last == Some(':') && depth == 0;
                inside = Inside::Code;
            }
            (line_in_code, last, at_start) = (inside == Inside::Code && depth == 0, None, true);
            at += 1;
            continue;
        }
        if at_start && line_in_code && (c == '@' || ((c == ' ' || c == '\t') && is_indented(&chars[at..]))) {
            scan.block = true;
        }
        at_start = false;
        let mut step = 1;
        match inside {
            Inside::Code => {
                if !c.is_whitespace() && !is_comment(language, c, next) {
                    last = Some(c);
                }
                match c {
                    '(' | '[' | '{' => depth += 1,
                    ')' | ']' | '}' => depth -= 1,
                    '\'' | '"' if language == Language::Python && triple(c) => {
                        (inside, step) = (Inside::Long(c), 3);
                    }
                    '\'' | '"' => inside = Inside::Short(c),
                    '`' if language == Language::Node => inside = Inside::Long(c),
                    '/' if language == Language::Node && next == Some('*') => {
                        (inside, step) = (Inside::BlockComment, 2);
                    }
                    _ if is_comment(language, c, next) => inside = Inside::LineComment,
                    _ => {}
                }
            }
            Inside::Short(_) | Inside::Long(_) if c == '\\' => step = 2,
            Inside::Short(quote) if c == quote => inside = Inside::Code,
            Inside::Long(quote) if quote == '`' && c == '`' => inside = Inside::Code,
            Inside::Long(quote) if quote != '`' && triple(quote) => (inside, step) = (Inside::Code, 3),
            Inside::BlockComment if c == '*' && next == Some('/') => (inside, step) = (Inside::Code, 2),
            Inside::Short(_) | Inside::Long(_) | Inside::LineComment | Inside::BlockComment => {}
        }
        at += step;
    }
    scan.block |= last == Some(':') && depth == 0;
    scan.continued =
        language == Language::Python && inside == Inside::Code && text.trim_end_matches('\n').ends_with('\\');
    scan.open = depth > 0 || matches!(inside, Inside::Long(_) | Inside::BlockComment);
    scan
}

/// Whether the line has anything behind its white space.
fn is_indented(line: &[char]) -> bool {
    line.iter().take_while(|c| **c != '\n').any(|c| !c.is_whitespace())
}

fn is_comment(language: Language, c: char, next: Option<char>) -> bool {
    match language {
        Language::Python => c == '#',
        Language::Node => c == '/' && next == Some('/'),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn python_goes_on_while_something_is_open() {
        for whole in [
            "1 + 1",
            "x = {'a': 1}",
            "print('(')",
            "# a comment:",
            "s = 'it\\'s'",
            "for i in range(3):\n    print(i)\n",
            "class A:\n    '''doc'''\n",
            "x = (1 +\n 2)",
            "'''a\nb'''",
            "lambda: 1",
            "x[1:]",
            "def f(): return 1\n\n",
        ] {
            assert!(is_complete(Language::Python, whole), "{whole:?}");
        }
        for open in [
            "x = (1 +",
            "for i in range(3):",
            "for i in range(3):  # thrice",
            "for i in range(3):\n    print(i)",
            "'''a\n",
            "x = 1 + \\",
            "@cache",
            "{'a':\n",
            "class A:\n    '''doc'''",
        ] {
            assert!(!is_complete(Language::Python, open), "{open:?}");
        }
    }

    #[test]
    fn node_goes_on_while_something_is_open() {
        for whole in ["1 + 1", "f({a: 1})", "`a\nb`", "// {", "x = '{'", "/* a\n{ */ 1", "switch (x) { case 1: }"] {
            assert!(is_complete(Language::Node, whole), "{whole:?}");
        }
        for open in ["function f() {", "[1,", "`a", "/* a", "f(", "if (x) {\n  y();"] {
            assert!(!is_complete(Language::Node, open), "{open:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a:'\"`\\\\#/*(){}\n @]{0,40}") {
            for language in [Language::Python, Language::Node] {
                is_complete(language, &text);
                is_closed(language, &text);
            }
        }
    }
}
