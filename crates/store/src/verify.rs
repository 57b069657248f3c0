//! Verification of an org's audit log, entry by entry, against nothing but the rule that made it.

use model::audit::{Broken, Head};
use wire::OrgId;

use crate::{AuditFilter, Store, StoreError};

/// Entries looked at together.
const PAGE: u32 = 1000;

/// Why a log does not verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An entry is not what was written, or not where.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The entries end elsewhere than the recorded head: the last ones are missing.
    #[error("the log ends at entry {found}, its head says {recorded}")]
    HeadMismatch {
        /// Position of the last entry.
        found: u64,
        /// Position that the head names.
        recorded: u64,
    },
    /// The log could not be read.
    #[error("the log cannot be read")]
    Store(#[from] StoreError),
}

/// Follows the chain from its first entry to its head, which comes back.
pub async fn verify(store: &dyn Store, org: OrgId) -> Result<Head, VerifyError> {
    let tenant = store.tenant(org);
    // Read first: entries that are added meanwhile lie behind it.
    let recorded = tenant.audit_head().await?;
    let mut head = Head::default();
    while head.seq < recorded.seq {
        let page = tenant.audit(AuditFilter { session: None, after_seq: head.seq, limit: PAGE }).await?;
        if page.is_empty() {
            break;
        }
        for event in page.iter().take_while(|event| event.seq <= recorded.seq) {
            head.follow(org, event)?;
        }
        if page.last().is_some_and(|event| event.seq > recorded.seq) {
            break;
        }
    }
    if head != recorded {
        return Err(VerifyError::HeadMismatch { found: head.seq, recorded: recorded.seq });
    }
    Ok(head)
}
