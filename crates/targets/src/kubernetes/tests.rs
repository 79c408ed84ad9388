//! Against the strict peer of the API server (`testkit::peer::kubernetes`), with the rights that the manifest gives.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::peer::{NOW, Still, configured, opened, planned};
use secrecy::SecretString;
use std::sync::Mutex;
use testkit::peer::Peer;
use testkit::peer::kubernetes::Cluster;

const FILE: &str = r#"
[connect]
url = "URL"
token = { env = "BROKER" }
accounts_namespace = "writ-leases"

[offers.read_orders]
namespace = "shop"
role = "orders-reader"

[offers.view]
namespace = "shop"
cluster_role = "view"
"#;

const RBAC: &str = "rbac.authorization.k8s.io";
const BROKER: (&str, &str) = ("writ-leases-broker", "writ");

struct Rig {
    cluster: Arc<Mutex<Cluster>>,
    config: crate::config::TargetConfig,
    target: Arc<dyn Target>,
    _peer: Peer,
}

/// The manifest's rules, with these for the offers' bindings.
fn broker(cluster: &mut Cluster, bindings: &[&str]) -> String {
    let accounts = json!([
        { "apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["create", "get", "list", "delete"] },
        { "apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"] },
    ]);
    let roles = json!([
        { "apiGroups": [RBAC], "resources": ["rolebindings"], "verbs": bindings },
        { "apiGroups": [RBAC], "resources": ["roles"], "verbs": ["bind"], "resourceNames": ["orders-reader"] },
        { "apiGroups": [RBAC], "resources": ["clusterroles"], "verbs": ["bind"], "resourceNames": ["view"] },
    ]);
    cluster.grant("writ-leases", "writ-broker", &accounts, BROKER);
    cluster.grant("shop", "writ-broker", &roles, BROKER);
    cluster.token_of(BROKER.0, BROKER.1)
}

fn rig_with(bindings: &[&str]) -> Rig {
    let mut cluster = Cluster::new(Arc::new(|| NOW.secs()));
    let token = broker(&mut cluster, bindings);
    let cluster = Arc::new(Mutex::new(cluster));
    let served = Arc::clone(&cluster);
    let peer = Peer::plain(move |seen| served.lock().unwrap().answer(&seen));
    let still = Still::new([("BROKER", token)]);
    let config = configured("kubernetes", &FILE.replace("URL", &peer.url), &[]);
    let target = opened(&config, &still);
    Rig { cluster, config, target, _peer: peer }
}

fn rig() -> Rig {
    rig_with(&["create", "get", "list", "delete"])
}

impl Rig {
    /// What stands there of ours.
    fn ours(&self) -> Vec<String> {
        let mut ours = self.cluster.lock().unwrap().below("/api/v1/namespaces/writ-leases/serviceaccounts");
        ours.extend(self.cluster.lock().unwrap().below(&bindings("shop")).into_iter().filter(|path| path.contains("/jit-")));
        ours
    }
}

fn handle<'a>(plan: &'a Plan, to_revoke: Option<&'a SecretString>) -> Handle<'a> {
    Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke }
}

const STEPS: [Ending; 4] = [Ending::CloseAuth, Ending::EndSessions, Ending::Clean, Ending::Verify];

#[tokio::test]
async fn an_account_is_made_bound_used_and_gone() {
    let rig = rig();
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
    assert_eq!(rig.ours(), Vec::<String>::new());
    assert_eq!(rig.target.try_use(&minted, Duration::from_secs(5)).await.unwrap(), Acceptance::Refused);
}

#[tokio::test]
async fn a_token_that_the_server_remembers_is_not_dead_yet() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    rig.cluster.lock().unwrap().remember(true);
    let handle = handle(&plan, minted.to_revoke.as_ref());
    for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean] {
        rig.target.end(step, &handle).await.unwrap();
    }
    let cached = rig.target.end(Ending::Verify, &handle).await.unwrap();
    assert_eq!((cached.facts["token"].as_str(), cached.again_at), ("cached", Some(NOW.plus_secs(CACHE_SECS))));
    rig.cluster.lock().unwrap().remember(false);
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().again_at, None);
}

/// The one that is asked may have forgotten what another one remembers.
#[tokio::test]
async fn no_proof_is_asked_for_before_every_server_has_forgotten() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    let cleaned = rig.target.end(Ending::Clean, &handle(&plan, None)).await.unwrap();
    assert_eq!(cleaned.again_at, Some(NOW.plus_secs(EVERYWHERE_SECS)));
}

#[tokio::test]
async fn an_account_that_waits_for_a_finalizer_is_not_dead() {
    let rig = rig();
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    let minted = rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    let account = format!("/api/v1/namespaces/writ-leases/serviceaccounts/{}", account_name(plan.grant));
    rig.cluster.lock().unwrap().objects.get_mut(&account).unwrap()["metadata"]["finalizers"] = json!(["example.org/wait"]);
    let handle = handle(&plan, minted.to_revoke.as_ref());
    for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean] {
        rig.target.end(step, &handle).await.unwrap();
    }
    assert!(rig.target.end(Ending::Verify, &handle).await.is_err(), "its tokens live for a minute more");
    assert_eq!(rig.ours(), [account.as_str()], "it has no rights");
    rig.cluster.lock().unwrap().objects.remove(&account);
    assert_eq!(rig.target.end(Ending::Verify, &handle).await.unwrap().facts["token"], "refused");
}

#[tokio::test]
async fn an_object_without_our_mark_is_left_alone() {
    let rig = rig();
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
    let rig = rig_with(&["get", "list", "delete"]);
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    assert!(rig.target.issue(&plan, &testkit::shown(&plan).await).await.is_err());
    assert_eq!(rig.target.inventory().await.unwrap().len(), 1, "the account stands, without any right");
    for step in STEPS {
        rig.target.end(step, &handle(&plan, None)).await.unwrap();
    }
    assert_eq!(rig.ours(), Vec::<String>::new());
}

#[tokio::test]
async fn a_broker_that_may_more_than_it_needs_is_found() {
    let rig = rig();
    let found = rig.target.examine().await.unwrap();
    let checks: Vec<_> = found.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["broker.bindings", "broker.rights"], "without the policy of admission, that is not all: {found:?}");
    assert!(found.iter().all(|finding| finding.gravity != authority::target::Gravity::Broken), "{found:?}");
    assert!(rig.ours().is_empty(), "asking makes nothing");
    let everything = json!({ "kind": "ClusterRole", "metadata": { "name": "cluster-admin" },
        "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] });
    let binding = json!({ "kind": "ClusterRoleBinding", "metadata": { "name": "oops" },
        "roleRef": { "kind": "ClusterRole", "name": "cluster-admin" },
        "subjects": [{ "kind": "ServiceAccount", "namespace": BROKER.0, "name": BROKER.1 }] });
    for (list, object) in [("clusterroles", everything), ("clusterrolebindings", binding)] {
        rig.cluster.lock().unwrap().create(&format!("/apis/{RBAC}/v1/{list}"), object);
    }
    let found = rig.target.examine().await.unwrap();
    assert_eq!(found.iter().filter(|finding| finding.check == "broker.rights").count(), 9);
}

#[tokio::test]
async fn a_binding_without_an_end_is_found_and_a_replacement_proposed() {
    let rig = rig();
    let path = "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings";
    let binding = json!({ "metadata": { "name": "old" }, "roleRef": { "kind": "Role", "name": "orders-reader" },
        "subjects": [{ "kind": "ServiceAccount", "name": "bot", "namespace": "shop" }] });
    rig.cluster.lock().unwrap().create(path, binding);
    let plan = planned(&*rig.target, &rig.config, "read_orders", &[], None).unwrap();
    rig.target.issue(&plan, &testkit::shown(&plan).await).await.unwrap();
    let standing = rig.target.scan().await.unwrap();
    assert_eq!(standing.len(), 1, "those of the task and of the broker are none of them: {standing:?}");
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
    assert!(manifest.contains("in ['shop/ClusterRole/view', 'shop/Role/orders-reader']"), "{manifest}");
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
