//! Claims about the mapping from JSON Schema to types, hostile schemas among them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use serde_json::json;

fn notes(schema: Value) -> (Signature, String) {
    let signature = signature(&json!({ "name": "t", "inputSchema": schema }), Numbers::Decimal).unwrap();
    let notes = signature.notes.join("\n");
    (signature, notes)
}

fn of(schema: Value) -> (Shape, bool) {
    let (signature, _) = notes(json!({ "type": "object", "properties": { "x": schema }, "required": ["x"] }));
    let member = signature.members.get("x").unwrap();
    (member.shape.clone(), member.nullable)
}

#[test]
fn each_schema_has_one_type() {
    let set = |shape| Shape::Set(Box::new(shape));
    let cases = [
        (json!({ "type": "string", "format": "email" }), Shape::Text, false),
        (json!({ "type": "integer" }), Shape::Long, false),
        (json!({ "type": "number" }), Shape::Decimal, false),
        (json!({ "type": ["integer", "number"] }), Shape::Decimal, false),
        (json!({ "type": "boolean" }), Shape::Bool, false),
        (json!({ "type": ["string", "null"] }), Shape::Text, true),
        (json!({ "anyOf": [{ "type": "integer" }, { "type": "null" }], "default": null }), Shape::Long, true),
        (json!({ "oneOf": [{ "const": "a", "title": "A" }, { "const": "b" }] }), Shape::Text, false),
        (json!({ "enum": ["a", "b", null] }), Shape::Text, true),
        (json!({ "enum": [1, 2] }), Shape::Long, false),
        (json!({ "enum": [1, 2.5] }), Shape::Decimal, false),
        (json!({ "enum": [1, "a"] }), Shape::Json, false),
        (json!({ "const": true }), Shape::Bool, false),
        (json!({ "type": ["string", "integer"] }), Shape::Json, false),
        (json!({ "anyOf": [{ "type": "string" }, { "type": "integer" }] }), Shape::Json, false),
        (json!({ "anyOf": [{ "type": "string" }], "oneOf": [{ "type": "string" }] }), Shape::Json, false),
        (json!({ "allOf": [{ "type": "string" }] }), Shape::Text, false),
        (json!({ "allOf": [{ "type": "string" }, { "minLength": 1 }] }), Shape::Json, false),
        (json!({ "type": "array", "items": { "type": "string" } }), set(Shape::Text), false),
        (json!({ "type": "array", "items": { "type": ["string", "null"] } }), set(Shape::Json), false),
        (json!({ "type": "array", "items": {} }), set(Shape::Json), false),
        (json!({ "type": "array" }), Shape::Json, false),
        (json!({ "type": "array", "items": [{ "type": "string" }] }), Shape::Json, false),
        (json!({ "type": "array", "prefixItems": [{ "type": "string" }], "items": { "type": "string" } }), Shape::Json, false),
        (json!({ "type": "object" }), Shape::Json, false),
        (json!({ "type": "object", "additionalProperties": { "type": "string" } }), Shape::Json, false),
        (json!({ "type": "object", "properties": { "a": true }, "additionalProperties": true }), Shape::Json, false),
        (json!({ "type": "object", "properties": { "a": true }, "patternProperties": { "^x": {} } }), Shape::Json, false),
        (json!({ "type": "object", "additionalProperties": false }), Shape::Record(Members::new()), false),
        (json!({ "type": "null" }), Shape::Json, false),
        (json!({ "type": "wat" }), Shape::Json, false),
        (json!({ "type": 5 }), Shape::Json, false),
        (json!({ "type": ["string", 5] }), Shape::Json, false),
        (json!({}), Shape::Json, false),
        (json!(true), Shape::Json, false),
        (json!("x"), Shape::Json, false),
        (json!({ "$dynamicRef": "#x" }), Shape::Json, false),
    ];
    for (schema, shape, nullable) in cases {
        assert_eq!(of(schema.clone()), (shape, nullable), "{schema}");
    }
}

#[test]
fn numbers_become_text_where_the_operator_says_so() {
    let definition = json!({ "inputSchema": { "type": "object", "properties": { "x": { "type": "number" } } } });
    let signature = signature(&definition, Numbers::Text).unwrap();
    assert_eq!(signature.members.get("x").unwrap().shape, Shape::NumberText);
}

#[test]
fn references_stay_in_the_document_and_never_go_in_circles() {
    let local = json!({
        "type": "object", "$defs": { "a": { "type": "integer" }, "loop": { "$ref": "#/$defs/loop" },
            "tree": { "type": "object", "properties": { "left": { "$ref": "#/$defs/tree" } } } },
        "properties": {
            "ok": { "$ref": "#/$defs/a", "description": "d" },
            "both": { "$ref": "#/$defs/a", "type": "string" },
            "loop": { "$ref": "#/$defs/loop" },
            "tree": { "$ref": "#/$defs/tree" },
            "root": { "$ref": "#" },
            "missing": { "$ref": "#/$defs/none" },
            "remote": { "$ref": "https://evil.example/schema.json" },
            "file": { "$ref": "file:///etc/passwd" },
            "odd": { "$ref": 5 },
        },
    });
    let (signature, notes) = notes(local);
    let shape = |name: &str| signature.members.get(name).unwrap().shape.clone();
    assert_eq!(shape("ok"), Shape::Long);
    for name in ["both", "loop", "root", "missing", "remote", "file", "odd"] {
        assert_eq!(shape(name), Shape::Json, "{name}");
    }
    let Shape::Record(tree) = shape("tree") else { panic!() };
    assert_eq!(tree.get("left").unwrap().shape, Shape::Json);
    assert!(notes.contains("never fetched") && notes.contains("recursive"), "{notes}");
}

#[test]
fn a_small_schema_that_means_something_huge_is_bounded() {
    // Each level doubles: 2^30 parts if expanded.
    let mut defs = Map::new();
    for level in 0..30 {
        let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
        defs.insert(format!("d{level}"), json!({ "type": "object", "properties": { "a": next, "b": next } }));
    }
    defs.insert("d30".to_owned(), json!({ "type": "string" }));
    let (_, bomb) = notes(json!({ "type": "object", "$defs": defs, "properties": { "x": { "$ref": "#/$defs/d0" } } }));
    assert!(bomb.contains("too large or too deep"), "{bomb}");
    let mut deep = json!({ "type": "string" });
    for _ in 0..100 {
        deep = json!({ "type": "object", "properties": { "x": deep } });
    }
    assert!(notes(json!({ "type": "object", "properties": { "x": deep } })).1.contains("too large or too deep"));
}

#[test]
fn what_is_not_named_is_not_there() {
    let (signature, said) = notes(json!({
        "type": "object", "properties": { "a": { "type": "string" }, "never": false }, "required": ["a", "ghost"],
        "additionalProperties": true, "anyOf": [{ "properties": { "hidden": { "type": "string" } } }],
    }));
    let names: Vec<_> = signature.members.iter().map(|(name, member)| (name.as_str(), member.required)).collect();
    assert_eq!(names, [("a", true), ("ghost", true)]);
    assert!(said.contains("they are refused"));
}

#[test]
fn a_tool_without_a_readable_signature_cannot_be_governed() {
    let many: Map<String, Value> = (0..300).map(|n| (format!("p{n}"), json!({ "type": "string" }))).collect();
    let cases = [
        json!({ "inputSchema": [] }),
        json!({ "inputSchema": "x" }),
        json!({ "inputSchema": { "type": "array" } }),
        json!({ "inputSchema": { "type": "object", "properties": many } }),
        json!({ "inputSchema": { "type": "object", "properties": { ("x".repeat(300)): {} } } }),
    ];
    for definition in cases {
        assert!(signature(&definition, Numbers::Decimal).is_err(), "{definition}");
    }
    assert!(signature(&json!({}), Numbers::Decimal).unwrap().members.is_empty());
}
