//! Policy folders, and the tools whose definitions upstreams wrote.

use domain::{ToolName, UpstreamName};
use policy::{Diagnostic, Policy, SourceFile, Sources, render_lock, run_tests};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

const INTENT: &str =
    "name = \"any\"\ndescription = \"Any.\"\nowner = \"o\"\nreach = [\"up\"]\n[limits]\nlifetime_secs = 60\ncalls = 1\n";
const RULE: &str = "@id(\"any\")\npermit (principal, action, resource);\n";

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: path.into(), text: text.into() }
}

fn found(sources: &Sources) -> (bool, Vec<Diagnostic>) {
    match Policy::compile(sources) {
        Ok(compiled) => (true, compiled.warnings),
        Err(found) => (false, found),
    }
}

fn told(found: &[Diagnostic]) -> Vec<(String, usize, usize, String)> {
    found.iter().map(|one| (one.path.clone(), one.line, one.column, one.message.clone())).collect()
}

/// A folder is compiled or what is wrong with it is said, at a place that is there; in which order its files come is nothing.
/// A line `==== PATH` begins a file.
pub fn folder(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut files = vec![file("intents/any.toml", INTENT), file("tools/up.lock.json", &LOCK)];
    for part in text.split("==== ").skip(1) {
        let (path, text) = part.split_once('\n').unwrap_or((part, ""));
        files.retain(|file| file.path != path);
        files.push(file(path, text));
    }
    let sources = Sources { files };
    let (compiled, findings) = found(&sources);
    assert!(compiled || !findings.is_empty(), "refused without a word");
    for finding in &findings {
        let text = sources.files.iter().find(|file| file.path == finding.path).map(|file| file.text.as_str());
        assert!(text.is_some() || finding.line == 0, "{finding:?} is in no file");
        assert!(finding.line <= text.unwrap_or_default().split('\n').count(), "{finding:?} is at no line");
        assert!(!finding.message.is_empty());
    }
    let mut turned = sources.clone();
    turned.files.reverse();
    assert_eq!(turned.version(), sources.version());
    let (again, others) = found(&turned);
    assert_eq!((again, told(&others)), (compiled, told(&findings)), "the order of files matters");
    if let Ok(compiled) = Policy::compile(&sources) {
        assert!(run_tests(&compiled.policy, &sources).cases.iter().all(|case| case.line > 0));
    }
}

static UPSTREAM: LazyLock<UpstreamName> = LazyLock::new(|| "up".parse().expect("a name"));
static LOCK: LazyLock<String> = LazyLock::new(|| {
    let schema = json!({ "type": "object", "properties": { "id": { "type": "string" }, "cents": { "type": "integer" } }, "required": ["id"] });
    render_lock(&UPSTREAM, &[json!({ "name": "refund", "inputSchema": schema })])
});

/// An accepted definition is what policies are typed from, whatever it says; a call carries only what its schema names.
/// The first line is the definition, the second the arguments.
pub fn tool(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (definition, arguments) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(definition) = gateway::mcp::message::strict_value(definition) else { return };
    let lock = render_lock(&UPSTREAM, std::slice::from_ref(&definition));
    let files = vec![file("intents/any.toml", INTENT), file("main.cedar", RULE), file("tools/up.lock.json", &lock)];
    match Policy::compile(&Sources { files }) {
        Ok(compiled) => {
            let name = definition.get("name").and_then(Value::as_str).and_then(|name| name.parse::<ToolName>().ok());
            let approved = name.as_ref().and_then(|name| compiled.policy.approved(&UPSTREAM, name));
            match approved {
                Some(approved) => {
                    assert_eq!((&approved.definition, approved.pin), (&definition, policy::pin(&UPSTREAM, &definition)))
                }
                None => assert!(!compiled.warnings.is_empty(), "left out without a word"),
            }
        }
        Err(found) => panic!("a definition that was accepted spoils the folder: {found:#?}"),
    }
    let Ok(Value::Object(arguments)) = gateway::mcp::message::strict_value(arguments) else { return };
    if policy::door::takes(&definition, &arguments) == Some(true) {
        let schema = definition.get("inputSchema").cloned().unwrap_or_else(|| json!({}));
        assert!(arguments.keys().all(|name| names(&schema, name)), "an argument that the schema does not name");
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_else(Map::new);
        for name in
            required.filter(|name| properties.get(*name).is_some_and(|schema| schema.get("type") == Some(&json!("string"))))
        {
            assert!(arguments.contains_key(name), "`{name}` is required");
        }
        for (name, schema) in &properties {
            let (Some(given), Some(kind)) = (arguments.get(name), schema.get("type").and_then(Value::as_str)) else { continue };
            let plain =
                schema.as_object().is_some_and(|schema| schema.keys().all(|key| matches!(key.as_str(), "type" | "description")));
            let fits = match kind {
                "string" => given.is_string(),
                "integer" => given.is_i64(),
                "boolean" => given.is_boolean(),
                "number" => given.is_number(),
                _ => true,
            };
            assert!(fits || !plain, "`{name}` is {given}, which is no {kind}");
        }
    }
}

/// Whether a member of this name stands anywhere in a schema.
fn names(schema: &Value, name: &str) -> bool {
    match schema {
        Value::Object(members) => members.contains_key(name) || members.values().any(|value| names(value, name)),
        Value::Array(items) => items.iter().any(|value| names(value, name)),
        // What is only required is named as well; policy sees it as text.
        Value::String(text) => text == name,
        _ => false,
    }
}
