//! Values of the body that stateless requests repeat in HTTP headers: the encoding, and which parameters of a tool are
//! repeated. Computed from what was decided on, never taken from the client. Pure.
//! MCP 2026-07-28 "Custom Headers from Tool Parameters", "Value Encoding".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

/// Deepest property that can be repeated, and most of one tool: bounds for hostile schemas.
const DEPTH_MAX: usize = 16;
const HEADERS_MAX: usize = 64;
/// Integers beyond this are not the same in every reader (JavaScript's safe range).
const INTEGER_MAX: i64 = 9_007_199_254_740_991;

/// A parameter of a tool that is repeated in a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirroredParameter {
    /// The header.
    pub header: HeaderName,
    /// The names that lead to it within the arguments.
    pub path: Vec<String>,
}

impl MirroredParameter {
    /// The text that the header must carry for these arguments; `None` if there must be none.
    #[must_use]
    pub fn text(&self, arguments: &Map<String, Value>) -> Option<String> {
        let (first, rest) = self.path.split_first()?;
        let value = rest.iter().try_fold(arguments.get(first)?, |value, name| value.get(name))?;
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Number(number) => {
                let integer = number.as_i64().filter(|number| number.abs() <= INTEGER_MAX);
                // `42.0` is an integer in JSON Schema.
                let fraction = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() <= INTEGER_MAX as f64);
                integer.map(|number| number.to_string()).or_else(|| fraction.map(|float| format!("{float:.0}")))
            }
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

/// The parameters of a tool that are repeated, from its input schema. `None`: the annotations break the rules, and with
/// them the whole definition.
#[must_use]
pub fn mirrored(input_schema: &Value) -> Option<Vec<MirroredParameter>> {
    let mut found = Vec::new();
    let mut path = Vec::new();
    collect(input_schema, &mut path, &mut found)?;
    if found.len() != count_annotations(input_schema, 0)? {
        // One stands where no property path leads to it.
        return None;
    }
    let mut names: Vec<&str> = found.iter().map(|parameter| parameter.header.as_str()).collect();
    names.sort_unstable();
    let twice = names.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
    (!twice && found.len() <= HEADERS_MAX).then_some(found)
}

fn collect(schema: &Value, path: &mut Vec<String>, found: &mut Vec<MirroredParameter>) -> Option<()> {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Some(()) };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(annotation) = property.get("x-mcp-header") {
            let primitive = matches!(property.get("type").and_then(Value::as_str), Some("string" | "integer" | "boolean"));
            let suffix = annotation.as_str().filter(|text| primitive && !text.is_empty())?;
            let header = HeaderName::from_bytes(format!("mcp-param-{suffix}").as_bytes()).ok()?;
            found.push(MirroredParameter { header, path: path.clone() });
        }
        if path.len() < DEPTH_MAX {
            collect(property, path, found)?;
        }
        path.pop();
    }
    Some(())
}

/// How often `x-mcp-header` annotates anything: as a member of a schema, not as the name of a property.
fn count_annotations(value: &Value, depth: usize) -> Option<usize> {
    if depth > domain::limits::JSON_DEPTH_MAX {
        return None;
    }
    match value {
        Value::Object(members) => {
            let here = usize::from(members.contains_key("x-mcp-header"));
            members.iter().try_fold(here, |sum, (name, member)| {
                let inner = match (name.as_str(), member) {
                    // Names of properties are the author's; their schemas count, the names do not.
                    ("properties", Value::Object(properties)) => {
                        properties.values().try_fold(0, |sum, schema| Some(sum + count_annotations(schema, depth + 2)?))?
                    }
                    ("x-mcp-header" | "const" | "enum" | "default" | "examples", _) => 0,
                    _ => count_annotations(member, depth + 1)?,
                };
                Some(sum + inner)
            })
        }
        Value::Array(items) => items.iter().try_fold(0, |sum, item| Some(sum + count_annotations(item, depth + 1)?)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Some(0),
    }
}

/// A value as a header carries it.
#[must_use]
pub fn encoded(value: &str) -> Option<HeaderValue> {
    let visible = value.bytes().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e));
    let trimmed = value.trim_matches([' ', '\t']) == value;
    let sentinel = value.starts_with("=?base64?") && value.ends_with("?=");
    if visible && trimmed && !sentinel && !value.is_empty() {
        return HeaderValue::from_str(value).ok();
    }
    HeaderValue::from_str(&format!("=?base64?{}?=", STANDARD.encode(value))).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_encoded_as_the_specification_shows() {
        for (value, header) in [
            ("us-west1", "us-west1"),
            ("Hello, 世界", "=?base64?SGVsbG8sIOS4lueVjA==?="),
            (" padded ", "=?base64?IHBhZGRlZCA=?="),
            ("line1\nline2", "=?base64?bGluZTEKbGluZTI=?="),
            ("=?base64?literal?=", "=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?="),
        ] {
            assert_eq!(encoded(value).unwrap(), header, "{value:?}");
        }
    }

    #[test]
    fn parameters_are_found_by_their_path() {
        let schema = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "x-mcp-header": { "type": "string" },
            "deep": { "type": "object", "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } },
        }});
        let found = mirrored(&schema).unwrap();
        let arguments = json!({ "region": "eu", "deep": { "n": 7 } });
        let mut texts: Vec<_> = found
            .iter()
            .map(|parameter| (parameter.header.as_str(), parameter.text(arguments.as_object().unwrap()).unwrap()))
            .collect();
        texts.sort();
        assert_eq!(texts, [("mcp-param-n", "7".to_owned()), ("mcp-param-region", "eu".to_owned())]);
        let null = json!({ "region": null, "deep": {} });
        assert!(found.iter().all(|parameter| parameter.text(null.as_object().unwrap()).is_none()));
    }

    #[test]
    fn annotations_that_break_the_rules_spoil_the_definition() {
        for properties in [
            json!({ "a": { "type": "string", "x-mcp-header": "" } }),
            json!({ "a": { "type": "string", "x-mcp-header": "a b" } }),
            json!({ "a": { "type": "string", "x-mcp-header": "a\r\nx" } }),
            json!({ "a": { "type": "number", "x-mcp-header": "A" } }),
            json!({ "a": { "type": "string", "x-mcp-header": "A" }, "b": { "type": "string", "x-mcp-header": "a" } }),
            json!({ "a": { "type": "array", "items": { "type": "string", "x-mcp-header": "A" } } }),
            json!({ "a": { "oneOf": [{ "type": "string", "x-mcp-header": "A" }] } }),
        ] {
            assert_eq!(mirrored(&json!({ "type": "object", "properties": properties })), None, "{properties}");
        }
    }
}
