//! The routes of artifacts.

use bytes::Bytes;
use futures::Stream;
use reqwest::Method;
use wire::{ArtifactPage, SessionId};

use crate::{
    Client, ClientError,
    call::{pieces, transport},
};

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
        let url = self.below(&["v1", "sessions", &id.to_string(), "artifacts"], path)?;
        pieces(self.http.get(url).send().await.map_err(transport)?).await
    }
}
