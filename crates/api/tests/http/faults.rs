//! A server in trouble: what it says, and what it does not.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::body::Body;
use backend::simulator::Step;
use http::Method;
use store::{
    Claim, Claimed, DueTrigger, Org, Store, StoreError, System, Tenant, TriggerRecord, Unfinished, WaitingFiring,
};
use wire::{KeyId, OrgId, SessionId, Timestamp, TriggerId};

use crate::harness::{Builder, request};

/// A store that panics when it is asked whether it lives, and has forgotten how to read keys.
struct Broken(Arc<dyn Store>);

struct BrokenSystem(Arc<dyn System>);

#[async_trait]
impl Store for Broken {
    fn tenant(&self, org: OrgId) -> Arc<dyn Tenant> {
        self.0.tenant(org)
    }

    fn system(&self) -> Arc<dyn System> {
        Arc::new(BrokenSystem(self.0.system()))
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait]
impl System for BrokenSystem {
    async fn unfinished(&self) -> Result<Vec<Unfinished>, StoreError> {
        self.0.unfinished().await
    }

    async fn unfinished_fleets(&self) -> Result<Vec<wire::Fleet>, StoreError> {
        self.0.unfinished_fleets().await
    }

    async fn key(&self, _id: KeyId) -> Result<Option<store::KeyRecord>, StoreError> {
        Err(StoreError::Closed)
    }

    async fn ensure_org(&self, name: &str, candidate: OrgId) -> Result<Org, StoreError> {
        self.0.ensure_org(name, candidate).await
    }

    async fn orgs(&self) -> Result<Vec<Org>, StoreError> {
        self.0.orgs().await
    }

    async fn forget(&self, old: store::Old) -> Result<u64, StoreError> {
        self.0.forget(old).await
    }

    async fn sealed(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.0.sealed().await
    }

    async fn trigger(&self, id: TriggerId) -> Result<Option<TriggerRecord>, StoreError> {
        self.0.trigger(id).await
    }

    async fn due_triggers(&self, now: Timestamp, limit: u32) -> Result<Vec<DueTrigger>, StoreError> {
        self.0.due_triggers(now, limit).await
    }

    async fn next_trigger(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.0.next_trigger(after).await
    }

    async fn waiting_firings(&self, limit: u32) -> Result<Vec<WaitingFiring>, StoreError> {
        self.0.waiting_firings(limit).await
    }

    async fn claim_deliveries(&self, claim: Claim) -> Result<Vec<Claimed>, StoreError> {
        self.0.claim_deliveries(claim).await
    }

    async fn next_delivery(&self, after: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        self.0.next_delivery(after).await
    }

    async fn surplus_artifacts(
        &self,
        before: Timestamp,
        quota_bytes: u64,
    ) -> Result<Vec<(OrgId, SessionId)>, StoreError> {
        self.0.surplus_artifacts(before, quota_bytes).await
    }

    async fn has_artifacts(&self, session: SessionId) -> Result<bool, StoreError> {
        self.0.has_artifacts(session).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        panic!("the secret of the panic")
    }
}

fn broken() -> Builder {
    Builder { wrap: |store| Arc::new(Broken(store)), ..Builder::default() }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_that_says_nothing() {
    let api = broken().start().await;
    for _ in 0..2 {
        let answer = api.send(request(Method::GET, "/readyz", None, Body::empty())).await;
        assert_eq!(answer.status, 500);
        answer.problem("internal");
        assert!(!String::from_utf8_lossy(&answer.bytes).contains("secret"));
    }
}

#[tokio::test]
async fn a_store_that_fails_is_unavailable_and_its_error_stays_inside() {
    let api = broken().start().await;
    let key = api.owner().await;
    let answer = api.get(&key, "/v1/sessions").await;
    assert_eq!(answer.status, 503);
    let problem = answer.problem("unavailable");
    assert!(!problem.to_string().contains("closed"), "{problem}");
}

#[tokio::test]
async fn what_takes_too_long_is_a_timeout() {
    let api =
        Builder::default().settings(|settings| settings.request_timeout = Duration::from_millis(50)).start().await;
    api.failures.hang_next(Step::List);
    let answer = api.send(request(Method::GET, "/readyz", None, Body::empty())).await;
    assert_eq!(answer.status, 503);
    answer.problem("timeout");
    let next = api.send(request(Method::GET, "/readyz", None, Body::empty())).await;
    assert_eq!(next.status, 200, "one request that hangs does not hold up the next");
}

#[tokio::test]
async fn a_long_poll_may_take_longer_than_other_requests() {
    let api =
        Builder::default().settings(|settings| settings.request_timeout = Duration::from_millis(200)).start().await;
    let key = api.owner().await;
    let id = api.session(&key, &["sleep 500ms", "exit 0"]).await;
    let answer = api.get(&key, &format!("/v1/sessions/{id}/result?waitMs=10000")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}
