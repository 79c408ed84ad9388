//! What a client answers to a question of an upstream, on its way out: it is data that leaves, so it is decided like the
//! request that the question was asked for, as that would be decided now. A refusal of the client says nothing and always
//! passes. MCP "Elicitation", "Sampling", "Roots".

use crate::listen::Inner;
use crate::mcp::message::{Params, Raw, strict_value};
use crate::mcp::tags;
use crate::mcp::version::code;
use crate::respond::{Refusal, error_object};
use crate::upstream::Connection;
use authority::{Caller, Decision, Over, Released};
use domain::{Operation, Sensitivity, ToolName, UpstreamName};
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
        match gateway.authority.decide(caller, operation).await {
            Decision::Allow(permit) => permit.release().map_err(Kept::Over),
            Decision::Deny(denial) | Decision::Ask(denial) | Decision::Failed(denial) => {
                Err(Kept::Refused(format!("the answer was not passed on: {}", crate::respond::denial_text(&denial))))
            }
        }
    }
}

/// Whether an answer may leave that no decided request stands behind: only while the task has read nothing that could be in it.
pub(crate) fn may_leave_alone(caller: &Caller) -> Result<(), Kept> {
    if let Some(over) = caller.over() {
        return Err(Kept::Over(over));
    }
    match caller.live().progress().labels.read_sensitivity {
        Sensitivity::Public => Ok(()),
        _ => Err(Kept::Refused("no request stands behind this question, and the task has read what is not public".to_owned())),
    }
}

/// The answer of a client that says no, in words of ours; `None` if it says something.
pub(crate) fn refusal(outcome: &Result<Raw, Raw>) -> Option<Result<Raw, Raw>> {
    match outcome {
        Err(error) => {
            let number = error.to_value().get("code").and_then(Value::as_i64).unwrap_or(code::INTERNAL_ERROR);
            Some(Err(Raw::from_value(&error_object(number, "the client did not answer", None))))
        }
        Ok(result) => match result.to_value().get("action").and_then(Value::as_str) {
            Some(action @ ("decline" | "cancel")) => Some(Ok(Raw::from_value(&json!({ "action": action })))),
            _ => None,
        },
    }
}

/// An answer as it leaves: without what no protocol defines.
pub(crate) fn leaving(result: &Raw) -> Raw {
    tags::narrowed_raw(result.clone())
}

/// What an upstream is told whose question was answered with something that must not leave.
pub(crate) fn kept_back() -> Raw {
    Raw::from_value(&error_object(code::INTERNAL_ERROR, "the client's answer was not passed on", None))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_client_that_says_no_says_nothing_else() {
        let raw = |value: Value| Raw::from_value(&value);
        let declined = refusal(&Ok(raw(json!({ "action": "decline", "content": { "secret": "x" } })))).unwrap().unwrap();
        assert_eq!(declined.to_value(), json!({ "action": "decline" }));
        let failed = refusal(&Err(raw(json!({ "code": -1, "message": "secret", "data": "secret" })))).unwrap().unwrap_err();
        assert_eq!(failed.to_value(), json!({ "code": -1, "message": "the client did not answer" }));
        for answer in [json!({ "action": "accept" }), json!({ "roots": [] }), json!({ "content": {} })] {
            assert!(refusal(&Ok(raw(answer))).is_none());
        }
    }
}
