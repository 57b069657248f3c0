//! The runner, put where `runsc` can execute it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use sha2::{Digest as _, Sha256};

/// Writes the runner below `state_dir`, in a directory named by its digest, and opens it. A file that is there with the
/// right bytes is left alone; one with other bytes is replaced.
pub(crate) fn install(state_dir: &Path, runner: &[u8]) -> io::Result<File> {
    let dir = state_dir.join(format!("runner-{}", hex::encode(Sha256::digest(runner))));
    let path = dir.join("enclave-runner");
    fs::create_dir_all(&dir)?;
    if fs::read(&path).is_ok_and(|there| there == runner) {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555))?;
        return File::open(path);
    }
    let partial = dir.join(format!(".{}", std::process::id()));
    let mut file = File::create(&partial)?;
    file.write_all(runner)?;
    file.set_permissions(fs::Permissions::from_mode(0o555))?;
    // A file that is open for writing cannot be executed.
    drop(file);
    fs::rename(&partial, &path)?;
    File::open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_is_written_once_and_mended_when_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        let read = |file: File| io::read_to_string(file).unwrap();
        let first = install(dir.path(), b"runner").unwrap();
        assert_eq!(first.metadata().unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(read(first), "runner");
        let path = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path().join("enclave-runner");
        fs::remove_file(&path).unwrap();
        fs::write(&path, "forged").unwrap();
        assert_eq!(read(install(dir.path(), b"runner").unwrap()), "runner");
        install(dir.path(), b"another").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
