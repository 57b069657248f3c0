//! What is known of a built image, and the check that it is still the one that was built.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Name of the manifest inside an image's directory.
pub(crate) const MANIFEST: &str = "manifest.json";
/// Name of the root file system inside an image's directory.
pub(crate) const ROOTFS: &str = "root.erofs";
/// Remembers which file was last hashed and found good.
const SEEN: &str = ".verified";
/// Coarser than the clock of any file system's times.
const SETTLED: Duration = Duration::from_secs(2);
/// Manifests are a few KiB; anything far larger is not one.
const MANIFEST_MAX: u64 = 1 << 20;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Manifest {
    /// The image's name; the directory's too.
    pub(crate) name: String,
    /// When it was built.
    pub(crate) created_at: wire::Timestamp,
    /// Digest of what it was built from: the same recipe gives the same text.
    pub(crate) recipe: String,
    /// `Debian` or `Ubuntu`.
    pub(crate) distribution: String,
    /// The release, `bookworm` for example.
    pub(crate) suite: String,
    /// As the distribution writes it: `amd64`.
    pub(crate) architecture: String,
    /// Every package in it.
    pub(crate) packages: Vec<Package>,
    /// What it can run.
    pub(crate) languages: Vec<ImageLanguage>,
    /// The file system.
    pub(crate) rootfs: Rootfs,
}

/// A package of the distribution.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
}

/// A language host of the image; it was started once while building.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ImageLanguage {
    /// `python` or `node`, as in a session's `language`.
    pub(crate) name: String,
    pub(crate) version: String,
    /// Where it is inside the image.
    pub(crate) path: String,
}

/// The file system and its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rootfs {
    /// Name of the file beside the manifest.
    pub(crate) file: String,
    /// `erofs`.
    pub(crate) format: String,
    pub(crate) size_bytes: u64,
    /// 64 hexadecimal digits.
    pub(crate) sha256: String,
}

/// A verified image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    /// Its root file system.
    pub(crate) path: PathBuf,
    pub(crate) manifest: Manifest,
}

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("{0:?} is not a name for an image: up to 64 of a-z, 0-9, `-`, `_` and `.`, a letter or digit first")]
    Name(String),
    #[error("there is no image {name} in {0}; `enclave image build --name {name} --image-dir {0}` makes it", dir.display())]
    Missing { name: String, dir: PathBuf },
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is not a manifest: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("{} could be changed by another user: it must belong to root or to you, and be writable by nobody else", path.display())]
    Unsafe { path: PathBuf },
    #[error("{} is not what was built: expected sha256:{expected}, found {found}; build it again", path.display())]
    Changed { path: PathBuf, expected: String, found: String },
}

/// Where images are kept when nobody says otherwise.
pub(crate) fn default_dir() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(dir) = set("ENCLAVE_IMAGE_DIR") {
        return dir;
    }
    if rustix::process::geteuid().is_root() {
        return "/var/lib/enclave/images".into();
    }
    let data = set("XDG_DATA_HOME").filter(|dir| dir.is_absolute());
    data.or_else(|| set("HOME").map(|home| home.join(".local/share"))).unwrap_or_default().join("enclave/images")
}

/// Refuses what could lead out of the image directory or hide in it.
pub(crate) fn check_name(name: &str) -> Result<(), ImageError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = (1..=64).contains(&name.len())
        && plain(name.as_bytes()[0])
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'-' | b'_' | b'.'));
    if good { Ok(()) } else { Err(ImageError::Name(name.to_owned())) }
}

/// Names of the images in a directory, sorted. A directory that does not exist has none.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Ok(name) = entry.file_name().into_string()
            && check_name(&name).is_ok()
            && entry.path().join(MANIFEST).exists()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads an image's manifest and verifies its file system against it.
pub(crate) fn load(dir: &Path, name: &str) -> Result<Image, ImageError> {
    load_at(dir, name, SystemTime::now(), Trust::UnchangedSince)
}

/// The same, and reads the whole file again, whatever it looks like.
pub(crate) fn verify(dir: &Path, name: &str) -> Result<Image, ImageError> {
    load_at(dir, name, SystemTime::now(), Trust::Nothing)
}

/// What is taken for granted of a file whose digest was right once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// One that has the same inode, size and times since.
    UnchangedSince,
    Nothing,
}

fn load_at(dir: &Path, name: &str, now: SystemTime, trust: Trust) -> Result<Image, ImageError> {
    check_name(name)?;
    let home = dir.join(name);
    let manifest = read_manifest(dir, name)?;
    let path = home.join(&manifest.rootfs.file);
    let unreadable = |source| ImageError::Unreadable { path: path.clone(), source };
    owned(&home)?;
    let mut file = File::open(&path).map_err(unreadable)?;
    let metadata = owned(&path)?;
    let changed =
        |found: String| ImageError::Changed { path: path.clone(), expected: manifest.rootfs.sha256.clone(), found };
    if metadata.len() != manifest.rootfs.size_bytes {
        let sizes = format!("{} bytes where there were {}", metadata.len(), manifest.rootfs.size_bytes);
        return Err(changed(sizes));
    }
    let seen = fingerprint(&metadata, &manifest.rootfs.sha256);
    let was_seen =
        || fs::read_to_string(home.join(SEEN)).is_ok_and(|text| text == seen) && owned(&home.join(SEEN)).is_ok();
    if trust == Trust::UnchangedSince && was_seen() {
        return Ok(Image { path, manifest });
    }
    let sha256 = digest(&mut file).map_err(unreadable)?;
    if sha256 != manifest.rootfs.sha256 {
        return Err(changed(format!("sha256:{sha256}")));
    }
    // A file that was changed just now could change again without its times showing it. And this only saves time: a
    // directory that this user may not write is no reason to fail.
    if metadata.modified().is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age > SETTLED)) {
        let _ = remember(&home.join(SEEN), &seen);
    }
    Ok(Image { path, manifest })
}

fn remember(path: &Path, seen: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(seen.as_bytes())
}

fn read_manifest(dir: &Path, name: &str) -> Result<Manifest, ImageError> {
    let path = dir.join(name).join(MANIFEST);
    let malformed = |reason: String| ImageError::Malformed { path: path.clone(), reason };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::Missing { name: name.to_owned(), dir: dir.to_owned() });
        }
        Err(source) => return Err(ImageError::Unreadable { path, source }),
    };
    owned(&path)?;
    let mut text = String::new();
    file.take(MANIFEST_MAX)
        .read_to_string(&mut text)
        .map_err(|source| ImageError::Unreadable { path: path.clone(), source })?;
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
    if manifest.name != name {
        return Err(malformed(format!("it is the manifest of {:?}", manifest.name)));
    }
    if manifest.rootfs.file != ROOTFS || manifest.rootfs.format != "erofs" {
        return Err(malformed(format!("its root file system is not {ROOTFS}")));
    }
    Ok(manifest)
}

/// The metadata of something that only root and this user can change.
fn owned(path: &Path) -> Result<Metadata, ImageError> {
    let metadata =
        fs::symlink_metadata(path).map_err(|source| ImageError::Unreadable { path: path.to_owned(), source })?;
    let trusted = metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw();
    if !trusted || metadata.mode() & 0o022 != 0 || metadata.is_symlink() {
        return Err(ImageError::Unsafe { path: path.to_owned() });
    }
    Ok(metadata)
}

/// What changes whenever a file is written to or replaced. Hashing hundreds of MiB at every start would cost more than
/// starting, and whoever can set a file's change time can write the manifest as well.
fn fingerprint(metadata: &Metadata, sha256: &str) -> String {
    format!(
        "{} {} {} {}.{:09} {}.{:09} {sha256}\n",
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    )
}

/// SHA-256 of what is left in a file, in hexadecimal.
pub(crate) fn digest(file: &mut File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn image(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        let home = dir.join(name);
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, PermissionsExt::from_mode(0o755)).unwrap();
        let manifest = Manifest {
            name: name.into(),
            created_at: wire::Timestamp::from_millis(0),
            recipe: "r".into(),
            distribution: "Debian".into(),
            suite: "bookworm".into(),
            architecture: "amd64".into(),
            packages: vec![Package { name: "dash".into(), version: "1".into() }],
            languages: vec![],
            rootfs: Rootfs {
                file: ROOTFS.into(),
                format: "erofs".into(),
                size_bytes: content.len() as u64,
                sha256: hex::encode(Sha256::digest(content)),
            },
        };
        for (file, bytes) in [(ROOTFS, content), (MANIFEST, &serde_json::to_vec(&manifest).unwrap())] {
            fs::write(home.join(file), bytes).unwrap();
            fs::set_permissions(home.join(file), PermissionsExt::from_mode(0o644)).unwrap();
        }
        home
    }

    #[test]
    fn an_image_that_is_as_built_is_loaded_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let home = image(dir.path(), "default", b"content");
        load(dir.path(), "default").unwrap();
        assert!(!home.join(SEEN).exists(), "too fresh to be remembered");
        for _ in 0..2 {
            let later = SystemTime::now() + 2 * SETTLED;
            assert_eq!(load_at(dir.path(), "default", later, Trust::UnchangedSince).unwrap().path, home.join(ROOTFS));
            assert!(home.join(SEEN).exists());
        }
        assert_eq!(names(dir.path()).unwrap(), ["default"]);
    }

    #[test]
    fn a_changed_file_is_reported_even_after_it_was_once_verified() {
        let dir = tempfile::tempdir().unwrap();
        let home = image(dir.path(), "default", b"content");
        load_at(dir.path(), "default", SystemTime::now() + 2 * SETTLED, Trust::UnchangedSince).unwrap();
        assert!(home.join(SEEN).exists());
        let before = fs::metadata(home.join(ROOTFS)).unwrap();
        let deadline = SystemTime::now() + SETTLED;
        for other in [&b"cONTENT"[..], b"shorter", b"longer content"] {
            // Until the file system's clock has ticked, which the real interval is long enough for.
            loop {
                fs::write(home.join(ROOTFS), other).unwrap();
                let after = fs::metadata(home.join(ROOTFS)).unwrap();
                if (after.ctime(), after.ctime_nsec()) != (before.ctime(), before.ctime_nsec()) {
                    break;
                }
                assert!(SystemTime::now() < deadline, "the clock of this file system stands still");
            }
            assert!(matches!(load(dir.path(), "default"), Err(ImageError::Changed { .. })));
        }
    }

    #[test]
    fn what_others_may_write_is_refused() {
        for part in [ROOTFS, MANIFEST, "."] {
            let dir = tempfile::tempdir().unwrap();
            let home = image(dir.path(), "default", b"content");
            fs::set_permissions(home.join(part), PermissionsExt::from_mode(0o777)).unwrap();
            assert!(matches!(load(dir.path(), "default"), Err(ImageError::Unsafe { .. })), "{part}");
        }
    }

    #[test]
    fn a_link_to_somewhere_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = image(dir.path(), "default", b"content");
        fs::rename(home.join(ROOTFS), dir.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), home.join(ROOTFS)).unwrap();
        assert!(matches!(load(dir.path(), "default"), Err(ImageError::Unsafe { .. })));
    }

    #[test]
    fn a_manifest_that_names_another_file_or_image_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let home = image(dir.path(), "default", b"content");
        let text = fs::read_to_string(home.join(MANIFEST)).unwrap();
        for (from, to) in [("root.erofs", "../../etc/shadow"), ("\"default\"", "\"other\""), ("{\"name\"", "{\"x\"")] {
            assert!(text.contains(from), "{from}");
            fs::write(home.join(MANIFEST), text.replace(from, to)).unwrap();
            assert!(matches!(load(dir.path(), "default"), Err(ImageError::Malformed { .. })), "{to}");
        }
    }

    #[test]
    fn a_missing_image_says_how_to_make_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = load(dir.path(), "default").unwrap_err();
        assert!(error.to_string().contains("enclave image build --name default"), "{error}");
    }

    #[test]
    fn names_cannot_leave_the_image_directory() {
        for name in ["", ".", "..", "../x", "a/b", "-x", ".x", "A", "a b", "a\n", "ä", &"a".repeat(65)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["default", "py3.13", "a", "0_x-y"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
