//! Cursors of lists: where a page ended, in the list of one org.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use wire::OrgId;

use crate::StoreError;

/// Bytes of digest in a cursor: enough that no damaged one passes. A forged one would only name another place in the
/// forger's own list.
const DIGEST: usize = 8;

pub(super) fn write(list: &str, org: OrgId, end: &str) -> String {
    let digest = &Sha256::digest(format!("{list} {org} {end}"))[..DIGEST];
    URL_SAFE_NO_PAD.encode([end.as_bytes(), digest].concat())
}

pub(super) fn read(list: &str, org: OrgId, cursor: &str) -> Result<String, StoreError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| StoreError::BadCursor)?;
    let end = bytes.split_last_chunk::<DIGEST>().and_then(|(end, _)| str::from_utf8(end).ok());
    let end = end.ok_or(StoreError::BadCursor)?;
    if write(list, org, end) == cursor { Ok(end.to_owned()) } else { Err(StoreError::BadCursor) }
}
