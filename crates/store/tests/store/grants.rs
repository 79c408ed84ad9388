//! Grants in SQLite behave as those in memory do, whatever is changed in whatever order: two implementations of one
//! promise (`authority::ports`), compared.

use authority::ports::{Change, GrantArchive, GrantQuery, Ledger, Write};
use domain::{DecisionId, Grant, GrantId, GrantState, RevokeReason, TaskId, Timestamp};
use proptest::prelude::*;
use tempfile::TempDir;
use testkit::MemoryLedger;

use crate::rig::open_slow;

const GRANTS: u8 = 6;

fn grant(number: u8, at: i64) -> Grant {
    Grant {
        id: GrantId::from_bytes([number; 16]),
        task: TaskId::from_bytes([number % 3; 16]),
        agent: "bot".parse().unwrap(),
        target: if number.is_multiple_of(2) { "orders-db" } else { "other-db" }.parse().unwrap(),
        offer: "read".parse().unwrap(),
        decision: DecisionId::from_bytes([number; 16]),
        handle: format!("jit_{number}"),
        granted_at: Timestamp::from_millis(at),
        expires_at: Timestamp::from_millis(at + 50),
        state: GrantState::Intended,
        revoked_at: None,
    }
}

/// A change, made twice: changes are handed over for good.
#[derive(Debug, Clone, Copy)]
struct Planned {
    kind: u8,
    number: u8,
    at: i64,
    state: usize,
    settled: bool,
}

impl Planned {
    fn change(self) -> Change {
        let (id, at) = (GrantId::from_bytes([self.number; 16]), Timestamp::from_millis(self.at));
        let reasons = [RevokeReason::Expired, RevokeReason::Operator, RevokeReason::NotHandedOut];
        match self.kind {
            0 => Change::GrantIssued { grant: id, at, sealed: self.settled.then(|| vec![self.number]) },
            1 => Change::RevokeGrant { grant: id, at, reason: reasons[self.state % 3], settled: self.settled },
            2 => Change::RevokeGrantsOf { task: TaskId::from_bytes([self.number % 3; 16]), at },
            3 => Change::GrantStep { grant: id, state: GrantState::ALL[1 + self.state % 5], at },
            4 => Change::GrantRetry { grant: id, try_at: at, tries: self.state as u32 },
            // Ids of this test say that they were made long ago or far in the future.
            _ => Change::ForgetGrants {
                before: Timestamp::from_millis(self.at << if self.settled { 40 } else { 0 }),
                most: self.state as u32,
            },
        }
    }
}

fn changes() -> impl Strategy<Value = Vec<Planned>> {
    let change = (0_u8..6, 0..GRANTS, 0_i64..200, 0_usize..6, any::<bool>());
    let planned = change.prop_map(|(kind, number, at, state, settled)| Planned { kind, number, at, state, settled });
    prop::collection::vec(planned, 0..40)
}

async fn compare(changes: Vec<Planned>) {
    let dir = TempDir::new().unwrap();
    let (store, memory) = (open_slow(dir.path()), MemoryLedger::default());
    let both = [&store as &dyn Ledger, &memory];
    for ledger in both {
        for number in 0..GRANTS {
            let change = Change::PutGrant {
                grant: Box::new(grant(number, i64::from(number))),
                unconfirmed_at: Timestamp::from_millis(100 + i64::from(number)),
            };
            ledger.commit(Write { events: Vec::new(), changes: vec![change] }).await.unwrap();
        }
        for planned in &changes {
            ledger.commit(Write { events: Vec::new(), changes: vec![planned.change()] }).await.unwrap();
        }
    }
    for number in 0..GRANTS {
        let id = GrantId::from_bytes([number; 16]);
        assert_eq!(store.grant(id).await.unwrap(), memory.grant(id).await.unwrap(), "{changes:?}");
    }
    for now in [0, 60, 120, 300].map(Timestamp::from_millis) {
        assert_eq!(store.grant_counts(now).await.unwrap(), memory.grant_counts(now).await.unwrap(), "{changes:?}");
        for target in ["orders-db", "other-db"] {
            let target = target.parse().unwrap();
            let (ours, theirs) =
                (store.due_grants(&target, now, 2).await.unwrap(), memory.due_grants(&target, now, 2).await.unwrap());
            // Those that are due at the same instant have no order.
            let order = |found: &[authority::ports::GrantRecord]| -> Vec<_> {
                found.iter().map(|record| (record.grant.revoked_at.is_none(), record.next_try_at)).collect()
            };
            assert_eq!(order(&ours), order(&theirs), "{changes:?}");
        }
    }
    for (task, standing_only, before) in
        [(None, false, None), (Some(1), true, Some(4)), (Some(2), false, None), (None, true, Some(3))]
    {
        let query = || GrantQuery {
            task: task.map(|task| TaskId::from_bytes([task; 16])),
            standing_only,
            before: before.map(|number| GrantId::from_bytes([number; 16])),
            limit: 3,
            ..GrantQuery::default()
        };
        assert_eq!(store.grants(query()).await.unwrap(), memory.grants(query()).await.unwrap(), "{changes:?}");
    }
    store.close();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn sqlite_and_memory_agree_about_grants(changes in changes()) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(compare(changes));
    }
}

#[tokio::test]
async fn a_task_that_ends_revokes_its_grants_in_the_same_transaction_or_not_at_all() {
    let dir = TempDir::new().unwrap();
    let store = open_slow(dir.path());
    let put = Change::PutGrant { grant: Box::new(grant(1, 0)), unconfirmed_at: Timestamp::from_millis(9) };
    let end = || Change::RevokeGrantsOf { task: TaskId::from_bytes([1; 16]), at: Timestamp::from_millis(5) };
    let used = || Change::UseEvidence { key: [1; 32], expires: Timestamp::from_millis(i64::MAX) };
    store.commit(Write { events: Vec::new(), changes: vec![put, used()] }).await.unwrap();
    assert!(store.commit(Write { events: Vec::new(), changes: vec![end(), used()] }).await.is_err());
    let id = GrantId::from_bytes([1; 16]);
    assert_eq!(store.grant(id).await.unwrap().unwrap().grant.revoked_at, None);
    store.commit(Write { events: Vec::new(), changes: vec![end()] }).await.unwrap();
    assert_eq!(store.grant(id).await.unwrap().unwrap().grant.revoked_at, Some(Timestamp::from_millis(5)));
    store.close();
}
