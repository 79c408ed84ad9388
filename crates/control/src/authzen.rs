//! The decision API for other enforcement points: OpenID AuthZEN Authorization API 1.0 (§6 evaluation, §7 evaluations).
//! The subject is a task; the action and resource name one request of it. What is answered was decided by the authority
//! and is in the log before the answer leaves; nothing is decided here.

#[cfg(fuzzing)]
pub mod door;

use crate::App;
use crate::authenticate::{self, enforcement_point};
use crate::body::{self, AUTHZEN_BYTES_MAX};
use crate::operation::Asked;
use crate::problem::{Fault, Problem};
use authority::{Caller, Decision, Denial, Over};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use domain::{Binding, DecisionId, Outcome, TaskId};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use serde::Serialize;
use serde_json::{Map, Value, json};
use token::dpop::TargetUri;

/// Most evaluations of one request.
const EVALUATIONS_MAX: usize = 100;

/// Who asks.
enum Asker {
    /// An enforcement point, about any task.
    Point,
    /// An agent, about its own task.
    Agent(Box<Caller>),
}

/// One answer (§6.2).
#[derive(Debug, Serialize)]
struct Answer {
    decision: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<Context>,
}

/// Why, for people and for the log of the enforcement point.
#[derive(Debug, Default, Serialize)]
struct Context {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approvers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
}

/// `POST /access/v1/evaluation`
pub(crate) async fn evaluation(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let asker = asker(&app, &parts, &app.proofs.evaluation)?;
    let value = body::json(&parts.headers, body, AUTHZEN_BYTES_MAX).await?;
    let request = body::object(value, "the request")?;
    let question = Question::read(&request, None).map_err(ill_formed)?;
    decide(&app, &asker, question).await.map(|answer| answered(&answer))
}

/// `POST /access/v1/evaluations`
pub(crate) async fn evaluations(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let asker = asker(&app, &parts, &app.proofs.evaluations)?;
    let value = body::json(&parts.headers, body, AUTHZEN_BYTES_MAX).await?;
    let request = body::object(value, "the request")?;
    let semantic = Semantic::read(&request)?;
    let items = match request.get("evaluations") {
        None => &[][..],
        Some(Value::Array(items)) if items.len() <= EVALUATIONS_MAX => items,
        Some(Value::Array(_)) => return Err(Problem::invalid(format!("at most {EVALUATIONS_MAX} evaluations at once"))),
        Some(_) => return Err(Problem::invalid("`evaluations` must be an array")),
    };
    if items.is_empty() {
        // §7.1: without evaluations this is a single evaluation.
        let question = Question::read(&request, None).map_err(ill_formed)?;
        return decide(&app, &asker, question).await.map(|answer| answered(&answer));
    }
    let answers = match semantic {
        Semantic::ExecuteAll => futures_util::future::join_all(items.iter().map(|item| one(&app, &asker, item, &request))).await,
        Semantic::StopAt(stop) => {
            let mut answers = Vec::new();
            for item in items {
                answers.push(one(&app, &asker, item, &request).await);
                if answers.last().is_some_and(|answer| answer.decision == stop) {
                    break;
                }
            }
            answers
        }
    };
    Ok(answered(&json!({ "evaluations": answers })))
}

/// How a batch is worked through (§7.1.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Semantic {
    ExecuteAll,
    StopAt(bool),
}

impl Semantic {
    fn read(request: &Map<String, Value>) -> Result<Self, Problem> {
        let options = match request.get("options") {
            None => return Ok(Self::ExecuteAll),
            Some(Value::Object(options)) => options,
            Some(_) => return Err(Problem::invalid("`options` must be an object")),
        };
        match options.get("evaluations_semantic").map(Value::as_str) {
            None | Some(Some("execute_all")) => Ok(Self::ExecuteAll),
            Some(Some("deny_on_first_deny")) => Ok(Self::StopAt(false)),
            Some(Some("permit_on_first_permit")) => Ok(Self::StopAt(true)),
            Some(_) => Err(Problem::invalid(
                "`options.evaluations_semantic` must be `execute_all`, `deny_on_first_deny` or `permit_on_first_permit`",
            )),
        }
    }
}

/// One evaluation of a batch. What is wrong with it alone does not spoil the others (§7.2.1).
async fn one(app: &App, asker: &Asker, item: &Value, defaults: &Map<String, Value>) -> Answer {
    let failed = |status: StatusCode, message: String| Answer {
        decision: false,
        context: Some(Context { error: Some(json!({ "status": status.as_u16(), "message": message })), ..Context::default() }),
    };
    let Value::Object(item) = item else {
        return failed(StatusCode::BAD_REQUEST, "an evaluation must be an object".to_owned());
    };
    match Question::read(item, Some(defaults)) {
        Err(faults) => {
            let faults: Vec<_> = faults.iter().map(|fault| format!("`{}` {}", fault.at, fault.detail)).collect();
            failed(StatusCode::BAD_REQUEST, faults.join("; "))
        }
        Ok(question) => match decide(app, asker, question).await {
            Ok(answer) => answer,
            Err(problem) => failed(StatusCode::FORBIDDEN, problem.to_string()),
        },
    }
}

fn asker(app: &App, parts: &Parts, uri: &TargetUri) -> Result<Asker, Problem> {
    if enforcement_point(app, &parts.headers)?.is_some() {
        return Ok(Asker::Point);
    }
    authenticate::agent(app, parts, uri).map(|caller| Asker::Agent(Box::new(caller)))
}

/// What is asked, well formed, but perhaps about things that do not exist.
struct Question<'a> {
    subject: (&'a str, &'a str),
    action: &'a str,
    resource: (&'a str, &'a str),
    /// How the enforcement point saw the task's token to be bound (`subject.properties.binding`); the least if it does not
    /// say. An agent that asks about itself proves its own.
    binding: Binding,
    properties: Option<&'a Map<String, Value>>,
}

impl<'a> Question<'a> {
    /// Reads a question; an entity that is absent is taken whole from `defaults` (§7.1.1). Unknown members are ignored
    /// (§5), but what is there must have its type.
    fn read(item: &'a Map<String, Value>, defaults: Option<&'a Map<String, Value>>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let mut fault = |at: &str, detail: &str| faults.push(Fault { at: at.to_owned(), detail: detail.to_owned() });
        let mut entity = |name: &str, members: [&str; 2]| {
            let entity = match item.get(name).or_else(|| defaults.and_then(|defaults| defaults.get(name))) {
                Some(Value::Object(entity)) => entity,
                Some(_) => return fault(name, "must be an object"),
                None => return fault(name, "is missing"),
            };
            for member in members.into_iter().filter(|member| !member.is_empty()) {
                if !entity.get(member).is_some_and(Value::is_string) {
                    fault(&format!("{name}.{member}"), "must be a text");
                }
            }
            if entity.get("properties").is_some_and(|properties| !properties.is_object()) {
                fault(&format!("{name}.properties"), "must be an object");
            }
        };
        entity("subject", ["type", "id"]);
        entity("action", ["name", ""]);
        entity("resource", ["type", "id"]);
        let context = item.get("context").or_else(|| defaults.and_then(|defaults| defaults.get("context")));
        if context.is_some_and(|context| !context.is_object()) {
            fault("context", "must be an object");
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let entity = |name: &str| item.get(name).or_else(|| defaults.and_then(|defaults| defaults.get(name)));
        let binding = match entity("subject").and_then(|subject| subject.get("properties")?.get("binding")?.as_str()) {
            Some("dpop") => Binding::Dpop,
            Some("mtls") => Binding::Mtls,
            _ => Binding::Bearer,
        };
        let text = |name: &str, member: &str| entity(name).and_then(|entity| entity.get(member)?.as_str()).unwrap_or_default();
        Ok(Self {
            subject: (text("subject", "type"), text("subject", "id")),
            action: text("action", "name"),
            resource: (text("resource", "type"), text("resource", "id")),
            binding,
            properties: entity("resource").and_then(|resource| resource.get("properties")?.as_object()),
        })
    }

    /// The request that is asked about; `None` if there can be no such thing.
    fn asked(&self) -> Option<Asked> {
        let property = |name: &str| self.properties.and_then(|properties| properties.get(name));
        let arguments = match property("arguments") {
            None => Map::new(),
            Some(Value::Object(arguments)) => arguments.clone(),
            Some(_) => return None,
        };
        match (self.resource.0, self.action) {
            ("upstream", tool) => {
                Some(Asked::Tool { upstream: self.resource.1.parse().ok()?, tool: tool.parse().ok()?, arguments })
            }
            ("tool", "tools/call") => {
                let (upstream, tool) = self.resource.1.split_once('/')?;
                Some(Asked::Tool { upstream: upstream.parse().ok()?, tool: tool.parse().ok()?, arguments })
            }
            ("prompt", "prompts/get") => {
                let (upstream, name) = self.resource.1.split_once('/')?;
                Some(Asked::Prompt { upstream: upstream.parse().ok()?, name: name.to_owned(), arguments })
            }
            ("resource", "resources/read") => {
                let upstream = property("upstream")?.as_str()?.parse().ok()?;
                Some(Asked::Resource { upstream, uri: self.resource.1.to_owned() })
            }
            _ => None,
        }
    }
}

fn ill_formed(faults: Vec<Fault>) -> Problem {
    let faults: Vec<_> = faults.iter().map(|fault| format!("`{}` {}", fault.at, fault.detail)).collect();
    Problem::invalid(faults.join("; "))
}

async fn decide(app: &App, asker: &Asker, question: Question<'_>) -> Result<Answer, Problem> {
    let task = Some(question.subject.1).filter(|_| question.subject.0 == "task").and_then(|id| id.parse::<TaskId>().ok());
    if let Asker::Agent(caller) = asker
        && task != Some(caller.task())
    {
        let detail = format!("the subject must be the task of your token: {{\"type\":\"task\",\"id\":\"{}\"}}", caller.task());
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    // What does not exist is denied like what is not allowed (§6.2); there is no task whose log it could stand in.
    let Some(task) = task else { return Ok(unknown("there is no such open task")) };
    let Some(asked) = question.asked() else { return Ok(unknown("there is no such action on such a resource")) };
    let decision = match asker {
        Asker::Agent(caller) => Some(app.authority.decide(caller, asked.operation()).await),
        Asker::Point => app.authority.decide_for(task, question.binding, asked.operation()).await,
    };
    if let Some(decision) = &decision {
        let (outcome, reason) = match decision {
            Decision::Allow(_) => (Outcome::Allow, None),
            Decision::Deny(denial) => (Outcome::Deny, Some(denial.reason)),
            Decision::Ask(denial) => (Outcome::Ask, Some(denial.reason)),
            Decision::Failed(denial) => (Outcome::Failed, Some(denial.reason)),
        };
        app.observer.decided(outcome, reason);
    }
    Ok(match decision {
        None => unknown("there is no such open task"),
        Some(Decision::Allow(permit)) => match permit.hand_over() {
            Ok(decision) => allowed(decision),
            Err(over) => unreleased(over),
        },
        Some(Decision::Deny(denial) | Decision::Ask(denial) | Decision::Failed(denial)) if hides(app, asker, &denial, &asked) => {
            hidden(&denial)
        }
        Some(Decision::Deny(denial)) => denied("deny", denial),
        Some(Decision::Ask(denial)) => denied("ask", denial),
        Some(Decision::Failed(denial)) => denied("failed", denial),
    })
}

/// Whether an answer in full would tell an agent of what its task must not know. Enforcement points are told everything.
fn hides(app: &App, asker: &Asker, denial: &Denial, asked: &Asked) -> bool {
    match asker {
        Asker::Agent(caller) => app.authority.hides(caller, denial, &asked.operation()),
        Asker::Point => false,
    }
}

/// The answer about what does not exist, was never approved, is out of reach or could never be allowed: one for all. Each
/// was decided and logged, so that they do not differ in time either; the log has the reason.
fn hidden(denial: &Denial) -> Answer {
    let context = Context {
        id: denial.decision.map(|id| id.to_string()),
        outcome: Some("deny"),
        reason: Some("unknown"),
        explanation: Some("there is no such thing within the reach of this task".to_owned()),
        ..Context::default()
    };
    Answer { decision: false, context: Some(context) }
}

fn allowed(decision: DecisionId) -> Answer {
    let context = Context { id: Some(decision.to_string()), outcome: Some("allow"), ..Context::default() };
    Answer { decision: true, context: Some(context) }
}

fn denied(outcome: &'static str, denial: Denial) -> Answer {
    let context = Context {
        id: denial.decision.map(|id| id.to_string()),
        outcome: Some(outcome),
        reason: Some(denial.reason.as_str()),
        explanation: Some(denial.explanation),
        policies: denial.policies,
        approvers: denial.approvers,
        error: None,
    };
    Answer { decision: false, context: Some(context) }
}

/// What was allowed, but not handed over.
fn unreleased(over: Over) -> Answer {
    let (reason, explanation) = match over {
        Over::TaskEnded(reason) => ("task_ended", format!("the task has ended ({})", reason.as_str())),
        Over::TokenRevoked => ("token_revoked", "the access token was revoked".to_owned()),
        Over::PolicyChanged => ("policy_changed", "the policy changed while this was decided; ask again".to_owned()),
    };
    let context = Context { outcome: Some("deny"), reason: Some(reason), explanation: Some(explanation), ..Context::default() };
    Answer { decision: false, context: Some(context) }
}

fn unknown(explanation: &str) -> Answer {
    let context = Context {
        outcome: Some("deny"),
        reason: Some("unknown"),
        explanation: Some(explanation.to_owned()),
        ..Context::default()
    };
    Answer { decision: false, context: Some(context) }
}

fn answered(body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => {
            let mut response = bytes.into_response();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err(error) => {
            let internal = StatusCode::INTERNAL_SERVER_ERROR;
            Problem::failure(internal, "failed", "the answer could not be written", error).into_response()
        }
    }
}
