//! Where things are written: the program's output as it comes, and what Enclave itself has to say.
//!
//! Without `--json`, stdout has the program's standard output and nothing else, so that `enclave run` can stand in a pipe
//! where the program would. With `--json`, stdout has one line, the JSON object, and all output of the program goes to
//! stderr. Whatever Enclave says itself is on stderr, and begins with `enclave: `.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::run::terminal::{Filter, plain};

/// Which stream of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// Whether stdout belongs to the program or to the JSON object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

/// Nobody reads the program's output any more.
#[derive(Debug)]
pub(crate) struct Closed;

#[derive(Debug)]
pub(crate) struct Screen {
    form: Form,
    stdout: Option<Filter>,
    stderr: Option<Filter>,
    /// The last byte that went to stderr ended a line.
    at_line_start: bool,
}

impl Screen {
    pub(crate) fn new(form: Form) -> Self {
        let on_terminal = |terminal: bool| terminal.then(Filter::default);
        let stderr = io::stderr().is_terminal();
        let stdout = match form {
            Form::Text => io::stdout().is_terminal(),
            Form::Json => stderr,
        };
        Self { form, stdout: on_terminal(stdout), stderr: on_terminal(stderr), at_line_start: true }
    }

    /// Output of the program.
    pub(crate) fn output(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Closed> {
        let filter = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        match filter {
            Some(filter) => {
                let text = filter.pass(bytes);
                self.write(stream, text.as_bytes())
            }
            None => self.write(stream, bytes),
        }
    }

    /// The program has ended: nothing of it may colour what comes next.
    pub(crate) fn end_output(&mut self) {
        for (stream, filter) in [(Stream::Stdout, &mut self.stdout), (Stream::Stderr, &mut self.stderr)] {
            let rest = filter.as_mut().map(Filter::finish).unwrap_or_default();
            // What is to be said comes next in any case.
            let _ = write(self.form, stream, rest.as_bytes());
        }
        if !self.at_line_start {
            let _ = write(self.form, Stream::Stderr, b"\n");
            self.at_line_start = true;
        }
    }

    /// A text from a sandbox, whole, as lines of their own.
    pub(crate) fn line(&mut self, stream: Stream, text: &str) {
        // Nobody is told of a reader who has gone.
        let _ = self.output(stream, text.as_bytes());
        let _ = self.output(stream, b"\n");
        self.end_output();
    }

    /// A line of Enclave's own. Parts of it may come from a server that somebody else runs.
    pub(crate) fn say(&mut self, text: &str) {
        if !std::mem::replace(&mut self.at_line_start, true) {
            // The program is in the middle of a line.
            let _ = io::stderr().lock().write_all(b"\n");
        }
        let line = format!("enclave: {}\n", plain(text));
        // A closed terminal is no reason to fail.
        let _ = io::stderr().lock().write_all(line.as_bytes());
    }

    /// The JSON object, when it was asked for.
    pub(crate) fn json(&mut self, value: &Value) -> Result<(), Closed> {
        match self.form {
            Form::Text => Ok(()),
            Form::Json => {
                let mut stdout = io::stdout().lock();
                writeln!(stdout, "{value}").and_then(|()| stdout.flush()).map_err(|_| Closed)
            }
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<(), Closed> {
        let Some(last) = bytes.last() else { return Ok(()) };
        // A terminal shows both streams in one place.
        let on_stderr = stream == Stream::Stderr || self.form == Form::Json || self.stdout.is_some();
        if on_stderr {
            self.at_line_start = *last == b'\n';
        }
        write(self.form, stream, bytes)
    }
}

fn write(form: Form, stream: Stream, bytes: &[u8]) -> Result<(), Closed> {
    let written = match (stream, form) {
        (Stream::Stdout, Form::Text) => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
        (Stream::Stderr, Form::Text | Form::Json) | (Stream::Stdout, Form::Json) => {
            io::stderr().lock().write_all(bytes)
        }
    };
    match (written, stream) {
        (Err(_), Stream::Stdout) => Err(Closed),
        // Whoever closes stderr wants no diagnostics.
        (Ok(()), Stream::Stdout | Stream::Stderr) | (Err(_), Stream::Stderr) => Ok(()),
    }
}
