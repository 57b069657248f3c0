//! Operations on files of a session's working directory.

pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod put;

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use wire::{FieldError, SessionId};

use crate::{failure::Failure, state::App};

/// The session's id and the file's path, decoded. Which paths there can be is decided behind this.
#[derive(Clone, Debug)]
pub(crate) struct At {
    pub(crate) id: SessionId,
    pub(crate) path: String,
}

impl FromRequestParts<App> for At {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Ok(Path((id, path))) = Path::<(String, String)>::from_request_parts(parts, app).await else {
            return Err(not_utf8(parts));
        };
        Ok(Self { id: id.parse().map_err(|_| Failure::not_found())?, path })
    }
}

/// The file's path is not UTF-8, unless it is the session's id.
fn not_utf8(parts: &Parts) -> Failure {
    let id = parts.uri.path().split('/').nth(3).unwrap_or_default();
    match id.parse::<SessionId>() {
        Ok(_) => Failure::invalid(vec![FieldError::new("path", "must be UTF-8, percent-encoded")]),
        Err(_) => Failure::not_found(),
    }
}
