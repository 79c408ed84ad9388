//! Google's Security Token Service, IAM credentials and Cloud Storage as one server: a provider trusts one issuer, one
//! audience and one key set, its principals may be the accounts that were bound to them, tokens live as long as was asked
//! (an hour at most), and a bucket is read only where both the account's role and the token's boundary reach. There is no
//! way to take a token back. What it cannot show: Google's own evaluation of conditions and of other boundaries.
#![expect(clippy::indexing_slicing, reason = "test support fails by panicking")]

use super::{Answer, Now, Seen, in_time, rfc3339, token, verified};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// How an account is lent.
const BIND: &str = "gcloud iam service-accounts add-iam-policy-binding ";
/// The longest that an assertion or an access token may live, in seconds.
const SECS_MAX: i64 = 3_600;

/// Whom a token is for.
#[derive(Debug, Clone)]
enum Holder {
    /// A principal of the provider, by the offer that its subject names.
    Principal(String),
    /// A service account with these scopes, within these buckets and for reading alone if it was cut down.
    Account { email: String, scopes: Vec<String>, buckets: Option<BTreeSet<String>> },
}

#[derive(Debug, Clone)]
struct Issued {
    holder: Holder,
    /// Whom the assertion vouched for.
    agent: String,
    expires_at: i64,
}

/// One project.
pub struct Google {
    now: Now,
    /// Which buckets an account may read and write, by its e-mail address.
    pub roles: BTreeMap<String, BTreeSet<String>>,
    /// Claims of the assertions that were taken.
    pub vouched: Vec<Value>,
    issuer: String,
    audience: String,
    /// What the provider's condition wants subjects to begin with.
    subjects: String,
    /// What the provider verifies with.
    pub key_set: String,
    /// How much longer a token lives than was asked for.
    pub generous_secs: i64,
    /// What happens before a token of an account is answered.
    pub before_answer: Option<Box<dyn Fn() + Send>>,
    /// Accounts, each with the offer whose principals may be it.
    bound: BTreeSet<(String, String)>,
    tokens: BTreeMap<String, Issued>,
}

impl Google {
    /// A project that trusts nobody yet.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self {
            now,
            roles: BTreeMap::new(),
            vouched: Vec::new(),
            issuer: String::new(),
            audience: String::new(),
            subjects: String::new(),
            key_set: String::new(),
            generous_secs: 0,
            before_answer: None,
            bound: BTreeSet::new(),
            tokens: BTreeMap::new(),
        }
    }

    /// What an administrator does with the output of `writ target install`: runs the commands.
    ///
    /// # Panics
    /// It is not what was expected.
    pub fn install(&mut self, script: &str) {
        let option = |name: &str| script.split(name).nth(1).unwrap().split('\'').nth(1).unwrap().to_owned();
        self.key_set = script.lines().find(|line| line.starts_with('{')).unwrap().to_owned();
        self.issuer = option("--issuer-uri=");
        self.audience = option("--allowed-audiences=");
        let pools = "gcloud iam workload-identity-pools";
        let known = [&format!("{pools} create "), &format!("{pools} providers create-oidc "), BIND];
        let mut commands = script.lines().filter(|line| line.starts_with("gcloud "));
        assert!(commands.all(|line| known.iter().any(|known| line.starts_with(*known))), "{script}");
        // A provider without a condition takes everybody whom its issuer names.
        let condition = script.split("--attribute-condition=").nth(1).unwrap_or_default();
        self.subjects = condition.split('"').nth(1).unwrap_or_default().to_owned();
        let pool = self.audience.trim_start_matches("//iam.googleapis.com/").split("/providers/").next().unwrap();
        // The attribute is what stands between these two.
        assert!(script.contains("attribute.offer=assertion.sub.extract(\"writ/{offer}/\")"), "{script}");
        let principals = format!("principalSet://iam.googleapis.com/{pool}/attribute.offer/");
        for command in script.split(BIND).skip(1) {
            assert!(command.contains(&principals) && command.contains("roles/iam.workloadIdentityUser"), "{command}");
            let offer = command.split(&principals).nth(1).unwrap().split('\'').next().unwrap();
            self.bound.insert((command.split('\'').nth(1).unwrap().to_owned(), offer.to_owned()));
        }
    }

    /// For which agents tokens of accounts work at this moment.
    #[must_use]
    pub fn live(&self) -> Vec<String> {
        let now = (self.now)();
        let of_account = |issued: &&Issued| issued.expires_at > now && matches!(issued.holder, Holder::Account { .. });
        self.tokens.values().filter(of_account).map(|issued| issued.agent.clone()).collect()
    }

    /// Seconds that this token still works.
    #[must_use]
    pub fn lives_secs(&self, token: &str) -> Option<i64> {
        self.known(token).map(|issued| issued.expires_at - (self.now)())
    }

    /// Answers one request.
    pub fn answer(&mut self, seen: &Seen) -> Answer {
        let path = seen.path.split('?').next().unwrap_or_default();
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        match (seen.method.as_str(), parts.as_slice()) {
            ("POST", ["v1", "token"]) => match seen.form().get("subject_token_type").map(String::as_str) {
                Some(JWT) => self.federate(&seen.form()),
                Some(ACCESS_TOKEN) => self.cut_down(&seen.form()),
                _ => refused(400, "invalid_request"),
            },
            ("POST", ["v1", "projects", "-", "serviceAccounts", call]) => self.generate(seen, call),
            ("POST", ["tokeninfo"]) => {
                let known = self.known(seen.form().get("access_token").map(String::as_str).unwrap_or_default()).is_some();
                if known { Answer::json(200, &json!({ "expires_in": "1" })) } else { refused(400, "invalid_token") }
            }
            ("GET", [.., "b", bucket, "o", object]) => {
                self.forbids(seen, bucket, false).unwrap_or_else(|| read(seen, bucket, object))
            }
            ("POST", [.., "b", bucket, "o"]) => self.forbids(seen, bucket, true).unwrap_or_else(|| read(seen, bucket, "new")),
            // No account lists the buckets of the project.
            ("GET", [.., "b"]) => self.forbids(seen, "", false).unwrap_or_else(|| refused(403, "forbidden")),
            _ => refused(404, "notFound"),
        }
    }

    fn mint(&mut self, kind: &str, agent: &str, holder: Holder, secs: i64) -> String {
        let token = token(&format!("ya29.{kind}."));
        self.tokens.insert(token.clone(), Issued { holder, agent: agent.to_owned(), expires_at: (self.now)() + secs });
        token
    }

    fn known(&self, token: &str) -> Option<&Issued> {
        self.tokens.get(token).filter(|issued| issued.expires_at > (self.now)())
    }

    fn federate(&mut self, form: &BTreeMap<String, String>) -> Answer {
        let Some(claims) = verified(&form["subject_token"], &self.key_set) else { return refused(400, "invalid_grant") };
        let subject = claims["sub"].as_str().unwrap_or_default();
        let good = form["grant_type"] == EXCHANGE
            && claims["iss"] == self.issuer.as_str()
            && claims["aud"] == self.audience.as_str()
            && form["audience"] == self.audience
            && subject.starts_with(&self.subjects)
            && subject.len() <= 127
            && in_time(&claims, (self.now)(), SECS_MAX);
        if !good {
            return refused(403, "unauthorized_client");
        }
        let agent = claims["writ_agent"].as_str().unwrap_or_default().to_owned();
        let offer = subject.strip_prefix("writ/").and_then(|rest| rest.split_once('/')).map(|(offer, _)| offer.to_owned());
        let holder = Holder::Principal(offer.unwrap_or_default());
        self.vouched.push(claims);
        let token = self.mint("federated", &agent, holder, SECS_MAX);
        Answer::json(200, &json!({ "access_token": token, "expires_in": SECS_MAX, "token_type": "Bearer" }))
    }

    fn generate(&mut self, seen: &Seen, call: &str) -> Answer {
        let Some(email) = call.strip_suffix(":generateAccessToken") else { return refused(404, "notFound") };
        let agent = match self.known(&seen.bearer()) {
            None => return refused(401, "UNAUTHENTICATED"),
            Some(issued) => match &issued.holder {
                Holder::Principal(offer) if self.bound.contains(&(email.to_owned(), offer.clone())) => issued.agent.clone(),
                _ => return refused(403, "PERMISSION_DENIED"),
            },
        };
        let asked = seen.json();
        let secs = asked["lifetime"].as_str().and_then(|text| text.strip_suffix('s')).and_then(|text| text.parse().ok());
        let Some(secs) = secs.filter(|secs| (1..=SECS_MAX).contains(secs)) else { return refused(400, "INVALID_ARGUMENT") };
        let scopes =
            asked["scope"].as_array().into_iter().flatten().filter_map(|scope| scope.as_str().map(str::to_owned)).collect();
        let secs = secs + self.generous_secs;
        let token = self.mint("account", &agent, Holder::Account { email: email.to_owned(), scopes, buckets: None }, secs);
        if let Some(before) = &self.before_answer {
            before();
        }
        Answer::json(200, &json!({ "accessToken": token, "expireTime": rfc3339((self.now)() + secs) }))
    }

    fn cut_down(&mut self, form: &BTreeMap<String, String>) -> Answer {
        let now = (self.now)();
        let Some(issued) = self.known(&form["subject_token"]).cloned() else { return refused(400, "invalid_grant") };
        let Holder::Account { email, scopes, buckets: None } = issued.holder else { return refused(400, "invalid_grant") };
        let options: Value = serde_json::from_str(&form["options"]).unwrap_or_default();
        let rules = options["accessBoundary"]["accessBoundaryRules"].as_array().cloned().unwrap_or_default();
        let viewer = |rule: &Value| rule["availablePermissions"] == json!(["inRole:roles/storage.objectViewer"]);
        let bucket = |rule: &Value| rule["availableResource"].as_str()?.rsplit_once("/buckets/").map(|(_, name)| name.to_owned());
        let buckets: Option<BTreeSet<_>> = rules.iter().map(|rule| viewer(rule).then(|| bucket(rule)).flatten()).collect();
        if rules.is_empty() || buckets.is_none() {
            return refused(400, "invalid_request");
        }
        // What is cut down lives no longer than what it was cut from.
        let token = self.mint("bounded", &issued.agent, Holder::Account { email, scopes, buckets }, issued.expires_at - now);
        Answer::json(200, &json!({ "access_token": token, "token_type": "Bearer" }))
    }

    /// What stands in the way of this: who asks, what its account may, what its token is for.
    fn forbids(&self, seen: &Seen, bucket: &str, writes: bool) -> Option<Answer> {
        let holder = self.known(&seen.bearer()).map(|issued| &issued.holder);
        let Some(Holder::Account { email, scopes, buckets }) = holder else { return Some(refused(401, "authError")) };
        let role = self.roles.get(email).is_some_and(|own| own.contains(bucket));
        let scope = scopes.iter().filter_map(|scope| scope.rsplit('/').next()).any(|scope| match scope {
            "cloud-platform" | "devstorage.read_write" => true,
            "devstorage.read_only" => !writes,
            _ => false,
        });
        let boundary = buckets.as_ref().is_none_or(|buckets| !writes && buckets.contains(bucket));
        (!(role && scope && boundary)).then(|| refused(403, "forbidden"))
    }
}

fn read(seen: &Seen, bucket: &str, object: &str) -> Answer {
    let content = format!("the object {object}");
    if seen.path.contains("alt=media") {
        return Answer::bytes(200, "application/octet-stream", content.into_bytes());
    }
    let size = content.len().to_string();
    Answer::json(200, &json!({ "kind": "storage#object", "bucket": bucket, "name": object, "size": size }))
}

fn refused(status: u16, why: &str) -> Answer {
    Answer::json(status, &json!({ "error": { "code": status, "message": why, "status": why } }))
}
