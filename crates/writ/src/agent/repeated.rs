//! Arguments of a call that a tool's definition wants repeated in headers, for clients that know no headers: learned from the
//! lists of tools that pass by, or asked for when the server says that something is missing. Knows no transport.
//! MCP 2026-07-28 "Custom Headers from Tool Parameters", "Header Mismatch".

use gateway::upstream::{MirroredParameter, encoded, mirrored};
use http::HeaderMap;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most tools that are remembered.
const TOOLS_MAX: usize = 2_000;
/// Header and body disagree: nothing was done.
const HEADER_MISMATCH: i64 = -32020;

/// What is known of the tools of one server.
#[derive(Default)]
pub(crate) struct Repeated(Mutex<HashMap<String, Vec<MirroredParameter>>>);

impl Repeated {
    fn known(&self) -> MutexGuard<'_, HashMap<String, Vec<MirroredParameter>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from a list of tools, if `answer` is one.
    pub(crate) fn learn(&self, answer: &Value) {
        let mut known = self.known();
        for tool in answer.pointer("/result/tools").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            let parameters = tool.get("inputSchema").and_then(mirrored).unwrap_or_default();
            if parameters.is_empty() {
                known.remove(name);
            } else if known.len() < TOOLS_MAX || known.contains_key(name) {
                known.insert(name.to_owned(), parameters);
            }
        }
    }

    /// Adds what this call repeats.
    pub(crate) fn add(&self, message: &Value, headers: &mut HeaderMap) {
        if !is_call(message) {
            return;
        }
        let none = Map::new();
        let arguments = message.pointer("/params/arguments").and_then(Value::as_object).unwrap_or(&none);
        let known = self.known();
        let name = message.pointer("/params/name").and_then(Value::as_str).unwrap_or_default();
        for parameter in known.get(name).into_iter().flatten() {
            let value = parameter.text(arguments).and_then(|text| encoded(&text));
            headers.extend(value.map(|value| (parameter.header.clone(), value)));
        }
    }
}

/// Whether the answer to a call says that its headers were wrong: then it was not made, and may be sent again once the
/// definition of the tool is known.
pub(crate) fn wants_headers(message: &Value, answer: &Value) -> bool {
    is_call(message) && answer.pointer("/error/code").and_then(Value::as_i64) == Some(HEADER_MISMATCH)
}

fn is_call(message: &Value) -> bool {
    message.get("method").and_then(Value::as_str) == Some("tools/call")
}

/// The request for a page of tools that the client of this call could have sent.
pub(crate) fn list_for(call: &Value, cursor: Option<&str>) -> Value {
    let mut tags = call.pointer("/params/_meta").cloned().unwrap_or_else(|| json!({}));
    if let Some(tags) = tags.as_object_mut() {
        tags.remove("progressToken");
    }
    let mut params = json!({ "_meta": tags });
    if let (Some(cursor), Some(params)) = (cursor, params.as_object_mut()) {
        params.insert("cursor".to_owned(), cursor.into());
    }
    json!({ "jsonrpc": "2.0", "id": "writ-tools", "method": "tools/list", "params": params })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    fn call(arguments: Value) -> Value {
        let tags = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "progressToken": 1 });
        json!({ "id": 1, "method": "tools/call", "params": { "name": "deploy", "arguments": arguments, "_meta": tags } })
    }

    fn list(schema: Value) -> Value {
        json!({ "result": { "tools": [{ "name": "deploy", "inputSchema": schema }] } })
    }

    fn headers(repeated: &Repeated, message: &Value) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        repeated.add(message, &mut headers);
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn what_a_definition_wants_repeated_is_repeated_and_nothing_else() {
        let repeated = Repeated::default();
        let message = call(json!({ "region": "größe", "count": 42, "note": "secret" }));
        assert!(headers(&repeated, &message).is_empty());
        let annotated = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" }, "count": { "type": "integer", "x-mcp-header": "Count" },
            "note": { "type": "string" } } });
        repeated.learn(&list(annotated));
        let mut said = headers(&repeated, &message);
        said.sort();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(said, [pair("mcp-param-count", "42"), pair("mcp-param-region", "=?base64?Z3LDtsOfZQ==?=")]);
        assert!(headers(&repeated, &call(json!({ "region": null }))).is_empty());
        let mut other = message;
        other["method"] = "prompts/get".into();
        assert!(headers(&repeated, &other).is_empty());
        // A newer definition counts.
        repeated.learn(&list(json!({ "type": "object", "properties": { "region": { "type": "string" } } })));
        assert!(headers(&repeated, &call(json!({ "region": "eu" }))).is_empty());
    }

    #[test]
    fn only_a_call_whose_headers_were_wrong_is_sent_again() {
        let mismatch = json!({ "error": { "code": -32020 } });
        assert!(wants_headers(&call(json!({})), &mismatch));
        assert!(!wants_headers(&call(json!({})), &json!({ "error": { "code": -32602 } })));
        assert!(!wants_headers(&call(json!({})), &json!({ "result": { "code": -32020 } })));
        assert!(!wants_headers(&json!({ "method": "resources/read" }), &mismatch));
        let list = list_for(&call(json!({})), Some("next"));
        assert_eq!(list["params"]["cursor"], "next");
        assert_eq!(list["params"]["_meta"], json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" }));
    }
}
