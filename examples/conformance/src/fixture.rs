//! The fixture as data: every tool, resource and prompt that the conformance suite asks for by name,
//! with the answers that never change. The suite fixes names and texts; `fixture.json` holds them.
//! No protocol here: `server.rs` gives these to the SDK.

use std::collections::BTreeMap;

use rmcp::ErrorData;
use rmcp::model::InputRequest;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What `fixture.json` holds.
#[derive(Debug, Deserialize)]
pub(crate) struct Fixture {
    pub(crate) tools: Value,
    pub(crate) tool_results: BTreeMap<String, Value>,
    inputs: BTreeMap<String, Value>,
    pub(crate) dialogues: BTreeMap<String, Dialogue>,
    pub(crate) forms: BTreeMap<String, Value>,
    pub(crate) resources: Value,
    pub(crate) resource_templates: Value,
    resource_contents: BTreeMap<String, Value>,
    pub(crate) prompts: Value,
    prompt_messages: BTreeMap<String, Value>,
}

/// A request that is answered only after the client gave inputs, in one round or more.
#[derive(Debug, Deserialize)]
pub(crate) struct Dialogue {
    /// The names of the inputs that each round asks for.
    pub(crate) rounds: Vec<Vec<String>>,
    /// Whether a sealed state travels with the client.
    #[serde(default)]
    pub(crate) state: bool,
    /// Whether only inputs are asked that the client declared it can give.
    #[serde(default)]
    pub(crate) declared_only: bool,
    /// The text of the answer; `{}` is replaced by what `from` points at.
    done: String,
    from: Option<String>,
}

impl Dialogue {
    /// The text of the answer, given the inputs.
    pub(crate) fn answer(&self, inputs: &Value) -> String {
        let value = self.from.as_deref().and_then(|pointer| inputs.pointer(pointer)).and_then(Value::as_str);
        self.done.replace("{}", value.unwrap_or("nobody"))
    }
}

impl Fixture {
    pub(crate) fn load() -> serde_json::Result<Self> {
        serde_json::from_str(include_str!("fixture.json"))
    }

    /// The request for one input, to be put to the client.
    pub(crate) fn input(&self, name: &str) -> Result<InputRequest, ErrorData> {
        let request = self.inputs.get(name).cloned();
        typed(request.ok_or_else(|| ErrorData::internal_error("the fixture lacks an input", None))?)
    }

    /// The contents of a resource, or of one that the template describes.
    pub(crate) fn contents(&self, uri: &str) -> Option<Value> {
        if let Some(contents) = self.resource_contents.get(uri) {
            return Some(contents.clone());
        }
        let id = uri.strip_prefix("test://template/")?.strip_suffix("/data")?;
        let text = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
        Some(json!({ "uri": uri, "mimeType": "application/json", "text": text.to_string() }))
    }

    /// The messages of a prompt, its arguments filled in.
    pub(crate) fn messages(&self, prompt: &str, arguments: &serde_json::Map<String, Value>) -> Option<Value> {
        let mut messages = self.prompt_messages.get(prompt)?.clone();
        fill(&mut messages, arguments);
        Some(messages)
    }
}

/// Replaces `{name}` in every text by the argument of that name.
fn fill(value: &mut Value, arguments: &serde_json::Map<String, Value>) {
    match value {
        Value::String(text) => {
            for (name, argument) in arguments {
                *text = text.replace(&format!("{{{name}}}"), argument.as_str().unwrap_or_default());
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, arguments)),
        Value::Object(members) => members.values_mut().for_each(|member| fill(member, arguments)),
        _ => {}
    }
}

/// Reads a type of the SDK from its wire form.
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}
