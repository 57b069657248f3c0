//! Looking for what is left of sandboxes on this host, without asking the backend that made them, and for a secret in files.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Processes, cgroups, mounts, sockets and files that carry the name of one of the sandboxes. Files are looked for where
/// servers keep them by default, among temporary files, and below `data`.
pub(crate) fn search(sandboxes: &[String], data: &Path) -> Vec<String> {
    let named = |text: &str| sandboxes.iter().any(|name| text.contains(name.as_str()));
    let mut left = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(command) = fs::read(process.path().join("cmdline")) else { continue };
        if named(&String::from_utf8_lossy(&command)) {
            left.push(format!("process {}", process.file_name().to_string_lossy()));
        }
    }
    for list in ["/proc/self/mountinfo", "/proc/net/unix"] {
        let text = fs::read_to_string(list).unwrap_or_default();
        left.extend(text.lines().filter(|line| named(line)).map(|line| format!("{list}: {line}")));
    }
    let mut folders = vec![
        (PathBuf::from("/sys/fs/cgroup"), 8),
        (PathBuf::from("/run"), 4),
        (PathBuf::from("/var/lib/enclave"), 5),
        (data.to_owned(), 5),
    ];
    // Of the temporary files only ours are searched: those of others may be many.
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if named(&name) {
            left.push(format!("file {}", entry.path().display()));
        } else if (name.starts_with("enclave") || name.starts_with(".tmp")) && is_folder(&entry.path()) {
            folders.push((entry.path(), 5));
        }
    }
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if named(&entry.file_name().to_string_lossy()) {
                left.push(format!("file {}", path.display()));
            } else if depth > 0 && is_folder(&path) {
                folders.push((path, depth - 1));
            }
        }
    }
    left
}

/// The files below a folder that hold a text, and how many were read.
pub(crate) fn copies(folder: &Path, text: &str) -> (usize, Vec<PathBuf>) {
    let (mut read, mut found, mut folders) = (0, Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_folder(&path) {
                folders.push(path);
            } else if let Ok(bytes) = fs::read(&path) {
                read += 1;
                if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                    found.push(path);
                }
            }
        }
    }
    (read, found)
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_carries_the_name_is_found() {
        let name = format!("sbx-{:032x}", std::process::id());
        let data = tempfile::tempdir_in("/var/tmp").unwrap();
        assert_eq!(search(std::slice::from_ref(&name), data.path()), Vec::<String>::new());
        let file = tempfile::Builder::new().prefix(&name).tempfile().unwrap();
        let kept = data.path().join("sandboxes").join(&name);
        std::fs::create_dir_all(&kept).unwrap();
        let mut found = search(&[name], data.path());
        found.sort();
        let mut expected = [file.path(), &kept].map(|path| format!("file {}", path.display()));
        expected.sort();
        assert_eq!(found, expected);
    }
}
