//! Against a strict peer of the Security Token Service and of IAM credentials: it verifies the assertion with the key set
//! of the install script, its issuer, audience, subject and age, and gives tokens only for what was bound. What it cannot
//! show: Google's own evaluation of conditions and boundaries.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::peer::{NOW, Seen, Still, configured, opened, planned, rsa_pem, serve, verified};
use serde_json::Value;
use std::sync::Mutex;

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

const AUDIENCE: &str = "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/writ/providers/writ-prod";

#[derive(Default)]
struct Google {
    key_set: String,
    tokens: Vec<String>,
    /// The boundary of the last token that was cut down.
    boundary: Value,
    lifetime: String,
}

impl Google {
    fn mint(&mut self, kind: &str) -> String {
        let token = format!("ya29.{kind}.{}", self.tokens.len());
        self.tokens.push(token.clone());
        token
    }

    fn answer(&mut self, seen: &Seen) -> (u16, String) {
        let form = seen.form();
        match seen.path.as_str() {
            "/v1/token" if form["subject_token_type"] == JWT => {
                let Some(claims) = verified(&form["subject_token"], &self.key_set) else { return (400, "{}".into()) };
                let good = claims["iss"] == "https://writ.example.com/federation"
                    && claims["aud"] == AUDIENCE
                    && form["audience"] == AUDIENCE
                    && claims["sub"].as_str().is_some_and(|sub| sub.starts_with("writ/") && sub.len() <= 127)
                    && claims["exp"].as_i64() > Some(NOW.secs())
                    && claims["writ_agent"] == "support-bot";
                if !good {
                    return (403, "{}".into());
                }
                (200, json!({ "access_token": self.mint("federated"), "expires_in": 3600 }).to_string())
            }
            "/v1/token" => {
                if !self.tokens.contains(&form["subject_token"]) {
                    return (400, "{}".into());
                }
                let options: Value = serde_json::from_str(&form["options"]).unwrap();
                self.boundary = options["accessBoundary"]["accessBoundaryRules"].clone();
                (200, json!({ "access_token": self.mint("bounded") }).to_string())
            }
            "/v1/projects/-/serviceAccounts/reader@p.iam.gserviceaccount.com:generateAccessToken" => {
                if !seen.bearer().starts_with("ya29.federated") || !self.tokens.contains(&seen.bearer().to_owned()) {
                    return (401, "{}".into());
                }
                self.lifetime = seen.json()["lifetime"].as_str().unwrap().to_owned();
                (200, json!({ "accessToken": self.mint("account"), "expireTime": "2026-11-22T00:05:00Z" }).to_string())
            }
            "/tokeninfo" => (if self.tokens.contains(&form["access_token"]) { 200 } else { 400 }, "{}".into()),
            _ => (404, "{}".into()),
        }
    }
}

struct Rig {
    google: Arc<Mutex<Google>>,
    still: Arc<Still>,
    config: crate::config::TargetConfig,
    target: Arc<dyn Target>,
}

async fn rig() -> Rig {
    let google = Arc::new(Mutex::new(Google::default()));
    let served = Arc::clone(&google);
    let url = serve(move |seen| served.lock().unwrap().answer(&seen)).await;
    let still = Still::new([("KEY", rsa_pem())]);
    let config = configured("gcp", &FILE.replace("URL", &url), &[]);
    let surroundings: Arc<dyn Surroundings> = Arc::clone(&still) as _;
    let script = crate::install_script(&config, &surroundings).unwrap();
    google.lock().unwrap().key_set = script.lines().find(|line| line.starts_with('{')).unwrap().to_owned();
    let target = opened(&config, &still);
    Rig { google, still, config, target }
}

#[tokio::test]
async fn a_token_is_bounded_lives_as_decided_and_is_waited_for() {
    let rig = rig().await;
    let plan = planned(&*rig.target, &rig.config, "read_reports", &[], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    assert!(minted.secrets["token"].expose_secret().starts_with("ya29.bounded"));
    {
        let google = rig.google.lock().unwrap();
        assert_eq!(google.lifetime, "300s");
        assert_eq!(google.boundary[0]["availablePermissions"][0], "inRole:roles/storage.objectViewer");
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
    rig.google.lock().unwrap().tokens.clear();
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Refused);
}

#[tokio::test]
async fn an_assertion_of_another_key_gets_nothing() {
    let rig = rig().await;
    let other = Still::new([("KEY", rsa_pem())]);
    let target = opened(&rig.config, &other);
    let plan = planned(&*target, &rig.config, "all_of_it", &[], None).unwrap();
    let error = target.issue(&plan, &testkit::shown(&plan).await).await.unwrap_err();
    assert!(matches!(error, TargetError::Refused(_)), "{error}");
    assert!(rig.google.lock().unwrap().tokens.is_empty());
}

#[tokio::test]
async fn nobody_is_vouched_for_without_the_decision() {
    let rig = rig().await;
    let decided = planned(&*rig.target, &rig.config, "read_reports", &[], None).unwrap();
    let shown = testkit::shown(&decided).await;
    let wider = planned(&*rig.target, &rig.config, "all_of_it", &[], None).unwrap();
    assert!(matches!(rig.target.issue(&wider, &shown).await, Err(TargetError::NotShown(_))));
    assert!(rig.google.lock().unwrap().tokens.is_empty());
}

#[tokio::test]
async fn an_offer_without_a_boundary_is_remarked_upon() {
    let rig = rig().await;
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
        ("project_number = 123456", ""),
    ] {
        let config = configured("gcp", &FILE.replace("URL", "https://sts.example").replace(from, to), &[]);
        assert!(crate::open(&config, &surroundings).is_err(), "{to}");
    }
}
