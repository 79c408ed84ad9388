//! Microsoft Entra: a client assertion of ours (RFC 7523) is exchanged for an access token of an application that trusts
//! it by a federated credential. Entra chooses the token's life (60 to 90 minutes) and has no way to take one back, so an
//! offer says so, a longer token is not handed out, and the evidence waits for the end.

use crate::config::{Config, ConfigFault, ConfigFaults, OfferSection, Surroundings};
use crate::evidence::{dies_by_itself, evidence, fine, warning};
use crate::federation::{Federation, Vouched, form, form_headers};
use crate::https::{Https, Place};
use crate::offered;
use authority::ShownPlan;
use authority::target::{Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError};
use domain::{Ending, OfferName};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The audience that Entra demands of a federated assertion.
const AUDIENCE: &str = "api://AzureADTokenExchange";
/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest life that a token may have to be handed out, in seconds.
const NATIVE_SECS_MAX: u64 = 90 * 60;

/// Azure Storage takes bearer tokens only from callers that name a version of its API; others do not mind.
const STORAGE_VERSION: (&str, &str) = ("x-ms-version", "2021-12-02");

/// One offer, as Entra understands it.
struct Template {
    client_id: String,
    scope: String,
    /// What a token is tried at: a URL below the resource that answers 401 to a bad one.
    try_path: Option<String>,
}

struct Azure {
    login: Https,
    resource: Option<Https>,
    tenant: String,
    target: String,
    federation: Federation,
    templates: BTreeMap<OfferName, Template>,
    surroundings: Arc<dyn Surroundings>,
}

/// What a plan carries.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    client_id: String,
    scope: String,
    tenant: String,
    try_path: Option<String>,
    vouched: Vouched,
}

#[derive(Deserialize)]
struct Granted {
    #[serde(deserialize_with = "crate::https::secret")]
    access_token: SecretString,
    expires_in: u64,
}

struct Read {
    login: Option<Https>,
    resource: Option<Https>,
    tenant: String,
    federation: Federation,
    templates: BTreeMap<OfferName, Template>,
}

impl Read {
    fn of(config: &Config<'_>) -> Self {
        let connect = &config.connect;
        let tenant = id_of(connect, "tenant");
        let resource = connect.section("resource").and_then(|own| Place::read(&own, None).open(&own));
        Self {
            login: Place::within(connect, "login", "https://login.microsoftonline.com"),
            resource,
            tenant,
            federation: Federation::read(config),
            templates: config.offers.iter().map(|(name, offer)| ((*name).clone(), template(offer))).collect(),
        }
    }
}

/// Reads the target's own part of its file.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let Read { login, resource, tenant, federation, templates } = Read::of(config);
    config.check()?;
    let Some(login) = login else { return Err(ConfigFault::new(&["connect", "login"], "cannot be used").into()) };
    let (target, surroundings) = (config.name.to_string(), config.surroundings());
    Ok(Arc::new(Azure { login, resource, tenant, target, federation, templates, surroundings }))
}

/// What the tenant's administrator runs: one federated credential for each offer's application. Subjects must be equal to
/// the letter: Entra takes a wrong one without a word and refuses at the exchange.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    let read = Read::of(config);
    let (issuer, keys) = match read.federation.introduced() {
        Ok((issuer, keys)) => (issuer.to_owned(), keys),
        Err(error) => return Err(ConfigFault::new(&["connect", "assertion_key"], error.to_string()).into()),
    };
    let mut script =
        format!("# Publish this key set at the `jwks_uri` of {issuer}/.well-known/openid-configuration :\n# {keys}\n");
    for (offer, template) in &read.templates {
        let subject = subject(config.name.as_str(), offer);
        script.push_str(&format!(
            "az ad app federated-credential create --id '{}' --parameters \\\n  \
             '{{\"name\":\"writ-{offer}\",\"issuer\":\"{issuer}\",\"subject\":\"{subject}\",\"audiences\":[\"{AUDIENCE}\"]}}'\n",
            template.client_id
        ));
    }
    Ok(script)
}

fn subject(target: &str, offer: &OfferName) -> String {
    format!("writ/{target}/{offer}")
}

/// An id becomes part of a path and of a form.
fn id_of(section: &crate::config::Section<'_>, key: &str) -> String {
    let text = section.text(key, "00000000-0000-0000-0000-000000000000");
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')) {
        section.fault(key, format!("`{text}` is no id"), "give its GUID");
    }
    text
}

fn template(offer: &OfferSection<'_>) -> Template {
    let own = &offer.own;
    let scope = own.text("scope", "https://storage.azure.com/.default");
    if offer.offer.lifetime_secs < NATIVE_SECS_MAX {
        let help = format!("say what is so: lifetime_secs = {NATIVE_SECS_MAX}");
        own.fault("lifetime_secs", "Entra chooses the life of a token, up to 90 minutes, and cannot end it earlier", help);
    }
    let try_path = own.text_if("try_path");
    if try_path.as_ref().is_some_and(|path| !path.starts_with('/')) {
        own.fault("try_path", "a path begins with `/`", "");
    }
    Template { client_id: id_of(own, "client_id"), scope, try_path }
}

#[async_trait::async_trait]
impl Target for Azure {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let template = offered::template(&self.templates, asked, "Entra makes its tokens")?;
        let carried = Carried {
            client_id: template.client_id.clone(),
            scope: template.scope.clone(),
            tenant: self.tenant.clone(),
            try_path: template.try_path.clone(),
            vouched: Vouched::of(asked, subject(&self.target, &asked.offer.name), AUDIENCE.to_owned()),
        };
        let summary = vec![
            format!("token of application {} for {}", carried.client_id, carried.scope),
            "it cannot be taken back: it dies by itself within 90 minutes".to_owned(),
        ];
        offered::plan(asked, &carried, (format!("{}/{}", template.client_id, asked.grant), asked.expires_at), summary)
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        let unreadable = |_| TargetError::NotShown("a plan that it cannot read");
        let carried: Carried = serde_json::from_slice(&plan.canonical).map_err(unreadable)?;
        let assertion = self.federation.vouch(&carried.vouched, self.surroundings.now())?;
        let body = form(&[
            ("client_id", &carried.client_id),
            ("scope", &carried.scope),
            ("grant_type", "client_credentials"),
            ("client_assertion_type", ASSERTION_TYPE),
            ("client_assertion", assertion.expose_secret()),
        ]);
        let path = format!("/{}/oauth2/v2.0/token", carried.tenant);
        let answer = self.login.send(Method::POST, &path, form_headers(), body).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unwanted("asking for the token"));
        }
        let granted: Granted = answer.json()?;
        if granted.expires_in > NATIVE_SECS_MAX {
            let text = format!("it gave a token for {} seconds, which is not handed out", granted.expires_in);
            return Err(TargetError::Refused(text));
        }
        Ok(Minted {
            fields: BTreeMap::from([
                ("client_id".to_owned(), carried.client_id),
                ("scope".to_owned(), carried.scope),
                ("expires_in".to_owned(), granted.expires_in.to_string()),
                ("try_path".to_owned(), carried.try_path.unwrap_or_default()),
            ]),
            secrets: BTreeMap::from([("token".to_owned(), granted.access_token)]),
            to_revoke: None,
        })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        Ok(match step {
            Ending::CloseAuth => evidence([("token", "cannot_be_revoked"), ("ends_by", "expiry")]),
            Ending::EndSessions => evidence([("sessions", "none"), ("checked", "each_request")]),
            Ending::Clean => evidence([("residue", "none")]),
            // When it was made is not later than its deadline, so that this is not too early.
            Ending::Verify => dies_by_itself(self.surroundings.now(), handle.expires_at.plus_secs(NATIVE_SECS_MAX)),
        })
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        Ok(Vec::new())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        let mut found = vec![fine("broker.secret", "no secret of Entra is kept here: only the key that vouches for tasks")];
        for (offer, template) in &self.templates {
            let shared = self.templates.iter().any(|(name, other)| name != offer && other.client_id == template.client_id);
            if shared {
                let text = format!("offer `{offer}` shares its application with another: its roles are the sum of both");
                found.push(warning("offer.application", text, "give each offer an application of its own"));
            }
        }
        Ok(found)
    }

    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        let token =
            minted.secrets.get("token").ok_or_else(|| TargetError::Unacceptable("there is no token to try".to_owned()))?;
        let path = minted.fields.get("try_path").filter(|path| !path.is_empty());
        let (Some(resource), Some(path)) = (&self.resource, path) else {
            let text = "a token can be tried only with [connect.resource] and `try_path` in the offer";
            return Err(TargetError::Unacceptable(text.to_owned()));
        };
        let unfit = |_| TargetError::Refused("the token cannot stand in a header".to_owned());
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(unfit)?;
        bearer.set_sensitive(true);
        let version = (HeaderName::from_static(STORAGE_VERSION.0), HeaderValue::from_static(STORAGE_VERSION.1));
        let headers = HeaderMap::from_iter([(AUTHORIZATION, bearer), version]);
        let asked = resource.send(Method::GET, path, headers, "");
        let slow = |_| TargetError::Unreachable("the token could not be tried in time".to_owned());
        let answer = tokio::time::timeout(within, asked).await.map_err(slow)??;
        match answer.status {
            StatusCode::UNAUTHORIZED => Ok(Acceptance::Refused),
            status if status.is_success() || status == StatusCode::FORBIDDEN => Ok(Acceptance::Accepted),
            _ => Err(answer.unwanted("trying the token")),
        }
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        Err(TargetError::Refused(
            "our applications may not read the directory; run `az ad app credential list` as an administrator".to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests;
