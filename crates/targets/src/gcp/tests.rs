//! Against the strict peer of Google's token services and Cloud Storage (`testkit::peer::google`), which trusts what the
//! install script says.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::peer::{NOW, Still, configured, opened, planned};
use std::sync::Mutex;
use testkit::peer::google::Google;
use testkit::peer::{Peer, rsa_pem};

const FILE: &str = r#"
[connect]
project_number = 123456
pool = "writ"
provider = "writ-prod"
issuer = "https://writ.example.com/federation"
assertion_key = { env = "KEY" }
sts = { url = "URL" }
iam = { url = "URL" }
tokeninfo = { url = "URL" }

[offers.read_reports]
service_account = "reader@p.iam.gserviceaccount.com"
[[offers.read_reports.boundary]]
resource = "//storage.googleapis.com/projects/_/buckets/reports"
permissions = ["inRole:roles/storage.objectViewer"]

[offers.all_of_it]
service_account = "reader@p.iam.gserviceaccount.com"
"#;

struct Rig {
    google: Arc<Mutex<Google>>,
    still: Arc<Still>,
    config: crate::config::TargetConfig,
    target: Arc<dyn Target>,
    _peer: Peer,
}

fn rig() -> Rig {
    let still = Still::new([("KEY", rsa_pem())]);
    let google = Arc::new(Mutex::new(Google::new(still.clock())));
    let served = Arc::clone(&google);
    let peer = Peer::plain(move |seen| served.lock().unwrap().answer(&seen));
    let config = configured("gcp", &FILE.replace("URL", &peer.url), &[]);
    let surroundings: Arc<dyn Surroundings> = Arc::clone(&still) as _;
    google.lock().unwrap().install(&crate::install_script(&config, &surroundings).unwrap());
    let target = opened(&config, &still);
    Rig { google, still, config, target, _peer: peer }
}

#[tokio::test]
async fn a_token_is_bounded_lives_as_decided_and_is_waited_for() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_reports", &[], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    assert!(minted.secrets["token"].expose_secret().starts_with("ya29.bounded"));
    {
        let google = rig.google.lock().unwrap();
        assert_eq!(google.vouched[0]["writ_agent"], "support-bot");
        assert_eq!(google.lives_secs(minted.secrets["token"].expose_secret()), Some(295));
    }
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Accepted);
    let handle =
        Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke: None };
    for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean] {
        rig.target.end(step, &handle).await.unwrap();
    }
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, Some(NOW.plus_secs(300)));
    rig.still.advance_secs(300);
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, None);
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Refused);
}

#[tokio::test]
async fn a_token_that_was_made_late_is_over_when_it_is_called_dead() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_reports", &[], None).unwrap();
    let shown = testkit::shown(&plan).await;
    // It waited for its turn.
    rig.still.advance_secs(25);
    let minted = rig.target.issue(&plan, &shown).await.unwrap();
    rig.still.advance_secs(275);
    let handle =
        Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke: None };
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, None);
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Refused);
}

#[tokio::test]
async fn a_token_whose_answer_took_too_long_or_that_lives_longer_is_not_handed_out() {
    for (takes, gives, expected) in [(4, 0, None), (6, 0, Some("late")), (0, 3_600, Some("longer"))] {
        let rig = rig();
        rig.google.lock().unwrap().generous_secs = gives;
        let still = Arc::clone(&rig.still);
        rig.google.lock().unwrap().before_answer = Some(Box::new(move || still.advance_secs(takes)));
        let plan = planned(&*rig.target, &rig.config, "all_of_it", &[], None).unwrap();
        let answer = rig.target.issue(&plan, &testkit::shown(&plan).await).await;
        let error = answer.err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{error:?}");
        assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()));
    }
}

#[tokio::test]
async fn an_assertion_of_another_key_gets_nothing() {
    let rig = rig();
    let other = Still::new([("KEY", rsa_pem())]);
    let target = opened(&rig.config, &other);
    let plan = planned(&*target, &rig.config, "all_of_it", &[], None).unwrap();
    let error = target.issue(&plan, &testkit::shown(&plan).await).await.unwrap_err();
    assert!(matches!(error, TargetError::Refused(_)), "{error}");
    assert!(rig.google.lock().unwrap().vouched.is_empty());
}

#[tokio::test]
async fn nobody_is_vouched_for_without_the_decision() {
    let rig = rig();
    let decided = planned(&*rig.target, &rig.config, "read_reports", &[], None).unwrap();
    let shown = testkit::shown(&decided).await;
    let wider = planned(&*rig.target, &rig.config, "all_of_it", &[], None).unwrap();
    assert!(matches!(rig.target.issue(&wider, &shown).await, Err(TargetError::NotShown(_))));
    assert!(rig.google.lock().unwrap().vouched.is_empty());
}

#[tokio::test]
async fn an_offer_without_a_boundary_is_remarked_upon() {
    let rig = rig();
    let found = rig.target.examine().await.unwrap();
    assert!(found.iter().any(|finding| finding.check == "offer.boundary" && finding.found.contains("all_of_it")), "{found:?}");
}

#[test]
fn names_that_would_leave_their_place_are_faults() {
    let surroundings: Arc<dyn Surroundings> = Still::new([("KEY", rsa_pem())]);
    for (from, to) in [
        ("reader@p.iam", "../x@p.iam"),
        ("pool = \"writ\"", "pool = \"a/b\""),
        ("https://writ.example.com", "http://writ.example.com"),
        ("https://writ.example.com", "https://x';id;'"),
        ("project_number = 123456", ""),
    ] {
        let config = configured("gcp", &FILE.replace("URL", "https://sts.example").replace(from, to), &[]);
        assert!(crate::open(&config, &surroundings).is_err(), "{to}");
    }
}
