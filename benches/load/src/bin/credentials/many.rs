//! A great many credentials at once: what they do to those who ask for one when they expire, and what they weigh while they
//! live. The target is in memory and answers at once, so that only Writ's own work is in the way.

use crate::figures::{Figures, run};
use crate::stand::{Stand, request};
use authority::ports::{Change, GrantArchive, Ledger, Write};
use domain::{DecisionId, Grant, GrantId, GrantState, TaskId};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testkit::{FakeTarget, configured};

const EXPIRING: u64 = 50_000;
const LIVING: u64 = 100_000;
const CLIENTS: u64 = 8;
/// Length of each measurement.
const TIME: Duration = Duration::from_secs(8);
/// Grants in one write.
const TOGETHER: u64 = 500;
/// What the offers of the fixture allow, in seconds.
const LIFETIME_SECS: u64 = 600;

async fn stand() -> (tempfile::TempDir, Arc<Stand>) {
    let folder = tempfile::tempdir().unwrap();
    let target = configured("orders-db", &Arc::new(FakeTarget::default()));
    let stand = Stand::start(folder.path(), target, 1).await;
    (folder, Arc::new(stand))
}

/// Puts so many issued grants into the store.
async fn fill(stand: &Stand, count: u64) {
    let now = stand.world.authority.now();
    for first in (0..count).step_by(usize::try_from(TOGETHER).unwrap()) {
        let changes = (first..count.min(first + TOGETHER)).flat_map(|number| {
            let mut id = [0xee; 16];
            id[8..].copy_from_slice(&number.to_be_bytes());
            let grant = Grant {
                id: GrantId::from_bytes(id),
                task: TaskId::from_bytes(id),
                agent: "bot".parse().unwrap(),
                target: "orders-db".parse().unwrap(),
                offer: "read_orders".parse().unwrap(),
                decision: DecisionId::from_bytes(id),
                handle: format!("jit_{number:032x}"),
                granted_at: now,
                expires_at: now.plus_secs(LIFETIME_SECS),
                state: GrantState::Intended,
                revoked_at: None,
            };
            let issued = Change::GrantIssued { grant: grant.id, at: now, sealed: None };
            [Change::PutGrant { grant: Box::new(grant), unconfirmed_at: now.plus_secs(120) }, issued]
        });
        stand.store.commit(Write { events: Vec::new(), changes: changes.collect() }).await.unwrap();
    }
}

/// Issues for [`TIME`], each client with a task of its own.
async fn ask(stand: &Arc<Stand>) -> Figures {
    let caller = stand.caller().await;
    let (mut figures, until) = (Figures::default(), Instant::now() + TIME);
    let stand = Arc::clone(stand);
    let work = move || {
        let (stand, caller) = (Arc::clone(&stand), caller.clone());
        async move {
            stand.world.authority.request_credential(&caller, request()).await.unwrap();
        }
    };
    run(CLIENTS, &mut figures, move |_| Instant::now() < until, work).await;
    figures
}

async fn standing(stand: &Stand) -> u64 {
    let counts = stand.store.grant_counts(stand.world.authority.now()).await.unwrap();
    counts.iter().map(|(_, counts)| counts.ending).sum()
}

/// Rounds of the worker as the server makes them, for ever.
fn worker(stand: &Arc<Stand>) -> tokio::task::JoinHandle<()> {
    let stand = Arc::clone(stand);
    tokio::spawn(async move {
        loop {
            let authority = stand.world.authority.clone();
            let round = tokio::spawn(async move { authority.run_credentials().await });
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(round);
        }
    })
}

/// 50,000 credentials expire in one instant.
pub(crate) async fn expiring() {
    let (_folder, stand) = stand().await;
    let worker = worker(&stand);
    ask(&stand).await;
    let quiet = ask(&stand).await;
    fill(&stand, EXPIRING).await;
    stand.clock.advance_secs(LIFETIME_SECS + 1);
    let before = standing(&stand).await;
    let beside = ask(&stand).await;
    let after = standing(&stand).await;
    worker.abort();
    println!("\n-- {before} credentials expire in one instant, {CLIENTS} clients ask for new ones --");
    quiet.say("issue, nothing else to do");
    beside.say("issue, while the expired are taken back");
    println!("   p50 / p50 of a quiet time: {:.2}", beside.quantile(50) / quiet.quantile(50));
    println!("   p99 / p99 of a quiet time: {:.2}", beside.quantile(99) / quiet.quantile(99));
    println!("   taken back meanwhile: {} in {} s; {} issued", before.saturating_sub(after), TIME.as_secs(), beside.count());
    let began = Instant::now();
    while standing(&stand).await > 0 {
        stand.world.authority.run_credentials().await;
    }
    println!("   the other {after}, when nobody asks: {:.1} s", began.elapsed().as_secs_f64());
}

/// 100,000 credentials live.
pub(crate) async fn living() {
    let (_folder, stand) = stand().await;
    let worker = worker(&stand);
    let before = resident_mib();
    fill(&stand, LIVING).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    worker.abort();
    println!("\nresident: {before} MiB at the start, {} MiB with {LIVING} live credentials", resident_mib());
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1_024
}
