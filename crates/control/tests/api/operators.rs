//! The REST API: who may call it, what it refuses, and that every change is in the log under the operator's name.
//! Every `/v1` endpoint of the description is tried without the right to use it.

use crate::served::{ADMIN, AUDITOR, POINT, Served, basic, refund};
use authority::{Actor, Policy, SourceFile, Sources};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;
use testkit::Fault;

fn agent() -> Value {
    json!({"owner": "team-ops", "purpose": "rotates keys", "intents": ["mail"], "review_by": "2030-01-01",
        "identity": [{"provider": "ci", "claims": {"sub": "workload:new"}}]})
}

/// Every operation under `/v1`, with something in place of each path parameter.
async fn operations(served: &Served) -> Vec<(String, String)> {
    let document = served.get("/openapi.json").await.json();
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| path.starts_with("/v1/")) {
        let uri = path
            .replace("{agent}", "bot")
            .replace("{intent}", "mail")
            .replace("{upstream}", "orders")
            .replace("{task}", &format!("tsk_{:032x}", 7))
            .replace("{decision}", &format!("dec_{:032x}", 7))
            .replace("{index}", "0");
        found.extend(item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), uri.clone())));
    }
    assert!(found.len() > 20);
    found
}

#[tokio::test]
async fn nobody_but_operators_reaches_the_api() {
    let served = Served::new().await;
    let (token, _) = served.opened().await;
    let before = served.world.ledger.events().len();
    for (method, uri) in operations(&served).await {
        let proof = served.world.holder.proof(&method, &format!("{}{uri}", testkit::ISSUER), served.world.now(), Some(&token));
        let json = ("content-type", "application/json");
        for (name, headers) in [
            ("nothing", vec![json]),
            ("a wrong secret", vec![json, ("authorization", "Bearer wop_wrong")]),
            ("no secret", vec![json, ("authorization", "Bearer ")]),
            ("a scheme alone", vec![json, ("authorization", "Bearer")]),
            ("a secret alone", vec![json, ("authorization", ADMIN)]),
            ("an agent's token", vec![json, ("authorization", &format!("DPoP {token}")), ("dpop", &proof)]),
            ("an agent's token as bearer", vec![json, ("authorization", &format!("Bearer {token}"))]),
            ("an operator by Basic", vec![json, ("authorization", &basic("ada", ADMIN))]),
        ] {
            if uri.contains("/v1/tasks/") && name == "an agent's token" {
                continue; // For its own task only, which has tests of its own.
            }
            let answer = served.ask(&method, &uri, &headers, "{}").await;
            assert_eq!(answer.status, 401, "{method} {uri} with {name}: {}", String::from_utf8_lossy(&answer.body));
            assert!(!answer.header("www-authenticate").is_empty(), "{method} {uri} with {name}");
        }
        let twice = [("authorization", "Bearer x"), ("authorization", &format!("Bearer {ADMIN}"))];
        assert_eq!(served.ask(&method, &uri, &twice, "").await.status, 400, "{method} {uri}");
        let point = served.operate(POINT, &method, &uri, json!({})).await;
        assert_eq!(point.refusal(), (403, "forbidden".into()), "{method} {uri}");
        if method != "GET" && uri != "/v1/policy/explain" {
            let auditor = served.operate(AUDITOR, &method, &uri, json!({})).await;
            assert_eq!(auditor.refusal(), (403, "forbidden".into()), "{method} {uri}");
        }
    }
    assert_eq!(served.world.ledger.events().len(), before, "nothing of it changed anything");
}

#[tokio::test]
async fn a_secret_is_never_taken_from_the_query() {
    let served = Served::new().await;
    let answer = served.get(&format!("/v1/agents?access_token={ADMIN}")).await;
    assert_eq!(answer.refusal(), (400, "invalid_request".into()));
    assert!(!String::from_utf8_lossy(&answer.body).contains(ADMIN));
}

#[tokio::test]
async fn a_registered_agent_is_logged_under_the_operators_name() {
    let served = Served::new().await;
    let put = served.operate(ADMIN, "PUT", "/v1/agents/new", agent()).await;
    assert_eq!(put.status, 200, "{}", String::from_utf8_lossy(&put.body));
    assert_eq!((put.json()["eligible"].as_bool(), put.json()["owner"].as_str()), (Some(true), Some("team-ops")));
    assert_eq!(served.operate(AUDITOR, "GET", "/v1/agents/new", Value::Null).await.json(), put.json());
    let event = served.world.ledger.events().pop().unwrap();
    assert_eq!((event["type"].as_str(), event["by"].as_str()), (Some("agent.put"), Some("operator:ada")));
}

#[tokio::test]
async fn a_record_with_faults_changes_nothing_and_names_all_of_them() {
    let served = Served::new().await;
    let mut wrong = agent();
    wrong["owner"] = "No One".into();
    wrong["review_by"] = "soon".into();
    wrong["identity"] = json!([]);
    let answer = served.operate(ADMIN, "PUT", "/v1/agents/new", wrong).await;
    assert_eq!(answer.refusal(), (422, "invalid_value".into()));
    assert_eq!(answer.faults(), ["owner", "review_by", "identity"]);
    let send = async |body: String| {
        let authorization = format!("Bearer {ADMIN}");
        let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
        served.ask("PUT", "/v1/agents/new", &headers, body).await.status.as_u16()
    };
    let text = agent().to_string();
    assert_eq!(send(text.replace("\"owner\":", "\"owner\":\"x\",\"owner\":")).await, 400, "a member twice");
    assert_eq!(send(text.replace("\"owner\":", "\"admin\":true,\"owner\":")).await, 400, "an unknown member");
    assert_eq!(send("[".repeat(100) + &"]".repeat(100)).await, 400, "too deep");
    assert_eq!(send("x".repeat(300_000)).await, 413, "too large");
    assert_eq!(send("{".to_owned()).await, 400, "not JSON");
    assert_eq!(served.operate(ADMIN, "PUT", "/v1/agents/New!", agent()).await.faults(), ["agent"]);
    assert_eq!(served.operate(ADMIN, "GET", "/v1/agents/new", Value::Null).await.refusal(), (404, "not_found".into()));
    let untyped = served.ask("PUT", "/v1/agents/new", &[("authorization", &format!("Bearer {ADMIN}"))], text).await;
    assert_eq!(untyped.refusal(), (400, "invalid_request".into()));
}

#[tokio::test]
async fn two_agents_never_share_an_identity() {
    let served = Served::new().await;
    let mut thief = agent();
    thief["identity"] = json!([{"provider": "ci", "claims": {"sub": "workload:bot"}}]);
    let answer = served.operate(ADMIN, "PUT", "/v1/agents/thief", thief).await;
    assert_eq!(answer.refusal(), (409, "shared_identity".into()));
}

#[tokio::test]
async fn a_suspended_agent_loses_everything_and_stays_suspended_when_its_record_is_written_again() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let suspended = served.operate(ADMIN, "POST", "/v1/agents/bot/suspend", Value::Null).await.json();
    assert_eq!((suspended["state"].as_str(), suspended["eligible"].as_bool()), (Some("suspended"), Some(false)));
    assert_eq!(served.introspect(&token).await, json!({"active": false}));
    let ended = served.operate(ADMIN, "GET", &format!("/v1/tasks/{task}"), Value::Null).await.json();
    assert_eq!((ended["state"].as_str(), ended["end_reason"].as_str()), (Some("ended"), Some("agent")));
    let mut record = agent();
    record["identity"] = json!([{"provider": "ci", "claims": {"sub": "workload:bot"}}]);
    let written = served.operate(ADMIN, "PUT", "/v1/agents/bot", record).await.json();
    assert_eq!(written["state"], "suspended", "writing a record is not resuming");
    let resumed = served.operate(ADMIN, "POST", "/v1/agents/bot/resume", Value::Null).await.json();
    assert_eq!(resumed["state"], "active");
    assert_eq!(served.introspect(&token).await, json!({"active": false}), "what ended stays ended");
    assert_eq!(served.operate(ADMIN, "POST", "/v1/agents/nobody/suspend", Value::Null).await.status, 404);
}

#[tokio::test]
async fn a_change_that_cannot_be_logged_does_not_happen() {
    let served = Served::new().await;
    served.world.ledger.break_with(Some(Fault::Failed));
    let answer = served.operate(ADMIN, "PUT", "/v1/agents/new", agent()).await;
    assert_eq!(answer.refusal(), (503, "log_unavailable".into()));
    assert!(!String::from_utf8_lossy(&answer.body).contains("told to break"), "causes are for the operator's log");
    served.world.ledger.break_with(None);
    assert_eq!(served.operate(ADMIN, "GET", "/v1/agents/new", Value::Null).await.status, 404);
}

#[tokio::test]
async fn listings_come_in_pages() {
    let served = Served::new().await;
    let page = served.operate(ADMIN, "GET", "/v1/agents?limit=1", Value::Null).await.json();
    assert_eq!((page["items"][0]["id"].as_str(), page["next"].as_str()), (Some("bot"), Some("bot")));
    let page = served.operate(ADMIN, "GET", "/v1/agents?limit=1&after=bot", Value::Null).await.json();
    assert_eq!((page["items"][0]["id"].as_str(), &page["next"]), (Some("mailer"), &Value::Null));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        tasks.push(served.opened().await.1);
        served.world.clock.advance_secs(1);
    }
    tasks.reverse();
    let first = served.operate(ADMIN, "GET", "/v1/tasks?limit=2&open=true&agent=bot", Value::Null).await.json();
    let ids = |page: &Value| {
        page["items"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), tasks[..2]);
    let uri = format!("/v1/tasks?limit=2&before={}", first["next"].as_str().unwrap());
    let second = served.operate(ADMIN, "GET", &uri, Value::Null).await.json();
    assert_eq!((ids(&second), &second["next"]), (tasks[2..].to_vec(), &Value::Null));
    for query in ["limit=0", "limit=501", "limit=x", "open=maybe", "before=1", "agent=A!", "colour=red", "limit=1&limit=2"] {
        let answer = served.operate(ADMIN, "GET", &format!("/v1/tasks?{query}"), Value::Null).await;
        assert_eq!(answer.refusal(), (422, "invalid_value".into()), "{query}");
    }
}

#[tokio::test]
async fn a_task_is_ended_by_an_operator_or_by_its_own_agent_and_once() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let (other_token, other) = served.opened().await;
    let end = |task: &str| format!("/v1/tasks/{task}/end");
    let foreign = served.act(&token, &end(&other), Value::Null).await;
    assert_eq!(foreign.refusal(), (403, "forbidden".into()), "an agent ends the task of its token only");
    let lie = served.act(&token, &end(&task), json!({"reason": "revoked"})).await;
    assert_eq!(lie.refusal(), (422, "invalid_value".into()), "it cannot say that somebody else did it");
    let done = served.act(&token, &end(&task), json!({"reason": "completed"})).await;
    assert_eq!((done.status.as_u16(), done.json()["end_reason"].as_str().unwrap().to_owned()), (200, "completed".to_owned()));
    let again = served.act(&token, &end(&task), Value::Null).await;
    assert_eq!(again.refusal(), (401, "invalid_token".into()), "its token died with it");
    let revoked = served.operate(ADMIN, "POST", &end(&other), Value::Null).await.json();
    assert_eq!(revoked["end_reason"], "revoked");
    assert_eq!(served.introspect(&other_token).await, json!({"active": false}));
    assert_eq!(served.operate(ADMIN, "POST", &end(&other), Value::Null).await.refusal(), (409, "task_ended".into()));
    let unknown = format!("/v1/tasks/tsk_{:032x}/end", 1);
    assert_eq!(served.operate(ADMIN, "POST", &unknown, Value::Null).await.refusal(), (404, "not_found".into()));
    let by: Vec<_> = served.world.ledger.events().into_iter().filter(|event| event["type"] == "task.ended").collect();
    assert_eq!((by[0]["by"].as_str(), by[1]["by"].as_str()), (Some("agent:bot"), Some("operator:ada")));
}

#[tokio::test]
async fn an_agent_that_looks_at_its_own_task_shows_that_it_lives() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let (_, other) = served.opened().await;
    let look = async |task: &str| {
        let path = format!("/v1/tasks/{task}");
        let proof = served.world.holder.proof("GET", &format!("{}{path}", testkit::ISSUER), served.world.now(), Some(&token));
        served.ask("GET", &path, &[("authorization", &format!("DPoP {token}")), ("dpop", &proof)], "").await
    };
    for _ in 0..2 {
        served.world.clock.advance_secs(100);
        let seen = look(&task).await;
        assert_eq!(seen.status, 200, "{}", String::from_utf8_lossy(&seen.body));
        assert_eq!(seen.json()["parameters"]["reason"], json!({"withheld": true}));
    }
    assert_eq!(look(&other).await.refusal(), (404, "not_found".into()), "another's task is none");
}

#[tokio::test]
async fn an_agent_must_prove_its_key_to_end_its_task() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let path = format!("/v1/tasks/{task}/end");
    let uri = format!("{}{path}", testkit::ISSUER);
    let now = served.world.now();
    let stranger = testkit::Holder::default();
    let (scheme, bearer) = (format!("DPoP {token}"), format!("Bearer {token}"));
    let good = served.world.holder.proof("POST", &uri, now, Some(&token));
    for (name, headers, code) in [
        ("as bearer", vec![("authorization", bearer.as_str())], "invalid_token"),
        ("as bearer with proof", vec![("authorization", bearer.as_str()), ("dpop", &good)], "invalid_token"),
        ("without proof", vec![("authorization", scheme.as_str())], "invalid_token"),
        (
            "another's proof",
            vec![("authorization", &scheme), ("dpop", &stranger.proof("POST", &uri, now, Some(&token)))],
            "invalid_token",
        ),
        (
            "a proof of another path",
            vec![("authorization", &scheme), ("dpop", &served.world.holder.proof("POST", testkit::ISSUER, now, Some(&token)))],
            "invalid_dpop_proof",
        ),
        (
            "a proof of another token",
            vec![("authorization", &scheme), ("dpop", &served.world.holder.proof("POST", &uri, now, Some("x")))],
            "invalid_dpop_proof",
        ),
    ] {
        let answer = served.ask("POST", &path, &headers, "").await;
        assert_eq!(answer.refusal(), (401, code.into()), "{name}");
        assert!(answer.header("www-authenticate").contains(code), "{name}: {}", answer.header("www-authenticate"));
    }
    assert_eq!(served.introspect(&token).await["active"], true, "nothing of it ended the task");
}

#[tokio::test]
async fn sensitive_parameters_are_commitments_but_for_auditors_who_leave_a_trace() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let path = format!("/v1/tasks/{task}");
    let opened = served.world.ledger.events().into_iter().position(|event| event["operation"] == "task.open").unwrap();
    let committed = served.world.ledger.events()[opened]["params"]["committed"]["reason"].clone();
    assert!(committed.is_string());
    let admin = served.operate(ADMIN, "GET", &path, Value::Null).await.json();
    let instead = json!({"withheld": true, "commitment": committed, "entry": opened});
    assert_eq!((&admin["parameters"]["reason"], &admin["parameters"]["order_id"]), (&instead, &json!("o-1")));
    // A list shows nobody any.
    let before = served.world.ledger.events().len();
    let list = served.operate(AUDITOR, "GET", "/v1/tasks", Value::Null).await.json();
    assert_eq!(list["items"][0]["parameters"]["reason"], json!({"withheld": true}));
    assert_eq!(served.world.ledger.events().len(), before, "nothing was opened so far");
    // No log, no effect.
    served.world.ledger.break_with(Some(testkit::Fault::Failed));
    let unlogged = served.operate(AUDITOR, "GET", &path, Value::Null).await;
    assert_eq!(unlogged.refusal(), (503, "log_unavailable".into()));
    assert!(!String::from_utf8_lossy(&unlogged.body).contains("broken"));
    served.world.ledger.break_with(None);
    let auditor = served.operate(AUDITOR, "GET", &path, Value::Null).await.json();
    assert_eq!(auditor["parameters"]["reason"], "broken");
    let event = served.world.ledger.events().pop().unwrap();
    assert_eq!((event["type"].as_str(), event["by"].as_str()), (Some("opening.read"), Some("operator:otto")));
    assert_eq!(event["detail"], json!({"index": opened, "names": ["reason"], "task": task}));
}

#[tokio::test]
async fn upstreams_over_the_network_are_http_and_those_of_files_stay() {
    let served = Served::new().await;
    let record = json!({"owner": "team-ops", "url": "https://u.test/mcp"});
    let put = served.operate(ADMIN, "PUT", "/v1/upstreams/new", record.clone()).await.json();
    assert_eq!((put["transport"].as_str(), put["resource"].as_str()), (Some("http"), Some("https://writ.test/mcp/new")));
    assert_eq!(served.get("/.well-known/oauth-protected-resource/mcp/new").await.status, 200);
    assert_eq!(served.operate(ADMIN, "PUT", "/v1/upstreams/orders", record).await.refusal(), (422, "unacceptable".into()));
    assert_eq!(served.operate(ADMIN, "DELETE", "/v1/upstreams/orders", Value::Null).await.refusal(), (404, "not_found".into()));
    let program = json!({"owner": "team-ops", "command": "/bin/sh", "url": "https://u.test"});
    assert_eq!(served.operate(ADMIN, "PUT", "/v1/upstreams/sh", program).await.refusal(), (400, "invalid_request".into()));
    let file = json!({"owner": "team-ops", "url": "https://u.test", "injection": {"header": "x-key", "secret": {"env": "HOME"}}});
    assert_eq!(served.operate(ADMIN, "PUT", "/v1/upstreams/thief", file).await.faults(), ["injection.secret.env"]);
    assert_eq!(served.operate(ADMIN, "DELETE", "/v1/upstreams/new", Value::Null).await.status, 200);
    assert_eq!(served.get("/.well-known/oauth-protected-resource/mcp/new").await.status, 404);
    let events = served.world.ledger.events();
    let kinds: Vec<_> =
        events.iter().filter(|event| event["by"] == "operator:ada").map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["upstream.put", "upstream.remove"]);
}

#[tokio::test]
async fn what_is_accepted_is_what_was_looked_at() {
    let served = Served::new().await;
    let diff = served.operate(AUDITOR, "GET", "/v1/upstreams/orders/diff", Value::Null).await.json();
    assert_eq!(diff["items"].as_array().unwrap().len(), 1, "approved ones are not shown");
    assert_eq!(diff["items"][0]["differences"][0]["at"], "/description");
    let pin = diff["items"][0]["live_pin"].as_str().unwrap();
    let accept = |pin: &str| json!({"tools": [{"name": "refund", "pin": pin}]});
    let path = "/v1/upstreams/orders/accept";
    assert_eq!(served.operate(ADMIN, "POST", path, accept(pin)).await.json(), json!({"accepted": ["refund"]}));
    assert_eq!(*served.asked.accepted.lock().unwrap(), [("orders/refund".to_owned(), "ada".to_owned())]);
    let stale = served.operate(ADMIN, "POST", path, accept(&"00".repeat(32))).await;
    assert_eq!(stale.refusal(), (409, "conflict".into()));
    assert_eq!(served.operate(ADMIN, "POST", path, accept("abc")).await.faults(), ["tools[0].pin"]);
    assert_eq!(served.operate(ADMIN, "POST", "/v1/upstreams/payroll/accept", accept(pin)).await.status, 404);
}

#[tokio::test]
async fn policy_explains_without_deciding() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let before = served.world.ledger.events().len();
    let ask = |cents: i64| json!({"task": task, "upstream": "orders", "tool": "refund", "arguments": {"order_id": "o-1", "amount_cents": cents}});
    let allowed = served.operate(AUDITOR, "POST", "/v1/policy/explain", ask(500)).await.json();
    assert_eq!((allowed["outcome"].as_str(), allowed["determining"][0].as_str()), (Some("allow"), Some("refund-own-order")));
    let denied = served.operate(AUDITOR, "POST", "/v1/policy/explain", ask(501)).await.json();
    assert_eq!(denied["outcome"], "deny");
    assert_eq!(served.world.ledger.events().len(), before, "nothing was decided");
    for (body, code) in [
        (json!({"task": task, "upstream": "orders"}), 422),
        (json!({"task": task, "upstream": "orders", "tool": "a", "prompt": "b"}), 422),
        (json!({"task": "tsk_1", "upstream": "orders", "tool": "a"}), 404),
        (json!({}), 422),
        (json!({"task": task, "agent": "bot", "intent": "mail", "upstream": "orders", "tool": "refund"}), 422),
        (json!({"agent": "bot"}), 422),
        (json!({"agent": "nobody", "intent": "mail"}), 404),
        (json!({"agent": "mailer", "intent": "refund-order"}), 422),
        (json!({"agent": "bot", "intent": "mail", "binding": "iron"}), 422),
        (json!({"agent": "bot", "intent": "mail", "tool": "refund"}), 422),
    ] {
        assert_eq!(served.operate(AUDITOR, "POST", "/v1/policy/explain", body).await.status, code);
    }
    served.asked.broken.store(true, Ordering::Relaxed);
    let reload = served.operate(ADMIN, "POST", "/v1/policy/reload", Value::Null).await;
    assert_eq!(reload.refusal(), (422, "invalid_value".into()));
    assert!(reload.json()["errors"][0]["detail"].as_str().unwrap().starts_with("main.cedar:3:1"));
}

#[tokio::test]
async fn policy_explains_tasks_that_nobody_opened() {
    let served = Served::new().await;
    let before = served.world.ledger.events().len();
    let outcome = async |body: Value| {
        let answer = served.operate(AUDITOR, "POST", "/v1/policy/explain", body).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["outcome"].as_str().unwrap().to_owned()
    };
    let mail = |more: Value| {
        let mut body = json!({"agent": "mailer", "intent": "mail"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    assert_eq!(outcome(mail(json!({"claims": {"ref": "refs/heads/main"}}))).await, "allow", "it could be opened");
    assert_eq!(outcome(mail(json!({"claims": {"ref": "refs/heads/evil"}}))).await, "deny", "posture counts");
    let send = json!({"upstream": "orders", "tool": "send_email", "arguments": {"to": "a@b.test", "body": "x"}});
    let with = |more: Value| {
        let mut body = mail(send.clone());
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    assert_eq!(outcome(with(json!({}))).await, "allow");
    let tainted = json!({"read_untrusted": true, "read_sensitivity": "confidential"});
    assert_eq!(outcome(with(tainted.clone())).await, "ask", "what it would have read counts");
    let mut approved = tainted;
    approved["approved"] = true.into();
    assert_eq!(outcome(with(approved)).await, "allow");
    let refund = json!({"agent": "bot", "intent": "refund-order", "parameters": {"max_amount_cents": 0, "colour": "red"}});
    let answer = served.operate(AUDITOR, "POST", "/v1/policy/explain", refund).await;
    assert_eq!(answer.faults(), ["parameters", "parameters", "parameters"], "all that is wrong with it");
    assert_eq!(served.world.ledger.events().len(), before, "nothing was decided");
}

#[tokio::test]
async fn the_log_is_searched_shown_and_redacted() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let found = served.operate(AUDITOR, "GET", &format!("/v1/audit/entries?task={task}&type=decision"), Value::Null).await.json();
    let (index, event) = (found["items"][0]["index"].as_u64().unwrap(), found["items"][0]["leaf"]["event"].clone());
    assert_eq!(event["intent"], "refund-order");
    assert!(event["params"]["committed"]["reason"].is_string(), "a sensitive parameter is a commitment");
    let path = format!("/v1/audit/entries/{index}");
    let auditor = served.operate(AUDITOR, "GET", &path, Value::Null).await.json();
    assert_eq!(auditor["openings"], json!({"reason": "broken"}));
    let admin = served.operate(ADMIN, "GET", &path, Value::Null).await.json();
    assert!(admin.get("openings").is_none(), "openings are for auditors");
    let redact = format!("{path}/redact");
    let why = |text: &str| json!({"name": "reason", "why": text});
    assert_eq!(served.operate(ADMIN, "POST", &redact, why(" ")).await.faults(), ["why"]);
    assert_eq!(served.operate(ADMIN, "POST", &redact, why("erasure request 7")).await.status, 200);
    assert_eq!(served.operate(AUDITOR, "GET", &path, Value::Null).await.json()["openings"], json!({}));
    assert_eq!(served.operate(ADMIN, "POST", &redact, why("again")).await.refusal(), (404, "not_found".into()));
    let after = served.operate(ADMIN, "GET", &path, Value::Null).await.json();
    assert_eq!(after["leaf_base64"], admin["leaf_base64"], "the entry stays as it is");
    assert_eq!(served.world.ledger.events().pop().unwrap()["by"], "operator:ada");
    for query in [
        "colour=red",
        "since=soon",
        "before=x",
        "agent=a&agent=b",
        "limit=0",
        "outcome=denied",
        "decision=dec_1",
        "task=tsk_1",
        "grant=grt_0",
        "resource=order_id",
    ] {
        let answer = served.operate(AUDITOR, "GET", &format!("/v1/audit/entries?{query}"), Value::Null).await;
        assert_eq!(answer.refusal(), (422, "invalid_value".into()), "{query}");
    }
    let none = format!("grant=grt_{:032x}", 7);
    for query in ["outcome=deny", "target=orders-db", &none] {
        let answer = served.operate(AUDITOR, "GET", &format!("/v1/audit/entries?{query}"), Value::Null).await;
        assert_eq!((answer.status.as_u16(), answer.json()["items"].as_array().map(Vec::len)), (200, Some(0)), "{query}");
    }
    let at = found["items"][0]["leaf"]["event"]["at"].as_i64().unwrap();
    let day = jiff::Timestamp::from_millisecond(at).unwrap().to_string().chars().take(10).collect::<String>();
    let until = served.operate(AUDITOR, "GET", &format!("/v1/audit/entries?until={day}"), Value::Null).await.json();
    assert!(!until["items"].as_array().unwrap().is_empty(), "a date ends with its last moment");
    for index in ["999999", "x", "-1", "18446744073709551615", "99999999999999999999999"] {
        let answer = served.operate(AUDITOR, "GET", &format!("/v1/audit/entries/{index}"), Value::Null).await;
        assert_eq!(answer.refusal(), (404, "not_found".into()), "{index}");
    }
    assert_eq!(served.operate(AUDITOR, "GET", "/v1/audit/entries/999999/proof", Value::Null).await.status, 404);
}

#[tokio::test]
async fn why_a_logged_decision_fell_is_said_in_words_while_its_policy_is_in_force_and_nothing_was_committed() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let decided = async |tool: &str, arguments: Value| {
        let body = json!({
            "subject": { "type": "task", "id": task }, "action": { "name": tool },
            "resource": { "type": "upstream", "id": "orders", "properties": { "arguments": arguments } },
        });
        let told = served.operate(POINT, "POST", "/access/v1/evaluation", body).await.json();
        let id = told["context"]["id"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned();
        served.operate(AUDITOR, "GET", &format!("/v1/decisions/{id}"), Value::Null).await.json()
    };
    let refused = decided("refund", json!({ "order_id": "o-2", "amount_cents": 1 })).await;
    let why = refused["explanation"].as_str().unwrap();
    assert!(why.contains("`order_id` must be `o-1`"), "{why}");
    let committed = decided("refund", json!({ "order_id": "o-2", "amount_cents": 1, "note": "secret" })).await;
    assert_eq!((&committed["event"]["outcome"], &committed["explanation"]), (&json!("deny"), &Value::Null), "{committed}");
    // Of a task that has ended, too; but not of a policy that was replaced.
    let ended = served.operate(ADMIN, "POST", &format!("/v1/tasks/{task}/end"), json!({})).await;
    assert_eq!(ended.status, 200);
    let id = refused["decision"].as_str().unwrap();
    let again = served.operate(AUDITOR, "GET", &format!("/v1/decisions/{id}"), Value::Null).await.json();
    assert_eq!(again["explanation"].as_str(), Some(why));
    let mut files = testkit::fixture::policy_files();
    files.push(("more.cedar", "@id(\"more\") forbid (principal, action, resource) when { false };".into()));
    let files = files.into_iter().map(|(path, text)| SourceFile { path: path.into(), text }).collect();
    let policy = Policy::compile(&Sources { files }).unwrap().policy;
    served.world.authority.reload_policy(policy, &Actor::System).await.unwrap();
    let again = served.operate(AUDITOR, "GET", &format!("/v1/decisions/{id}"), Value::Null).await.json();
    assert_eq!((&again["policy_in_force"], &again["explanation"]), (&json!(false), &Value::Null));
}

#[tokio::test]
async fn a_decision_is_found_by_its_id_with_its_policies() {
    let served = Served::new().await;
    let _ = served.opened().await;
    let found = served.operate(AUDITOR, "GET", "/v1/audit/entries?type=decision", Value::Null).await.json();
    let id = found["items"][0]["leaf"]["event"]["decision"].as_str().unwrap().to_owned();
    let shown = served.operate(AUDITOR, "GET", &format!("/v1/decisions/{id}"), Value::Null).await.json();
    assert_eq!((shown["policy_in_force"].as_bool(), shown["policies"][0]["id"].as_str()), (Some(true), Some("open-tasks")));
    assert_eq!(shown["explanation"], Value::Null, "not of a request to an upstream");
    assert_eq!(served.operate(AUDITOR, "GET", "/v1/decisions/dec_1", Value::Null).await.status, 404);
    let unknown = served.token(&served.exchange("bot", &refund("o-2"))).await;
    assert_eq!(unknown.status, 200);
}
