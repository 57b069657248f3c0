//! The language hosts: which interpreter, with what on its command line.
//!
//! The host programs travel inside this binary and go to the interpreter as arguments, so there is no file that
//! anyone could change. An interpreter may instead find its host in a start-up snapshot that whoever built the image had
//! made ([`write_snapshot`]): for Node the heap of a process that has loaded both, for Python the compiled program. That
//! saves half of Node's start-up time inside gVisor, and a tenth of Python's.

use std::{
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use protocol::Language;

const PYTHON: &str = concat!(
    "ENCLAVE = r'''",
    include_str!("../hosts/python/enclave.py"),
    "'''\nTURNS = r'''",
    include_str!("../hosts/python/turns.py"),
    "'''\n",
    include_str!("../hosts/python/host.py")
);
/// An expression: the function that serves a session.
macro_rules! node {
    () => {
        concat!(
            include_str!("../hosts/node/host.js"),
            "(require,\n",
            include_str!("../hosts/node/turns.js"),
            ",\n",
            include_str!("../hosts/node/signals.js"),
            ")"
        )
    };
}
const NODE: &str = concat!(node!(), "();\n");
const NODE_SNAPSHOT: &str = concat!("require('v8').startupSnapshot.setDeserializeMainFunction(", node!(), ");\n");

/// Compiles what it reads to a file, in the form in which Python takes a compiled program for a script.
const COMPILE: &str = "\
import importlib.util, marshal, sys
source = sys.stdin.buffer.read()
code = marshal.dumps(compile(source, '<enclave>', 'exec'))
with open(sys.argv[1], 'xb') as file:
    # Based on a hash of the source, which is never looked at.
    file.write(importlib.util.MAGIC_NUMBER + b'\\1\\0\\0\\0' + importlib.util.source_hash(source) + code)
";

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
        (Language::Python, None) => [vec![b"-I".to_vec()], arguments(["-c", PYTHON]).into()].concat(),
        (Language::Python, Some(path)) => vec![b"-I".to_vec(), path.as_os_str().as_encoded_bytes().to_vec()],
        (Language::Node, None) => arguments(["-e", NODE]).into(),
        (Language::Node, Some(path)) => {
            vec![b"--snapshot-blob".to_vec(), path.as_os_str().as_encoded_bytes().to_vec(), b"main.js".to_vec()]
        }
    }
}

/// The snapshot that the image has for exactly this version of the host program.
pub(crate) fn snapshot(language: Language, dir: &Path) -> Option<PathBuf> {
    Some(snapshot_in(language, dir)).filter(|path| path.exists())
}

fn snapshot_in(language: Language, dir: &Path) -> PathBuf {
    dir.join(match language {
        Language::Python => format!("python-{:016x}.pyc", fingerprint(PYTHON.as_bytes())),
        Language::Node => format!("node-{:016x}.blob", fingerprint(NODE_SNAPSHOT.as_bytes())),
    })
}

/// FNV-1a: tells versions apart. Who can write to the image can replace the interpreter as well.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Makes the snapshot with the interpreter that is found, and says where it is. Run by the image's builder, inside
/// the image, never in a sandbox.
pub(crate) fn write_snapshot(language: Language, dir: &Path) -> io::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let (source, made, path) = (dir.join("host-source"), dir.join("host-made"), snapshot_in(language, dir));
    let mut command = Command::new(interpreter(language));
    let text = match language {
        Language::Python => {
            command.args(["-I", "-B", "-c", COMPILE]).arg(&made);
            PYTHON
        }
        Language::Node => {
            // Node warns about each module that snapshots do not officially support; the tests run with one.
            command.args(["--no-warnings", "--snapshot-blob"]).arg(&made).arg("--build-snapshot").arg(&source);
            NODE_SNAPSHOT
        }
    };
    std::fs::write(&source, text)?;
    let status = std::fs::File::open(&source).and_then(|source| command.stdin(Stdio::from(source)).status());
    std::fs::remove_file(&source)?;
    if !status?.success() {
        return Err(io::Error::other(format!("{} could not make the snapshot", interpreter(language))));
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
    fn the_embedded_modules_cannot_end_their_own_literals() {
        assert_eq!(PYTHON.matches("'''").count(), 4);
    }

    #[test]
    fn a_snapshot_of_another_host_program_is_not_taken() {
        let dir = tempfile::tempdir().expect("creates");
        std::fs::write(dir.path().join("node-0000000000000000.blob"), "").expect("writes");
        for language in [Language::Node, Language::Python] {
            let own = snapshot_in(language, dir.path());
            assert_eq!(snapshot(language, dir.path()), None);
            std::fs::write(&own, "").expect("writes");
            assert_eq!(snapshot(language, dir.path()), Some(own));
        }
    }
}
