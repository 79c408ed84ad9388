//! The probe of a target: issue, use, take back, prove dead, with a real credential and everything in the log. A target
//! whose probe failed issues nothing. Owns what the probe asks for; what it means for requests is `credential`'s.

use crate::Authority;
use crate::admin::to_the_end;
use crate::breaker::Admission;
use crate::credential::{ISSUE_TIMEOUT, UNCONFIRMED_SECS, planned};
use crate::error::Error;
use crate::event::{change, encode, hex};
use crate::ports::{Change, Write};
use crate::target::{self, Acceptance, Gravity, Minted, Plan, TargetError};
use crate::targets::{END_TIMEOUT, Health, LISTING_TIMEOUT, TargetState, Turn, in_time};
use domain::{
    AgentId, Grant, GrantState, IntentName, Offer, Param, ParamType, Params, RevokeReason, TargetName, TaskId, Timestamp, Value,
};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Time between two probes of a healthy target.
const EVERY: Duration = Duration::from_secs(3_600);
/// Time until a target that failed is probed again.
const AGAIN: Duration = Duration::from_secs(30);
/// Life of a credential that a probe makes, in seconds; an offer may allow less.
const LIFETIME_SECS: u64 = 900;
/// Who a probe's credentials are for.
const PROBE: &str = "writ-probe";

/// The decision of Writ itself to probe a target.
#[derive(Serialize)]
struct ProbeEvent<'a> {
    at: i64,
    by: &'static str,
    decision: String,
    expires_at: i64,
    grant: String,
    handle: &'a str,
    operation: &'static str,
    outcome: &'static str,
    plan_sha256: String,
    subject: &'a str,
    target: &'a str,
    r#type: &'static str,
}

/// What a probe showed.
struct Shown {
    note: Option<&'static str>,
    lists: bool,
}

/// Why a probe failed.
struct Failed {
    why: String,
    /// Nothing that would create its credential can be under way any more.
    settled: bool,
}

impl From<String> for Failed {
    fn from(why: String) -> Self {
        Self { why, settled: true }
    }
}

impl From<&str> for Failed {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl Authority {
    /// Probes a target now: issue, use, take back, prove dead.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the ledger's if it broke off. A probe that fails is no error but the answer.
    pub async fn probe_target(&self, name: &TargetName) -> Result<Health, Error> {
        let (this, target) = (self.clone(), self.configured(name)?);
        let probed = Arc::clone(&target);
        // What it makes stands at the target: it is taken back, and the answer counts, also if nobody waits for it any more.
        to_the_end(async move {
            let mut turn = probed.turn.lock().await;
            this.probe(&probed, &mut turn).await;
            Ok(())
        })
        .await?;
        Ok(target.health())
    }

    pub(crate) async fn probe_if_due(&self, target: &Arc<TargetState>, turn: &mut Turn) {
        let now = self.0.clock.elapsed();
        let every = if matches!(target.health(), Health::Healthy { .. }) { EVERY } else { AGAIN };
        if turn.probed_at.is_none_or(|at| now.saturating_sub(at) >= every) {
            self.probe(target, turn).await;
        }
    }

    async fn probe(&self, target: &Arc<TargetState>, turn: &mut Turn) {
        let trial = match target.breaker.admit(self.0.clock.elapsed()) {
            Admission::Shut => None,
            admitted => Some(admitted),
        };
        if trial.is_none() {
            return;
        }
        let result = self.try_probe(target).await;
        turn.probed_at = Some(self.0.clock.elapsed());
        let (at, before) = (self.0.clock.now(), target.health());
        let health = match result {
            Ok(Shown { note, lists }) => Health::Healthy { at, note, lists },
            Err(why) => Health::Broken { at, why: why.chars().take(500).collect() },
        };
        if before.as_str() != health.as_str() {
            let name = &target.profile.name;
            match &health {
                Health::Broken { why, .. } => {
                    tracing::error!(target_name = %name, why, "a target failed its probe and issues nothing")
                }
                _ => tracing::info!(target_name = %name, "a target passed its probe"),
            }
        }
        let why = if let Health::Broken { why, .. } = &health { why.as_str() } else { "" };
        let detail = [("health", health.as_str().into()), ("target", target.profile.name.as_str().into()), ("why", why.into())];
        let logged = change("target.probed", "writ", at, detail)
            .and_then(|event| Ok(self.0.ledger.post(Write { events: vec![event], changes: Vec::new() })?));
        if let Err(error) = logged {
            tracing::error!(%error, "a probe could not be logged");
        }
        target.set_health(health);
    }

    async fn try_probe(&self, target: &TargetState) -> Result<Shown, String> {
        let policy = self.policy();
        let offers = policy.target(&target.profile.name).into_iter().flat_map(|target| target.offers.values());
        let Some(plan) = offers.into_iter().find_map(|offer| self.plan_probe(target, offer)) else {
            return self.examined_only(target).await;
        };
        let grant = plan.grant;
        let done = self.use_and_end(target, plan).await;
        if let Err(failed) = &done {
            self.take_back(grant, RevokeReason::Probe, failed.settled).await;
        }
        done.map_err(|failed| failed.why)
    }

    /// What a probe asks for: an offer that can be planned with values that the offer itself allows.
    fn plan_probe(&self, target: &TargetState, offer: &Offer) -> Option<Plan> {
        let now = self.0.clock.now();
        let grant = self.new_grant_id(now);
        let (agent, intent): (AgentId, IntentName) = (PROBE.parse().ok()?, PROBE.parse().ok()?);
        let params = Params(offer.params.iter().map(|(name, param)| (name.clone(), example(param))).collect());
        let asked = target::Asked {
            grant,
            task: TaskId::from_bytes(*grant.as_bytes()),
            agent: &agent,
            intent: &intent,
            offer,
            params: &params,
            verifier: None,
            now,
            expires_at: now.plus_secs(offer.lifetime_secs.min(LIFETIME_SECS)),
            entropy: self.seed(),
        };
        planned(target, &asked).ok()
    }

    /// For a target none of whose offers takes parameters that could be made up here: its account is looked at instead. (A
    /// secret that callers usually make themselves, the probe makes, as Writ does for a caller that sends none.)
    async fn examined_only(&self, target: &TargetState) -> Result<Shown, String> {
        let answer = in_time(END_TIMEOUT, target.driver.examine()).await;
        target.heard(&answer, self.0.clock.elapsed());
        let findings = answer.map_err(|error| error.to_string())?;
        match findings.into_iter().find(|finding| finding.gravity == Gravity::Broken) {
            Some(finding) => Err(format!("{}: {}", finding.check, finding.found)),
            None => Ok(Shown { note: Some("examined only"), lists: false }),
        }
    }

    /// CRASH(probe.logged, probe.issued, probe.used): the probe's grant is a grant like others, and is taken back like others.
    async fn use_and_end(&self, target: &TargetState, plan: Plan) -> Result<Shown, Failed> {
        let grant = plan.grant;
        let minted = self.mint_probe(target, plan).await?;
        let accepted = |acceptance| async move {
            match in_time(END_TIMEOUT, target.driver.try_use(acceptance, END_TIMEOUT)).await {
                Ok(Acceptance::Accepted) => Ok(true),
                Ok(Acceptance::Refused) => Ok(false),
                Err(error) => Err(Failed::from(error.to_string())),
            }
        };
        if !accepted(&minted).await? {
            return Err("a credential that was just issued is refused".into());
        }
        let listed = in_time(LISTING_TIMEOUT, target.driver.inventory()).await.map_err(|error| error.to_string())?;
        let lists = listed.iter().any(|found| found.grant == grant);
        tracing::trace!(target: "writ::step", at = "probe.used");
        self.take_back(grant, RevokeReason::Probe, true).await;
        if !self.walk_to_the_end(target, grant).await.map_err(|error| error.to_string())? {
            let record = self.0.archive.grant(grant).await.map_err(|error| error.to_string())?;
            let waits = record.is_some_and(|record| record.grant.state == GrantState::ResidueCleaned && record.tries == 0);
            return match waits {
                true => Ok(Shown { note: Some("its death is proved later"), lists }),
                false => Err("a credential could not be taken back".into()),
            };
        }
        if accepted(&minted).await? {
            return Err("a credential that was taken back is still accepted".into());
        }
        Ok(Shown { note: None, lists })
    }

    async fn mint_probe(&self, target: &TargetState, plan: Plan) -> Result<Minted, Failed> {
        let now = self.0.clock.now();
        let event = self.probe_event(target, &plan, now).map_err(|error| error.to_string())?;
        let Some((event, record)) = event else { return Err("the probe has no name".into()) };
        let unconfirmed_at = now.plus_secs(UNCONFIRMED_SECS);
        let write = Write { events: vec![event], changes: vec![Change::PutGrant { grant: Box::new(record), unconfirmed_at }] };
        let included = self.include_decision(write).await.map_err(|error| error.to_string())?;
        // Counted beside the others, and beyond their limit: a full target must still be probed.
        target.set_standing_up();
        tracing::trace!(target: "writ::step", at = "probe.logged");
        let shown = self.show_plan(&plan, &included).await.map_err(|error| error.to_string())?;
        let answer = in_time(ISSUE_TIMEOUT, target.driver.issue(&plan, &shown)).await;
        target.heard(&answer, self.0.clock.elapsed());
        // Whether something exists is not known after a silence, or comes to be: a refusal is an answer.
        let unknown = |error: &TargetError| matches!(error, TargetError::Unreachable(_));
        let minted = answer.map_err(|error| Failed { settled: !unknown(&error), why: error.to_string() })?;
        self.anchored(&included).await.map_err(|error| error.to_string())?;
        tracing::trace!(target: "writ::step", at = "probe.issued");
        let sealed = minted.to_revoke.as_ref().map(|secret| self.0.wrapping.seal_secret(plan.grant, secret, &*self.0.entropy));
        let sealed = sealed.transpose().map_err(|error| error.to_string())?;
        let changes = vec![Change::GrantIssued { grant: plan.grant, at: self.0.clock.now(), sealed }];
        self.0.ledger.commit(Write { events: Vec::new(), changes }).await.map_err(|error| error.to_string())?;
        Ok(minted)
    }

    fn probe_event(&self, target: &TargetState, plan: &Plan, now: Timestamp) -> Result<Option<(Vec<u8>, Grant)>, Error> {
        let decision = self.new_decision_id(now);
        let Ok(agent) = PROBE.parse() else { return Ok(None) };
        let event = encode(&ProbeEvent {
            at: now.millis(),
            by: "writ",
            decision: decision.to_string(),
            expires_at: plan.expires_at.millis(),
            grant: plan.grant.to_string(),
            handle: &plan.handle,
            operation: "credential.probe",
            outcome: "allow",
            plan_sha256: hex(&plan.digest()),
            subject: plan.offer.as_str(),
            target: target.profile.name.as_str(),
            r#type: "decision",
        })?;
        let record = Grant {
            id: plan.grant,
            task: TaskId::from_bytes(*plan.grant.as_bytes()),
            agent,
            target: target.profile.name.clone(),
            offer: plan.offer.clone(),
            decision,
            handle: plan.handle.clone(),
            granted_at: now,
            expires_at: plan.expires_at,
            state: GrantState::Intended,
            revoked_at: None,
        };
        Ok(Some((event, record)))
    }
}

/// A value that the parameter allows.
fn example(param: &Param) -> Value {
    let text = || param.one_of.first().cloned().unwrap_or_else(|| "probe".to_owned());
    match (&param.default, param.kind) {
        (Some(value), _) => value.clone(),
        (None, ParamType::Text) => Value::Text(text()),
        (None, ParamType::Long) => Value::Long(param.min.or(param.max).unwrap_or(0)),
        (None, ParamType::Bool) => Value::Bool(false),
        (None, ParamType::Texts) => Value::Texts([text()].into()),
    }
}
