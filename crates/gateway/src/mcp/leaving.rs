//! What of a client itself an upstream is told: nothing in the client's own words. The name is ours; of its capabilities and
//! of `_meta` the flags, numbers and ids pass that the protocol defines, since no policy sees them. Pure.
//! MCP 2026-07-28 "Per-request protocol fields", MCP 2025-11-25 "Lifecycle"; W3C Trace Context.

use super::version::{Version, meta};
use serde_json::{Map, Value, json};

/// The extensions whose settings are known.
const TASKS: &str = "io.modelcontextprotocol/tasks";
const UI: &str = "io.modelcontextprotocol/ui";
/// Which long-running work a message is about.
const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";
/// Severities of log messages (RFC 5424 §6.2.1).
const LEVELS: [&str; 8] = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"];
/// Length of a `traceparent` of version 00.
const TRACE_BYTES: usize = 55;

/// What may stand at one place of the capabilities.
enum Shape {
    /// An object with some of these members.
    Members(&'static [(&'static str, Shape)]),
    /// `true` or `false`.
    Flag,
    /// A list of some of these words.
    Words(&'static [&'static str]),
}

const PRESENT: Shape = Shape::Members(&[]);
const CAPABILITIES: Shape = Shape::Members(&[
    ("elicitation", Shape::Members(&[("form", Shape::Members(&[("applyDefaults", Shape::Flag)])), ("url", PRESENT)])),
    (
        "extensions",
        Shape::Members(&[(TASKS, PRESENT), (UI, Shape::Members(&[("mimeTypes", Shape::Words(&["text/html;profile=mcp-app"]))]))]),
    ),
    ("roots", Shape::Members(&[("listChanged", Shape::Flag)])),
    ("sampling", Shape::Members(&[("context", PRESENT), ("tools", PRESENT)])),
    (
        "tasks",
        Shape::Members(&[
            ("cancel", PRESENT),
            ("list", PRESENT),
            (
                "requests",
                Shape::Members(&[
                    ("elicitation", Shape::Members(&[("create", PRESENT)])),
                    ("sampling", Shape::Members(&[("createMessage", PRESENT)])),
                ]),
            ),
        ]),
    ),
]);

impl Shape {
    /// What of a value has this shape; `None` if nothing has.
    fn of(&self, value: &Value) -> Option<Value> {
        match (self, value) {
            (Self::Members(known), Value::Object(members)) => {
                let kept = known.iter().filter_map(|(name, shape)| Some(((*name).to_owned(), shape.of(members.get(*name)?)?)));
                Some(Value::Object(kept.collect()))
            }
            (Self::Flag, Value::Bool(_)) => Some(value.clone()),
            (Self::Words(known), Value::Array(words)) => {
                Some(words.iter().filter(|word| word.as_str().is_some_and(|word| known.contains(&word))).cloned().collect())
            }
            _ => None,
        }
    }
}

/// Who an upstream is told that speaks to it.
pub(crate) fn name() -> Value {
    json!({ "name": "writ", "version": env!("CARGO_PKG_VERSION") })
}

/// What a client can do, as far as the protocol has a word for it.
pub(crate) fn capabilities(said: &Value) -> Value {
    CAPABILITIES.of(said).unwrap_or_else(|| json!({}))
}

/// Whether this is a severity of log messages.
pub(crate) fn is_level(value: &Value) -> bool {
    value.as_str().is_some_and(|level| LEVELS.contains(&level))
}

/// Whether this has the form of a `traceparent`.
pub(crate) fn is_trace(value: &[u8]) -> bool {
    value.len() == TRACE_BYTES && value.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
}

/// A `_meta` as it leaves.
#[derive(Debug, PartialEq)]
pub(crate) struct Tags {
    pub(crate) value: Value,
    /// The client's progress token, if it travels under another name.
    pub(crate) token: Option<Value>,
}

/// What of a `_meta` may leave; `None` if all of it may. Progress tokens are numbers, or travel under the name that `rename`
/// gives; `knows` tells whether work was begun by the same task.
pub(crate) fn tags(said: &Value, knows: impl Fn(&str) -> bool, rename: impl FnOnce() -> Option<String>) -> Option<Tags> {
    let Value::Object(said) = said else { return Some(Tags { value: json!({}), token: None }) };
    if said.iter().all(|(name, value)| passes(name, value, &knows)) {
        return None;
    }
    let mut kept: Map<String, Value> = Map::new();
    for (name, value) in said {
        let value = match name.as_str() {
            meta::CLIENT_INFO => self::name(),
            meta::CLIENT_CAPABILITIES => capabilities(value),
            _ if passes(name, value, &knows) => value.clone(),
            _ => continue,
        };
        kept.insert(name.clone(), value);
    }
    let token = said.get("progressToken").filter(|_| !kept.contains_key("progressToken")).and_then(|said| {
        kept.insert("progressToken".to_owned(), rename()?.into());
        Some(said.clone())
    });
    Some(Tags { value: Value::Object(kept), token })
}

fn passes(name: &str, value: &Value, knows: impl Fn(&str) -> bool) -> bool {
    match name {
        "progressToken" => value.is_i64(),
        "traceparent" => value.as_str().is_some_and(|trace| is_trace(trace.as_bytes())),
        meta::PROTOCOL_VERSION => value.as_str().is_some_and(|version| Version::from_wire(version).is_some()),
        meta::CLIENT_INFO => *value == self::name(),
        meta::CLIENT_CAPABILITIES => *value == capabilities(value),
        meta::LOG_LEVEL => is_level(value),
        RELATED_TASK => {
            let work = value.get("taskId").and_then(Value::as_str);
            work.is_some_and(knows) && value.as_object().is_some_and(|value| value.len() == 1)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn of_capabilities_only_flags_that_the_protocol_knows_pass() {
        let known = json!({
            "elicitation": { "form": { "applyDefaults": true }, "url": {} },
            "extensions": { TASKS: {}, UI: { "mimeTypes": ["text/html;profile=mcp-app"] } },
            "roots": { "listChanged": false }, "sampling": { "tools": {} }, "tasks": { "requests": { "sampling": { "createMessage": {} } } },
        });
        assert_eq!(capabilities(&known), known);
        let said = json!({
            "elicitation": { "form": { "note": "secret" }, "secret": {} }, "roots": { "listChanged": "secret" }, "sampling": "secret",
            "experimental": { "secret": {} }, "secret": true,
            "extensions": { "dev.secret/x": {}, TASKS: { "secret": 1 }, UI: { "mimeTypes": ["secret", { "secret": 1 }] } },
        });
        let left = capabilities(&said);
        assert!(!left.to_string().contains("secret"), "{left}");
        assert_eq!(
            left,
            json!({ "elicitation": { "form": {} }, "extensions": { TASKS: {}, UI: { "mimeTypes": [] } }, "roots": {} })
        );
        assert_eq!(capabilities(&json!("secret")), json!({}));
    }

    #[test]
    fn of_meta_only_numbers_ids_and_flags_pass() {
        let narrowed = |said: Value| tags(&said, |work| work == "w-1", || Some("ours".to_owned()));
        for all in [
            json!({}),
            json!({ "progressToken": 7, "traceparent": TRACE }),
            json!({ meta::PROTOCOL_VERSION: "2026-07-28", meta::CLIENT_CAPABILITIES: { "roots": {} }, meta::LOG_LEVEL: "info" }),
            json!({ RELATED_TASK: { "taskId": "w-1" } }),
        ] {
            assert_eq!(narrowed(all.clone()), None, "{all}");
        }
        for said in [
            json!("secret"),
            json!({ "note": "secret" }),
            json!({ "baggage": "k=secret", "tracestate": "k=secret", "traceparent": "00-secret-b7ad6b7169203331-01" }),
            json!({ "io.modelcontextprotocol/secret": "secret", meta::SUBSCRIPTION_ID: "secret", meta::SERVER_INFO: { "name": "secret" } }),
            json!({ meta::PROTOCOL_VERSION: "secret", meta::LOG_LEVEL: "secret" }),
            json!({ RELATED_TASK: { "taskId": "secret" } }),
            json!({ RELATED_TASK: { "taskId": "w-1", "note": "secret" } }),
        ] {
            assert_eq!(narrowed(said.clone()).unwrap(), Tags { value: json!({}), token: None }, "{said}");
        }
        let said = json!({ meta::CLIENT_INFO: { "name": "secret" }, meta::CLIENT_CAPABILITIES: { "secret": {} } });
        assert_eq!(narrowed(said).unwrap().value, json!({ meta::CLIENT_INFO: name(), meta::CLIENT_CAPABILITIES: {} }));
        let renamed = narrowed(json!({ "progressToken": "secret" })).unwrap();
        assert_eq!((renamed.value["progressToken"].as_str(), renamed.token), (Some("ours"), Some(json!("secret"))));
    }
}
