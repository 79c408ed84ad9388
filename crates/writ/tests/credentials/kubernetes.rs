//! Kubernetes through an unmodified `kubectl`: an API server as its strict peer plays it, with RBAC, or a real one where
//! `WRIT_KUBE_APISERVER` says where its program is (`e2e/kubernetes/run` builds it). The administrator applies what
//! `writ target install` prints.

use crate::lab::{Lab, Place, at_target, err, event, install_script, kind, out, secret};
use crate::platform::{Platform, lines, programs};
use crate::served::text;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use testkit::RealKubernetes;
use testkit::peer::kubernetes::{ADMIN, Cluster};

/// One or the other.
pub(crate) enum Api {
    Played(Platform<Cluster>),
    Real(RealKubernetes),
}

impl Api {
    fn url(&self) -> String {
        match self {
            Self::Played(platform) => platform.peer.url.clone(),
            Self::Real(server) => server.url(),
        }
    }

    /// Paths of all objects in this list.
    fn below(&self, path: &str) -> Vec<String> {
        match self {
            Self::Played(platform) => platform.state().below(path),
            Self::Real(server) => server.below(path),
        }
    }

    /// Whether it asks policies of admission: the played one knows none.
    fn admits(&self) -> bool {
        matches!(self, Self::Real(_))
    }

    /// What makes `kubectl` ask another API server of the same cluster than Writ does, where there can be one.
    fn elsewhere(&mut self) -> String {
        match self {
            Self::Played(_) => String::new(),
            Self::Real(server) => format!("--server={}", server.another()),
        }
    }

    /// From now on the server takes every token for good that it has seen, or none; a real one does as it likes.
    fn remember(&self, all: bool) {
        if let Self::Played(platform) = self {
            platform.state().remember(all);
        }
    }

    /// `kubectl` with the token of this file, and nothing of whoever runs the test.
    fn kubectl(&self, dir: &Path, token: &str, args: &[&str], input: &str) -> Output {
        let config = json!({ "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": self.url(), "certificate-authority": dir.join("platform.pem") } }],
            "users": [{ "name": "c", "user": { "tokenFile": dir.join(token) } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "c" } }] });
        let file = dir.join(format!("kubeconfig-{}", token.replace('/', "-")));
        fs::write(&file, config.to_string()).unwrap();
        let mut kubectl = Command::new("kubectl");
        kubectl.args(args).env("KUBECONFIG", file).env("HOME", dir);
        let mut kubectl = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // One that is refused early does not read.
        let _ = kubectl.stdin.take().unwrap().write_all(input.as_bytes());
        kubectl.wait_with_output().unwrap()
    }

    /// What the administrator does.
    fn administrator(&self, dir: &Path, args: &[&str], input: &str) -> String {
        let output = self.kubectl(dir, "admin.token", args, input);
        assert!(output.status.success(), "{args:?}: {}", err(&output));
        out(&output)
    }
}

/// What runs in the cluster, and who may read it.
fn application() -> Value {
    let namespace = |name: &str| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let pod = |namespace: &str, name: &str| {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "namespace": namespace, "name": name },
                "spec": { "containers": [{ "name": "one", "image": "example.org/none" }] } })
    };
    let rbac = "rbac.authorization.k8s.io/v1";
    let rules = json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] }]);
    let items = json!([
        namespace("shop"), namespace("billing"), pod("shop", "orders-1"), pod("billing", "cards-1"),
        { "apiVersion": rbac, "kind": "Role", "metadata": { "namespace": "shop", "name": "pod-reader" }, "rules": rules },
        { "apiVersion": rbac, "kind": "ClusterRole", "metadata": { "name": "pod-viewer" }, "rules": rules },
        { "apiVersion": rbac, "kind": "RoleBinding", "metadata": { "namespace": "shop", "name": "old" },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pod-reader" },
          "subjects": [{ "kind": "ServiceAccount", "namespace": "shop", "name": "nobody" }] },
        { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "shop", "name": "nobody" } },
    ]);
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

impl Place for Api {
    const TARGET: &'static str = "cluster";
    const READ: (&'static str, Option<&'static str>) = ("read_pods", None);

    fn target_file(&self, dir: &Path) -> String {
        match self {
            Self::Played(platform) => platform.write_ca(dir),
            Self::Real(server) => fs::write(dir.join("platform.pem"), server.ca_pem()).unwrap(),
        }
        r#"
kind = "kubernetes"
owner = "support"
description = "The cluster."
[connect]
url = "URL"
ca_file = "platform.pem"
token = { file = "secrets/cluster" }
accounts_namespace = "writ-leases"
[offers.read_pods]
description = "Reads what runs in `shop`."
lifetime_secs = 300
namespace = "shop"
role = "pod-reader"
[offers.view]
description = "Reads what runs in `shop`, by a role of the whole cluster."
lifetime_secs = 300
namespace = "shop"
cluster_role = "pod-viewer"
"#
        .replace("URL", &self.url())
    }

    fn policy(&self) -> String {
        let permit = |offer: &str| {
            format!(
                "@id(\"{offer}\") permit (principal is Intent::Work, action == Cluster::Action::\"{offer}\", \
                 resource is Writ::Credential) when {{ principal.subject == \"eu\" }};\n"
            )
        };
        ["read_pods", "view"].map(permit).concat()
    }

    fn install(&self, dir: &Path) {
        fs::write(dir.join("admin.token"), ADMIN).unwrap();
        let apply = ["apply", "--validate=false", "-f", "-"];
        self.administrator(dir, &apply, &application().to_string());
        self.administrator(dir, &apply, &install_script(dir, "cluster"));
        let request =
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 86_400 } });
        let path = "/api/v1/namespaces/writ-leases-broker/serviceaccounts/writ/token";
        let answer = self.administrator(dir, &["create", "--raw", path, "-f", "-"], &request.to_string());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        secret(dir, "cluster", answer.pointer("/status/token").and_then(Value::as_str).unwrap());
    }

    /// Accounts and bindings of tasks.
    fn standing(&self) -> String {
        let mut ours = self.below("/api/v1/namespaces/writ-leases/serviceaccounts");
        ours.extend(self.below("/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings"));
        ours.retain(|path| path.contains("/jit-"));
        ours.join("\n")
    }

    /// A real server has its own clock: what it issued lives there as long as it says.
    fn later(&self, secs: i64) {
        if let Self::Played(platform) = self {
            platform.set_ahead(secs);
        }
    }
}

pub(crate) fn lab() -> Option<Lab<Api>> {
    if !programs(&["kubectl"]) {
        return None;
    }
    let real = RealKubernetes::start().map(Api::Real);
    Some(Lab::start(real.unwrap_or_else(|| Api::Played(Platform::start(Cluster::new, Cluster::answer)))))
}

/// A script with `kubectl` in a home of its own; `said` is the reason of a refusal.
fn shell(script: &str) -> String {
    format!(
        "export HOME=$(mktemp -d); trap 'rm -rf $HOME' EXIT; \
         said() {{ kubectl \"$@\" 2>&1 | grep -oE '\\((Forbidden|NotFound|Unauthorized)\\)' | tail -1; }}\n{script}"
    )
}

#[test]
fn an_unmodified_kubectl_reads_what_its_task_may_and_nothing_else_and_then_the_account_is_gone() {
    let Some(lab) = lab() else { return };
    let script = shell(
        r#"
        kubectl get pods -o name
        said get pods -n billing
        said delete pod orders-1
        said get secrets
        said get rolebindings
        said get --raw /api/v1/namespaces/writ-leases/serviceaccounts
        exit 0
    "#,
    );
    let forbidden = ["(Forbidden)"; 5];
    assert_eq!(lines(&mut lab.command(&script)), [&["pod/orders-1"][..], &forbidden].concat());
    lab.over();
    assert_eq!(text(&lab.credential(), "revoked_because"), "task_ended");
    // A role of the whole cluster is bound in the one namespace.
    let mut viewing =
        lab.command_with("eu", &[("view", None)], &shell("kubectl get pods -o name; said get pods -n billing; exit 0"));
    assert_eq!(lines(&mut viewing), ["pod/orders-1", "(Forbidden)"]);
    lab.over();
    lab.another_subject_gets_nothing();
    lab.asks_over_rest();
    lab.doctor_is_content();
    let standing = lab.json(&["target", "scan", "cluster"]).to_string();
    assert!(standing.contains("shop/old") && !standing.contains("shop/writ-broker"), "{standing}");
}

/// In a real cluster, the command uses another API server than the one that Writ asks: each remembers tokens for itself.
#[test]
fn the_end_of_the_task_ends_the_token_in_the_hands_of_its_command_and_a_cached_one_can_do_nothing() {
    let Some(mut lab) = lab() else { return };
    let to = lab.place.elsewhere();
    let script = format!("kubectl {to} get pods -o name; read _; said {to} get pods; read _; said {to} get pods; echo out");
    let mut session = lab.live(&shell(&script));
    assert_eq!(session.first, "pod/orders-1");
    lab.place.remember(true);
    lab.end_task();
    lab.until("the binding is gone", || lab.place.standing().is_empty());
    session.go_on();
    let cached = session.line();
    if lab.place.admits() {
        // A real one may have forgotten it by now.
        assert!(["(Forbidden)", "(Unauthorized)"].contains(&cached.as_str()), "{cached}");
    } else {
        assert_eq!(cached, "(Forbidden)", "the server remembers the token, and it has no rights");
        lab.until("what can be done is done", || at_target(&lab.credential()) == "residue_cleaned");
    }
    lab.place.remember(false);
    lab.over();
    session.go_on();
    assert_eq!(session.line(), "(Unauthorized)", "what is called dead is refused everywhere");
}

#[test]
fn an_open_watch_goes_on_as_the_evidence_says() {
    let Some(lab) = lab() else { return };
    if !lab.place.admits() {
        return eprintln!("SKIPPED: only a real server has watches that go on; see e2e/kubernetes/run");
    }
    let mut session = lab.live(&shell("kubectl get pods --watch -o name & watch=$!; read _; kill $watch"));
    assert_eq!(session.first, "pod/orders-1");
    lab.end_task();
    lab.over();
    let pod = application().pointer("/items/2").cloned().unwrap().to_string().replace("orders-1", "orders-2");
    lab.place.administrator(lab.dir(), &["create", "--validate=false", "-f", "-"], &pod);
    assert_eq!(session.line(), "pod/orders-2");
    let entries = lab.entries();
    let mut ends = entries.iter().filter(|entry| kind(entry) == "end_sessions");
    assert!(ends.all(|end| event(end, "detail/evidence/open_watches") == "until_the_server_closes_them"));
}

#[test]
fn a_broker_turned_evil_gets_from_the_cluster_what_its_manifest_says_and_no_more() {
    let Some(lab) = lab() else { return };
    let asks = |method: &str, path: &str, body: &Value| {
        let args = ["create", "--raw", path, "-f", "-"];
        let args = if method == "GET" { &["get", "--raw", path][..] } else { &args };
        lab.place.kubectl(lab.dir(), "secrets/cluster", args, &body.to_string())
    };
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let binding = |kind: &str, role: &str| {
        json!({ "metadata": { "name": format!("mine-{role}") },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role },
                "subjects": [{ "kind": "ServiceAccount", "namespace": "writ-leases-broker", "name": "writ" }] })
    };
    let role = json!({ "metadata": { "name": "mine" }, "rules": [{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }] });
    let pod =
        json!({ "metadata": { "name": "mine" }, "spec": { "containers": [{ "name": "one", "image": "example.org/none" }] } });
    let none = json!({});
    for (method, path, body) in [
        ("POST", format!("{rbac}/namespaces/shop/roles"), role.clone()),
        ("POST", format!("{rbac}/clusterroles"), role),
        ("POST", format!("{rbac}/clusterrolebindings"), binding("ClusterRole", "pod-viewer")),
        ("POST", format!("{rbac}/namespaces/shop/rolebindings"), binding("ClusterRole", "cluster-admin")),
        ("POST", format!("{rbac}/namespaces/billing/rolebindings"), binding("ClusterRole", "pod-viewer")),
        ("POST", format!("{rbac}/namespaces/writ-leases/rolebindings"), binding("ClusterRole", "pod-viewer")),
        ("POST", "/api/v1/namespaces/writ-leases/secrets".to_owned(), json!({ "metadata": { "name": "mine" } })),
        ("POST", "/api/v1/namespaces/writ-leases/pods".to_owned(), pod),
        ("POST", "/api/v1/namespaces/shop/serviceaccounts/nobody/token".to_owned(), json!({ "spec": {} })),
        ("POST", "/api/v1/namespaces/writ-leases-broker/serviceaccounts/writ/token".to_owned(), json!({ "spec": {} })),
        ("GET", "/api/v1/namespaces/shop/pods".to_owned(), none.clone()),
        ("GET", "/api/v1/namespaces/writ-leases/secrets".to_owned(), none),
    ] {
        let output = asks(method, &path, &body);
        assert!(!output.status.success() && err(&output).contains("(Forbidden)"), "{method} {path}: {}", err(&output));
    }
    // RBAC allows it to give its own role and those of its offers to others, and to take others' away; admission does not.
    let (own, old) = ("writ-leases-broker", format!("{rbac}/namespaces/shop/rolebindings/old"));
    let left = [
        (format!("{rbac}/namespaces/shop/rolebindings"), binding("Role", "pod-reader")),
        (format!("{rbac}/namespaces/shop/rolebindings"), binding("Role", "writ-broker")),
        ("/api/v1/namespaces/writ-leases/serviceaccounts".to_owned(), json!({ "metadata": { "name": "mine" } })),
        ("/api/v1/namespaces/writ-leases/serviceaccounts/there/token".to_owned(), json!({ "spec": {} })),
    ];
    let there =
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "namespace": "writ-leases", "name": "there" } });
    lab.place.administrator(lab.dir(), &["create", "--validate=false", "-f", "-"], &there.to_string());
    let verdict = || text(&lab.json(&["target", "doctor", "cluster"]), "verdict").to_owned();
    if lab.place.admits() {
        for (path, body) in &left {
            let output = asks("POST", path, body);
            assert!(err(&output).contains("ValidatingAdmissionPolicy"), "{path}: {} {}", out(&output), err(&output));
        }
        let output = lab.place.kubectl(lab.dir(), "secrets/cluster", &["delete", "--raw", &old], "");
        assert!(err(&output).contains("ValidatingAdmissionPolicy"), "{} {}", out(&output), err(&output));
        assert_eq!(verdict(), "fine");
        lab.place.administrator(lab.dir(), &["delete", "validatingadmissionpolicybinding", own], "");
        lab.until("the servers have noticed", || verdict() == "warning");
    } else {
        assert_eq!(verdict(), "warning");
    }
    for (path, body) in &left {
        let output = asks("POST", path, body);
        assert!(output.status.success(), "{path}: {}", err(&output));
    }
}

#[test]
fn killed_while_a_token_is_live_or_right_after_its_issue_writ_leaves_no_account_behind() {
    let Some(mut lab) = lab() else { return };
    lab.dies_while_it_is_live(&shell("kubectl get pods -o name; read _"));
    lab.dies_right_after_issue();
}
