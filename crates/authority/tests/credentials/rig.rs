//! Two targets, a world, and what the tests do with them. Owns no claim: those are in the files beside it.

use authority::ports::{GrantQuery, GrantRecord};
use authority::{Actor, Caller, CredentialError, CredentialRequest, Issued, IssuedCredential};
use domain::{EndReason, GrantState};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use testkit::{FakeTarget, ManualClock, MemoryLedger, World, agent, configured, credential_files, task_request};

pub(crate) struct Rig {
    pub(crate) world: World,
    pub(crate) orders: Arc<FakeTarget>,
    pub(crate) other: Arc<FakeTarget>,
}

impl Rig {
    /// A world whose targets have passed their first probe.
    pub(crate) async fn new() -> Self {
        let rig = Self::unprobed(Default::default(), Default::default(), Default::default()).await;
        rig.world.authority.run_credentials().await;
        rig
    }

    pub(crate) async fn unprobed(
        (orders, other): (Arc<FakeTarget>, Arc<FakeTarget>),
        clock: Arc<ManualClock>,
        ledger: Arc<MemoryLedger>,
    ) -> Self {
        let targets = vec![configured("orders-db", &orders), configured("other-db", &other)];
        let agents = vec![agent("bot", &["fix-orders"]), agent("friend", &["fix-orders"])];
        let world = World::over(&credential_files(), agents, Vec::new(), targets, (clock, ledger)).await;
        Self { world, orders, other }
    }

    /// The same after a crash: nothing of memory is left.
    pub(crate) async fn restarted(&self) -> Self {
        let fakes = (Arc::clone(&self.orders), Arc::clone(&self.other));
        Self::unprobed(fakes, Arc::clone(&self.world.clock), Arc::clone(&self.world.ledger)).await
    }

    /// A task of `bot` for region `eu`.
    pub(crate) async fn task(&self) -> (Issued, Caller) {
        self.task_of("bot").await
    }

    pub(crate) async fn task_of(&self, name: &str) -> (Issued, Caller) {
        let issued = self.world.issue(name, task_request("fix-orders", json!({ "region": "eu" }))).await.unwrap();
        let caller = self.world.present_here(&issued).unwrap();
        (issued, caller)
    }

    pub(crate) async fn read_orders(&self, caller: &Caller) -> Result<IssuedCredential, CredentialError> {
        self.world.authority.request_credential(caller, ask("orders-db/read_orders", json!({ "region": "eu" }))).await
    }

    pub(crate) async fn read_other(&self, caller: &Caller) -> Result<IssuedCredential, CredentialError> {
        self.world.authority.request_credential(caller, ask("other-db/read", json!({}))).await
    }

    pub(crate) async fn end(&self, caller: &Caller) {
        self.world.authority.end_task(caller.task(), &Actor::Operator("test".into()), EndReason::Revoked).await.unwrap();
    }

    /// Lets so many seconds pass, with a round of the workers in each.
    pub(crate) async fn live_on(&self, secs: u64) {
        for _ in 0..secs {
            self.world.clock.advance_secs(1);
            self.world.authority.run_credentials().await;
        }
    }

    pub(crate) async fn grants(&self) -> Vec<GrantRecord> {
        let query = GrantQuery { limit: 100_000, ..GrantQuery::default() };
        let grants = self.world.authority.credentials(query).await.unwrap();
        grants.into_iter().filter(|record| record.grant.agent.as_str() != "writ-probe").collect()
    }

    pub(crate) async fn only_grant(&self) -> GrantRecord {
        let mut grants = self.grants().await;
        assert_eq!(grants.len(), 1, "{grants:#?}");
        grants.remove(0)
    }

    pub(crate) async fn all_dead(&self) -> bool {
        let query = GrantQuery { standing_only: true, limit: 1, ..GrantQuery::default() };
        self.world.authority.credentials(query).await.unwrap().is_empty()
            && self.grants().await.iter().all(|record| record.grant.state == GrantState::VerifiedDead)
    }

    pub(crate) fn events(&self, kind: &str) -> Vec<Value> {
        self.world.ledger.events().into_iter().filter(|event| event["type"] == kind).collect()
    }

    /// Decisions about credentials of tasks.
    pub(crate) fn decisions(&self) -> Vec<Value> {
        let decisions = self.events("decision").into_iter();
        decisions.filter(|event| event["operation"] == "credential.issue").collect()
    }
}

pub(crate) fn ask(offer: &str, params: Value) -> CredentialRequest {
    let (target, offer) = offer.split_once('/').unwrap();
    let Value::Object(params) = params else { panic!("parameters are an object") };
    let params: Map<String, Value> = params;
    CredentialRequest {
        target: target.parse().unwrap(),
        offer: offer.parse().unwrap(),
        params,
        lifetime_secs: None,
        verifier: None,
    }
}

/// Polls everything else until `so`.
pub(crate) async fn until(so: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to be");
}
