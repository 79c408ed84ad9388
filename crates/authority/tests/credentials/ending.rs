//! Taking back: with the task, at the deadline, by holder and operator, from targets that are away, deaf or gone.

use crate::rig::{Rig, ask, until};
use authority::{Actor, Error};
use domain::{GrantState, RevokeReason};
use serde_json::json;
use testkit::{At, Fails};

#[tokio::test]
async fn the_end_of_a_task_revokes_its_credentials_in_the_same_transaction() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let (_, friend) = rig.task_of("friend").await;
    let issued = rig.read_orders(&caller).await.unwrap();
    let kept = rig.read_orders(&friend).await.unwrap();
    assert!(rig.orders.log_in(&issued.handle));
    rig.end(&caller).await;
    let record = rig.world.authority.credential(issued.grant).await.unwrap();
    assert_eq!(record.grant.revoked_at, Some(rig.world.authority.now()));
    assert_eq!(record.reason.as_deref(), Some("task_ended"));
    assert_eq!(record.grant.state, GrantState::Issued, "logical and physical revocation are apart");
    let counts = rig.world.authority.target_status(&"orders-db".parse().unwrap()).await.unwrap().counts;
    assert_eq!((counts.held, counts.ending), (1, 1));
    rig.world.authority.run_credentials().await;
    assert_eq!(rig.orders.standing(), [kept.handle]);
    assert_eq!(rig.orders.sessions(), 0);
    let steps: Vec<_> =
        rig.events("credential.step").into_iter().filter(|step| step["detail"]["grant"] == issued.grant.to_string()).collect();
    let states: Vec<_> = steps.iter().map(|step| step["detail"]["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["auth_closed", "sessions_ended", "residue_cleaned", "verified_dead"]);
    assert_eq!(steps[1]["detail"]["evidence"]["sessions"], "1");
}

#[tokio::test]
async fn what_is_remembered_elsewhere_is_not_called_dead_before_that_is_over() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    rig.read_orders(&caller).await.unwrap();
    rig.orders.proof_at(rig.world.authority.now().plus_secs(12));
    rig.end(&caller).await;
    for _ in 0..2 {
        rig.world.authority.run_credentials().await;
        assert!(rig.orders.standing().is_empty());
        assert_eq!(rig.only_grant().await.grant.state, GrantState::ResidueCleaned);
    }
    let rig = rig.restarted().await;
    rig.world.authority.run_credentials().await;
    assert_eq!(rig.only_grant().await.grant.state, GrantState::ResidueCleaned);
    rig.world.clock.advance_secs(13);
    rig.world.authority.run_credentials().await;
    assert_eq!(rig.only_grant().await.grant.state, GrantState::VerifiedDead);
}

#[tokio::test]
async fn a_replaced_task_loses_its_credentials_too() {
    let rig = Rig::new().await;
    let (issued, caller) = rig.task().await;
    let credential = rig.read_orders(&caller).await.unwrap();
    let authority::TaskRequest::Open { intent, parameters, .. } = testkit::task_request("fix-orders", json!({ "region": "us" }))
    else {
        panic!("a task is opened");
    };
    let replaces = Some(issued.task.task().id);
    let request = authority::TaskRequest::Open { intent, parameters, lifetime_secs: None, replaces };
    let _ = rig.world.issue("bot", request).await.unwrap();
    assert!(rig.world.authority.credential(credential.grant).await.unwrap().grant.revoked_at.is_some());
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty());
}

#[tokio::test]
async fn a_credential_expires_without_anybody_remembering_it() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let issued = rig.read_orders(&caller).await.unwrap();
    let rig = rig.restarted().await;
    rig.world.clock.advance_secs(599);
    rig.world.authority.run_credentials().await;
    assert_eq!(rig.orders.standing(), [issued.handle]);
    rig.world.clock.advance_secs(2);
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty());
    assert_eq!(rig.only_grant().await.reason.as_deref(), Some(RevokeReason::Expired.as_str()));
}

#[tokio::test(start_paused = true)]
async fn while_somebody_asks_the_expired_go_a_few_at_a_time_and_the_revoked_at_once() {
    const EXPIRED: usize = 40;
    const EACH: usize = 8;
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    for _ in 0..EXPIRED {
        rig.read_orders(&caller).await.unwrap();
    }
    rig.world.clock.advance_secs(601);
    let (_, friend) = rig.task_of("friend").await;
    for _ in 0..10 {
        let grant = rig.read_orders(&friend).await.unwrap().grant;
        rig.world.authority.revoke_credential(grant, &Actor::Operator("test".into())).await.unwrap();
    }
    let counts = rig.world.authority.target_status(&"orders-db".parse().unwrap()).await.unwrap().counts;
    assert_eq!((counts.held, counts.ending), (0, 50), "an expired credential counts as ended, whoever was told");
    assert_eq!(rig.orders.standing().len(), 50);

    rig.orders.hold_up();
    let mut asking = std::pin::pin!(rig.read_orders(&friend));
    let mut cleaning = std::pin::pin!(rig.world.authority.run_credentials());
    tokio::select! {
        biased;
        issued = &mut asking => panic!("it was held up: {issued:?}"),
        () = &mut cleaning => panic!("it did not rest"),
        () = until(|| rig.orders.standing().len() <= EXPIRED - EACH) => {}
    }
    // Time stands still while anything else can run: this is its first rest.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
        assert_eq!(rig.orders.standing().len(), EXPIRED - EACH);
    }
    rig.orders.go_on();
    let issued = asking.await.unwrap();
    cleaning.await;
    assert_eq!(rig.orders.standing(), [issued.handle]);
}

#[tokio::test]
async fn a_holder_gives_back_its_own_and_nothing_else() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let (_, friend) = rig.task_of("friend").await;
    let issued = rig.read_orders(&caller).await.unwrap();
    let refused = rig.world.authority.return_credential(&friend, issued.grant).await.unwrap_err();
    assert!(matches!(refused, Error::NotFound { .. }), "{refused:?}");
    rig.world.authority.run_credentials().await;
    assert_eq!(rig.orders.standing().len(), 1);
    rig.world.authority.return_credential(&caller, issued.grant).await.unwrap();
    rig.world.authority.return_credential(&caller, issued.grant).await.unwrap();
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty());
    assert_eq!(rig.only_grant().await.reason.as_deref(), Some("returned"));
}

#[tokio::test]
async fn a_target_that_is_down_for_ten_minutes_is_clean_within_a_minute_of_its_return() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    for _ in 0..50 {
        let _ = rig.read_orders(&caller).await.unwrap();
    }
    rig.orders.away(true);
    rig.end(&caller).await;
    let before = rig.orders.calls();
    rig.live_on(600).await;
    assert_eq!(rig.orders.standing().len(), 50);
    let status = rig.world.authority.target_status(&"orders-db".parse().unwrap()).await.unwrap();
    assert!(status.breaker_open_for.is_some() && status.counts.ending == 50 && status.counts.oldest_due.is_some());
    assert!(rig.orders.calls() - before < 200, "{} attempts at a target that is away", rig.orders.calls() - before);
    rig.orders.away(false);
    let mut waited = 0;
    while !rig.orders.standing().is_empty() {
        rig.live_on(1).await;
        waited += 1;
        assert!(waited <= 60, "{} still stand", rig.orders.standing().len());
    }
    rig.live_on(60).await;
    assert!(rig.all_dead().await);
    assert!(rig.world.authority.target_status(&"orders-db".parse().unwrap()).await.unwrap().breaker_open_for.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_target_that_hangs_delays_no_other_and_keeps_nobody_from_issuing() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let (_, friend) = rig.task_of("friend").await;
    for _ in 0..20 {
        let _ = rig.read_orders(&caller).await.unwrap();
        let _ = rig.read_other(&caller).await.unwrap();
    }
    for step in 0..4 {
        rig.orders.break_at(At::End(step), Some(Fails::Hangs));
    }
    rig.end(&caller).await;
    let authority = rig.world.authority.clone();
    let started = tokio::time::Instant::now();
    let round = tokio::spawn(async move { authority.run_credentials().await });
    crate::rig::until(|| rig.other.standing().is_empty()).await;
    assert_eq!(started.elapsed().as_millis(), 0, "the other target did not wait");
    // Issuing at the very target that hangs in its taking back has a budget of its own, also in a later round.
    let issued = rig.read_orders(&friend).await.unwrap();
    rig.world.authority.run_credentials().await;
    assert_eq!(started.elapsed().as_millis(), 0);
    assert_eq!(rig.orders.standing().len(), 21);
    round.await.unwrap();
    for step in 0..4 {
        rig.orders.break_at(At::End(step), None);
    }
    rig.live_on(60).await;
    assert_eq!(rig.orders.standing(), [issued.handle]);
}

#[tokio::test]
async fn what_is_gone_already_counts_as_taken_back() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let issued = rig.read_orders(&caller).await.unwrap();
    rig.orders.forget(&issued.handle);
    rig.end(&caller).await;
    rig.world.authority.run_credentials().await;
    assert!(rig.all_dead().await);
    let step = rig.events("credential.step").pop().unwrap();
    assert_eq!(step["detail"]["evidence"]["not_found"], "true");
}

#[tokio::test]
async fn refused_and_lost_steps_are_tried_until_they_are_done() {
    for at in 0..4 {
        for how in [Fails::Before, Fails::After, Fails::Refuses] {
            let rig = Rig::new().await;
            let (_, caller) = rig.task().await;
            let issued = rig.read_orders(&caller).await.unwrap();
            assert!(rig.orders.log_in(&issued.handle));
            rig.orders.break_at(At::End(at), Some(how));
            rig.end(&caller).await;
            rig.live_on(40).await;
            assert!(!rig.all_dead().await, "{at} {how:?}");
            assert!(at == 0 || !rig.orders.log_in(&issued.handle), "authentication is closed first");
            rig.orders.break_at(At::End(at), None);
            rig.live_on(60).await;
            assert!(rig.orders.standing().is_empty() && rig.all_dead().await, "{at} {how:?}");
        }
    }
}

#[tokio::test]
async fn a_backlog_of_expired_credentials_does_not_hold_up_what_was_revoked() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let (_, friend) = rig.task_of("friend").await;
    for _ in 0..500 {
        let _ = rig.read_orders(&caller).await.unwrap();
    }
    rig.world.clock.advance_secs(590);
    let urgent =
        rig.world.present_here(&rig.world.issue("friend", authority::TaskRequest::Renew(friend.task())).await.unwrap()).unwrap();
    let issued = rig.read_orders(&urgent).await.unwrap();
    rig.world.clock.advance_secs(20);
    rig.end(&urgent).await;
    // The target answers a few steps only, then it refuses: those few belong to what was revoked.
    let authority = rig.world.authority.clone();
    let round = tokio::spawn(async move { authority.run_credentials().await });
    crate::rig::until(|| !rig.orders.standing().contains(&issued.handle)).await;
    assert!(rig.orders.standing().len() > 400, "{} are left", rig.orders.standing().len());
    // And whoever asks meanwhile is served at once.
    let (_, another) = rig.task().await;
    let fresh = rig.read_orders(&another).await.unwrap();
    assert!(rig.orders.standing().len() > 300, "{} are left", rig.orders.standing().len());
    round.await.unwrap();
    assert_eq!(rig.orders.standing(), [fresh.handle]);
}

#[tokio::test]
async fn a_target_that_did_not_change_goes_on_when_another_one_did() {
    let rig = Rig::new().await;
    let by = Actor::Operator("ann".into());
    let health = async |name: &str| {
        let status = rig.world.authority.target_status(&name.parse().unwrap()).await.unwrap();
        status.health.as_str()
    };
    let changed = authority::ConfiguredTarget { revision: "new".to_owned(), ..testkit::configured("other-db", &rig.other) };
    rig.world.authority.set_targets(vec![testkit::configured("orders-db", &rig.orders), changed], &by).await.unwrap();
    assert_eq!([health("orders-db").await, health("other-db").await], ["healthy", "unprobed"]);
    let (_, caller) = rig.task().await;
    let _ = rig.read_orders(&caller).await.unwrap();
}

#[tokio::test]
async fn writ_does_not_start_without_a_target_where_credentials_can_still_be_used() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let _ = rig.read_orders(&caller).await.unwrap();
    let start = || {
        let targets = vec![testkit::configured("other-db", &rig.other)];
        let (clock, ledger) = (rig.world.clock.clone(), rig.world.ledger.clone());
        tokio::spawn(async move {
            testkit::World::over(&testkit::credential_files(), Vec::new(), Vec::new(), targets, (clock, ledger)).await
        })
    };
    let refused = start().await.err().unwrap().into_panic();
    let refused = refused.downcast_ref::<String>().unwrap();
    assert!(refused.contains("TargetLeftOut") && refused.contains("count: 1"), "{refused}");
    // Revoked is not enough: its target was not told.
    rig.end(&caller).await;
    assert!(start().await.is_err());
    rig.world.clock.advance_secs(601);
    assert!(start().await.is_ok(), "what is left of them has died by itself");
}

#[tokio::test]
async fn a_dead_grant_is_forgotten_after_its_time_and_the_log_keeps_what_it_was() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let dead = rig.read_orders(&caller).await.unwrap().grant;
    rig.orders.away(true);
    let (_, friend) = rig.task_of("friend").await;
    let standing = rig.world.authority.request_credential(&friend, ask("other-db/read", json!({}))).await.unwrap().grant;
    rig.orders.away(false);
    rig.world.authority.return_credential(&caller, dead).await.unwrap();
    rig.world.authority.run_credentials().await;
    rig.other.away(true);
    let known = async |grant| rig.world.authority.credential(grant).await.is_ok();
    rig.world.clock.advance_secs(testkit::GRANTS_KEPT_SECS + 599);
    rig.world.authority.run_credentials().await;
    assert!(known(dead).await, "not before its retention has passed");
    rig.world.clock.advance_secs(11);
    rig.world.authority.run_credentials().await;
    assert!(!known(dead).await, "it is forgotten");
    assert!(known(standing).await, "what is not proved dead is never forgotten");
    let about = |kind: &str| rig.events(kind).iter().filter(|event| event["detail"]["grant"] == dead.to_string()).count();
    assert_eq!([about("credential.issued"), about("credential.revoked"), about("credential.step")], [1, 1, 4]);
}

#[tokio::test]
async fn the_time_from_the_end_of_a_credential_to_its_proven_death_is_measured() {
    let rig = Rig::new().await;
    let _ = rig.world.authority.take_ending_latencies();
    let (_, caller) = rig.task().await;
    let _ = rig.read_orders(&caller).await.unwrap();
    rig.orders.away(true);
    rig.end(&caller).await;
    rig.live_on(3).await;
    rig.orders.away(false);
    rig.live_on(60).await;
    let latencies = rig.world.authority.take_ending_latencies();
    let (kinds, all): (Vec<_>, Vec<_>) = latencies.into_iter().unzip();
    let all: Vec<_> = all.into_iter().flatten().map(|latency| latency.as_secs()).collect();
    assert_eq!((kinds.as_slice(), all.len()), (["postgresql"; 2].as_slice(), 1));
    assert!((3..60).contains(&all[0]), "{all:?}");
    assert!(rig.world.authority.take_ending_latencies().iter().all(|(_, latencies)| latencies.is_empty()));
}

#[tokio::test]
async fn a_target_with_live_credentials_cannot_be_removed() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let _ = rig.read_orders(&caller).await.unwrap();
    let only_other = || vec![testkit::configured("other-db", &rig.other)];
    let by = Actor::Operator("ann".into());
    let refused = rig.world.authority.set_targets(only_other(), &by).await.unwrap_err();
    assert!(matches!(refused, Error::TargetInUse { count: 1, .. }), "{refused:?}");
    rig.end(&caller).await;
    rig.world.authority.run_credentials().await;
    rig.world.authority.set_targets(only_other(), &by).await.unwrap();
    let (_, caller) = rig.task().await;
    let refused = rig.world.authority.request_credential(&caller, ask("orders-db/read_orders", json!({ "region": "eu" }))).await;
    assert!(matches!(refused.unwrap_err(), authority::CredentialError::Unavailable { .. }));
}
