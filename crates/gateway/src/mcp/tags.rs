//! `_meta` of what an upstream says: what the protocol itself puts there passes; the rest is a channel that no policy sees.
//! What a client says there is narrower: `leaving.rs`.
//! Owns which members those are, and what of a `serverInfo` is a name rather than words. Pure.
//! MCP 2026-07-28 "`_meta`"; W3C Trace Context, W3C Baggage.

use super::message::Raw;
use super::object::Members;
use super::version::meta;
use serde_json::{Value, json};

/// Longest name, title or version of a server that still is one.
const NAME_BYTES_MAX: usize = 128;
const PROTOCOL: &str = "io.modelcontextprotocol/";
const TRACE: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Whether a member of `_meta` is one that the protocol defines.
fn passes(name: &str) -> bool {
    name == "progressToken" || name.starts_with(PROTOCOL) || TRACE.contains(&name)
}

/// The text of a `_meta` without what the protocol does not define; `None` if there is nothing else in it.
pub(crate) fn narrowed(text: &str) -> Option<String> {
    let Ok(mut tags) = serde_json::from_str::<Members<'_>>(text) else { return Some("{}".to_owned()) };
    tags.retain(passes).then(|| text_of(&tags))
}

/// The same of the `_meta` within an object. Whether it changed.
pub(crate) fn narrow(members: &mut Members<'_>) -> bool {
    match members.get("_meta").and_then(narrowed) {
        Some(text) => {
            members.set_text("_meta", text);
            true
        }
        None => false,
    }
}

/// A message's parameters or result with such a `_meta`.
pub(crate) fn narrowed_raw(raw: Raw) -> Raw {
    let narrowed = Members::of(&raw).and_then(|mut members| narrow(&mut members).then(|| members.to_raw()));
    narrowed.unwrap_or(raw)
}

/// Leaves in `_meta` only what says nothing: the protocol's members, the server's name among them.
pub(crate) fn silence(members: &mut Members<'_>) {
    narrow(members);
    let Some(mut tags) = members.value("_meta") else { return };
    if let Some(info) = tags.as_object_mut().and_then(|tags| tags.get_mut(meta::SERVER_INFO)) {
        *info = named(info);
        members.set("_meta", &tags);
    }
}

/// What names a server, without what it says of itself.
pub(crate) fn named(info: &Value) -> Value {
    let mut name = json!({});
    if let (Some(info), Some(name)) = (info.as_object(), name.as_object_mut()) {
        let short = |value: &Value| value.as_str().is_some_and(|text| text.len() <= NAME_BYTES_MAX);
        let kept = info.iter().filter(|(key, value)| matches!(key.as_str(), "name" | "title" | "version") && short(value));
        name.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
    }
    name
}

fn text_of(members: &Members<'_>) -> String {
    String::from_utf8_lossy(members.to_raw().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_protocol_defines_passes() {
        for (tags, expected) in [
            (r#"{"progressToken":1.0,"traceparent":"00-x","tracestate":"a=b","baggage":"k=v"}"#, None),
            (r#"{"io.modelcontextprotocol/subscriptionId":7}"#, None),
            ("{}", None),
            (r#"{ "progressToken" : 1.0, "note":"send it all" }"#, Some(r#"{"progressToken":1.0}"#)),
            (r#"{"Progresstoken":1,"progress\u0054oken2":1}"#, Some("{}")),
            (r#"{"io.modelcontextprotocol.evil/x":1,"dev.writ/denial":1}"#, Some("{}")),
            (r#""text""#, Some("{}")),
        ] {
            assert_eq!(narrowed(tags).as_deref(), expected, "{tags}");
        }
        assert_eq!(narrowed(r#"{"note":1,"progress\u0054oken":2}"#).as_deref(), Some(r#"{"progressToken":2}"#));
    }

    #[test]
    fn a_name_is_short_and_nothing_else() {
        let info = json!({ "name": "n", "version": "1", "title": "x".repeat(200), "description": "words", "icons": [] });
        assert_eq!(named(&info), json!({ "name": "n", "version": "1" }));
        assert_eq!(named(&json!("words")), json!({}));
    }
}
