//! What the unit tests of this crate share: an open store in a temporary directory, and a clock.
//! Test build only; tests through the ports have their own in `tests/`.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use auditlog::note::Ed25519Signer;
use authority::ports::{Archive, Clock, LogQuery, Write};
use domain::Timestamp;

use crate::{Error, Keys, Store, StoreConfig, open};

/// A clock whose wall stands still and whose monotonic side runs.
pub(crate) struct TestClock(pub(crate) Instant);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(1_000_000)
    }
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

pub(crate) fn keys() -> Keys {
    let key = |name: &str, seed| -> Box<dyn auditlog::port::NoteSigner> {
        Box::new(Ed25519Signer::from_seed(name, &zeroize::Zeroizing::new([seed; 32])).unwrap())
    };
    Keys { log: key("writ.example/log", 1), node: key("node-1", 2) }
}

pub(crate) fn try_open(dir: &Path) -> Result<Store, Error> {
    open_publishing(dir, Duration::from_millis(20))
}

/// A store that publishes only when it is closed, so that nothing but tests makes the writer write.
pub(crate) fn try_open_idle(dir: &Path) -> Result<Store, Error> {
    open_publishing(dir, Duration::from_secs(3600))
}

fn open_publishing(dir: &Path, publish_every: Duration) -> Result<Store, Error> {
    let config = StoreConfig { data_dir: dir.join("data"), anchor: dir.join("anchor"), publish_every };
    open(config, keys(), Arc::new(TestClock(Instant::now())))
}

/// A write of one event that carries this number.
pub(crate) fn event(number: u64) -> Write {
    let event = format!("{{\"at\":{number},\"number\":{number},\"type\":\"test\"}}");
    Write { events: vec![event.into_bytes()], changes: Vec::new() }
}

/// The numbers of all events in the log, in its order.
pub(crate) async fn numbers(store: &Store) -> Vec<u64> {
    let found = store.search(LogQuery { limit: 1000, ..LogQuery::default() }).await.unwrap();
    let number = |leaf: &[u8]| {
        let leaf: serde_json::Value = serde_json::from_slice(leaf).unwrap();
        leaf.get("event").unwrap().get("number").unwrap().as_u64().unwrap()
    };
    found.entries.iter().rev().map(|entry| number(&entry.leaf)).collect()
}
