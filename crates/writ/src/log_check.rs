//! The offline check of a log folder: the Merkle log itself by the audit log's verifier, and on top of it what Writ puts
//! into the leaves: that each is JSON of the known form and that every node's own chain has no hole (design §7).
//! No network, no database, no word from the log about itself.

use auditlog::directory::Directory;
use auditlog::note::VerifierKey;
use auditlog::trust::TrustPolicy;
use auditlog::verify::{Options, Report, Verdict, verify};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use store::{ChainCheck, ChainFlaw};

/// What is to be checked, and by whose signatures.
pub(crate) struct Expected {
    /// The log folder.
    pub(crate) dir: PathBuf,
    /// Whose signatures count.
    pub(crate) trust: TrustPolicy,
    /// An earlier checkpoint that the log must extend.
    pub(crate) older: Option<Vec<u8>>,
    /// How old the newest entry may be.
    pub(crate) max_age_secs: Option<u64>,
}

/// What the check found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// Everything holds.
    Valid(Good),
    /// Everything holds, but too few witnesses cosigned.
    Unwitnessed(Good),
    /// Everything holds, but the newest entry is too old.
    Stale(Good),
    /// Something does not hold.
    Invalid {
        /// The file in which it shows.
        file: String,
        /// The entry at which it shows.
        index: Option<u64>,
        /// What is wrong.
        why: String,
    },
}

/// A log that holds.
#[derive(Debug)]
pub(crate) struct Good {
    report: Report,
    newest_at: Option<i64>,
    nodes: usize,
}

/// Trust in one log's key.
///
/// # Errors
/// It is not a verifier key.
pub(crate) fn trust_of_key(key: &str) -> anyhow::Result<TrustPolicy> {
    Ok(TrustPolicy::of_log(VerifierKey::parse(key.trim())?))
}

/// Trust as a policy file says.
///
/// # Errors
/// It is not a trust policy.
pub(crate) fn trust_of_policy(text: &[u8]) -> anyhow::Result<TrustPolicy> {
    Ok(TrustPolicy::parse(text)?)
}

/// Checks a log folder.
///
/// # Errors
/// Only if it cannot be read; whatever is wrong with it is a [`Finding::Invalid`].
pub(crate) fn check(expected: &Expected, progress: &mut dyn FnMut(u64, u64)) -> anyhow::Result<Finding> {
    if !expected.dir.is_dir() {
        anyhow::bail!("`{}` is not a log folder", expected.dir.display());
    }
    let mut chains = Chains::default();
    let options = Options { older: expected.older.as_deref(), entry: &mut |index, leaf| chains.add(index, leaf), progress };
    let verdict = verify(&Directory::new(&expected.dir), &expected.trust, options)?;
    let (report, witnessed) = match verdict {
        Verdict::Valid(report) => (report, true),
        Verdict::Unwitnessed(report) => (report, false),
        Verdict::Invalid(found) => {
            return Ok(Finding::Invalid { file: found.file, index: found.index, why: found.why.to_string() });
        }
    };
    if let Some((index, why)) = chains.broken {
        return Ok(Finding::Invalid { file: "tile/entries".to_owned(), index: Some(index), why: why.to_string() });
    }
    let stale = expected.max_age_secs.is_some_and(|max| chains.age_secs().is_none_or(|age| age > max));
    let good = Good { report, newest_at: chains.newest_at, nodes: chains.check.nodes() };
    Ok(match (stale, witnessed) {
        (true, _) => Finding::Stale(good),
        (false, false) => Finding::Unwitnessed(good),
        (false, true) => Finding::Valid(good),
    })
}

/// The part of a leaf that tells its time.
#[derive(Deserialize)]
struct Moment {
    event: Event,
}

#[derive(Deserialize)]
struct Event {
    at: Option<i64>,
}

/// The chains of all nodes, followed entry by entry, and the newest time that an entry tells.
#[derive(Default)]
struct Chains {
    check: ChainCheck,
    newest_at: Option<i64>,
    broken: Option<(u64, ChainFlaw)>,
}

impl Chains {
    fn add(&mut self, index: u64, leaf: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        self.broken = self.check.entry(leaf).err().map(|flaw| (index, flaw));
        let at = serde_json::from_slice(leaf).ok().and_then(|Moment { event }| event.at);
        self.newest_at = self.newest_at.max(at);
    }

    fn age_secs(&self) -> Option<u64> {
        let newest = domain::Timestamp::from_millis(self.newest_at?);
        Some(crate::system::now().secs_since(newest))
    }
}

impl Finding {
    fn good(&self) -> Option<&Good> {
        match self {
            Self::Valid(good) | Self::Unwitnessed(good) | Self::Stale(good) => Some(good),
            Self::Invalid { .. } => None,
        }
    }

    /// As JSON.
    pub(crate) fn to_json(&self, verdict: &str) -> Value {
        match self {
            Self::Invalid { file, index, why } => json!({ "verdict": verdict, "file": file, "index": index, "why": why }),
            Self::Valid(good) | Self::Unwitnessed(good) | Self::Stale(good) => json!({
                "verdict": verdict,
                "origin": good.report.origin,
                "size": good.report.head.size,
                "root": good.report.head.root.to_string(),
                "nodes": good.nodes,
                "newest_at": good.newest_at,
                "cosignatures": good.report.cosignatures,
                "extends": good.report.extends.map(|head| head.size),
            }),
        }
    }

    /// In one sentence.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Valid(good) => format!("all {} entries of `{}` hold", good.report.head.size, good.report.origin),
            Self::Unwitnessed(good) => {
                format!("all {} entries of `{}` hold, but too few witnesses cosigned", good.report.head.size, good.report.origin)
            }
            Self::Stale(good) => {
                format!("all {} entries of `{}` hold, but the newest is too old", good.report.head.size, good.report.origin)
            }
            Self::Invalid { file, index, why } => {
                let entry = index.map(|index| format!(", entry {index}")).unwrap_or_default();
                format!("`{file}`{entry}: {why}")
            }
        }
    }

    /// What else is worth saying.
    pub(crate) fn details(&self) -> Vec<String> {
        let Some(good) = self.good() else {
            return vec![
                "this log cannot be trusted: keep a copy as evidence, and compare it with copies that others hold".to_owned(),
            ];
        };
        let mut details = vec![format!("root {}", good.report.head.root)];
        if let Some(older) = good.report.extends {
            details.push(format!("extends the earlier checkpoint of {} entries: history was not rewritten", older.size));
        }
        if let Some(newest) = good.newest_at.and_then(|at| jiff::Timestamp::from_millisecond(at).ok()) {
            details.push(format!("newest entry {newest}"));
        }
        details.extend(good.report.cosignatures.iter().map(|(witness, _)| format!("witnessed by {witness}")));
        details
    }
}
