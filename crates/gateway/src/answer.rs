//! What a client answers to a question of an upstream, on its way out: it is data that leaves, so it is decided like the
//! request that the question was asked for, as that would be decided now. A refusal of the client says nothing and always
//! passes. MCP "Elicitation", "Sampling", "Roots".

use crate::listen::Inner;
use crate::mcp::leaving;
use crate::mcp::message::{Params, Raw, strict_value};
use crate::mcp::object::Members;
use crate::mcp::version::code;
use crate::respond::{Refusal, error_object};
use crate::upstream::Connection;
use authority::{Caller, Decision, Over, Released};
use domain::{Operation, ToolName, UpstreamName};
use serde_json::{Map, Value, json};

/// Largest request that is kept so that an answer to a question of it can be decided.
pub(crate) const ASKING_BYTES_MAX: usize = 64 * 1_024;

/// A request that was decided, as much of it as deciding it again needs.
#[derive(Debug, Clone)]
pub(crate) struct Asking {
    method: Method,
    params: Raw,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Tool,
    Resource,
    Prompt,
}

/// Why an answer does not leave.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Policy, or what it is decided by, does not allow it (any more).
    Refused(String),
    /// The caller gets and sends nothing more.
    Over(Over),
}

impl From<Kept> for Refusal {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Refused(text) => {
                crate::respond::Fault::new(http::StatusCode::BAD_REQUEST, None, crate::respond::own_code::DENIED, text).into()
            }
            Kept::Over(over) => Self::Over(over),
        }
    }
}

impl Asking {
    /// What stands behind the questions of a request; `None` if it is none that is decided, or too large to be kept.
    pub(crate) fn of(method: &str, params: Option<&Params>) -> Option<Self> {
        let method = match method {
            "tools/call" => Method::Tool,
            "resources/read" => Method::Resource,
            "prompts/get" => Method::Prompt,
            _ => return None,
        };
        let params = params?.raw().clone();
        (params.as_bytes().len() <= ASKING_BYTES_MAX).then_some(Self { method, params })
    }

    /// How much is kept.
    pub(crate) fn bytes(&self) -> usize {
        self.params.as_bytes().len()
    }

    /// Decides it again, in the log, and lets it go once.
    pub(crate) async fn decide(
        &self,
        gateway: &Inner,
        caller: &Caller,
        at: (&UpstreamName, &Connection),
    ) -> Result<Released, Kept> {
        let gone = || Kept::Refused("the request that this answers is not what was approved any more".to_owned());
        let value = std::str::from_utf8(self.params.as_bytes()).ok().and_then(|text| strict_value(text).ok());
        let value = value.ok_or_else(gone)?;
        let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
        let none = Map::new();
        let arguments = value.get("arguments").and_then(Value::as_object).unwrap_or(&none);
        let (upstream, connection) = at;
        let tool: Option<ToolName> = text("name").parse().ok();
        let operation = match (self.method, &tool) {
            (Method::Tool, Some(tool)) if connection.tool_still_approved(tool) => {
                Operation::CallTool { upstream, tool, arguments }
            }
            (Method::Tool, _) => return Err(gone()),
            (Method::Resource, _) => Operation::ReadResource { upstream, uri: text("uri") },
            (Method::Prompt, _) => Operation::GetPrompt { upstream, name: text("name"), arguments },
        };
        decide(gateway, caller, operation).await
    }
}

async fn decide(gateway: &Inner, caller: &Caller, operation: Operation<'_>) -> Result<Released, Kept> {
    match gateway.authority.decide(caller, operation).await {
        Decision::Allow(permit) => permit.release().map_err(Kept::Over),
        Decision::Deny(denial) | Decision::Ask(denial) | Decision::Failed(denial) => {
            Err(Kept::Refused(format!("the answer was not passed on: {}", crate::respond::denial_text(&denial))))
        }
    }
}

/// Decides an answer that no decided request stands behind, in the log, and lets it go once: only while the task has read
/// nothing that could be in it. The entry commits to what leaves.
pub(crate) async fn decide_alone(
    gateway: &Inner,
    caller: &Caller,
    (upstream, question): (&UpstreamName, &str),
    leaving: &Leaving,
) -> Result<Released, Kept> {
    decide(gateway, caller, Operation::Answer { upstream, question, answer: &leaving.value }).await
}

/// The code of a client whose user said no (MCP "Sampling", "Error Handling").
const REJECTED: i64 = -1;

/// The answer to a question that says and wants nothing (MCP "Ping"): the gateway's own, so that it is no client's.
pub(crate) fn to_ping(method: &str) -> Option<Raw> {
    (method == "ping").then(|| Raw::from_value(&json!({})))
}

/// The answer of a client that says no, in words of ours; `None` if it says something.
pub(crate) fn refusal(outcome: &Result<Raw, Raw>) -> Option<Result<Raw, Raw>> {
    match outcome {
        Err(error) => {
            let known = [REJECTED, code::METHOD_NOT_FOUND, code::INVALID_PARAMS];
            let number = error.to_value().get("code").and_then(Value::as_i64).filter(|number| known.contains(number));
            let number = number.unwrap_or(code::INTERNAL_ERROR);
            Some(Err(Raw::from_value(&error_object(number, "the client did not answer", None))))
        }
        Ok(result) => match result.to_value().get("action").and_then(Value::as_str) {
            Some(action @ ("decline" | "cancel")) => Some(Ok(Raw::from_value(&json!({ "action": action })))),
            _ => None,
        },
    }
}

/// An answer as it leaves.
pub(crate) struct Leaving {
    pub(crate) raw: Raw,
    value: Map<String, Value>,
}

/// An answer without what no protocol defines; `knows` tells whether work was begun by the same task.
///
/// # Errors
/// If readers could read it differently.
pub(crate) fn leaving(result: &Raw, knows: impl Fn(&str) -> bool) -> Result<Leaving, Kept> {
    let unclear = || Kept::Refused("an answer must be one object that everybody reads alike".to_owned());
    let value = std::str::from_utf8(result.as_bytes()).ok().and_then(|text| strict_value(text).ok());
    let Some(Value::Object(mut value)) = value.filter(domain::json::is_exact) else { return Err(unclear()) };
    let left = value.get("_meta").and_then(|said| leaving::tags(said, knows, || None));
    let Some(left) = left else { return Ok(Leaving { raw: result.clone(), value }) };
    let mut members = Members::of(result).ok_or_else(unclear)?;
    members.set("_meta", &left.value);
    let raw = members.to_raw();
    value.insert("_meta".to_owned(), left.value);
    Ok(Leaving { raw, value })
}

/// What an upstream is told whose question was answered with something that must not leave.
pub(crate) fn kept_back() -> Raw {
    Raw::from_value(&error_object(code::INTERNAL_ERROR, "the client's answer was not passed on", None))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn an_answer_that_readers_could_read_differently_does_not_leave() {
        let left = |text: &str| leaving(&Raw::from_json(text.to_owned().into()).unwrap(), |_| false).map(|left| left.raw);
        for text in [r#"{"roots":[],"roots":["secret"]}"#, r#"{"a":1e999}"#, r#"{"a":12345678901234567890123}"#, "[]", "7"] {
            assert!(left(text).is_err(), "{text}");
        }
        assert_eq!(left(r#"{ "a" : 1.50, "_meta": { "note": 1 } }"#).unwrap().as_bytes(), br#"{"a":1.50,"_meta":{}}"#);
        assert_eq!(left(r#"{ "a" : 1.50 }"#).unwrap().as_bytes(), br#"{ "a" : 1.50 }"#);
    }

    #[test]
    fn a_client_that_says_no_says_nothing_else() {
        let raw = |value: Value| Raw::from_value(&value);
        let declined = refusal(&Ok(raw(json!({ "action": "decline", "content": { "secret": "x" } })))).unwrap().unwrap();
        assert_eq!(declined.to_value(), json!({ "action": "decline" }));
        let failed = refusal(&Err(raw(json!({ "code": -1, "message": "secret", "data": "secret" })))).unwrap().unwrap_err();
        assert_eq!(failed.to_value(), json!({ "code": -1, "message": "the client did not answer" }));
        let coded = refusal(&Err(raw(json!({ "code": 1_234_567, "message": "secret" })))).unwrap().unwrap_err();
        assert_eq!(coded.to_value()["code"], code::INTERNAL_ERROR, "a number of the client's choice says something");
        for answer in [json!({ "action": "accept" }), json!({ "roots": [] }), json!({ "content": {} })] {
            assert!(refusal(&Ok(raw(answer))).is_none());
        }
    }
}
