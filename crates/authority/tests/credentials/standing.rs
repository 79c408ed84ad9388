//! What stands at a target against what stands here: probes, orphans, what vanished, and what is not ours.

use crate::rig::{Rig, ask};
use authority::{CredentialError, Health};
use domain::GrantId;
use serde_json::json;
use testkit::{At, Fails};

/// The id of a grant that was made at this second.
fn id_of(secs: i64) -> GrantId {
    let mut bytes = [7; 16];
    bytes[..6].copy_from_slice(&(secs as u64 * 1_000).to_be_bytes()[2..]);
    GrantId::from_bytes(bytes)
}

fn handle_of(grant: GrantId) -> String {
    grant.to_string().replace("grt_", "jit_")
}

#[tokio::test]
async fn a_target_issues_nothing_before_its_probe_and_nothing_after_a_failed_one() {
    let rig = Rig::unprobed(Default::default(), Default::default(), Default::default()).await;
    let (issued, caller) = rig.task().await;
    let refused = rig.read_orders(&caller).await.unwrap_err();
    assert!(matches!(refused, CredentialError::Unavailable { .. }) && refused.to_string().contains("not probed"), "{refused:?}");
    assert_eq!(rig.decisions().pop().unwrap()["outcome"], "failed");
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty(), "the probe leaves nothing");
    let _ = rig.read_orders(&caller).await.unwrap();

    // A target that takes nothing back, though it says so, is found out an hour later at the latest.
    rig.orders.deaf(true);
    rig.world.clock.advance_secs(3_601);
    rig.world.authority.run_credentials().await;
    let health = rig.world.authority.target_status(&"orders-db".parse().unwrap()).await.unwrap().health;
    assert!(matches!(&health, Health::Broken { why, .. } if why.contains("still accepted")), "{health:?}");
    let renewed = rig.world.issue("bot", authority::TaskRequest::Renew(issued.task.task().id)).await.unwrap();
    let caller = rig.world.present_here(&renewed).unwrap();
    let made = rig.orders.issued();
    let refused = rig.read_orders(&caller).await.unwrap_err();
    assert!(matches!(refused, CredentialError::Unavailable { .. }) && refused.to_string().contains("probe"), "{refused:?}");
    assert_eq!(rig.orders.issued(), made);
    let _ = rig.read_other(&caller).await.unwrap();

    rig.orders.deaf(false);
    rig.live_on(31).await;
    let _ = rig.read_orders(&caller).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_probe_fails_whatever_step_of_it_fails() {
    for at in At::ALL {
        for how in [Fails::Before, Fails::After, Fails::Refuses, Fails::Hangs] {
            let rig = Rig::unprobed(Default::default(), Default::default(), Default::default()).await;
            rig.orders.break_at(at, Some(how));
            let health = rig.world.authority.probe_target(&"orders-db".parse().unwrap()).await.unwrap();
            assert_eq!(health.as_str(), "broken", "{at:?} {how:?}");
            rig.orders.break_at(at, None);
            rig.live_on(185).await;
            assert!(rig.orders.standing().is_empty(), "{at:?} {how:?}");
            let health = rig.world.authority.target_status(&"orders-db".parse().unwrap()).await.unwrap().health;
            assert_eq!(health.as_str(), "healthy", "{at:?} {how:?}");
        }
    }
}

#[tokio::test]
async fn an_orphan_is_taken_back_after_a_grace_and_nothing_else_is_touched() {
    let rig = Rig::new().await;
    let now = rig.world.now();
    let (old, young) = (id_of(now - 10_000), id_of(now));
    rig.orders.put_stray(old, &handle_of(old));
    rig.orders.put_stray(young, &handle_of(young));
    rig.orders.put_stray(id_of(now - 20_000), "jit_of_somebody_else");
    rig.orders.put_foreign("postgres");
    let (_, caller) = rig.task().await;
    let live = rig.read_orders(&caller).await.unwrap();
    rig.live_on(601).await;
    let mut left = vec!["jit_of_somebody_else".to_owned()];
    assert_eq!(rig.orders.standing(), left, "the young one is old by now, the live one expired");
    assert_eq!(rig.orders.foreign(), ["postgres"]);
    let orphans: Vec<_> = rig.events("credential.orphan").iter().map(|event| event["detail"]["handle"].clone()).collect();
    assert!(orphans.contains(&json!(handle_of(old))) && !orphans.contains(&json!(live.handle)), "{orphans:?}");

    let fresh = id_of(rig.world.now());
    rig.orders.put_stray(fresh, &handle_of(fresh));
    let rig = rig.restarted().await;
    rig.world.authority.run_credentials().await;
    left.push(handle_of(fresh));
    left.sort();
    assert_eq!(rig.orders.standing(), left, "something that young may be under way");
}

#[tokio::test]
async fn what_an_administrator_brought_back_is_taken_back_again() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let issued = rig.read_orders(&caller).await.unwrap();
    rig.end(&caller).await;
    rig.world.authority.run_credentials().await;
    assert!(rig.all_dead().await);
    rig.orders.put_stray(issued.grant, &issued.handle);
    rig.live_on(601).await;
    assert!(rig.orders.standing().is_empty());
}

#[tokio::test]
async fn a_credential_that_vanished_is_closed_unless_the_target_cannot_list() {
    for secretive in [false, true] {
        let rig = Rig::unprobed(Default::default(), Default::default(), Default::default()).await;
        rig.orders.secretive(secretive);
        rig.world.authority.run_credentials().await;
        let (_, caller) = rig.task().await;
        let mut wish = ask("orders-db/read_orders", json!({ "region": "eu" }));
        wish.lifetime_secs = Some(600);
        rig.live_on(290).await;
        let gone = rig.world.authority.request_credential(&caller, wish.clone()).await.unwrap();
        let kept = rig.world.authority.request_credential(&caller, wish).await.unwrap();
        rig.orders.forget(&gone.handle);
        rig.live_on(315).await;
        let reason = rig.world.authority.credential(gone.grant).await.unwrap().reason;
        assert_eq!(reason.as_deref(), (!secretive).then_some("vanished"), "secretive: {secretive}");
        assert_eq!(rig.orders.standing(), [kept.handle], "secretive: {secretive}");
    }
}

#[tokio::test]
async fn no_more_credentials_live_at_once_than_the_target_allows() {
    let rig = Rig::new().await;
    let profile = authority::target::TargetProfile { live_max: 2, ..testkit::profile("orders-db") };
    let target = authority::ConfiguredTarget { profile, driver: rig.orders.clone(), revision: "smaller".to_owned() };
    let by = authority::Actor::Operator("ann".into());
    rig.world.authority.set_targets(vec![target], &by).await.unwrap();
    rig.world.authority.run_credentials().await;
    let (_, caller) = rig.task().await;
    let first = rig.read_orders(&caller).await.unwrap();
    let _ = rig.read_orders(&caller).await.unwrap();
    let refused = rig.read_orders(&caller).await.unwrap_err();
    assert!(matches!(refused, CredentialError::Unavailable { .. }) && refused.to_string().contains("as many"), "{refused:?}");
    rig.world.authority.return_credential(&caller, first.grant).await.unwrap();
    rig.world.authority.run_credentials().await;
    let _ = rig.read_orders(&caller).await.unwrap();
}

#[tokio::test]
async fn an_orphan_whose_end_was_not_logged_is_asked_about_again() {
    let rig = Rig::new().await;
    let old = id_of(rig.world.now() - 10_000);
    rig.orders.put_stray(old, &handle_of(old));
    // It is removed, and what was to be said about it is not.
    rig.orders.break_at(At::End(3), Some(Fails::Before));
    rig.live_on(601).await;
    assert!(rig.orders.standing().is_empty() && rig.events("credential.orphan_ended").is_empty());
    rig.orders.break_at(At::End(3), None);
    let rig = rig.restarted().await;
    for _ in 0..2 {
        rig.live_on(601).await;
        let told = |kind| rig.events(kind).iter().filter(|event| event["detail"]["handle"] == handle_of(old)).count();
        assert_eq!((told("credential.orphan"), told("credential.orphan_ended")), (1, 1));
    }
}

#[tokio::test]
async fn an_orphan_that_stays_keeps_no_other_from_being_taken_back() {
    let rig = Rig::new().await;
    let now = rig.world.now();
    let [first, second, third] = [30_000, 20_000, 10_000].map(|ago| id_of(now - ago));
    for orphan in [first, second, third] {
        rig.orders.put_stray(orphan, &handle_of(orphan));
    }
    rig.orders.glue(&handle_of(first));
    rig.live_on(661).await;
    assert_eq!(rig.orders.standing(), [handle_of(first)]);
    let told = |kind| rig.events(kind).iter().filter(|event| event["detail"]["handle"] == handle_of(first)).count();
    assert_eq!((told("credential.orphan"), told("credential.orphan_ended")), (1, 0), "found once, however often it is tried");
    rig.orders.unglue();
    rig.live_on(31).await;
    assert!(rig.orders.standing().is_empty());
    assert_eq!((told("credential.orphan"), told("credential.orphan_ended")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_probe_may_be_making_still_is_not_called_dead() {
    for how in [Fails::Before, Fails::Hangs] {
        let rig = Rig::unprobed(Default::default(), Default::default(), Default::default()).await;
        rig.orders.break_at(At::Issue, Some(how));
        let name: domain::TargetName = "orders-db".parse().unwrap();
        assert_eq!(rig.world.authority.probe_target(&name).await.unwrap().as_str(), "broken", "{how:?}");
        rig.orders.break_at(At::Issue, None);
        let query = authority::ports::GrantQuery { limit: 10, ..Default::default() };
        let probed = rig.world.authority.credentials(query).await.unwrap().remove(0).grant;
        rig.live_on(20).await;
        let state = rig.world.authority.credential(probed.id).await.unwrap().grant.state;
        assert_ne!(state, domain::GrantState::VerifiedDead, "{how:?}");
        // What was on its way arrives.
        rig.orders.put_stray(probed.id, &probed.handle);
        rig.live_on(105).await;
        let state = rig.world.authority.credential(probed.id).await.unwrap().grant.state;
        assert_eq!((state, rig.orders.standing().len()), (domain::GrantState::VerifiedDead, 0), "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_goes_on_to_its_end_when_whoever_asked_for_it_goes_away() {
    let rig = Rig::new().await;
    let name: domain::TargetName = "orders-db".parse().unwrap();
    rig.orders.break_at(At::Use, Some(Fails::Hangs));
    let patience = std::time::Duration::from_secs(1);
    assert!(tokio::time::timeout(patience, rig.world.authority.probe_target(&name)).await.is_err());
    assert_eq!(rig.orders.standing().len(), 1);
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty(), "what it made is taken back");
    assert_eq!(rig.world.authority.target_status(&name).await.unwrap().health.as_str(), "broken");
}

#[tokio::test]
async fn a_target_with_live_credentials_cannot_become_one_of_another_kind() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let _ = rig.read_orders(&caller).await.unwrap();
    let profile = authority::target::TargetProfile { kind: "redis", ..testkit::profile("orders-db") };
    let changed = || authority::ConfiguredTarget {
        profile: profile.clone(),
        driver: std::sync::Arc::new(testkit::FakeTarget::default()),
        revision: "redis".to_owned(),
    };
    let targets = || vec![changed(), testkit::configured("other-db", &rig.other)];
    let refused = rig.world.authority.set_targets(targets(), &authority::Actor::System).await;
    assert!(matches!(refused, Err(authority::Error::TargetInUse { count: 1, .. })), "{refused:?}");
    rig.end(&caller).await;
    rig.world.authority.run_credentials().await;
    assert!(rig.orders.standing().is_empty());
    rig.world.authority.set_targets(targets(), &authority::Actor::System).await.unwrap();
}

#[tokio::test]
async fn a_credential_that_is_asked_for_while_its_target_is_removed_never_outlives_it() {
    let rig = Rig::new().await;
    let (_, caller) = rig.task().await;
    let removing = || {
        let (authority, targets) = (rig.world.authority.clone(), vec![testkit::configured("other-db", &rig.other)]);
        tokio::spawn(async move { authority.set_targets(targets, &authority::Actor::System).await })
    };
    // The removal is in the log and not in effect yet.
    let hold = rig.world.ledger.hold_next_commit();
    let removal = removing();
    hold.written().await;
    let asked = rig.read_orders(&caller).await;
    hold.go();
    assert_eq!(removal.await.unwrap().is_ok(), asked.is_err(), "{asked:?}");
    assert!(rig.orders.standing().is_empty());
}
