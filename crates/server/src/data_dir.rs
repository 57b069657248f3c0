//! The data directory: who may look into it, who uses it now, and the keys in it: the pepper, and the key for secrets.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    ops::RangeInclusive,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use engine::{Ids, Pepper};
use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

const PEPPER: &str = "enclave.pepper";
const PEPPER_BYTES: usize = 32;
const SECRETS_KEY: &str = "secrets.key";
pub(crate) const SECRETS_KEY_BYTES: usize = 32;
/// 32 bytes in any spelling, with room for line breaks; no file and no command gives more.
pub(crate) const MAX_SECRETS_KEY_BYTES: u64 = 1024;
const LOCK: &str = "enclave.lock";
const DATABASE: &str = "enclave.db";
/// Digits of the name that cgroups and the like get: enough that two servers of one host never share one.
const INSTANCE_DIGITS: usize = 12;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("cannot use {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} does not exist; no server has run with it", .0.display())]
    Missing(PathBuf),
    #[error("{} belongs to user {owner}, not to user {own}: run this as the user that the server runs as", path.display())]
    Owner { path: PathBuf, owner: u32, own: u32 },
    #[error(
        "{} is open to other users (mode {mode:o}) and holds files of something else: give Enclave a directory of its \
         own, or run chmod 700 on it", path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("{} is used by another server{}: stop it, or give this one another --data-dir", path.display(), by(holder))]
    InUse { path: PathBuf, holder: String },
    #[error(
        "{} can be read by other users (mode {mode:o}): whoever has it can check guesses of API keys. Run chmod 600 on \
         it if you know that nobody has read it; else remove it and make all keys anew", path.display()
    )]
    PepperOpen { path: PathBuf, mode: u32 },
    #[error(
        "{} can be read by other users (mode {mode:o}): whoever has it and the database has the secrets of all bindings. \
         Run chmod 600 on it if you know that nobody has read it", path.display()
    )]
    SecretsKeyOpen { path: PathBuf, mode: u32 },
    #[error("{} is not a key for secrets: it must be a short file of the server's user", .0.display())]
    NotASecretsKey(PathBuf),
    #[error("{} is not a pepper: it must be a file of {PEPPER_BYTES} bytes of the server's user", .0.display())]
    NotAPepper(PathBuf),
}

fn by(holder: &str) -> String {
    if holder.is_empty() { String::new() } else { format!(" (process {holder})") }
}

/// A directory that only its owner can look into.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
}

/// The directory is this process's for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl DataDir {
    /// Makes the directory if it is not there, and makes sure that it is private.
    pub(crate) fn prepare(path: &Path, is_default: bool) -> Result<Self, DataDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| io_error(path, source))?;
        let path = &path.canonicalize().map_err(|source| io_error(path, source))?;
        let metadata = fs::metadata(path).map_err(|source| io_error(path, source))?;
        if !metadata.is_dir() {
            return Err(DataDirError::NotADirectory(path.clone()));
        }
        let own = rustix::process::geteuid().as_raw();
        if metadata.uid() != own {
            return Err(DataDirError::Owner { path: path.clone(), owner: metadata.uid(), own });
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            // Somebody made it with the usual umask. It is closed if nothing else can be meant; never /tmp or a home.
            let ours = is_default || path.join(PEPPER).exists() || is_empty(path)?;
            if !ours || mode & 0o1000 != 0 {
                return Err(DataDirError::Open { path: path.clone(), mode });
            }
            fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(|source| io_error(path, source))?;
        }
        Ok(Self { path: path.clone() })
    }

    /// The directory as a server left it; nothing is made or changed.
    pub(crate) fn existing(path: &Path) -> Result<Self, DataDirError> {
        match path.canonicalize() {
            Ok(path) if path.is_dir() => Ok(Self { path }),
            Ok(path) => Err(DataDirError::NotADirectory(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DataDirError::Missing(path.to_owned())),
            Err(source) => Err(io_error(path, source)),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The database, unless the configuration names another.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join(DATABASE)
    }

    /// Where artifacts are kept, unless the configuration names another place.
    pub(crate) fn artifacts(&self) -> PathBuf {
        self.path.join("artifacts")
    }

    /// Where the gVisor backend keeps sandboxes' files.
    pub(crate) fn sandboxes(&self) -> PathBuf {
        self.path.join("sandboxes")
    }

    /// A name for this server on this host: the same after a restart, and different from that of any other server.
    pub(crate) fn instance(&self) -> String {
        use std::os::unix::ffi::OsStrExt;
        let digest = hex::encode(Sha256::digest(self.path.as_os_str().as_bytes()));
        digest[..INSTANCE_DIGITS].to_owned()
    }

    /// Takes the directory for this process.
    pub(crate) fn lock(&self) -> Result<Lock, DataDirError> {
        let path = self.path.join(LOCK);
        let fault = |source| io_error(&path, source);
        let mut file = private().read(true).write(true).create(true).truncate(false).open(&path).map_err(fault)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let _ = (&file).take(20).read_to_string(&mut holder);
                holder.retain(|c| c.is_ascii_digit());
                return Err(DataDirError::InUse { path: self.path.clone(), holder });
            }
            Err(error) => return Err(fault(error.into())),
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(fault)?;
        Ok(Lock { _file: file })
    }

    /// The pepper, made if there is none.
    pub(crate) fn pepper(&self) -> Result<Pepper, DataDirError> {
        let path = self.path.join(PEPPER);
        if let Some(pepper) = read_pepper(&path)? {
            return Ok(pepper);
        }
        self.make_key(&path, &Ids::from_os().bytes::<PEPPER_BYTES>())?;
        read_pepper(&path)?.ok_or(DataDirError::NotAPepper(path))
    }

    /// The text of the key for secrets, made if there is none; whether it was made, too.
    pub(crate) fn secrets_key(&self) -> Result<(SecretString, bool), DataDirError> {
        let path = self.secrets_key_path();
        if let Some(key) = read_secrets_key(&path)? {
            return Ok((key, false));
        }
        let text = SecretString::from(format!("{}\n", hex::encode(Ids::from_os().bytes::<SECRETS_KEY_BYTES>())));
        self.make_key(&path, text.expose_secret().as_bytes())?;
        let key = read_secrets_key(&path)?.ok_or(DataDirError::NotASecretsKey(path))?;
        Ok((key, true))
    }

    pub(crate) fn secrets_key_path(&self) -> PathBuf {
        self.path.join(SECRETS_KEY)
    }

    /// Written whole under another name first, then linked: of two processes that do this at once, one wins and both
    /// read the same bytes; a crash leaves no half key.
    fn make_key(&self, path: &Path, bytes: &[u8]) -> Result<(), DataDirError> {
        let fault = |source| io_error(path, source);
        let draft = tempfile::Builder::new()
            .prefix(".key-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.path)
            .map_err(fault)?;
        draft.as_file().write_all(bytes).map_err(fault)?;
        draft.as_file().sync_all().map_err(fault)?;
        match fs::hard_link(draft.path(), path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(fault(error)),
        }
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(fault)
    }
}

fn read_pepper(path: &Path) -> Result<Option<Pepper>, DataDirError> {
    let bytes = PEPPER_BYTES as u64;
    let open = |path, mode| DataDirError::PepperOpen { path, mode };
    let Some(mut file) = open_key(path, bytes..=bytes, open, DataDirError::NotAPepper)? else { return Ok(None) };
    let mut bytes = [0; PEPPER_BYTES];
    file.read_exact(&mut bytes).map_err(|source| io_error(path, source))?;
    Ok(Some(Pepper::new(bytes)))
}

fn read_secrets_key(path: &Path) -> Result<Option<SecretString>, DataDirError> {
    let open = |path, mode| DataDirError::SecretsKeyOpen { path, mode };
    let file = open_key(path, 0..=MAX_SECRETS_KEY_BYTES, open, DataDirError::NotASecretsKey)?;
    let text = file.map(io::read_to_string).transpose().map_err(|source| io_error(path, source))?;
    Ok(text.map(SecretString::from))
}

/// Opens a key's file, if there is one: of this user, and for nobody else to read.
fn open_key(
    path: &Path,
    length: RangeInclusive<u64>,
    open: fn(PathBuf, u32) -> DataDirError,
    wrong: fn(PathBuf) -> DataDirError,
) -> Result<Option<File>, DataDirError> {
    let file = match private().read(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error(path, source)),
    };
    let metadata = file.metadata().map_err(|source| io_error(path, source))?;
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & 0o077 != 0 {
        return Err(open(path.to_owned(), mode));
    }
    let own = rustix::process::geteuid().as_raw();
    if !metadata.is_file() || metadata.uid() != own || !length.contains(&metadata.len()) {
        return Err(wrong(path.to_owned()));
    }
    Ok(Some(file))
}

/// Files that only their owner reads, and that are never reached through a symbolic link or wait for a FIFO's writer.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    options.mode(0o600).custom_flags(i32::try_from(flags.bits()).expect("open flags are an int"));
    options
}

/// Makes the database's file, if it is not there, so that nobody else can ever have read it; the files that the database
/// puts beside it take over its mode.
pub(crate) fn make_private(path: &Path) -> Result<(), DataDirError> {
    match private().write(true).create_new(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(io_error(path, source)),
    }
}

fn is_empty(path: &Path) -> Result<bool, DataDirError> {
    Ok(fs::read_dir(path).map_err(|source| io_error(path, source))?.next().is_none())
}

fn io_error(path: &Path, source: io::Error) -> DataDirError {
    DataDirError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn make(path: &Path, mode: u32) {
        fs::create_dir(path).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_directory_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(&temp.path().join("a/b"), false).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
    }

    #[test]
    fn an_open_directory_is_closed_only_if_it_is_meant_for_us() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("empty");
        make(&path, 0o755);
        DataDir::prepare(&path, false).unwrap();
        assert_eq!(mode(&path), 0o700);

        let path = temp.path().join("home");
        make(&path, 0o755);
        fs::write(path.join("diary"), "").unwrap();
        assert!(matches!(DataDir::prepare(&path, false), Err(DataDirError::Open { mode: 0o755, .. })));
        assert_eq!(mode(&path), 0o755);
        DataDir::prepare(&path, true).unwrap();
        assert_eq!(mode(&path), 0o700);

        let path = temp.path().join("tmp");
        make(&path, 0o1777);
        assert!(matches!(DataDir::prepare(&path, false), Err(DataDirError::Open { .. })));
    }

    #[test]
    fn a_second_server_is_told_who_was_first() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(&temp.path().join("d"), false).unwrap();
        let lock = dir.lock().unwrap();
        let error = dir.lock().unwrap_err();
        assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
        drop(lock);
        dir.lock().unwrap();
    }

    #[test]
    fn the_pepper_is_made_once_and_stays() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(&temp.path().join("d"), false).unwrap();
        let path = dir.path().join(PEPPER);
        dir.pepper().unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!((bytes.len(), mode(&path)), (PEPPER_BYTES, 0o600));
        assert_ne!(bytes, [0; PEPPER_BYTES]);
        dir.pepper().unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_pepper_that_others_can_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(&temp.path().join("d"), false).unwrap();
        dir.pepper().unwrap();
        let path = dir.path().join(PEPPER);
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(dir.pepper(), Err(DataDirError::PepperOpen { .. })), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_pepper_is_never_one() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(&temp.path().join("d"), false).unwrap();
        let path = dir.path().join(PEPPER);
        fs::write(&path, "short").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(dir.pepper(), Err(DataDirError::NotAPepper(_))));
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert!(matches!(dir.pepper(), Err(DataDirError::Io { .. })));
    }

    #[test]
    fn the_key_for_secrets_is_made_once_stays_and_is_private() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(&temp.path().join("d"), false).unwrap();
        let (first, made) = dir.secrets_key().unwrap();
        let (second, made_again) = dir.secrets_key().unwrap();
        assert_eq!((first.expose_secret(), made, made_again), (second.expose_secret(), true, false));
        assert_eq!((first.expose_secret().len(), mode(&dir.secrets_key_path())), (65, 0o600));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::set_permissions(dir.secrets_key_path(), Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(dir.secrets_key(), Err(DataDirError::SecretsKeyOpen { mode: 0o640, .. })));
    }

    #[test]
    fn the_instance_is_a_name_for_the_place() {
        let temp = tempfile::tempdir().unwrap();
        let a = DataDir::prepare(&temp.path().join("a"), false).unwrap();
        let b = DataDir::prepare(&temp.path().join("b"), false).unwrap();
        let again = DataDir::prepare(&temp.path().join("b/../a"), false).unwrap();
        assert_eq!(a.instance(), again.instance());
        assert_ne!(a.instance(), b.instance());
        assert!(a.instance().bytes().all(|byte| byte.is_ascii_hexdigit()) && a.instance().len() == 12);
    }
}
