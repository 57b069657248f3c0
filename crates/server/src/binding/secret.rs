//! Secrets on their way in: from files, from standard input, or typed on a terminal that does not show them.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use wire::BindingSecret;

/// More than any server takes; the rest is not read.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Where the secret comes from; the terminal when nothing is said.
#[derive(Args, Clone, Debug)]
pub(super) struct SecretArgs {
    /// Read the secret from this file; one line break at its end is left out
    #[arg(long, value_name = "FILE", conflicts_with = "secret_stdin", help_heading = "Secret")]
    secret_file: Option<PathBuf>,
    /// Read the secret from standard input
    #[arg(long, help_heading = "Secret")]
    secret_stdin: bool,
    /// With --oauth2-refresh: file of the client's secret, if it has one
    #[arg(long, value_name = "FILE", help_heading = "Secret")]
    client_secret_file: Option<PathBuf>,
    /// With --aws-sigv4: file of the session token of a temporary key
    #[arg(long, value_name = "FILE", help_heading = "Secret")]
    session_token_file: Option<PathBuf>,
}

impl SecretArgs {
    pub(super) fn read(&self) -> anyhow::Result<BindingSecret> {
        let file = |path: &Option<PathBuf>| path.as_deref().map(|path| text_of(path, MAX_SECRET_BYTES)).transpose();
        let value = match (&self.secret_file, self.secret_stdin) {
            (Some(path), _) => text_of(path, MAX_SECRET_BYTES)?,
            (None, true) => bounded(io::stdin(), MAX_SECRET_BYTES).context("the secret on standard input")?,
            (None, false) if io::stdin().is_terminal() => typed()?,
            (None, false) => bail!("there is no secret: --secret-file or --secret-stdin says where it is"),
        };
        let whole = |text: String| text.strip_suffix('\n').map(trimmed).unwrap_or(text);
        Ok(BindingSecret {
            value: whole(value),
            client_secret: file(&self.client_secret_file)?.map(whole),
            session_token: file(&self.session_token_file)?.map(whole),
        })
    }
}

fn trimmed(line: &str) -> String {
    line.strip_suffix('\r').unwrap_or(line).to_owned()
}

/// The text of a file, which is UTF-8 and not larger than `most`.
pub(super) fn text_of(path: &Path, most: u64) -> anyhow::Result<String> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    bounded(file, most).with_context(|| path.display().to_string())
}

fn bounded(from: impl Read, most: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes).context("cannot be read")?;
    if bytes.len() as u64 > most {
        bail!("is larger than {most} bytes");
    }
    // The error of `from_utf8` holds the bytes.
    String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("is not UTF-8"))
}

/// Asks on the terminal, which shows nothing of what is typed.
fn typed() -> anyhow::Result<String> {
    let mut stderr = io::stderr();
    write!(stderr, "Secret (not shown): ").and_then(|()| stderr.flush()).context("the terminal")?;
    let line = {
        let _silent = Silent::start().context("the terminal cannot be silenced")?;
        line_of(io::stdin().lock())
    };
    eprintln!();
    match line.context("the terminal")? {
        Some(line) => Ok(line),
        None => bail!("cancelled"),
    }
}

/// A terminal that shows nothing and gives each key by itself, as long as this lives. Ctrl-C comes as a key too: a process
/// that it killed would leave the terminal like that.
struct Silent(Termios);

impl Silent {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes &= !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VMIN] = 1;
        silent.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone away.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// One line, key by key; none when it was cancelled.
fn line_of(keys: impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::with_capacity(1024);
    for key in keys.take(MAX_SECRET_BYTES).bytes() {
        match key? {
            b'\r' | b'\n' => break,
            // Ctrl-C
            0x03 => return Ok(None),
            // Ctrl-D
            0x04 if line.is_empty() => return Ok(None),
            // Backspace takes a whole character.
            0x08 | 0x7f => while line.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            // Ctrl-U
            0x15 => line.clear(),
            byte => line.push(byte),
        }
    }
    String::from_utf8(line).map(Some).map_err(|_| io::Error::other("what was typed is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &str) -> Option<String> {
        line_of(keys.as_bytes()).unwrap()
    }

    #[test]
    fn a_line_is_typed_and_corrected() {
        assert_eq!(read("secret\rrest").as_deref(), Some("secret"));
        assert_eq!(read("sex\u{7f}cr\u{e4}\u{7f}et\n").as_deref(), Some("secret"));
        assert_eq!(read("wrong\u{15}secret\n").as_deref(), Some("secret"));
        assert_eq!(read("\u{7f}\n").as_deref(), Some(""));
        assert_eq!(read("secret\u{3}"), None);
        assert_eq!(read("\u{4}"), None);
    }

    #[test]
    fn a_file_gives_its_text_without_the_last_line_break() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("secret");
        let args = |path: &Path| SecretArgs {
            secret_file: Some(path.to_owned()),
            secret_stdin: false,
            client_secret_file: None,
            session_token_file: Some(path.to_owned()),
        };
        for (content, expected) in [("a secret", "a secret"), ("a secret\r\n", "a secret"), ("a\n\n", "a\n")] {
            std::fs::write(&path, content).unwrap();
            let secret = args(&path).read().unwrap();
            assert_eq!((secret.value.as_str(), secret.session_token.as_deref()), (expected, Some(expected)));
        }
        // No path has this character.
        for (content, why) in [(vec![b'#'; 70_000], "larger"), (vec![b'#', 0xff], "UTF-8")] {
            std::fs::write(&path, content).unwrap();
            let error = format!("{:#}", args(&path).read().unwrap_err());
            assert!(error.contains(why) && !error.contains('#'), "{error}");
        }
        assert!(args(&temp.path().join("absent")).read().is_err());
    }
}
