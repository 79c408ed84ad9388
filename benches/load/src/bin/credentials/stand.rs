//! Writ without its listener: the authority over a real store, with a clock that runs. Owns the folder of its log.

use auditlog::note::Ed25519Signer;
use auditlog::port::NoteSigner;
use authority::{Caller, ConfiguredTarget, CredentialRequest};
use domain::Timestamp;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use store::{Keys, Store, StoreConfig};
use testkit::{Backing, ManualClock, World, agent, credential_files, task_request};

/// The authority and what it stands on.
pub(crate) struct Stand {
    pub(crate) world: World,
    pub(crate) store: Arc<Store>,
    pub(crate) clock: Arc<ManualClock>,
}

/// The instant that it is.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_secs(i64::try_from(since.as_secs()).unwrap())
}

/// A clock that runs, and can be made to leap.
fn running() -> Arc<ManualClock> {
    let clock = Arc::new(ManualClock::default());
    clock.set_wall(now());
    let ours = Arc::downgrade(&clock);
    std::thread::spawn(move || {
        let mut last = Instant::now();
        while let Some(clock) = ours.upgrade() {
            std::thread::sleep(Duration::from_millis(1));
            let now = Instant::now();
            clock.advance(now - last);
            last = now;
        }
    });
    clock
}

impl Stand {
    /// With this target, in this folder; probed. Stands that share a target draw from different seeds.
    pub(crate) async fn start(folder: &Path, target: ConfiguredTarget, seed: u64) -> Self {
        let key = |name: &str, seed| Ed25519Signer::from_seed(name, &zeroize::Zeroizing::new([seed; 32])).unwrap();
        let log = key("bench.example/log", 1);
        let log_key = log.verifier().clone();
        let config = StoreConfig {
            data_dir: folder.join("data"),
            anchor: folder.join("anchor"),
            publish_every: Duration::from_millis(250),
        };
        let clock = running();
        let keys = Keys { log: Box::new(log), node: Box::new(key("node-1", 2)) };
        let store = Arc::new(store::open(config, keys, clock.clone()).unwrap());
        let backing = Backing { ledger: store.clone(), archive: store.clone(), published: store.clone(), log_key, seed };
        let agents = vec![agent("bot", &["fix-orders"])];
        let world = World::backed(&credential_files(), agents, vec![target], (clock.clone(), backing)).await;
        world.authority.run_credentials().await;
        Self { world, store, clock }
    }

    /// A task that may have credentials.
    pub(crate) async fn caller(&self) -> Caller {
        let issued = self.world.issue("bot", task_request("fix-orders", json!({ "region": "eu" }))).await.unwrap();
        self.world.present_here(&issued).unwrap()
    }
}

/// The offer that is measured.
pub(crate) fn request() -> CredentialRequest {
    CredentialRequest {
        target: "orders-db".parse().unwrap(),
        offer: "read_orders".parse().unwrap(),
        params: json!({ "region": "eu" }).as_object().unwrap().clone(),
        lifetime_secs: None,
        verifier: None,
    }
}
