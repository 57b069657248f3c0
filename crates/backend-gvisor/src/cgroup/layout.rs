//! Where the cgroup trees are mounted. Pure, but for reading the list of mounts.

use std::{fs, os::unix::ffi::OsStringExt as _, path::PathBuf};

use super::CgroupError;

/// What version 2 must offer in its root.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// The trees of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    V1(Roots),
    V2(PathBuf),
}

/// The roots of version 1. Two of them may be the same directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roots {
    pub(crate) cpu: PathBuf,
    pub(crate) cpuacct: PathBuf,
    pub(crate) memory: PathBuf,
    pub(crate) pids: PathBuf,
    pub(crate) freezer: Option<PathBuf>,
    /// A version 2 tree beside them, without their controllers.
    pub(crate) unified: Option<PathBuf>,
}

impl Layout {
    /// Looks at this host.
    pub(crate) fn find() -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(CgroupError::Mounts)?;
        Self::parse(&mounts, |root| fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default())
    }

    /// Decides by the list of mounts, and by the controllers that a version 2 root has.
    fn parse(mounts: &str, controllers: impl Fn(&PathBuf) -> String) -> Result<Self, CgroupError> {
        let mounts: Vec<Mount> = mounts.lines().filter_map(Mount::parse).collect();
        let unified = mounts.iter().find(|mount| mount.kind == "cgroup2").map(|mount| mount.point.clone());
        if let Some(root) = &unified {
            let there = controllers(root);
            if NEEDED.iter().all(|needed| there.split_whitespace().any(|name| name == *needed)) {
                return Ok(Self::V2(root.clone()));
            }
        }
        let find = |controller: &str| {
            let holds = |mount: &&Mount| mount.kind == "cgroup" && mount.options.split(',').any(|o| o == controller);
            mounts.iter().find(holds).map(|mount| mount.point.clone())
        };
        let mut missing = Vec::new();
        let mut need = |controller: &'static str| {
            find(controller).unwrap_or_else(|| {
                missing.push(controller);
                PathBuf::new()
            })
        };
        let roots = Roots {
            cpu: need("cpu"),
            cpuacct: need("cpuacct"),
            memory: need("memory"),
            pids: need("pids"),
            freezer: find("freezer"),
            unified,
        };
        if missing.is_empty() { Ok(Self::V1(roots)) } else { Err(CgroupError::Missing { missing: missing.join(", ") }) }
    }
}

/// A line of `/proc/self/mountinfo`, as far as it is needed.
struct Mount<'a> {
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (head, tail) = line.split_once(" - ")?;
        let mut tail = tail.split(' ');
        let kind = tail.next()?;
        Some(Self { point: unescape(head.split(' ').nth(4)?), kind, options: tail.nth(1)? })
    }
}

/// Undoes the kernel's escaping of blanks in paths: a backslash and three octal digits.
pub(crate) fn unescape(path: &str) -> PathBuf {
    let bytes = path.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = path.get(at + 1..at + 4).filter(|_| byte == b'\\');
        if let Some(real) = escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            plain.push(real);
            at += 4;
        } else {
            plain.push(byte);
            at += 1;
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "24 1 254:0 / / rw - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    const OLD: &str = "30 24 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
32 24 0:28 / /my\\040groups/pids rw - cgroup cgroup rw,pids
33 24 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn a_plain_host_has_version_2() {
        let layout = Layout::parse(PLAIN, |_| "cpuset cpu io memory hugetlb pids\n".into()).unwrap();
        assert_eq!(layout, Layout::V2("/sys/fs/cgroup".into()));
    }

    #[test]
    fn a_host_with_controllers_on_version_1_is_that_even_beside_an_empty_version_2() {
        let layout = Layout::parse(OLD, |_| "hugetlb\n".into()).unwrap();
        let Layout::V1(roots) = layout else { panic!("{layout:?}") };
        assert_eq!(roots.cpu, roots.cpuacct);
        assert_eq!(roots.pids, PathBuf::from("/my groups/pids"));
        assert_eq!((roots.freezer, roots.unified), (None, Some("/sys/fs/cgroup/unified".into())));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = Layout::parse(PLAIN, |_| "cpu\n".into()).unwrap_err();
        assert!(error.to_string().contains("cpu, cpuacct, memory, pids"), "{error}");
        let error = Layout::parse("", |_| String::new()).unwrap_err();
        assert!(matches!(error, CgroupError::Missing { .. }));
    }

    #[test]
    fn unescaping_takes_only_what_the_kernel_escapes() {
        assert_eq!(unescape("/a\\040b\\134\\x"), PathBuf::from("/a b\\\\x"));
        assert_eq!(unescape("/a\\04"), PathBuf::from("/a\\04"));
    }
}
