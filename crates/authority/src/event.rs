//! What the log says: the body of every kind of entry. Owns names and shapes of the entries (documented in
//! `docs/log.md`), never when one is written. An entry is canonical JSON: members sorted, no white space.
//!
//! Members of the structs below stand in alphabetical order, because `serde` writes them in order of declaration;
//! a test holds that.

use crate::error::Error;
use crate::opening::Openings;
use crate::ports::{EVENT_BYTES_MAX, Entropy, LedgerError};
use data_encoding::HEXLOWER;
use domain::{Determining, Facts, Timestamp, Verdict};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Longest text that the log shows in clear for one argument; longer ones are committed to.
const CLEAR_BYTES_MAX: usize = 256;
/// Most arguments that are committed to one by one; of more, the whole is one commitment under `*`.
const COMMITTED_MAX: usize = 32;
const NAME_BYTES_MAX: usize = 64;
/// The name of the commitment to a subject that is shown in part.
const SUBJECT: &str = "$subject";

/// One decision: what was asked by whom under which task, what was answered and by which policy.
#[derive(Debug, Serialize)]
pub(crate) struct DecisionEvent<'a> {
    pub agent: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Arguments<'a>>,
    pub at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims_sha256: Option<&'a str>,
    pub decision: &'a str,
    pub determining: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    pub facts: FactsRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<&'a str>,
    pub intent: &'a str,
    pub operation: &'a str,
    pub outcome: &'a str,
    pub owner: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub params: Option<Arguments<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan_sha256: Option<String>,
    pub policy: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<&'a str>,
    pub task: &'a str,
    pub r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadRecord<'a>>,
}

/// Who proved itself.
#[derive(Debug, Serialize)]
pub(crate) struct WorkloadRecord<'a> {
    pub issuer: &'a str,
    pub provider: &'a str,
    pub subject: &'a str,
}

/// The facts that a decision used.
#[derive(Debug, Serialize)]
pub(crate) struct FactsRecord {
    pub approved: bool,
    pub attested_secs_ago: u64,
    pub binding: &'static str,
    pub calls_used: u64,
    pub read_sensitivity: i64,
    pub read_untrusted: bool,
}

impl From<&Facts> for FactsRecord {
    fn from(facts: &Facts) -> Self {
        Self {
            approved: facts.approved,
            attested_secs_ago: facts.attested_secs_ago,
            binding: facts.binding.as_str(),
            calls_used: facts.calls_used,
            read_sensitivity: facts.labels.read_sensitivity.level(),
            read_untrusted: facts.labels.read_untrusted,
        }
    }
}

/// Named values: some in clear, the others as commitments.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Arguments<'a> {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub clear: BTreeMap<&'a str, &'a Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub committed: BTreeMap<&'a str, String>,
}

impl<'a> Arguments<'a> {
    /// Records arguments: those that `clear` names and that are small scalars in clear, all others as commitments
    /// whose openings are put into `openings`.
    pub(crate) fn record(
        arguments: &'a Map<String, Value>,
        clear: &[String],
        openings: &mut Openings,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut record = Self::default();
        let shown = |name: &str, value: &Value| clear.iter().any(|clear| clear == name) && is_small_scalar(value);
        let hidden: Vec<_> = arguments.iter().filter(|(name, value)| !shown(name, value)).collect();
        if hidden.len() > COMMITTED_MAX || hidden.iter().any(|(name, _)| name.len() > NAME_BYTES_MAX) {
            let all = Value::Object(arguments.clone());
            record.committed.insert("*", openings.commit("*", &all, entropy));
            return record;
        }
        for (name, value) in hidden {
            record.committed.insert(name, openings.commit(name, value, entropy));
        }
        record.clear =
            arguments.iter().filter(|(name, value)| shown(name, value)).map(|(name, value)| (name.as_str(), value)).collect();
        record
    }

    /// Commits to the whole of a subject that the entry shows only in part. After all else: a caller's own argument of this
    /// name must not take its place.
    pub(crate) fn commit_subject(&mut self, whole: &str, openings: &mut Openings, entropy: &dyn Entropy) {
        self.clear.remove(SUBJECT);
        self.committed.insert(SUBJECT, openings.commit(SUBJECT, &whole.into(), entropy));
    }

    /// Records parameters of a task: in clear unless their intent calls them sensitive.
    pub(crate) fn of_params(
        params: &'a Map<String, Value>,
        sensitive: &BTreeSet<&str>,
        openings: &mut Openings,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut record = Self::default();
        for (name, value) in params {
            if sensitive.contains(name.as_str()) {
                record.committed.insert(name, openings.commit(name, value, entropy));
            } else {
                record.clear.insert(name, value);
            }
        }
        record
    }
}

fn is_small_scalar(value: &Value) -> bool {
    match value {
        Value::Bool(_) | Value::Number(_) => true,
        Value::String(text) => text.len() <= CLEAR_BYTES_MAX,
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// What became of an allowed call.
#[derive(Debug, Serialize)]
pub(crate) struct OutcomeEvent<'a> {
    pub agent: &'a str,
    pub at: i64,
    pub bytes: u64,
    pub decision: &'a str,
    pub millis: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_sha256: Option<String>,
    pub status: &'static str,
    pub task: &'a str,
    pub r#type: &'static str,
}

/// What an upstream said without a decided request, before it is given to the agent: the labels that the task has from then
/// on, and the policy version that says so.
#[derive(Debug, Serialize)]
pub(crate) struct HeardEvent<'a> {
    pub agent: &'a str,
    pub at: i64,
    pub intent: &'a str,
    pub policy: &'a str,
    pub read_sensitivity: i64,
    pub read_untrusted: bool,
    pub task: &'a str,
    pub r#type: &'static str,
    pub upstream: &'a str,
    pub what: &'static str,
}

/// The end of a task.
#[derive(Debug, Serialize)]
pub(crate) struct EndEvent<'a> {
    pub agent: &'a str,
    pub at: i64,
    pub by: &'a str,
    pub calls_used: u64,
    pub intent: &'a str,
    pub reason: &'static str,
    pub task: &'a str,
    pub r#type: &'static str,
}

/// Evidence that was refused, so that nothing came of it.
#[derive(Debug, Serialize)]
pub(crate) struct RefusalEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<&'a str>,
    pub at: i64,
    pub outcome: &'static str,
    pub reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
    pub r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadRecord<'a>>,
}

/// Anything that an operator, or Writ itself, changed.
#[derive(Debug, Serialize)]
pub(crate) struct ChangeEvent<'a> {
    pub at: i64,
    pub by: &'a str,
    pub detail: BTreeMap<&'a str, Value>,
    pub r#type: &'a str,
}

/// The canonical bytes of an event.
pub(crate) fn encode(event: &impl Serialize) -> Result<Vec<u8>, Error> {
    let bytes = serde_json::to_vec(event).map_err(|_| Error::Unacceptable("an event could not be written as JSON"))?;
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(LedgerError::TooLarge(bytes.len()).into());
    }
    Ok(bytes)
}

pub(crate) fn ids(determining: &[Determining]) -> Vec<&str> {
    determining.iter().map(|policy| policy.id.as_str()).collect()
}

pub(crate) fn reason(verdict: &Verdict) -> Option<&'static str> {
    verdict.reason.map(domain::Reason::as_str)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

pub(crate) fn change<'a>(
    kind: &'a str,
    by: &'a str,
    at: Timestamp,
    detail: impl IntoIterator<Item = (&'a str, Value)>,
) -> Result<Vec<u8>, Error> {
    encode(&ChangeEvent { at: at.millis(), by, detail: detail.into_iter().collect(), r#type: kind })
}
