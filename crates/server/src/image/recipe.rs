//! What an image is made of.

use std::{collections::BTreeSet, fs};

use sha2::{Digest as _, Sha256};

/// What every image has: the two languages with their package managers, and the tools that programs and the people who
/// write them reach for. No compiler.
const PACKAGES: &[&str] = &[
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "curl",
    "dash",
    "debianutils",
    "diffutils",
    "file",
    "findutils",
    "gawk",
    "git",
    "grep",
    "gzip",
    "hostname",
    "jq",
    "less",
    "libc-bin",
    "ncurses-base",
    "ncurses-bin",
    "netbase",
    "nodejs",
    "npm",
    "openssl",
    "patch",
    "procps",
    "python3",
    "python3-pip",
    "python3-venv",
    "sed",
    "sqlite3",
    "tar",
    "tzdata",
    "unzip",
    "util-linux",
    "xz-utils",
    "zip",
];

/// The steps after unpacking are part of the recipe: when they change, images are built anew.
const STEPS: &[&str] = &[include_str!("build.rs"), include_str!("finish.rs"), include_str!("snapshot.rs")];

/// Debian's releases by name, to tell them from Ubuntu's.
const DEBIAN: &[&str] = &["bookworm", "trixie", "forky", "duke", "sid", "stable", "oldstable", "testing", "unstable"];

/// Whose packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distribution {
    Debian,
    Ubuntu,
}

impl Distribution {
    /// As in the `Origin` of its archive.
    pub(crate) fn origin(self) -> &'static str {
        match self {
            Self::Debian => "Debian",
            Self::Ubuntu => "Ubuntu",
        }
    }

    /// The part of the archive that has all of [`PACKAGES`].
    pub(crate) fn components(self) -> &'static str {
        match self {
            Self::Debian => "main",
            Self::Ubuntu => "main universe",
        }
    }

    /// Where the keys are that its archive is signed with.
    pub(crate) fn keyrings(self) -> [&'static str; 2] {
        match self {
            Self::Debian => {
                ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"]
            }
            Self::Ubuntu => {
                ["/usr/share/keyrings/ubuntu-archive-keyring.gpg", "/usr/share/keyrings/ubuntu-archive-keyring.pgp"]
            }
        }
    }
}

/// What to build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Recipe {
    pub(crate) distribution: Distribution,
    pub(crate) suite: String,
    pub(crate) packages: BTreeSet<String>,
}

/// Why nothing can be built from what was asked for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum RecipeError {
    #[error("{0:?} is not the name of a release")]
    Suite(String),
    #[error("{0:?} is not the name of a package")]
    Package(String),
    #[error("images can be built on x86_64 and aarch64, and this is {}", std::env::consts::ARCH)]
    Architecture,
}

impl Recipe {
    /// The standard packages and some more, from a release or from the one that suits this machine.
    pub(crate) fn new(suite: Option<String>, more: Vec<String>) -> Result<Self, RecipeError> {
        Self::on(&fs::read_to_string("/etc/os-release").unwrap_or_default(), suite, more)
    }

    fn on(os_release: &str, suite: Option<String>, more: Vec<String>) -> Result<Self, RecipeError> {
        let value = |key: &str| {
            let line = os_release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.map(|value| value.trim_matches('"').to_owned())
        };
        let here = if value("ID").as_deref() == Some("ubuntu") { Distribution::Ubuntu } else { Distribution::Debian };
        let suite = match (suite, here) {
            (Some(suite), _) => suite,
            // One release for all Debian machines: the same Python and Node wherever a program runs.
            (None, Distribution::Debian) => "bookworm".into(),
            (None, Distribution::Ubuntu) => value("VERSION_CODENAME").unwrap_or_default(),
        };
        // Both end up in arguments and in lines of a sources.list.
        if !is_word(&suite, b"-") {
            return Err(RecipeError::Suite(suite));
        }
        if let Some(bad) = more.iter().find(|name| !is_word(name, b"-+.")) {
            return Err(RecipeError::Package(bad.clone()));
        }
        if triplet().is_none() {
            return Err(RecipeError::Architecture);
        }
        let distribution = if DEBIAN.contains(&suite.as_str()) { Distribution::Debian } else { here };
        let packages = PACKAGES.iter().map(|&name| name.to_owned()).chain(more).collect();
        Ok(Self { distribution, suite, packages })
    }

    /// Names this recipe: an image that carries the same text need not be built again.
    pub(crate) fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let head = [self.distribution.origin(), &self.suite, std::env::consts::ARCH];
        for part in head.into_iter().chain(self.packages.iter().map(String::as_str)).chain(STEPS.iter().copied()) {
            hasher.update(part.len().to_le_bytes());
            hasher.update(part);
        }
        hex::encode(hasher.finalize())
    }

    /// Whether its archive publishes security fixes in a suite beside it.
    pub(crate) fn has_fixes(&self) -> bool {
        !["forky", "duke", "sid", "testing", "unstable"].contains(&self.suite.as_str())
    }
}

fn is_word(text: &str, also: &[u8]) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.bytes().next().is_some_and(plain) && text.bytes().all(|byte| plain(byte) || also.contains(&byte))
}

/// The directory name of this machine's libraries, and the program that loads executables which use them.
pub(crate) fn triplet() -> Option<(&'static str, &'static str)> {
    match std::env::consts::ARCH {
        "x86_64" => Some(("x86_64-linux-gnu", "ld-linux-x86-64.so.2")),
        "aarch64" => Some(("aarch64-linux-gnu", "ld-linux-aarch64.so.1")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBLE: &str = "ID=ubuntu\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n";
    const TRIXIE: &str = "VERSION_CODENAME=trixie\nID=debian\n";

    #[test]
    fn the_release_is_the_same_on_every_debian_and_the_machines_own_on_ubuntu() {
        let debian = Recipe::on(TRIXIE, None, vec![]).unwrap();
        assert_eq!((debian.distribution, debian.suite.as_str()), (Distribution::Debian, "bookworm"));
        let ubuntu = Recipe::on(NOBLE, None, vec![]).unwrap();
        assert_eq!((ubuntu.distribution, ubuntu.suite.as_str()), (Distribution::Ubuntu, "noble"));
        let asked = Recipe::on(NOBLE, Some("trixie".into()), vec![]).unwrap();
        assert_eq!(asked.distribution, Distribution::Debian);
    }

    #[test]
    fn whatever_changes_the_content_changes_the_digest() {
        let standard = Recipe::on(TRIXIE, None, vec![]).unwrap();
        let same = Recipe::on(TRIXIE, Some("bookworm".into()), vec!["bash".into()]).unwrap();
        assert_eq!(standard.digest(), same.digest());
        let more = Recipe::on(TRIXIE, None, vec!["python3-numpy".into()]).unwrap();
        let newer = Recipe::on(TRIXIE, Some("trixie".into()), vec![]).unwrap();
        assert_ne!(standard.digest(), more.digest());
        assert_ne!(standard.digest(), newer.digest());
    }

    #[test]
    fn names_that_could_become_an_option_or_a_second_source_are_refused() {
        for bad in ["", "-x", "a b", "a\ndeb x y z", "../x", "A", "a,b", "[trusted=yes]"] {
            assert_eq!(Recipe::on(TRIXIE, Some(bad.into()), vec![]), Err(RecipeError::Suite(bad.into())));
            assert_eq!(Recipe::on(TRIXIE, None, vec![bad.into()]), Err(RecipeError::Package(bad.into())));
        }
    }
}
