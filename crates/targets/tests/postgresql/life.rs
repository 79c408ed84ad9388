//! The life of a credential: issue, use, end, and every crash in between.

use super::*;
use authority::target::Acceptance;
use std::time::Duration;

#[tokio::test]
async fn credential_lives_and_dies_step_by_step() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Accepted);
    let mut session = lab.session(&minted, "orders").await.unwrap();
    assert_eq!(ask(&mut session, "SELECT count(*)::text FROM orders").await.unwrap(), "2");
    let found = lab.target.inventory().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].grant, found[0].expires_at), (plan.grant, Some(plan.expires_at)));

    let refused = lab.end(Ending::Clean, &plan).await.unwrap_err();
    assert!(matches!(refused, TargetError::Unreachable(_) | TargetError::Refused(_)), "{refused:?}");

    let closed = lab.end(Ending::CloseAuth, &plan).await.unwrap();
    assert_eq!(closed.facts["auth"], "closed");
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Refused);
    // The session lives on, as it would at any database, but rows are gone with the close.
    assert_eq!(ask(&mut session, "SELECT count(*)::text FROM orders").await.unwrap(), "0");
    assert!(matches!(lab.end(Ending::Clean, &plan).await, Err(TargetError::Unreachable(_))), "cleaned under a live session");

    let ended = lab.end(Ending::EndSessions, &plan).await.unwrap();
    assert_eq!(ended.facts["sessions"], "1");
    ask(&mut session, "SELECT 1::text").await.unwrap_err();
    assert_eq!(lab.end(Ending::Clean, &plan).await.unwrap().facts["role"], "dropped");
    assert_eq!(lab.end(Ending::Verify, &plan).await.unwrap().facts["role"], "not_found");
    assert_eq!(lab.roles(), "");
    assert!(lab.target.inventory().await.unwrap().is_empty());
    // Everything may be repeated for ever.
    lab.take_back(&plan).await;
}

#[tokio::test]
async fn caller_makes_the_secret_and_writ_never_sees_it() {
    let Some(lab) = Lab::start() else { return };
    // `pencil` of RFC 7677 §3.
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let plan = lab.plan_for(lab.grant(), Some(&Verifier::ScramSha256(verifier.to_owned())), 60).unwrap();
    let minted = lab.target.issue(&plan, &shown(&plan).await).await.unwrap();
    assert!(minted.secrets.is_empty());
    assert_eq!(lab.server.psql_as(&minted.fields["user"], "pencil", "orders", "SELECT 'in'").unwrap(), "in");
    for bad in ["plain-password", &verifier.replace("$4096:", "$100000000:")] {
        let refused = lab.plan_for(lab.grant(), Some(&Verifier::ScramSha256(bad.to_owned())), 60).unwrap_err();
        assert!(matches!(refused, TargetError::Unacceptable(_)), "{refused:?}");
        assert!(!refused.to_string().contains(bad));
    }
    let other = Verifier::Sha256("00".repeat(32));
    assert!(matches!(lab.plan_for(lab.grant(), Some(&other), 60), Err(TargetError::Unacceptable(_))));
}

#[tokio::test]
async fn native_expiry_works_without_writ() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(3).await;
    let mut session = lab.session(&minted, "orders").await.unwrap();
    assert_eq!(ask(&mut session, "SELECT count(*)::text FROM orders").await.unwrap(), "2");
    // Nothing of ours runs any more; the server's own clock decides.
    while now() < plan.expires_at.plus_secs(1) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Refused);
    // Rows end with the deadline as well, in the session that is still open and even within an old snapshot.
    assert_eq!(ask(&mut session, "SELECT count(*)::text FROM orders").await.unwrap(), "0");
    // The administrator's own sweep closes, kills and drops.
    lab.server.psql("orders", "CALL writ_lease.sweep()").unwrap();
    ask(&mut session, "SELECT 1::text").await.unwrap_err();
    assert_eq!(lab.roles(), "");
    lab.take_back(&plan).await;
}

#[tokio::test]
async fn what_it_leaves_in_two_databases_is_removed() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    let mut here = lab.session(&minted, "orders").await.unwrap();
    let mut there = lab.session(&minted, "reports").await.unwrap();
    // Every role can make large objects, and they stay.
    assert_eq!(state(&mut here, "SELECT lo_from_bytea(0, 'loot')").await, "ok");
    assert_eq!(state(&mut there, "SELECT lo_from_bytea(0, 'loot')").await, "ok");
    assert_eq!(state(&mut there, "CREATE TEMP TABLE t (x int)").await, "ok");
    lab.end(Ending::CloseAuth, &plan).await.unwrap();
    assert_eq!(lab.end(Ending::EndSessions, &plan).await.unwrap().facts["sessions"], "2");
    let cleaned = lab.end(Ending::Clean, &plan).await.unwrap();
    assert_eq!((cleaned.facts["role"].as_str(), cleaned.facts["other_databases"].as_str()), ("dropped", "1"));
    for database in ["orders", "reports"] {
        assert_eq!(lab.server.psql(database, "SELECT count(*) FROM pg_largeobject_metadata").unwrap(), "0", "{database}");
    }
    lab.end(Ending::Verify, &plan).await.unwrap();
}

#[tokio::test]
async fn database_without_our_functions_is_named_and_nothing_is_lost() {
    let Some(lab) = Lab::start() else { return };
    lab.server.psql("postgres", "CREATE DATABASE forgotten").unwrap();
    let (plan, minted) = lab.mint(300).await;
    let mut there = lab.session(&minted, "forgotten").await.unwrap();
    assert_eq!(state(&mut there, "SELECT lo_from_bytea(0, 'loot')").await, "ok");
    lab.end(Ending::CloseAuth, &plan).await.unwrap();
    lab.end(Ending::EndSessions, &plan).await.unwrap();
    let refused = lab.end(Ending::Clean, &plan).await.unwrap_err();
    assert!(matches!(&refused, TargetError::Refused(why) if why.contains("`forgotten`")), "{refused:?}");
    // Still ours, still found, and done as soon as the administrator has installed the functions there.
    assert_eq!(lab.target.inventory().await.unwrap().len(), 1);
    let surroundings: Arc<dyn Surroundings> = Arc::new(TestSurroundings);
    lab.server.psql("forgotten", &targets::install_script(&lab.config, &surroundings).unwrap()).unwrap();
    lab.take_back(&plan).await;
    assert_eq!(lab.roles(), "");
}

#[tokio::test]
async fn grant_that_somebody_else_gave_is_named_while_the_login_stays_closed() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    lab.server.psql("orders", &format!("GRANT SELECT ON messages TO {}", plan.handle)).unwrap();
    lab.end(Ending::CloseAuth, &plan).await.unwrap();
    lab.end(Ending::EndSessions, &plan).await.unwrap();
    let refused = lab.end(Ending::Clean, &plan).await.unwrap_err();
    assert!(matches!(&refused, TargetError::Refused(why) if why.contains("DROP OWNED BY")), "{refused:?}");
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Refused);
    lab.server.psql("orders", &format!("DROP OWNED BY {}", plan.handle)).unwrap();
    lab.take_back(&plan).await;
    assert_eq!(lab.roles(), "");
}

#[tokio::test]
async fn client_that_reconnects_without_pause_does_not_stay_in() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    let lab = Arc::new(lab);
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (lab, stop) = (Arc::clone(&lab), Arc::clone(&stop));
            let (user, password) = (minted.fields["user"].clone(), minted.secrets["password"].clone());
            tokio::spawn(async move {
                let mut logins = 0_u32;
                while !stop.load(Ordering::SeqCst) {
                    if let Ok(mut session) = lab.login(&user, password.expose_secret(), "orders").await {
                        logins += 1;
                        while ask(&mut session, "SELECT pg_sleep(0.001)::text").await.is_ok() {}
                    }
                }
                logins
            })
        })
        .collect();
    while lab.server.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'jit%'").unwrap() == "0" {
        tokio::task::yield_now().await;
    }
    lab.take_back(&plan).await;
    let left =
        lab.server.psql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE usesysid NOT IN (SELECT oid FROM pg_roles)");
    stop.store(true, Ordering::SeqCst);
    assert_eq!(left.unwrap(), "0");
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(lab.roles(), "");
}

#[tokio::test]
async fn crash_at_any_point_is_mended_by_repeating() {
    let Some(lab) = Lab::start() else { return };
    let steps = [Ending::CloseAuth, Ending::EndSessions, Ending::Clean, Ending::Verify];
    // After each number of steps the server dies as in a power failure, and the worker begins again from the first one.
    for done in 0..=steps.len() {
        let (plan, minted) = lab.mint(300).await;
        let session = lab.session(&minted, "orders").await;
        for step in steps.iter().take(done) {
            lab.end(*step, &plan).await.unwrap();
        }
        lab.server.down();
        let down = lab.end(Ending::CloseAuth, &plan).await.unwrap_err();
        assert!(matches!(down, TargetError::Unreachable(_)), "{down:?}");
        lab.server.up();
        drop(session);
        lab.take_back(&plan).await;
        assert_eq!(lab.roles(), "", "after {done} steps");
    }
}

#[tokio::test]
async fn issue_that_was_cut_off_leaves_nothing_that_can_log_in() {
    let Some(lab) = Lab::start() else { return };
    let plan = lab.plan_for(lab.grant(), None, 300).unwrap();
    let proof = shown(&plan).await;
    // The transaction is held open at its last statement by a lock on the table; meanwhile Writ gives up and takes back.
    let mut holder = lab.login("postgres", "", "orders").await;
    if holder.is_err() {
        let options = PgConnectOptions::new_without_pgpass().host(lab.server.socket().to_str().unwrap()).port(lab.server.port());
        holder = options.username("postgres").database("orders").connect().await;
    }
    let mut holder = holder.unwrap();
    assert_eq!(state(&mut holder, "BEGIN; LOCK TABLE writ_lease.lease IN SHARE MODE").await, "ok");
    let issued = tokio::time::timeout(Duration::from_millis(300), lab.target.issue(&plan, &proof)).await;
    assert!(issued.is_err(), "the lock did not hold it");
    let closing = lab.end(Ending::CloseAuth, &plan);
    let (closed, released) = tokio::join!(closing, state(&mut holder, "SELECT pg_sleep(0.3); COMMIT"));
    assert_eq!(released, "ok");
    closed.unwrap();
    for step in [Ending::EndSessions, Ending::Clean, Ending::Verify] {
        lab.end(step, &plan).await.unwrap();
    }
    // Whichever came first at the server, the other saw it; and what comes later is refused.
    assert_eq!(lab.roles(), "");
    let again = lab.target.issue(&plan, &proof).await.unwrap_err();
    assert!(matches!(&again, TargetError::Refused(why) if why.contains("used before")), "{again:?}");
    assert_eq!(lab.roles(), "");
}

#[tokio::test]
async fn credential_is_never_issued_twice_nor_without_its_decision() {
    let Some(lab) = Lab::start() else { return };
    let (plan, _) = lab.mint(300).await;
    let again = lab.target.issue(&plan, &shown(&plan).await).await.unwrap_err();
    assert!(matches!(&again, TargetError::Refused(why) if why.contains("used before")), "{again:?}");
    let other = lab.plan_for(lab.grant(), None, 300).unwrap();
    assert!(matches!(lab.target.issue(&other, &shown(&plan).await).await, Err(TargetError::NotShown(_))));
    lab.take_back(&plan).await;
    // A name that was taken back does not come back either.
    let after = lab.target.issue(&plan, &shown(&plan).await).await.unwrap_err();
    assert!(matches!(after, TargetError::Refused(_)), "{after:?}");
}
