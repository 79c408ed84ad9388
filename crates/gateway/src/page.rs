//! Points at which lists go on. What an upstream hands out as one is sealed for the task and the list that it was handed out
//! for: a cursor of a client's own making is text to the upstream that nobody decided on. MCP "Pagination".

use crate::envelope::{Bond, State};
use crate::flight::Flight;
use crate::mcp::object::Members;
use crate::respond::Refusal;
use crate::serve::{Incoming, rewritten};
use crate::upstream::UpstreamError;
use domain::{TaskId, UpstreamName};
use serde_json::{Map, Value, json};

fn bond(task: TaskId, upstream: &UpstreamName, method: &str) -> Bond {
    Bond::new(task, upstream, method, &Map::new())
}

/// Seals where the list goes on. An empty point is left: many servers mean the end by it, and it says nothing.
pub(crate) fn seal(flight: &Flight, method: &str, members: &mut Members<'_>) -> Result<(), UpstreamError> {
    match members.value("nextCursor") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(cursor)) if cursor.is_empty() => Ok(()),
        Some(Value::String(cursor)) => {
            let bond = bond(flight.caller.task(), flight.shape.upstream(), method);
            let sealed = flight.gateway.seal(&bond, &State::Cursor(cursor));
            members.set("nextCursor", &json!(sealed.ok_or(UpstreamError::Protocol("`nextCursor` cannot be sealed"))?));
            Ok(())
        }
        Some(_) => Err(UpstreamError::Protocol("`nextCursor` is no string")),
    }
}

impl Incoming {
    /// Puts the upstream's own cursor in the place of the sealed one that the client brings back.
    pub(crate) fn open_cursor(&mut self) -> Result<(), Refusal> {
        let said = self.request.params.as_ref().and_then(|params| params.value().get("cursor"));
        let text = match said {
            None => return Ok(()),
            Some(Value::String(text)) if text.is_empty() => return Ok(()),
            Some(Value::String(text)) => text,
            Some(_) => return Err(self.invalid("`cursor` must be a string")),
        };
        let bond = bond(self.admitted.caller.task(), self.upstream(), &self.request.method);
        match self.gateway.envelope.open(&bond, text, self.gateway.authority.now()) {
            Ok(State::Cursor(cursor)) => {
                let cursor = json!(cursor);
                self.request.params =
                    self.request.params.take().map(|params| rewritten(params, |members| members.set("cursor", &cursor)));
                Ok(())
            }
            _ => Err(self.invalid("`cursor` is none that was handed out for this list; begin it again")),
        }
    }
}
