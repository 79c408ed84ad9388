//! Fakes for tests: a clock that is moved by hand, seeded entropy, a ledger in memory over the real Merkle log, an
//! identity issuer, a holder of a DPoP key, and a `World` that puts them together. Never a dependency of a product
//! crate: `cargo xtask tidy` holds that.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test support fails by panicking")]

mod fake_target;
pub mod fixture;
mod grants;
mod issuer;
mod ledger;
pub mod peer;
mod server;
mod target;
mod world;

pub use fake_target::{At, Fails, FakeTarget, configured, credential_files, profile};

pub use issuer::{Holder, TestIssuer};
pub use ledger::{Fault, Hold, MemoryLedger};
pub use server::{RealKubernetes, RealMariadb, RealPostgresql, RealRedis, RealSshd, RealTls, free_port};
pub use target::shown;
pub use world::{Backing, GRANTS_KEPT_SECS, ISSUER, StaticKeys, World, agent, task_request};

use authority::ports::{Clock, Entropy};
use domain::Timestamp;
use std::sync::Mutex;
use std::time::Duration;

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<(Timestamp, Duration)>,
}

impl Default for ManualClock {
    /// Starts on 2026-11-22.
    fn default() -> Self {
        Self { now: Mutex::new((Timestamp::from_secs(1_795_305_600), Duration::from_secs(1_000))) }
    }
}

impl ManualClock {
    /// Lets time pass.
    pub fn advance_secs(&self, secs: u64) {
        self.advance(Duration::from_secs(secs));
    }

    /// The same, as finely as somebody measures.
    pub fn advance(&self, time: Duration) {
        let mut now = self.now.lock().unwrap();
        now.1 += time;
        // The wall clock has milliseconds: what is less is not lost but stays in the other one.
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap();
        now.0 = Timestamp::from_millis(now.0.millis() + millis(now.1) - millis(now.1 - time));
    }

    /// Sets the wall clock alone, as an administrator or a bad time server would.
    pub fn set_wall(&self, at: Timestamp) {
        self.now.lock().unwrap().0 = at;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.now.lock().unwrap().0
    }

    fn elapsed(&self) -> Duration {
        self.now.lock().unwrap().1
    }
}

/// Bytes that look random and repeat from run to run.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// The sequence of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, out: &mut [u8]) {
        let mut counter = self.0.lock().unwrap();
        for chunk in out.chunks_mut(32) {
            *counter += 1;
            let block = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &counter.to_be_bytes());
            chunk.copy_from_slice(block.as_ref().split_at(chunk.len()).0);
        }
    }
}
