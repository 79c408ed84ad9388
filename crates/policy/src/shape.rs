//! What a tool's arguments look like to policy: the one mapping from JSON Schema (2020-12, as MCP tools use it) to
//! types that Cedar can compare. Owns the mapping (`docs/policy.md`, "Arguments"); fetches nothing, ever.
//!
//! INVARIANT(nothing-unseen): whatever a schema says, each value that a call may carry is visible to policy, typed
//! or as canonical JSON text. What has no place in the mapping is not a value that a call may carry.

use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Deepest nesting that is typed; deeper values are canonical JSON text.
const DEPTH_MAX: usize = 12;
/// Most parts of one tool's arguments that are typed. A schema can be small and mean something huge through `$ref`.
const PARTS_MAX: usize = 1_000;
/// Most members of one object: more is data, not a signature.
const MEMBERS_MAX: usize = 256;
/// Longest member name, in bytes.
const MEMBER_BYTES_MAX: usize = 256;

/// The type of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Text: Cedar `String`.
    Text,
    /// A whole number: `Long`.
    Long,
    /// A truth value: `Bool`.
    Bool,
    /// A number: `decimal`; one that does not fit four decimals exactly is refused.
    Decimal,
    /// A number as its canonical text: `String`. Only where an operator chose so.
    NumberText,
    /// A list: `Set`. Order and repetition are invisible to policy.
    Set(Box<Self>),
    /// An object with these members and no others: a record.
    Record(Members),
    /// Anything else: `String` that holds canonical JSON.
    Json,
}

/// The members of a record by name.
pub(crate) type Members = BTreeMap<SmolStr, Member>;

/// One member of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its type.
    pub(crate) shape: Shape,
    /// It must be there.
    pub(crate) required: bool,
    /// `null` stands for its absence.
    pub(crate) nullable: bool,
}

/// How JSON numbers that need not be whole are typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Numbers {
    /// As `decimal`.
    #[default]
    Decimal,
    /// As `String`.
    Text,
}

/// The members of a tool's arguments, and notes on what could not be typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// The arguments.
    pub(crate) members: Members,
    /// Remarks for whoever approves the tool.
    pub(crate) notes: Vec<String>,
}

/// Reads the signature out of a tool's wire definition.
///
/// # Errors
/// Why the tool cannot be governed at all.
pub(crate) fn signature(definition: &Value, numbers: Numbers) -> Result<Signature, &'static str> {
    let empty = Value::Object(Map::new());
    let schema = definition.get("inputSchema").unwrap_or(&empty);
    let Value::Object(top) = schema else { return Err("its `inputSchema` is not an object") };
    if top.get("type").is_some_and(|kind| kind != "object") {
        return Err("its `inputSchema` is not of type `object`");
    }
    let mut reader = Reader { root: schema, numbers, parts: PARTS_MAX, notes: Vec::new(), refs: Vec::new() };
    if is_open(top) {
        reader.note("takes arguments beyond those it names; they are refused");
    }
    let members = reader.members(top, 0).ok_or("its `inputSchema` has too many or too long member names")?;
    reader.notes.sort();
    reader.notes.dedup();
    Ok(Signature { members, notes: reader.notes })
}

struct Reader<'a> {
    root: &'a Value,
    numbers: Numbers,
    parts: usize,
    notes: Vec<String>,
    /// The references being followed, to notice a circle.
    refs: Vec<&'a str>,
}

/// A type, and whether `null` is allowed beside it.
type Typed = (Shape, bool);
const OPAQUE: Typed = (Shape::Json, false);

impl<'a> Reader<'a> {
    fn note(&mut self, note: &str) {
        self.notes.push(note.to_owned());
    }

    fn read(&mut self, schema: &'a Value, depth: usize) -> Typed {
        let Value::Object(schema) = schema else { return OPAQUE };
        if self.parts == 0 || depth > DEPTH_MAX {
            self.note("has arguments too large or too deep to be typed; policies see them as JSON text");
            return OPAQUE;
        }
        self.parts -= 1;
        if schema.contains_key("$dynamicRef") || schema.contains_key("$recursiveRef") {
            return OPAQUE;
        }
        if let Some(reference) = schema.get("$ref") {
            return self.follow(schema, reference, depth);
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return self.of_values(values);
        }
        if let Some(value) = schema.get("const") {
            return self.of_values(std::slice::from_ref(value));
        }
        match schema.get("type") {
            Some(Value::String(kind)) => (self.of_kind(kind, schema, depth), false),
            Some(Value::Array(kinds)) => self.of_kinds(kinds, schema, depth),
            Some(_) => OPAQUE,
            None => self.untyped(schema, depth),
        }
    }

    /// `$ref`: only into the same document (`#/…`), never around in a circle, never over the network.
    fn follow(&mut self, schema: &Map<String, Value>, reference: &'a Value, depth: usize) -> Typed {
        const STRUCTURE: [&str; 9] =
            ["type", "properties", "items", "enum", "const", "anyOf", "oneOf", "allOf", "additionalProperties"];
        if STRUCTURE.iter().any(|keyword| schema.contains_key(*keyword)) {
            return OPAQUE;
        }
        let Some(pointer) = reference.as_str().and_then(|text| text.strip_prefix('#')) else {
            self.note("refers to a schema elsewhere, which is never fetched; policies see that argument as JSON text");
            return OPAQUE;
        };
        if self.refs.contains(&pointer) {
            self.note("has a recursive argument; policies see it as JSON text");
            return OPAQUE;
        }
        let root = self.root;
        let Some(target) = root.pointer(pointer).filter(|_| pointer.starts_with('/')) else { return OPAQUE };
        self.refs.push(pointer);
        let typed = self.read(target, depth + 1);
        self.refs.pop();
        typed
    }

    fn of_values(&self, values: &[Value]) -> Typed {
        let some: Vec<_> = values.iter().filter(|value| !value.is_null()).collect();
        let nullable = some.len() < values.len();
        let all = |test: fn(&Value) -> bool| !some.is_empty() && some.iter().all(|value| test(value));
        let shape = if all(Value::is_string) {
            Shape::Text
        } else if all(Value::is_i64) {
            Shape::Long
        } else if all(Value::is_boolean) {
            Shape::Bool
        } else if all(Value::is_number) {
            self.number()
        } else {
            return OPAQUE;
        };
        (shape, nullable)
    }

    fn number(&self) -> Shape {
        match self.numbers {
            Numbers::Decimal => Shape::Decimal,
            Numbers::Text => Shape::NumberText,
        }
    }

    fn of_kinds(&mut self, kinds: &[Value], schema: &'a Map<String, Value>, depth: usize) -> Typed {
        let mut some: Vec<_> = kinds.iter().filter_map(Value::as_str).filter(|kind| *kind != "null").collect();
        if kinds.iter().any(|kind| !kind.is_string()) {
            return OPAQUE;
        }
        if some.contains(&"number") {
            some.retain(|kind| *kind != "integer");
        }
        match some.as_slice() {
            [kind] => (self.of_kind(kind, schema, depth), kinds.iter().any(|kind| kind == "null")),
            _ => OPAQUE,
        }
    }

    fn of_kind(&mut self, kind: &str, schema: &'a Map<String, Value>, depth: usize) -> Shape {
        match kind {
            "string" => Shape::Text,
            "integer" => Shape::Long,
            "boolean" => Shape::Bool,
            "number" => self.number(),
            "array" => self.list(schema, depth),
            "object" => self.object(schema, depth),
            _ => Shape::Json,
        }
    }

    /// No `type`: what its alternatives agree on.
    fn untyped(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Typed {
        if schema.contains_key("properties") {
            return (self.object(schema, depth), false);
        }
        if let Some([only]) = schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
            return self.read(only, depth + 1);
        }
        let Some(alternatives) = schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array) else {
            return OPAQUE;
        };
        if schema.contains_key("anyOf") && schema.contains_key("oneOf") || schema.contains_key("allOf") {
            return OPAQUE;
        }
        let some: Vec<_> = alternatives.iter().filter(|alternative| !is_null(alternative)).collect();
        let mut nullable = some.len() < alternatives.len();
        let mut agreed: Option<Shape> = None;
        for alternative in some.iter().take(MEMBERS_MAX) {
            let (shape, null) = self.read(alternative, depth + 1);
            nullable |= null;
            // Two records or lists agree only when equal: else a value of one would be refused as the other.
            if agreed.as_ref().is_some_and(|agreed| *agreed != shape) {
                return (Shape::Json, false);
            }
            agreed = Some(shape);
        }
        (agreed.filter(|_| some.len() <= MEMBERS_MAX).unwrap_or(Shape::Json), nullable)
    }

    fn list(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Shape {
        match schema.get("items") {
            Some(items @ Value::Object(_)) if !schema.contains_key("prefixItems") => match self.read(items, depth + 1) {
                (shape, false) => Shape::Set(Box::new(shape)),
                (_, true) => Shape::Set(Box::new(Shape::Json)),
            },
            _ => Shape::Json,
        }
    }

    fn object(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Shape {
        let closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
        if is_open(schema) || (!schema.contains_key("properties") && !closed) {
            return Shape::Json;
        }
        self.members(schema, depth).map_or(Shape::Json, Shape::Record)
    }

    /// The named members; `None` if there are too many or their names are too long.
    fn members(&mut self, schema: &'a Map<String, Value>, depth: usize) -> Option<Members> {
        let no_members = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object);
        let required: Vec<_> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        let named = properties.map_or(no_members.len(), Map::len);
        if named + required.len() > MEMBERS_MAX {
            return None;
        }
        let mut members = Members::new();
        for (name, part) in properties.into_iter().flatten() {
            if name.len() > MEMBER_BYTES_MAX {
                return None;
            }
            // `false` allows no value at all: as a member that nobody named.
            if *part == Value::Bool(false) {
                continue;
            }
            let (shape, nullable) = self.read(part, depth + 1);
            let required = !nullable && required.contains(&name.as_str());
            members.insert(name.into(), Member { shape, required, nullable });
        }
        for name in required {
            if name.len() > MEMBER_BYTES_MAX {
                return None;
            }
            members.entry(name.into()).or_insert(Member { shape: Shape::Json, required: true, nullable: false });
        }
        Some(members)
    }
}

/// Whether an object says itself that it takes members which it does not name.
fn is_open(schema: &Map<String, Value>) -> bool {
    schema.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false))
        || schema.contains_key("patternProperties")
        || schema.get("unevaluatedProperties").is_some_and(|more| *more != Value::Bool(false))
}

fn is_null(schema: &Value) -> bool {
    schema.get("type").is_some_and(|kind| kind == "null")
        || schema.get("const").is_some_and(Value::is_null)
        || schema
            .get("enum")
            .and_then(Value::as_array)
            .is_some_and(|values| !values.is_empty() && values.iter().all(Value::is_null))
}

#[cfg(test)]
mod tests;
