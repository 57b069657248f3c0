//! The command line. Parsed by hand: a handful of options does not earn a dependency in every sandbox.

use std::{ffi::OsString, os::fd::RawFd, path::PathBuf};

use protocol::Language;

/// What is printed after a mistake.
pub(crate) const USAGE: &str =
    "usage: enclave-runner --language python|node [--cgroup DIR] [--disk DIR] [--egress FD] [--workspace DIR] [--snapshots DIR]
       enclave-runner --language python|node --write-snapshot DIR";

/// What the backend asked for. An option that is given is a demand: what cannot be had is a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Args {
    /// The language host to start ahead.
    pub(crate) language: Language,
    /// A pids cgroup that this process may write; the workload gets a child of it.
    pub(crate) cgroup: Option<PathBuf>,
    /// One size-bounded file system to put the workspace, /tmp and /dev/shm on.
    pub(crate) disk: Option<PathBuf>,
    /// The control socket of the way out, an inherited descriptor. Connections inside are caught and carried over it.
    pub(crate) egress: Option<RawFd>,
    /// The working directory of the program.
    pub(crate) workspace: PathBuf,
    /// Where the image keeps the interpreter's start-up snapshots, if it has any.
    pub(crate) snapshots: PathBuf,
    /// Do nothing but write such a snapshot there, for the image's builder.
    pub(crate) write_snapshot: Option<PathBuf>,
}

/// Why the command line makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ArgsError {
    /// No `--language`.
    NoLanguage,
    /// A language that there is no host for.
    UnknownLanguage(OsString),
    /// An option without its value.
    NoValue(OsString),
    /// Something that is no descriptor that could have been inherited on purpose.
    NoDescriptor(OsString),
    /// Something else.
    Unknown(OsString),
}

impl std::fmt::Display for ArgsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoLanguage => write!(f, "--language is required"),
            Self::UnknownLanguage(name) => write!(f, "no language host for {}", name.display()),
            Self::NoValue(option) => write!(f, "{} needs a value", option.display()),
            Self::NoDescriptor(word) => write!(f, "{} is no descriptor above 2", word.display()),
            Self::Unknown(word) => write!(f, "unknown option {}", word.display()),
        }
    }
}

impl Args {
    /// Parses what follows the program's name.
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, ArgsError> {
        let mut words = words.into_iter();
        let mut language = None;
        let mut args = Self {
            language: Language::Python,
            cgroup: None,
            disk: None,
            egress: None,
            workspace: "/workspace".into(),
            snapshots: "/usr/lib/enclave".into(),
            write_snapshot: None,
        };
        while let Some(option) = words.next() {
            let mut value = || words.next().ok_or_else(|| ArgsError::NoValue(option.clone()));
            match option.to_str() {
                Some("--language") => language = Some(self::language(value()?)?),
                Some("--cgroup") => args.cgroup = Some(value()?.into()),
                Some("--disk") => args.disk = Some(value()?.into()),
                Some("--egress") => args.egress = Some(descriptor(value()?)?),
                Some("--workspace") => args.workspace = value()?.into(),
                Some("--snapshots") => args.snapshots = value()?.into(),
                Some("--write-snapshot") => args.write_snapshot = Some(value()?.into()),
                Some(_) | None => return Err(ArgsError::Unknown(option)),
            }
        }
        args.language = language.ok_or(ArgsError::NoLanguage)?;
        Ok(args)
    }
}

fn language(value: OsString) -> Result<Language, ArgsError> {
    [Language::Python, Language::Node]
        .into_iter()
        .find(|language| value == language.as_str())
        .ok_or(ArgsError::UnknownLanguage(value))
}

fn descriptor(value: OsString) -> Result<RawFd, ArgsError> {
    let number = value.to_str().and_then(|text| text.parse().ok());
    number.filter(|number| *number > 2).ok_or(ArgsError::NoDescriptor(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, ArgsError> {
        Args::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_option_is_taken() {
        assert_eq!(
            parse("--disk /d --language node --cgroup /c --egress 3 --workspace /w --snapshots /s --write-snapshot /x"),
            Ok(Args {
                language: Language::Node,
                cgroup: Some("/c".into()),
                disk: Some("/d".into()),
                egress: Some(3),
                workspace: "/w".into(),
                snapshots: "/s".into(),
                write_snapshot: Some("/x".into()),
            })
        );
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse("--disk /disk"), Err(ArgsError::NoLanguage));
        assert_eq!(parse("--language cobol"), Err(ArgsError::UnknownLanguage("cobol".into())));
        assert_eq!(parse("--language"), Err(ArgsError::NoValue("--language".into())));
        assert_eq!(parse("--language node --egress 2"), Err(ArgsError::NoDescriptor("2".into())));
        assert_eq!(parse("--language node -x"), Err(ArgsError::Unknown("-x".into())));
    }
}
