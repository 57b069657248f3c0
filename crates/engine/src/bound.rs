//! The binding with which a repository is cloned.

use model::{binding::Upstream, gateway::BoundService, session::Repository};
use wire::{BindingKind, OrgId};

use crate::{BoundError, Inner};

/// Why a binding cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unbound {
    /// There is none of that id or name in the org.
    #[error("there is no binding {0}")]
    Unknown(String),
    /// It cannot be opened now.
    #[error(transparent)]
    Failed(#[from] BoundError),
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
    /// The binding that a repository names, if it can add a credential to its clone.
    pub(crate) async fn bound_repository(
        &self,
        org: OrgId,
        repository: &Repository,
    ) -> Result<Option<BoundRepository>, Unbound> {
        let Some(name) = &repository.credential else { return Ok(None) };
        let services = match self.bound(org, std::slice::from_ref(name)).await {
            Err(BoundError::Invalid(_)) => return Err(Unbound::Unknown(name.clone())),
            other => other?,
        };
        let service = services.into_iter().next().ok_or_else(|| Unbound::Unknown(name.clone()))?;
        if !matches!(service.spec.kind, BindingKind::Git { .. }) {
            return Err(Unbound::OtherKind(name.clone()));
        }
        let upstream = &service.spec.upstream.url;
        let elsewhere = || Unbound::Elsewhere { name: name.clone(), upstream: upstream.clone() };
        let path = upstream.parse::<Upstream>().ok().and_then(|upstream| repository.url.below(&upstream));
        let path = path.ok_or_else(elsewhere)?;
        Ok(Some(BoundRepository { service, path }))
    }
}
