//! Against the strict peer of Entra (`testkit::peer::entra`), which trusts what the install script says.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::peer::{NOW, Still, configured, opened, planned};
use std::sync::Mutex;
use testkit::peer::entra::Entra;
use testkit::peer::{Peer, rsa_pem};

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
try_path = "/blobs/?comp=list"
"#;

struct Rig {
    entra: Arc<Mutex<Entra>>,
    still: Arc<Still>,
    config: crate::config::TargetConfig,
    target: Arc<dyn Target>,
    _peer: Peer,
}

/// The offer's life is the longest that Entra gives.
fn config(url: &str) -> crate::config::TargetConfig {
    let mut config = configured("azure", &FILE.replace("URL", url), &[]);
    for offer in config.offers.values_mut() {
        offer.offer.lifetime_secs = NATIVE_SECS_MAX;
    }
    config
}

fn rig() -> Rig {
    let still = Still::new([("KEY", rsa_pem())]);
    let entra = Arc::new(Mutex::new(Entra::new(still.clock())));
    let served = Arc::clone(&entra);
    let peer = Peer::plain(move |seen| served.lock().unwrap().answer(&seen));
    let config = config(&peer.url);
    let surroundings: Arc<dyn Surroundings> = Arc::clone(&still) as _;
    let script = crate::install_script(&config, &surroundings).unwrap();
    assert!(script.contains("\"subject\":\"writ/probed/read_blobs\""), "{script}");
    entra.lock().unwrap().install(&script);
    let target = opened(&config, &still);
    Rig { entra, still, config, target, _peer: peer }
}

#[tokio::test]
async fn a_token_is_given_used_and_waited_for() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_blobs", &[], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Accepted);
    let handle =
        Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke: None };
    let end = NOW.plus_secs(300 + NATIVE_SECS_MAX);
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, Some(end));
    rig.still.advance_secs(300 + NATIVE_SECS_MAX);
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, None);
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Refused);
}

#[tokio::test]
async fn a_token_that_outlives_its_bound_is_not_handed_out() {
    let rig = rig();
    rig.entra.lock().unwrap().lives_secs = 86_399;
    let plan = planned(&*rig.target, &rig.config, "read_blobs", &[], None).unwrap();
    assert!(matches!(rig.target.issue(&plan, &testkit::shown(&plan).await).await, Err(TargetError::Refused(_))));
}

#[tokio::test]
async fn an_assertion_of_another_key_gets_nothing() {
    let rig = rig();
    let target = opened(&rig.config, &Still::new([("KEY", rsa_pem())]));
    let plan = planned(&*target, &rig.config, "read_blobs", &[], None).unwrap();
    assert!(matches!(target.issue(&plan, &testkit::shown(&plan).await).await, Err(TargetError::Refused(_))));
    assert!(rig.entra.lock().unwrap().live().is_empty());
}

#[test]
fn a_life_that_entra_does_not_keep_is_a_fault() {
    let surroundings: Arc<dyn Surroundings> = Still::new([("KEY", rsa_pem())]);
    assert!(crate::open(&config("https://login.example"), &surroundings).is_ok());
    let short = configured("azure", &FILE.replace("URL", "https://login.example"), &[]);
    let faults = crate::open(&short, &surroundings).err().unwrap().to_string();
    assert!(faults.contains("lifetime_secs"), "{faults}");
}
