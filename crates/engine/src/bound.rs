//! Bindings by the names that a request gives: what the engine hands to a session's gateway.

use model::{gateway::BoundService, session::Repository};
use wire::{BindingKind, OrgId};

use crate::Inner;

/// Why a binding cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unbound {
    /// There is none of that id or name in the org.
    #[error("there is no binding {0}")]
    Unknown(String),
    /// It cannot add a credential to a clone.
    #[error("binding {0} is not of kind git")]
    OtherKind(String),
    /// The repository is somewhere else than the binding leads to.
    #[error("the repository is not below {upstream}, which is where binding {name} leads to")]
    Elsewhere {
        /// The binding.
        name: String,
        /// Its upstream.
        upstream: String,
    },
}

/// A repository behind a binding.
#[derive(Debug)]
pub(crate) struct BoundRepository {
    /// The binding, with its secret.
    pub(crate) service: BoundService,
    /// The repository's path below the binding's upstream.
    pub(crate) path: String,
}

impl Inner {
    /// The bindings of these ids or names, with their secrets.
    #[expect(clippy::unused_async, reason = "bindings are looked up in the store")]
    pub(crate) async fn bound(&self, _org: OrgId, names: &[String]) -> Result<Vec<BoundService>, Unbound> {
        match names.first() {
            None => Ok(Vec::new()),
            Some(name) => Err(Unbound::Unknown(name.clone())),
        }
    }

    /// The binding that a repository names, if it can add a credential to its clone.
    pub(crate) async fn bound_repository(
        &self,
        org: OrgId,
        repository: &Repository,
    ) -> Result<Option<BoundRepository>, Unbound> {
        let Some(name) = &repository.credential else { return Ok(None) };
        let services = self.bound(org, std::slice::from_ref(name)).await?;
        let service = services.into_iter().next().ok_or_else(|| Unbound::Unknown(name.clone()))?;
        if !matches!(service.spec.kind, BindingKind::Git { .. }) {
            return Err(Unbound::OtherKind(name.clone()));
        }
        let upstream = &service.spec.upstream.url;
        let elsewhere = || Unbound::Elsewhere { name: name.clone(), upstream: upstream.clone() };
        let path = repository.url.below(upstream).ok_or_else(elsewhere)?;
        Ok(Some(BoundRepository { service, path }))
    }
}
