//! Storage twins of the domain's words: JSON in, JSON out, checked on the way back. Owns the stored form alone;
//! a record that does not parse back is damage, never a default.

use std::collections::BTreeSet;

use domain::{
    Agent, AgentId, AgentState, ClaimPattern, IdentityRule, Injection, IntentName, OwnerId, Params, Progress, ProviderName,
    SecretRef, Task, TaskId, Timestamp, Transport, Upstream, UpstreamName, Value, WorkloadIdentity,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value as Json};

/// A stored record does not describe a value of the domain.
#[derive(Debug, thiserror::Error)]
#[error("a stored {0} does not parse")]
pub(crate) struct Unreadable(pub(crate) &'static str);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentRecord {
    owner: Option<String>,
    purpose: String,
    rules: Vec<RuleRecord>,
    intents: Vec<String>,
    review_by: i64,
    suspended: bool,
    allow_bearer: bool,
    #[serde(default)]
    declared: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleRecord {
    provider: String,
    claims: Vec<(String, PatternRecord)>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PatternRecord {
    Exact(Json),
    Prefix(String),
}

pub(crate) fn encode_agent(agent: &Agent) -> Result<String, Unreadable> {
    encode(
        "agent",
        &AgentRecord {
            owner: agent.owner.as_ref().map(|owner| owner.as_str().to_owned()),
            purpose: agent.purpose.clone(),
            rules: agent.rules.iter().map(rule_record).collect(),
            intents: agent.intents.iter().map(|intent| intent.as_str().to_owned()).collect(),
            review_by: agent.review_by.millis(),
            suspended: agent.state == AgentState::Suspended,
            allow_bearer: agent.allow_bearer,
            declared: agent.declared,
        },
    )
}

fn rule_record(rule: &IdentityRule) -> RuleRecord {
    let pattern = |pattern: &ClaimPattern| match pattern {
        ClaimPattern::Exact(value) => PatternRecord::Exact(value.clone()),
        ClaimPattern::Prefix(text) => PatternRecord::Prefix(text.clone()),
    };
    RuleRecord {
        provider: rule.provider.as_str().to_owned(),
        claims: rule.claims.iter().map(|(path, p)| (path.clone(), pattern(p))).collect(),
    }
}

pub(crate) fn decode_agent(id: &str, text: &str) -> Result<Agent, Unreadable> {
    let bad = || Unreadable("agent");
    let record: AgentRecord = decode("agent", text)?;
    let rule = |rule: RuleRecord| -> Result<IdentityRule, Unreadable> {
        let pattern = |pattern| match pattern {
            PatternRecord::Exact(value) => ClaimPattern::Exact(value),
            PatternRecord::Prefix(text) => ClaimPattern::Prefix(text),
        };
        Ok(IdentityRule {
            provider: rule.provider.parse::<ProviderName>().map_err(|_| bad())?,
            claims: rule.claims.into_iter().map(|(path, p)| (path, pattern(p))).collect(),
        })
    };
    Ok(Agent {
        id: id.parse::<AgentId>().map_err(|_| bad())?,
        owner: record.owner.map(|owner| owner.parse::<OwnerId>()).transpose().map_err(|_| bad())?,
        purpose: record.purpose,
        rules: record.rules.into_iter().map(rule).collect::<Result<_, _>>()?,
        intents: record.intents.iter().map(|i| i.parse::<IntentName>()).collect::<Result<_, _>>().map_err(|_| bad())?,
        review_by: Timestamp::from_millis(record.review_by),
        state: if record.suspended { AgentState::Suspended } else { AgentState::Active },
        allow_bearer: record.allow_bearer,
        declared: record.declared,
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpstreamRecord {
    owner: String,
    transport: TransportRecord,
    injection: Option<InjectionRecord>,
    timeout_secs: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TransportRecord {
    Http { url: String },
    Stdio { command: String, args: Vec<String>, env: Vec<(String, SecretRecord)>, vars: Vec<(String, String)> },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectionRecord {
    header: String,
    prefix: String,
    secret: SecretRecord,
}

/// Where a secret is; the secret itself is never stored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum SecretRecord {
    Env(String),
    File(String),
}

impl From<&SecretRef> for SecretRecord {
    fn from(secret: &SecretRef) -> Self {
        match secret {
            SecretRef::Env(name) => Self::Env(name.clone()),
            SecretRef::File(path) => Self::File(path.clone()),
        }
    }
}

impl From<SecretRecord> for SecretRef {
    fn from(secret: SecretRecord) -> Self {
        match secret {
            SecretRecord::Env(name) => Self::Env(name),
            SecretRecord::File(path) => Self::File(path),
        }
    }
}

pub(crate) fn encode_upstream(upstream: &Upstream) -> Result<String, Unreadable> {
    let transport = match &upstream.transport {
        Transport::Http { url } => TransportRecord::Http { url: url.clone() },
        Transport::Stdio { command, args, env, vars } => TransportRecord::Stdio {
            command: command.clone(),
            args: args.clone(),
            env: env.iter().map(|(name, secret)| (name.clone(), secret.into())).collect(),
            vars: vars.clone(),
        },
    };
    let injection = upstream.injection.as_ref().map(|injection| InjectionRecord {
        header: injection.header.clone(),
        prefix: injection.prefix.clone(),
        secret: (&injection.secret).into(),
    });
    let owner = upstream.owner.as_str().to_owned();
    encode("upstream", &UpstreamRecord { owner, transport, injection, timeout_secs: upstream.timeout_secs })
}

pub(crate) fn decode_upstream(name: &str, text: &str) -> Result<Upstream, Unreadable> {
    let bad = || Unreadable("upstream");
    let record: UpstreamRecord = decode("upstream", text)?;
    let transport = match record.transport {
        TransportRecord::Http { url } => Transport::Http { url },
        TransportRecord::Stdio { command, args, env, vars } => {
            Transport::Stdio { command, args, env: env.into_iter().map(|(name, s)| (name, s.into())).collect(), vars }
        }
    };
    Ok(Upstream {
        name: name.parse::<UpstreamName>().map_err(|_| bad())?,
        owner: record.owner.parse().map_err(|_| bad())?,
        transport,
        injection: record.injection.map(|i| Injection { header: i.header, prefix: i.prefix, secret: i.secret.into() }),
        timeout_secs: record.timeout_secs,
    })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkloadRecord {
    provider: String,
    issuer: String,
    subject: String,
    claims: Map<String, Json>,
}

pub(crate) fn encode_workload(workload: &WorkloadIdentity) -> Result<String, Unreadable> {
    let record = WorkloadRecord {
        provider: workload.provider.as_str().to_owned(),
        issuer: workload.issuer.clone(),
        subject: workload.subject.clone(),
        claims: workload.claims.clone(),
    };
    encode("workload", &record)
}

fn decode_workload(text: &str) -> Result<WorkloadIdentity, Unreadable> {
    let WorkloadRecord { provider, issuer, subject, claims } = decode("workload", text)?;
    let provider = provider.parse().map_err(|_| Unreadable("workload"))?;
    Ok(WorkloadIdentity { provider, issuer, subject, claims })
}

/// What never changes while a task lives; the rest has columns of its own.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskRecord {
    intent: String,
    params: Map<String, Json>,
    opened_at: i64,
    deadline: i64,
    calls_max: u64,
    idle_secs: Option<u64>,
    predecessor: Option<String>,
}

pub(crate) fn encode_task(task: &Task) -> Result<String, Unreadable> {
    encode(
        "task",
        &TaskRecord {
            intent: task.intent.as_str().to_owned(),
            params: task.params.to_json(),
            opened_at: task.opened_at.millis(),
            deadline: task.deadline.millis(),
            calls_max: task.calls_max,
            idle_secs: task.idle_secs,
            predecessor: task.predecessor.map(|id| id.to_string()),
        },
    )
}

/// The columns of a task's row that hold JSON, and what it is now.
pub(crate) struct TaskRow {
    pub(crate) id: TaskId,
    pub(crate) agent: String,
    pub(crate) record: String,
    pub(crate) workload: String,
    pub(crate) progress: Progress,
}

pub(crate) fn decode_task(row: TaskRow) -> Result<Task, Unreadable> {
    let bad = || Unreadable("task");
    let record: TaskRecord = decode("task", &row.record)?;
    let params = record.params.into_iter().map(|(name, value)| Ok((name, param(value).ok_or_else(bad)?)));
    Ok(Task {
        id: row.id,
        agent: row.agent.parse().map_err(|_| bad())?,
        intent: record.intent.parse().map_err(|_| bad())?,
        params: Params(params.collect::<Result<_, _>>()?),
        opened_at: Timestamp::from_millis(record.opened_at),
        deadline: Timestamp::from_millis(record.deadline),
        calls_max: record.calls_max,
        idle_secs: record.idle_secs,
        workload: decode_workload(&row.workload)?,
        predecessor: record.predecessor.map(|id| id.parse()).transpose().map_err(|_| bad())?,
        progress: row.progress,
    })
}

/// The inverse of [`Value::to_json`].
fn param(value: Json) -> Option<Value> {
    match value {
        Json::String(text) => Some(Value::Text(text)),
        Json::Bool(truth) => Some(Value::Bool(truth)),
        Json::Number(number) => number.as_i64().map(Value::Long),
        Json::Array(texts) => {
            let text = |item: Json| if let Json::String(text) = item { Some(text) } else { None };
            texts.into_iter().map(text).collect::<Option<BTreeSet<_>>>().map(Value::Texts)
        }
        Json::Null | Json::Object(_) => None,
    }
}

fn encode(what: &'static str, record: &impl Serialize) -> Result<String, Unreadable> {
    serde_json::to_string(record).map_err(|_| Unreadable(what))
}

fn decode<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, Unreadable> {
    serde_json::from_str(text).map_err(|_| Unreadable(what))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use domain::{EndReason, Labels, Sensitivity, TaskState};
    use serde_json::json;

    use super::*;

    fn object(value: Json) -> Map<String, Json> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn an_agent_comes_back_as_it_was() {
        let agent = Agent {
            id: "support-bot".parse().unwrap(),
            owner: Some("team-a".parse().unwrap()),
            purpose: "answers \"tickets\"".into(),
            rules: vec![IdentityRule {
                provider: "ci".parse().unwrap(),
                claims: vec![
                    ("sub".into(), ClaimPattern::Exact(json!({"a": [1, true, null]}))),
                    ("ref".into(), ClaimPattern::Prefix("refs/".into())),
                ],
            }],
            intents: vec!["refund-order".parse().unwrap()],
            review_by: Timestamp::from_millis(17),
            state: AgentState::Suspended,
            allow_bearer: true,
            declared: true,
        };
        assert_eq!(decode_agent("support-bot", &encode_agent(&agent).unwrap()).unwrap(), agent);
        let ownerless = Agent { owner: None, state: AgentState::Active, ..agent };
        assert_eq!(decode_agent("support-bot", &encode_agent(&ownerless).unwrap()).unwrap(), ownerless);
    }

    #[test]
    fn an_upstream_comes_back_as_it_was() {
        for transport in [
            Transport::Http { url: "https://orders.example/mcp".into() },
            Transport::Stdio {
                command: "server".into(),
                args: vec!["-v".into()],
                env: vec![("KEY".into(), SecretRef::File("/k".into()))],
                vars: vec![("MODE".into(), "x".into())],
            },
        ] {
            let secret = SecretRef::Env("ORDERS".into());
            let upstream = Upstream {
                name: "orders".parse().unwrap(),
                owner: "team-a".parse().unwrap(),
                transport,
                injection: Some(Injection { header: "authorization".into(), prefix: "Bearer ".into(), secret }),
                timeout_secs: 30,
            };
            assert_eq!(decode_upstream("orders", &encode_upstream(&upstream).unwrap()).unwrap(), upstream);
        }
    }

    #[test]
    fn a_task_comes_back_as_it_was() {
        let params = [
            ("a".to_owned(), Value::Text("7".into())),
            ("b".to_owned(), Value::Long(-7)),
            ("c".to_owned(), Value::Bool(false)),
            ("d".to_owned(), Value::Texts(["x".to_owned(), "y".to_owned()].into())),
        ];
        let task = Task {
            id: TaskId::from_bytes([1; 16]),
            agent: "support-bot".parse().unwrap(),
            intent: "refund-order".parse().unwrap(),
            params: Params(params.into()),
            opened_at: Timestamp::from_millis(1),
            deadline: Timestamp::from_millis(2),
            calls_max: 3,
            idle_secs: Some(4),
            workload: WorkloadIdentity {
                provider: "ci".parse().unwrap(),
                issuer: "https://ci.example".into(),
                subject: "s".into(),
                claims: object(json!({"n": {"m": 1.5}})),
            },
            predecessor: Some(TaskId::from_bytes([2; 16])),
            progress: Progress {
                calls_used: 1,
                labels: Labels { read_untrusted: true, read_sensitivity: Sensitivity::default() },
                seen_at: Timestamp::from_millis(5),
                attested_at: Timestamp::from_millis(6),
                state: TaskState::Ended { at: Timestamp::from_millis(7), reason: EndReason::Revoked },
            },
        };
        let row = TaskRow {
            id: task.id,
            agent: "support-bot".into(),
            record: encode_task(&task).unwrap(),
            workload: encode_workload(&task.workload).unwrap(),
            progress: task.progress,
        };
        assert_eq!(decode_task(row).unwrap(), task);
    }

    #[test]
    fn a_damaged_record_is_refused() {
        for text in ["", "{}", "null", "{\"owner\":null}"] {
            assert!(decode_agent("a", text).is_err());
            assert!(decode_upstream("a", text).is_err());
        }
        let good = encode(
            "x",
            &json!({"owner":null,"purpose":"","rules":[],"intents":[],"review_by":0,"suspended":false,"allow_bearer":false}),
        )
        .unwrap();
        decode_agent("a", &good).unwrap();
        assert!(decode_agent("A B", &good).is_err());
        assert!(decode_agent("a", &good.replace('}', ",\"extra\":1}")).is_err());
    }
}
