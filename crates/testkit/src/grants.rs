//! Grants in memory, by the rules that `authority::ports` states for their changes.

use authority::ports::{Change, GrantCounts, GrantQuery, GrantRecord};
use domain::{GrantId, GrantState, TargetName, Timestamp};
use std::collections::BTreeMap;

/// All grants.
#[derive(Debug, Default)]
pub(crate) struct Grants(BTreeMap<GrantId, GrantRecord>);

impl Grants {
    /// Applies a change; gives it back if it is not one of a grant.
    pub(crate) fn apply(&mut self, change: Change) -> Option<Change> {
        match change {
            Change::PutGrant { grant, unconfirmed_at } => {
                let record =
                    GrantRecord { grant: *grant, reason: None, next_try_at: Some(unconfirmed_at), tries: 0, sealed: None };
                assert!(self.0.insert(record.grant.id, record).is_none(), "a grant is made once");
            }
            Change::GrantIssued { grant, at, sealed } => self.change(grant, |record| {
                if record.grant.state == GrantState::Intended {
                    record.grant.state = GrantState::Issued;
                    record.sealed = sealed;
                    record.next_try_at = Some(record.grant.revoked_at.map_or(record.grant.expires_at, |_| at));
                }
            }),
            Change::RevokeGrant { grant, at, reason, settled } => {
                self.change(grant, |record| revoke(record, at, reason.as_str(), settled));
            }
            Change::RevokeGrantsOf { task, at } => {
                for record in self.0.values_mut().filter(|record| record.grant.task == task && record.grant.revoked_at.is_none())
                {
                    revoke(record, at, "task_ended", false);
                }
            }
            Change::GrantStep { grant, state, at } => self.change(grant, |record| {
                record.grant.state = record.grant.state.max(state);
                record.tries = 0;
                record.next_try_at = (record.grant.state != GrantState::VerifiedDead).then_some(at);
                if record.next_try_at.is_none() {
                    record.sealed = None;
                }
            }),
            Change::GrantRetry { grant, try_at, tries } => self.change(grant, |record| {
                if record.next_try_at.is_some() {
                    record.next_try_at = Some(try_at);
                    record.tries = tries;
                }
            }),
            Change::ForgetGrants { before, most } => {
                let mut made_before = [0; 16];
                made_before[..6].copy_from_slice(&before.millis().max(0).to_be_bytes()[2..]);
                let old = |(id, record): (&GrantId, &GrantRecord)| {
                    let over = record.next_try_at.is_none() && record.grant.expires_at < before;
                    (over && *id < GrantId::from_bytes(made_before)).then_some(*id)
                };
                let old: Vec<_> = self.0.iter().filter_map(old).take(most as usize).collect();
                old.iter().for_each(|id| drop(self.0.remove(id)));
            }
            other => return Some(other),
        }
        None
    }

    fn change(&mut self, id: GrantId, change: impl FnOnce(&mut GrantRecord)) {
        if let Some(record) = self.0.get_mut(&id) {
            change(record);
        }
    }

    pub(crate) fn one(&self, id: GrantId) -> Option<GrantRecord> {
        self.0.get(&id).cloned()
    }

    pub(crate) fn query(&self, query: &GrantQuery) -> Vec<GrantRecord> {
        let wanted = |record: &&GrantRecord| {
            query.task.is_none_or(|task| record.grant.task == task)
                && query.target.as_ref().is_none_or(|target| record.grant.target == *target)
                && query.state.is_none_or(|state| record.grant.state == state)
                && (!query.standing_only || record.next_try_at.is_some())
                && query.before.is_none_or(|before| record.grant.id < before)
        };
        self.0.values().rev().filter(wanted).take(query.limit).cloned().collect()
    }

    pub(crate) fn due(&self, target: &TargetName, now: Timestamp, limit: usize) -> Vec<GrantRecord> {
        let due = |record: &&GrantRecord| record.grant.target == *target && record.next_try_at.is_some_and(|at| at <= now);
        let mut found: Vec<_> = self.0.values().filter(due).collect();
        found.sort_by_key(|record| (record.grant.revoked_at.is_none(), record.next_try_at));
        found.into_iter().take(limit).cloned().collect()
    }

    pub(crate) fn counts(&self, now: Timestamp) -> Vec<(TargetName, GrantCounts)> {
        let mut counts: BTreeMap<TargetName, GrantCounts> = BTreeMap::new();
        for record in self.0.values() {
            let Some(at) = record.next_try_at else { continue };
            let entry = counts.entry(record.grant.target.clone()).or_default();
            *(if record.grant.revoked_at.is_none() && at > now { &mut entry.held } else { &mut entry.ending }) += 1;
            entry.oldest_due = entry.oldest_due.into_iter().chain((at <= now).then_some(at)).min();
        }
        counts.into_iter().collect()
    }
}

fn revoke(record: &mut GrantRecord, at: Timestamp, reason: &str, settled: bool) {
    let Some(due) = record.next_try_at else { return };
    record.grant.revoked_at.get_or_insert(at);
    record.reason.get_or_insert_with(|| reason.to_owned());
    if record.grant.state != GrantState::Intended || settled {
        record.next_try_at = Some(due.min(at));
    }
}
