//! The prompt: lines with history and editing, until they are a whole turn.

use std::io;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::{
    Config, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::MemHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};
use wire::Language;

use crate::shell::{
    complete::is_complete,
    history::{History, MAX_ENTRIES},
};

/// What was typed.
pub(super) enum Entry {
    Code(String),
    /// An empty line, or one that was given up with Ctrl-C.
    Nothing,
    /// Ctrl-D.
    End,
}

pub(super) struct Prompt {
    /// None while a line is being read.
    editor: Option<Editor<Whole, MemHistory>>,
    history: Option<History>,
    text: &'static str,
    /// The terminal as it was found.
    found: Option<Termios>,
}

impl Drop for Prompt {
    fn drop(&mut self) {
        // A line that is being read when the shell ends leaves the terminal as the editor wants it.
        if let (None, Some(found)) = (&self.editor, &self.found) {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, found);
        }
    }
}

impl Prompt {
    pub(super) fn new(language: Language) -> Result<Self, ReadlineError> {
        let config = Config::builder()
            .max_history_size(MAX_ENTRIES)?
            .auto_add_history(false)
            // A line that begins with a space is not remembered: for what should be in no file.
            .history_ignore_space(true)
            .build();
        let remembered = MemHistory::with_config(&config);
        let mut editor = Editor::with_history(config, remembered)?;
        editor.set_helper(Some(Whole { language }));
        let history = History::find(language);
        // One that cannot be read is no reason to stop.
        for entry in history.as_ref().and_then(|history| history.read().ok()).unwrap_or_default() {
            let _ = editor.add_history_entry(entry);
        }
        let text = match language {
            Language::Python => ">>> ",
            Language::Node => "> ",
        };
        Ok(Self { editor: Some(editor), history, text, found: tcgetattr(io::stdin()).ok() })
    }

    /// Reads the next turn. The terminal is read by a thread of its own.
    pub(super) async fn next(&mut self) -> io::Result<Entry> {
        let Some(mut editor) = self.editor.take() else { return Ok(Entry::End) };
        let text = self.text;
        let read = tokio::task::spawn_blocking(move || {
            let line = editor.readline(text);
            (editor, line)
        });
        let (mut editor, line) = read.await.map_err(io::Error::other)?;
        let entry = match line {
            Ok(line) if line.trim().is_empty() => Entry::Nothing,
            Ok(line) => {
                let remembered = editor.add_history_entry(line.trim_end()).unwrap_or(false);
                if let Some(history) = self.history.as_ref().filter(|_| remembered) {
                    // What is not remembered is no reason to stop.
                    let _ = history.add(line.trim_end());
                }
                Entry::Code(line)
            }
            Err(ReadlineError::Interrupted) => Entry::Nothing,
            Err(ReadlineError::Eof) => Entry::End,
            Err(ReadlineError::Io(error)) => return Err(error),
            Err(error) => return Err(io::Error::other(error)),
        };
        self.editor = Some(editor);
        Ok(entry)
    }
}

/// Says whether what was typed is a whole turn.
struct Whole {
    language: Language,
}

impl Validator for Whole {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let typed = context.input();
        // Two blank lines end whatever is open: the interpreter then says what is wrong with it.
        let insisted = typed.ends_with("\n\n");
        Ok(if insisted || is_complete(self.language, typed) {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

impl Helper for Whole {}

impl Completer for Whole {
    type Candidate = String;
}

impl Hinter for Whole {
    type Hint = String;
}

impl Highlighter for Whole {}
