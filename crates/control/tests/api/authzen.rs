//! The AuthZEN 1.0 checklist, and that a decision given to another enforcement point is as strict and as logged as any.
//! Asks over HTTP only; knows nothing of how a decision is made.

use crate::served::{ADMIN, AUDITOR, Answer, POINT, Served};
use serde_json::{Value, json};
use testkit::Fault;

fn question(task: &str, tool: &str, arguments: Value) -> Value {
    json!({
        "subject": {"type": "task", "id": task},
        "action": {"name": tool},
        "resource": {"type": "upstream", "id": "orders", "properties": {"arguments": arguments}},
    })
}

async fn evaluate(served: &Served, body: &Value) -> Answer {
    served.operate(POINT, "POST", "/access/v1/evaluation", body.clone()).await
}

async fn raw(served: &Served, kind: &str, body: &str) -> Answer {
    let authorization = format!("Bearer {POINT}");
    let headers = [("authorization", authorization.as_str()), ("content-type", kind)];
    served.ask("POST", "/access/v1/evaluation", &headers, body.to_owned()).await
}

#[tokio::test]
async fn a_decision_follows_policy_and_is_in_the_log_before_the_answer() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    for (tool, arguments, expected) in [
        ("get_order", json!({"order_id": "o-1"}), true),
        ("get_order", json!({"order_id": "o-2"}), false),
        ("refund", json!({"order_id": "o-1", "amount_cents": 500}), true),
        ("refund", json!({"order_id": "o-1", "amount_cents": 501}), false),
        ("refund", json!({"order_id": "o-1", "amount_cents": 5, "colour": "red"}), false),
        ("no_such_tool", json!({}), false),
    ] {
        let answer = evaluate(&served, &question(&task, tool, arguments.clone())).await;
        assert_eq!(answer.status, 200, "a denial is an answer");
        let body = answer.json();
        assert_eq!(body["decision"], expected, "{tool} {arguments}");
        let event = served.world.ledger.events().pop().unwrap();
        assert_eq!((event["type"].as_str(), &event["decision"]), (Some("decision"), &body["context"]["id"]), "{tool}");
        assert_eq!(body["context"].get("reason").is_some(), !expected);
    }
}

#[tokio::test]
async fn an_enforcement_point_says_how_the_token_was_bound_and_an_agent_cannot() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let ask = |binding: Value| {
        let mut body = question(&task, "get_order", json!({"order_id": "o-1"}));
        body["subject"]["properties"] = json!({"binding": binding});
        body
    };
    for (binding, fact) in [("mtls", "mtls"), ("dpop", "dpop"), ("bearer", "bearer"), ("iron", "bearer")] {
        assert_eq!(evaluate(&served, &ask(binding.into())).await.status, 200);
        assert_eq!(served.world.ledger.events().pop().unwrap()["facts"]["binding"], fact, "{binding}");
    }
    assert_eq!(served.act(&token, "/access/v1/evaluation", ask("mtls".into())).await.status, 200);
    assert_eq!(served.world.ledger.events().pop().unwrap()["facts"]["binding"], "dpop", "what it proved, not what it says");
}

#[tokio::test]
async fn other_forms_of_a_resource_mean_the_same() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let subject = json!({"type": "task", "id": task});
    let arguments = json!({"arguments": {"order_id": "o-1"}});
    let ask = |action: &str, resource: Value| json!({"subject": subject, "action": {"name": action}, "resource": resource});
    let tool =
        evaluate(&served, &ask("tools/call", json!({"type": "tool", "id": "orders/get_order", "properties": arguments}))).await;
    assert_eq!(tool.json()["decision"], true);
    for (action, resource) in [
        ("resources/read", json!({"type": "resource", "id": "orders://1", "properties": {"upstream": "orders"}})),
        ("prompts/get", json!({"type": "prompt", "id": "orders/greet"})),
    ] {
        let body = evaluate(&served, &ask(action, resource)).await.json();
        assert_eq!((body["decision"].as_bool(), body["context"]["id"].is_string()), (Some(false), true), "decided, not unknown");
    }
    let before = served.world.ledger.events().len();
    for (action, resource) in [
        ("tools/call", json!({"type": "tool", "id": "orders"})),
        ("delete", json!({"type": "tool", "id": "orders/get_order"})),
        ("get_order", json!({"type": "record", "id": "1"})),
        ("get_order", json!({"type": "upstream", "id": "../etc"})),
        ("get_order", json!({"type": "upstream", "id": "orders", "properties": {"arguments": "x"}})),
    ] {
        let answer = evaluate(&served, &ask(action, resource.clone())).await;
        assert_eq!((answer.status.as_u16(), answer.json()["decision"].as_bool()), (200, Some(false)), "{action} {resource}");
    }
    assert_eq!(served.world.ledger.events().len(), before);
}

/// What a policy allows by the beginning of its text, but which an upstream resolves to something else, is refused here as it is
/// at the gateway.
#[tokio::test]
async fn a_resource_that_readers_resolve_differently_is_refused_whatever_policy_says() {
    let rule = r#"@id("public") permit (principal is Intent::RefundOrder, action == Orders::Action::"mcp:resources/read", resource)
        when { context.input.uri like "file:///public/*" };"#;
    let files = testkit::fixture::policy_files().into_iter().chain([("public.cedar", rule.to_owned())]).collect::<Vec<_>>();
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let agents = vec![testkit::agent("bot", &["refund-order", "mail"])];
    let upstreams = vec![testkit::fixture::orders("http://127.0.0.1:9/mcp")];
    let served = Served::over(testkit::World::new(&files, agents, upstreams).await).await;
    let (token, task) = served.opened().await;
    let read = |uri: &str| {
        let resource = json!({"type": "resource", "id": uri, "properties": {"upstream": "orders"}});
        json!({"subject": {"type": "task", "id": task}, "action": {"name": "resources/read"}, "resource": resource})
    };
    for uri in ["file:///public/../secret", "file:///public/%2e%2e/secret", "file:///public/.\t./secret", "file:///public/%61"] {
        for answer in
            [evaluate(&served, &read(uri)).await.json(), served.act(&token, "/access/v1/evaluation", read(uri)).await.json()]
        {
            let (decision, reason) = (&answer["decision"], &answer["context"]["reason"]);
            assert_eq!((decision.as_bool(), reason.as_str()), (Some(false), Some("unknown_argument")), "{uri}: {answer}");
        }
    }
    assert_eq!(evaluate(&served, &read("file:///public/a")).await.json()["decision"], true);
}

#[tokio::test]
async fn what_is_missing_or_has_the_wrong_type_is_a_bad_request() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let good = question(&task, "get_order", json!({"order_id": "o-1"}));
    for (pointer, value) in [
        ("subject", None),
        ("action", None),
        ("resource", None),
        ("subject", Some(json!("alice"))),
        ("subject", Some(json!({"type": "task"}))),
        ("subject", Some(json!({"id": "x"}))),
        ("subject", Some(json!({"type": "task", "id": 7}))),
        ("subject", Some(json!({"type": "task", "id": "x", "properties": []}))),
        ("action", Some(json!({}))),
        ("action", Some(json!({"name": null}))),
        ("resource", Some(json!({"type": "upstream"}))),
        ("resource", Some(json!([]))),
        ("context", Some(json!("x"))),
    ] {
        let mut body = good.clone();
        match &value {
            None => drop(body.as_object_mut().unwrap().remove(pointer)),
            Some(value) => body[pointer] = value.clone(),
        }
        assert_eq!(evaluate(&served, &body).await.refusal(), (400, "invalid_request".into()), "{pointer} {value:?}");
    }
    for (kind, body) in [
        ("application/json", ""),
        ("application/json", "{"),
        ("application/json", "[]"),
        ("application/json", "\"x\""),
        ("application/json", r#"{"subject":{"type":"task","id":"a","id":"b"}}"#),
        ("text/plain", "{}"),
        ("application/x-www-form-urlencoded", "subject=x"),
    ] {
        assert_eq!(raw(&served, kind, body).await.refusal(), (400, "invalid_request".into()), "{kind} {body}");
    }
    assert_eq!(
        raw(&served, "application/json", &format!("\"{}\"", "x".repeat(1_100_000))).await.refusal(),
        (413, "too_large".into())
    );
    let mut more = good;
    more["unknown"] = json!({"x": 1});
    more["context"] = json!({"time": "now"});
    let answer = raw(&served, "application/json; charset=utf-8", &more.to_string()).await;
    assert_eq!(answer.json()["decision"], true, "unknown members and media type parameters are ignored");
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let answer = served.operate(POINT, method, "/access/v1/evaluation", Value::Null).await;
        assert_eq!((answer.refusal(), answer.header("allow")), ((405, "method_not_allowed".into()), "POST"), "{method}");
    }
}

#[tokio::test]
async fn only_enforcement_points_and_the_tasks_own_agent_may_ask() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let (_, other) = served.opened().await;
    let body = question(&task, "get_order", json!({"order_id": "o-1"}));
    let json_type = ("content-type", "application/json");
    let none = served.ask("POST", "/access/v1/evaluation", &[json_type], body.to_string()).await;
    let challenges: Vec<_> = none.headers.get_all("www-authenticate").iter().map(|one| one.to_str().unwrap()).collect();
    assert_eq!((none.status.as_u16(), challenges[0]), (401, "Bearer realm=\"writ\""), "RFC 6750 §3: at least one parameter");
    assert!(challenges[1].starts_with("DPoP algs="), "{challenges:?}");
    let wrong = served.operate("wop_wrong", "POST", "/access/v1/evaluation", body.clone()).await;
    assert_eq!(wrong.refusal(), (401, "invalid_token".into()));
    let stolen = served.operate(&token, "POST", "/access/v1/evaluation", body.clone()).await;
    assert_eq!(stolen.refusal(), (401, "invalid_token".into()), "a bound token is not a bearer token");
    let auditor = served.operate(AUDITOR, "POST", "/access/v1/evaluation", body.clone()).await;
    assert_eq!(auditor.refusal(), (403, "forbidden".into()));
    assert_eq!(served.operate(ADMIN, "POST", "/access/v1/evaluation", body.clone()).await.json()["decision"], true);
    assert_eq!(served.act(&token, "/access/v1/evaluation", body).await.json()["decision"], true);
    let before = served.world.ledger.events().len();
    let foreign = served.act(&token, "/access/v1/evaluation", question(&other, "get_order", json!({"order_id": "o-1"}))).await;
    assert_eq!(foreign.refusal(), (403, "forbidden".into()));
    let batch = json!({"evaluations": [question(&other, "get_order", json!({}))]});
    let foreign = served.act(&token, "/access/v1/evaluations", batch).await.json();
    assert_eq!(
        (&foreign["evaluations"][0]["decision"], &foreign["evaluations"][0]["context"]["error"]["status"]),
        (&json!(false), &json!(403))
    );
    assert_eq!(served.world.ledger.events().len(), before);
}

#[tokio::test]
async fn a_task_that_is_not_open_is_denied() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let body = question(&task, "get_order", json!({"order_id": "o-1"}));
    assert_eq!(evaluate(&served, &body).await.json()["decision"], true);
    assert_eq!(served.operate(ADMIN, "POST", &format!("/v1/tasks/{task}/end"), Value::Null).await.status, 200);
    for subject in [task.as_str(), "tsk_00000000000000000000000000000001", "alice", ""] {
        let body = question(subject, "get_order", json!({"order_id": "o-1"}));
        let answer = evaluate(&served, &body).await;
        assert_eq!((answer.status.as_u16(), answer.json()["decision"].as_bool()), (200, Some(false)), "{subject}");
    }
    let user = json!({"subject": {"type": "user", "id": task}, "action": {"name": "x"}, "resource": {"type": "upstream", "id": "orders"}});
    assert_eq!(evaluate(&served, &user).await.json()["decision"], false);
}

#[tokio::test]
async fn no_log_no_permission() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    served.world.ledger.break_with(Some(Fault::Failed));
    let body = evaluate(&served, &question(&task, "get_order", json!({"order_id": "o-1"}))).await.json();
    assert_eq!((&body["decision"], &body["context"]["outcome"]), (&json!(false), &json!("failed")));
    assert!(body["context"].get("id").is_none());
}

#[tokio::test]
async fn the_budget_counts_decisions_given_away() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let body = question(&task, "get_order", json!({"order_id": "o-1"}));
    for _ in 0..5 {
        assert_eq!(evaluate(&served, &body).await.json()["decision"], true);
    }
    let spent = evaluate(&served, &body).await.json();
    assert_eq!((&spent["decision"], &spent["context"]["reason"]), (&json!(false), &json!("budget_exhausted")));
}

#[tokio::test]
async fn a_batch_keeps_length_order_and_defaults() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let order =
        |id: &str| json!({"resource": {"type": "upstream", "id": "orders", "properties": {"arguments": {"order_id": id}}}});
    let batch = |items: Value, options: Value| json!({"subject": {"type": "task", "id": task}, "action": {"name": "get_order"}, "evaluations": items, "options": options});
    let ask = async |body: Value| served.operate(POINT, "POST", "/access/v1/evaluations", body).await;
    let decisions = |answer: &Answer| -> Vec<bool> {
        answer.json()["evaluations"].as_array().unwrap().iter().map(|one| one["decision"].as_bool().unwrap()).collect()
    };
    let items = json!([order("o-2"), order("o-1"), order("o-3"), {"resource": "x"}, 7, order("o-1")]);
    let all = ask(batch(items.clone(), json!({}))).await;
    assert_eq!(decisions(&all), [false, true, false, false, false, true], "what is wrong with one does not spoil the others");
    assert_eq!(all.json()["evaluations"][3]["context"]["error"]["status"], 400);
    let named = |semantic: &str| batch(items.clone(), json!({"evaluations_semantic": semantic}));
    assert_eq!(decisions(&ask(named("execute_all")).await).len(), 6);
    assert_eq!(decisions(&ask(named("deny_on_first_deny")).await), [false]);
    assert_eq!(decisions(&ask(named("permit_on_first_permit")).await), [false, true]);
    assert_eq!(ask(named("whatever")).await.status, 400);
    assert_eq!(ask(batch(items.clone(), json!("x"))).await.status, 400);
    assert_eq!(ask(batch(json!("x"), json!({}))).await.status, 400);
    assert_eq!(ask(batch(vec![order("o-1"); 101].into(), json!({}))).await.status, 400);
    let single = ask(question(&task, "get_order", json!({"order_id": "o-2"}))).await.json();
    assert_eq!(single["decision"], false, "without evaluations it is one evaluation");
    let mut empty = question(&task, "get_order", json!({"order_id": "o-2"}));
    empty["evaluations"] = json!([]);
    assert!(ask(empty).await.json().get("evaluations").is_none());
}

#[tokio::test]
async fn the_callers_request_id_comes_back() {
    let served = Served::new().await;
    let authorization = format!("Bearer {POINT}");
    let headers =
        [("authorization", authorization.as_str()), ("content-type", "application/json"), ("x-request-id", "bfe9eb29-ab87")];
    let answer = served.ask("POST", "/access/v1/evaluation", &headers, "{}").await;
    assert_eq!(answer.header("x-request-id"), "bfe9eb29-ab87");
    assert_eq!(answer.json()["request_id"], "bfe9eb29-ab87");
}

#[tokio::test]
async fn what_is_decided_and_issued_is_counted() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let _ = evaluate(&served, &question(&task, "get_order", json!({"order_id": "o-1"}))).await;
    let _ = evaluate(&served, &question(&task, "get_order", json!({"order_id": "o-2"}))).await;
    let _ = served.token(&[]).await;
    assert_eq!(*served.asked.heard.lock().unwrap(), ["issued", "allow ", "deny not_permitted", "invalid_request"]);
}

#[tokio::test]
async fn an_agent_cannot_tell_hidden_tools_from_such_as_do_not_exist_and_an_enforcement_point_can() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let about = |upstream: &str, tool: &str, arguments: Value| {
        let mut question = question(&task, tool, arguments);
        question["resource"]["id"] = upstream.into();
        question
    };
    let hidden = [
        (about("orders", "no_such_tool", json!({})), "tool_unavailable"),
        (about("orders", "delete_everything", json!({})), "not_permitted"),
        (about("orders", "delete_everything", json!({"colour": "red"})), "not_permitted"),
        (about("elsewhere", "get_order", json!({"order_id": "o-1"})), "out_of_reach"),
    ];
    let mut answers = std::collections::BTreeSet::new();
    for (question, reason) in hidden {
        assert_eq!(evaluate(&served, &question).await.json()["context"]["reason"], reason, "an enforcement point is told");
        let before = served.world.ledger.events().len();
        let answer = served.act(&token, "/access/v1/evaluation", question).await;
        assert_eq!(served.world.ledger.events().len(), before + 1, "each is decided and logged: none is quicker");
        let mut body = answer.json();
        assert!(body["context"].as_object_mut().unwrap().remove("id").is_some());
        answers.insert(format!("{} {body}", answer.status));
    }
    assert_eq!(answers.len(), 1, "{answers:?}");
    let near = served.act(&token, "/access/v1/evaluation", about("orders", "get_order", json!({"order_id": "o-2"}))).await.json();
    assert_eq!(near["context"]["reason"], "not_permitted", "what the task may use is explained: {near}");
}
