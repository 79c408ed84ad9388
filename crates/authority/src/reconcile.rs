//! Compares what stands at a target with what stands in the store, both ways. What bears our mark and has no live grant is
//! taken back; a grant whose credential is gone is closed. Nothing without our mark is ever touched: the listing holds only
//! what bears it, and a name that is not made of its grant is left alone all the same.

use crate::Authority;
use crate::ending::{about, shown};
use crate::error::Error;
use crate::event::{change, hex};
use crate::ports::{Change, GrantQuery, LogEntry, LogQuery, Write};
use crate::target::{Found, Handle};
use crate::targets::{Health, LISTING_TIMEOUT, TargetState, Turn, in_time, standing_at};
use domain::{Ending, GrantId, GrantState, OfferName, RevokeReason, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Time between two comparisons.
const EVERY: Duration = Duration::from_secs(600);
/// Time until a comparison that failed is made again.
const AGAIN: Duration = Duration::from_secs(30);
/// Seconds before something without a live grant is taken back: longer than any issue can be under way.
const GRACE_SECS: u64 = 300;
/// Most orphans that one comparison takes back; the next one goes on.
const ORPHANS_MAX: usize = 1_000;
/// Grants that are read at once.
const PAGE: usize = 1_000;
/// The entries of an orphan.
const BEGUN: &str = "credential.orphan";
const ENDED: &str = "credential.orphan_ended";
/// The offer of something that no grant tells of.
const UNKNOWN: &str = "unknown";

impl Authority {
    pub(crate) async fn reconcile_if_due(&self, target: &TargetState, turn: &mut Turn) {
        let now = self.0.clock.elapsed();
        if turn.reconciled_at.is_some_and(|at| now.saturating_sub(at) < EVERY) || target.breaker.shut_for(now).is_some() {
            return;
        }
        turn.reconciled_at = Some(match self.reconcile(target, &mut turn.stuck).await {
            Ok(()) => now,
            Err(error) => {
                tracing::warn!(%error, target_name = %target.profile.name, "a target could not be compared with its grants");
                (now + AGAIN).saturating_sub(EVERY)
            }
        });
    }

    async fn reconcile(&self, target: &TargetState, stuck: &mut BTreeSet<String>) -> Result<(), Error> {
        let name = &target.profile.name;
        let listed = {
            let _place = target.end_budget.acquire().await;
            let answer = in_time(LISTING_TIMEOUT, target.driver.inventory()).await;
            target.heard(&answer, self.0.clock.elapsed());
            answer?
        };
        let now = self.0.clock.now();
        let lists = matches!(target.health(), Health::Healthy { lists: true, .. });
        let there: BTreeSet<String> = listed.iter().map(|found| found.handle.clone()).collect();
        let mut unclaimed: BTreeMap<GrantId, Found> = listed.into_iter().map(|found| (found.grant, found)).collect();
        let mut before = None;
        loop {
            let query =
                GrantQuery { target: Some(name.clone()), standing_only: true, before, limit: PAGE, ..GrantQuery::default() };
            let page = self.0.archive.grants(query).await?;
            for record in &page {
                let grant = &record.grant;
                let gone = unclaimed.remove(&grant.id).is_none();
                let settled = now.secs_since(grant.granted_at) > GRACE_SECS;
                if gone && lists && settled && grant.state == GrantState::Issued && grant.revoked_at.is_none() {
                    let reason = RevokeReason::Vanished;
                    let event = about(grant, "credential.revoked", "writ", now, [("reason", reason.as_str().into())])?;
                    let changes = vec![Change::RevokeGrant { grant: grant.id, at: now, reason, settled: true }];
                    self.0.ledger.commit(Write { events: vec![event], changes }).await?;
                }
            }
            before = page.last().map(|record| record.grant.id);
            if page.len() < PAGE {
                break;
            }
        }
        let counts = self.0.archive.grant_counts(self.0.clock.now()).await?;
        target.set_standing(standing_at(&counts, name));
        let unfinished = self.unfinished(target).await?;
        let orphans = unclaimed.into_values().filter(|found| older_than_grace(found.grant, now)).collect();
        let ended = self.end_orphans(target, orphans, (&unfinished, stuck)).await;
        let gone = unfinished.into_iter().filter(|(handle, _)| !there.contains(handle));
        ended.and(self.tell_of_ended(target, gone).await)
    }

    /// Takes back one after the other. One that cannot be taken back keeps none of the others from it: it is tried after them the
    /// next time, and what went wrong first is answered when all had their turn. A target that does not answer ends it early.
    async fn end_orphans(
        &self,
        target: &TargetState,
        mut orphans: Vec<Found>,
        (unfinished, stuck): (&BTreeMap<String, GrantId>, &mut BTreeSet<String>),
    ) -> Result<(), Error> {
        stuck.retain(|handle| orphans.iter().any(|found| found.handle == *handle));
        orphans.sort_by_key(|found| stuck.contains(&found.handle));
        let mut first = Ok(());
        for found in orphans.into_iter().take(ORPHANS_MAX) {
            let ended = self.end_orphan(target, &found, unfinished.contains_key(&found.handle)).await;
            if let Err(error) = &ended {
                tracing::warn!(%error, target_name = %target.profile.name, handle = found.handle, "an orphan could not be taken back yet");
                stuck.insert(found.handle);
            } else {
                stuck.remove(&found.handle);
            }
            first = first.and(ended);
            if target.breaker.shut_for(self.0.clock.elapsed()).is_some() {
                break;
            }
        }
        first
    }

    /// Takes back what stands without a live grant. The listing is what remembers it: if this fails, the next comparison
    /// finds it again. `told`: the log says already that it was found.
    ///
    /// CRASH(orphan.found, orphan.stepped): found again by the next comparison, unless it was removed already: that one reads
    /// in the log that it was found and not that it ended.
    async fn end_orphan(&self, target: &TargetState, found: &Found, told: bool) -> Result<(), Error> {
        let known = self.0.archive.grant(found.grant).await?;
        let ours = match &known {
            Some(record) => record.grant.handle == found.handle,
            None => found.handle.contains(&hex(found.grant.as_bytes())),
        };
        if known.as_ref().is_some_and(|record| record.grant.target != target.profile.name) {
            // Two targets on one server see each other's.
            return Ok(());
        }
        if !ours {
            tracing::warn!(target_name = %target.profile.name, handle = found.handle, "a name looks like ours and is not made as ours are; it is left alone");
            return Ok(());
        }
        if !told {
            self.tell_of_orphan(target, found, BEGUN, serde_json::Map::new()).await?;
        }
        tracing::trace!(target: "writ::step", at = "orphan.found");
        self.end_step_by_step(target, found, &[Ending::CloseAuth, Ending::EndSessions, Ending::Clean, Ending::Verify]).await
    }

    /// Takes these steps with an orphan, and logs that it ended with what they showed.
    async fn end_step_by_step(&self, target: &TargetState, found: &Found, steps: &[Ending]) -> Result<(), Error> {
        let offer: OfferName = match self.0.archive.grant(found.grant).await? {
            Some(record) => record.grant.offer,
            None => UNKNOWN.parse().map_err(|_| Error::Unacceptable("no name for an orphan's offer"))?,
        };
        let expires_at = found.expires_at.unwrap_or(self.0.clock.now());
        let handle = Handle { grant: found.grant, offer: &offer, handle: &found.handle, expires_at, to_revoke: None };
        let mut evidence = serde_json::Map::new();
        for step in steps {
            tracing::trace!(target: "writ::step", at = "orphan.stepped");
            evidence.insert(step.as_str().to_owned(), shown(&self.end_step(target, *step, &handle).await?));
        }
        self.tell_of_orphan(target, found, ENDED, evidence).await
    }

    async fn tell_of_orphan(
        &self,
        target: &TargetState,
        found: &Found,
        kind: &str,
        evidence: serde_json::Map<String, Value>,
    ) -> Result<(), Error> {
        let detail = [
            ("evidence", Value::Object(evidence)),
            ("grant", found.grant.to_string().into()),
            ("handle", found.handle.as_str().into()),
            ("reason", RevokeReason::Orphan.as_str().into()),
            ("target", target.profile.name.as_str().into()),
        ];
        let event = change(kind, "writ", self.0.clock.now(), detail)?;
        self.0.ledger.commit(Write { events: vec![event], changes: Vec::new() }).await?;
        Ok(())
    }

    /// Orphans that were found, and whose end is not in the log.
    async fn unfinished(&self, target: &TargetState) -> Result<BTreeMap<String, GrantId>, Error> {
        let (begun, ended) = (self.told_of(target, BEGUN).await?, self.told_of(target, ENDED).await?);
        let unfinished = begun.into_iter().filter(|(handle, (index, _))| ended.get(handle).is_none_or(|(end, _)| end < index));
        Ok(unfinished.map(|(handle, (_, grant))| (handle, grant)).collect())
    }

    /// What is gone although its end is not in the log: something stopped between its removal and its entry. The target is asked
    /// once more, and the entry made.
    async fn tell_of_ended(&self, target: &TargetState, gone: impl Iterator<Item = (String, GrantId)>) -> Result<(), Error> {
        let mut first = Ok(());
        for (handle, grant) in gone {
            let found = Found { handle, grant, expires_at: None };
            first = first.and(self.end_step_by_step(target, &found, &[Ending::Verify]).await);
            if target.breaker.shut_for(self.0.clock.elapsed()).is_some() {
                break;
            }
        }
        first
    }

    /// The handles that entries of this kind tell of, with the newest entry's index.
    async fn told_of(&self, target: &TargetState, kind: &str) -> Result<BTreeMap<String, (u64, GrantId)>, Error> {
        let terms = vec![("type".to_owned(), kind.to_owned())];
        let entries = self.0.archive.search(LogQuery { terms, limit: ORPHANS_MAX, ..LogQuery::default() }).await?;
        let mut told = BTreeMap::new();
        for LogEntry { index, leaf } in entries.entries {
            let leaf: Value = serde_json::from_slice(&leaf).unwrap_or_default();
            let text = |member: &str| leaf.pointer(&format!("/event/detail/{member}")).and_then(Value::as_str);
            let grant = text("grant").and_then(|grant| grant.parse().ok());
            if let (Some(handle), Some(grant), true) =
                (text("handle"), grant, text("target") == Some(target.profile.name.as_str()))
            {
                told.entry(handle.to_owned()).or_insert((index, grant));
            }
        }
        Ok(told)
    }
}

/// An id says when it was made (RFC 9562 §5.7). One that lies in the future was not made by us, or by a wrong clock: it is
/// taken for old, because something with our mark and without a grant must not stand for ever.
fn older_than_grace(grant: GrantId, now: Timestamp) -> bool {
    let (time, _) = grant.as_bytes().split_at(6);
    let millis = time.iter().fold(0_i64, |millis, byte| millis << 8 | i64::from(*byte));
    let made = Timestamp::from_millis(millis);
    now.secs_since(made) > GRACE_SECS || made.secs_since(now) > GRACE_SECS
}
