//! One request decided: nothing happens unlogged, a permit is used once, and an ended task lets nothing go.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use authority::ports::Archive;
use authority::{Actor, CallOutcome, CallStatus, Caller, Decision, Denial, Issued, Over, Unauthenticated};
use domain::{EndReason, Operation, Reason, Sensitivity};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::{Fault, World, task_request};

async fn refund_task(world: &World) -> (Issued, Caller) {
    let issued =
        world.issue("bot", task_request("refund-order", json!({ "order_id": "1001", "max_amount_cents": 5000 }))).await.unwrap();
    let caller = world.present(&issued, "orders").unwrap();
    (issued, caller)
}

async fn call(world: &World, caller: &Caller, tool: &str, arguments: Value) -> Decision {
    let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
    let (upstream, tool) = ("orders".parse().unwrap(), tool.parse().unwrap());
    world.authority.decide(caller, Operation::CallTool { upstream: &upstream, tool: &tool, arguments: &arguments }).await
}

fn denial(decision: Decision) -> Denial {
    match decision {
        Decision::Deny(denial) | Decision::Ask(denial) | Decision::Failed(denial) => denial,
        Decision::Allow(permit) => panic!("allowed: {permit:?}"),
    }
}

fn last_outcome(world: &World) -> Option<String> {
    let events = world.ledger.events();
    events.last().filter(|event| event["type"] == "outcome").map(|event| event["status"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn arguments_decide() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let cases = [
        ("refund", json!({ "order_id": "1001", "amount_cents": 5000 }), None),
        ("refund", json!({ "order_id": "1001", "amount_cents": 5001 }), Some(Reason::NotPermitted)),
        ("refund", json!({ "order_id": "1002", "amount_cents": 1 }), Some(Reason::NotPermitted)),
        ("refund", json!({ "order_id": "1001", "amount_cents": 1, "force": true }), Some(Reason::UnknownArgument)),
        ("refund", json!({ "order_id": "1001", "amount_cents": "1" }), Some(Reason::UnknownArgument)),
        ("refund", json!({ "order_id": "1001", "amount_cents": 1.5 }), Some(Reason::UnknownArgument)),
        ("delete_everything", json!({}), Some(Reason::NotPermitted)),
        ("no_such_tool", json!({}), Some(Reason::ToolUnavailable)),
        ("send_email", json!({ "to": "x@y", "body": "" }), Some(Reason::NotPermitted)),
    ];
    for (tool, arguments, expected) in cases {
        let decision = call(&world, &caller, tool, arguments.clone()).await;
        match (decision, expected) {
            (Decision::Allow(permit), None) => drop(permit.release().unwrap()),
            (decision, Some(reason)) => assert_eq!(denial(decision).reason, reason, "{tool} {arguments}"),
            (decision, None) => panic!("{tool} {arguments}: {decision:?}"),
        }
    }
}

#[tokio::test]
async fn a_decision_is_in_the_log_before_it_is_answered_with_its_path_and_without_secrets() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let arguments = json!({ "order_id": "1001", "amount_cents": 100, "note": "the customer's secret" });
    let Decision::Allow(permit) = call(&world, &caller, "refund", arguments).await else { panic!() };
    let event = world.ledger.events().pop().unwrap();
    assert_eq!(event["decision"], permit.decision().to_string());
    assert_eq!(event["outcome"], "allow");
    assert_eq!(event["determining"], json!(["refund-own-order"]));
    assert_eq!(event["policy"], world.authority.policy().version().to_string());
    assert_eq!(event["arguments"]["clear"], json!({ "amount_cents": 100, "order_id": "1001" }));
    assert!(event["arguments"]["committed"]["note"].is_string());
    assert!(!format!("{:?}", world.ledger.events()).contains("secret"));
    drop(permit);
}

#[tokio::test]
async fn without_a_log_nothing_is_allowed() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    for fault in [Fault::Failed, Fault::FailedButKept] {
        world.ledger.break_with(Some(fault));
        let refused = denial(call(&world, &caller, "refund", json!({ "order_id": "1001", "amount_cents": 1 })).await);
        assert_eq!((refused.reason, refused.decision), (Reason::LogUnavailable, None));
    }
}

#[tokio::test]
async fn a_call_that_could_not_be_logged_gives_its_place_in_the_budget_back() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let one = || call(&world, &caller, "refund", json!({ "order_id": "1001", "amount_cents": 1 }));
    world.ledger.break_with(Some(Fault::Failed));
    // More often than the task has calls.
    for _ in 0..6 {
        assert_eq!(denial(one().await).reason, Reason::LogUnavailable);
    }
    assert_eq!(caller.live().progress().calls_used, 0);
    world.ledger.break_with(None);
    let Decision::Allow(permit) = one().await else { panic!("nothing was used up") };
    drop(permit);
    assert_eq!(caller.live().progress().calls_used, 1);
}

#[tokio::test]
async fn a_call_that_may_be_in_the_log_keeps_its_place_in_the_budget() {
    let world = World::fixture().await;
    let (task, caller) = refund_task(&world).await;
    let one = || call(&world, &caller, "refund", json!({ "order_id": "1001", "amount_cents": 1 }));
    world.ledger.break_with(Some(Fault::FailedButKept));
    // Refused, and yet the log has it as allowed.
    assert_eq!(denial(one().await).reason, Reason::LogUnavailable);
    world.ledger.break_with(None);
    let Decision::Allow(permit) = one().await else { panic!("there are more places") };
    drop(permit);
    let told = world.ledger.events().iter().filter(|event| event["operation"] == "tools/call").count() as u64;
    assert_eq!((told, caller.live().progress().calls_used), (2, 2), "{task:?}");
}

#[tokio::test]
async fn labels_rise_when_a_read_is_allowed_and_stop_what_may_leak_it() {
    let world = World::fixture().await;
    let issued = world.issue("bot", task_request("mail", json!({}))).await.unwrap();
    let caller = world.present(&issued, "orders").unwrap();
    let mail = json!({ "to": "someone@outside.example", "body": "hello" });
    let Decision::Allow(permit) = call(&world, &caller, "send_email", mail.clone()).await else { panic!("nothing was read yet") };
    drop(permit);
    let Decision::Allow(permit) = call(&world, &caller, "read_ticket", json!({ "ticket_id": "4711" })).await else { panic!() };
    // Before the call is even forwarded.
    assert!(caller.live().progress().labels.read_untrusted);
    assert_eq!(caller.live().progress().labels.read_sensitivity, Sensitivity::Confidential);
    drop(permit);
    match call(&world, &caller, "send_email", mail).await {
        Decision::Ask(ask) => {
            assert_eq!(ask.reason, Reason::ApprovalNeeded);
            assert!(ask.policies.contains(&"no-exfiltration".to_owned()), "{ask:?}");
        }
        other => panic!("{other:?}"),
    }
    // Durable, too: a restart does not forget what was read.
    let stored = world.ledger.load().await.unwrap().tasks;
    assert!(stored[0].0.progress.labels.read_untrusted);
}

#[tokio::test]
async fn the_budget_of_calls_is_kept_under_concurrency() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let one = || call(&world, &caller, "refund", json!({ "order_id": "1001", "amount_cents": 1 }));
    let (a, b, c, d, e, f, g) = tokio::join!(one(), one(), one(), one(), one(), one(), one());
    let allowed = [a, b, c, d, e, f, g].into_iter().filter(|decision| matches!(decision, Decision::Allow(_))).count();
    assert_eq!(allowed, 5);
    assert_eq!(denial(one().await).reason, Reason::BudgetExhausted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_at_the_same_time_cannot_all_be_the_first() {
    let mut files = testkit::fixture::policy_files();
    files.push((
        "once.cedar",
        r#"@id("once") forbid (principal, action == Orders::Action::"refund", resource) when { context.facts.calls_used > 0 };"#
            .into(),
    ));
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let agents = vec![testkit::agent("bot", &["refund-order"])];
    let world = std::sync::Arc::new(World::new(&files, agents, Vec::new()).await);
    for round in 0..50 {
        let (_, caller) = refund_task(&world).await;
        let together = std::sync::Arc::new(tokio::sync::Barrier::new(4));
        let calls = (0..4).map(|_| {
            let (world, caller, together) = (world.clone(), caller.clone(), together.clone());
            tokio::spawn(async move {
                together.wait().await;
                let decision = call(&world, &caller, "refund", json!({ "order_id": "1001", "amount_cents": 1 })).await;
                matches!(decision, Decision::Allow(_))
            })
        });
        let mut allowed = 0;
        for call in calls.collect::<Vec<_>>() {
            allowed += usize::from(call.await.unwrap());
        }
        assert_eq!(allowed, 1, "round {round}");
        assert_eq!(caller.live().progress().calls_used, 1);
    }
}

#[tokio::test]
async fn an_outcome_is_recorded_once_however_the_call_ends() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let allowed = async || match call(&world, &caller, "refund", json!({ "order_id": "1001", "amount_cents": 1 })).await {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    };
    drop(allowed().await);
    assert_eq!(last_outcome(&world).as_deref(), Some("not_released"));
    drop(allowed().await.release().unwrap());
    assert_eq!(last_outcome(&world).as_deref(), Some("cancelled"));
    let before = world.ledger.events().len();
    allowed().await.release().unwrap().record(CallOutcome { status: CallStatus::Ok, result_sha256: Some([1; 32]), bytes: 7 });
    assert_eq!(last_outcome(&world).as_deref(), Some("ok"));
    assert_eq!(world.ledger.events().len(), before + 2, "a decision and one outcome");
}

#[tokio::test]
async fn an_ended_task_lets_nothing_go_and_its_token_is_dead_everywhere() {
    let world = World::fixture().await;
    let (issued, caller) = refund_task(&world).await;
    let Decision::Allow(permit) = call(&world, &caller, "refund", json!({ "order_id": "1001", "amount_cents": 1 })).await else {
        panic!()
    };
    let released = match call(&world, &caller, "get_order", json!({ "order_id": "1001" })).await {
        Decision::Allow(permit) => permit.release().unwrap(),
        other => panic!("{other:?}"),
    };
    let mut ends = world.authority.subscribe_ends();
    world.authority.end_task(caller.task(), &Actor::Operator("olga".into()), EndReason::Revoked).await.unwrap();
    assert_eq!(permit.release().unwrap_err(), Over::TaskEnded(EndReason::Revoked));
    assert_eq!(released.live().wait_ended().await, EndReason::Revoked);
    released.record(CallStatus::Withheld.into());
    assert_eq!(ends.recv().await.unwrap(), (caller.task(), EndReason::Revoked));
    assert_eq!(world.present(&issued, "orders").unwrap_err(), Unauthenticated::TaskEnded(EndReason::Revoked));
    assert_eq!(world.authority.introspect(issued.token.expose_secret()), authority::Introspection::Inactive);
    let refused = call(&world, &caller, "refund", json!({ "order_id": "1001", "amount_cents": 1 })).await;
    assert_eq!(denial(refused).reason, Reason::TaskEnded);
    assert_eq!(world.ledger.events().iter().filter(|event| event["type"] == "task.ended").count(), 1);
}

#[tokio::test]
async fn a_task_that_cannot_be_ended_durably_is_dead_all_the_same_and_tried_again() {
    let world = World::fixture().await;
    let (issued, caller) = refund_task(&world).await;
    world.ledger.break_with(Some(Fault::Failed));
    assert!(world.authority.end_task(caller.task(), &Actor::System, EndReason::Revoked).await.is_err());
    assert!(world.present(&issued, "orders").is_err());
    world.ledger.break_with(None);
    world.authority.sweep().await.unwrap();
    assert!(world.ledger.load().await.unwrap().tasks.is_empty());
}

#[tokio::test]
async fn tasks_end_by_deadline_silence_and_suspension() {
    let world = World::fixture().await;
    let (silent, _) = refund_task(&world).await;
    world.clock.advance_secs(120);
    assert_eq!(world.present(&silent, "orders").unwrap_err(), Unauthenticated::TaskEnded(EndReason::Liveness));
    let mail = world.issue("mailer", task_request("mail", json!({}))).await.unwrap();
    world.authority.set_agent_state(&"mailer".parse().unwrap(), domain::AgentState::Suspended, &Actor::System).await.unwrap();
    assert_eq!(mail.task.ended(), Some(EndReason::Agent));
    let other = world.issue("bot", task_request("mail", json!({}))).await.unwrap();
    world.clock.advance_secs(600);
    world.authority.sweep().await.unwrap();
    assert_eq!(other.task.ended(), Some(EndReason::Deadline));
    assert_eq!(world.authority.open_tasks(), 0);
}

#[tokio::test]
async fn a_stolen_token_is_worth_nothing_without_its_key() {
    let world = World::fixture().await;
    let (issued, _) = refund_task(&world).await;
    let thief = World { holder: testkit::Holder::default(), ..world };
    assert!(matches!(thief.present(&issued, "orders"), Err(Unauthenticated::NotProved(_))));
    assert!(matches!(thief.present(&issued, "other"), Err(Unauthenticated::WrongAudience)));
}

#[tokio::test]
async fn a_proof_is_good_for_one_request() {
    use authority::{Presented, Scheme};
    let world = World::fixture().await;
    let (issued, _) = refund_task(&world).await;
    let (uri, token) = ("https://writ.test/mcp/orders", issued.token.expose_secret());
    let proof = world.holder.proof("POST", uri, world.now(), Some(token));
    let target = token::dpop::TargetUri::parse(uri).unwrap();
    let presented = Presented {
        scheme: Scheme::Dpop,
        token,
        dpop: Some(&proof),
        method: "POST",
        uri: &target,
        certificate: None,
        audience: uri,
    };
    world.authority.authenticate(&presented).unwrap();
    assert!(matches!(world.authority.authenticate(&presented), Err(Unauthenticated::Proof(_))));
    for dpop in [None, Some(world.holder.proof("POST", uri, world.now(), Some(token)))] {
        let bearer = Presented { scheme: Scheme::Bearer, dpop: dpop.as_deref(), ..presented };
        assert!(matches!(world.authority.authenticate(&bearer), Err(Unauthenticated::NotProved(_))), "a bound token as bearer");
    }
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_its_task_lives_on() {
    let world = World::fixture().await;
    let (issued, caller) = refund_task(&world).await;
    world.authority.revoke_token(issued.token.expose_secret(), &Actor::System).await.unwrap();
    assert_eq!(world.present(&issued, "orders").unwrap_err(), Unauthenticated::Invalid);
    assert_eq!(world.authority.introspect(issued.token.expose_secret()), authority::Introspection::Inactive);
    assert!(caller.live().ended().is_none());
    world.authority.revoke_token("no-token", &Actor::System).await.unwrap();
}

#[tokio::test]
async fn a_revocation_that_was_not_durable_is_made_so_when_asked_again_and_only_once() {
    let world = World::fixture().await;
    let (issued, _) = refund_task(&world).await;
    let token = issued.token.expose_secret();
    world.ledger.break_with(Some(Fault::Failed));
    assert!(world.authority.revoke_token(token, &Actor::System).await.is_err());
    assert_eq!(world.present(&issued, "orders").unwrap_err(), Unauthenticated::Invalid, "refused all the same");
    world.ledger.break_with(None);
    for _ in 0..2 {
        world.authority.revoke_token(token, &Actor::System).await.unwrap();
    }
    assert_eq!(world.ledger.load().await.unwrap().revoked_tokens.len(), 1);
    assert_eq!(world.ledger.events().iter().filter(|event| event["type"] == "token.revoked").count(), 1);
}

#[tokio::test]
async fn a_token_that_has_expired_costs_no_entry() {
    let world = World::fixture().await;
    let (issued, _) = refund_task(&world).await;
    world.clock.advance_secs(301);
    let before = world.ledger.events().len();
    world.authority.revoke_token(issued.token.expose_secret(), &Actor::Holder).await.unwrap();
    assert_eq!(world.ledger.events().len(), before);
}

#[tokio::test]
async fn sensitive_values_open_for_an_auditor_until_they_are_redacted_and_the_log_stays() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let arguments = json!({ "order_id": "1001", "amount_cents": 1, "note": "Ms Doe, Elm Street" });
    let Decision::Allow(permit) = call(&world, &caller, "refund", arguments).await else { panic!() };
    let entry = world.ledger.decision(permit.decision()).await.unwrap().unwrap();
    drop(permit);
    let opened = world.authority.opened(&entry, &Actor::Operator("eve".into())).await.unwrap();
    assert_eq!(opened.get("note"), Some(&json!("Ms Doe, Elm Street")));
    world.authority.redact(&entry, "note", "erasure request 7", &Actor::Operator("olga".into())).await.unwrap();
    assert!(world.authority.opened(&entry, &Actor::Operator("eve".into())).await.unwrap().is_empty());
    assert_eq!(world.ledger.decision(entry_decision(&entry)).await.unwrap().unwrap(), entry, "the entry is as it was");
    assert_eq!(world.ledger.events().pop().unwrap()["type"], "redaction");
    assert!(world.authority.redact(&entry, "note", "again", &Actor::System).await.is_err());
}

#[tokio::test]
async fn two_redactions_of_one_entry_at_once_both_hold() {
    let world = World::fixture().await;
    let issued = world.issue("bot", task_request("mail", json!({}))).await.unwrap();
    let caller = world.present(&issued, "orders").unwrap();
    let mail = json!({ "to": "doe@outside.example", "body": "Ms Doe, Elm Street" });
    let Decision::Allow(permit) = call(&world, &caller, "send_email", mail).await else { panic!() };
    let entry = world.ledger.decision(permit.decision()).await.unwrap().unwrap();
    drop(permit);
    let olga = Actor::Operator("olga".into());
    assert_eq!(world.authority.opened(&entry, &olga).await.unwrap().len(), 2);
    let redact = |name: &'static str| world.authority.redact(&entry, name, "erasure", &olga);
    let (to, body) = tokio::join!(redact("to"), redact("body"));
    assert!(to.is_ok() && body.is_ok());
    assert!(world.authority.opened(&entry, &olga).await.unwrap().is_empty(), "what was redacted does not come back");
}

#[tokio::test]
async fn a_redacted_parameter_is_gone_from_the_task_as_well() {
    let world = World::fixture().await;
    let parameters = json!({ "order_id": "1001", "max_amount_cents": 5000, "reason": "Ms Doe is ill" });
    let issued = world.issue("bot", task_request("refund-order", parameters)).await.unwrap();
    let query =
        authority::ports::LogQuery { terms: vec![("operation".into(), "task.open".into())], limit: 1, ..Default::default() };
    let entry = world.ledger.search(query).await.unwrap().entries.remove(0);
    assert!(!String::from_utf8(entry.leaf.clone()).unwrap().contains("Doe"));
    assert_eq!(
        world.authority.opened(&entry, &Actor::Operator("eve".into())).await.unwrap().get("reason"),
        Some(&json!("Ms Doe is ill"))
    );
    world.authority.redact(&entry, "reason", "erasure", &Actor::Operator("olga".into())).await.unwrap();
    let stored = world.ledger.task(issued.task.task().id).await.unwrap().unwrap();
    assert_eq!(stored.params.get("reason"), Some(&domain::Value::Text(String::new())));
    assert_eq!(stored.params.get("order_id"), Some(&domain::Value::Text("1001".into())));
}

fn entry_decision(entry: &authority::ports::LogEntry) -> domain::DecisionId {
    let leaf: Value = serde_json::from_slice(&entry.leaf).unwrap();
    leaf["event"]["decision"].as_str().unwrap().parse().unwrap()
}

async fn allowed(world: &World, caller: &Caller) -> authority::Permit {
    match call(world, caller, "get_order", json!({ "order_id": "1001" })).await {
        Decision::Allow(permit) => permit,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_revoked_token_lets_nothing_go_and_its_holder_hears_of_it() {
    let world = World::fixture().await;
    let (issued, caller) = refund_task(&world).await;
    let other = world.issue("bot", authority::TaskRequest::Renew(caller.task())).await.unwrap();
    let other = world.present(&other, "orders").unwrap();
    let permit = allowed(&world, &caller).await;
    let kept = allowed(&world, &other).await;
    // In effect at once, also if it cannot be made durable yet.
    world.ledger.break_with(Some(Fault::Failed));
    assert!(world.authority.revoke_token(issued.token.expose_secret(), &Actor::Holder).await.is_err());
    world.ledger.break_with(None);
    let patience = std::time::Duration::from_secs(5);
    assert_eq!(tokio::time::timeout(patience, caller.wait_over()).await.unwrap(), Over::TokenRevoked);
    assert_eq!(permit.release().unwrap_err(), Over::TokenRevoked);
    assert_eq!(last_outcome(&world).as_deref(), Some("not_released"));
    assert_eq!(other.over(), None, "another token of the task is not concerned");
    drop(kept.release().unwrap());
    assert_eq!(world.present(&issued, "orders").unwrap_err(), Unauthenticated::Invalid);
}

#[tokio::test]
async fn nothing_leaves_under_a_policy_that_was_replaced_before_it_left() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let permit = allowed(&world, &caller).await;
    let files = testkit::fixture::policy_files().into_iter();
    let files = files.map(|(path, text)| authority::SourceFile {
        path: path.into(),
        text: text.replace("Refund one order", "Refund an order"),
    });
    let compiled = authority::Policy::compile(&authority::Sources { files: files.collect() }).unwrap();
    world.authority.reload_policy(compiled.policy, &Actor::System).await.unwrap();
    assert_eq!(permit.release().unwrap_err(), Over::PolicyChanged);
    assert_eq!(last_outcome(&world).as_deref(), Some("not_released"));
    drop(allowed(&world, &caller).await.release().unwrap());
}

#[tokio::test]
async fn who_reads_sensitive_values_is_in_the_log_before_they_are_given() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let arguments = json!({ "order_id": "1001", "amount_cents": 1, "note": "Ms Doe, Elm Street" });
    let Decision::Allow(permit) = call(&world, &caller, "refund", arguments).await else { panic!() };
    let entry = world.ledger.decision(permit.decision()).await.unwrap().unwrap();
    drop(permit);
    let eve = Actor::Operator("eve".into());
    assert_eq!(world.authority.opened(&entry, &eve).await.unwrap().len(), 1);
    let event = world.ledger.events().pop().unwrap();
    assert_eq!((event["type"].as_str(), event["by"].as_str()), (Some("opening.read"), Some("operator:eve")));
    assert_eq!(event["detail"], json!({ "index": entry.index, "names": ["note"], "task": caller.task().to_string() }));
    world.ledger.break_with(Some(Fault::Failed));
    assert!(world.authority.opened(&entry, &eve).await.is_err(), "no log, no effect");
    world.ledger.break_with(None);
    world.authority.redact(&entry, "note", "erasure", &eve).await.unwrap();
    let before = world.ledger.events().len();
    assert!(world.authority.opened(&entry, &eve).await.unwrap().is_empty());
    assert_eq!(world.ledger.events().len(), before, "nothing was shown");
}

#[tokio::test]
async fn secrets_in_the_uri_of_a_resource_are_not_in_the_log() {
    let world = World::fixture().await;
    let (_, caller) = refund_task(&world).await;
    let upstream = "orders".parse().unwrap();
    let uri = "orders://user:s3cret@host/1?key=s3cret";
    let denial = denial(world.authority.decide(&caller, Operation::ReadResource { upstream: &upstream, uri }).await);
    let entry = world.ledger.decision(denial.decision.unwrap()).await.unwrap().unwrap();
    assert!(!String::from_utf8(entry.leaf.clone()).unwrap().contains("s3cret"));
    let leaf: Value = serde_json::from_slice(&entry.leaf).unwrap();
    assert_eq!(leaf["event"]["subject"], "orders://…@host/1…");
    let opened = world.authority.opened(&entry, &Actor::Operator("eve".into())).await.unwrap();
    assert_eq!(opened.get("$subject"), Some(&json!(uri)));
}
