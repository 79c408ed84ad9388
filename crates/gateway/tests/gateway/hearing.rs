//! What an upstream says without a decided request: it raises labels before the agent gets it, or the agent does not get it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::{Setup, next_message};
use domain::Labels;
use gateway::{GatewayConfig, Limits};
use serde_json::{Value, json};
use std::time::Duration;
use testkit::Fault;

const PUBLIC: &str = "[unasked]\nuntrusted = false\nsensitivity = \"public\"\n";
const DECLARED: &str = "[unasked]\nuntrusted = true\nsensitivity = \"internal\"\n";

async fn setup(modern_upstream: bool, unasked: &str) -> Setup {
    let config = GatewayConfig { loopback: true, limits: Limits::default(), ..GatewayConfig::default() };
    Setup::saying(modern_upstream, config, unasked).await
}

fn heard(setup: &Setup) -> Vec<Value> {
    setup.logged("heard").iter().map(|event| json!([event["what"], event["read_untrusted"], event["read_sensitivity"]])).collect()
}

fn labels(setup: &Setup, client: &crate::support::Client<'_>) -> Labels {
    setup.world.authority.live_task(client.task()).unwrap().progress().labels
}

/// Sends what the upstream says on its own as soon as somebody listens.
async fn say(setup: &Setup, text: Value) {
    let say = async {
        while setup.upstream.shared.says.send(text.to_string()).is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), say).await.unwrap();
}

#[tokio::test]
async fn instructions_raise_the_declared_labels_before_they_are_shown() {
    for modern in [false, true] {
        let setup = setup(modern, DECLARED).await;
        let mut client = setup.client().await;
        let answer = match modern {
            true => client.ask("server/discover", json!({})).await,
            false => {
                client.version = crate::support::LEGACY;
                client.initialize(crate::support::LEGACY).await
            }
        };
        assert_eq!(answer.json()["result"]["instructions"], "be kind", "{}", answer.text);
        assert_eq!(heard(&setup), [json!(["instructions", true, 1])]);
        assert!(labels(&setup, &client).read_untrusted);
    }
}

#[tokio::test]
async fn instructions_that_nobody_declared_or_that_cannot_be_logged_are_withheld() {
    for (unasked, fault) in [("", None), (DECLARED, Some(Fault::Failed)), (DECLARED, Some(Fault::FailedButKept))] {
        for modern in [false, true] {
            let setup = setup(modern, unasked).await;
            let mut client = setup.client().await;
            setup.world.ledger.break_with(fault);
            let answer = match modern {
                true => client.ask("server/discover", json!({})).await,
                false => {
                    client.version = crate::support::LEGACY;
                    client.initialize(crate::support::LEGACY).await
                }
            };
            assert!(!answer.text.contains("be kind") && !answer.text.contains("x-unknown"), "{}", answer.text);
            assert!(answer.json()["result"]["capabilities"]["tools"].is_object(), "it works all the same: {}", answer.text);
            if fault.is_none() {
                assert_eq!((heard(&setup).len(), labels(&setup, &client)), (0, Labels::default()));
            }
        }
    }
}

#[tokio::test]
async fn listings_raise_labels_first_except_those_of_approved_tools() {
    for modern in [false, true] {
        for (method, list) in [("resources/list", "resources"), ("prompts/list", "prompts")] {
            let setup = setup(modern, "").await;
            let client = if modern { setup.client().await } else { setup.legacy_client().await };
            let tools = client.ask("tools/list", json!({})).await;
            assert!(!tools.json()["result"]["tools"].as_array().unwrap().is_empty());
            assert!(!tools.text.contains("x-unknown"), "nothing that was not approved: {}", tools.text);
            assert_eq!((heard(&setup).len(), labels(&setup, &client)), (0, Labels::default()), "an operator accepted them");
            setup.world.ledger.break_with(Some(Fault::Failed));
            let refused = client.ask(method, json!({})).await;
            assert_eq!(refused.code(), 40_300, "{}", refused.text);
            setup.world.ledger.break_with(None);
            let listed = client.ask(method, json!({})).await;
            assert_eq!(listed.json()["result"][list].as_array().unwrap().len(), 1, "{}", listed.text);
            client.ask(method, json!({})).await;
            assert_eq!(heard(&setup), [json!(["listing", true, 2])]);
        }
    }
}

#[tokio::test]
async fn what_comes_on_the_listening_stream_raises_labels_first_or_is_dropped() {
    for (said, what) in [
        (json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "obey" } }), "notice"),
        (json!({ "jsonrpc": "2.0", "method": "notifications/resources/updated", "params": { "uri": "obey://" } }), "notice"),
        (json!({ "jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": { "message": "obey" } }), "question"),
    ] {
        let setup = setup(false, "").await;
        let client = setup.legacy_client().await;
        let mut stream = client.send(client.request("GET", "")).await.into_body();
        setup.world.ledger.break_with(Some(Fault::Failed));
        say(&setup, said.clone()).await;
        say(&setup, json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": { "x": "obey" } })).await;
        let first = next_message(&mut stream).await.unwrap();
        assert_eq!(first["method"], "notifications/tools/list_changed", "withheld: {first}");
        assert!(!first.to_string().contains("obey"), "{first}");
        setup.world.ledger.break_with(None);
        say(&setup, said.clone()).await;
        let passed = next_message(&mut stream).await.unwrap();
        assert_eq!(passed["method"], said["method"]);
        assert_eq!(heard(&setup), [json!([what, true, 2])], "{passed}");
    }
}

#[tokio::test]
async fn a_question_aside_raises_labels_although_it_is_asked_within_a_decided_call() {
    let setup = setup(false, "").await;
    let client = setup.client().await;
    let asking = client.call("refund", json!({ "order_id": "o-1", "amount_cents": 1 }));
    let said = async {
        setup.upstream.shared.began.acquire().await.unwrap().forget();
        assert_eq!(heard(&setup).len(), 0);
        let question = json!({ "jsonrpc": "2.0", "id": 9, "method": "elicitation/create", "params": { "message": "obey" } });
        say(&setup, question).await;
    };
    let (answer, ()) = futures_util::future::join(asking, said).await;
    assert_eq!(answer.json()["result"]["resultType"], "input_required", "{}", answer.text);
    assert_eq!(heard(&setup), [json!(["question", true, 2])]);
}

#[tokio::test]
async fn what_brings_nothing_costs_nothing_and_passes() {
    let setup = setup(false, PUBLIC).await;
    let mut client = setup.legacy_client().await;
    setup.world.ledger.break_with(Some(Fault::Failed));
    assert_eq!(client.initialize(crate::support::LEGACY).await.json()["result"]["instructions"], "be kind");
    assert_eq!(client.ask("resources/list", json!({})).await.json()["result"]["resources"][0]["uri"], "orders://1");
    assert_eq!(heard(&setup).len(), 0);
}

#[tokio::test]
async fn a_call_is_covered_by_its_own_labels() {
    let setup = setup(false, "").await;
    let client = setup.legacy_client().await;
    let answer = client.ask("tools/call", json!({ "name": "get_order", "arguments": { "order_id": "o-1" } })).await;
    assert_eq!(answer.json()["result"]["isError"], false, "{}", answer.text);
    assert_eq!((heard(&setup).len(), labels(&setup, &client).read_untrusted), (0, false));
}
