//! Against a strict peer of Entra's token endpoint: the assertion's signature, its exact issuer and subject, its audience.
//! What it cannot show: how long the real service lets a token live, and continuous access evaluation.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::peer::{NOW, Seen, Still, configured, opened, planned, rsa_pem, serve, verified};
use serde_json::json;
use std::sync::Mutex;

const FILE: &str = r#"
[connect]
tenant = "11111111-2222-3333-4444-555555555555"
issuer = "https://writ.example.com/federation"
assertion_key = { env = "KEY" }
login = { url = "URL" }
resource = { url = "URL" }

[offers.read_blobs]
client_id = "aaaaaaaa-0000-0000-0000-000000000001"
scope = "https://storage.azure.com/.default"
try_path = "/blobs"
"#;

#[derive(Default)]
struct Entra {
    key_set: String,
    tokens: Vec<String>,
    expires_in: u64,
}

impl Entra {
    fn answer(&mut self, seen: &Seen) -> (u16, String) {
        if seen.path == "/blobs" {
            return (if self.tokens.contains(&seen.bearer().to_owned()) { 200 } else { 401 }, String::new());
        }
        if seen.path != "/11111111-2222-3333-4444-555555555555/oauth2/v2.0/token" {
            return (404, String::new());
        }
        let form = seen.form();
        let Some(claims) = verified(&form["client_assertion"], &self.key_set) else { return (401, "{}".into()) };
        let good = claims["iss"] == "https://writ.example.com/federation"
            && claims["sub"] == "writ/probed/read_blobs"
            && claims["aud"] == AUDIENCE
            && form["client_assertion_type"] == ASSERTION_TYPE
            && form["client_id"] == "aaaaaaaa-0000-0000-0000-000000000001";
        if !good {
            return (401, "{}".into());
        }
        let token = format!("eyJ.entra.{}", self.tokens.len());
        self.tokens.push(token.clone());
        (200, json!({ "token_type": "Bearer", "access_token": token, "expires_in": self.expires_in }).to_string())
    }
}

struct Rig {
    entra: Arc<Mutex<Entra>>,
    still: Arc<Still>,
    config: crate::config::TargetConfig,
    target: Arc<dyn Target>,
}

/// The offer's life is the longest that Entra gives.
fn config(url: &str) -> crate::config::TargetConfig {
    let mut config = configured("azure", &FILE.replace("URL", url), &[]);
    for offer in config.offers.values_mut() {
        offer.offer.lifetime_secs = NATIVE_SECS_MAX;
    }
    config
}

async fn rig() -> Rig {
    let entra = Arc::new(Mutex::new(Entra { expires_in: 3_599, ..Entra::default() }));
    let served = Arc::clone(&entra);
    let url = serve(move |seen| served.lock().unwrap().answer(&seen)).await;
    let still = Still::new([("KEY", rsa_pem())]);
    let config = config(&url);
    let surroundings: Arc<dyn Surroundings> = Arc::clone(&still) as _;
    let script = crate::install_script(&config, &surroundings).unwrap();
    entra.lock().unwrap().key_set =
        script.lines().find_map(|line| line.strip_prefix("# {")).map(|keys| format!("{{{keys}")).unwrap();
    assert!(script.contains("\"subject\":\"writ/probed/read_blobs\""), "{script}");
    let target = opened(&config, &still);
    Rig { entra, still, config, target }
}

#[tokio::test]
async fn a_token_is_given_used_and_waited_for() {
    let rig = rig().await;
    let plan = planned(&*rig.target, &rig.config, "read_blobs", &[], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Accepted);
    let handle =
        Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke: None };
    let end = NOW.plus_secs(300 + NATIVE_SECS_MAX);
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, Some(end));
    rig.still.advance_secs(300 + NATIVE_SECS_MAX);
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, None);
    rig.entra.lock().unwrap().tokens.clear();
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Refused);
}

#[tokio::test]
async fn a_token_that_outlives_its_bound_is_not_handed_out() {
    let rig = rig().await;
    rig.entra.lock().unwrap().expires_in = 86_399;
    let plan = planned(&*rig.target, &rig.config, "read_blobs", &[], None).unwrap();
    assert!(matches!(rig.target.issue(&plan, &testkit::shown(&plan).await).await, Err(TargetError::Refused(_))));
}

#[tokio::test]
async fn an_assertion_of_another_key_gets_nothing() {
    let rig = rig().await;
    let target = opened(&rig.config, &Still::new([("KEY", rsa_pem())]));
    let plan = planned(&*target, &rig.config, "read_blobs", &[], None).unwrap();
    assert!(matches!(target.issue(&plan, &testkit::shown(&plan).await).await, Err(TargetError::Refused(_))));
    assert!(rig.entra.lock().unwrap().tokens.is_empty());
}

#[test]
fn a_life_that_entra_does_not_keep_is_a_fault() {
    let surroundings: Arc<dyn Surroundings> = Still::new([("KEY", rsa_pem())]);
    assert!(crate::open(&config("https://login.example"), &surroundings).is_ok());
    let short = configured("azure", &FILE.replace("URL", "https://login.example"), &[]);
    let faults = crate::open(&short, &surroundings).err().unwrap().to_string();
    assert!(faults.contains("lifetime_secs"), "{faults}");
}
