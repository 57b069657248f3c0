//! The bindings of a session: opened when its gateway starts, and followed while it runs.

use std::sync::Arc;

use backend::GatewayHandle;
use model::gateway::{BoundService, Credential};
use protocol::egress::base_url;
use tokio::sync::broadcast::{self, error::RecvError};
use wire::{BindingId, OrgId};

use crate::{BoundError, Inner, bindings::Rotated};

/// What is followed. Holds no secret.
pub(super) struct Services {
    inner: Arc<Inner>,
    org: OrgId,
    held: Vec<BoundService>,
    rotations: broadcast::Receiver<Rotated>,
}

impl Services {
    /// Opens the bindings of a session. The secrets are the caller's to hand over.
    pub(super) async fn open(
        inner: &Arc<Inner>,
        org: OrgId,
        asked: &[String],
    ) -> Result<(Self, Vec<BoundService>), BoundError> {
        // Before the look, so that no change falls between the two.
        let rotations = inner.rotations.subscribe();
        let bound = inner.bound(org, asked).await?;
        let without = |service: &BoundService| BoundService {
            id: service.id,
            spec: service.spec.clone(),
            credential: Credential::default(),
        };
        let held = bound.iter().map(without).collect();
        Ok((Self { inner: Arc::clone(inner), org, held, rotations }, bound))
    }

    /// The environment variables by which the program finds them.
    pub(super) fn env(&self) -> Vec<(String, String)> {
        let variable = |name: &str| {
            let key = format!("ENCLAVE_SVC_{}", name.to_ascii_uppercase().replace('-', "_"));
            (key, base_url(name))
        };
        self.held.iter().map(|service| variable(&service.spec.name)).collect()
    }

    /// Tells the gateway of every secret that is replaced. For ever.
    pub(super) async fn follow(&mut self, gateway: &GatewayHandle) {
        loop {
            let changed = match self.rotations.recv().await {
                Ok(Rotated { org, binding }) if org == self.org => Some(binding),
                Ok(_) => continue,
                // Some notices were missed: any of them may have been ours.
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return std::future::pending().await,
            };
            let concerned = |service: &&BoundService| changed.is_none_or(|binding| binding == service.id);
            for service in self.held.iter().filter(concerned) {
                self.hand_over(service, gateway).await;
            }
        }
    }

    async fn hand_over(&self, service: &BoundService, gateway: &GatewayHandle) {
        let id: BindingId = service.id;
        match self.inner.bound_now(self.org, service).await {
            // A gateway that has ended needs no secret.
            Ok(Some(credential)) => drop(gateway.rotate(id, credential).await),
            Ok(None) => {}
            Err(error) => tracing::error!(binding = %id, %error, "a running session keeps the secret that it had"),
        }
    }
}
