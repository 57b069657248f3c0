//! The working directory, as the model has it: what was put there and what the program is seen to write, in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use protocol::{NotPut, PUT_CHUNK_BYTES, Put, PutKind, path};

use super::clerk::Handle;

/// What was put, by path.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) entries: BTreeMap<String, Entry>,
    /// What is open for the host.
    pub(super) open: HashMap<u32, Handle>,
    /// The file that is not whole yet.
    current: Option<String>,
}

#[derive(Debug)]
pub(super) enum Entry {
    File { content: Arc<Vec<u8>>, mode: u32 },
    Link,
}

impl Entry {
    /// What it takes of the disk.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::File { content, .. } => content.len() as u64,
            Self::Link => 0,
        }
    }
}

type Refused = (NotPut, String);

impl Files {
    /// Takes a part, by the rules of the real runner.
    pub(super) fn put(&mut self, put: Put) -> Result<(), Refused> {
        let failed = |message: String| Err((NotPut::Failed, message));
        if put.data.len() > PUT_CHUNK_BYTES {
            return failed("a part of a file is too large".to_owned());
        }
        match &self.current {
            Some(path) if *path != put.path => return failed("a file is not whole".to_owned()),
            Some(_) => {}
            None => {
                if let Err(error) = path::check(&put.path) {
                    return failed(format!("{:?} {error}", put.path));
                }
                if self.is_in_the_way(&put.path) {
                    return Err((NotPut::InTheWay, format!("{}: in the way", put.path)));
                }
                let entry = match put.kind {
                    PutKind::File { mode } => Entry::File { content: Arc::default(), mode: mode & 0o777 },
                    PutKind::Link => {
                        let target = str::from_utf8(&put.data).unwrap_or_default();
                        if !path::link_stays_inside(&put.path, target) || !put.last {
                            return failed(format!("{:?} is a link that leads out", put.path));
                        }
                        Entry::Link
                    }
                };
                self.entries.insert(put.path.clone(), entry);
            }
        }
        if let Some(Entry::File { content, .. }) = self.entries.get_mut(&put.path) {
            Arc::make_mut(content).extend_from_slice(&put.data);
        }
        self.current = (!put.last).then_some(put.path);
        Ok(())
    }

    /// Whether every file is whole.
    pub(super) fn finish(&self) -> Result<(), Refused> {
        if self.current.is_none() { Ok(()) } else { Err((NotPut::Failed, "a file is not whole".to_owned())) }
    }

    /// What is in the file there.
    pub(super) fn read(&self, path: &str) -> Option<Arc<Vec<u8>>> {
        match self.entries.get(below(path)) {
            Some(Entry::File { content, .. }) => Some(Arc::clone(content)),
            Some(Entry::Link) | None => None,
        }
    }

    /// The program writes a file. What the model cannot have at that place is not kept.
    pub(super) fn write(&mut self, path: &str, data: &[u8], append: bool) {
        let path = below(path);
        if path::check(path).is_err() || !self.takes_file(path) {
            return;
        }
        let new = || Entry::File { content: Arc::default(), mode: 0o644 };
        if let Entry::File { content, .. } = self.entries.entry(path.to_owned()).or_insert_with(new) {
            let content = Arc::make_mut(content);
            if !append {
                content.clear();
            }
            content.extend_from_slice(data);
        }
    }

    /// Whether something is below it.
    pub(super) fn is_directory(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.entries.range(below.clone()..).next().is_some_and(|(other, _)| other.starts_with(&below))
    }

    /// Whether it is there, or a directory, or below something that is no directory.
    fn is_in_the_way(&self, path: &str) -> bool {
        !self.takes_file(path) || self.entries.contains_key(path)
    }

    /// Whether a file could be there: nothing above is one, and nothing is below.
    pub(super) fn takes_file(&self, path: &str) -> bool {
        let above = path.match_indices('/').any(|(at, _)| self.entries.contains_key(&path[..at]));
        !above && !self.is_directory(path)
    }
}

/// A path as it is below the working directory.
fn below(path: &str) -> &str {
    path.strip_prefix("/workspace/").or_else(|| path.strip_prefix("./")).unwrap_or(path)
}
