//! The life of a credential: issue, use, end, and every crash in between.

use super::*;
use authority::target::Acceptance;
use std::time::Duration;

const COUNT: &str = "SELECT cast(count(*) AS char) FROM shop.my_orders";

#[tokio::test]
async fn credential_lives_and_dies_step_by_step() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Accepted);
    let mut session = lab.session(&minted).await.unwrap();
    assert_eq!(ask(&mut session, COUNT).await.unwrap(), "2");
    let found = lab.target.inventory().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].grant, found[0].expires_at), (plan.grant, Some(plan.expires_at)));
    assert!(matches!(lab.end(Ending::Clean, &plan).await, Err(TargetError::Unreachable(_))), "cleaned while it could log in");

    assert_eq!(lab.end(Ending::CloseAuth, &plan).await.unwrap().facts["auth"], "closed");
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Refused);
    // The session lives on, as it would at any server, but rows are gone with the close.
    assert_eq!(ask(&mut session, COUNT).await.unwrap(), "0");
    assert!(matches!(lab.end(Ending::Clean, &plan).await, Err(TargetError::Unreachable(_))), "cleaned under a live session");
    assert_eq!(lab.end(Ending::EndSessions, &plan).await.unwrap().facts["sessions"], "1");
    ask(&mut session, "SELECT 'x'").await.unwrap_err();
    assert_eq!(lab.end(Ending::Clean, &plan).await.unwrap().facts["account"], "dropped");
    assert_eq!(lab.end(Ending::Verify, &plan).await.unwrap().facts["account"], "not_found");
    assert_eq!(lab.accounts(), "");
    assert!(lab.target.inventory().await.unwrap().is_empty());
    lab.take_back(&plan).await;
}

#[tokio::test]
async fn caller_makes_the_secret_and_writ_never_sees_it() {
    let Some(lab) = Lab::start() else { return };
    let hash = "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19";
    let plan = lab.plan_for(lab.grant(), Some(&Verifier::MysqlNative(hash.to_owned())), 60).unwrap();
    let minted = lab.target.issue(&plan, &shown(&plan).await).await.unwrap();
    assert!(minted.secrets.is_empty());
    assert_eq!(lab.server.sql_as(&minted.fields["user"], "password", "SELECT 'in'").unwrap(), "in");
    for bad in [Verifier::MysqlNative("password".to_owned()), Verifier::Sha256("00".repeat(32))] {
        assert!(matches!(lab.plan_for(lab.grant(), Some(&bad), 60), Err(TargetError::Unacceptable(_))));
    }
}

#[tokio::test]
async fn server_removes_it_at_its_deadline_without_writ() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(3).await;
    let mut session = lab.session(&minted).await.unwrap();
    assert_eq!(ask(&mut session, COUNT).await.unwrap(), "2");
    // Nothing of ours runs any more: the server's event closes, kills and drops.
    let started = now();
    while !lab.accounts().is_empty() {
        assert!(now().secs_since(started) < 30, "the event did not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(now() >= plan.expires_at);
    ask(&mut session, "SELECT 'x'").await.unwrap_err();
    assert_eq!(lab.target.try_use(&minted, Duration::from_secs(10)).await.unwrap(), Acceptance::Refused);
    lab.take_back(&plan).await;
}

#[tokio::test]
async fn client_that_reconnects_without_pause_does_not_stay_in() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    let (user, password) = (minted.fields["user"].clone(), minted.secrets["password"].clone());
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let port = lab.server.port();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (stop, user, password) = (Arc::clone(&stop), user.clone(), password.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let options = MySqlConnectOptions::new().host("127.0.0.1").port(port).username(&user);
                    let options = options.password(password.expose_secret()).ssl_mode(MySqlSslMode::Disabled);
                    if let Ok(mut session) = options.connect().await {
                        while ask(&mut session, "SELECT cast(sleep(0.001) AS char)").await.is_ok() {}
                    }
                }
            })
        })
        .collect();
    let sessions = format!("SELECT count(*) FROM information_schema.PROCESSLIST WHERE User = '{user}'");
    while lab.server.sql(&sessions).unwrap() == "0" {
        tokio::task::yield_now().await;
    }
    lab.take_back(&plan).await;
    let left = lab.server.sql("SELECT count(*) FROM information_schema.PROCESSLIST WHERE User LIKE 'jit%'").unwrap();
    stop.store(true, Ordering::SeqCst);
    assert_eq!((left.as_str(), lab.accounts().as_str()), ("0", ""));
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn crash_at_any_point_is_mended_by_repeating() {
    let Some(lab) = Lab::start() else { return };
    let steps = [Ending::CloseAuth, Ending::EndSessions, Ending::Clean, Ending::Verify];
    for done in 0..=steps.len() {
        let (plan, _) = lab.mint(300).await;
        for step in steps.iter().take(done) {
            lab.end(*step, &plan).await.unwrap();
        }
        lab.server.down();
        let down = lab.end(Ending::CloseAuth, &plan).await.unwrap_err();
        assert!(matches!(down, TargetError::Unreachable(_)), "{down:?}");
        lab.server.up();
        lab.take_back(&plan).await;
        assert_eq!(lab.accounts(), "", "after {done} steps");
    }
}

#[tokio::test]
async fn credential_is_never_issued_twice_nor_after_it_was_taken_back() {
    let Some(lab) = Lab::start() else { return };
    let (plan, _) = lab.mint(300).await;
    let again = lab.target.issue(&plan, &shown(&plan).await).await.unwrap_err();
    assert!(matches!(&again, TargetError::Refused(why) if why.contains("used before")), "{again:?}");
    let other = lab.plan_for(lab.grant(), None, 300).unwrap();
    assert!(matches!(lab.target.issue(&other, &shown(&plan).await).await, Err(TargetError::NotShown(_))));
    lab.take_back(&plan).await;
    assert!(matches!(lab.target.issue(&plan, &shown(&plan).await).await, Err(TargetError::Refused(_))));
    // One that was taken back before its call arrived.
    lab.take_back(&other).await;
    assert!(matches!(lab.target.issue(&other, &shown(&other).await).await, Err(TargetError::Refused(_))));
    assert_eq!(lab.accounts(), "");
}

#[tokio::test]
async fn texts_hold_no_secret() {
    let Some(lab) = Lab::start() else { return };
    let (plan, minted) = lab.mint(300).await;
    let password = minted.secrets["password"].expose_secret().to_owned();
    let hash = lab.server.sql(&format!("SELECT authentication_string FROM mysql.user WHERE User = '{}'", plan.handle)).unwrap();
    assert!(hash.starts_with('*') && hash.len() == 41);
    let again = lab.target.issue(&plan, &shown(&plan).await).await.unwrap_err();
    let findings = lab.target.examine().await.unwrap();
    let canonical = String::from_utf8(plan.canonical.clone()).unwrap();
    for text in [format!("{again:?}"), format!("{plan:?}{minted:?}"), canonical, format!("{findings:?}")] {
        assert!(!text.contains(&password) && !text.contains(&hash) && !text.contains(BROKER_PASSWORD), "{text}");
        assert!(!text.contains("IDENTIFIED"), "{text}");
    }
}
