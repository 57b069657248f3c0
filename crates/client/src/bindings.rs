//! The routes of bindings. What carries a secret is written once and never shown; no answer has one.

use reqwest::Method;
use wire::{Binding, BindingId, BindingPage, BindingSecret, CreateBinding, UpdateBinding};

use crate::{Client, ClientError, Retry};

/// Which bindings to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListBindings {
    /// `nextCursor` of the page before.
    pub cursor: Option<String>,
    /// How many at most; the server's default when absent.
    pub limit: Option<u32>,
    /// Only the one of this name.
    pub name: Option<String>,
}

impl Client {
    /// `POST /v1/bindings`. Never repeated: a second try would meet the binding that the first one made.
    pub async fn create_binding(&self, request: &CreateBinding) -> Result<Binding, ClientError> {
        let mut call = self.call(Method::POST, &["v1", "bindings"]).with_body(request)?;
        call.retry = Retry::NEVER;
        self.fetch(&call, "the binding").await
    }

    /// `GET /v1/bindings`: a page of bindings, by name.
    pub async fn bindings(&self, which: &ListBindings) -> Result<BindingPage, ClientError> {
        let mut call = self.call(Method::GET, &["v1", "bindings"]);
        let limit = which.limit.map(|limit| limit.to_string());
        for (name, value) in [("cursor", &which.cursor), ("limit", &limit), ("name", &which.name)] {
            if let Some(value) = value {
                call.url.query_pairs_mut().append_pair(name, value);
            }
        }
        self.fetch(&call, "the bindings").await
    }

    /// `GET /v1/bindings/{id}`: the binding.
    pub async fn binding(&self, id: BindingId) -> Result<Binding, ClientError> {
        self.fetch(&self.call(Method::GET, &path(&id.to_string())), "the binding").await
    }

    /// `PATCH /v1/bindings/{id}`: changes what is given of it.
    pub async fn update_binding(&self, id: BindingId, change: &UpdateBinding) -> Result<Binding, ClientError> {
        let call = self.call(Method::PATCH, &path(&id.to_string())).with_body(change)?;
        self.fetch(&call, "the binding").await
    }

    /// `PUT /v1/bindings/{id}/secret`: replaces its secret.
    pub async fn rotate_binding(&self, id: BindingId, secret: &BindingSecret) -> Result<Binding, ClientError> {
        let id = id.to_string();
        let call = self.call(Method::PUT, &["v1", "bindings", &id, "secret"]).with_body(secret)?;
        self.fetch(&call, "the binding").await
    }

    /// `DELETE /v1/bindings/{id}`: deletes it and its secret, and gives what it was. Never repeated: a second try would
    /// not find it.
    pub async fn delete_binding(&self, id: BindingId) -> Result<Binding, ClientError> {
        let mut call = self.call(Method::DELETE, &path(&id.to_string()));
        call.retry = Retry::NEVER;
        self.fetch(&call, "the binding").await
    }
}

fn path(id: &str) -> [&str; 3] {
    ["v1", "bindings", id]
}
