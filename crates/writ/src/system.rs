//! The real clock and the real entropy: the only place in Writ that reads either (design §10).

use authority::ports::{Clock, Entropy};
use domain::Timestamp;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The clock of this machine.
#[derive(Debug)]
pub(crate) struct SystemClock(Instant);

impl SystemClock {
    /// A clock whose monotonic side starts now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The wall clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub(crate) fn now() -> Timestamp {
    // A clock before 1970 reads as 1970: everything has expired or is not yet valid, so nothing is allowed.
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// A variable of this process's environment, if it is set and is text.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Keeps what is in this process's memory out of core files and away from debuggers of the same user. The limit is
/// inherited by commands that are started, which hold secrets as well.
pub(crate) fn seal_memory() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let sealed = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })
        .and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = sealed {
        tracing::warn!(%error, "core files of this process could not be turned off");
    }
}

/// The operating system's generator, through aws-lc.
#[derive(Debug)]
pub(crate) struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        fill(out);
    }
}

/// Fills `out` with unpredictable bytes.
pub(crate) fn fill(out: &mut [u8]) {
    if aws_lc_rs::rand::fill(out).is_err() {
        // No caller could go on safely, and no caller could tell: a process without entropy must not live.
        std::process::abort();
    }
}

/// `N` unpredictable bytes in URL-safe base64.
pub(crate) fn random_text<const N: usize>() -> String {
    use base64::Engine;
    let mut bytes = zeroize::Zeroizing::new([0; N]);
    fill(&mut bytes[..]);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&bytes[..])
}
