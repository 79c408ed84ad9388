//! Appends per second through the ledger, against the least that any durable log can cost: the same bytes
//! appended to a file with one fdatasync for each group. Both in one run; the ratio counts. Then the time that a
//! start takes with a million entries, and searches in them.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use auditlog::note::Ed25519Signer;
use authority::ports::{Archive, Clock, Ledger, LogQuery, PublishedLog, Write};
use domain::Timestamp;
use store::{Keys, Store, StoreConfig, open};
use tokio::{runtime::Runtime, sync::oneshot};

const SECONDS: f64 = 2.0;
const EVENT_LEN: usize = 650;

struct Running(Instant);

impl Clock for Running {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap())
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn open_store(dir: &Path, clock: &Arc<Running>) -> Store {
    let key = |name: &str| -> Box<dyn auditlog::port::NoteSigner> {
        Box::new(Ed25519Signer::from_seed(name, &zeroize::Zeroizing::new([7; 32])).unwrap())
    };
    let config =
        StoreConfig { data_dir: dir.join("data"), anchor: dir.join("anchor"), publish_every: Duration::from_millis(250) };
    open(config, Keys { log: key("bench.example/log"), node: key("node-1") }, Arc::clone(clock) as Arc<dyn Clock>).unwrap()
}

fn event(clock: &Running, number: u64) -> Vec<u8> {
    let mut event = format!(
        "{{\"agent\":\"agent-{}\",\"at\":{},\"number\":{number},\"outcome\":\"allow\",\"task\":\"tsk_{:032x}\",\"type\":\"decision\",\"pad\":\"",
        number % 50,
        clock.now().millis(),
        number / 20
    );
    event.push_str(&"x".repeat(EVENT_LEN.saturating_sub(event.len() + 2)));
    event.push_str("\"}");
    event.into_bytes()
}

/// The lower bound: one thread, a group of whatever waits, one write, one fdatasync, the answers.
fn baseline(dir: &Path) -> SyncSender<(Vec<u8>, oneshot::Sender<()>)> {
    let (queue, jobs) = sync_channel::<(Vec<u8>, oneshot::Sender<()>)>(8192);
    let mut file = File::create(dir.join("baseline")).unwrap();
    std::thread::spawn(move || {
        while let Ok(first) = jobs.recv() {
            let (mut bytes, mut waiting) = (first.0, vec![first.1]);
            while let Ok((more, answer)) = jobs.try_recv() {
                bytes.extend(more);
                waiting.push(answer);
            }
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
            waiting.into_iter().for_each(|answer| answer.send(()).unwrap_or_default());
        }
    });
    queue
}

/// Runs `clients` closed loops for some seconds; gives operations per second, p50 and p99.
fn load<F: Future<Output = ()> + Send>(
    runtime: &Runtime,
    clients: u64,
    operation: impl Fn(u64) -> F + Send + Sync + 'static,
) -> (f64, Duration, Duration) {
    let operation = Arc::new(operation);
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let operation = Arc::clone(&operation);
            runtime.spawn(async move {
                let (mut times, mut number) = (Vec::new(), client);
                while start.elapsed().as_secs_f64() < SECONDS {
                    let began = Instant::now();
                    operation(number).await;
                    times.push(began.elapsed());
                    number += clients;
                }
                times
            })
        })
        .collect();
    let mut times: Vec<Duration> = tasks.into_iter().flat_map(|task| runtime.block_on(task).unwrap()).collect();
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default();
    (rate, at(0.5), at(0.99))
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let scratch = tempfile::TempDir::new_in(".").unwrap();
    let clock = Arc::new(Running(Instant::now()));
    let store = open_store(scratch.path(), &clock);

    println!("{:<28} {:>8} {:>12} {:>12} {:>12} {:>8}", "", "clients", "per second", "p50", "p99", "ratio");
    for clients in [1, 16, 64, 256] {
        let queue = baseline(scratch.path());
        let times = Arc::clone(&clock);
        let base = load(&runtime, clients, move |number| {
            let (answer, answered) = oneshot::channel();
            queue.send((event(&times, number), answer)).unwrap();
            async move { answered.await.unwrap() }
        });
        let row = |what: &str, (rate, p50, p99): (f64, Duration, Duration)| {
            println!("{what:<28} {clients:>8} {rate:>12.0} {p50:>12.2?} {p99:>12.2?} {:>8.2}", rate / base.0);
        };
        row("append + fdatasync", base);
        let (ledger, times) = (store.clone(), Arc::clone(&clock));
        let commits = load(&runtime, clients, move |number| {
            let (ledger, event) = (ledger.clone(), event(&times, number));
            async move {
                let _index = ledger.commit(Write { events: vec![event], changes: Vec::new() }).await.unwrap();
            }
        });
        row("ledger.commit", commits);
        let (ledger, times) = (store.clone(), Arc::clone(&clock));
        let proofs = load(&runtime, clients, move |number| {
            let (ledger, event) = (ledger.clone(), event(&times, number));
            async move {
                let seen = ledger.sizes().0;
                drop(ledger.include(Write { events: vec![event], changes: Vec::new() }, seen).await.unwrap());
            }
        });
        row("ledger.include", proofs);
    }
    million(&runtime, &store, &clock);
    store.close();
    drop(store);
    let start = Instant::now();
    let store = open_store(scratch.path(), &clock);
    println!("start with {} entries: {:.1?}", store.sizes().0, start.elapsed());
    for (what, terms) in [("one agent", ("agent", "agent-7".to_owned())), ("one task", ("task", format!("tsk_{:032x}", 400)))] {
        let query = LogQuery { terms: vec![(terms.0.to_owned(), terms.1)], limit: 20, ..LogQuery::default() };
        let start = Instant::now();
        let found = runtime.block_on(store.search(query)).unwrap().entries.len();
        println!("search by {what}: {found} entries in {:.1?}", start.elapsed());
    }
}

/// Fills the log up to a million entries, and says how fast.
fn million(runtime: &Runtime, store: &Store, clock: &Running) {
    let start = Instant::now();
    let from = store.sizes().0;
    let mut number = from;
    while store.sizes().0 < 1_000_000 {
        let events = (0..64).map(|i| event(clock, number + i)).collect();
        number += 64;
        runtime.block_on(store.commit(Write { events, changes: Vec::new() })).unwrap();
    }
    let (committed, published) = store.sizes();
    let rate = (committed - from) as f64 / start.elapsed().as_secs_f64();
    println!("bulk append, batches of 64: {rate:.0} entries/s; {} behind in publication", committed - published);
}
