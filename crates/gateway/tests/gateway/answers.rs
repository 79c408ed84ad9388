//! What leaves for an upstream besides the arguments of a call: answers to its questions, completions, `_meta`. And the last
//! look before a call leaves.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::{Client, Setup, next_message};
use authority::{Actor, Policy, SourceFile, Sources};
use futures_util::future;
use gateway::{Body, GatewayConfig};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::Notify;

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The setup's policies without the one that lets tickets be read.
async fn forbid_tickets(setup: &Setup) {
    let files = testkit::fixture::policy_files().into_iter().map(|(path, text)| SourceFile {
        path: path.into(),
        text: text.replace(
            "permit (principal, action == Orders::Action::\"read_ticket\"",
            "forbid (principal, action == Orders::Action::\"read_ticket\"",
        ),
    });
    let policy = Policy::compile(&Sources { files: files.collect() }).unwrap().policy;
    setup.world.authority.reload_policy(policy, &Actor::System).await.unwrap();
}

fn allowed(setup: &Setup) -> usize {
    setup.logged("decision").iter().filter(|event| event["operation"] == "tools/call" && event["outcome"] == "allow").count()
}

/// Lets the upstream say something on its own, as soon as somebody listens.
async fn say(setup: &Setup, message: &Value) {
    let say = async {
        while setup.upstream.shared.says.send(message.to_string()).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), say).await.unwrap();
}

/// The stream of a call that asks its client something, and the question.
async fn asked(client: &Client<'_>) -> (Body, Value) {
    let body = client.body(1, "tools/call", json!({ "name": "read_ticket", "arguments": { "ticket_id": "ask" } }));
    let mut stream = client.send(client.request("POST", body)).await.into_body();
    let question = next_message(&mut stream).await.unwrap();
    assert_eq!(question["method"], "elicitation/create");
    (stream, question)
}

fn reply(question: &Value, result: Value) -> String {
    json!({ "jsonrpc": "2.0", "id": question["id"], "result": result }).to_string()
}

#[tokio::test]
async fn an_answer_is_decided_like_the_call_that_it_belongs_to() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let (mut stream, question) = asked(&client).await;
    assert_eq!(allowed(&setup), 1);
    let answer = json!({ "action": "accept", "_meta": { "note": "smuggled" } });
    assert_eq!(client.post(reply(&question, answer)).await.status, StatusCode::ACCEPTED);
    assert_eq!(next_message(&mut stream).await.unwrap()["result"]["content"][0]["text"], "accept");
    assert_eq!(allowed(&setup), 2, "the answer has a decision of its own");
    let sent = setup.upstream.answered();
    assert_eq!(sent[0]["result"], json!({ "action": "accept", "_meta": {} }));
    // It is answered once.
    client.post(reply(&question, json!({ "action": "accept" }))).await;
    assert_eq!(setup.upstream.answered().len(), 1);
}

#[tokio::test]
async fn an_answer_that_policy_does_not_allow_any_more_does_not_leave() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let (mut stream, question) = asked(&client).await;
    forbid_tickets(&setup).await;
    let refused = client.post(reply(&question, json!({ "action": "accept", "content": { "secret": "x" } }))).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, 40_300), "{}", refused.text);
    // The upstream is told that there is no answer, and goes on.
    next_message(&mut stream).await.unwrap();
    let sent = setup.upstream.answered();
    assert!(sent[0].get("result").is_none() && !sent[0].to_string().contains("secret"), "{sent:?}");
}

#[tokio::test]
async fn a_second_request_with_the_id_of_the_one_that_asked_does_not_stand_behind_the_answer() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let (_stream, question) = asked(&client).await;
    forbid_tickets(&setup).await;
    // A call that is still allowed, under way, with the same id.
    let arguments = json!({ "order_id": "o-1", "amount_cents": 1 });
    let twin = client.post(client.body(1, "tools/call", json!({ "name": "refund", "arguments": arguments })));
    let mut twin = std::pin::pin!(twin);
    tokio::select! {
        answer = &mut twin => {
            assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, -32_600), "{}", answer.text);
            assert_eq!(answer.json()["id"], Value::Null);
        }
        began = setup.upstream.shared.began.acquire() => began.unwrap().forget(),
    }
    client.post(reply(&question, json!({ "action": "accept", "content": { "secret": "x" } }))).await;
    let sent = setup.upstream.answered();
    assert!(!sent.iter().any(|answer| answer.to_string().contains("secret")), "{sent:?}");
}

#[tokio::test]
async fn an_answer_of_an_ended_task_does_not_leave() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let (_stream, question) = asked(&client).await;
    setup.end_task(&client).await;
    assert_eq!(client.post(reply(&question, json!({ "action": "accept" }))).await.status, StatusCode::UNAUTHORIZED);
    assert!(setup.upstream.answered().is_empty());
}

#[tokio::test]
async fn a_client_that_says_no_always_may() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let (mut stream, question) = asked(&client).await;
    forbid_tickets(&setup).await;
    let decline = json!({ "action": "decline", "content": { "secret": "x" } });
    assert_eq!(client.post(reply(&question, decline)).await.status, StatusCode::ACCEPTED);
    assert_eq!(next_message(&mut stream).await.unwrap()["result"]["content"][0]["text"], "decline");
    assert_eq!(setup.upstream.answered()[0]["result"], json!({ "action": "decline" }));
}

#[tokio::test]
async fn a_stateless_clients_answer_to_a_held_request_is_decided_before_it_leaves() {
    let setup = Setup::new(false).await;
    let client = setup.client().await;
    let params = json!({ "name": "read_ticket", "arguments": { "ticket_id": "ask" } });
    let first = client.ask("tools/call", params.clone()).await.json()["result"].clone();
    assert_eq!(first["resultType"], "input_required");
    forbid_tickets(&setup).await;
    let mut retry = params;
    retry["inputResponses"] = json!({ "input": { "action": "accept", "content": { "secret": "x" } } });
    retry["requestState"] = first["requestState"].clone();
    let refused = client.ask("tools/call", retry.clone()).await;
    assert!(refused.json()["result"]["isError"] == true || refused.json().get("error").is_some(), "{}", refused.text);
    assert!(setup.upstream.answered().iter().all(|answer| !answer.to_string().contains("secret")));
    assert_eq!(client.ask("tools/call", retry).await.code(), -32602, "what waited for it is over");
}

#[tokio::test]
async fn an_answer_that_no_request_stands_behind_leaves_only_while_nothing_was_read() {
    let public = "[unasked]\nuntrusted = false\nsensitivity = \"public\"\n";
    let question = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "roots/list" });
    let config = GatewayConfig { loopback: true, ..GatewayConfig::default() };
    let setup = Setup::saying(false, config, public).await;
    let client = setup.legacy_client().await;
    let mut stream = client.send(client.request("GET", "")).await.into_body();
    for (read, leaves) in [(false, true), (true, false)] {
        if read {
            client.call("get_order", json!({ "order_id": "o-1" })).await;
        }
        let id = 50 + u64::from(read);
        say(&setup, &question(id)).await;
        let asked = next_message(&mut stream).await.unwrap();
        let answer = client.post(reply(&asked, json!({ "roots": [{ "uri": "file:///secret" }] }))).await;
        assert_eq!(answer.status == StatusCode::ACCEPTED, leaves, "{}", answer.text);
        let sent = setup.upstream.answered().pop().unwrap();
        assert_eq!(sent.to_string().contains("secret"), leaves, "{sent}");
        // It is in the log either way, and the entry commits to what would leave.
        let decision = setup.logged("decision").pop().unwrap();
        let told = ["operation", "subject", "upstream", "outcome"].map(|name| decision[name].as_str().unwrap_or_default());
        assert_eq!(told, ["answer", "roots/list", "orders", if leaves { "allow" } else { "deny" }]);
        assert!(decision["arguments"]["committed"]["roots"].is_string(), "{decision}");
        let outcomes = setup.wait_logged("outcome", 1 + usize::from(read)).await;
        assert_eq!(outcomes[0]["status"], "ok");
    }
    // Nor does one that nobody asked for.
    let before = setup.upstream.answered().len();
    client.post(reply(&json!({ "id": 99 }), json!({ "secret": "x" }))).await;
    assert_eq!(setup.upstream.answered().len(), before);
}

#[tokio::test]
async fn an_answer_that_cannot_be_logged_does_not_leave() {
    let public = "[unasked]\nuntrusted = false\nsensitivity = \"public\"\n";
    let config = GatewayConfig { loopback: true, ..GatewayConfig::default() };
    let setup = Setup::saying(false, config, public).await;
    let client = setup.legacy_client().await;
    let mut stream = client.send(client.request("GET", "")).await.into_body();
    say(&setup, &json!({ "jsonrpc": "2.0", "id": 50, "method": "roots/list" })).await;
    let asked = next_message(&mut stream).await.unwrap();
    setup.world.ledger.break_with(Some(testkit::Fault::Failed));
    let answer = client.post(reply(&asked, json!({ "roots": [{ "uri": "file:///secret" }] }))).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
    assert!(setup.upstream.answered().iter().all(|answer| !answer.to_string().contains("secret")));
}

#[tokio::test]
async fn a_ping_is_answered_by_the_gateway_whatever_was_read() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    client.call("get_order", json!({ "order_id": "o-1" })).await;
    let mut stream = client.send(client.request("GET", "")).await.into_body();
    say(&setup, &json!({ "jsonrpc": "2.0", "id": "p-1", "method": "ping" })).await;
    say(&setup, &json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })).await;
    assert_eq!(next_message(&mut stream).await.unwrap()["method"], "notifications/tools/list_changed");
    let answered = async {
        while setup.upstream.answered().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), answered).await.unwrap();
    assert_eq!(setup.upstream.answered(), [json!({ "jsonrpc": "2.0", "id": "p-1", "result": {} })]);
}

#[tokio::test]
async fn only_what_the_protocol_defines_passes_in_meta_both_ways() {
    for (modern_client, modern_upstream) in [(false, false), (true, true), (true, false), (false, true)] {
        let setup = Setup::new(modern_upstream).await;
        let client = if modern_client { setup.client().await } else { setup.legacy_client().await };
        let tags = json!({ "note": "smuggled", "dev.evil/x": 1, "progressToken": 7, "traceparent": TRACE });
        for (method, mut params) in
            [("tools/call", json!({ "name": "read_ticket", "arguments": { "ticket_id": "tags" } })), ("prompts/list", json!({}))]
        {
            params["_meta"] = tags.clone();
            let answer = client.ask(method, params).await;
            let seen = setup.upstream.seen(method).pop().unwrap().params["_meta"].clone();
            assert_eq!((&seen["progressToken"], &seen["traceparent"]), (&json!(7), &json!(TRACE)), "{method} {seen}");
            assert!(seen.get("note").is_none() && seen.get("dev.evil/x").is_none(), "{method} {seen}");
            assert!(!answer.text.contains("smuggled"), "{method}: {}", answer.text);
            if method == "tools/call" {
                assert!(answer.text.contains(r#""io.modelcontextprotocol/related-task":{"taskId":"t"}"#), "{}", answer.text);
            }
        }
    }
}

#[tokio::test]
async fn a_completion_for_a_template_is_decided_on_the_resource_that_it_names() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let ask = |uri: &str, value: &str| {
        json!({ "ref": { "type": "ref/resource", "uri": uri, "note": "smuggled" },
            "argument": { "name": "id", "value": value, "note": "smuggled" },
            "context": { "arguments": { "other": "x" }, "note": "smuggled" } })
    };
    for (uri, value) in [
        ("{+id}", "secrets://1"),
        ("{id}://1", "secrets"),
        ("orders://{+id}", "../../secrets"),
        ("orders://{id", "1"),
        ("secrets://{id}", "1"),
    ] {
        let answer = client.ask("completion/complete", ask(uri, value)).await;
        assert!(answer.json().get("error").is_some(), "{uri} {value}: {}", answer.text);
    }
    let not_text =
        json!({ "ref": { "type": "ref/resource", "uri": "orders://{id}" }, "argument": { "name": "id", "value": { "x": 1 } } });
    assert_eq!(client.ask("completion/complete", not_text).await.code(), -32602);
    assert!(setup.upstream.seen("completion/complete").is_empty());
    let answer = client.ask("completion/complete", ask("orders://{id}", "1")).await;
    assert!(answer.json().get("result").is_some(), "{}", answer.text);
    let decision = setup.logged("decision").pop().unwrap();
    assert_eq!(decision["subject"], "orders://1");
    let seen = setup.upstream.seen("completion/complete").pop().unwrap().params;
    assert_eq!(seen["ref"]["uri"], "orders://{id}");
    assert!(!seen.to_string().contains("smuggled"), "{seen}");
}

#[tokio::test]
async fn a_tool_that_changed_while_its_call_was_decided_is_not_called() {
    let setup = Setup::new(false).await;
    let (client, other) = (setup.legacy_client().await, setup.legacy_client().await);
    client.ask("tools/list", json!({})).await;
    let hold = setup.world.ledger.hold_next_commit();
    let call = client.call("get_order", json!({ "order_id": "o-1" }));
    let change = async {
        hold.written().await;
        let mut definitions = setup.upstream.shared.definitions.lock().unwrap().clone();
        definitions.iter_mut().find(|tool| tool["name"] == "get_order").unwrap()["description"] = "obey".into();
        *setup.upstream.shared.definitions.lock().unwrap() = definitions;
        other.ask("tools/list", json!({})).await;
        hold.go();
    };
    let (answer, ()) = future::join(call, change).await;
    assert_eq!(answer.code(), -32602, "{}", answer.text);
    assert!(setup.upstream.seen("tools/call").is_empty());
    assert_eq!(setup.logged("decision").pop().unwrap()["outcome"], "allow");
    assert_eq!(setup.wait_logged("outcome", 1).await[0]["status"], "not_released");
}

#[tokio::test]
async fn a_call_whose_policy_was_replaced_while_it_was_decided_is_decided_again() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let hold = setup.world.ledger.hold_next_commit();
    let call = client.call("read_ticket", json!({ "ticket_id": "1" }));
    let change = async {
        hold.written().await;
        forbid_tickets(&setup).await;
        hold.go();
    };
    let (answer, ()) = future::join(call, change).await;
    // The policy that is in force permits tickets to nobody, so there is no such tool any more.
    assert!(answer.json().get("result").is_none_or(|result| result["isError"] == true), "{}", answer.text);
    assert!(setup.upstream.seen("tools/call").is_empty());
    let outcomes: Vec<_> = setup.logged("decision").iter().map(|event| event["outcome"].clone()).collect();
    assert_eq!(outcomes[outcomes.len() - 2..], [json!("allow"), json!("deny")]);
    assert_eq!(setup.wait_logged("outcome", 1).await[0]["status"], "not_released");
}

#[tokio::test]
async fn a_call_whose_policy_was_replaced_before_it_left_is_not_sent() {
    let setup = Setup::new(false).await;
    let (first, client) = (setup.client().await, setup.client().await);
    // The tools are known from another task, so that the session begins after the decision.
    assert_eq!(first.call("get_order", json!({ "order_id": "o-1" })).await.json()["result"]["isError"], false);
    let slow = Arc::new((Notify::new(), Notify::new()));
    *setup.upstream.shared.slow_start.lock().unwrap() = Some(Arc::clone(&slow));
    let call = client.call("read_ticket", json!({ "ticket_id": "1" }));
    let change = async {
        slow.0.notified().await;
        assert_eq!(setup.logged("decision").pop().unwrap()["outcome"], "allow");
        forbid_tickets(&setup).await;
        slow.1.notify_one();
    };
    let (answer, ()) = future::join(call, change).await;
    assert!(answer.text.contains("the policy changed before the request was sent"), "{}", answer.text);
    assert_eq!(setup.upstream.seen("tools/call").len(), 1);
    assert_eq!(setup.wait_logged("outcome", 2).await[1]["status"], "not_released");
}

#[tokio::test]
async fn a_call_that_waited_for_input_does_not_go_on_under_a_policy_that_was_replaced() {
    for replaced in [false, true] {
        // An answer goes to a stateless upstream as a further round of the whole call. A refusal is no decision of its own.
        let setup = Setup::new(true).await;
        let client = setup.legacy_client().await;
        let body = client.body(1, "tools/call", json!({ "name": "read_ticket", "arguments": { "ticket_id": "ask" } }));
        let mut stream = client.send(client.request("POST", body)).await.into_body();
        let question = next_message(&mut stream).await.unwrap();
        if replaced {
            forbid_tickets(&setup).await;
        }
        let reply = json!({ "jsonrpc": "2.0", "id": question["id"], "error": { "code": 1, "message": "no" } }).to_string();
        let taken = client.post(reply).await;
        assert_eq!(taken.status, 202, "{question} {}", taken.text);
        let answer = next_message(&mut stream).await.unwrap();
        assert_eq!(answer.to_string().contains("the policy changed while this waited"), replaced, "{answer}");
        assert_eq!(setup.upstream.seen("tools/call").len(), if replaced { 1 } else { 2 });
        let status = if replaced { "withheld" } else { "ok" };
        assert_eq!(setup.wait_logged("outcome", 1).await[0]["status"], status);
    }
}

#[tokio::test]
async fn a_call_that_is_sent_again_in_a_new_session_is_not_if_its_policy_was_replaced() {
    for replaced in [false, true] {
        let setup = Setup::new(false).await;
        let client = setup.client().await;
        let read = || client.call("read_ticket", json!({ "ticket_id": "1" }));
        assert_eq!(read().await.json()["result"]["isError"], Value::Null);
        setup.upstream.shared.forgets.store(true, Ordering::SeqCst);
        let slow = Arc::new((Notify::new(), Notify::new()));
        *setup.upstream.shared.slow_start.lock().unwrap() = Some(Arc::clone(&slow));
        let change = async {
            slow.0.notified().await;
            if replaced {
                forbid_tickets(&setup).await;
            }
            slow.1.notify_one();
        };
        let (answer, ()) = future::join(read(), change).await;
        assert_eq!(answer.text.contains("the policy changed before the request was sent"), replaced, "{}", answer.text);
        // The second one is the one that the upstream did not take.
        assert_eq!(setup.upstream.seen("tools/call").len(), if replaced { 2 } else { 3 });
        let status = if replaced { "not_released" } else { "ok" };
        assert_eq!(setup.wait_logged("outcome", 2).await[1]["status"], status);
    }
}
