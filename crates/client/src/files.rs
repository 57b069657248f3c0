//! The routes of files of a running session.

use std::{
    io::{Read as _, Seek as _},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::Stream;
use reqwest::Method;
use sha2::{Digest as _, Sha256};
use wire::{FilePage, SessionId, StoredFile};

use crate::{
    Client, ClientError, LocalFile,
    call::{Answer, pieces, transport},
};

/// What a file may take on its way in.
const UPLOAD_PATIENCE: Duration = Duration::from_hours(1);
const EXECUTABLE: u32 = 0o755;

/// Which files to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFiles {
    /// A directory below `/workspace`; that itself when absent.
    pub path: Option<String>,
    /// With what is in directories.
    pub recursive: bool,
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
}

impl Client {
    /// `GET /v1/sessions/{id}/files`: a page of the files of a session that runs.
    pub async fn files(&self, id: SessionId, which: &ListFiles) -> Result<FilePage, ClientError> {
        let mut call = self.call(Method::GET, &["v1", "sessions", &id.to_string(), "files"]);
        let mut query = call.url.query_pairs_mut();
        query.append_pair("recursive", if which.recursive { "true" } else { "false" });
        if let Some(path) = &which.path {
            query.append_pair("path", path);
        }
        if let Some(cursor) = &which.cursor {
            query.append_pair("cursor", cursor);
        }
        drop(query);
        self.fetch(&call, "the files").await
    }

    /// `GET /v1/sessions/{id}/files/{path}`: the content, in pieces.
    pub async fn file(
        &self,
        id: SessionId,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Send + use<>, ClientError> {
        pieces(self.http.get(self.file_url(id, path)?).send().await.map_err(transport)?).await
    }

    /// `PUT /v1/sessions/{id}/files/{path}`: writes a file of this machine, with the digest of what it is now.
    pub async fn write_file(&self, id: SessionId, file: &LocalFile) -> Result<StoredFile, ClientError> {
        let unreadable = |source| ClientError::File { path: file.local.clone(), source };
        let local = file.local.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut opened = std::fs::File::open(local)?;
            let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0_u64, vec![0; 64 * 1024]);
            loop {
                match opened.read(&mut buffer)? {
                    0 => break,
                    read => {
                        hash.update(&buffer[..read]);
                        bytes += read as u64;
                    }
                }
            }
            opened.rewind()?;
            Ok((opened, bytes, hash.finalize()))
        });
        let (opened, bytes, digest) =
            opened.await.map_err(|error| unreadable(std::io::Error::other(error)))?.map_err(unreadable)?;
        let mut url = self.file_url(id, &file.path)?;
        if file.executable {
            url.query_pairs_mut().append_pair("mode", &EXECUTABLE.to_string());
        }
        let request = self
            .http
            .put(url)
            .timeout(UPLOAD_PATIENCE)
            .header("Content-Digest", format!("sha-256=:{}:", BASE64_STANDARD.encode(digest)))
            .header(reqwest::header::CONTENT_LENGTH, bytes)
            .body(reqwest::Body::from(tokio::fs::File::from_std(opened)));
        let answer = Answer::of(request.send().await.map_err(transport)?).await?;
        if answer.status.is_success() { answer.read("what was written") } else { Err(answer.refusal()) }
    }

    /// `DELETE /v1/sessions/{id}/files/{path}`: removes a file, a link or an empty directory.
    pub async fn remove_file(&self, id: SessionId, path: &str) -> Result<(), ClientError> {
        let mut call = self.call(Method::DELETE, &[]);
        call.url = self.file_url(id, path)?;
        let answer = self.answer(&call).await?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.refusal()) }
    }

    fn file_url(&self, id: SessionId, path: &str) -> Result<url::Url, ClientError> {
        self.below(&["v1", "sessions", &id.to_string(), "files"], path)
    }
}
