//! The routes of artifacts.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, stream};
use reqwest::Method;
use tokio::time::timeout;
use wire::{ArtifactPage, SessionId};

use crate::{
    Client, ClientError,
    call::{Answer, transport},
};

/// How long the next piece of a content may take.
const PIECE_PATIENCE: Duration = Duration::from_mins(1);

impl Client {
    /// `GET /v1/sessions/{id}/artifacts`: what the session left and is kept.
    pub async fn artifacts(&self, id: SessionId) -> Result<ArtifactPage, ClientError> {
        let call = self.call(Method::GET, &["v1", "sessions", &id.to_string(), "artifacts"]);
        self.fetch(&call, "the artifacts").await
    }

    /// `GET /v1/sessions/{id}/artifacts/{path}`: the content, in pieces. Whoever wants to be sure of it compares its digest.
    pub async fn artifact(
        &self,
        id: SessionId,
        path: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, ClientError>> + Send + use<>, ClientError> {
        let id = id.to_string();
        let segments: Vec<_> = ["v1", "sessions", &id, "artifacts"].into_iter().chain(path.split('/')).collect();
        let response = self.http.get(self.url(&segments)).send().await.map_err(transport)?;
        if !response.status().is_success() {
            return Err(Answer::of(response).await?.refusal());
        }
        Ok(stream::try_unfold(response, |mut response| async move {
            let piece = timeout(PIECE_PATIENCE, response.chunk()).await;
            let piece = piece.map_err(|_| ClientError::StreamLost { tries: 1, source: None })?.map_err(transport)?;
            Ok(piece.map(|piece| (piece, response)))
        }))
    }
}
