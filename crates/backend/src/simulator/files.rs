//! The working directory, as the model has it: what was put there before the start, in memory.

use std::collections::BTreeMap;

use protocol::{NotPut, PUT_CHUNK_BYTES, Put, PutKind, path};

/// What was put, by path.
#[derive(Debug, Default)]
pub(super) struct Files {
    entries: BTreeMap<String, Entry>,
    /// The file that is not whole yet.
    current: Option<String>,
}

#[derive(Debug)]
enum Entry {
    File(Vec<u8>),
    Link,
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
                    PutKind::File { .. } => Entry::File(Vec::new()),
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
        if let Some(Entry::File(content)) = self.entries.get_mut(&put.path) {
            content.extend_from_slice(&put.data);
        }
        self.current = (!put.last).then_some(put.path);
        Ok(())
    }

    /// Whether every file is whole.
    pub(super) fn finish(&self) -> Result<(), Refused> {
        if self.current.is_none() { Ok(()) } else { Err((NotPut::Failed, "a file is not whole".to_owned())) }
    }

    /// What was put as a file there.
    pub(super) fn read(&self, path: &str) -> Option<&[u8]> {
        match self.entries.get(path.strip_prefix("/workspace/").unwrap_or(path)) {
            Some(Entry::File(content)) => Some(content),
            Some(Entry::Link) | None => None,
        }
    }

    /// Whether it is there, or a directory, or below something that is no directory.
    fn is_in_the_way(&self, path: &str) -> bool {
        let above = path.match_indices('/').any(|(at, _)| self.entries.contains_key(&path[..at]));
        let below = format!("{path}/");
        let is_directory =
            self.entries.range(below.clone()..).next().is_some_and(|(other, _)| other.starts_with(&below));
        above || is_directory || self.entries.contains_key(path)
    }
}
