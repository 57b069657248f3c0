//! The key under which the secrets of bindings are sealed: from a file, the environment, a command, or made here.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD},
};
use engine::Vault;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;

use crate::{
    data_dir::{DataDir, DataDirError, MAX_SECRETS_KEY_BYTES, SECRETS_KEY_BYTES},
    settings::SecretsKey,
};

/// How long the command may take: it may have to ask a key store.
const COMMAND_PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretsKeyError {
    #[error("secrets_key_file: cannot read {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("secrets_key_file: {} can be read by every user (mode {mode:o}): run chmod 600 on it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{0}: what is there is no key: it must be 32 bytes, as 64 hex digits or as base64")]
    NotAKey(String),
    #[error("secrets_key_command: it cannot be run")]
    Command(#[source] io::Error),
    #[error("secrets_key_command: it ended with {0}")]
    Failed(ExitStatus),
    #[error("secrets_key_command: it did not end within {} seconds", COMMAND_PATIENCE.as_secs())]
    Slow,
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Gets the key, from where the configuration says.
pub(crate) async fn vault(from: &SecretsKey, dir: &DataDir) -> Result<Vault, SecretsKeyError> {
    let (text, origin) = match from {
        SecretsKey::DataDir => {
            let (text, made) = dir.secrets_key()?;
            let path = dir.secrets_key_path().display().to_string();
            if made {
                tracing::info!(
                    file = path,
                    "made a key for the secrets of bindings; keep a copy apart from the database"
                );
            }
            (text, path)
        }
        SecretsKey::File(path) => (read(path)?, format!("secrets_key_file: {}", path.display())),
        SecretsKey::Given(text) => (text.clone(), "ENCLAVE_SECRETS_KEY".to_owned()),
        SecretsKey::Command(command) => (ask(command).await?, "secrets_key_command".to_owned()),
    };
    parse(text.expose_secret()).map(Vault::new).ok_or(SecretsKeyError::NotAKey(origin))
}

/// 32 bytes, as hex or as base64 of either alphabet.
fn parse(text: &str) -> Option<[u8; SECRETS_KEY_BYTES]> {
    let text = text.trim();
    let bytes = if text.len() == 2 * SECRETS_KEY_BYTES {
        hex::decode(text).ok()?
    } else {
        [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD]
            .iter()
            .find_map(|alphabet| alphabet.decode(text).ok())?
    };
    let bytes = secrecy::SecretSlice::from(bytes);
    bytes.expose_secret().try_into().ok()
}

/// Key files are put into place by orchestrators too: links and readable groups are theirs to decide.
fn read(path: &Path) -> Result<SecretString, SecretsKeyError> {
    let fault = |source| SecretsKeyError::File { path: path.to_owned(), source };
    let file = File::open(path).map_err(fault)?;
    let metadata = file.metadata().map_err(fault)?;
    let mode = metadata.mode() & 0o7777;
    if metadata.is_file() && mode & 0o007 != 0 {
        return Err(SecretsKeyError::Open { path: path.to_owned(), mode });
    }
    let mut text = String::with_capacity(usize::try_from(MAX_SECRETS_KEY_BYTES).unwrap_or_default());
    file.take(MAX_SECRETS_KEY_BYTES).read_to_string(&mut text).map_err(fault)?;
    Ok(text.into())
}

async fn ask(command: &str) -> Result<SecretString, SecretsKeyError> {
    let mut child = tokio::process::Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(SecretsKeyError::Command)?;
    let stdout = child.stdout.take();
    let answer = async {
        let mut text = String::with_capacity(usize::try_from(MAX_SECRETS_KEY_BYTES).unwrap_or_default());
        if let Some(stdout) = stdout {
            stdout.take(MAX_SECRETS_KEY_BYTES).read_to_string(&mut text).await.map_err(SecretsKeyError::Command)?;
        }
        let status = child.wait().await.map_err(SecretsKeyError::Command)?;
        if status.success() { Ok(SecretString::from(text)) } else { Err(SecretsKeyError::Failed(status)) }
    };
    tokio::time::timeout(COMMAND_PATIENCE, answer).await.map_err(|_| SecretsKeyError::Slow)?
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    const HEX: &str = "0101010101010101010101010101010101010101010101010101010101010101";

    async fn id(from: SecretsKey) -> Result<String, SecretsKeyError> {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::prepare(&temp.path().join("d"), false).unwrap();
        vault(&from, &dir).await.map(|vault| vault.key_id())
    }

    #[test]
    fn a_key_is_32_bytes_in_either_spelling() {
        for text in [
            HEX,
            "  0101010101010101010101010101010101010101010101010101010101010101\n",
            "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
            "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE",
        ] {
            assert_eq!(parse(text), Some([1; 32]), "{text}");
        }
        for text in ["", "01", "secret", &HEX[2..], &format!("{HEX}01"), "AQEBAQ==", &"x".repeat(64)] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[tokio::test]
    async fn it_comes_from_a_file_the_environment_or_a_command() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("key");
        fs::write(&path, HEX).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let expected = Vault::new([1; 32]).key_id();
        for from in [
            SecretsKey::File(path.clone()),
            SecretsKey::Given(HEX.into()),
            SecretsKey::Command(format!("printf '%s\\n' {HEX}")),
        ] {
            assert_eq!(id(from).await.unwrap(), expected);
        }
        assert_ne!(id(SecretsKey::DataDir).await.unwrap(), id(SecretsKey::DataDir).await.unwrap());
        fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(id(SecretsKey::File(path)).await, Err(SecretsKeyError::Open { mode: 0o644, .. })));
    }

    #[tokio::test]
    async fn what_is_no_key_is_said_and_not_shown() {
        let missing = id(SecretsKey::File("/nonexistent/key".into())).await.unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/key"), "{missing}");
        let failed = id(SecretsKey::Command("exit 7".into())).await.unwrap_err();
        assert!(failed.to_string().contains('7'), "{failed}");
        let flood = id(SecretsKey::Command("yes canary".into())).await.unwrap_err();
        let wrong = id(SecretsKey::Given("canary".into())).await.unwrap_err();
        for error in [flood, wrong] {
            assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
        }
    }
}
