//! The record of a credential is not waited for: what a crash or a failing store may make of that, and that nothing which
//! leaves is ahead of the anchor.

use crate::rig::Rig;
use authority::CredentialError;
use domain::GrantState;
use std::time::Duration;
use testkit::task_request;

/// A credential that is handed out and whose record is lost.
async fn unrecorded(rig: &Rig, caller: &authority::Caller) -> authority::IssuedCredential {
    rig.orders.by_name(true);
    rig.world.ledger.lose_next_followed();
    let issued = rig.read_orders(caller).await.unwrap();
    assert!(rig.events("credential.issued").is_empty());
    issued
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_was_handed_out_is_issued_before_its_record_is_durable_and_a_lost_record_is_made_again() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let issued = unrecorded(&rig, &caller).await;
    assert_eq!(rig.only_grant().await.grant.state, GrantState::Issued);
    assert_eq!(rig.world.authority.credential(issued.grant).await.unwrap().grant.state, GrantState::Issued);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(rig.events("credential.issued").len(), 1);
    rig.live_on(200).await;
    assert_eq!(rig.orders.standing(), [issued.handle], "it is not taken for one that nobody confirmed");
}

#[tokio::test(start_paused = true)]
async fn whatever_ends_a_credential_whose_record_was_lost_reaches_it_at_once() {
    for returned in [true, false] {
        let rig = Rig::new().await;
        let (_, caller) = rig.task().await;
        let issued = unrecorded(&rig, &caller).await;
        match returned {
            true => rig.world.authority.return_credential(&caller, issued.grant).await.unwrap(),
            false => rig.end(&caller).await,
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        rig.live_on(1).await;
        assert!(rig.orders.standing().is_empty() && rig.all_dead().await, "returned: {returned}");
    }
}

#[tokio::test]
async fn a_credential_whose_record_a_crash_took_ends_at_the_start_and_is_looked_for_again() {
    for away in [false, true] {
        let rig = Rig::new().await;
        let (_, caller) = rig.task().await;
        let issued = unrecorded(&rig, &caller).await;
        assert!(rig.orders.log_in(&issued.handle));
        rig.world.clock.advance_secs(1);
        let rig = rig.restarted().await;
        rig.orders.away(away);
        rig.live_on(if away { 30 } else { 1 }).await;
        assert_eq!(rig.orders.standing().is_empty(), !away);
        rig.orders.away(false);
        rig.live_on(if away { 60 } else { 0 }).await;
        assert!(rig.orders.standing().is_empty() && rig.orders.sessions() == 0, "away: {away}");
        let told = |kind: &str, what: &str| {
            let of = |event: &&serde_json::Value| event["detail"]["grant"] == issued.grant.to_string();
            rig.events(kind).iter().filter(of).filter(|event| event.to_string().contains(what)).count()
        };
        assert_eq!((told("credential.revoked", "not_handed_out"), told("credential.step", "end_sessions")), (1, 1));
        // The target may have been making it when the process died: what comes up late is ended, and only then it is dead.
        assert_eq!(told("credential.step", "verified_dead"), 0);
        rig.orders.put_stray(issued.grant, &issued.handle);
        rig.live_on(125).await;
        assert!(rig.orders.standing().is_empty() && rig.all_dead().await, "away: {away}");
        assert_eq!(told("credential.step", "verified_dead"), 1);
    }
}

#[tokio::test]
async fn what_a_running_process_makes_is_not_taken_for_left_over() {
    let rig = Rig::new().await;
    rig.world.clock.advance_secs(1);
    let rig = rig.restarted().await;
    rig.live_on(1).await;
    let (_, caller) = rig.task().await;
    let issued = unrecorded(&rig, &caller).await;
    rig.live_on(3).await;
    assert_eq!(rig.orders.standing(), [issued.handle]);
}

#[tokio::test]
async fn nothing_that_was_made_leaves_before_its_decision_is_anchored() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    rig.world.ledger.break_anchor(true);
    assert!(matches!(rig.read_orders(&caller).await.unwrap_err(), CredentialError::Interrupted(_)));
    let region = serde_json::json!({ "region": "eu" });
    assert!(rig.world.issue("bot", task_request("fix-orders", region)).await.is_err(), "nor a token");
    rig.world.ledger.break_anchor(false);
    rig.live_on(1).await;
    assert!(rig.orders.standing().is_empty() && rig.all_dead().await);
    rig.read_orders(&caller).await.unwrap();
}
