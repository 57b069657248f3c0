//! Removing a sandbox, whoever made it, and looking for what is left of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use backend::{Residue, SandboxId};
use rustix::mount::UnmountFlags;

use crate::{
    cgroup::{self, Group},
    process,
};

/// The places where a sandbox leaves traces.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    pub(crate) id: SandboxId,
    pub(crate) group: Group,
    pub(crate) dir: PathBuf,
}

impl Site {
    /// Whether there is anything.
    pub(crate) fn is_there(&self) -> bool {
        self.dir.exists() || !self.group.remains().is_empty()
    }

    /// Removes everything, once no process is left. Blocks.
    pub(crate) fn clear(&self) {
        self.group.remove();
        for mount in self.mounts() {
            if let Err(error) = rustix::mount::unmount(&mount, UnmountFlags::DETACH) {
                tracing::warn!(sandbox = %self.id, mount = %mount.display(), %error, "not unmounted");
            }
        }
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(sandbox = %self.id, %error, "files are left");
            }
            _ => {}
        }
    }

    /// What is left, one line each.
    pub(crate) fn residue(&self) -> Residue {
        let mut lines = Vec::new();
        let mut pids = self.group.pids();
        pids.extend(process::naming(self.id.as_str()));
        pids.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        pids.dedup();
        lines.extend(pids.into_iter().map(|pid| format!("process {}", pid.as_raw_nonzero())));
        lines.extend(self.group.remains().into_iter().map(|dir| format!("cgroup {}", dir.display())));
        lines.extend(self.mounts().into_iter().map(|mount| format!("mount {}", mount.display())));
        if self.dir.symlink_metadata().is_ok() {
            lines.push(format!("directory {}", self.dir.display()));
        }
        Residue(lines)
    }

    /// Mounts below its directory, the deepest first.
    fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        below(&table, &self.dir)
    }
}

fn below(table: &str, dir: &Path) -> Vec<PathBuf> {
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(cgroup::unescape);
    let mut found: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    found.sort_unstable_by_key(|point| std::cmp::Reverse(point.components().count()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(root: &Path) -> Site {
        // Tests look at the processes of the whole host, at the same time.
        let id = SandboxId::from_bits(u128::from_ne_bytes(crate::random().unwrap()));
        let groups = root.join("groups");
        fs::create_dir(&groups).unwrap();
        let group = cgroup::tests::fake(&groups, &id).group(&id);
        let dir = root.join("sandboxes").join(id.as_str());
        fs::create_dir_all(&dir).unwrap();
        Site { id, group, dir }
    }

    #[test]
    fn every_kind_of_leftover_is_found_and_named() {
        let root = tempfile::tempdir().unwrap();
        let site = site(root.path());
        fs::write(site.dir.join("config.json"), "{}").unwrap();
        let mut process = process::tests::waiting(&["runsc-sandbox", site.id.as_str()]);
        let Residue(lines) = site.residue();
        process.kill().unwrap();
        process.wait().unwrap();
        assert_eq!(
            lines,
            [
                format!("process {}", process.id()),
                format!("cgroup {}", root.path().join("groups").join(site.id.as_str()).display()),
                format!("directory {}", site.dir.display()),
            ]
        );
    }

    #[test]
    fn after_clearing_nothing_is_left_and_clearing_again_is_fine() {
        let root = tempfile::tempdir().unwrap();
        let site = site(root.path());
        fs::create_dir(site.dir.join("disk")).unwrap();
        // Files in a cgroup vanish with it; these are plain ones.
        let group = root.path().join("groups").join(site.id.as_str());
        for file in fs::read_dir(&group).unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        assert!(site.is_there());
        for _ in 0..2 {
            site.clear();
            assert_eq!(site.residue(), Residue::none());
        }
        assert!(!site.is_there());
    }

    #[test]
    fn mounts_of_this_sandbox_alone_are_its_leftovers() {
        let table = "1 0 0:1 / /state/sbx-1 rw - tmpfs x rw
2 0 0:1 / /state/sbx-10 rw - tmpfs x rw
3 0 0:1 / /state/sbx-1/disk/a rw - tmpfs x rw";
        assert_eq!(
            below(table, Path::new("/state/sbx-1")),
            [PathBuf::from("/state/sbx-1/disk/a"), PathBuf::from("/state/sbx-1")]
        );
    }
}
