//! The wall clock, distrusted: what holds when somebody sets it, in either direction, while this process runs. Time that was
//! handed to others (`iat`, `exp`) is wall time; how long something lives is counted on the monotonic clock as well, so that
//! setting the clock back gives no token and no proof a second life. Knows neither signatures nor tasks.

use crate::ports::Entropy;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::Timestamp;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use token::claims::AccessClaims;

/// How much the wall clock may move back unnoticed: what time synchronisation does every day.
const SLACK_MILLIS: i64 = 2_000;

/// What this process knows of the wall clock.
pub(crate) struct WallWatch {
    /// Names this process in the ids of its tokens.
    process: String,
    /// The latest time that was seen, in milliseconds.
    latest: AtomicI64,
}

impl WallWatch {
    pub(crate) fn new(entropy: &dyn Entropy) -> Self {
        let mut process = [0; 6];
        entropy.fill(&mut process);
        Self { process: URL_SAFE_NO_PAD.encode(process), latest: AtomicI64::new(i64::MIN) }
    }

    /// Notes the time, and whether the wall clock lies behind where it was. Ends by itself when it has caught up.
    pub(crate) fn is_behind(&self, now: Timestamp) -> bool {
        let (now, latest) = (now.millis(), self.latest.load(Ordering::Relaxed));
        // Written about once a second, not with every request.
        if now > latest.saturating_add(1_000) {
            self.latest.fetch_max(now, Ordering::Relaxed);
        }
        now < latest.saturating_sub(SLACK_MILLIS)
    }

    /// The id of a new token: it tells this process how old the token is, whatever the wall clock says.
    pub(crate) fn token_id(&self, elapsed: Duration, random: &str) -> String {
        format!("{}.{}.{random}", self.process, elapsed.as_secs())
    }

    /// Whether a token of this process is older than it may become. Tokens of an earlier process are only as old as the
    /// wall clock says.
    pub(crate) fn outlived(&self, claims: &AccessClaims, elapsed: Duration) -> bool {
        let mut parts = claims.token_id.splitn(3, '.');
        let (process, made_at) = (parts.next(), parts.next());
        let Some(made_at) = made_at.filter(|_| process == Some(&self.process)).and_then(|secs| secs.parse::<u64>().ok()) else {
            return false;
        };
        let lifetime = u64::try_from(claims.expires_at.since(claims.issued_at)).unwrap_or(0);
        elapsed.as_secs().saturating_sub(made_at) > lifetime
    }
}
