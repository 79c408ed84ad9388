//! What leaves for an upstream that no policy sees: nothing of it is in the client's own words.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::{Client, LEGACY, MODERN, Setup, next_message};
use serde_json::{Value, json};

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A request in which everything says `secret` that a client may choose.
fn talkative(client: &Client<'_>, method: &str, params: Value) -> String {
    let body = client.body(1, method, params);
    let mut message: Value = serde_json::from_str(&body).unwrap();
    message["id"] = "secret".into();
    message["params"]["note"] = "secret".into();
    let tags = &mut message["params"]["_meta"];
    tags["progressToken"] = "secret".into();
    tags["baggage"] = "k=secret".into();
    tags["tracestate"] = "k=secret".into();
    tags["traceparent"] = TRACE.into();
    tags["io.modelcontextprotocol/secret"] = "secret".into();
    if client.version == MODERN {
        tags["io.modelcontextprotocol/clientInfo"] = json!({ "name": "secret", "version": "secret" });
        tags["io.modelcontextprotocol/clientCapabilities"] =
            json!({ "elicitation": {}, "experimental": { "secret": {} }, "extensions": { "dev.secret/x": {} } });
    }
    message.to_string()
}

#[tokio::test]
async fn an_upstream_is_told_nothing_in_the_clients_own_words() {
    for (modern_client, modern_upstream) in [(false, false), (true, true), (true, false), (false, true)] {
        let setup = Setup::new(modern_upstream).await;
        let mut client = setup.client().await;
        if !modern_client {
            client.version = LEGACY;
            let params = json!({ "protocolVersion": LEGACY, "clientInfo": { "name": "secret", "version": "1" },
                "capabilities": { "elicitation": {}, "experimental": { "secret": {} }, "roots": { "listChanged": "secret" } } });
            let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }).to_string();
            let answer = client.post(body).await;
            client.session = answer.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        }
        let call = json!({ "name": "read_ticket", "arguments": { "ticket_id": "1" }, "task": { "note": "secret" } });
        for (method, params) in [
            // First: a policy wants approval for it once something was read.
            ("resources/read", json!({ "uri": "orders://1" })),
            ("tools/call", call),
            ("tools/list", json!({})),
            ("prompts/list", json!({})),
        ] {
            let answer = client.post(talkative(&client, method, params)).await.json();
            assert!(answer.get("result").is_some(), "{method}: {answer}");
            assert_eq!(answer["id"], "secret", "it travels under another id, and comes back under its own");
        }
        let seen = setup.upstream.shared.seen.lock().unwrap().clone();
        assert!(seen.iter().any(|seen| seen.params["_meta"]["traceparent"] == TRACE));
        for seen in seen {
            assert_ne!(seen.id, "secret");
            assert!(!format!("{seen:?}").contains("secret"), "{modern_client} {modern_upstream}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn progress_comes_back_under_the_clients_own_token() {
    for modern in [false, true] {
        let setup = Setup::new(modern).await;
        let client = if modern { setup.client().await } else { setup.legacy_client().await };
        let params =
            json!({ "name": "read_ticket", "arguments": { "ticket_id": "progress" }, "_meta": { "progressToken": "mine" } });
        let answer = client.ask("tools/call", params).await;
        let tokens: Vec<_> =
            answer.messages().iter().filter_map(|message| message.pointer("/params/progressToken").cloned()).collect();
        assert_eq!(tokens, ["mine", "mine"], "{}", answer.text);
        assert_ne!(setup.upstream.seen("tools/call")[0].params["_meta"]["progressToken"], "mine");
    }
}

#[tokio::test]
async fn a_list_goes_on_only_where_the_upstream_said() {
    const LIST: &str = "resources/templates/list";
    for modern in [false, true] {
        let setup = Setup::new(modern).await;
        let client = if modern { setup.client().await } else { setup.legacy_client().await };
        let first = client.ask(LIST, json!({})).await.json();
        let cursor = first["result"]["nextCursor"].as_str().unwrap().to_owned();
        assert!(!cursor.contains("page"), "{cursor}");
        for _ in 0..2 {
            let second = client.ask(LIST, json!({ "cursor": cursor })).await.json();
            assert_eq!(second["result"].get("nextCursor"), None, "{second}");
            assert_eq!(setup.upstream.seen(LIST).pop().unwrap().params["cursor"], "page 2");
        }
        let before = setup.upstream.shared.seen.lock().unwrap().len();
        let other = if modern { setup.client().await } else { setup.legacy_client().await };
        let begun = setup.upstream.shared.seen.lock().unwrap().len() - before;
        for (client, method, cursor) in [
            (&client, LIST, "secret"),
            (&client, LIST, "page 2"),
            (&client, "prompts/list", &*cursor),
            (&client, "tools/list", &*cursor),
            (&other, LIST, &*cursor),
        ] {
            assert_eq!(client.ask(method, json!({ "cursor": cursor })).await.code(), -32602, "{method} {cursor}");
        }
        assert_eq!(setup.upstream.shared.seen.lock().unwrap().len(), before + begun, "nothing of it left");
    }
}

#[tokio::test]
async fn what_tunes_a_session_says_nothing_that_was_not_decided() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    assert_eq!(client.ask("logging/setLevel", json!({ "level": "secret" })).await.code(), -32602);
    assert!(client.ask("logging/setLevel", json!({ "level": "info", "note": "secret" })).await.json()["result"].is_object());
    let uri = json!({ "uri": "orders://1" });
    assert_eq!(client.ask("resources/unsubscribe", uri.clone()).await.json()["result"], json!({}));
    assert_eq!(client.ask("resources/unsubscribe", json!({ "uri": "secret://1" })).await.json()["result"], json!({}));
    assert!(setup.upstream.seen("resources/unsubscribe").is_empty());
    client.ask("resources/subscribe", uri.clone()).await;
    for _ in 0..2 {
        assert_eq!(client.ask("resources/unsubscribe", uri.clone()).await.json()["result"], json!({}));
        assert_eq!(setup.upstream.seen("resources/unsubscribe").len(), 1, "it ends once");
    }
    let progress = |token: &str| {
        let params = json!({ "progressToken": token, "progress": 1, "message": "secret" });
        json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }).to_string()
    };
    client.post(progress("secret")).await;
    assert!(setup.upstream.seen("notifications/progress").is_empty());
    let body = client.body(1, "tools/call", json!({ "name": "read_ticket", "arguments": { "ticket_id": "ask" } }));
    let mut stream = client.send(client.request("POST", body)).await.into_body();
    next_message(&mut stream).await.unwrap();
    client.post(progress("q-token")).await;
    assert_eq!(setup.upstream.seen("notifications/progress").len(), 1, "the upstream asked for it");
    assert!(!format!("{:?}", setup.upstream.shared.seen.lock().unwrap()).contains("secret"));
}

#[tokio::test]
async fn a_subscription_holds_only_what_was_decided() {
    let setup = Setup::new(true).await;
    let client = setup.client().await;
    let wanted = json!({ "toolsListChanged": true, "promptsListChanged": "secret", "note": "secret", "taskIds": ["secret"],
        "resourceSubscriptions": ["orders://a/../b", "orders://1", "secrets://1"] });
    let body = client.body(1, "subscriptions/listen", json!({ "notifications": wanted, "note": "secret" }));
    let mut stream = client.send(client.request("POST", body)).await.into_body();
    next_message(&mut stream).await.unwrap();
    let seen = setup.upstream.seen("subscriptions/listen").pop().unwrap().params;
    let left = json!({ "toolsListChanged": true, "taskIds": [], "resourceSubscriptions": ["orders://1"] });
    assert_eq!((&seen["notifications"], seen.get("note")), (&left, None));
}
