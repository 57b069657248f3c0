//! Where packages come from: the archive that this machine's own apt uses.
//!
//! Nothing of that configuration is named in the program; mirrors, proxies and credentials are the machine's affair.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    manifest::Package,
    recipe::{Distribution, Recipe},
};

/// Why there is no archive to build from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourcesError {
    #[error("{program} cannot be run: {source}; images are built on Debian and Ubuntu")]
    NoApt { program: &'static str, source: io::Error },
    #[error(
        "apt on this machine knows no {} archive; name one with --mirror URL, or run apt-get update if it should",
        .0.origin()
    )]
    NoArchive(Distribution),
    #[error("the keys of the {} archive are missing: apt-get install {}", .0.origin(), match .0 {
        Distribution::Debian => "debian-archive-keyring",
        Distribution::Ubuntu => "ubuntu-keyring",
    })]
    NoKeyring(Distribution),
    #[error("{0:?} is not the address of an archive")]
    Mirror(String),
}

/// One line of `apt-get indextargets`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    origin: String,
    release: String,
    uri: String,
}

/// Lines for a sources.list, each with the keyring its archive must be signed by.
pub(crate) fn sources(recipe: &Recipe, mirror: Option<&str>) -> Result<Vec<String>, SourcesError> {
    // A blank or a bracket would end the address and begin something else.
    let plain = |uri: &str| uri.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'[' | b']' | b'#'));
    if let Some(uri) = mirror.filter(|uri| !plain(uri) || !uri.contains(':')) {
        return Err(SourcesError::Mirror(uri.to_owned()));
    }
    let distribution = recipe.distribution;
    let keyring = distribution.keyrings().into_iter().find(|path| Path::new(path).exists());
    let keyring = keyring.ok_or(SourcesError::NoKeyring(distribution))?;
    if let Some(uri) = mirror {
        return Ok(vec![source(recipe, keyring, uri, "")]);
    }
    let mut targets = targets("$(ORIGIN)", &[])?;
    if targets.is_empty() {
        // Before the first `apt-get update` no origin is known; the configured archive is then taken for the
        // distribution's own, and the signature check decides.
        targets = self::targets(distribution.origin(), &["--no-release-info"])?;
    }
    let lines = lines(recipe, keyring, &targets);
    if lines.is_empty() { Err(SourcesError::NoArchive(distribution)) } else { Ok(lines) }
}

fn lines(recipe: &Recipe, keyring: &str, targets: &[Target]) -> Vec<String> {
    let ours = |fixes: bool| {
        targets.iter().find(|target| {
            target.origin == recipe.distribution.origin() && target.release.ends_with("-security") == fixes
        })
    };
    let Some(main) = ours(false) else { return Vec::new() };
    let mut lines = vec![source(recipe, keyring, &main.uri, "")];
    if recipe.has_fixes() {
        lines.push(source(recipe, keyring, &main.uri, "-updates"));
        if let Some(security) = ours(true) {
            lines.push(source(recipe, keyring, &security.uri, "-security"));
        }
    }
    lines
}

fn source(recipe: &Recipe, keyring: &str, uri: &str, pocket: &str) -> String {
    format!("deb [signed-by={keyring}] {uri} {}{pocket} {}", recipe.suite, recipe.distribution.components())
}

fn targets(origin: &str, options: &[&str]) -> Result<Vec<Target>, SourcesError> {
    let format = format!("{origin} $(RELEASE) $(REPO_URI)");
    let output = Command::new("apt-get")
        .arg("indextargets")
        .args(options)
        .args(["--format", &format, "Created-By: Packages"])
        .output()
        .map_err(|source| SourcesError::NoApt { program: "apt-get", source })?;
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

fn parse(text: &str) -> Vec<Target> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let target = Target { origin: words.next()?, release: words.next()?, uri: words.next()? };
            (words.next().is_none() && target.uri.contains(':')).then_some(target)
        })
        .collect()
}

/// What this machine's apt is told about reaching archives, as an apt.conf: mmdebstrap starts apt with a configuration
/// of its own that would lack it.
pub(crate) fn access() -> Result<String, SourcesError> {
    let output = Command::new("apt-config")
        .args(["dump", "--no-empty", "--format", "%F \"%v\";%n", "Acquire"])
        .output()
        .map_err(|source| SourcesError::NoApt { program: "apt-config", source })?;
    Ok(configuration(&String::from_utf8_lossy(&output.stdout)))
}

fn configuration(dump: &str) -> String {
    const KEPT: &[&str] =
        &["Acquire::http", "Acquire::https", "Acquire::Retries", "Acquire::ForceIPv", "Acquire::Check-"];
    let mut text = String::new();
    for line in dump.lines().filter(|line| KEPT.iter().any(|kept| line.starts_with(kept))) {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("Dir::Etc::netrc \"/etc/apt/auth.conf\";\nDir::Etc::netrcparts \"/etc/apt/auth.conf.d/\";\n");
    text
}

/// A package and its architecture, out of the name of its file: `curl_7.88.1-10+deb12u15_amd64.deb`.
pub(crate) fn package_of(file: &Path) -> Option<(Package, String)> {
    let name = file.file_name()?.to_str()?.strip_suffix(".deb")?;
    let mut parts = name.split('_');
    let (package, version, architecture) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = !package.is_empty() && !version.is_empty() && !architecture.is_empty() && parts.next().is_none();
    whole.then(|| (Package { name: package.to_owned(), version: version.replace("%3a", ":") }, architecture.to_owned()))
}

/// The package files in apt's cache below a root.
pub(crate) fn archives(root: &Path) -> PathBuf {
    root.join("var/cache/apt/archives")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: &str = "Debian bookworm http://deb.example/debian/\n\
        Debian bookworm-updates http://deb.example/debian/\n\
        Debian bookworm-security http://deb.example/debian-security/\n\
        Docker bookworm https://docker.example/linux\n";

    fn recipe(suite: &str) -> Recipe {
        Recipe::new(Some(suite.into()), vec![]).unwrap()
    }

    #[test]
    fn another_release_comes_from_the_same_archive_with_its_fixes() {
        let lines = lines(&recipe("trixie"), "/k.gpg", &parse(HERE));
        assert_eq!(
            lines,
            [
                "deb [signed-by=/k.gpg] http://deb.example/debian/ trixie main",
                "deb [signed-by=/k.gpg] http://deb.example/debian/ trixie-updates main",
                "deb [signed-by=/k.gpg] http://deb.example/debian-security/ trixie-security main",
            ]
        );
    }

    #[test]
    fn a_release_in_the_making_has_no_suites_beside_it() {
        let lines = lines(&recipe("sid"), "/k.gpg", &parse(HERE));
        assert_eq!(lines, ["deb [signed-by=/k.gpg] http://deb.example/debian/ sid main"]);
    }

    #[test]
    fn archives_of_others_are_not_taken_for_the_distributions() {
        let others = parse("Docker bookworm https://docker.example/linux\n$(ORIGIN) bookworm http://x/\n");
        assert!(lines(&recipe("bookworm"), "/k.gpg", &others).is_empty());
    }

    #[test]
    fn a_mirror_cannot_smuggle_options_in() {
        for bad in ["http://x/ [trusted=yes]", "http://x/\ndeb http://y/ z main", "x", "http://x/#"] {
            assert!(matches!(sources(&recipe("bookworm"), Some(bad)), Err(SourcesError::Mirror(_))), "{bad}");
        }
    }

    #[test]
    fn proxies_are_taken_over_and_the_rest_is_left() {
        let dump = "Acquire \"\";\nAcquire::http::Proxy \"http://p:3128\";\nAcquire::GzipIndexes \"true\";\n";
        let text = configuration(dump);
        assert!(text.contains("Acquire::http::Proxy \"http://p:3128\";\n"));
        assert!(!text.contains("GzipIndexes"));
    }

    #[test]
    fn packages_are_read_off_their_files() {
        let of = |name: &str| package_of(Path::new(name));
        let git = Package { name: "git".into(), version: "1:2.39.5-0+deb12u3".into() };
        assert_eq!(of("x/git_1%3a2.39.5-0+deb12u3_amd64.deb"), Some((git, "amd64".into())));
        for other in ["lock", "partial", "a_b.deb", "a__c.deb", "a_b_c_d.deb"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
