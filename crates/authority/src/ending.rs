//! How credentials end: given back, revoked, expired, or with their task. Revoking is a row and takes effect here at once;
//! telling the target is work that never gives up: due grants are read from the store, never remembered, walk the steps
//! of `domain::Ending`, and each step is in the log. A target that is down delays its own grants and nobody else's.

use crate::Authority;
use crate::breaker::Admission;
use crate::caller::Caller;
use crate::credential::UNCONFIRMED_SECS;
use crate::end::Actor;
use crate::error::Error;
use crate::event::change;
use crate::pace;
use crate::ports::{Change, GrantQuery, GrantRecord, Write};
use crate::target::{Evidence, Handle, TargetError};
use crate::targets::{END_TIMEOUT, TargetState, Turn, in_time};
use domain::{Ending, Grant, GrantId, GrantState, RevokeReason, Timestamp};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Due grants that are read at once.
const BATCH_MAX: usize = 64;
/// Most batches of one round: then others of the same target get their turn (its probe, its listing).
const BATCHES_MAX: usize = 256;
/// Longest wait before a failed step is tried again, in milliseconds. Short, because a target must be clean within a minute
/// of its return; the breaker keeps the attempts few while it is away.
const BACKOFF_MILLIS_MAX: u64 = 20_000;
/// Least wait before a failed step is tried again, in milliseconds.
const BACKOFF_MILLIS_MIN: u64 = 250;
/// Grants that are read at once.
const PAGE: usize = 1_000;
/// Longest text of one fact of evidence in the log.
const FACT_CHARS_MAX: usize = 120;
/// Longest time until a target that waits for a native expiry is asked again, in seconds.
const AGAIN_SECS_MAX: u64 = 3_600;

/// What became of one grant in one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walked {
    /// It is dead, and that is in the log.
    Dead,
    /// It will be tried again later, and that is stored.
    Later,
    /// Nothing could be done or stored.
    Stuck,
}

/// What became of several.
#[derive(Debug, Default)]
struct Round {
    /// Something is dead or stored for later.
    moved: bool,
    /// Something is neither.
    stuck: bool,
}

impl Authority {
    /// Takes a credential back for its holder.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the caller's task holds no such grant, or the ledger's or the archive's.
    pub async fn return_credential(&self, caller: &Caller, grant: GrantId) -> Result<(), Error> {
        let held = self.0.archive.grant(grant).await?.filter(|record| record.grant.task == caller.task());
        let record = held.ok_or_else(|| not_found(grant))?;
        let by = Actor::Agent(caller.clone()).name();
        self.revoke(&record.grant, RevokeReason::Returned, &by, false).await
    }

    /// Revokes a credential for an operator.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the ledger's or the archive's.
    pub async fn revoke_credential(&self, grant: GrantId, by: &Actor) -> Result<(), Error> {
        let record = self.0.archive.grant(grant).await?.ok_or_else(|| not_found(grant))?;
        self.revoke(&record.grant, RevokeReason::Operator, &by.name(), false).await
    }

    /// Grants, newest first. What is sealed stays away.
    ///
    /// # Errors
    /// The archive's.
    pub async fn credentials(&self, query: GrantQuery) -> Result<Vec<GrantRecord>, Error> {
        let found = self.0.archive.grants(query).await?;
        Ok(found.into_iter().map(|record| self.shown_grant(record)).collect())
    }

    /// One grant.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the archive's.
    pub async fn credential(&self, grant: GrantId) -> Result<GrantRecord, Error> {
        let record = self.0.archive.grant(grant).await?.ok_or_else(|| not_found(grant))?;
        Ok(self.shown_grant(record))
    }

    fn shown_grant(&self, record: GrantRecord) -> GrantRecord {
        GrantRecord { sealed: None, grant: self.0.credentials.flights.seen(record.grant), ..record }
    }

    /// Resolves when something about credentials may have become due before its time.
    pub async fn credentials_due(&self) {
        self.0.credentials.doorbell.notified().await;
    }

    /// One round of everything that credentials need: probes, taking back, comparing. Each target works by itself, and one
    /// that is still busy with an earlier round is left out: so start a round about once a second and at each
    /// [`Authority::credentials_due`] without waiting for the one before. Resolves when this round is done.
    pub async fn run_credentials(&self) {
        self.forget_dead_grants();
        let mut rounds = JoinSet::new();
        for target in self.0.credentials.targets.load().values() {
            let (this, target) = (self.clone(), Arc::clone(target));
            rounds.spawn(async move {
                let Ok(mut turn) = target.turn.try_lock() else { return };
                this.end_left_over(&target, &mut turn).await;
                this.probe_if_due(&target, &mut turn).await;
                this.end_due(&target).await;
                this.reconcile_if_due(&target, &mut turn).await;
            });
        }
        while let Some(round) = rounds.join_next().await {
            if let Err(error) = round {
                tracing::error!(%error, "a round of a target broke off; the next one goes on");
            }
        }
    }

    async fn revoke(&self, grant: &Grant, reason: RevokeReason, by: &str, settled: bool) -> Result<(), Error> {
        if grant.state == GrantState::VerifiedDead || grant.revoked_at.is_some() && !settled {
            return Ok(());
        }
        let now = self.0.clock.now();
        let event = about(grant, "credential.revoked", by, now, [("reason", reason.as_str().into())])?;
        let changes = vec![Change::RevokeGrant { grant: grant.id, at: now, reason, settled }];
        // Before it is durable: one that is being issued at this moment must not slip through.
        self.0.credentials.flights.revoke(grant.id);
        // CRASH(credential.revoke): it goes on; whoever revoked it was not told otherwise and asks again.
        tracing::trace!(target: "writ::step", at = "credential.revoke");
        self.0.ledger.commit(Write { events: vec![event], changes }).await?;
        // CRASH(credential.revoked): it counts as revoked and is due; the next start takes it back.
        tracing::trace!(target: "writ::step", at = "credential.revoked");
        self.0.credentials.doorbell.notify_one();
        Ok(())
    }

    /// Takes back what was not handed out. If that cannot be stored, the row still says that nobody confirmed it, or that
    /// it expires: it is taken back then.
    pub(crate) async fn take_back(&self, grant: GrantId, reason: RevokeReason, settled: bool) {
        let taken = async {
            let record = self.0.archive.grant(grant).await?.ok_or_else(|| not_found(grant))?;
            self.revoke(&record.grant, reason, "writ", settled).await
        };
        if let Err(error) = taken.await {
            tracing::error!(%error, %grant, "a credential that was not handed out is taken back later");
        }
    }

    /// Works through what is due at a target until nothing is, or the target does not answer. While somebody asks for a
    /// credential anywhere, those that merely expired go a few at a time, with rests.
    pub(crate) async fn end_due(&self, target: &Arc<TargetState>) {
        let pace = &self.0.credentials.pace;
        let mut mark = pace.mark();
        for _ in 0..BATCHES_MAX {
            let admission = target.breaker.admit(self.0.clock.elapsed());
            let (limit, alone) = match &admission {
                Admission::Free => (BATCH_MAX, false),
                Admission::Trial(_) => (1, true),
                Admission::Shut => return,
            };
            let mut due = match self.0.archive.due_grants(&target.profile.name, self.0.clock.now(), limit).await {
                Ok(due) if due.is_empty() => return,
                Ok(due) => due,
                Err(error) => return tracing::error!(%error, "what is due at a target cannot be read; it is read again"),
            };
            // INVARIANT(made-before-ended): a clock that jumps, or a store that stalls, makes a row due while this process is
            // still making what it stands for; taken back now, it would come into being afterwards with a row that says *dead*.
            due.retain(|record| !self.is_under_way(&record.grant));
            let paced = pace.busy_since(&mut mark) && give_way(&mut due);
            let began = self.0.clock.elapsed();
            if !self.walk_all(target, due, alone).await.moved {
                return;
            }
            drop(admission);
            if paced {
                tokio::time::sleep(pace::rest(self.0.clock.elapsed().saturating_sub(began))).await;
            }
        }
    }

    /// Ends, after a start, what an earlier process was about to issue and nobody confirmed: it may exist, and somebody may
    /// have it, whose task may end before the row is due. It stays due when it was, because the target may be making it.
    async fn end_left_over(&self, target: &Arc<TargetState>, turn: &mut Turn) {
        if turn.looked_back || target.breaker.shut_for(self.0.clock.elapsed()).is_some() {
            return;
        }
        match self.left_over(target).await {
            Ok(found) => turn.looked_back = !self.walk_all(target, found, false).await.stuck,
            Err(error) => tracing::error!(%error, "what an earlier process left cannot be read; it is read again"),
        }
    }

    async fn left_over(&self, target: &TargetState) -> Result<Vec<GrantRecord>, Error> {
        let (mut found, mut before) = (Vec::new(), None);
        loop {
            let target = Some(target.profile.name.clone());
            let query = GrantQuery { target, standing_only: true, before, limit: PAGE, ..GrantQuery::default() };
            let page = self.0.archive.grants(query).await?;
            let oldest = page.last().map(|record| (record.grant.id, confirmed_by(&record.grant)));
            let more = page.len() == PAGE && oldest.is_some_and(|(_, by)| by > self.0.clock.now());
            before = oldest.map(|(id, _)| id);
            found.extend(page.into_iter().filter(|record| self.is_left_over(&record.grant)));
            if !more {
                return Ok(found);
            }
        }
    }

    /// Whether another process was about to issue it, and the target may still be making it.
    fn is_left_over(&self, grant: &Grant) -> bool {
        grant.state == GrantState::Intended
            && grant.granted_at < self.0.started_at
            && self.0.clock.now() < confirmed_by(grant)
            && !self.0.credentials.flights.hold(grant.id)
    }

    /// Whether this process is still making it, or recording that it is made.
    fn is_under_way(&self, grant: &Grant) -> bool {
        grant.state == GrantState::Intended && self.0.credentials.flights.hold(grant.id)
    }

    /// Takes all of these as far as they go, at one time.
    async fn walk_all(&self, target: &Arc<TargetState>, due: Vec<GrantRecord>, alone: bool) -> Round {
        let mut walks = JoinSet::new();
        for record in due {
            let (this, target) = (self.clone(), Arc::clone(target));
            walks.spawn(async move { this.walk(&target, record, alone).await });
        }
        let mut round = Round::default();
        while let Some(walked) = walks.join_next().await {
            match walked {
                Ok(Walked::Dead | Walked::Later) => round.moved = true,
                Ok(Walked::Stuck) => round.stuck = true,
                Err(error) => {
                    // A driver that panics is a driver that failed; the grant stays due.
                    tracing::error!(%error, "taking a credential back broke off");
                    round.stuck = true;
                }
            }
        }
        round
    }

    /// Takes one grant as far as it goes. `alone`: it is the one attempt that a half-open breaker let through.
    ///
    /// CRASH(credential.step, credential.stepped): between two steps, or after a step and before its record: the step is done
    /// again; each one is idempotent.
    async fn walk(&self, target: &TargetState, mut record: GrantRecord, alone: bool) -> Walked {
        let to_revoke = self.unsealed(&record);
        // Its row keeps its state, and the proof of death waits until nothing can be under way any more.
        let left_over = self.is_left_over(&record.grant);
        if record.grant.revoked_at.is_none() && self.log_reason(&mut record).is_err() {
            return Walked::Stuck;
        }
        // A proof of death that failed starts from the beginning: something may have been made after it was taken away.
        let again = record.tries > 0 && record.grant.state == GrantState::ResidueCleaned;
        let mut at = if again { GrantState::Issued } else { record.grant.state };
        while let Some(step) = at.next_ending() {
            if left_over && step == Ending::Verify {
                return self.try_at(record.grant.id, confirmed_by(&record.grant), 0).await;
            }
            if !alone && target.breaker.shut_for(self.0.clock.elapsed()).is_some() {
                return Walked::Stuck;
            }
            let handle = Handle {
                grant: record.grant.id,
                offer: &record.grant.offer,
                handle: &record.grant.handle,
                expires_at: record.grant.expires_at,
                to_revoke: to_revoke.as_ref(),
            };
            tracing::trace!(target: "writ::step", at = "credential.step");
            let answer = self.end_step(target, step, &handle).await;
            tracing::trace!(target: "writ::step", at = "credential.stepped");
            let evidence = match answer {
                Ok(evidence) => evidence,
                Err(error) => return self.postpone(&record, step, &error).await,
            };
            if let Some(again_at) = evidence.again_at.filter(|_| step == Ending::Verify) {
                return self.ask_again(&record, again_at).await;
            }
            at = step.reaches();
            if at <= record.grant.state {
                continue;
            }
            let waits = step == Ending::Clean && evidence.again_at.is_some() && !left_over;
            match self.record_step(&record, step, &evidence, !left_over).await {
                Ok(()) if waits => return Walked::Later,
                Ok(()) => {}
                Err(_) => return Walked::Stuck,
            }
        }
        // CRASH(credential.dead): it is dead, and that is in the log.
        tracing::trace!(target: "writ::step", at = "credential.dead");
        let ended_at = record.grant.revoked_at.map_or(record.grant.expires_at, |at| at.min(record.grant.expires_at));
        let millis = self.0.clock.now().millis().saturating_sub(ended_at.millis());
        target.ended_after(Duration::from_millis(u64::try_from(millis).unwrap_or(0)));
        target.give_place();
        Walked::Dead
    }

    /// Takes a grant back from beginning to end, for the probe. Says whether it is proved dead.
    pub(crate) async fn walk_to_the_end(&self, target: &TargetState, grant: GrantId) -> Result<bool, Error> {
        let record = self.0.archive.grant(grant).await?.ok_or_else(|| not_found(grant))?;
        Ok(self.walk(target, record, true).await == Walked::Dead)
    }

    /// One step at the target, within its budget and in time.
    pub(crate) async fn end_step(
        &self,
        target: &TargetState,
        step: Ending,
        handle: &Handle<'_>,
    ) -> Result<Evidence, TargetError> {
        let replaced = |_| TargetError::Refused("the target is being replaced".into());
        let _place = target.end_budget.acquire().await.map_err(replaced)?;
        let answer = in_time(END_TIMEOUT, target.driver.end(step, handle)).await;
        target.heard(&answer, self.0.clock.elapsed());
        answer
    }

    /// Why a grant that nobody revoked is due: its time is over, or nobody confirmed it.
    fn log_reason(&self, record: &mut GrantRecord) -> Result<(), Error> {
        let now = self.0.clock.now();
        let unconfirmed = record.grant.state == GrantState::Intended;
        let reason = if unconfirmed { RevokeReason::NotHandedOut } else { RevokeReason::Expired };
        let event = about(&record.grant, "credential.revoked", "writ", now, [("reason", reason.as_str().into())])?;
        let changes = vec![Change::RevokeGrant { grant: record.grant.id, at: now, reason, settled: true }];
        // Not waited for: the steps that follow are recorded after it, and imply it.
        self.0.ledger.post(Write { events: vec![event], changes })?;
        record.grant.revoked_at = Some(now);
        record.reason = Some(reason.as_str().to_owned());
        Ok(())
    }

    /// Logs a step, and stores it if it counts.
    async fn record_step(&self, record: &GrantRecord, step: Ending, evidence: &Evidence, counts: bool) -> Result<(), Error> {
        let now = self.0.clock.now();
        let state = step.reaches();
        let detail = [
            ("evidence", shown(evidence)),
            ("reason", record.reason.as_deref().unwrap_or_default().into()),
            ("state", state.as_str().into()),
            ("step", step.as_str().into()),
        ];
        let event = about(&record.grant, "credential.step", "writ", now, detail)?;
        let grant = record.grant.id;
        let mut changes: Vec<_> = counts.then_some(Change::GrantStep { grant, state, at: now }).into_iter().collect();
        // With the step: a proof of death that was asked for too early would be none.
        let proof_at = evidence.again_at.filter(|_| counts && step == Ending::Clean).map(|at| again_at(now, at));
        changes.extend(proof_at.map(|try_at| Change::GrantRetry { grant, try_at, tries: 0 }));
        let write = Write { events: vec![event], changes };
        // Only the last one, before the end or a pause, is waited for: a lost record of an earlier step means that the step
        // is done again.
        let written = match state {
            GrantState::VerifiedDead => self.0.ledger.commit(write).await.map(drop),
            _ if proof_at.is_some() => self.0.ledger.commit(write).await.map(drop),
            _ => self.0.ledger.post(write),
        };
        written.inspect_err(
            |error| tracing::error!(%error, grant = %record.grant.id, "a step could not be recorded; it is done again"),
        )?;
        Ok(())
    }

    /// Stores when the next attempt is: exponential, full jitter, for ever.
    async fn postpone(&self, record: &GrantRecord, step: Ending, error: &TargetError) -> Walked {
        let tries = record.tries.saturating_add(1);
        let mut random = [0; 8];
        self.0.entropy.fill(&mut random);
        let most = 1_000_u64.checked_shl(record.tries.min(16)).unwrap_or(BACKOFF_MILLIS_MAX).min(BACKOFF_MILLIS_MAX);
        let wait = BACKOFF_MILLIS_MIN + u64::from_le_bytes(random) % most;
        let at = self.0.clock.now().millis().saturating_add(i64::try_from(wait).unwrap_or(i64::MAX));
        tracing::warn!(%error, grant = %record.grant.id, step = step.as_str(), tries, "a credential could not be taken back yet");
        self.try_at(record.grant.id, Timestamp::from_millis(at), tries).await
    }

    /// The target can only wait for its native expiry.
    async fn ask_again(&self, record: &GrantRecord, at: Timestamp) -> Walked {
        self.try_at(record.grant.id, again_at(self.0.clock.now(), at), 0).await
    }

    async fn try_at(&self, grant: GrantId, try_at: Timestamp, tries: u32) -> Walked {
        let changes = vec![Change::GrantRetry { grant, try_at, tries }];
        match self.0.ledger.commit(Write { events: Vec::new(), changes }).await {
            Ok(_) => Walked::Later,
            Err(_) => Walked::Stuck,
        }
    }

    fn unsealed(&self, record: &GrantRecord) -> Option<secrecy::SecretString> {
        let sealed = record.sealed.as_ref()?;
        let opened = self.0.wrapping.open_secret(record.grant.id, sealed);
        opened.inspect_err(|error| tracing::error!(%error, grant = %record.grant.id, "what revokes a credential cannot be read; it dies by its expiry")).ok()
    }
}

/// The instant that a target wants to be asked again at, within bounds.
fn again_at(now: Timestamp, at: Timestamp) -> Timestamp {
    at.clamp(now.plus_secs(1), now.plus_secs(AGAIN_SECS_MAX))
}

/// When an attempt to issue it cannot be under way any more, at the target's side either.
fn confirmed_by(grant: &Grant) -> Timestamp {
    grant.granted_at.plus_secs(UNCONFIRMED_SECS)
}

/// Leaves only a few of those that nobody revoked; the others stay due. Says whether any of them are here.
fn give_way(due: &mut Vec<GrantRecord>) -> bool {
    let mut expired = 0;
    due.retain(|record| {
        expired += usize::from(record.grant.revoked_at.is_none());
        record.grant.revoked_at.is_some() || expired <= pace::EXPIRED_MAX
    });
    expired > 0
}

/// An event about a grant.
pub(crate) fn about<'a>(
    grant: &'a Grant,
    kind: &'a str,
    by: &'a str,
    at: Timestamp,
    more: impl IntoIterator<Item = (&'a str, Value)>,
) -> Result<Vec<u8>, Error> {
    let detail = [
        ("agent", grant.agent.as_str().into()),
        ("grant", grant.id.to_string().into()),
        ("handle", grant.handle.as_str().into()),
        ("offer", grant.offer.as_str().into()),
        ("target", grant.target.as_str().into()),
        ("task", grant.task.to_string().into()),
    ];
    change(kind, by, at, detail.into_iter().chain(more))
}

/// Evidence for the log, cut to what a fact may be.
pub(crate) fn shown(evidence: &Evidence) -> Value {
    let cut = |text: &String| Value::from(text.chars().take(FACT_CHARS_MAX).collect::<String>());
    Value::Object(evidence.facts.iter().map(|(name, text)| ((*name).to_owned(), cut(text))).collect())
}

fn not_found(grant: GrantId) -> Error {
    Error::NotFound { what: "credential", name: grant.to_string() }
}
