//! Makes a root file system out of a tree of unpacked packages: what maintainer scripts would have done, and what a
//! sandbox has no use for taken out. Called by [`super::build`], as whoever builds the image; runs nothing.
//!
//! Packages are signed, yet this may run as root: nothing is written through a link that leads out of the tree.

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

/// Removed, with all below.
const CLUTTER: &[&str] = &[
    "boot",
    "dev",
    "etc/apt",
    "etc/cron.daily",
    "etc/dpkg",
    "etc/fstab",
    "etc/init.d",
    "etc/kernel",
    "etc/logrotate.d",
    "etc/pam.d",
    "etc/rc0.d",
    "etc/rc1.d",
    "etc/rc2.d",
    "etc/rc3.d",
    "etc/rc4.d",
    "etc/rc5.d",
    "etc/rc6.d",
    "etc/rcS.d",
    "etc/security",
    "etc/shadow",
    "etc/systemd",
    "etc/update-motd.d",
    "proc",
    "run",
    "sys",
    "tmp",
    "usr/lib/init",
    "usr/lib/lsb",
    "usr/lib/systemd",
    "usr/lib/udev",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc-base",
    "usr/share/gitweb",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/zsh",
    "var/backups",
    "var/cache",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/lib/systemd",
    "var/log",
    "var/tmp",
];

/// Directories, where a sandbox mounts something or may write, and their modes.
const DIRECTORIES: &[(&str, u32)] = &[
    ("dev", 0o755),
    ("disk", 0o755),
    ("enclave", 0o755),
    ("proc", 0o755),
    ("run", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var/cache", 0o755),
    ("var/log", 0o755),
    ("var/tmp", 0o1777),
    ("workspace", 0o1777),
];

/// The workload runs as `nobody`; root is the runner. Nobody can sign in, so there are no passwords to keep.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:*:0:0:root:/root:/bin/bash\n\
         daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
         bin:*:2:2:bin:/bin:/usr/sbin/nologin\n\
         sys:*:3:3:sys:/dev:/usr/sbin/nologin\n\
         nobody:*:65534:65534:nobody:/workspace:/bin/bash\n",
    ),
    (
        "etc/group",
        "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nadm:x:4:\ntty:x:5:\ndisk:x:6:\nmail:x:8:\nkmem:x:15:\nshadow:x:42:\n\
         utmp:x:43:\nstaff:x:50:\nusers:x:100:\nnogroup:x:65534:\n",
    ),
    ("etc/hostname", "enclave\n"),
    ("etc/hosts", "127.0.0.1\tlocalhost enclave\n::1\tlocalhost ip6-localhost ip6-loopback\n"),
    ("etc/resolv.conf", ""),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n\
         ethers: files\nrpc: files\n",
    ),
    ("etc/timezone", "Etc/UTC\n"),
    ("etc/profile", "PATH=/usr/local/bin:/usr/bin:/bin\nexport PATH\n"),
    // The root file system is read-only, so this is what pip would otherwise have to be told each time.
    ("etc/pip.conf", "[global]\nno-cache-dir = true\ndisable-pip-version-check = true\n"),
];

/// Links that `update-alternatives` and others would make, where their target exists.
const LINKS: &[(&str, &str)] = &[
    ("usr/bin/awk", "gawk"),
    ("usr/bin/nawk", "gawk"),
    ("usr/bin/pager", "less"),
    ("usr/bin/python", "python3"),
    ("usr/bin/which", "which.debianutils"),
    ("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
    ("etc/mtab", "/proc/self/mounts"),
];

/// Does all of it but what needs a program to run (see [`super::build`]).
pub(crate) fn finish(root: &Path) -> io::Result<()> {
    // Packages assume that /bin is /usr/bin, and the unpacking was told so; without it half of what follows is wrong.
    for (name, target) in MERGED {
        if fs::read_link(root.join(name))? != Path::new(target) {
            return Err(io::Error::other(format!("/{name} is not a link to {target}")));
        }
    }
    for path in CLUTTER {
        remove(&inside(root, path)?)?;
    }
    remove_all_but_copyright(&inside(root, "usr/share/doc")?)?;
    for (path, _) in DIRECTORIES {
        let path = inside(root, path)?;
        remove(&path)?;
        fs::create_dir(path)?;
    }
    for (path, content) in FILES {
        write(root, path, content.as_bytes())?;
    }
    for (path, target) in LINKS {
        let path = inside(root, path)?;
        let base = if target.starts_with('/') { root } else { path.parent().expect("below the root") };
        let wanted = target.starts_with("/proc/") || base.join(target.trim_start_matches('/')).exists();
        if wanted && path.symlink_metadata().is_err() {
            symlink(target, path)?;
        }
    }
    trust_anchors(root)?;
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        normalise(&dir, &mut open)?;
    }
    for (path, mode) in DIRECTORIES {
        fs::set_permissions(root.join(path), Permissions::from_mode(*mode))?;
    }
    Ok(())
}

/// Links from the root into /usr, made before anything is unpacked.
pub(crate) const MERGED: &[(&str, &str)] =
    &[("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

/// The path of something in the tree, with its directory made; refused if a link leads that directory out of the tree.
pub(crate) fn inside(root: &Path, path: &str) -> io::Result<PathBuf> {
    let path = root.join(path);
    let parent = path.parent().expect("below the root");
    fs::create_dir_all(parent)?;
    if !parent.canonicalize()?.starts_with(root.canonicalize()?) {
        return Err(io::Error::other(format!("{} leads out of the tree", parent.display())));
    }
    Ok(path)
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn write(root: &Path, path: &str, content: &[u8]) -> io::Result<()> {
    let path = inside(root, path)?;
    remove(&path)?;
    fs::write(path, content)
}

/// Licences ask that their text stays with the program; everything else in /usr/share/doc is for people with a shell.
fn remove_all_but_copyright(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let package = entry?;
        if !package.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(package.path())? {
            let entry = entry?;
            if entry.file_name() != "copyright" {
                remove(&entry.path())?;
            }
        }
    }
    Ok(())
}

/// What `update-ca-certificates` does: all of Mozilla's roots in one file, and the place where OpenSSL looks for it.
fn trust_anchors(root: &Path) -> io::Result<()> {
    let mut certificates: Vec<PathBuf> = fs::read_dir(root.join("usr/share/ca-certificates/mozilla"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()?;
    certificates.retain(|path| path.extension() == Some(OsStr::new("crt")));
    certificates.sort();
    if certificates.is_empty() {
        return Err(io::Error::other("no certificates in the package ca-certificates"));
    }
    let mut bundle = Vec::new();
    for path in certificates {
        bundle.append(&mut fs::read(path)?);
        if bundle.last() != Some(&b'\n') {
            bundle.push(b'\n');
        }
    }
    write(root, "etc/ssl/certs/ca-certificates.crt", &bundle)?;
    let link = inside(root, "usr/lib/ssl/cert.pem")?;
    remove(&link)?;
    symlink("/etc/ssl/certs/ca-certificates.crt", link)
}

/// Gives a directory's entries the modes of a file system that everyone may read and nobody may change: no set-user-id,
/// nothing writable by others, no devices.
fn normalise(dir: &Path, open: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_symlink() {
            continue;
        }
        if kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket() {
            fs::remove_file(path)?;
            continue;
        }
        let mode = entry.metadata()?.permissions().mode() & 0o7777;
        let tidy = if kind.is_dir() {
            open.push(path.clone());
            0o755
        } else if mode & 0o100 == 0 {
            0o644
        } else {
            0o755
        };
        if mode != tidy {
            fs::set_permissions(path, Permissions::from_mode(tidy))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for (name, target) in MERGED {
            fs::create_dir_all(root.join(target)).unwrap();
            symlink(target, root.join(name)).unwrap();
        }
        for path in ["usr/share/doc/dash", "usr/share/ca-certificates/mozilla", "etc", "dev", "var/lib/dpkg"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::write(root.join("usr/share/doc/dash/copyright"), "BSD").unwrap();
        fs::write(root.join("usr/share/doc/dash/README"), "...").unwrap();
        fs::write(root.join("usr/share/ca-certificates/mozilla/b.crt"), "B").unwrap();
        fs::write(root.join("usr/share/ca-certificates/mozilla/a.crt"), "A\n").unwrap();
        dir
    }

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_tree_of_packages_becomes_a_root_file_system() {
        let dir = tree();
        let root = dir.path();
        finish(root).unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/ssl/certs/ca-certificates.crt")).unwrap(), "A\nB\n");
        assert!(root.join("usr/share/doc/dash/copyright").exists());
        assert!(!root.join("usr/share/doc/dash/README").exists());
        assert!(!root.join("var/lib/dpkg").exists());
        assert_eq!(mode(&root.join("workspace")), 0o1777);
        assert_eq!(mode(&root.join("tmp")), 0o1777);
        assert_eq!(mode(&root.join("etc/passwd")), 0o644);
    }

    #[test]
    fn no_file_keeps_a_users_or_groups_rights_nor_can_be_written_by_others() {
        let dir = tree();
        let su = dir.path().join("usr/bin/su");
        fs::write(&su, "").unwrap();
        fs::set_permissions(&su, Permissions::from_mode(0o6775)).unwrap();
        let home = dir.path().join("root");
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, Permissions::from_mode(0o2770)).unwrap();
        finish(dir.path()).unwrap();
        assert_eq!(mode(&su), 0o755);
        assert_eq!(mode(&home), 0o755);
    }

    #[test]
    fn nothing_is_written_or_removed_through_a_link_that_leads_out_of_the_tree() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("passwd"), "precious").unwrap();
        let dir = tree();
        fs::remove_dir(dir.path().join("etc")).unwrap();
        symlink(outside.path(), dir.path().join("etc")).unwrap();
        assert!(finish(dir.path()).is_err());
        assert_eq!(fs::read_to_string(outside.path().join("passwd")).unwrap(), "precious");

        let dir = tree();
        symlink(outside.path().join("passwd"), dir.path().join("etc/passwd")).unwrap();
        finish(dir.path()).unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("passwd")).unwrap(), "precious");
        assert!(fs::read_to_string(dir.path().join("etc/passwd")).unwrap().contains("nobody"));
    }
}
