//! Secrets at rest: sealed before they reach the store, opened only on their way to a gateway.
//!
//! Each secret has a random key of its own, which is sealed under the deployment's. A sealed secret is, in this order:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | form, 1 |
//! | 8 | id of the deployment's key: the beginning of a digest of it |
//! | 12, 48 | nonce, and the secret's own key under the deployment's key |
//! | 12, rest | nonce, and the secret under its own key |
//!
//! Both are AES-256-GCM, and both are bound to the org, to what the secret is of, and to the version of the secret: what is
//! put into another row, or back into its row after a rotation, does not open.

use std::{fmt, sync::Arc};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Nonce, Payload},
};
use model::{gateway::Credential, secret};
use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest, Sha256};
use wire::{BindingId, OrgId, TriggerId};

use crate::Ids;

const FORM: u8 = 1;
const KEY: usize = 32;
const KEY_ID: usize = 8;
const NONCE: usize = 12;
const TAG: usize = 16;
const WRAPPED: usize = KEY + TAG;

/// The deployment's key for secrets: it is kept apart from the database.
#[derive(Clone)]
pub struct Vault {
    key: Arc<SecretBox<[u8; KEY]>>,
    id: [u8; KEY_ID],
}

/// Whose secret, and which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) org: OrgId,
    pub(crate) of: Owner,
    pub(crate) version: u64,
}

/// What a secret is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Binding(BindingId),
    /// The org itself: what its webhook messages are signed with.
    Webhooks,
    /// What calls to a trigger are signed with.
    Trigger(TriggerId),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binding(id) => id.fmt(f),
            Self::Webhooks => f.write_str("webhooks"),
            Self::Trigger(id) => id.fmt(f),
        }
    }
}

/// Why a secret cannot be opened. Nothing in it comes from the secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It was sealed under another key than this server has.
    #[error("sealed under the key {found}; this server has the key {own}")]
    OtherKey {
        /// Id of that key.
        found: String,
        /// Id of this server's key.
        own: String,
    },
    /// It has a form that this version does not know.
    #[error("sealed in a form that this version does not know")]
    Form,
    /// It was changed, or belongs to something else or to an earlier secret.
    #[error("the sealed secret was changed, or stands in another's place")]
    Damaged,
}

impl Vault {
    /// Takes the deployment's key.
    pub fn new(key: [u8; KEY]) -> Self {
        let digest = Sha256::digest([b"enclave-secrets-key/1\n".as_slice(), &key].concat());
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&digest[..KEY_ID]);
        Self { key: Arc::new(SecretBox::new(Box::new(key))), id }
    }

    /// What the key is called in messages; tells nothing of it.
    pub fn key_id(&self) -> String {
        hex::encode(self.id)
    }

    pub(crate) fn seal(&self, ids: &Ids, place: Place, credential: &Credential) -> Vec<u8> {
        let own = SecretBox::<[u8; KEY]>::new(Box::new(ids.bytes()));
        let (nonces, mut sealed) = ([ids.bytes::<NONCE>(), ids.bytes::<NONCE>()], vec![FORM]);
        sealed.extend(self.id);
        sealed.extend(nonces[0]);
        sealed.extend(encrypt(self.key.expose_secret(), nonces[0], own.expose_secret(), &place.bound("key", self.id)));
        sealed.extend(nonces[1]);
        let mut plain = written(credential);
        sealed.extend(encrypt(own.expose_secret(), nonces[1], &plain, &place.bound("secret", self.id)));
        secret::wipe(&mut plain);
        sealed
    }

    pub(crate) fn open(&self, place: Place, sealed: &[u8]) -> Result<Credential, UnsealError> {
        let rest = self.holds(sealed)?;
        let (wrap_nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or(UnsealError::Damaged)?;
        let (wrapped, rest) = rest.split_first_chunk::<WRAPPED>().ok_or(UnsealError::Damaged)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE>().ok_or(UnsealError::Damaged)?;
        let mut bytes = decrypt(self.key.expose_secret(), *wrap_nonce, wrapped, &place.bound("key", self.id))?;
        let own = <[u8; KEY]>::try_from(bytes.as_slice()).map(|own| SecretBox::new(Box::new(own)));
        secret::wipe(&mut bytes);
        let own = own.map_err(|_| UnsealError::Damaged)?;
        let mut plain = decrypt(own.expose_secret(), *nonce, body, &place.bound("secret", self.id))?;
        // The parser's message could hold a piece of the secret, and goes nowhere.
        let credential = serde_json::from_slice(&plain).map_err(|_| UnsealError::Damaged);
        secret::wipe(&mut plain);
        credential
    }

    /// Whether this key is the one that it was sealed under; gives what stands behind the key's id.
    pub(crate) fn holds<'s>(&self, sealed: &'s [u8]) -> Result<&'s [u8], UnsealError> {
        let (form, rest) = sealed.split_first().ok_or(UnsealError::Form)?;
        if *form != FORM {
            return Err(UnsealError::Form);
        }
        let (id, rest) = rest.split_first_chunk::<KEY_ID>().ok_or(UnsealError::Damaged)?;
        if *id != self.id {
            return Err(UnsealError::OtherKey { found: hex::encode(id), own: self.key_id() });
        }
        Ok(rest)
    }
}

impl Place {
    /// What a ciphertext is bound to.
    fn bound(self, purpose: &str, key_id: [u8; KEY_ID]) -> Vec<u8> {
        let Self { org, of, version } = self;
        format!("enclave-secret/{FORM}\n{purpose}\n{}\n{org}\n{of}\n{version}", hex::encode(key_id)).into_bytes()
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

/// The credential as JSON, in a buffer that does not grow: each growth would leave a piece of it in freed memory.
fn written(credential: &Credential) -> Vec<u8> {
    let lengths = [Some(&credential.value), credential.client_secret.as_ref(), credential.session_token.as_ref()];
    let bytes: usize = lengths.into_iter().flatten().map(secret::Secret::len).sum();
    // JSON writes a byte as six at most; the names of the fields are shorter than the rest.
    let mut plain = Vec::with_capacity(6 * bytes + 256);
    serde_json::to_writer(&mut plain, credential).expect("a credential has string keys only");
    plain
}

fn encrypt(key: &[u8; KEY], nonce: [u8; NONCE], msg: &[u8], aad: &[u8]) -> Vec<u8> {
    let nonce = Nonce::<Aes256Gcm>::from(nonce);
    Aes256Gcm::new(key.into()).encrypt(&nonce, Payload { msg, aad }).expect("secrets are shorter than 64 GiB")
}

fn decrypt(key: &[u8; KEY], nonce: [u8; NONCE], msg: &[u8], aad: &[u8]) -> Result<Vec<u8>, UnsealError> {
    let nonce = Nonce::<Aes256Gcm>::from(nonce);
    Aes256Gcm::new(key.into()).decrypt(&nonce, Payload { msg, aad }).map_err(|_| UnsealError::Damaged)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn place() -> Place {
        let id = Uuid::from_u128(7);
        Place { org: OrgId::from_uuid(id), of: Owner::Binding(BindingId::from_uuid(id)), version: 3 }
    }

    fn credential() -> Credential {
        let text = |text: &str| text.to_owned().into();
        Credential { value: text("canary-\"ä\"\\"), client_secret: Some(text("client")), session_token: None }
    }

    fn sealed() -> (Vault, Vec<u8>) {
        let vault = Vault::new([5; 32]);
        let sealed = vault.seal(&Ids::from_os(), place(), &credential());
        (vault, sealed)
    }

    #[test]
    fn what_was_sealed_opens_in_its_place() {
        let (vault, sealed) = sealed();
        assert_eq!(vault.open(place(), &sealed), Ok(credential()));
        assert!(!sealed.windows(6).any(|window| window == b"canary" || window == b"client"));
    }

    #[test]
    fn no_two_seals_are_alike() {
        let (vault, first) = sealed();
        let second = vault.seal(&Ids::from_os(), place(), &credential());
        assert_eq!(first[..=KEY_ID], second[..=KEY_ID]);
        let parts = |sealed: &[u8]| {
            let rest = &sealed[1 + KEY_ID..];
            [&rest[..NONCE], &rest[NONCE..NONCE + WRAPPED], &rest[NONCE + WRAPPED..]].map(<[u8]>::to_vec)
        };
        assert!(parts(&first).iter().zip(&parts(&second)).all(|(one, other)| one != other));
    }

    #[test]
    fn it_opens_nowhere_else() {
        let (vault, sealed) = sealed();
        let other = Uuid::from_u128(8);
        for elsewhere in [
            Place { org: OrgId::from_uuid(other), ..place() },
            Place { of: Owner::Binding(BindingId::from_uuid(other)), ..place() },
            Place { of: Owner::Webhooks, ..place() },
            Place { version: 2, ..place() },
        ] {
            assert_eq!(vault.open(elsewhere, &sealed), Err(UnsealError::Damaged), "{elsewhere:?}");
        }
    }

    #[test]
    fn any_change_and_any_cut_is_found() {
        let (vault, sealed) = sealed();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.open(place(), &changed).is_err(), "byte {at}");
            assert!(vault.open(place(), &sealed[..at]).is_err(), "cut at {at}");
        }
        assert!(vault.open(place(), &[sealed.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn another_key_is_named_and_no_key_is_shown() {
        let (vault, sealed) = sealed();
        let other = Vault::new([6; 32]);
        let refused = other.open(place(), &sealed).unwrap_err();
        assert_eq!(refused, UnsealError::OtherKey { found: vault.key_id(), own: other.key_id() });
        let shown = format!("{vault:?} {refused} {refused:?}");
        assert!(!shown.contains("0505") && !shown.contains("5, 5"), "{shown}");
    }
}
