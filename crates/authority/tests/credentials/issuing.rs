//! No log, no credential; what was decided is what is made; a task that ended gets nothing.

use crate::rig::{Rig, ask, until};
use authority::target::{Asked, Target, TargetError, Verifier};
use authority::{Actor, Caller, CredentialError, IssuedCredential};
use domain::{GrantId, GrantState, Params, SecretOrigin, Sensitivity, Timestamp};
use secrecy::ExposeSecret;
use serde_json::json;
use testkit::{At, Fails, Fault};
use tokio::task::JoinHandle;

/// Asks, at a target that holds up what it makes, until that is decided.
async fn held_up(rig: &Rig, caller: &Caller) -> JoinHandle<Result<IssuedCredential, CredentialError>> {
    rig.orders.hold_up();
    let (authority, asking) = (rig.world.authority.clone(), caller.clone());
    let request = ask("orders-db/read_orders", json!({ "region": "eu" }));
    let task = tokio::spawn(async move { authority.request_credential(&asking, request).await });
    until(|| !rig.decisions().is_empty()).await;
    task
}

#[tokio::test]
async fn a_credential_is_in_the_log_with_its_plan_before_it_exists() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let issued = rig.read_orders(&caller).await.unwrap();
    assert_eq!(rig.orders.standing(), std::slice::from_ref(&issued.handle));
    assert_eq!(issued.secret, SecretOrigin::Writ);
    assert!(issued.secrets["password"].expose_secret().starts_with("secret-"));
    let decision = rig.decisions().pop().unwrap();
    assert_eq!(decision["outcome"], "allow");
    assert_eq!(decision["decision"], issued.decision.to_string());
    assert_eq!(decision["grant"], issued.grant.to_string());
    assert_eq!(decision["handle"], issued.handle);
    assert_eq!(decision["target"], "orders-db");
    assert_eq!(decision["subject"], "read_orders");
    assert_eq!(decision["secret"], "writ");
    assert_eq!(decision["expires_at"], issued.expires_at.millis());
    assert_eq!(decision["plan_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(decision["arguments"]["clear"]["region"], "eu");
    assert_eq!(rig.events("credential.issued").len(), 1);
    let record = rig.only_grant().await;
    assert_eq!((record.grant.state, record.grant.decision), (GrantState::Issued, issued.decision));
    assert!(record.sealed.is_none(), "what is sealed stays in the store");
}

#[tokio::test]
async fn without_a_log_entry_nothing_is_issued() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let before = rig.orders.issued();
    for fault in [Fault::Failed, Fault::FailedButKept] {
        rig.world.ledger.break_with(Some(fault));
        let refused = rig.read_orders(&caller).await.unwrap_err();
        assert!(matches!(refused, CredentialError::Failed(_)), "{refused:?}");
        rig.world.ledger.break_with(None);
    }
    assert_eq!(rig.orders.issued(), before);
    // The write that was kept after all left a grant that nobody confirmed: it is closed by itself.
    assert_eq!(rig.only_grant().await.grant.state, GrantState::Intended);
    rig.world.clock.advance_secs(121);
    rig.world.authority.run_credentials().await;
    assert!(rig.all_dead().await);
}

#[tokio::test]
async fn a_plan_that_was_not_decided_is_refused_by_gate_and_target() {
    let rig = Rig::new().await;
    let policy = rig.world.authority.policy();
    let offer = policy.offer(&"other-db".parse().unwrap(), &"read".parse().unwrap()).unwrap().clone();
    let (agent, intent, params) = ("bot".parse().unwrap(), "fix-orders".parse().unwrap(), Params::default());
    let asked = |secs: i64| Asked {
        grant: GrantId::from_bytes([5; 16]),
        task: domain::TaskId::from_bytes([6; 16]),
        agent: &agent,
        intent: &intent,
        offer: &offer,
        params: &params,
        verifier: None,
        now: Timestamp::from_secs(0),
        expires_at: Timestamp::from_secs(secs),
        entropy: [7; 32],
    };
    let (decided, tampered) = (rig.other.plan(&asked(600)).unwrap(), rig.other.plan(&asked(6_000_000)).unwrap());
    let shown = testkit::shown(&decided).await;
    assert_eq!(rig.other.issue(&tampered, &shown).await.unwrap_err(), TargetError::NotShown("a decision about another plan"));
    assert!(rig.other.issue(&decided, &shown).await.is_ok());

    // And the gate itself: the entry that decided one plan does not open it for the other.
    use authority::ports::{Ledger, Write};
    use authority::{Consistency, LogGate};
    let digest: String = decided.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    for (event, opens) in [
        (json!({ "outcome": "allow", "plan_sha256": digest, "type": "decision" }), true),
        (json!({ "outcome": "deny", "plan_sha256": digest, "type": "decision" }), false),
        (json!({ "outcome": "allow", "plan_sha256": digest, "type": "credential.step" }), false),
        (json!({ "claims_sha256": digest, "outcome": "allow", "type": "decision" }), false),
    ] {
        let ledger = testkit::MemoryLedger::default();
        let write = Write { events: vec![event.to_string().into_bytes()], changes: Vec::new() };
        let inclusion = ledger.include(write, 0).await.unwrap();
        let gate = LogGate::new(ledger.log_key());
        let link = Consistency { old: 0, new: 1, proof: &[] };
        assert!(gate.show_plan(&tampered, &inclusion, &link).is_err(), "{event}");
        assert_eq!(gate.show_plan(&decided, &inclusion, &link).is_ok(), opens, "{event}");
    }
}

#[tokio::test]
async fn what_policy_refuses_is_refused_and_logged_and_never_reaches_the_target() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let calls = rig.orders.calls();
    for (offer, params, says) in [
        ("orders-db/read_orders", json!({ "region": "us" }), "is not permitted"),
        ("orders-db/read_orders", json!({}), "`region` is missing"),
        ("orders-db/read_orders", json!({ "region": "eu", "table": "x" }), "unknown parameter `table`"),
        ("orders-db/hidden", json!({}), "is not available"),
        ("orders-db/nothing", json!({}), "is not available"),
        ("nowhere/read", json!({}), "is not available"),
        ("orders-db/impossible", json!({}), "cannot be expressed"),
    ] {
        let refused = rig.world.authority.request_credential(&caller, ask(offer, params)).await.unwrap_err();
        assert!(matches!(refused, CredentialError::Denied(_)) && refused.to_string().contains(says), "{offer}: {refused:?}");
    }
    let decisions = rig.decisions();
    assert_eq!(decisions.len(), 7);
    assert!(decisions.iter().all(|decision| decision["outcome"] == "deny" && decision.get("plan_sha256").is_none()));
    assert_eq!(rig.orders.calls(), calls);
    assert!(rig.grants().await.is_empty());
}

#[tokio::test]
async fn a_credential_raises_the_labels_of_its_task_and_takes_a_place_in_its_budget() {
    let rig = Rig::new().await;
    let (issued, caller) = rig.task().await;
    let _ = rig.read_orders(&caller).await.unwrap();
    let progress = issued.task.progress();
    assert!(progress.labels.read_untrusted);
    assert_eq!((progress.labels.read_sensitivity, progress.calls_used), (Sensitivity::Confidential, 1));
}

#[tokio::test]
async fn a_credential_lives_no_longer_than_its_offer_its_wish_and_its_task() {
    let rig = Rig::new().await;
    let (issued, caller) = rig.task().await;
    let now = rig.world.now();
    assert_eq!(rig.read_orders(&caller).await.unwrap().expires_at, Timestamp::from_secs(now + 600));
    let mut wish = ask("orders-db/read_orders", json!({ "region": "eu" }));
    for (secs, expected) in [(60, 60), (9_999, 600)] {
        wish.lifetime_secs = Some(secs);
        let given = rig.world.authority.request_credential(&caller, wish.clone()).await.unwrap();
        assert_eq!(given.expires_at, Timestamp::from_secs(now + expected));
    }
    rig.world.clock.advance_secs(6_900);
    let renewed = rig.world.issue("bot", authority::TaskRequest::Renew(issued.task.task().id)).await.unwrap();
    let caller = rig.world.present_here(&renewed).unwrap();
    rig.world.authority.run_credentials().await;
    assert_eq!(rig.read_orders(&caller).await.unwrap().expires_at, issued.task.task().deadline);
}

#[tokio::test]
async fn a_secret_of_the_caller_is_decided_about_as_such_and_none_is_handed_out() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let mut request = ask("orders-db/read_orders", json!({ "region": "eu" }));
    request.verifier = Some(Verifier::Sha256("ab".repeat(32)));
    rig.orders.stubborn(true);
    let refused = rig.world.authority.request_credential(&caller, request.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("otherwise than was asked for"), "{refused:?}");
    rig.orders.stubborn(false);
    let issued = rig.world.authority.request_credential(&caller, request).await.unwrap();
    assert_eq!(issued.secret, SecretOrigin::Caller);
    assert!(issued.secrets.is_empty());
    assert_eq!(rig.decisions().pop().unwrap()["secret"], "caller");
}

#[tokio::test]
async fn a_task_that_ends_between_decision_and_issue_gets_nothing_and_nothing_is_made() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let before = rig.orders.issued();
    let (authority, asking) = (rig.world.authority.clone(), caller.clone());
    let request = ask("orders-db/read_orders", json!({ "region": "eu" }));
    let hold = rig.world.ledger.hold_next_commit();
    let asking = tokio::spawn(async move { authority.request_credential(&asking, request).await });
    hold.written().await;
    rig.end(&caller).await;
    hold.go();
    let refused = asking.await.unwrap().unwrap_err();
    assert!(matches!(refused, CredentialError::TaskEnded(_)), "{refused:?}");
    assert_eq!(rig.orders.issued(), before);
    rig.world.authority.run_credentials().await;
    assert!(rig.all_dead().await);
}

#[tokio::test]
async fn a_task_that_ends_while_a_slow_target_issues_does_not_get_the_credential() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let asking = held_up(&rig, &caller).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    rig.end(&caller).await;
    // Nothing is taken back while the target may still be making it: it would be found missing and stand afterwards.
    rig.live_on(5).await;
    assert_eq!(rig.only_grant().await.grant.state, GrantState::Intended);
    assert!(rig.only_grant().await.grant.revoked_at.is_some());
    rig.orders.go_on();
    assert!(matches!(asking.await.unwrap().unwrap_err(), CredentialError::TaskEnded(_)));
    assert_eq!(rig.orders.standing().len(), 1, "it was made");
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty() && rig.all_dead().await);
}

#[tokio::test]
async fn a_credential_whose_policy_is_replaced_while_it_is_made_is_not_handed_out() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let asking = held_up(&rig, &caller).await;
    // The same rules in another version: what is decided anew is decided under what stands.
    let files = testkit::credential_files().into_iter();
    let files = files.map(|(path, text)| authority::SourceFile { path: path.to_string(), text: format!("{text}\n") });
    let compiled = authority::Policy::compile(&authority::Sources { files: files.collect() }).unwrap();
    rig.world.authority.reload_policy(compiled.policy, &Actor::Operator("ann".into())).await.unwrap();
    rig.orders.go_on();
    let refused = asking.await.unwrap().unwrap_err();
    assert!(matches!(&refused, CredentialError::Interrupted(why) if why.contains("policy")), "{refused:?}");
    assert_eq!(rig.orders.standing().len(), 1, "it was made");
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty() && rig.all_dead().await);
    rig.read_orders(&caller).await.unwrap();
}

#[tokio::test]
async fn a_credential_that_is_revoked_while_it_is_made_is_not_handed_out() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let asking = held_up(&rig, &caller).await;
    let grant = rig.only_grant().await.grant.id;
    rig.world.authority.revoke_credential(grant, &Actor::Operator("ann".into())).await.unwrap();
    rig.orders.go_on();
    assert!(matches!(asking.await.unwrap().unwrap_err(), CredentialError::Revoked));
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty() && rig.all_dead().await);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_credential_behind() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    rig.orders.hold_up();
    let request = ask("orders-db/read_orders", json!({ "region": "eu" }));
    {
        let asking = rig.world.authority.request_credential(&caller, request);
        tokio::pin!(asking);
        tokio::select! {
            biased;
            _ = &mut asking => panic!("it is held up"),
            () = until(|| !rig.decisions().is_empty()) => {}
        }
    }
    rig.orders.go_on();
    until(|| {
        !rig.events("credential.revoked").iter().all(|event| event["reason"] == "probe" || event["detail"]["reason"] == "probe")
    })
    .await;
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty() && rig.all_dead().await);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_target_does_wrong_while_issuing_nothing_stands_in_the_end() {
    for how in [Fails::Before, Fails::After, Fails::Refuses, Fails::Hangs] {
        let rig = Rig::new().await;
        let (_, caller) = rig.task().await;
        rig.orders.break_at(At::Issue, Some(how));
        let refused = rig.read_orders(&caller).await.unwrap_err();
        assert!(matches!(refused, CredentialError::Target(_)), "{how:?}: {refused:?}");
        rig.orders.break_at(At::Issue, None);
        rig.live_on(125).await;
        assert!(rig.orders.standing().is_empty() && rig.all_dead().await, "{how:?}");
    }
}

#[tokio::test]
async fn a_credential_that_could_not_be_recorded_is_not_handed_out() {
    for fault in [Fault::Failed, Fault::FailedButKept] {
        let rig = Rig::new().await;
        let (_, caller) = rig.task().await;
        rig.orders.hold_up();
        let (authority, asking) = (rig.world.authority.clone(), caller.clone());
        let request = ask("orders-db/read_orders", json!({ "region": "eu" }));
        let asking = tokio::spawn(async move { authority.request_credential(&asking, request).await });
        until(|| !rig.decisions().is_empty()).await;
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        rig.world.ledger.break_with(Some(fault));
        rig.orders.go_on();
        assert!(matches!(asking.await.unwrap().unwrap_err(), CredentialError::Interrupted(_)));
        rig.world.ledger.break_with(None);
        assert_eq!(rig.orders.standing().len(), 1);
        rig.world.clock.advance_secs(601);
        rig.world.authority.run_credentials().await;
        assert!(rig.orders.standing().is_empty() && rig.all_dead().await, "{fault:?}");
    }
}

#[tokio::test]
async fn no_secret_is_in_the_log_the_store_or_an_error() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let issued = rig.read_orders(&caller).await.unwrap();
    let shown = format!("{issued:?}");
    assert!(!shown.contains("secret-"), "{shown}");
    let stored = format!("{:?}", rig.grants().await);
    let sealed = {
        use authority::ports::GrantArchive;
        rig.world.ledger.grant(issued.grant).await.unwrap().unwrap().sealed.unwrap()
    };
    assert!(!sealed.windows(7).any(|part| part == b"secret-") && !stored.contains("secret-"));
    rig.end(&caller).await;
    rig.world.authority.run_credentials().await;
    assert!(rig.all_dead().await);
    let log = format!("{:?}", rig.world.ledger.events());
    assert!(!log.contains("secret-"), "{log}");
    // What takes it back came to the target, and is forgotten once it is dead.
    assert!(rig.orders.revoked_with().contains(&format!("secret-revoker-of-{}", issued.handle)));
    use authority::ports::GrantArchive;
    assert!(rig.world.ledger.grant(issued.grant).await.unwrap().unwrap().sealed.is_none());
}

#[tokio::test]
async fn what_is_still_being_made_is_not_due_however_far_the_clock_jumps() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let asking = held_up(&rig, &caller).await;
    rig.world.clock.advance_secs(121);
    rig.world.authority.run_credentials().await;
    rig.orders.go_on();
    let issued = asking.await.unwrap().unwrap();
    assert_eq!(rig.only_grant().await.grant.state, GrantState::Issued);
    rig.end(&caller).await;
    rig.world.authority.run_credentials().await;
    assert!(!rig.orders.log_in(&issued.handle) && rig.all_dead().await);
}
