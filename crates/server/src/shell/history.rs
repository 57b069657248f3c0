//! What was typed at the prompt before: a file of JSON strings, one in each line, that shells add to.
//!
//! The editor could keep one itself, and would change the umask of this process while it writes: a sandbox that is
//! started beside it inherits that.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use wire::Language;

/// Entries that are offered.
pub(super) const MAX_ENTRIES: usize = 1000;
/// Entries above which the file is written anew, with those alone that are offered.
const TOO_MANY: usize = 2 * MAX_ENTRIES;

pub(super) struct History {
    path: PathBuf,
}

impl History {
    /// `$XDG_STATE_HOME/enclave/history.<language>`, in a directory of the user's own. Without a home there is none.
    pub(super) fn find(language: Language) -> Option<Self> {
        let of = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder = of("XDG_STATE_HOME").or_else(|| Some(of("HOME")?.join(".local/state")))?.join("enclave");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).ok()?;
        Some(Self { path: folder.join(format!("history.{}", language.as_str())) })
    }

    /// The newest entries, oldest first. A line that is none is passed over.
    pub(super) fn read(&self) -> io::Result<Vec<String>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            file => file?,
        };
        let lines = BufReader::new(file).split(b'\n').collect::<io::Result<Vec<_>>>()?;
        let count = lines.len();
        let newest = lines.into_iter().skip(count.saturating_sub(MAX_ENTRIES));
        let entries = newest.filter_map(|line| serde_json::from_slice(&line).ok()).collect::<Vec<String>>();
        if count > TOO_MANY {
            self.replace(&entries)?;
        }
        Ok(entries)
    }

    /// Adds an entry, in one piece: other shells may be adding theirs.
    pub(super) fn add(&self, entry: &str) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        file.write_all(line(entry).as_bytes())
    }

    fn replace(&self, entries: &[String]) -> io::Result<()> {
        let folder = self.path.parent().ok_or(io::ErrorKind::NotFound)?;
        // Its mode is 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(entries.iter().map(|entry| line(entry)).collect::<String>().as_bytes())?;
        file.persist(&self.path)?;
        Ok(())
    }
}

fn line(entry: &str) -> String {
    format!("{}\n", serde_json::Value::from(entry))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_typed_comes_back_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let history = History { path: dir.path().join("history.python") };
        assert_eq!(history.read().unwrap(), Vec::<String>::new());
        let typed = ["x = 20", "for i in range(2):\n    print(i, \"\\n\")\n", "é"];
        for entry in typed {
            history.add(entry).unwrap();
        }
        // What another version has left.
        fs::write(&history.path, [b"#V2\nx \xff\n", fs::read(&history.path).unwrap().as_slice()].concat()).unwrap();
        assert_eq!(history.read().unwrap(), typed);
    }

    #[test]
    fn a_long_file_is_cut_to_its_newest_entries_and_stays_the_users_own() {
        let dir = tempfile::tempdir().unwrap();
        let history = History { path: dir.path().join("history.node") };
        history.add("0").unwrap();
        let mut file = OpenOptions::new().append(true).open(&history.path).unwrap();
        (1..=TOO_MANY).for_each(|at| file.write_all(line(&at.to_string()).as_bytes()).unwrap());
        let expected: Vec<_> = (TOO_MANY - MAX_ENTRIES + 1..=TOO_MANY).map(|at| at.to_string()).collect();
        for _ in 0..2 {
            assert_eq!(history.read().unwrap(), expected);
        }
        assert_eq!(fs::read_to_string(&history.path).unwrap().lines().count(), MAX_ENTRIES);
        assert_eq!(fs::metadata(&history.path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
