//! Google Cloud: an assertion of ours is exchanged at the Security Token Service for a federated token (RFC 8693), that
//! for a token of one prepared service account with a chosen life, and that, where the offer has a boundary, for one that
//! is cut down to some resources (Credential Access Boundary). Google has no way to take a token back: it dies by itself,
//! and the evidence says so.

use crate::config::{Config, ConfigFault, ConfigFaults, OfferSection, Surroundings};
use crate::evidence::{dies_by_itself, evidence, fine, warning};
use crate::federation::{Federation, Vouched, form, form_headers};
use crate::https::{Answer, Https, Place};
use crate::offered;
use authority::ShownPlan;
use authority::target::{Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError};
use domain::{Ending, OfferName, Timestamp};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// The longest life that a service account's token has without an organisation's exception.
const NATIVE_SECS_MAX: u64 = 3_600;
/// How long the exchanges may take, in seconds. The life of a token begins somewhere within them, so that it is asked for so
/// much shorter: it must be over when it is called dead.
const EXCHANGE_SECS: u64 = 5;
/// How far Google's clock may be from ours, in seconds.
const CLOCK_SECS: u64 = 60;
/// Longest `google.subject`.
const SUBJECT_CHARS_MAX: usize = 127;

/// One rule of a boundary.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    available_permissions: Vec<String>,
    available_resource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    availability_condition: Option<Condition>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Condition {
    expression: String,
}

/// One offer, as Google understands it.
struct Template {
    service_account: String,
    scopes: Vec<String>,
    boundary: Vec<Rule>,
}

struct Gcp {
    sts: Https,
    iam: Https,
    tokeninfo: Https,
    audience: String,
    federation: Federation,
    templates: BTreeMap<OfferName, Template>,
    surroundings: Arc<dyn Surroundings>,
}

/// What a plan carries.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    boundary: Vec<Rule>,
    ends_at: i64,
    scopes: Vec<String>,
    secs: u64,
    service_account: String,
    vouched: Vouched,
}

#[derive(Deserialize)]
struct Exchanged {
    #[serde(deserialize_with = "crate::https::secret")]
    access_token: SecretString,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Generated {
    #[serde(deserialize_with = "crate::https::secret")]
    access_token: SecretString,
    expire_time: String,
}

struct Read {
    sts: Option<Https>,
    iam: Option<Https>,
    tokeninfo: Option<Https>,
    pool: String,
    federation: Federation,
    templates: BTreeMap<OfferName, Template>,
}

impl Read {
    fn of(config: &Config<'_>) -> Self {
        let connect = &config.connect;
        let project = connect.integer_if("project_number", 1..=i64::MAX).unwrap_or_default();
        if project == 0 && !connect.has("project_number") {
            connect.fault("project_number", "`project_number` is missing", "for example: project_number = 123456789012");
        }
        let part = |key, example| {
            let text = connect.text(key, example);
            if !text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
                connect.fault(key, format!("`{text}` is no id"), "use a-z, 0-9 and `-`");
            }
            text
        };
        let (pool, provider) = (part("pool", "writ"), part("provider", "writ"));
        Self {
            sts: Place::within(connect, "sts", "https://sts.googleapis.com"),
            iam: Place::within(connect, "iam", "https://iamcredentials.googleapis.com"),
            tokeninfo: Place::within(connect, "tokeninfo", "https://oauth2.googleapis.com"),
            pool: format!(
                "//iam.googleapis.com/projects/{project}/locations/global/workloadIdentityPools/{pool}/providers/{provider}"
            ),
            federation: Federation::read(config),
            templates: config.offers.iter().map(|(name, offer)| ((*name).clone(), template(offer))).collect(),
        }
    }
}

/// Reads the target's own part of its file.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let Read { sts, iam, tokeninfo, pool, federation, templates } = Read::of(config);
    config.check()?;
    let (Some(sts), Some(iam), Some(tokeninfo)) = (sts, iam, tokeninfo) else {
        return Err(ConfigFault::new(&["connect"], "cannot be used").into());
    };
    let surroundings = config.surroundings();
    Ok(Arc::new(Gcp { sts, iam, tokeninfo, audience: pool, federation, templates, surroundings }))
}

/// What the project's administrator runs: a provider that trusts our key for our audience, and for each service account
/// the right of that provider's principals to be it. Nothing else is given.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    let read = Read::of(config);
    let (issuer, keys) = match read.federation.introduced() {
        Ok((issuer, keys)) => (issuer.to_owned(), keys),
        Err(error) => return Err(ConfigFault::new(&["connect", "assertion_key"], error.to_string()).into()),
    };
    let (Some(pool), Some(provider)) = (read.pool.split('/').nth(8), read.pool.rsplit('/').next()) else {
        return Err(ConfigFault::new(&["connect", "pool"], "cannot be used").into());
    };
    let mut script = format!(
        "# Writ's public key, and a provider that trusts it for this audience alone.\n\
         cat > writ-keys.json <<'KEYS'\n{keys}\nKEYS\n\
         gcloud iam workload-identity-pools create {pool} --location=global\n\
         gcloud iam workload-identity-pools providers create-oidc {provider} --location=global --workload-identity-pool={pool} \\\n  \
           --issuer-uri='{issuer}' --jwk-json-path=writ-keys.json --allowed-audiences='{audience}' \\\n  \
           --attribute-mapping='google.subject=assertion.sub,attribute.offer=assertion.sub.extract(\"writ/{{offer}}/\")' \\\n  \
           --attribute-condition='assertion.sub.startsWith(\"writ/\")'\n",
        audience = read.pool
    );
    let pool_path = read.pool.trim_start_matches("//iam.googleapis.com/").trim_end_matches(&format!("/providers/{provider}"));
    for (offer, template) in &read.templates {
        // Not the whole pool: another provider of it would be the account, too.
        script.push_str(&format!(
            "gcloud iam service-accounts add-iam-policy-binding '{}' --role=roles/iam.workloadIdentityUser \\\n  \
             --member='principalSet://iam.googleapis.com/{pool_path}/attribute.offer/{offer}'\n",
            template.service_account
        ));
    }
    Ok(script)
}

fn template(offer: &OfferSection<'_>) -> Template {
    let own = &offer.own;
    let service_account = own.text("service_account", "reader@project.iam.gserviceaccount.com");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'@');
    if !service_account.bytes().all(plain) {
        own.fault("service_account", format!("`{service_account}` is no service account"), "give its e-mail address");
    }
    let mut scopes = own.texts("scopes");
    if scopes.is_empty() {
        scopes.push("https://www.googleapis.com/auth/cloud-platform".to_owned());
    }
    if offer.offer.lifetime_secs > NATIVE_SECS_MAX {
        own.fault("lifetime_secs", format!("Google's tokens live at most {NATIVE_SECS_MAX} seconds"), "choose less");
    }
    let rule = |section: crate::config::Section<'_>| Rule {
        available_resource: section.text("resource", "//storage.googleapis.com/projects/_/buckets/reports"),
        available_permissions: section.texts("permissions"),
        availability_condition: section.text_if("condition").map(|expression| Condition { expression }),
    };
    Template { service_account, scopes, boundary: own.sections("boundary").into_iter().map(rule).collect() }
}

impl Gcp {
    async fn exchange(&self, pairs: &[(&str, &str)], what: &str) -> Result<SecretString, TargetError> {
        let answer = self.sts.send(Method::POST, "/v1/token", form_headers(), form(pairs)).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unwanted(what));
        }
        answer.json().map(|exchanged: Exchanged| exchanged.access_token)
    }

    /// A token that is over when the credential is.
    async fn generate(&self, carried: &Carried, federated: &SecretString) -> Result<Generated, TargetError> {
        let ends_at = Timestamp::from_secs(carried.ends_at);
        let left = ends_at.secs_since(self.surroundings.now()).min(carried.secs);
        let secs = left.saturating_sub(EXCHANGE_SECS).max(1);
        let unfit = |_| TargetError::Refused("the federated token cannot stand in a header".to_owned());
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", federated.expose_secret())).map_err(unfit)?;
        bearer.set_sensitive(true);
        let json_type = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer), (CONTENT_TYPE, json_type)]);
        let path = format!("/v1/projects/-/serviceAccounts/{}:generateAccessToken", carried.service_account);
        let body = json!({ "scope": carried.scopes, "lifetime": format!("{secs}s") });
        let answer: Answer = self.iam.send(Method::POST, &path, headers, body.to_string()).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unwanted("asking for the account's token"));
        }
        let generated: Generated = answer.json()?;
        if self.surroundings.now().plus_secs(secs) > ends_at {
            return Err(TargetError::Unreachable(
                "it answered so late that its token outlives the credential; ask again".to_owned(),
            ));
        }
        let theirs: Option<jiff::Timestamp> = generated.expire_time.parse().ok();
        if theirs.is_none_or(|theirs| theirs.as_millisecond() > ends_at.plus_secs(CLOCK_SECS).millis()) {
            return Err(TargetError::Refused("it gave a longer token than was asked for, which is not handed out".to_owned()));
        }
        Ok(generated)
    }

    async fn bounded(&self, carried: &Carried, wide: &SecretString) -> Result<SecretString, TargetError> {
        let options = json!({ "accessBoundary": { "accessBoundaryRules": carried.boundary } }).to_string();
        let pairs = [
            ("grant_type", EXCHANGE),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token_type", ACCESS_TOKEN),
            ("subject_token", wide.expose_secret()),
            ("options", &options),
        ];
        self.exchange(&pairs, "cutting the token down").await
    }
}

#[async_trait::async_trait]
impl Target for Gcp {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let template = offered::template(&self.templates, asked, "Google makes its tokens")?;
        let subject = format!("writ/{}/{}", asked.offer.name, asked.grant);
        if subject.len() > SUBJECT_CHARS_MAX {
            return Err(TargetError::Unacceptable("the offer's name is too long for a subject at Google".to_owned()));
        }
        let secs = asked.expires_at.secs_since(asked.now).min(NATIVE_SECS_MAX);
        let carried = Carried {
            boundary: template.boundary.clone(),
            ends_at: asked.now.plus_secs(secs).secs(),
            scopes: template.scopes.clone(),
            secs,
            service_account: template.service_account.clone(),
            vouched: Vouched::of(asked, subject.clone(), self.audience.clone()),
        };
        let summary = vec![
            format!("token of {} for {secs} seconds", carried.service_account),
            format!("cut down by {} boundary rules", carried.boundary.len()),
            "it cannot be taken back: it dies by itself".to_owned(),
        ];
        offered::plan(asked, &carried, (subject, asked.now.plus_secs(secs)), summary)
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        let unreadable = |_| TargetError::NotShown("a plan that it cannot read");
        let carried: Carried = serde_json::from_slice(&plan.canonical).map_err(unreadable)?;
        let assertion = self.federation.vouch(&carried.vouched, self.surroundings.now())?;
        let pairs = [
            ("grant_type", EXCHANGE),
            ("audience", &self.audience),
            ("scope", "https://www.googleapis.com/auth/cloud-platform"),
            ("requested_token_type", ACCESS_TOKEN),
            ("subject_token_type", JWT),
            ("subject_token", assertion.expose_secret()),
        ];
        let federated = self.exchange(&pairs, "exchanging the assertion").await?;
        let generated = self.generate(&carried, &federated).await?;
        let token = if carried.boundary.is_empty() {
            generated.access_token
        } else {
            self.bounded(&carried, &generated.access_token).await?
        };
        Ok(Minted {
            fields: BTreeMap::from([
                ("service_account".to_owned(), carried.service_account),
                ("token_expires_at".to_owned(), generated.expire_time),
            ]),
            secrets: BTreeMap::from([("token".to_owned(), token)]),
            to_revoke: None,
        })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        Ok(match step {
            Ending::CloseAuth => evidence([("token", "cannot_be_revoked"), ("ends_by", "expiry")]),
            Ending::EndSessions => evidence([("sessions", "none"), ("checked", "each_request")]),
            Ending::Clean => evidence([("residue", "none")]),
            Ending::Verify => dies_by_itself(self.surroundings.now(), handle.expires_at),
        })
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        Ok(Vec::new())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        let mut found = vec![fine("broker.secret", "no secret of Google is kept here: only the key that vouches for tasks")];
        for (offer, template) in &self.templates {
            if template.boundary.is_empty() {
                let text = format!("offer `{offer}` gives all that `{}` may do", template.service_account);
                found.push(warning("offer.boundary", text, "keep the account narrow, or add [[offers.NAME.boundary]]"));
            }
        }
        Ok(found)
    }

    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        let token =
            minted.secrets.get("token").ok_or_else(|| TargetError::Unacceptable("there is no token to try".to_owned()))?;
        let asked =
            self.tokeninfo.send(Method::POST, "/tokeninfo", form_headers(), form(&[("access_token", token.expose_secret())]));
        let slow = |_| TargetError::Unreachable("the token could not be tried in time".to_owned());
        let answer = tokio::time::timeout(within, asked).await.map_err(slow)??;
        match answer.status {
            StatusCode::OK => Ok(Acceptance::Accepted),
            StatusCode::BAD_REQUEST => Ok(Acceptance::Refused),
            _ => Err(answer.unwanted("asking about the token")),
        }
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        Err(TargetError::Refused(
            "our principals may only be a service account, so they cannot list keys; run `gcloud iam service-accounts keys list` as an administrator".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests;
