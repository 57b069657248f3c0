//! Builds an image: unpack, finish, compile, pack, and put in place in one step.
//!
//! No root is needed and no maintainer script runs: packages are unpacked by mmdebstrap as whoever builds, and in the
//! file system that comes out everything belongs to root. The only programs of the image that are started are its own
//! interpreters, through the image's own loader.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::{
    apt, finish,
    manifest::{self, Image, ImageError, ImageLanguage, MANIFEST, Manifest, Package, ROOTFS, Rootfs},
    progress::Progress,
    recipe::{Recipe, triplet},
    snapshot,
};

/// Space for the unpacked tree, its packages and the file system made from them; a standard image peaks at 1.1 GiB.
const SPACE_NEEDED: u64 = 3 << 29;
/// The time of every file in an image: a constant, so that the same packages give the same bytes. 2026-01-01.
const FILE_TIME: &str = "1767225600";
/// The file system's UUID, constant for the same reason.
const FILESYSTEM_ID: &str = "e2c1a5e0-0000-4000-8000-000000000001";
/// Directories being built, inside the image directory: the last step is then a rename.
const STAGE: &str = ".build-";

/// What to do where an image of the name exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Keep it if it was built from the same recipe and is undamaged.
    KeepIfCurrent,
    /// Build anew in any case.
    Replace,
}

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Sources(#[from] apt::SourcesError),
    #[error("{0} is not installed; `make setup` installs it (or: apt-get install mmdebstrap erofs-utils libc-bin)")]
    Missing(&'static str),
    #[error("{} has {available} MiB free, and a build takes up to {} MiB", dir.display(), SPACE_NEEDED >> 20)]
    Space { dir: PathBuf, available: u64 },
    #[error("{what} failed: the file system is full")]
    Full { what: &'static str },
    #[error("{what} failed; it said:\n{said}")]
    Program { what: &'static str, said: String },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::Io { what: what.into(), source }
}

/// Builds an image, or keeps the one that is there. One build at a time per image directory.
pub(crate) fn build(
    dir: &Path,
    name: &str,
    recipe: &Recipe,
    mirror: Option<&str>,
    existing: Existing,
) -> Result<Image, BuildError> {
    manifest::check_name(name)?;
    let digest = recipe.digest();
    if let Some(image) = current(dir, name, &digest, existing) {
        return Ok(image);
    }
    fs::create_dir_all(dir).map_err(io(format!("creating {}", dir.display())))?;
    let _lock = lock(dir)?;
    // Whoever held the lock may have built just this one.
    if let Some(image) = current(dir, name, &digest, existing) {
        return Ok(image);
    }
    for tool in ["mmdebstrap", "mkfs.erofs"] {
        find(tool).ok_or(BuildError::Missing(tool))?;
    }
    sweep(dir).map_err(io("removing what an interrupted build left"))?;
    let statistics = rustix::fs::statvfs(dir).map_err(|errno| io("asking for free space")(errno.into()))?;
    let available = statistics.f_bavail.saturating_mul(statistics.f_frsize);
    if available < SPACE_NEEDED {
        return Err(BuildError::Space { dir: dir.to_owned(), available: available >> 20 });
    }

    let progress = Progress::start(&format!(
        "building image {name} from {} {} packages (once; a minute or less)",
        recipe.distribution.origin(),
        recipe.suite
    ));
    let sources = apt::sources(recipe, mirror)?;
    let stage = tempfile::Builder::new()
        .prefix(STAGE)
        .permissions(Permissions::from_mode(0o755))
        .tempdir_in(dir)
        .map_err(io(format!("creating a directory in {}", dir.display())))?;
    let root = stage.path().join("root");
    let packages =
        progress.step("download and unpack the packages", || unpack(stage.path(), &root, recipe, &sources))?;
    let languages = progress.step("make a root file system of them", || -> Result<_, BuildError> {
        finish::finish(&root).map_err(io("finishing the root file system"))?;
        let mut ldconfig = Command::new(find("ldconfig").ok_or(BuildError::Missing("ldconfig"))?);
        execute("ldconfig", ldconfig.arg("-X").arg("-r").arg(&root))?;
        // Written beside the cache to speed up the next run, and never again the same.
        let _ = fs::remove_dir_all(root.join("var/cache/ldconfig"));
        languages(&root)
    })?;
    progress.step("compile Python's library, so that imports are fast", || compile(&root))?;
    if let Err(error) =
        progress.step("start both languages once, so that they start faster from now on", || snapshot::make(&root))
    {
        // Such an image is as good, and slower.
        progress.note(&format!("there is no start-up snapshot, and programs start more slowly: {error}"));
    }
    let home = stage.path().join("image");
    let rootfs = progress.step("write the file system and its digest", || pack(&root, &home))?;
    let image = Manifest {
        name: name.to_owned(),
        created_at: wire::Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()),
        recipe: digest,
        distribution: recipe.distribution.origin().to_owned(),
        suite: recipe.suite.clone(),
        architecture: architecture(&packages),
        packages: packages.into_iter().map(|(package, _)| package).collect(),
        languages,
        rootfs,
    };
    put_in_place(&home, &dir.join(name), &image).map_err(io("putting the image in place"))?;
    progress.finish(&format!("done: {} packages, {} MiB", image.packages.len(), image.rootfs.size_bytes >> 20));
    Ok(manifest::load(dir, name)?)
}

fn current(dir: &Path, name: &str, recipe: &str, existing: Existing) -> Option<Image> {
    let image = match (existing, manifest::load(dir, name)) {
        (Existing::Replace, _) | (_, Err(ImageError::Missing { .. })) => return None,
        (Existing::KeepIfCurrent, Ok(image)) => image,
        (Existing::KeepIfCurrent, Err(error)) => {
            eprintln!("{error}");
            return None;
        }
    };
    (image.manifest.recipe == recipe).then_some(image)
}

fn lock(dir: &Path) -> Result<File, BuildError> {
    let path = dir.join(".lock");
    let file =
        File::options().create(true).append(true).open(&path).map_err(io(format!("opening {}", path.display())))?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        eprintln!("another image is being built in {}; waiting for it", dir.display());
        rustix::fs::flock(&file, FlockOperation::LockExclusive)
            .map_err(|errno| io(format!("locking {}", path.display()))(errno.into()))?;
    }
    Ok(file)
}

/// Removes what interrupted builds left. The caller holds the lock, so none is running.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(STAGE.as_bytes()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A program of this machine. Ordinary users often lack the directories of the last three on their PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Runs a program quietly; what it said is part of the error.
pub(super) fn execute(what: &'static str, command: &mut Command) -> Result<Vec<u8>, BuildError> {
    let output = command.stdin(Stdio::null()).output().map_err(io(format!("starting {what}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&[output.stderr, output.stdout].concat()).into_owned();
    Err(if text.contains("No space left on device") {
        BuildError::Full { what }
    } else {
        BuildError::Program { what, said: essence(&text) }
    })
}

/// The lines that tell why a program failed: apt's own errors where it was apt, the last lines otherwise.
fn essence(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    // mmdebstrap adds the whole command line of apt, and that it failed.
    let is_reason = |line: &&&str| line.starts_with("E: ") && !line.contains(" -o") && !line.contains("failed to run");
    let mut reasons: Vec<&str> = lines.iter().filter(is_reason).copied().collect();
    reasons.dedup();
    if reasons.is_empty() {
        reasons = lines;
    }
    reasons[reasons.len().saturating_sub(6)..].join("\n")
}

/// Unpacks the packages and what they depend on; each with its architecture.
fn unpack(
    stage: &Path,
    root: &Path,
    recipe: &Recipe,
    sources: &[String],
) -> Result<BTreeSet<(Package, String)>, BuildError> {
    // A file, because a proxy's address may contain a password and arguments can be read by every user.
    let access = stage.join("apt.conf");
    let written = File::options().write(true).create_new(true).open(&access).and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(apt::access().map_err(io::Error::other)?.as_bytes())
    });
    written.map_err(io("writing apt's configuration"))?;
    let merge: Vec<String> = finish::MERGED
        .iter()
        .map(|(name, target)| format!("mkdir -p \"$1/{target}\" && ln -s {target} \"$1/{name}\""))
        .collect();
    let include: Vec<&str> = recipe.packages.iter().map(String::as_str).collect();
    let mut command = Command::new("mmdebstrap");
    command
        // Nothing is run as root or in the tree: in this mode, this variant only unpacks.
        .args(["--variant=extract", "--mode=chrootless", "--format=directory"])
        // The package files are still needed, to tell what was unpacked.
        .arg("--skip=cleanup/apt,essential/unlink")
        .arg(format!("--setup-hook={}", merge.join(" && ")))
        .arg(format!("--include={}", include.join(",")))
        .arg(option("--aptopt=", &access))
        .arg(&recipe.suite)
        .arg(root)
        .args(sources)
        .env("SOURCE_DATE_EPOCH", FILE_TIME);
    execute("mmdebstrap", &mut command)?;
    let archives = apt::archives(root);
    let mut packages = BTreeSet::new();
    for entry in fs::read_dir(&archives).map_err(io("reading the list of packages"))? {
        let path = entry.map_err(io("reading the list of packages"))?.path();
        if let Some((package, architecture)) = apt::package_of(&path) {
            packages.insert((package, architecture));
        }
    }
    Ok(packages)
}

fn architecture(packages: &BTreeSet<(Package, String)>) -> String {
    let own = packages.iter().map(|(_, architecture)| architecture).find(|architecture| *architecture != "all");
    own.cloned().unwrap_or_default()
}

fn option(name: &str, value: &Path) -> OsString {
    let mut option = OsString::from(name);
    option.push(value);
    option
}

/// A program of the image, to be started on this machine: its loader and libraries are the image's too.
fn of_image(root: &Path, program: &str) -> Command {
    let (triplet, loader) = triplet().expect("checked by the recipe");
    let libraries = root.join("usr/lib").join(triplet);
    let mut command = Command::new(libraries.join(loader));
    command.arg("--library-path").arg(libraries).arg(root.join(program)).env_clear().current_dir(root);
    command.env("PYTHONHOME", root.join("usr")).env("LANG", "C.UTF-8").env("TZ", "UTC").env("PYTHONHASHSEED", "0");
    command
}

/// Starts each interpreter once: an image that cannot run its languages is not finished.
fn languages(root: &Path) -> Result<Vec<ImageLanguage>, BuildError> {
    let ask = |what, program: &str, arguments: &[&str]| -> Result<String, BuildError> {
        let output = execute(what, of_image(root, program).args(arguments))?;
        Ok(String::from_utf8_lossy(&output).trim().trim_start_matches('v').to_owned())
    };
    let python = ask(
        "the image's Python",
        "usr/bin/python3",
        &["-B", "-S", "-c", "import json, ssl, platform; print(platform.python_version())"],
    )?;
    // No more than its version: Debian's Node reads parts of itself from absolute paths, which are not the image's here.
    let node = ask("the image's Node", "usr/bin/node", &["--version"])?;
    Ok([("python", python, "/usr/bin/python3"), ("node", node, "/usr/bin/node")]
        .map(|(name, version, path)| ImageLanguage { name: name.into(), version, path: path.into() })
        .into())
}

/// Compiles all Python modules of the image. The root file system is read-only, so Python could not keep what it
/// compiles itself; and the compiled files are marked as always current, which spares it to look at the sources.
fn compile(root: &Path) -> Result<(), BuildError> {
    let entries = fs::read_dir(root.join("usr/lib")).map_err(io("looking for Python's library"))?;
    let mut libraries: Vec<OsString> = entries.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
    libraries.retain(|name| name.as_encoded_bytes().starts_with(b"python3"));
    libraries.sort();
    let mut command = of_image(root, "usr/bin/python3");
    // -B and -f: what Python compiles for itself while it does this would carry this machine's paths.
    command
        .args(["-B", "-S", "-m", "compileall", "-q", "-f", "--invalidation-mode", "unchecked-hash", "-p", "/", "-s"])
        .arg(root);
    for library in libraries {
        command.arg(root.join("usr/lib").join(library));
    }
    execute("compiling Python's library", &mut command).map(drop)
}

fn pack(root: &Path, home: &Path) -> Result<Rootfs, BuildError> {
    fs::create_dir(home)
        .and_then(|()| fs::set_permissions(home, Permissions::from_mode(0o755)))
        .map_err(io("creating the image's directory"))?;
    let path = home.join(ROOTFS);
    let mut command = Command::new(find("mkfs.erofs").ok_or(BuildError::Missing("mkfs.erofs"))?);
    // gVisor reads file contents at block offsets only, hence no inline data; and no attributes, owners or times of
    // the machine that it was built on.
    command.args(["-E", "noinline_data", "-T", FILE_TIME, "-U", FILESYSTEM_ID, "--all-root", "-x", "-1"]);
    execute("mkfs.erofs", command.arg(&path).arg(root))?;
    let written = (|| {
        let mut file = File::open(&path)?;
        file.set_permissions(Permissions::from_mode(0o444))?;
        file.sync_all()?;
        Ok(Rootfs {
            file: ROOTFS.into(),
            format: "erofs".into(),
            size_bytes: file.metadata()?.len(),
            sha256: manifest::digest(&mut file)?,
        })
    })();
    written.map_err(io("reading the file system back"))
}

/// The only step that others can see: the new directory takes the old one's place, whole.
fn put_in_place(home: &Path, place: &Path, image: &Manifest) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(home.join(MANIFEST))?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    serde_json::to_writer_pretty(&mut file, image)?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    File::open(home)?.sync_all()?;
    if place.exists() {
        // The old image goes to the stage, and with it.
        rustix::fs::renameat_with(CWD, home, CWD, place, RenameFlags::EXCHANGE)?;
    } else {
        fs::rename(home, place)?;
    }
    File::open(place.parent().unwrap_or(Path::new(OsStr::new("/"))))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_by_the_lines_that_say_why() {
        let apt = "I: downloading\nReading package lists...\nE: Unable to locate package nonsense\n\
                   E: apt download failed: E: apt-get -oDpkg::Use-Pty=0 install\nE: mmdebstrap failed to run\n";
        assert_eq!(essence(apt), "E: Unable to locate package nonsense");
        assert_eq!(essence("one\n\ntwo\n"), "one\ntwo");
    }

    #[test]
    fn a_program_that_runs_into_a_full_disk_is_told_apart() {
        let fail = |words: &str| execute("it", Command::new("sh").args(["-c", &format!("echo {words} >&2; exit 1")]));
        assert!(matches!(fail("No space left on device"), Err(BuildError::Full { .. })));
        assert!(matches!(fail("no idea"), Err(BuildError::Program { said, .. }) if said == "no idea"));
    }

    #[test]
    fn an_image_takes_the_place_of_the_old_one_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("default");
        for (version, old) in [("1", None), ("2", Some("1"))] {
            let home = dir.path().join("home");
            fs::create_dir(&home).unwrap();
            fs::write(home.join(ROOTFS), version).unwrap();
            let manifest = Manifest {
                name: "default".into(),
                created_at: wire::Timestamp::from_millis(0),
                recipe: String::new(),
                distribution: String::new(),
                suite: String::new(),
                architecture: String::new(),
                packages: vec![],
                languages: vec![],
                rootfs: Rootfs { file: ROOTFS.into(), format: "erofs".into(), size_bytes: 1, sha256: String::new() },
            };
            put_in_place(&home, &place, &manifest).unwrap();
            assert_eq!(fs::read_to_string(place.join(ROOTFS)).unwrap(), version);
            assert_eq!(fs::read_to_string(home.join(ROOTFS)).ok().as_deref(), old);
            let _ = fs::remove_dir_all(home);
        }
    }
}
