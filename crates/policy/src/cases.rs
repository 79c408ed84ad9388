//! `tests/*.toml`: what a policy folder promises, as cases that anybody can read. Owns the format; every case is one
//! ordinary decision (`writ policy test`).

use crate::catalog::{Kind, kind};
use crate::request::Request;
use crate::spelling::did_you_mean;
use crate::{Diagnostic, Policy, SourceFile, Sources, TargetOffers};
use domain::{
    Agent, AgentState, Binding, Facts, Intent, Labels, Offer, OfferName, Operation, Outcome, Progress, SecretOrigin, Sensitivity,
    Task, TaskId, TaskState, Timestamp, ToolName, UpstreamName, Verdict, WorkloadIdentity,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::ops::Range;
use std::str::FromStr;
use toml::Spanned;

/// How one case went.
#[derive(Debug, Clone)]
pub struct CaseResult {
    /// Its file.
    pub path: String,
    /// Its line, from 1.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Why it failed; `None` if it passed.
    pub failure: Option<String>,
    /// What policy said, if the case could be asked.
    pub verdict: Option<Verdict>,
}

/// How all cases went.
#[derive(Debug, Clone, Default)]
pub struct TestReport {
    /// Every case, in the order of files and lines.
    pub cases: Vec<CaseResult>,
    /// Test files that could not be read as such.
    pub faults: Vec<Diagnostic>,
}

impl TestReport {
    /// Whether every file was read and every case passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.faults.is_empty() && self.cases.iter().all(|case| case.failure.is_none())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFile {
    #[serde(default, rename = "case")]
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: Spanned<String>,
    intent: String,
    #[serde(default)]
    params: toml::Table,
    #[serde(default = "default_agent")]
    agent: String,
    #[serde(default = "default_agent")]
    owner: String,
    #[serde(default)]
    operation: Option<TaskOperation>,
    upstream: Option<String>,
    tool: Option<String>,
    resource: Option<String>,
    prompt: Option<String>,
    target: Option<String>,
    offer: Option<String>,
    lifetime_secs: Option<u64>,
    secret: Option<Secret>,
    #[serde(default)]
    arguments: toml::Table,
    #[serde(default)]
    facts: FactsTable,
    #[serde(default)]
    workload: WorkloadTable,
    expect: Expected,
    policy: Option<String>,
    approvers: Option<Vec<String>>,
    message: Option<String>,
    listed: Option<bool>,
}

fn default_agent() -> String {
    "test".to_owned()
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum TaskOperation {
    Open,
    Renew,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Secret {
    Caller,
    Writ,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Allow,
    Deny,
    Ask,
    Failed,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct FactsTable {
    #[serde(default)]
    read_untrusted: bool,
    read_sensitivity: Option<String>,
    #[serde(default)]
    approved: bool,
    #[serde(default)]
    calls_used: u64,
    #[serde(default)]
    now_secs: i64,
    binding: Option<String>,
    #[serde(default)]
    attested_secs_ago: u64,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WorkloadTable {
    provider: Option<String>,
    issuer: Option<String>,
    subject: Option<String>,
    #[serde(default)]
    claims: toml::Table,
}

/// Runs every case in `tests/`.
#[must_use]
pub fn run_tests(policy: &Policy, sources: &Sources) -> TestReport {
    let mut files: Vec<_> = sources.files.iter().filter(|file| kind(&file.path) == Kind::Tests).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut report = TestReport::default();
    for file in files {
        let Some(cases) = crate::toml_text::parse::<CaseFile>(&file.path, &file.text, &mut report.faults) else { continue };
        report.cases.extend(cases.cases.iter().map(|case| case.run(policy, file)));
    }
    report
}

/// What a case must name.
const WHAT: &str = "a case names `operation`, or `upstream` and one of `tool`, `resource`, `prompt`, or `target` and `offer`";

/// What is wrong with a case itself, in words.
type Broken = String;

impl Case {
    fn run(&self, policy: &Policy, file: &SourceFile) -> CaseResult {
        let span: Range<usize> = self.name.span();
        let line = Diagnostic::at(&file.path, &file.text, span, "").line;
        let (verdict, failure) = match self.ask(policy) {
            Ok((verdict, listed)) => {
                let failure = self.compare(&verdict, listed);
                (Some(verdict), failure)
            }
            Err(broken) => (None, Some(broken)),
        };
        CaseResult { path: file.path.clone(), line, name: self.name.get_ref().clone(), failure, verdict }
    }

    fn ask(&self, policy: &Policy) -> Result<(Verdict, bool), Broken> {
        let known = policy.intents().map(|intent| intent.name.as_str());
        let intent = self.intent.parse().ok().and_then(|name| policy.intent(&name));
        let intent = intent.ok_or_else(|| unknown("intent", &self.intent, known))?;
        let workload = self.workload.read()?;
        let facts = self.facts.read()?;
        let task = self.task(intent, &workload, &facts)?;
        let agent = self.agent(intent)?;
        let upstream = self.upstream.as_deref().map(word::<UpstreamName>).transpose()?;
        let tool = self.tool.as_deref().map(word::<ToolName>).transpose()?;
        let arguments = object(&self.arguments)?;
        let offered = self.offered(policy)?;
        let operation = match (self.operation, &upstream, &tool, &self.resource, &self.prompt) {
            (Some(TaskOperation::Open), None, None, None, None) => Operation::OpenTask,
            (Some(TaskOperation::Renew), None, None, None, None) => Operation::RenewTask,
            (None, Some(upstream), Some(tool), None, None) => Operation::CallTool { upstream, tool, arguments: &arguments },
            (None, Some(upstream), None, Some(uri), None) => Operation::ReadResource { upstream, uri },
            (None, Some(upstream), None, None, Some(name)) => Operation::GetPrompt { upstream, name, arguments: &arguments },
            (None, None, None, None, None) if let Some((target, offer)) = &offered => self.asked(target, offer, &arguments),
            _ => return Err(WHAT.to_owned()),
        };
        let request = Request { task: &task, agent: &agent, workload: &workload, operation, facts: &facts };
        Ok((policy.decide(&request), policy.could_allow(&task, &agent, &operation)))
    }

    /// The offer that the case names, and its target.
    fn offered<'p>(&self, policy: &'p Policy) -> Result<Option<(&'p TargetOffers, &'p Offer)>, Broken> {
        let (target, offer) = match (&self.target, &self.offer) {
            (None, None) => return Ok(None),
            (Some(target), Some(offer)) => (target, offer),
            _ => return Err(WHAT.to_owned()),
        };
        let known = policy.targets().map(|target| target.name.as_str());
        let found = target.parse().ok().and_then(|name| policy.target(&name)).ok_or_else(|| unknown("target", target, known))?;
        let known = found.offers.keys().map(OfferName::as_str);
        let offer = offer
            .parse()
            .ok()
            .and_then(|name: OfferName| found.offers.get(&name))
            .ok_or_else(|| unknown("offer", offer, known))?;
        Ok(Some((found, offer)))
    }

    fn asked<'a>(&self, target: &'a TargetOffers, offer: &'a Offer, arguments: &'a Map<String, Value>) -> Operation<'a> {
        let (target, http) = (&target.name, target.is_http());
        if http {
            return Operation::SendHttp { target, offer: &offer.name, arguments };
        }
        let secret = match self.secret {
            Some(Secret::Writ) => SecretOrigin::Writ,
            Some(Secret::Caller) | None => SecretOrigin::Caller,
        };
        let lifetime_secs = self.lifetime_secs.unwrap_or(offer.lifetime_secs);
        Operation::IssueCredential { target, offer: &offer.name, arguments, lifetime_secs, secret }
    }

    fn task(&self, intent: &Intent, workload: &WorkloadIdentity, facts: &Facts) -> Result<Task, Broken> {
        let params = intent.bind(&object(&self.params)?).map_err(|faults| {
            let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
            format!("`params` do not fit the intent: {}", faults.join("; "))
        })?;
        let limits = intent.limits.capped();
        Ok(Task {
            id: TaskId::from_bytes([0; 16]),
            agent: word(&self.agent)?,
            intent: intent.name.clone(),
            params,
            opened_at: facts.now,
            deadline: facts.now.plus_secs(limits.lifetime_secs),
            calls_max: limits.calls,
            idle_secs: limits.idle_secs,
            workload: workload.clone(),
            predecessor: None,
            progress: Progress {
                calls_used: facts.calls_used,
                labels: facts.labels,
                seen_at: facts.now,
                attested_at: facts.now,
                state: TaskState::Open,
            },
        })
    }

    fn agent(&self, intent: &Intent) -> Result<Agent, Broken> {
        Ok(Agent {
            id: word(&self.agent)?,
            owner: Some(word(&self.owner)?),
            purpose: String::new(),
            rules: Vec::new(),
            intents: vec![intent.name.clone()],
            review_by: Timestamp::from_millis(i64::MAX),
            state: AgentState::Active,
            allow_bearer: true,
            declared: false,
        })
    }

    fn compare(&self, verdict: &Verdict, listed: bool) -> Option<String> {
        let expected = match self.expect {
            Expected::Allow => Outcome::Allow,
            Expected::Deny => Outcome::Deny,
            Expected::Ask => Outcome::Ask,
            Expected::Failed => Outcome::Failed,
        };
        if verdict.outcome != expected {
            return Some(format!("expected {}, got {}: {}", expected.as_str(), verdict.outcome.as_str(), verdict.explanation));
        }
        if let Some(id) = self.policy.as_ref().filter(|id| !verdict.determining.iter().any(|policy| policy.id == **id)) {
            let by: Vec<_> = verdict.determining.iter().map(|policy| policy.id.as_str()).collect();
            return Some(format!("expected `{id}` to decide, decided by `{}`", by.join("`, `")));
        }
        if let Some(approvers) = self.approvers.as_ref().filter(|approvers| **approvers != verdict.approvers) {
            return Some(format!(
                "expected the approvers `{}`, got `{}`",
                approvers.join("`, `"),
                verdict.approvers.join("`, `")
            ));
        }
        if let Some(fragment) = self.message.as_ref().filter(|fragment| !verdict.explanation.contains(fragment.as_str())) {
            return Some(format!("expected an explanation with `{fragment}`, got `{}`", verdict.explanation));
        }
        let wanted = self.listed.filter(|wanted| *wanted != listed)?;
        Some(format!("expected listed = {wanted}, got {listed}"))
    }
}

impl FactsTable {
    fn read(&self) -> Result<Facts, Broken> {
        let read_sensitivity = self.read_sensitivity.as_deref().map(word::<Sensitivity>).transpose()?.unwrap_or_default();
        let bindings = [Binding::Dpop, Binding::Mtls, Binding::Bearer];
        let binding = self.binding.as_deref().unwrap_or(Binding::Dpop.as_str());
        let found = bindings.into_iter().find(|known| known.as_str() == binding);
        Ok(Facts {
            now: Timestamp::from_secs(self.now_secs),
            labels: Labels { read_untrusted: self.read_untrusted, read_sensitivity },
            approved: self.approved,
            calls_used: self.calls_used,
            binding: found.ok_or_else(|| unknown("binding", binding, bindings.map(Binding::as_str)))?,
            attested_secs_ago: self.attested_secs_ago,
        })
    }
}

impl WorkloadTable {
    fn read(&self) -> Result<WorkloadIdentity, Broken> {
        let or_test = |text: &Option<String>| text.clone().unwrap_or_else(default_agent);
        Ok(WorkloadIdentity {
            provider: word(&or_test(&self.provider))?,
            issuer: or_test(&self.issuer),
            subject: or_test(&self.subject),
            claims: object(&self.claims)?,
        })
    }
}

fn word<T: FromStr<Err = domain::Error>>(text: &str) -> Result<T, Broken> {
    text.parse().map_err(|error: domain::Error| error.to_string())
}

fn unknown<'a>(what: &str, given: &str, known: impl IntoIterator<Item = &'a str>) -> Broken {
    let help = did_you_mean(given, known).map_or_else(String::new, |help| format!("; {help}"));
    format!("no {what} `{}`{help}", crate::lock::shown(given))
}

fn object(table: &toml::Table) -> Result<Map<String, Value>, Broken> {
    match serde_json::to_value(table) {
        Ok(Value::Object(members)) => Ok(members),
        _ => Err("a value has no JSON form".to_owned()),
    }
}
