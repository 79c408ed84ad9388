//! Against a strict peer of the API server: objects with uids and labels, preconditions on deletion, no token shorter than
//! ten minutes, tokens that die with their account (after a cache that the test empties). What it cannot show: RBAC itself,
//! and watches that go on.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::peer::{NOW, Seen, Still, configured, opened, planned, serve};
use secrecy::SecretString;
use serde_json::Value;
use std::sync::Mutex;

const FILE: &str = r#"
[connect]
url = "URL"
token = { env = "BROKER" }
accounts_namespace = "writ-leases"

[offers.read_orders]
namespace = "shop"
role = "orders-reader"
"#;

#[derive(Default)]
struct Cluster {
    objects: BTreeMap<String, Value>,
    /// Token, and the account's path.
    tokens: BTreeMap<String, String>,
    /// Tokens that are remembered as good.
    cache: Vec<String>,
    uids: u64,
    /// What our own account may do beyond its needs.
    may_everything: bool,
    /// The binding cannot be made.
    no_bindings: bool,
}

impl Cluster {
    fn create(&mut self, path: &str, mut object: Value) -> (u16, String) {
        let place = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
        if self.objects.contains_key(&place) {
            return (409, "{}".into());
        }
        self.uids += 1;
        object["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        self.objects.insert(place, object.clone());
        (201, object.to_string())
    }

    fn token(&mut self, account: &str, asked: &Value) -> (u16, String) {
        let secs = asked["spec"]["expirationSeconds"].as_u64().unwrap();
        if !self.objects.contains_key(account) {
            return (404, "{}".into());
        }
        if secs < 600 {
            return (422, json!({ "message": "may not specify a duration less than 10 minutes" }).to_string());
        }
        let token = format!("eyJ.{}.sig", self.tokens.len());
        self.tokens.insert(token.clone(), account.to_owned());
        (201, json!({ "status": { "token": token, "expirationTimestamp": "2026-11-22T00:10:00Z" } }).to_string())
    }

    fn delete(&mut self, path: &str, options: &Value) -> (u16, String) {
        let Some(object) = self.objects.get(path) else { return (404, "{}".into()) };
        if options["preconditions"]["uid"] != object["metadata"]["uid"] {
            return (409, "{}".into());
        }
        self.objects.remove(path);
        (200, "{}".into())
    }

    fn knows(&self, token: &str) -> bool {
        self.cache.iter().any(|cached| cached == token)
            || self.tokens.get(token).is_some_and(|account| self.objects.contains_key(account))
    }

    fn answer(&mut self, seen: &Seen) -> (u16, String) {
        let ours = seen.bearer() == "broker-token";
        if !ours && !self.knows(seen.bearer()) {
            return (401, "{}".into());
        }
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        if path.ends_with("/selfsubjectaccessreviews") {
            let what = &seen.json()["spec"]["resourceAttributes"];
            let needed = what["resource"] == "serviceaccounts" && what["namespace"] == "writ-leases"
                || what["resource"] == "rolebindings" && what["namespace"] == "shop"
                || what["verb"] == "bind" && what["name"] == "orders-reader";
            return (201, json!({ "status": { "allowed": needed || self.may_everything } }).to_string());
        }
        if !ours {
            return (403, "{}".into());
        }
        match seen.method.as_str() {
            "POST" if path.ends_with("/token") => self.token(path.trim_end_matches("/token"), &seen.json()),
            "POST" if path.ends_with("/rolebindings") && self.no_bindings => (403, "{}".into()),
            "POST" => self.create(path, seen.json()),
            "DELETE" => self.delete(path, &seen.json()),
            "GET" => match self.objects.get(path) {
                Some(object) => (200, object.to_string()),
                None if path.ends_with('s') => {
                    let label = query.contains("managed-by%3Dwrit");
                    let below = self.objects.iter().filter(|(place, object)| {
                        let managed = object["metadata"]["labels"][MANAGED_BY] == "writ";
                        place.rsplit_once('/').is_some_and(|(list, _)| list == path) && (!label || managed)
                    });
                    (200, json!({ "items": below.map(|(_, object)| object.clone()).collect::<Vec<_>>() }).to_string())
                }
                None => (404, "{}".into()),
            },
            _ => (405, "{}".into()),
        }
    }
}

struct Rig {
    cluster: Arc<Mutex<Cluster>>,
    config: crate::config::TargetConfig,
    target: Arc<dyn Target>,
}

async fn rig() -> Rig {
    let cluster = Arc::new(Mutex::new(Cluster::default()));
    let served = Arc::clone(&cluster);
    let url = serve(move |seen| served.lock().unwrap().answer(&seen)).await;
    let still = Still::new([("BROKER", "broker-token".to_owned())]);
    let config = configured("kubernetes", &FILE.replace("URL", &url), &[]);
    let target = opened(&config, &still);
    Rig { cluster, config, target }
}

fn handle<'a>(plan: &'a Plan, to_revoke: Option<&'a SecretString>) -> Handle<'a> {
    Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke }
}

const STEPS: [Ending; 4] = [Ending::CloseAuth, Ending::EndSessions, Ending::Clean, Ending::Verify];

#[tokio::test]
async fn an_account_is_made_bound_used_and_gone() {
    let rig = rig().await;
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Accepted);
    let found = rig.target.inventory().await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].handle, found[0].grant, found[0].expires_at), (&plan.handle, plan.grant, Some(NOW.plus_secs(300))));
    let handle = handle(&plan, minted.to_revoke.as_ref());
    assert!(rig.target.end(Ending::Verify, &handle).await.is_err(), "what stands is not dead");
    for _ in 0..2 {
        for step in STEPS {
            rig.target.end(step, &handle).await.unwrap();
        }
    }
    assert!(rig.cluster.lock().unwrap().objects.is_empty());
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Refused);
}

#[tokio::test]
async fn a_token_that_the_server_remembers_is_not_dead_yet() {
    let rig = rig().await;
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    {
        let mut cluster = rig.cluster.lock().unwrap();
        cluster.cache = cluster.tokens.keys().cloned().collect();
    }
    let handle = handle(&plan, minted.to_revoke.as_ref());
    for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean] {
        rig.target.end(step, &handle).await.unwrap();
    }
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, Some(NOW.plus_secs(CACHE_SECS)));
    rig.cluster.lock().unwrap().cache.clear();
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, None);
}

#[tokio::test]
async fn an_object_without_our_mark_is_left_alone() {
    let rig = rig().await;
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    let account = format!("/api/v1/namespaces/writ-leases/serviceaccounts/{}", account_name(plan.grant));
    rig.cluster.lock().unwrap().objects.get_mut(&account).unwrap()["metadata"]["labels"] = json!({});
    assert!(rig.target.end(Ending::CloseAuth, &handle(&plan, None)).await.is_err());
    assert!(rig.cluster.lock().unwrap().objects.contains_key(&account));
    let foreign = Handle { handle: "kube-system/shop/default", ..handle(&plan, None) };
    assert!(matches!(rig.target.end(Ending::CloseAuth, &foreign).await, Err(TargetError::Unacceptable(_))));
    let escaping = Handle { handle: "writ-leases/../x", ..handle(&plan, None) };
    assert!(matches!(rig.target.end(Ending::CloseAuth, &escaping).await, Err(TargetError::Unacceptable(_))));
}

#[tokio::test]
async fn an_issue_that_broke_off_has_no_rights_and_is_taken_back() {
    let rig = rig().await;
    rig.cluster.lock().unwrap().no_bindings = true;
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    assert!(rig.target.issue(&plan, &testkit::shown(&plan).await).await.is_err());
    assert_eq!(rig.target.inventory().await.unwrap().len(), 1, "the account stands, without any right");
    for step in STEPS {
        rig.target.end(step, &handle(&plan, None)).await.unwrap();
    }
    assert!(rig.cluster.lock().unwrap().objects.is_empty());
}

#[tokio::test]
async fn a_broker_that_may_more_than_it_needs_is_found() {
    let rig = rig().await;
    let found = rig.target.examine().await.unwrap();
    assert!(found.iter().all(|finding| finding.gravity == authority::target::Gravity::Fine), "{found:?}");
    rig.cluster.lock().unwrap().may_everything = true;
    let found = rig.target.examine().await.unwrap();
    assert_eq!(found.iter().filter(|finding| finding.check == "broker.rights").count(), 9);
}

#[tokio::test]
async fn a_binding_without_an_end_is_found_and_a_replacement_proposed() {
    let rig = rig().await;
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings";
    let binding = json!({ "metadata": { "name": "old" }, "roleRef": { "kind": "Role", "name": "orders-reader" },
        "subjects": [{ "kind": "ServiceAccount", "name": "bot", "namespace": "shop" }] });
    rig.cluster.lock().unwrap().create(path, binding);
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    let standing = rig.target.scan().await.unwrap();
    assert_eq!(standing.len(), 1, "ours is none of them");
    assert_eq!(standing[0].flags, ["no_expiry", "owner_unknown"]);
    assert!(standing[0].proposal.contains("role = \"orders-reader\""));
}

#[test]
fn the_manifest_binds_by_name_and_gives_no_secrets() {
    let surroundings: Arc<dyn Surroundings> = Still::new([]);
    let config = configured("kubernetes", &FILE.replace("URL", "https://k8s"), &[]);
    let manifest = crate::install_script(&config, &surroundings).unwrap();
    assert!(manifest.contains("resources: [roles], verbs: [bind], resourceNames: [orders-reader]"), "{manifest}");
    assert!(!manifest.contains("secrets") && !manifest.contains("clusterrolebindings"));
}

#[test]
fn a_role_that_is_everything_is_a_fault() {
    let surroundings: Arc<dyn Surroundings> = Still::new([]);
    for (from, to) in [
        ("role = \"orders-reader\"", "cluster_role = \"cluster-admin\""),
        ("role = \"orders-reader\"", ""),
        ("namespace = \"shop\"", "namespace = \"writ-leases\""),
        ("namespace = \"shop\"", "namespace = \"../x\""),
    ] {
        let config = configured("kubernetes", &FILE.replace("URL", "https://k8s").replace(from, to), &[]);
        assert!(crate::open(&config, &surroundings).is_err(), "{to}");
    }
}
