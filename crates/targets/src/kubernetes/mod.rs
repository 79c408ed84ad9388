//! Kubernetes: a service account for each task, in a namespace that holds nothing else, bound to a role that the
//! cluster's administrator made, and a token of it (TokenRequest, `authentication.k8s.io/v1`). Taking back deletes
//! the account, and with it every token, and the binding. What no API of the server can do is said in the evidence: a
//! watch or exec that was opened before goes on until the server closes it.

mod api;
mod examine;
mod install;

use crate::config::{Config, ConfigFault, ConfigFaults, OfferSection, Secret, Surroundings};
use crate::evidence::evidence;
use crate::https::Place;
use crate::offered;
use api::{Api, Outcome};
use authority::ShownPlan;
use authority::target::{Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError};
use domain::{Ending, GrantId, OfferName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The shortest life that the API server gives a token.
const NATIVE_SECS_MIN: u64 = 600;
/// How long an API server may remember that a token was good (its success cache; measured).
const CACHE_SECS: u64 = 10;
/// When the last of several API servers has noticed a deletion, and forgotten. A question reaches one of them alone.
const EVERYWHERE_SECS: u64 = CACHE_SECS + 2;
/// What our accounts and bindings are called: this and the hexadecimal digits of the grant.
const PREFIX: &str = "jit-";
/// What the manifest calls our own role and its binding.
const BROKER: &str = "writ-broker";
/// The label that says whose they are.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label that says for which grant.
const GRANT: &str = "writ.dev/grant";

/// One offer, as Kubernetes understands it.
#[derive(Debug, Clone)]
struct Template {
    namespace: String,
    role: String,
    cluster_role: bool,
    audiences: Vec<String>,
}

struct Kubernetes {
    api: Api,
    /// Who signed the server's certificate, for the holder's client.
    ca_pem: Option<String>,
    /// Where the accounts are: nobody else's may be there, because who may ask for tokens here may ask for any of them.
    accounts: String,
    templates: BTreeMap<OfferName, Template>,
    surroundings: Arc<dyn Surroundings>,
}

/// The label that says where the account's binding is.
const NAMESPACE: &str = "writ.dev/namespace";

/// What a plan carries: exactly this is created.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    accounts: String,
    agent: String,
    audiences: Vec<String>,
    cluster_role: bool,
    expires_at: i64,
    grant: String,
    name: String,
    namespace: String,
    role: String,
    secs: u64,
    task: String,
}

/// Where a credential's account and binding are, from its handle.
struct Names {
    accounts: String,
    namespace: String,
    name: String,
}

/// What the file says.
struct Read {
    place: Place,
    token: Secret,
    accounts: String,
    templates: BTreeMap<OfferName, Template>,
}

impl Read {
    fn of(config: &Config<'_>) -> Self {
        let connect = &config.connect;
        let accounts = name_of(connect, "accounts_namespace", "writ-leases");
        let templates = config.offers.iter().map(|(name, offer)| ((*name).clone(), template(offer, &accounts))).collect();
        Self { place: Place::read(connect, None), token: connect.secret("token"), accounts, templates }
    }
}

/// Reads the target's own part of its file.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let Read { place, token, accounts, templates } = Read::of(config);
    let https = place.open(&config.connect);
    let ca_pem = place.ca_pem.and_then(|pem| String::from_utf8(pem).ok());
    config.check()?;
    let Some(https) = https else { return Err(ConfigFault::new(&["connect", "url"], "cannot be used").into()) };
    Ok(Arc::new(Kubernetes { api: Api::new(https, token), ca_pem, accounts, templates, surroundings: config.surroundings() }))
}

/// The manifest that the cluster's administrator applies.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    let Read { accounts, templates, .. } = Read::of(config);
    let templates: Vec<_> = templates.into_values().collect();
    Ok(install::manifest(&accounts, &templates))
}

/// A name as the server wants it (RFC 1123 label), because it becomes part of a path.
fn name_of(section: &crate::config::Section<'_>, key: &str, example: &str) -> String {
    let name = section.text(key, example);
    if !name.is_empty() && !is_label(&name) {
        section.fault(key, format!("`{name}` is no name of Kubernetes"), "use a-z, 0-9 and `-`, at most 63");
    }
    name
}

fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-') && !text.ends_with('-')
}

fn template(offer: &OfferSection<'_>, accounts: &str) -> Template {
    let own = &offer.own;
    let namespace = name_of(own, "namespace", "shop");
    if namespace == accounts {
        own.fault(
            "namespace",
            "the namespace of the accounts holds nothing else",
            "bind the role in the namespace of its objects",
        );
    }
    let (role, cluster_role) = match (own.has("role"), own.has("cluster_role")) {
        (true, false) => (name_of(own, "role", "orders-reader"), false),
        (false, true) => (name_of(own, "cluster_role", "orders-reader"), true),
        _ => {
            own.fault("role", "an offer names either `role` or `cluster_role`", "for example: role = \"orders-reader\"");
            drop((own.text_if("role"), own.text_if("cluster_role")));
            (String::new(), false)
        }
    };
    if matches!(role.as_str(), "cluster-admin" | "admin" | "edit") {
        own.fault(
            if cluster_role { "cluster_role" } else { "role" },
            format!("`{role}` is never bound"),
            "make a role with what the task needs",
        );
    }
    Template { namespace, role, cluster_role, audiences: own.texts("audiences") }
}

impl Names {
    /// INVARIANT(ours): only a name that is made of this very grant is ever touched.
    fn of(handle: &Handle<'_>) -> Result<Self, TargetError> {
        let parts: Vec<_> = handle.handle.split('/').collect();
        let [accounts, namespace, name] = parts.as_slice() else { return Err(foreign()) };
        if *name != account_name(handle.grant) || !is_label(accounts) || !is_label(namespace) {
            return Err(foreign());
        }
        Ok(Self { accounts: (*accounts).to_owned(), namespace: (*namespace).to_owned(), name: (*name).to_owned() })
    }

    fn account(&self) -> String {
        format!("/api/v1/namespaces/{}/serviceaccounts/{}", self.accounts, self.name)
    }

    fn binding(&self) -> String {
        format!("{}/{}", bindings(&self.namespace), self.name)
    }
}

fn foreign() -> TargetError {
    TargetError::Unacceptable("the handle is not one of ours".to_owned())
}

fn account_name(grant: GrantId) -> String {
    format!("{PREFIX}{}", grant.digits())
}

fn bindings(namespace: &str) -> String {
    format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings")
}

/// The binding of a role to an account.
fn binding(metadata: &serde_json::Value, role: (&str, &str), account: (&str, &str)) -> serde_json::Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": role.0, "name": role.1 },
        "subjects": [{ "kind": "ServiceAccount", "namespace": account.0, "name": account.1 }],
    })
}

impl Carried {
    fn metadata(&self, namespace: &str) -> serde_json::Value {
        json!({
            "name": self.name, "namespace": namespace,
            "labels": { MANAGED_BY: "writ", GRANT: self.grant, NAMESPACE: self.namespace },
            "annotations": {
                "writ.dev/agent": self.agent, "writ.dev/task": self.task, "writ.dev/expires-at": self.expires_at.to_string(),
            },
        })
    }
}

impl Kubernetes {
    /// Account, token, binding: rights come last, so that whatever breaks in between can do nothing.
    async fn create(&self, carried: &Carried) -> Result<api::Token, TargetError> {
        let accounts = format!("/api/v1/namespaces/{}/serviceaccounts", carried.accounts);
        let account = json!({
            "apiVersion": "v1", "kind": "ServiceAccount", "metadata": carried.metadata(&carried.accounts),
            "automountServiceAccountToken": false,
        });
        self.api.create(&accounts, &account).await?;
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": { "audiences": carried.audiences, "expirationSeconds": carried.secs },
        });
        let token = self.api.token(&format!("{accounts}/{}/token", carried.name), &request).await?;
        let kind = if carried.cluster_role { "ClusterRole" } else { "Role" };
        let metadata = carried.metadata(&carried.namespace);
        let binding = binding(&metadata, (kind, &carried.role), (&carried.accounts, &carried.name));
        self.api.create(&bindings(&carried.namespace), &binding).await?;
        Ok(token)
    }

    /// Deletes what bears our mark; what bears another stays, and that is an error.
    async fn remove(&self, path: &str, grant: GrantId) -> Result<&'static str, TargetError> {
        let Some(object) = self.api.read(path).await? else { return Ok("not_found") };
        let labels = &object.metadata.labels;
        let mark = |name: &str, value: &str| labels.get(name).is_some_and(|label| label == value);
        if !mark(MANAGED_BY, "writ") || !mark(GRANT, &grant.to_string()) {
            return Err(TargetError::Refused("an object of this name does not bear our mark; it was left alone".to_owned()));
        }
        // The precondition is for the object that was looked at: one that was made anew meanwhile is not deleted.
        match self.api.delete(path, &object.metadata.uid).await? {
            Outcome::Done => Ok("deleted"),
            Outcome::NotFound => Ok("not_found"),
        }
    }
}

#[async_trait::async_trait]
impl Target for Kubernetes {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let template = offered::template(&self.templates, asked, "the API server makes its tokens")?;
        let carried = Carried {
            accounts: self.accounts.clone(),
            agent: asked.agent.to_string(),
            audiences: template.audiences.clone(),
            cluster_role: template.cluster_role,
            expires_at: asked.expires_at.secs(),
            grant: asked.grant.to_string(),
            name: account_name(asked.grant),
            namespace: template.namespace.clone(),
            role: template.role.clone(),
            // The server gives none shorter than ten minutes: the account's deletion ends it earlier.
            secs: asked.expires_at.secs_since(asked.now).max(NATIVE_SECS_MIN),
            task: asked.task.to_string(),
        };
        let summary = vec![
            format!("service account {}/{}", carried.accounts, carried.name),
            format!("bound to role {} in namespace {}", carried.role, carried.namespace),
            format!("token for {} seconds", carried.secs),
        ];
        offered::plan(
            asked,
            &carried,
            (format!("{}/{}/{}", carried.accounts, carried.namespace, carried.name), asked.expires_at),
            summary,
        )
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        let unreadable = |_| TargetError::NotShown("a plan that it cannot read");
        let carried: Carried = serde_json::from_slice(&plan.canonical).map_err(unreadable)?;
        let token = self.create(&carried).await?;
        let mut fields = BTreeMap::from([
            ("server".to_owned(), self.api.server()),
            ("namespace".to_owned(), carried.namespace),
            ("service_account".to_owned(), format!("{}/{}", carried.accounts, carried.name)),
            ("token_expires_at".to_owned(), token.expires_at),
        ]);
        fields.extend(self.ca_pem.clone().map(|pem| ("ca_pem".to_owned(), pem)));
        Ok(Minted { fields, secrets: BTreeMap::from([("token".to_owned(), token.token.clone())]), to_revoke: Some(token.token) })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        let place = Names::of(handle)?;
        match step {
            Ending::CloseAuth => Ok(evidence([("account", self.remove(&place.account(), handle.grant).await?)])),
            Ending::EndSessions => {
                // A cached token loses its rights here at once.
                let binding = self.remove(&place.binding(), handle.grant).await?;
                Ok(evidence([("binding", binding), ("open_watches", "until_the_server_closes_them")]))
            }
            Ending::Clean => {
                let again_at = Some(self.surroundings.now().plus_secs(EVERYWHERE_SECS));
                Ok(Evidence { again_at, ..evidence([("residue", "none")]) })
            }
            Ending::Verify => self.verify(&place, handle).await,
        }
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        let path = format!("/api/v1/namespaces/{}/serviceaccounts?labelSelector={MANAGED_BY}%3Dwrit", self.accounts);
        let objects = self.api.list(&path).await?;
        let found = objects.into_iter().filter_map(|object| {
            let grant: GrantId = object.metadata.labels.get(GRANT)?.parse().ok()?;
            let namespace = object.metadata.labels.get(NAMESPACE)?;
            let ours = object.metadata.name == account_name(grant);
            let expires_at = object.metadata.annotations.get("writ.dev/expires-at").and_then(|secs| secs.parse().ok());
            ours.then(|| Found {
                handle: format!("{}/{namespace}/{}", self.accounts, object.metadata.name),
                grant,
                expires_at: expires_at.map(Timestamp::from_secs),
            })
        });
        Ok(found.collect())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        self.examination().await
    }

    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        let token =
            minted.secrets.get("token").ok_or_else(|| TargetError::Unacceptable("there is no token to try".to_owned()))?;
        let slow = |_| TargetError::Unreachable("the token could not be tried in time".to_owned());
        tokio::time::timeout(within, self.api.accepts(token)).await.map_err(slow)?
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        self.standing().await
    }
}

impl Kubernetes {
    async fn verify(&self, place: &Names, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        if self.api.read(&place.account()).await?.is_some() || self.api.read(&place.binding()).await?.is_some() {
            return Err(TargetError::Refused("the account or its binding is still there".to_owned()));
        }
        let Some(token) = handle.to_revoke else { return Ok(evidence([("account", "not_found"), ("token", "unknown")])) };
        Ok(match self.api.accepts(token).await? {
            Acceptance::Refused => evidence([("account", "not_found"), ("token", "refused")]),
            // The server remembers good tokens for some seconds.
            Acceptance::Accepted => {
                let again_at = Some(self.surroundings.now().plus_secs(CACHE_SECS));
                Evidence { again_at, ..evidence([("account", "not_found"), ("token", "cached")]) }
            }
        })
    }
}

#[cfg(test)]
mod tests;
