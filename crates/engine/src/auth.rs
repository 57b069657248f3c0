//! API keys: issuing, checking, revoking. Only a keyed hash of a secret is ever stored.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use model::{
    access::{Caller, Subject},
    audit::Draft,
};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde_json::json;
use sha2::Sha256;
use store::{KeyRecord, Org, Store, StoreError};
use subtle::ConstantTimeEq;
use uuid::Uuid;
use wire::{AuditSource, AuditType, KeyId, OrgId, Role, Scope, Timestamp};

use crate::{AuthError, Clock, Engine, Ids, KeyError};

const PREFIX: &str = "ek_";
const SECRET_BYTES: usize = 32;

/// The deployment's own key under which key secrets are hashed, so that the database alone does not let anybody check a
/// guess. 32 random bytes in the data directory.
#[derive(Clone)]
pub struct Pepper(Arc<SecretBox<[u8; 32]>>);

impl Pepper {
    /// Takes the bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Arc::new(SecretBox::new(Box::new(bytes))))
    }

    fn hash(&self, secret: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose_secret()).expect("HMAC takes keys of any length");
        mac.update(secret.as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(..)")
    }
}

/// A key just made: the only time that its secret is seen.
#[derive(Debug)]
pub struct IssuedKey {
    /// The key's public id.
    pub id: KeyId,
    /// `ek_<id>_<secret>`: what callers present.
    pub presented: SecretString,
}

/// A key as its org's admins see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySummary {
    /// Its public id.
    pub id: KeyId,
    /// Its org.
    pub org: OrgId,
    /// What its maker called it.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// The scopes to which it was narrowed.
    pub scopes: Option<Vec<Scope>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Engine {
    /// Who presents this; `presented` is the bearer token of the request, if it has one.
    pub async fn authenticate(&self, presented: Option<&str>) -> Result<Caller, AuthError> {
        let inner = &self.inner;
        let Some(presented) = presented else {
            return match inner.dev_org {
                Some(org) => Ok(Caller { org, subject: Subject::Dev, role: Role::Owner, narrowed: None }),
                None => Err(AuthError::Missing),
            };
        };
        let (id, secret) = parse(presented).ok_or(AuthError::Invalid)?;
        let record = inner.store.system().key(id).await?;
        // The hash is computed for unknown ids too: an absent key and a wrong secret take the same time.
        let computed = inner.pepper.hash(secret);
        let record = record.ok_or(AuthError::Invalid)?;
        let matches: bool = computed.as_bytes().ct_eq(record.secret_hash.as_bytes()).into();
        if !matches || record.revoked_at.is_some() {
            return Err(AuthError::Invalid);
        }
        Ok(Caller { org: record.org, subject: Subject::Key(record.id), role: record.role, narrowed: record.scopes })
    }

    /// The org of that name, made if there is none. For the operator at the machine.
    pub async fn ensure_org(&self, name: &str) -> Result<OrgId, StoreError> {
        self.keyring().ensure_org(name).await
    }

    /// Makes a key of `org`.
    pub async fn create_key(
        &self,
        org: OrgId,
        name: &str,
        role: Role,
        scopes: Option<Vec<Scope>>,
        actor: Subject,
    ) -> Result<IssuedKey, KeyError> {
        self.keyring().create(org, name, role, scopes, actor).await
    }

    /// The keys of `org`, newest first.
    pub async fn keys(&self, org: OrgId) -> Result<Vec<KeySummary>, KeyError> {
        self.keyring().list(org).await
    }

    /// Revokes a key of `org`; it stops working at once.
    pub async fn revoke_key(&self, org: OrgId, id: KeyId, actor: Subject) -> Result<(), KeyError> {
        self.keyring().revoke(org, id, actor).await
    }

    fn keyring(&self) -> Keys {
        let inner = &self.inner;
        Keys::new(Arc::clone(&inner.store), inner.pepper.clone(), inner.clock.clone(), inner.ids.clone())
    }
}

/// Orgs and their keys, without the rest of an engine: the operator at the machine manages them whether or not a server
/// runs on the same store.
#[derive(Clone)]
pub struct Keys {
    store: Arc<dyn Store>,
    pepper: Pepper,
    clock: Clock,
    ids: Ids,
}

impl Keys {
    /// Over the store and under the pepper of a deployment.
    pub fn new(store: Arc<dyn Store>, pepper: Pepper, clock: Clock, ids: Ids) -> Self {
        Self { store, pepper, clock, ids }
    }

    /// The org of that name, made if there is none.
    pub async fn ensure_org(&self, name: &str) -> Result<OrgId, StoreError> {
        let candidate = self.ids.org(&self.clock);
        Ok(self.store.system().ensure_org(name, candidate).await?.id)
    }

    /// Every org.
    pub async fn orgs(&self) -> Result<Vec<Org>, StoreError> {
        self.store.system().orgs().await
    }

    /// The org that has this key, revoked or not.
    pub async fn owner(&self, id: KeyId) -> Result<Option<OrgId>, StoreError> {
        Ok(self.store.system().key(id).await?.map(|record| record.org))
    }

    /// Makes a key of `org`.
    pub async fn create(
        &self,
        org: OrgId,
        name: &str,
        role: Role,
        scopes: Option<Vec<Scope>>,
        actor: Subject,
    ) -> Result<IssuedKey, KeyError> {
        let (now, id) = (self.clock.now(), self.ids.key(&self.clock));
        let secret = hex::encode(self.ids.bytes::<SECRET_BYTES>());
        let draft = key_event(now, AuditType::KeyCreated, actor, json!({ "key": id, "role": role, "scopes": scopes }));
        let record = KeyRecord {
            id,
            org,
            name: name.to_owned(),
            role,
            scopes,
            secret_hash: self.pepper.hash(&secret),
            created_at: now,
            revoked_at: None,
        };
        self.store.tenant(org).create_key(record, draft).await?;
        let presented = format!("{PREFIX}{}_{secret}", id.uuid().as_simple()).into();
        Ok(IssuedKey { id, presented })
    }

    /// The keys of `org`, newest first.
    pub async fn list(&self, org: OrgId) -> Result<Vec<KeySummary>, KeyError> {
        let records = self.store.tenant(org).keys().await?;
        let summary = |key: KeyRecord| KeySummary {
            id: key.id,
            org: key.org,
            name: key.name,
            role: key.role,
            scopes: key.scopes,
            created_at: key.created_at,
            revoked_at: key.revoked_at,
        };
        Ok(records.into_iter().map(summary).collect())
    }

    /// Revokes a key of `org`; it stops working at once.
    pub async fn revoke(&self, org: OrgId, id: KeyId, actor: Subject) -> Result<(), KeyError> {
        let draft = key_event(self.clock.now(), AuditType::KeyRevoked, actor, json!({ "key": id }));
        if self.store.tenant(org).revoke_key(id, draft).await? { Ok(()) } else { Err(KeyError::NotFound) }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("pepper", &self.pepper).finish_non_exhaustive()
    }
}

fn key_event(ts: Timestamp, kind: AuditType, actor: Subject, data: serde_json::Value) -> Draft {
    Draft { ts, kind, session_id: None, actor: actor.to_string(), source: AuditSource::Platform, data }
}

fn parse(presented: &str) -> Option<(KeyId, &str)> {
    let (id, secret) = presented.strip_prefix(PREFIX)?.split_once('_')?;
    let hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if id.len() != 32 || secret.len() != SECRET_BYTES * 2 || !hex(id) || !hex(secret) {
        return None;
    }
    Some((KeyId::from_uuid(Uuid::try_parse(id).ok()?), secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_of_a_key_is_read() {
        let id = "01890a5dac96774bbcceb302099a8057";
        let secret = "a".repeat(64);
        assert!(parse(&format!("ek_{id}_{secret}")).is_some());
        for other in [
            format!("EK_{id}_{secret}"),
            format!("ek_{id}_{secret}0"),
            format!("ek_{id}{secret}"),
            format!("ek_{}_{secret}", id.to_uppercase()),
            format!("ek_{id}_{}", "é".repeat(32)),
            "ek__".into(),
            String::new(),
        ] {
            assert!(parse(&other).is_none(), "{other}");
        }
    }

    #[test]
    fn the_hash_depends_on_the_pepper() {
        assert_ne!(Pepper::new([1; 32]).hash("x"), Pepper::new([2; 32]).hash("x"));
    }
}
