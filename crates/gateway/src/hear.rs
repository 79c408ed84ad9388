//! What an upstream says without a decided request, on its way to the agent: what of it says nothing, what raises labels
//! first, and what is left when it must be withheld. Raises nothing itself: the authority does.
//! MCP 2025-11-25 "Lifecycle"; MCP 2026-07-28 "Discovery", "Subscriptions".

use crate::listen::Inner;
use crate::mcp::message::Raw;
use crate::mcp::object::Members;
use crate::mcp::tags;
use authority::{Caller, Heard, Unheard};
use domain::{Operation, UpstreamName};
use serde_json::{Value, json};

/// What introduces a server besides its words.
const INTRODUCTION: [&str; 8] =
    ["protocolVersion", "supportedVersions", "capabilities", "serverInfo", "resultType", "ttlMs", "cacheScope", "_meta"];
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// How an upstream introduces itself to this caller: with its instructions and what else it says, if the labels of that could
/// be raised; else by its name and what it can do.
pub(crate) async fn introduction(gateway: &Inner, caller: &Caller, upstream: &UpstreamName, described: &Raw) -> Raw {
    // What one reader takes for the instructions, another must not take for something else.
    let described = if Members::of(described).is_some() { described } else { &Raw::from_value(&described.to_value()) };
    let Some(plain) = plain(described) else { return described.clone() };
    match gateway.authority.hear(caller, upstream, Heard::Instructions).await {
        Ok(()) => described.clone(),
        Err(unheard) => {
            tracing::info!(%upstream, why = %unheard, "the instructions of an upstream are withheld");
            plain
        }
    }
}

/// An introduction without words; `None` if it has none.
fn plain(described: &Raw) -> Option<Raw> {
    let mut members = Members::of(described)?;
    members.retain(|name| INTRODUCTION.contains(&name));
    if let Some(info) = members.value("serverInfo") {
        members.set("serverInfo", &tags::named(&info));
    }
    tags::silence(&mut members);
    let plain = members.to_raw();
    (plain.to_value() != described.to_value()).then_some(plain)
}

/// The parameters of a notification that says no more than that something changed; `None` if it says more.
pub(crate) fn silent(method: &str, params: Option<&Raw>) -> Option<Raw> {
    match method {
        "notifications/tools/list_changed" | "notifications/prompts/list_changed" | "notifications/resources/list_changed" => {
            Some(Raw::from_value(&json!({})))
        }
        ACKNOWLEDGED => {
            let wanted = params?.to_value().get("notifications")?.as_object()?.clone();
            let says_nothing = |(name, value): (&String, &Value)| {
                matches!(name.as_str(), "toolsListChanged" | "promptsListChanged" | "resourcesListChanged") && value.is_boolean()
                    || value.as_array().is_some_and(Vec::is_empty) && matches!(name.as_str(), "resourceSubscriptions" | "taskIds")
            };
            wanted.iter().all(says_nothing).then(|| Raw::from_value(&json!({ "notifications": wanted })))
        }
        _ => None,
    }
}

/// Whether a notification names a resource to a task that could read none: like a list of them, it shows all or nothing.
pub(crate) fn hides(gateway: &Inner, (caller, upstream): (&Caller, &UpstreamName), method: &str) -> bool {
    method == "notifications/resources/updated"
        && !gateway.authority.could_allow(caller, &Operation::ReadResource { upstream, uri: "" })
}

/// What an upstream is told whose question must not be asked.
pub(crate) fn unasked(why: Unheard) -> Raw {
    tracing::info!(%why, "a question of an upstream is withheld");
    Raw::from_value(&json!({ "code": crate::mcp::version::code::METHOD_NOT_FOUND, "message": "the client cannot be asked now" }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn an_introduction_without_words_has_names_and_capabilities() {
        let said = json!({
            "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "instructions": "obey", "x-more": "words",
            "serverInfo": { "name": "s", "version": "1", "description": "obey" },
            "_meta": { "note": "obey", "io.modelcontextprotocol/serverInfo": { "name": "s", "description": "obey" } },
        });
        let plain = plain(&Raw::from_value(&said)).unwrap().to_value();
        assert!(!plain.to_string().contains("obey") && !plain.to_string().contains("words"), "{plain}");
        assert_eq!(plain["serverInfo"], json!({ "name": "s", "version": "1" }));
        assert_eq!(plain["capabilities"], said["capabilities"]);
        assert!(super::plain(&Raw::from_value(&plain)).is_none());
    }

    #[test]
    fn a_notification_says_nothing_only_if_it_cannot() {
        let params = |value: Value| Raw::from_value(&value);
        let words = params(json!({ "note": "obey", "_meta": { "x": "obey" } }));
        assert_eq!(silent("notifications/tools/list_changed", Some(&words)).unwrap().as_bytes(), b"{}");
        for (wanted, says_nothing) in [
            (json!({ "toolsListChanged": true, "resourceSubscriptions": [] }), true),
            (json!({ "toolsListChanged": "obey" }), false),
            (json!({ "obey": true }), false),
            (json!({ "resourceSubscriptions": ["obey://"] }), false),
        ] {
            assert_eq!(silent(ACKNOWLEDGED, Some(&params(json!({ "notifications": wanted })))).is_some(), says_nothing);
        }
        for method in ["notifications/message", "notifications/progress", "notifications/resources/updated", "obey"] {
            assert!(silent(method, Some(&words)).is_none());
        }
    }
}
