//! What can be searched for in an entry: `(field, value)` terms, read from the leaf's event. Pure. One function
//! serves the index and the final check of each hit, so the two cannot disagree.

use serde_json::{Map, Value};

/// Members of an event that are terms under their own name.
const FIELDS: [&str; 9] = ["agent", "decision", "intent", "outcome", "owner", "subject", "task", "type", "upstream"];

/// What an entry can be found by.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// The event's time, in milliseconds since 1970.
    pub(crate) at: i64,
    /// Field and value.
    pub(crate) terms: Vec<(&'static str, String)>,
}

impl Terms {
    /// Reads a leaf. An entry that is none of ours has no terms.
    pub(crate) fn of_leaf(leaf: &[u8]) -> Self {
        let Ok(Value::Object(leaf)) = serde_json::from_slice::<Value>(leaf) else { return Self::default() };
        let Some(event) = leaf.get("event").and_then(Value::as_object) else { return Self::default() };
        let mut terms = Vec::new();
        collect(event, &mut terms);
        if let Some(detail) = event.get("detail").and_then(Value::as_object) {
            collect(detail, &mut terms);
        }
        for holder in ["params", "arguments"] {
            let clear = event.get(holder).and_then(|values| values.get("clear")).and_then(Value::as_object);
            for (name, value) in clear.into_iter().flatten() {
                resources(name, value, &mut terms);
            }
        }
        Self { at: event.get("at").and_then(Value::as_i64).unwrap_or_default(), terms }
    }

    /// Whether the entry has this term.
    pub(crate) fn has(&self, field: &str, value: &str) -> bool {
        self.terms.iter().any(|(f, v)| *f == field && v == value)
    }
}

fn collect(members: &Map<String, Value>, terms: &mut Vec<(&'static str, String)>) {
    for field in FIELDS {
        if let Some(value) = members.get(field).and_then(Value::as_str) {
            terms.push((field, value.to_owned()));
        }
    }
}

/// `name=value`, one for each text of a set.
fn resources(name: &str, value: &Value, terms: &mut Vec<(&'static str, String)>) {
    match value {
        Value::String(text) => terms.push(("resource", format!("{name}={text}"))),
        Value::Array(items) => items.iter().filter(|item| !item.is_array()).for_each(|item| resources(name, item, terms)),
        Value::Bool(_) | Value::Number(_) => terms.push(("resource", format!("{name}={value}"))),
        Value::Null | Value::Object(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_from_members_details_and_clear_values() {
        let leaf = br#"{"epoch":1,"event":{"agent":"a","arguments":{"clear":{"n":7,"s":"x"},"committed":{"q":"h"}},"at":5,
            "detail":{"owner":"team"},"determining":["p"],"outcome":"deny","params":{"clear":{"ids":["1","2"]}},"type":"decision"},
            "node":"n","prev":"","seq":0,"v":1}"#;
        let terms = Terms::of_leaf(leaf);
        assert_eq!(terms.at, 5);
        for (field, value) in [
            ("agent", "a"),
            ("outcome", "deny"),
            ("owner", "team"),
            ("type", "decision"),
            ("resource", "n=7"),
            ("resource", "s=x"),
            ("resource", "ids=1"),
            ("resource", "ids=2"),
        ] {
            assert!(terms.has(field, value), "{field}={value}");
        }
        assert_eq!(terms.terms.len(), 8);
        assert_eq!(Terms::of_leaf(b"not json"), Terms::default());
    }
}
