//! Single words from outside: URIs and their templates, headers, cursors, questions of enforcement points.

use control::door as desk;
use gateway::door::{self, Seals};
use gateway::upstream::{encoded, mirrored};
use serde_json::{Map, Value};
use std::sync::LazyLock;
use url::Url;

/// A URI that policy compares by its beginning stays below that beginning for whoever resolves it.
pub fn uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for begin in ["file:///data/", "https://h.test/data/", "orders://a/data/"] {
        let uri = format!("{begin}{text}");
        if policy::door::reads_in_several_ways(&uri) {
            continue;
        }
        let stays = |uri: &str| Url::parse(uri).is_ok_and(|url| url.as_str().starts_with(begin));
        assert!(stays(&uri), "{uri:?} leaves `{begin}`");
        // A reader that decodes, and then looks for segments.
        let plain = String::from_utf8_lossy(&percent_encoding::percent_decode_str(&uri).collect::<Vec<u8>>()).into_owned();
        let path = plain.strip_prefix(begin).unwrap_or_default();
        let mut depth = 0_i64;
        for segment in path.split(['/', '\\']) {
            depth += match segment {
                ".." => -1,
                _ => 1,
            };
            assert!(depth >= 0, "{uri:?} leaves `{begin}` when decoded");
        }
    }
}

/// A template says each value that it says in full, encoded, and is not blown up.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (template, rest) = text.split_once('\n').unwrap_or((text, ""));
    let values: Map<String, Value> =
        rest.split('\n').filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.into())).collect();
    let Some((uri, said)) = door::expand(template, &values) else { return };
    assert!(said <= values.len());
    assert!(uri.len() <= 64 * 1_024, "{} bytes of a template of {}", uri.len(), template.len());
    if !template.contains('{') {
        assert_eq!((uri.as_str(), said), (template, 0));
    }
    let literal: usize = template.chars().filter(|letter| matches!(letter, '/' | '?' | '#')).count();
    let plain = !["{+", "{#", "{/", "{?", "{&", "{.", "{;"].iter().any(|operator| template.contains(operator));
    if plain {
        let found = uri.chars().filter(|letter| matches!(letter, '/' | '?' | '#')).count();
        assert!(found <= literal, "a value broke out of its place: {uri:?}");
    }
}

/// A value comes back from a header as it went in; and a tool's parameters that are repeated are distinct and there.
pub fn header(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let value = encoded(text).expect("every text fits into a header");
    let seen = value.to_str().expect("headers are visible text");
    assert_eq!(door::decoded(seen).as_deref(), Some(text), "{seen:?}");
    // As it arrives: blanks around a value are no part of it.
    assert_eq!(seen.trim_matches([' ', '\t']), seen);
    let Ok(schema) = serde_json::from_str::<Value>(text) else { return };
    let Some(parameters) = mirrored(&schema) else { return };
    for (at, parameter) in parameters.iter().enumerate() {
        assert!(parameter.header.as_str().starts_with("mcp-param-"));
        assert!(parameters.iter().skip(at + 1).all(|other| other.header != parameter.header));
        let found = parameter.path.iter().try_fold(&schema, |schema, name| schema.get("properties")?.get(name));
        assert!(found.is_some_and(|schema| schema.get("x-mcp-header").is_some()));
        let mut argument = Value::from("x");
        for name in parameter.path.iter().rev() {
            argument = Value::Object(Map::from_iter([(name.clone(), argument)]));
        }
        assert_eq!(argument.as_object().and_then(|arguments| parameter.text(arguments)).as_deref(), Some("x"));
    }
}

static SEALS: LazyLock<Seals> = LazyLock::new(|| Seals::new(&[7; 32]).expect("a key"));

/// Only what was sealed is opened, by whom it was sealed for, in the one spelling that it has.
pub fn cursor(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    assert_eq!(SEALS.open(1, &text), None, "a cursor that nobody sealed is opened");
    let [place, letter, rest @ ..] = data else { return };
    let cursor = String::from_utf8_lossy(rest);
    let sealed = SEALS.seal(1, &cursor).expect("sealed");
    if sealed.len() <= 1_024 {
        assert_eq!(SEALS.open(1, &sealed).as_deref(), Some(&*cursor));
    }
    assert_eq!(SEALS.open(2, &sealed), None);
    let place = sealed.len().saturating_sub(1 + usize::from(*place)) % sealed.len();
    let mut changed = sealed.clone().into_bytes();
    changed[place] = *letter;
    let changed = String::from_utf8_lossy(&changed);
    assert!(changed == sealed || SEALS.open(1, &changed).is_none(), "a changed cursor is opened");
}

/// A question is about what its text says, whatever else stands there; a moment has one spelling.
pub fn authzen(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Some((millis, written)) = desk::moment(text)
    {
        assert_eq!(desk::moment(&written), Some((millis, written.clone())), "{text:?} is {written:?}");
    }
    let Ok(Value::Object(request)) = domain::json::read(data, domain::json::Limits::RECORD) else { return };
    let none = Map::new();
    let items = request.get("evaluations").and_then(Value::as_array);
    let items = items.into_iter().flatten().filter_map(Value::as_object).map(|item| (item, Some(&request)));
    for (item, defaults) in items.chain([(&request, None)]) {
        let Some(read) = desk::question(item, defaults) else { continue };
        let entity = |name: &str| item.get(name).or_else(|| defaults?.get(name));
        let text = |name: &str, member: &str| entity(name)?.get(member)?.as_str().map(str::to_owned);
        assert_eq!(text("subject", "type").zip(text("subject", "id")), Some(read.subject));
        assert_eq!(text("resource", "type").zip(text("resource", "id")), Some(read.resource.clone()));
        assert_eq!(text("action", "name").as_ref(), Some(&read.action));
        let Some((upstream, name, arguments)) = read.asked else { continue };
        let said = entity("resource").and_then(|resource| resource.get("properties")?.get("arguments")?.as_object());
        match read.resource.0.as_str() {
            "upstream" => assert_eq!((&upstream, &name), (&read.resource.1, &read.action)),
            "tool" | "prompt" => assert_eq!(format!("{upstream}/{name}"), read.resource.1),
            _ => assert_eq!(name, read.resource.1),
        }
        if read.resource.0 != "resource" {
            assert_eq!(said.unwrap_or(&none), &arguments);
        }
    }
}
