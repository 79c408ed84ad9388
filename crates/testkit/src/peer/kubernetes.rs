//! A Kubernetes API server as far as Writ and `kubectl` need one: objects with uids and labels, deletion with preconditions and
//! finalizers, TokenRequest with its floor of ten minutes, tokens that die with their account (after a cache), dry runs,
//! discovery, and RBAC over the roles and bindings that stand there, `bind` included; each as a kube-apiserver 1.34 answered.
//! What it cannot show: watches that go on, and policies of admission, which stand here and are not asked.
#![expect(clippy::indexing_slicing, reason = "test support fails by panicking")]

use super::{Answer, Now, Seen, rfc3339, token};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";
/// The shortest life of a token, in seconds.
const TOKEN_SECS_MIN: i64 = 600;
/// How long a token is good whose account is being deleted and waits for a finalizer, in seconds.
const DELETED_SECS: i64 = 60;
/// The bearer token of the cluster's administrator.
pub const ADMIN: &str = "the-token-of-the-administrator";

/// What a request asks for, in RBAC's words.
#[derive(Debug, Default, Clone)]
struct Asked {
    verb: String,
    group: String,
    namespace: String,
    /// With its subresource: `serviceaccounts/token`.
    resource: String,
    name: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
enum User {
    Admin,
    Account { namespace: String, name: String },
}

struct Issued {
    namespace: String,
    name: String,
    uid: Value,
    expires_at: i64,
}

/// One cluster.
pub struct Cluster {
    now: Now,
    /// All objects, by path.
    pub objects: BTreeMap<String, Value>,
    tokens: BTreeMap<String, Issued>,
    /// Tokens that are remembered as good.
    cache: Vec<String>,
    uids: u64,
}

impl Cluster {
    /// A cluster with nothing in it.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self { now, objects: BTreeMap::new(), tokens: BTreeMap::new(), cache: Vec::new(), uids: 0 }
    }

    /// Puts an object there, as an administrator does.
    pub fn create(&mut self, path: &str, mut object: Value) -> Answer {
        let name = object["metadata"]["name"].as_str().unwrap();
        let place = format!("{path}/{name}");
        if self.objects.contains_key(&place) {
            return status(409, "AlreadyExists", &format!("{} \"{name}\" already exists", resource_at(path)));
        }
        self.uids += 1;
        object["metadata"]["uid"] = format!("uid-{}", self.uids).into();
        object["metadata"]["creationTimestamp"] = rfc3339((self.now)()).into();
        self.objects.insert(place, object.clone());
        Answer::json(201, &object)
    }

    /// A role with these rules in `namespace`, and its binding to an account.
    pub fn grant(&mut self, namespace: &str, name: &str, rules: &Value, (accounts, account): (&str, &str)) {
        let path = format!("/apis/{RBAC}/v1/namespaces/{namespace}");
        self.create(&format!("{path}/roles"), json!({ "kind": "Role", "metadata": { "name": name }, "rules": rules }));
        let binding = json!({ "kind": "RoleBinding", "metadata": { "name": name },
            "roleRef": { "kind": "Role", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "namespace": accounts, "name": account }] });
        self.create(&format!("{path}/rolebindings"), binding);
    }

    /// A token of an account that is made if it is not there.
    pub fn token_of(&mut self, namespace: &str, name: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
        self.create(&path, json!({ "metadata": { "name": name, "namespace": namespace } }));
        self.issue(namespace, name, 86_400).unwrap()
    }

    /// From now on every token that was issued so far is taken for good, as within the server's cache; or none is.
    pub fn remember(&mut self, all: bool) {
        self.cache = if all { self.tokens.keys().cloned().collect() } else { Vec::new() };
    }

    /// Paths of all objects below this one.
    #[must_use]
    pub fn below(&self, path: &str) -> Vec<String> {
        let list = format!("{path}/");
        self.objects.keys().filter(|place| place.starts_with(&list)).cloned().collect()
    }

    /// Answers one request.
    pub fn answer(&mut self, seen: &Seen) -> Answer {
        let Some(user) = self.user(&seen.bearer()) else { return status(401, "Unauthorized", "Unauthorized") };
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        if let Some(document) = discovery(path) {
            return Answer::json(200, &document);
        }
        if path.ends_with("/selfsubjectaccessreviews") {
            return self.review(&user, &seen.json());
        }
        let Some(asked) = Asked::of(seen.method.as_str(), path) else {
            return status(404, "NotFound", "the server could not find the requested resource");
        };
        if !self.may(&user, &asked) {
            return asked.forbidden(&user);
        }
        match (asked.verb.as_str(), asked.resource.as_str()) {
            ("create", "serviceaccounts/token") => self.token_request(&asked, &seen.json()),
            ("create", "rolebindings") if !self.may_bind(&user, &asked, &seen.json()) => asked.forbidden(&user),
            ("create", _) if query.contains("dryRun=All") => Answer::json(201, &seen.json()),
            ("create", _) => self.create(path, seen.json()),
            ("get", _) => self.objects.get(path).map_or_else(|| not_found(path), |object| Answer::json(200, object)),
            ("list", _) => self.list(path, query, &asked),
            ("delete", _) => self.delete(path, &seen.json(), user == User::Admin),
            _ => status(405, "MethodNotAllowed", "the server does not allow this method on the requested resource"),
        }
    }

    fn user(&self, token: &str) -> Option<User> {
        if token == ADMIN {
            return Some(User::Admin);
        }
        let issued = self.tokens.get(token)?;
        let account = self.objects.get(&format!("/api/v1/namespaces/{}/serviceaccounts/{}", issued.namespace, issued.name));
        let going = |account: &Value| account["metadata"]["deletionTimestamp"].as_str().map(seconds);
        let stands = account.is_some_and(|account| {
            account["metadata"]["uid"] == issued.uid && going(account).is_none_or(|at| (self.now)() < at + DELETED_SECS)
        });
        let good = stands || self.cache.iter().any(|cached| cached == token);
        (good && issued.expires_at > (self.now)())
            .then(|| User::Account { namespace: issued.namespace.clone(), name: issued.name.clone() })
    }

    /// RBAC: a rule of a role that is bound to the user, in the whole cluster or in the namespace that is asked about.
    fn may(&self, user: &User, asked: &Asked) -> bool {
        let User::Account { namespace, name } = user else { return true };
        let own = format!("/apis/{RBAC}/v1/namespaces/{}", asked.namespace);
        let wide = format!("/apis/{RBAC}/v1");
        let bound = |binding: &Value| {
            let subjects = binding["subjects"].as_array().cloned().unwrap_or_default();
            subjects.iter().any(|subject| subject["namespace"] == namespace.as_str() && subject["name"] == name.as_str())
        };
        let lists = [format!("{own}/rolebindings/"), format!("{wide}/clusterrolebindings/")];
        let bindings = self
            .objects
            .iter()
            .filter(|(place, binding)| lists.iter().any(|list| place.starts_with(list.as_str())) && bound(binding));
        bindings.map(|(_, binding)| &binding["roleRef"]).any(|role| {
            let place = if role["kind"] == "ClusterRole" { format!("{wide}/clusterroles") } else { format!("{own}/roles") };
            let role = self.objects.get(&format!("{place}/{}", role["name"].as_str().unwrap_or_default()));
            role.is_some_and(|role| role["rules"].as_array().is_some_and(|rules| rules.iter().any(|rule| allows(rule, asked))))
        })
    }

    /// A role is bound only by who may `bind` it in the namespace of the binding, or has all of its rights there.
    fn may_bind(&self, user: &User, asked: &Asked, binding: &Value) -> bool {
        let role = &binding["roleRef"];
        let (resource, scope) = match role["kind"].as_str() {
            Some("ClusterRole") => ("clusterroles", format!("/apis/{RBAC}/v1")),
            _ => ("roles", format!("/apis/{RBAC}/v1/namespaces/{}", asked.namespace)),
        };
        let name = role["name"].as_str().unwrap_or_default().to_owned();
        let rules = self.objects.get(&format!("{scope}/{resource}/{name}")).map(|role| role["rules"].clone());
        let rules = rules.as_ref().and_then(Value::as_array);
        self.may(user, &Asked { verb: "bind".into(), resource: resource.into(), name, ..asked.clone() })
            || rules.is_some_and(|rules| rules.iter().all(|rule| self.has(user, rule, &asked.namespace)))
    }

    /// Whether the user has every right that the rule gives.
    fn has(&self, user: &User, rule: &Value, namespace: &str) -> bool {
        let words = |member: &str| -> Vec<String> {
            let listed = rule[member].as_array().cloned().unwrap_or_default();
            listed.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
        };
        let names = if words("resourceNames").is_empty() { vec![String::new()] } else { words("resourceNames") };
        let mut all = Vec::new();
        for verb in words("verbs") {
            for group in words("apiGroups") {
                for resource in words("resources") {
                    let asked = Asked {
                        verb: verb.clone(),
                        group: group.clone(),
                        namespace: namespace.into(),
                        resource,
                        name: String::new(),
                    };
                    all.extend(names.iter().map(|name| Asked { name: name.clone(), ..asked.clone() }));
                }
            }
        }
        all.iter().all(|asked| self.may(user, asked))
    }

    fn review(&self, user: &User, review: &Value) -> Answer {
        let what = &review["spec"]["resourceAttributes"];
        let of = |name: &str| what[name].as_str().unwrap_or_default().to_owned();
        let resource =
            if what["subresource"].is_null() { of("resource") } else { format!("{}/{}", of("resource"), of("subresource")) };
        let asked = Asked { verb: of("verb"), group: of("group"), namespace: of("namespace"), resource, name: of("name") };
        Answer::json(
            201,
            &json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "status": { "allowed": self.may(user, &asked) } }),
        )
    }

    fn token_request(&mut self, asked: &Asked, request: &Value) -> Answer {
        let secs = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3_600);
        if secs < TOKEN_SECS_MIN {
            let why = format!("Invalid value: {secs}: may not specify a duration less than 10 minutes");
            let why = format!("TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: {why}");
            return status(422, "Invalid", &why);
        }
        match self.issue(&asked.namespace, &asked.name, secs) {
            None => status(404, "NotFound", &format!("serviceaccounts \"{}\" not found", asked.name)),
            Some(token) => Answer::json(
                201,
                &json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
                "status": { "token": token, "expirationTimestamp": rfc3339((self.now)() + secs) } }),
            ),
        }
    }

    fn issue(&mut self, namespace: &str, name: &str, secs: i64) -> Option<String> {
        let account = self.objects.get(&format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}"))?;
        let (uid, token) = (account["metadata"]["uid"].clone(), token("eyJhbGciOiJSUzI1NiJ9."));
        let expires_at = (self.now)() + secs;
        self.tokens.insert(token.clone(), Issued { namespace: namespace.into(), name: name.into(), uid, expires_at });
        Some(token)
    }

    fn list(&self, path: &str, query: &str, asked: &Asked) -> Answer {
        let managed = query.contains("managed-by%3Dwrit");
        let here = self.objects.iter().filter(|(place, _)| place.rsplit_once('/').is_some_and(|(list, _)| list == path));
        let wanted =
            here.filter(|(_, object)| !managed || object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "writ");
        let items: Vec<_> = wanted.map(|(_, object)| object.clone()).collect();
        let kind = if asked.resource == "pods" { "PodList" } else { "List" };
        Answer::json(200, &json!({ "apiVersion": "v1", "kind": kind, "metadata": {}, "items": items }))
    }

    /// Stricter than the real one: who is no administrator must say which object it means.
    fn delete(&mut self, path: &str, options: &Value, freely: bool) -> Answer {
        let now = (self.now)();
        let Some(object) = self.objects.get_mut(path) else { return not_found(path) };
        if !freely && options["preconditions"]["uid"] != object["metadata"]["uid"] {
            let why = "Operation cannot be fulfilled: the UID in the precondition does not match the UID in record";
            return status(409, "Conflict", why);
        }
        if object["metadata"]["finalizers"].as_array().is_some_and(|waits_for| !waits_for.is_empty()) {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = rfc3339(now).into();
            }
            return Answer::json(200, object);
        }
        let object = self.objects.remove(path).unwrap_or_default();
        match resource_at(path.rsplit_once('/').map_or("", |(list, _)| list)).as_str() {
            "serviceaccounts" | "pods" => Answer::json(200, &object),
            _ => Answer::json(200, &json!({ "apiVersion": "v1", "kind": "Status", "status": "Success" })),
        }
    }
}

impl Asked {
    fn of(method: &str, path: &str) -> Option<Self> {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match parts.as_slice() {
            ["api", "v1", rest @ ..] => ("", rest),
            ["apis", group, "v1", rest @ ..] => (*group, rest),
            _ => return None,
        };
        let (namespace, resource, name, sub) = match rest {
            ["namespaces", namespace, resource] => (*namespace, *resource, "", ""),
            ["namespaces", namespace, resource, name] => (*namespace, *resource, *name, ""),
            ["namespaces", namespace, resource, name, sub] => (*namespace, *resource, *name, *sub),
            [resource] => ("", *resource, "", ""),
            [resource, name] => ("", *resource, *name, ""),
            _ => return None,
        };
        let verb = match (method, name) {
            ("POST", _) => "create",
            ("GET", "") => "list",
            ("GET", _) => "get",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", _) => "delete",
            _ => return None,
        };
        let resource = if sub.is_empty() { resource.to_owned() } else { format!("{resource}/{sub}") };
        Some(Self { verb: verb.into(), group: group.into(), namespace: namespace.into(), resource, name: name.into() })
    }
}

impl Asked {
    fn forbidden(&self, user: &User) -> Answer {
        let user = match user {
            User::Admin => "admin".to_owned(),
            User::Account { namespace, name } => format!("system:serviceaccount:{namespace}:{name}"),
        };
        let place = match self.namespace.as_str() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
        };
        let Self { verb, group, resource, .. } = self;
        let why = format!("cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}");
        status(403, "Forbidden", &format!("{resource} is forbidden: User \"{user}\" {why}"))
    }
}

/// What a list at this path is of, with its group as the server names it.
fn resource_at(path: &str) -> String {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["apis", group, _, .., resource] => format!("{resource}.{group}"),
        [.., resource] => (*resource).to_owned(),
        [] => String::new(),
    }
}

fn not_found(path: &str) -> Answer {
    let (list, name) = path.rsplit_once('/').unwrap_or_default();
    status(404, "NotFound", &format!("{} \"{name}\" not found", resource_at(list)))
}

fn seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().unwrap().as_second()
}

fn allows(rule: &Value, asked: &Asked) -> bool {
    let names = |member: &str, wanted: &str| {
        let listed = rule[member].as_array().cloned().unwrap_or_default();
        listed.iter().any(|one| one == wanted || one == "*")
    };
    let named = rule["resourceNames"].as_array().is_none_or(|all| all.is_empty() || all.iter().any(|one| *one == asked.name));
    names("verbs", &asked.verb) && names("apiGroups", &asked.group) && names("resources", &asked.resource) && named
}

/// What `kubectl` looks up before it asks for anything.
fn discovery(path: &str) -> Option<Value> {
    let resource = |(name, kind, namespaced): &(&str, &str, bool)| {
        json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind,
            "verbs": ["create", "delete", "get", "list"] })
    };
    let list = |version: &str, resources: &[(&str, &str, bool)]| {
        let resources: Vec<_> = resources.iter().map(resource).collect();
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources })
    };
    let core = [
        ("namespaces", "Namespace", false),
        ("pods", "Pod", true),
        ("secrets", "Secret", true),
        ("serviceaccounts", "ServiceAccount", true),
    ];
    let rbac = [
        ("clusterrolebindings", "ClusterRoleBinding", false),
        ("clusterroles", "ClusterRole", false),
        ("rolebindings", "RoleBinding", true),
        ("roles", "Role", true),
    ];
    let admission = [
        ("validatingadmissionpolicies", "ValidatingAdmissionPolicy", false),
        ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", false),
    ];
    let group = |name: &str| {
        let version = json!({ "groupVersion": format!("{name}/v1"), "version": "v1" });
        json!({ "name": name, "versions": [version], "preferredVersion": version })
    };
    match path.trim_end_matches('/') {
        "/api" => Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        "/api/v1" => Some(list("v1", &core)),
        "/apis" => Some(json!({ "kind": "APIGroupList", "apiVersion": "v1",
            "groups": [group(RBAC), group(ADMISSION)] })),
        "/apis/rbac.authorization.k8s.io/v1" => Some(list("rbac.authorization.k8s.io/v1", &rbac)),
        "/apis/admissionregistration.k8s.io/v1" => Some(list("admissionregistration.k8s.io/v1", &admission)),
        _ => None,
    }
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    Answer::json(
        code,
        &json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code }),
    )
}
