//! Pictures, saved.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use wire::SessionId;

/// Files that are tried when one is there already.
const MAX_TRIES: u32 = 1000;

/// Writes a picture into a new file. What is in it comes from a sandbox; its name does not.
pub(super) fn save(folder: &Path, session: SessionId, turn: u32, png: &str) -> io::Result<PathBuf> {
    let bytes = BASE64_STANDARD.decode(png).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let session = session.to_string();
    // The end of an id is its random part.
    let short = &session[session.len() - 6..];
    for again in 0..MAX_TRIES {
        let suffix = if again == 0 { String::new() } else { format!("-{again}") };
        let path = folder.join(format!("enclave-{short}-{turn}{suffix}.png"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(mut file) => {
                file.write_all(&bytes)?;
                return Ok(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_there_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let session = "ses_01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let first = save(folder.path(), session, 3, &BASE64_STANDARD.encode("one")).unwrap();
        let second = save(folder.path(), session, 3, &BASE64_STANDARD.encode("two")).unwrap();
        assert_eq!(first, folder.path().join("enclave-9a8057-3.png"));
        assert_eq!(second, folder.path().join("enclave-9a8057-3-1.png"));
        assert_eq!(std::fs::read(first).unwrap(), b"one");
        assert_eq!(std::fs::read(second).unwrap(), b"two");
        save(folder.path(), session, 3, "no base64!").unwrap_err();
    }
}
