//! A logged decision, decided again: the log keeps what was asked and the kind of reason, but not the sentence, which may
//! hold parameters of the task. Possible while the policy that decided is in force and nothing was committed instead of
//! logged. Nothing follows from it, so nothing is logged. Knows no HTTP.

use crate::operation::Asked;
use authority::{Authority, Error, Explanation};
use domain::{Binding, Facts, Labels, Sensitivity, TaskId, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

/// What is needed of a decision in the log (`docs/log.md`).
#[derive(Deserialize)]
struct Logged {
    at: i64,
    task: String,
    operation: String,
    outcome: String,
    reason: Option<String>,
    upstream: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    arguments: Named,
    facts: Known,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    clear: Map<String, Value>,
    committed: Map<String, Value>,
}

#[derive(Deserialize)]
struct Known {
    approved: bool,
    attested_secs_ago: u64,
    binding: String,
    calls_used: u64,
    read_sensitivity: i64,
    read_untrusted: bool,
}

/// Why a decision that is in the log fell as it did; `None` where that cannot be told, or would come out otherwise now (the
/// agent's record may have changed, or it was no policy that refused).
///
/// # Errors
/// The archive's.
pub(crate) async fn explained(authority: &Authority, event: &Value) -> Result<Option<Explanation>, Error> {
    let Some((logged, task, asked)) = read(event) else { return Ok(None) };
    let Some(facts) = logged.facts() else { return Ok(None) };
    let explained = authority.explain_as_of(task, &facts, asked.operation()).await?;
    Ok(explained.filter(|explanation| {
        let verdict = &explanation.verdict;
        (verdict.outcome.as_str(), verdict.reason.map(domain::Reason::as_str))
            == (logged.outcome.as_str(), logged.reason.as_deref())
    }))
}

fn read(event: &Value) -> Option<(Logged, TaskId, Asked)> {
    let logged = Logged::deserialize(event).ok()?;
    if !logged.arguments.committed.is_empty() {
        return None;
    }
    let (task, upstream) = (logged.task.parse().ok()?, logged.upstream.as_deref()?.parse().ok()?);
    let (subject, arguments) = (logged.subject.clone()?, logged.arguments.clear.clone());
    let asked = match logged.operation.as_str() {
        "tools/call" => Asked::Tool { upstream, tool: subject.parse().ok()?, arguments },
        "resources/read" => Asked::Resource { upstream, uri: subject },
        "prompts/get" => Asked::Prompt { upstream, name: subject, arguments },
        _ => return None,
    };
    Some((logged, task, asked))
}

impl Logged {
    fn facts(&self) -> Option<Facts> {
        let Known { approved, attested_secs_ago, ref binding, calls_used, read_sensitivity, read_untrusted } = self.facts;
        let labels = Labels { read_untrusted, read_sensitivity: Sensitivity::from_level(read_sensitivity)? };
        let (now, binding) = (Timestamp::from_millis(self.at), Binding::from_word(binding)?);
        Some(Facts { now, labels, approved, calls_used, binding, attested_secs_ago })
    }
}
