//! What our own account may do in the cluster, asked of the server itself (SelfSubjectAccessReview), and who else stands
//! where our offers reach.

use super::api::Object;
use super::{BROKER, GRANT, Kubernetes, account_name, binding, bindings};
use crate::evidence::{broken, fine, warning};
use authority::target::{Finding, Gravity, Standing, TargetError};
use domain::GrantId;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What would make a broker the master of the cluster.
fn forbidden(accounts: &str) -> [(&'static str, Value); 9] {
    let rbac = "rbac.authorization.k8s.io";
    [
        ("may do everything", json!({ "verb": "*", "group": "*", "resource": "*" })),
        ("may bind roles in the whole cluster", json!({ "verb": "create", "group": rbac, "resource": "clusterrolebindings" })),
        ("may write roles", json!({ "verb": "create", "group": rbac, "resource": "roles", "namespace": accounts })),
        ("may write roles beyond its own", json!({ "verb": "escalate", "group": rbac, "resource": "clusterroles" })),
        ("may act as others", json!({ "verb": "impersonate", "resource": "users" })),
        ("may read secrets", json!({ "verb": "get", "resource": "secrets", "namespace": accounts })),
        ("may make legacy tokens", json!({ "verb": "create", "resource": "secrets", "namespace": accounts })),
        ("may start pods", json!({ "verb": "create", "resource": "pods", "namespace": accounts })),
        (
            "may ask for tokens of accounts elsewhere",
            json!({ "verb": "create", "resource": "serviceaccounts", "subresource": "token", "namespace": "kube-system" }),
        ),
    ]
}

/// A binding that we made: by its name, because anybody can write labels.
fn of_a_task(binding: &Object) -> bool {
    let grant = binding.metadata.labels.get(GRANT).and_then(|grant| grant.parse().ok());
    grant.is_some_and(|grant| binding.metadata.name == account_name(grant))
}

/// That of the manifest.
fn of_the_broker(binding: &Object) -> bool {
    binding.metadata.name == BROKER && binding.role.as_ref().is_some_and(|role| role.kind == "Role" && role.name == BROKER)
}

impl Kubernetes {
    pub(super) async fn examination(&self) -> Result<Vec<Finding>, TargetError> {
        let mut found = Vec::new();
        for (text, what) in forbidden(&self.accounts) {
            if self.api.may(&what).await? {
                found.push(broken("broker.rights", format!("our account {text}"), "bind it to the roles of the manifest alone"));
            }
        }
        for (text, what) in self.needed() {
            if !self.api.may(&what).await? {
                found.push(broken(
                    "broker.needs",
                    format!("our account may not {text}"),
                    "apply the manifest of `writ target install`",
                ));
            }
        }
        for (offer, template) in &self.templates {
            let resource = if template.cluster_role { "clusterroles" } else { "roles" };
            // The server looks for `bind` in the namespace of the binding, for roles of the whole cluster, too.
            let bind = json!({
                "verb": "bind", "group": "rbac.authorization.k8s.io", "resource": resource, "name": template.role,
                "namespace": template.namespace,
            });
            if !self.api.may(&bind).await? {
                let text = format!("our account may not bind `{}`, which offer `{offer}` needs", template.role);
                found.push(broken("broker.needs", text, "apply the manifest of `writ target install`"));
            }
        }
        self.bindings_of_offers(&mut found).await?;
        if found.iter().all(|finding| finding.gravity != Gravity::Broken) {
            found.push(fine("broker.rights", "our account may do what its offers need; what it must not do was refused"));
        }
        Ok(found)
    }

    /// What a review does not tell, because admission decides after rights: each offer's binding would be taken, and none that
    /// gives a role to anybody but a task, or our own to anybody.
    async fn bindings_of_offers(&self, found: &mut Vec<Finding>) -> Result<(), TargetError> {
        let task = account_name(GrantId::from_bytes([0; 16]));
        let metadata = json!({ "name": task });
        let mut open = BTreeSet::new();
        let (nobody, ours) = ((self.accounts.as_str(), task.as_str()), format!("{}-broker", self.accounts));
        for (offer, template) in &self.templates {
            let path = bindings(&template.namespace);
            let role = (if template.cluster_role { "ClusterRole" } else { "Role" }, template.role.as_str());
            if !self.api.would_create(&path, &binding(&metadata, role, nobody)).await? {
                let text = format!("a binding of `{}` as offer `{offer}` needs it would be refused", template.role);
                found.push(broken("broker.needs", text, "apply the manifest of `writ target install`, and look for the role"));
            }
            let others = [(("Role", BROKER), nobody), (role, (ours.as_str(), "writ"))];
            for (role, subject) in others {
                if self.api.would_create(&path, &binding(&metadata, role, subject)).await? {
                    open.insert(template.namespace.as_str());
                }
            }
        }
        let remedy = "apply the ValidatingAdmissionPolicy of `writ target install`; it needs Kubernetes 1.30 or later";
        found.extend(open.into_iter().map(|namespace| {
            warning("broker.bindings", format!("our account may bind roles in `{namespace}` to others than tasks"), remedy)
        }));
        Ok(())
    }

    fn needed(&self) -> Vec<(String, Value)> {
        let accounts = &self.accounts;
        let account = |verb: &str| json!({ "verb": verb, "resource": "serviceaccounts", "namespace": accounts });
        let mut needed: Vec<_> = ["create", "get", "list", "delete"]
            .map(|verb| (format!("{verb} service accounts in `{accounts}`"), account(verb)))
            .into();
        let token = json!({ "verb": "create", "resource": "serviceaccounts", "subresource": "token", "namespace": accounts });
        needed.push((format!("ask for tokens in `{accounts}`"), token));
        for namespace in self.namespaces() {
            for verb in ["create", "get", "delete"] {
                let what = json!({
                    "verb": verb, "group": "rbac.authorization.k8s.io", "resource": "rolebindings", "namespace": namespace,
                });
                needed.push((format!("{verb} role bindings in `{namespace}`"), what));
            }
        }
        needed
    }

    fn namespaces(&self) -> BTreeSet<&str> {
        self.templates.values().map(|template| template.namespace.as_str()).collect()
    }

    /// Bindings without an end in the namespaces that our offers reach.
    pub(super) async fn standing(&self) -> Result<Vec<Standing>, TargetError> {
        let mut standing = Vec::new();
        for namespace in self.namespaces() {
            let all = self.api.list(&bindings(namespace)).await?;
            let others = all.iter().filter(|binding| !of_a_task(binding) && !of_the_broker(binding));
            standing.extend(others.map(|binding| self.of_binding(namespace, binding)));
        }
        Ok(standing)
    }

    fn of_binding(&self, namespace: &str, binding: &Object) -> Standing {
        let role = binding.role.as_ref();
        let role_name = role.map(|role| role.name.clone()).unwrap_or_default();
        let subjects = binding.subjects.iter().map(|subject| format!("{} {}/{}", subject.kind, subject.namespace, subject.name));
        let mut flags = vec!["no_expiry"];
        if matches!(role_name.as_str(), "cluster-admin" | "admin") {
            flags.push("superuser");
        }
        if binding.subjects.len() > 1 || binding.subjects.iter().any(|subject| subject.kind == "Group") {
            flags.push("shared");
        }
        if !binding.metadata.annotations.contains_key("owner") && !binding.metadata.labels.contains_key("owner") {
            flags.push("owner_unknown");
        }
        let key = if role.is_some_and(|role| role.kind == "ClusterRole") { "cluster_role" } else { "role" };
        Standing {
            name: format!("{namespace}/{}", binding.metadata.name),
            kind: "role_binding",
            flags,
            details: BTreeMap::from([
                ("role", role_name.clone()),
                ("subjects", subjects.collect::<Vec<_>>().join(", ")),
                ("since", binding.metadata.creation_timestamp.clone()),
            ]),
            proposal: format!(
                "[offers.{role_name}]\nnamespace = \"{namespace}\"\n{key} = \"{role_name}\"\nlifetime_secs = 900\n"
            ),
        }
    }
}
