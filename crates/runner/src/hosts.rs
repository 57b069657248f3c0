//! The language hosts: which interpreter, with what on its command line.
//!
//! The host programs travel inside this binary and go to the interpreter as arguments, so there is no file that
//! anyone could change. Node may instead find its host in a start-up snapshot that whoever built the image had made
//! ([`write_snapshot`]): that saves it compiling its own library and our program at every start, a third of its
//! start-up time inside gVisor.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use protocol::Language;

const PYTHON: &str = concat!(
    "ENCLAVE = r'''",
    include_str!("../hosts/python/enclave.py"),
    "'''\n",
    include_str!("../hosts/python/host.py")
);
const NODE: &str = concat!(include_str!("../hosts/node/host.js"), "(require)();\n");
const NODE_SNAPSHOT: &str = concat!(
    "require('v8').startupSnapshot.setDeserializeMainFunction(",
    include_str!("../hosts/node/host.js"),
    "(require));\n"
);

/// The name of the interpreter.
pub(crate) fn interpreter(language: Language) -> &'static str {
    match language {
        Language::Python => "python3",
        Language::Node => "node",
    }
}

/// What follows the name on its command line.
pub(crate) fn arguments(language: Language, snapshot: Option<&Path>) -> Vec<Vec<u8>> {
    let arguments = |words: [&str; 2]| words.map(|word| word.as_bytes().to_vec());
    match (language, snapshot) {
        // -I: nothing of the workspace is imported before the program itself runs.
        (Language::Python, _) => [vec![b"-I".to_vec()], arguments(["-c", PYTHON]).into()].concat(),
        (Language::Node, None) => arguments(["-e", NODE]).into(),
        (Language::Node, Some(path)) => {
            vec![b"--snapshot-blob".to_vec(), path.as_os_str().as_encoded_bytes().to_vec(), b"main.js".to_vec()]
        }
    }
}

/// The snapshot that the image has for exactly this version of the host program.
pub(crate) fn snapshot(language: Language, dir: &Path) -> Option<PathBuf> {
    match language {
        Language::Python => None,
        Language::Node => Some(snapshot_in(dir)).filter(|path| path.exists()),
    }
}

fn snapshot_in(dir: &Path) -> PathBuf {
    dir.join(format!("node-{:016x}.blob", fingerprint(NODE_SNAPSHOT.as_bytes())))
}

/// FNV-1a: tells versions apart. Who can write to the image can replace the interpreter as well.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Makes the snapshot with the interpreter that is found, and says where it is. Run by the image's builder, inside
/// the image, never in a sandbox.
pub(crate) fn write_snapshot(language: Language, dir: &Path) -> io::Result<PathBuf> {
    if language == Language::Python {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "only node has start-up snapshots"));
    }
    std::fs::create_dir_all(dir)?;
    let (source, made, path) = (dir.join("node-host.js"), dir.join("node-host.blob"), snapshot_in(dir));
    std::fs::write(&source, NODE_SNAPSHOT)?;
    // Node warns about each module that snapshots do not officially support; the tests run with one.
    let status = Command::new(interpreter(language))
        .args(["--no-warnings", "--snapshot-blob"])
        .arg(&made)
        .arg("--build-snapshot")
        .arg(&source)
        .status();
    std::fs::remove_file(&source)?;
    if !status?.success() {
        return Err(io::Error::other("node could not make the snapshot"));
    }
    std::fs::rename(&made, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_programs_fit_into_one_argument() {
        const MAX_ARG_STRLEN: usize = 128 * 1024;
        for program in [PYTHON, NODE] {
            assert!(program.len() < MAX_ARG_STRLEN && !program.contains('\0'));
        }
    }

    #[test]
    fn the_embedded_module_cannot_end_its_own_literal() {
        assert_eq!(PYTHON.matches("'''").count(), 2);
    }

    #[test]
    fn a_snapshot_of_another_host_program_is_not_taken() {
        let dir = tempfile::tempdir().expect("creates");
        std::fs::write(dir.path().join("node-0000000000000000.blob"), "").expect("writes");
        assert_eq!(snapshot(Language::Node, dir.path()), None);
        std::fs::write(snapshot_in(dir.path()), "").expect("writes");
        assert_eq!(snapshot(Language::Node, dir.path()), Some(snapshot_in(dir.path())));
        assert_eq!(snapshot(Language::Python, dir.path()), None);
    }
}
