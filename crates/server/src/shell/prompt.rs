//! The prompt: lines with history and editing, until they are a whole turn.

use std::{fs, io, os::unix::fs::DirBuilderExt as _, path::PathBuf};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use rustyline::{
    Config, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};
use wire::Language;

use crate::shell::complete::is_complete;

/// Entries that the history keeps.
const MAX_HISTORY: usize = 1000;

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
    editor: Option<Editor<Whole, FileHistory>>,
    history: Option<PathBuf>,
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
            .max_history_size(MAX_HISTORY)?
            .auto_add_history(false)
            // A line that begins with a space is not remembered: for what should be in no file.
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Whole { language }));
        let history = history_file(language);
        if let Some(path) = &history {
            // The first time there is none.
            let _ = editor.load_history(path);
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
                // What is not remembered is no reason to stop.
                let _ = editor.add_history_entry(line.trim_end());
                if let Some(path) = &self.history {
                    let _ = editor.save_history(path);
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

/// `$XDG_STATE_HOME/enclave/history.<language>`, in a directory of the user's own.
fn history_file(language: Language) -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")))?.join("enclave");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
    Some(folder.join(format!("history.{}", language.as_str())))
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
