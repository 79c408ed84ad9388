//! Issuance: who gets a task, and that nobody else does. Each refusal leaves no task behind.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use authority::ports::Clock;
use authority::{Actor, EvidenceInput, Holder, Introspection, IssueError, IssueRequest, TaskRequest, Unauthenticated};
use domain::{Agent, AgentState, Binding, EndReason, Timestamp};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use testkit::{Fault, ISSUER, World, agent, task_request};

fn refund() -> TaskRequest {
    task_request("refund-order", json!({ "order_id": "1001", "max_amount_cents": 5000 }))
}

#[tokio::test]
async fn a_registered_workload_gets_a_bound_token_for_its_declared_task() {
    let world = World::fixture().await;
    let issued = world.issue("bot", refund()).await.unwrap();
    assert_eq!(issued.binding, Binding::Dpop);
    assert_eq!(issued.claims.intent, "refund-order");
    assert_eq!(issued.claims.audience, ["https://writ.test/mcp/orders", ISSUER]);
    let caller = world.present(&issued, "orders").unwrap();
    assert_eq!(caller.task(), issued.task.task().id);
    assert!(matches!(world.authority.introspect(issued.token.expose_secret()), Introspection::Active(_)));
}

#[tokio::test]
async fn what_was_signed_is_what_was_decided_and_logged_before() {
    let world = World::fixture().await;
    let issued = world.issue("bot", refund()).await.unwrap();
    let event = world.ledger.events().pop().unwrap();
    assert_eq!(event["type"], "decision");
    assert_eq!(event["operation"], "task.open");
    assert_eq!(event["outcome"], "allow");
    assert_eq!(event["task"], issued.claims.task.as_str());
    let payload = issued.token.expose_secret().split('.').nth(1).unwrap();
    use base64::Engine;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &claims);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(event["claims_sha256"], digest.as_str());
}

#[tokio::test]
async fn only_registered_eligible_agents_get_a_task() {
    let world = World::fixture().await;
    let registered = |change: fn(&mut Agent), name: &str| {
        let mut agent = agent(name, &["refund-order"]);
        change(&mut agent);
        agent
    };
    let agents = vec![
        registered(|agent| agent.state = AgentState::Suspended, "suspended"),
        registered(|agent| agent.review_by = Timestamp::from_secs(1), "overdue"),
        registered(
            |agent| {
                agent.owner = None;
                agent.state = AgentState::Suspended;
            },
            "ownerless",
        ),
    ];
    world.authority.put_agents(agents, &Actor::System).await.unwrap();
    for name in ["nobody", "suspended", "overdue", "ownerless"] {
        let refused = world.issue(name, refund()).await;
        assert!(matches!(refused, Err(IssueError::Unregistered | IssueError::NotEligible(_))), "{name}: {refused:?}");
    }
    assert_eq!(world.authority.open_tasks(), 0);
    let refusals = world.ledger.events().into_iter().filter(|event| event["type"] == "refusal").count();
    assert_eq!(refusals, 4, "every refusal is in the log");
}

#[tokio::test]
async fn an_agent_without_owner_or_purpose_or_identity_cannot_be_registered() {
    let world = World::fixture().await;
    let cases: [fn(&mut Agent); 4] = [
        |agent| agent.owner = None,
        |agent| agent.purpose = " ".into(),
        |agent| agent.rules.clear(),
        |agent| agent.rules[0].claims.clear(),
    ];
    for change in cases {
        let mut agent = agent("new", &[]);
        change(&mut agent);
        assert!(world.authority.put_agents(vec![agent], &Actor::System).await.is_err());
    }
    let mut twin = agent("twin", &[]);
    twin.rules = agent("bot", &[]).rules;
    assert!(world.authority.put_agents(vec![twin], &Actor::System).await.is_err(), "two agents never share an identity");
}

#[tokio::test]
async fn a_workload_that_matches_two_agents_is_nobody() {
    let world = World::fixture().await;
    let mut other = agent("other", &["refund-order"]);
    other.rules[0].claims = vec![("team".into(), domain::ClaimPattern::Exact("support".into()))];
    world.authority.put_agents(vec![other], &Actor::System).await.unwrap();
    let both = world.issuer.token_with("workload:bot", ISSUER, world.now(), json!({ "team": "support" }));
    assert!(matches!(world.issue_with(both, refund()).await, Err(IssueError::Unregistered)));
}

#[tokio::test]
async fn evidence_is_good_for_one_task() {
    let world = World::fixture().await;
    let evidence = world.issuer.token("workload:bot", ISSUER, world.now());
    world.issue_with(evidence.clone(), refund()).await.unwrap();
    assert!(matches!(world.issue_with(evidence, refund()).await, Err(IssueError::EvidenceReplayed)));
    assert_eq!(world.authority.open_tasks(), 1);
}

#[tokio::test]
async fn whoever_shows_wrong_evidence_is_told_what_to_do_next() {
    let world = World::fixture().await;
    let now = world.now();
    let token = |more: Value| world.issuer.token_with("workload:bot", ISSUER, now, more);
    let stranger = testkit::TestIssuer::new("https://ci.test");
    let cases = [
        ("malformed", "not a token".to_owned(), "send it whole"),
        ("another's", stranger.token("workload:bot", ISSUER, now), "get a fresh one from an issuer"),
        ("for somebody else", token(json!({ "aud": "https://elsewhere.test" })), "whose only audience is"),
        ("for several", token(json!({ "aud": [ISSUER, "https://elsewhere.test"] })), "whose only audience is"),
        ("expired", token(json!({ "iat": now - 600, "exp": now - 300 })), "get a fresh one"),
        ("without a beginning", token(json!({ "iat": null })), "get one with `sub`"),
        ("of nobody", token(json!({ "iss": "https://nobody.test" })), "ask an operator to add it"),
    ];
    for (what, evidence, next) in cases {
        let refused = world.issue_with(evidence, refund()).await.unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, IssueError::Evidence(_)) && text.contains(next), "{what}: {text}");
        assert!(!text.contains("elsewhere") && !text.contains("nobody.test"), "it repeats what was sent: {text}");
    }
}

#[tokio::test]
async fn an_intent_outside_the_ceiling_and_parameters_outside_the_intent_are_refused() {
    let world = World::fixture().await;
    for intent in ["refund-order", "no-such", "../x", ""] {
        let refused = world.issue("mailer", task_request(intent, json!({}))).await;
        assert!(matches!(refused, Err(IssueError::Intent { .. })), "{intent}");
    }
    let parameters: [Value; 5] = [
        json!({}),
        json!({ "order_id": 1001, "max_amount_cents": 5000 }),
        json!({ "order_id": "1001", "max_amount_cents": 10_001 }),
        json!({ "order_id": "1001", "max_amount_cents": 5000.5 }),
        json!({ "order_id": "1001", "max_amount_cents": 5000, "admin": true }),
    ];
    for given in parameters {
        let refused = world.issue("bot", task_request("refund-order", given.clone())).await;
        assert!(matches!(refused, Err(IssueError::Params(_))), "{given}");
    }
}

#[tokio::test]
async fn policy_decides_on_posture_whether_a_task_opens_and_the_refusal_is_logged() {
    let world = World::fixture().await;
    let from_branch = world.issuer.token_with("workload:mailer", ISSUER, world.now(), json!({ "ref": "refs/pull/1/merge" }));
    let refused = world.issue_with(from_branch, task_request("mail", json!({}))).await;
    assert!(matches!(refused, Err(IssueError::Denied { .. })), "{refused:?}");
    let event = world.ledger.events().pop().unwrap();
    assert_eq!(
        (event["outcome"].as_str(), event["determining"][0].as_str()),
        (Some("deny"), Some("no-mail-tasks-from-untrusted-branch"))
    );
    assert_eq!(world.authority.open_tasks(), 0);
}

#[tokio::test]
async fn an_unbound_token_needs_an_explicit_permission() {
    let world = World::fixture().await;
    let mut loose = agent("loose", &["mail"]);
    loose.allow_bearer = true;
    world.authority.put_agents(vec![loose], &Actor::System).await.unwrap();
    let unbound = async |name: &str| {
        let evidence = EvidenceInput::Jwt(world.issuer.token(&format!("workload:{name}"), ISSUER, world.now()).into());
        let holder = Holder { dpop: None, certificate: None };
        world.authority.issue(IssueRequest { evidence, task: task_request("mail", json!({})), resources: vec![], holder }).await
    };
    assert!(matches!(unbound("mailer").await, Err(IssueError::BindingRequired)));
    let issued = unbound("loose").await.unwrap();
    assert_eq!(issued.binding, Binding::Bearer);
    assert!(matches!(world.authority.introspect(issued.token.expose_secret()), Introspection::Active(_)));
    let strict = Agent { allow_bearer: false, ..agent("loose", &["mail"]) };
    world.authority.put_agents(vec![strict], &Actor::System).await.unwrap();
    assert_eq!(world.authority.introspect(issued.token.expose_secret()), Introspection::Inactive);
}

#[tokio::test]
async fn without_a_log_there_is_no_token_and_no_task() {
    let world = World::fixture().await;
    for fault in [Fault::Failed, Fault::FailedButKept] {
        world.ledger.break_with(Some(fault));
        assert!(matches!(world.issue("bot", refund()).await, Err(IssueError::Unavailable(_))));
        assert_eq!(world.authority.open_tasks(), 0);
    }
    world.ledger.break_with(None);
    world.issue("bot", refund()).await.unwrap();
}

#[tokio::test]
async fn a_task_is_renewed_only_by_its_own_workload_and_only_while_it_is_open() {
    let world = World::fixture().await;
    let mail = world.issue("mailer", task_request("mail", json!({}))).await.unwrap();
    let id = mail.task.task().id;
    assert!(matches!(world.issue("bot", TaskRequest::Renew(id)).await, Err(IssueError::Task(_))), "another agent's task");
    world.clock.advance_secs(200);
    let renewed = world.issue("mailer", TaskRequest::Renew(id)).await.unwrap();
    assert_eq!(renewed.task.task().id, id);
    assert_eq!(renewed.task.progress().attested_at, world.clock.now());
    assert_eq!(world.authority.open_tasks(), 1);
    world.authority.end_task(id, &Actor::System, EndReason::Revoked).await.unwrap();
    assert!(matches!(world.issue("mailer", TaskRequest::Renew(id)).await, Err(IssueError::Task(_))));
}

/// Lets a future begin and wait for the ledger.
async fn begun<F: Future>(future: &mut std::pin::Pin<&mut F>) {
    let polled = std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending()));
    assert!(polled.await);
}

#[tokio::test]
async fn what_is_taken_away_while_a_task_opens_is_taken_from_it_too() {
    let changes: [fn(&mut Agent); 3] = [
        |agent| agent.state = AgentState::Suspended,
        |agent| agent.intents.clear(),
        |agent| agent.rules[0].claims = vec![("sub".into(), domain::ClaimPattern::Exact("workload:other".into()))],
    ];
    for change in changes {
        let world = World::fixture().await;
        let mut opening = std::pin::pin!(world.issue("bot", refund()));
        begun(&mut opening).await;
        let mut changed = agent("bot", &["refund-order", "mail"]);
        change(&mut changed);
        world.authority.put_agents(vec![changed], &Actor::System).await.unwrap();
        let refused = opening.await;
        assert!(matches!(refused, Err(IssueError::Task(_))), "{refused:?}");
        assert_eq!(world.authority.open_tasks(), 0);
    }
}

#[tokio::test]
async fn a_task_that_ends_while_it_is_renewed_gets_no_token() {
    let world = World::fixture().await;
    let id = world.issue("bot", refund()).await.unwrap().task.task().id;
    let hold = world.ledger.hold_next_commit();
    let mut renewing = std::pin::pin!(world.issue("bot", TaskRequest::Renew(id)));
    tokio::select! {
        _ = &mut renewing => panic!("it was held"),
        () = hold.written() => {}
    }
    world.authority.end_task(id, &Actor::Operator("olga".into()), EndReason::Revoked).await.unwrap();
    hold.go();
    let renewed = renewing.await;
    assert!(matches!(renewed, Err(IssueError::Task(_))), "{renewed:?}");
}

#[tokio::test]
async fn a_change_that_was_begun_comes_to_its_end_although_its_operator_goes_away() {
    let world = World::fixture().await;
    let bot = "bot".parse().unwrap();
    {
        let by = Actor::Operator("olga".into());
        let mut change = std::pin::pin!(world.authority.set_agent_state(&bot, AgentState::Suspended, &by));
        begun(&mut change).await;
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.authority.agent(&bot).unwrap().state, AgentState::Suspended);
    assert_eq!(world.ledger.events().pop().unwrap()["type"], "agent.put");
}

#[tokio::test]
async fn a_task_ends_when_its_intent_is_taken_from_its_agent() {
    let world = World::fixture().await;
    let refunds = world.issue("bot", refund()).await.unwrap();
    let mail = world.issue("bot", task_request("mail", json!({}))).await.unwrap();
    world.authority.put_agents(vec![agent("bot", &["mail"])], &Actor::System).await.unwrap();
    assert_eq!(refunds.task.ended(), Some(EndReason::Agent));
    assert_eq!(world.present(&refunds, "orders").unwrap_err(), Unauthenticated::TaskEnded(EndReason::Agent));
    assert!(matches!(world.issue("bot", TaskRequest::Renew(refunds.task.task().id)).await, Err(IssueError::Task(_))));
    assert!(world.present(&mail, "orders").is_ok(), "what it may still declare goes on");
}

#[tokio::test]
async fn a_clock_that_goes_back_does_not_make_a_task_live_longer() {
    let world = World::fixture().await;
    let mail = world.issue("mailer", task_request("mail", json!({}))).await.unwrap();
    world.clock.set_wall(Timestamp::from_secs(world.now() - 3_600));
    world.clock.advance_secs(599);
    assert!(world.issue("mailer", TaskRequest::Renew(mail.task.task().id)).await.is_ok());
    world.clock.advance_secs(2);
    let late = world.issue("mailer", TaskRequest::Renew(mail.task.task().id)).await;
    assert!(matches!(late, Err(IssueError::Task(_))), "{late:?}");
    world.authority.sweep().await.unwrap();
    assert_eq!(mail.task.ended(), Some(EndReason::Deadline));
}

#[tokio::test]
async fn a_changed_course_ends_the_old_task_and_links_the_new_one() {
    let world = World::fixture().await;
    let old = world.issue("bot", task_request("mail", json!({}))).await.unwrap();
    let TaskRequest::Open { intent, parameters, lifetime_secs, .. } = refund() else { panic!() };
    let replaces = Some(old.task.task().id);
    let new = world.issue("bot", TaskRequest::Open { intent, parameters, lifetime_secs, replaces }).await.unwrap();
    assert_eq!(new.task.task().predecessor, replaces);
    assert_eq!(old.task.ended(), Some(EndReason::Superseded));
    assert_eq!(world.present(&old, "orders").unwrap_err(), Unauthenticated::TaskEnded(EndReason::Superseded));
}

#[tokio::test]
async fn a_crash_after_a_changed_course_leaves_only_the_new_task_open() {
    let world = World::fixture().await;
    let old = world.issue("bot", task_request("mail", json!({}))).await.unwrap().task.task().id;
    let TaskRequest::Open { intent, parameters, lifetime_secs, .. } = refund() else { panic!() };
    world.ledger.break_with(Some(Fault::FailedButKept));
    let changed = TaskRequest::Open { intent, parameters, lifetime_secs, replaces: Some(old) };
    assert!(world.issue("bot", changed).await.is_err());
    let kept = authority::ports::Archive::load(&*world.ledger).await.unwrap().tasks;
    assert_eq!(kept.iter().map(|(task, _)| task.predecessor).collect::<Vec<_>>(), [Some(old)]);
    let ended = |event: &serde_json::Value| event["type"] == "task.ended" && event["task"] == old.to_string();
    assert_eq!(world.ledger.events().iter().filter(|event| ended(event)).count(), 1, "the log says that the old one ended");
}

/// Waits until it is so.
async fn until(what: &str, so: impl Fn() -> bool) {
    let waiting = async {
        while !so() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn what_is_in_the_log_takes_effect_although_whoever_asked_went_away() {
    let world = World::fixture().await;
    let old = world.issue("bot", task_request("mail", json!({}))).await.unwrap();
    let TaskRequest::Open { intent, parameters, lifetime_secs, .. } = refund() else { panic!() };
    let changed = TaskRequest::Open { intent, parameters, lifetime_secs, replaces: Some(old.task.task().id) };
    let hold = world.ledger.hold_next_commit();
    tokio::select! {
        _ = world.issue("bot", changed) => panic!("it was held"),
        () = hold.written() => {}
    }
    hold.go();
    until("the task that was replaced has ended", || old.task.ended() == Some(EndReason::Superseded)).await;
    until("the one that replaced it is open", || world.authority.open_tasks() == 1).await;
}

#[tokio::test]
async fn an_end_is_logged_once_although_whoever_asked_went_away() {
    let world = World::fixture().await;
    let task = world.issue("bot", refund()).await.unwrap().task.task().id;
    let hold = world.ledger.hold_next_commit();
    tokio::select! {
        _ = world.authority.end_task(task, &Actor::System, EndReason::Completed) => panic!("it was held"),
        () = hold.written() => {}
    }
    hold.go();
    // Whoever is asked next, does it once more only if it did not get to its end.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    world.authority.sweep().await.unwrap();
    let ended = world.ledger.events().into_iter().filter(|event| event["type"] == "task.ended");
    assert_eq!(ended.count(), 1);
}

#[tokio::test]
async fn a_token_lives_no_longer_than_its_task() {
    let world = World::fixture().await;
    let TaskRequest::Open { intent, parameters, .. } = refund() else { panic!() };
    let short = TaskRequest::Open { intent, parameters, lifetime_secs: Some(10), replaces: None };
    let issued = world.issue("bot", short).await.unwrap();
    assert_eq!(issued.claims.expires_at.since(issued.claims.issued_at), 10);
}

#[tokio::test]
async fn parameters_that_no_token_can_carry_are_told_as_such() {
    let world = World::fixture().await;
    let long = "\u{1}".repeat(1_000);
    let refused = world.issue("bot", task_request("refund-order", json!({ "order_id": long, "max_amount_cents": 1 }))).await;
    assert!(matches!(refused, Err(IssueError::TooLong)), "{refused:?}");
    assert_eq!(world.authority.open_tasks(), 0);
}

#[tokio::test]
async fn a_resource_outside_the_reach_is_no_audience() {
    let world = World::fixture().await;
    let with = async |resource: &str| {
        let evidence = EvidenceInput::Jwt(world.issuer.token("workload:bot", ISSUER, world.now()).into());
        let holder = Holder { dpop: None, certificate: Some([1; 32]) };
        world.authority.issue(IssueRequest { evidence, task: refund(), resources: vec![resource.into()], holder }).await
    };
    for resource in ["https://writ.test/mcp/other", "https://evil.test/mcp/orders", "orders"] {
        assert!(matches!(with(resource).await, Err(IssueError::Target(_))), "{resource}");
    }
    assert!(with("https://writ.test/mcp/orders/").await.is_ok(), "a trailing slash is forgiven");
    assert_eq!(with(ISSUER).await.unwrap().claims.audience, [ISSUER], "the issuer alone is no upstream");
}

#[tokio::test]
async fn tasks_survive_a_restart_with_what_they_have_read() {
    let world = World::fixture().await;
    let issued = world.issue("bot", refund()).await.unwrap();
    let loaded = authority::ports::Archive::load(&*world.ledger).await.unwrap();
    assert_eq!(loaded.tasks.len(), 1);
    assert_eq!(loaded.tasks[0].0.id, issued.task.task().id);
    assert_eq!(loaded.tasks[0].0.deadline, issued.task.task().deadline);
}
