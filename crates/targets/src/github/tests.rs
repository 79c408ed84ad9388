//! Against the strict peer of GitHub (`testkit::peer::github`).
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::peer::{Still, configured, opened, planned};
use std::sync::Mutex;
use testkit::peer::github::Hub;
use testkit::peer::{Peer, rsa_pem};

const FILE: &str = r#"
[connect]
app_id = "Iv1.app"
installation_id = 42
private_key = { env = "APP_KEY" }
url = "URL"

[offers.read_code]
repositories = { web = 101, api = 102 }
repository_param = "repository"
permissions = { contents = "read" }

[offers.comment]
repositories = { web = 101 }
permissions = { issues = "write" }
"#;

struct Rig {
    hub: Arc<Mutex<Hub>>,
    still: Arc<Still>,
    config: crate::config::TargetConfig,
    target: Arc<dyn Target>,
    _peer: Peer,
}

fn rig() -> Rig {
    let pem = rsa_pem();
    let still = Still::new([("APP_KEY", pem.clone())]);
    let hub = Arc::new(Mutex::new(Hub::new(still.clock(), &pem)));
    let served = Arc::clone(&hub);
    let peer = Peer::plain(move |seen| served.lock().unwrap().answer(&seen));
    let config = configured("github", &FILE.replace("URL", &peer.url), &["repository"]);
    let target = opened(&config, &still);
    Rig { hub, still, config, target, _peer: peer }
}

fn handle<'a>(plan: &'a Plan, to_revoke: Option<&'a SecretString>) -> Handle<'a> {
    Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke }
}

#[tokio::test]
async fn a_token_works_for_what_was_asked_and_is_dead_after_its_end() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_code", &[("repository", "api")], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    assert_eq!(minted.fields.get("repository_ids").unwrap(), "102");
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Accepted);
    let handle = handle(&plan, minted.to_revoke.as_ref());
    let verify = rig.target.end(Ending::Verify, &handle).await;
    assert!(verify.is_err(), "a token that works is not dead");
    for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean, Ending::Verify] {
        assert_eq!(rig.target.end(step, &handle).await.unwrap().again_at, None, "{step:?}");
    }
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Refused);
    let again = rig.target.end(Ending::CloseAuth, &handle).await.unwrap();
    assert_eq!(again.facts.get("token").unwrap(), "not_found", "a step that is repeated is done");
}

#[tokio::test]
async fn a_token_wider_than_asked_is_revoked_and_not_handed_out() {
    let rig = rig();
    rig.hub.lock().unwrap().generous = true;
    let plan = planned(&*rig.target, &rig.config, "comment", &[], None).unwrap();
    let error = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap_err();
    assert!(matches!(error, TargetError::Refused(_)), "{error}");
    let hub = rig.hub.lock().unwrap();
    assert_eq!((hub.live().len(), hub.revoked), (0, 1));
}

#[tokio::test]
async fn only_the_plan_that_was_decided_is_carried_out() {
    let rig = rig();
    let decided = planned(&*rig.target, &rig.config, "comment", &[], None).unwrap();
    let shown = testkit::shown(&decided).await;
    let other = planned(&*rig.target, &rig.config, "read_code", &[("repository", "web")], None).unwrap();
    assert!(matches!(rig.target.issue(&other, &shown).await, Err(TargetError::NotShown(_))));
    assert!(rig.hub.lock().unwrap().live().is_empty());
}

#[tokio::test]
async fn a_repository_outside_the_offer_cannot_be_named() {
    let rig = rig();
    for name in ["other", "", "WEB", "101"] {
        let refused = planned(&*rig.target, &rig.config, "read_code", &[("repository", name)], None);
        assert!(matches!(refused, Err(TargetError::Unacceptable(_))), "{name}");
    }
    assert!(planned(&*rig.target, &rig.config, "read_code", &[], None).is_err(), "no repository is not all of them");
}

#[tokio::test]
async fn a_token_whose_answer_was_lost_is_dead_when_its_hour_is_over() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "comment", &[], None).unwrap();
    let lost = handle(&plan, None);
    for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean] {
        rig.target.end(step, &lost).await.unwrap();
    }
    let waiting = rig.target.end(Ending::Verify, &lost).await.unwrap();
    assert_eq!(waiting.again_at, Some(plan.expires_at.plus_secs(NATIVE_SECS)));
    rig.still.advance_secs(300 + NATIVE_SECS);
    assert_eq!(rig.target.end(Ending::Verify, &lost).await.unwrap().again_at, None);
}

#[tokio::test]
async fn a_wide_app_is_found() {
    let rig = rig();
    rig.hub.lock().unwrap().permissions.insert("administration".into(), "write".into());
    let found = rig.target.examine().await.unwrap();
    let grave = |check: &str, gravity| found.iter().any(|finding| finding.check == check && finding.gravity == gravity);
    assert!(grave("app.permissions", authority::target::Gravity::Broken), "{found:?}");
    assert!(grave("installation.repositories", authority::target::Gravity::Warning), "{found:?}");
    let standing = rig.target.scan().await.unwrap();
    assert_eq!(standing.len(), 1);
    assert_eq!(standing[0].name, "installation-43");
}

#[test]
fn an_offer_without_repositories_or_with_admin_is_a_fault() {
    let still = Still::new([]);
    let surroundings: Arc<dyn Surroundings> = Arc::clone(&still) as _;
    for (from, to) in [("repositories = { web = 101 }\n", ""), ("issues = \"write\"", "issues = \"admin\""), ("= 42", "= 0")] {
        let config = configured("github", &FILE.replace("URL", "http://127.0.0.1:1").replace(from, to), &["repository"]);
        assert!(crate::open(&config, &surroundings).is_err(), "{to}");
    }
}

#[test]
fn the_instructions_name_the_widest_permission_of_all_offers() {
    let surroundings: Arc<dyn Surroundings> = Still::new([]);
    let config = configured("github", &FILE.replace("URL", "https://api.github.com"), &["repository"]);
    let text = crate::install_script(&config, &surroundings).unwrap();
    assert!(text.contains("contents: read\n") && text.contains("issues: write\n"), "{text}");
}
