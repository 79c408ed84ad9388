//! Small words that all kinds share when they say what a step did or saw.

use authority::target::{Evidence, Finding, Gravity};
use domain::Timestamp;

/// Evidence of these facts.
pub(crate) fn evidence<const N: usize>(facts: [(&'static str, &str); N]) -> Evidence {
    Evidence { facts: facts.into_iter().map(|(name, value)| (name, value.to_owned())).collect(), again_at: None }
}

/// Evidence for a credential that only its own expiry ends: the target has to be asked again then.
pub(crate) fn dies_by_itself(now: Timestamp, at: Timestamp) -> Evidence {
    let dead = now >= at;
    let ended = if dead { "expired" } else { "not_yet" };
    Evidence { again_at: (!dead).then_some(at), ..evidence([("ends_by", "expiry"), ("native_expiry", ended)]) }
}

/// Something that is as it should be.
pub(crate) fn fine(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { gravity: Gravity::Fine, check, found: found.into(), remedy: String::new() }
}

/// Something that should be better.
pub(crate) fn warning(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { gravity: Gravity::Warning, check, found: found.into(), remedy: remedy.into() }
}

/// Something that must not be.
pub(crate) fn broken(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { gravity: Gravity::Broken, check, found: found.into(), remedy: remedy.into() }
}
