//! Calls to a backend: none is waited for without a bound, whatever a backend promises of itself.

use std::{future::Future, io, time::Duration};

use backend::{DestroyError, Observation, ObserveError, Residue, SandboxId, SessionBackend};
use tokio::time::timeout;

use crate::Inner;

impl Inner {
    pub(crate) async fn list(&self, backend: &dyn SessionBackend) -> Result<Vec<SandboxId>, ObserveError> {
        self.in_time("list", backend.list()).await
    }

    pub(crate) async fn kill(&self, backend: &dyn SessionBackend, id: &SandboxId) -> Result<(), ObserveError> {
        self.in_time("kill", backend.kill(id)).await
    }

    pub(crate) async fn observe(
        &self,
        backend: &dyn SessionBackend,
        id: &SandboxId,
    ) -> Result<Observation, ObserveError> {
        self.in_time("observe", backend.observe(id)).await
    }

    pub(crate) async fn destroy(&self, backend: &dyn SessionBackend, id: &SandboxId) -> Result<Residue, DestroyError> {
        let patience = self.patience();
        timeout(patience, backend.destroy(id)).await.unwrap_or(Err(DestroyError::TimedOut(patience)))
    }

    async fn in_time<T>(
        &self,
        step: &'static str,
        call: impl Future<Output = Result<T, ObserveError>>,
    ) -> Result<T, ObserveError> {
        let late = || ObserveError::Unreachable { step, source: io::ErrorKind::TimedOut.into() };
        timeout(self.patience(), call).await.unwrap_or_else(|_| Err(late()))
    }

    fn patience(&self) -> Duration {
        self.config.call_patience
    }
}
