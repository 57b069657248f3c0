//! Reading and writing the files of a cgroup tree.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
};

use super::Failed;

/// Opens a file that exists, to write to it.
pub(super) fn open_to_write(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Writes a value in one call, as the kernel wants it.
pub(super) fn write(dir: &Path, name: &'static str, value: impl std::fmt::Display) -> Result<(), Failed> {
    let result = open_to_write(&dir.join(name)).and_then(|mut file| file.write_all(value.to_string().as_bytes()));
    result.map_err(|source| Failed { step: name, source })
}

/// Writes a value if there is such a file on this kernel.
pub(super) fn write_if_there(dir: &Path, name: &'static str, value: impl std::fmt::Display) -> Result<(), Failed> {
    match write(dir, name, value) {
        Err(failed) if failed.source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads a file that holds one number.
pub(super) fn number(dir: &Path, name: &str) -> io::Result<u64> {
    fs::read_to_string(dir.join(name))?.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// A file of `key value` lines, read at once.
pub(super) struct Table(String);

impl Table {
    pub(super) fn read(dir: &Path, name: &str) -> io::Result<Self> {
        fs::read_to_string(dir.join(name)).map(Self)
    }

    /// One of its numbers; 0 when there is no such key.
    pub(super) fn field(&self, key: &str) -> io::Result<u64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        value.map_or(Ok(0), |value| value.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into()))
    }
}

/// Reads one number of a file of `key value` lines; 0 when there is no such key.
pub(super) fn field(dir: &Path, name: &str, key: &str) -> io::Result<u64> {
    Table::read(dir, name)?.field(key)
}

/// Removes a group and the groups in it, as far as they are empty. The files in a group are not removed one by one.
pub(super) fn remove_tree(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // Whether it worked is looked at afterwards.
    let _ = fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_key() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.events"), "low 1\noom 2\noom_kill 3\n").unwrap();
        assert_eq!(field(dir.path(), "memory.events", "oom").unwrap(), 2);
        assert_eq!(field(dir.path(), "memory.events", "oom_kill").unwrap(), 3);
        assert_eq!(field(dir.path(), "memory.events", "max").unwrap(), 0);
        assert!(field(dir.path(), "cpu.stat", "usage_usec").is_err());
    }

    #[test]
    fn a_file_that_this_kernel_lacks_is_passed_over_only_where_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_if_there(dir.path(), "memory.oom.group", 1).is_ok());
        assert_eq!(write(dir.path(), "memory.max", 1).unwrap_err().step, "memory.max");
    }
}
