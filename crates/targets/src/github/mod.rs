//! GitHub App installation tokens: repositories by id and permissions, both a subset of the App's. The token lives one
//! hour whatever is asked, so it is taken back by itself (`DELETE /installation/token`); that is why it is kept, sealed,
//! until it is dead. GitHub cannot list tokens, so that one whose answer was lost can only be waited for.

mod examine;

use crate::assertion::AssertionKey;
use crate::config::{Config, ConfigFault, ConfigFaults, OfferSection, Surroundings};
use crate::evidence::{dies_by_itself, evidence};
use crate::https::{Answer, Https, Place};
use crate::offered;
use authority::ShownPlan;
use authority::target::{Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError};
use domain::{Ending, OfferName, Params, Timestamp, Value};
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// The life of every installation token; GitHub offers no shorter one.
const NATIVE_SECS: u64 = 3_600;
/// Seconds for which an App's JWT is valid; GitHub allows 600.
const ASSERTION_SECS: i64 = 540;
/// GitHub's clock may be behind ours: it advises to date assertions back.
const BACKDATED_SECS: i64 = 60;
/// What GitHub adds to every token.
const IMPLIED: (&str, &str) = ("metadata", "read");

/// One offer, as GitHub understands it.
struct Template {
    repositories: BTreeMap<String, u64>,
    repository_param: Option<String>,
    permissions: BTreeMap<String, String>,
}

struct GitHub {
    api: Https,
    app: String,
    installation: u64,
    key: AssertionKey,
    templates: BTreeMap<OfferName, Template>,
    surroundings: Arc<dyn Surroundings>,
}

/// What a plan carries: exactly this is asked for.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    grant: String,
    installation: u64,
    permissions: BTreeMap<String, String>,
    repository_ids: BTreeSet<u64>,
}

#[derive(Serialize)]
struct AppClaims<'a> {
    exp: i64,
    iat: i64,
    iss: &'a str,
}

#[derive(Serialize)]
struct Wanted<'a> {
    permissions: &'a BTreeMap<String, String>,
    repository_ids: &'a BTreeSet<u64>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(deserialize_with = "crate::https::secret")]
    token: SecretString,
    #[serde(default)]
    permissions: BTreeMap<String, String>,
    #[serde(default)]
    repositories: Vec<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
}

/// What the file says.
struct Read {
    place: Place,
    app: String,
    installation: Option<u64>,
    key: AssertionKey,
    templates: BTreeMap<OfferName, Template>,
}

impl Read {
    fn of(config: &Config<'_>) -> Self {
        let connect = &config.connect;
        let installation = connect.integer_if("installation_id", 1..=i64::MAX);
        if installation.is_none() && !connect.has("installation_id") {
            let help = "it stands in the URL of the installation's settings";
            connect.fault("installation_id", "`installation_id` is missing", help);
        }
        Self {
            place: Place::read(connect, Some("https://api.github.com")),
            app: connect.text("app_id", "Iv23liABCDEF"),
            installation: installation.and_then(|id| u64::try_from(id).ok()),
            key: AssertionKey::new(connect.secret("private_key")),
            templates: config.offers.iter().map(|(name, offer)| ((*name).clone(), template(offer))).collect(),
        }
    }
}

/// Reads the target's own part of its file.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let Read { place, app, installation, key, templates } = Read::of(config);
    let api = place.open(&config.connect);
    config.check()?;
    // `check` passed, so each of these is there.
    let (Some(api), Some(installation)) = (api, installation) else {
        return Err(ConfigFault::new(&["connect"], "cannot be used").into());
    };
    Ok(Arc::new(GitHub { api, app, installation, key, templates, surroundings: config.surroundings() }))
}

/// There is nothing to run at GitHub: what to click, and why so little.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    let mut permissions: BTreeMap<String, String> = BTreeMap::new();
    for (name, level) in Read::of(config).templates.into_values().flat_map(|template| template.permissions) {
        let widest = permissions.entry(name).or_default();
        *widest = std::mem::take(widest).max(level);
    }
    let list: Vec<_> = permissions.iter().map(|(name, level)| format!("#   {name}: {level}")).collect();
    Ok(format!(
        "# GitHub App for target `{}`: create it in the organisation's settings with exactly these repository permissions,\n\
         # no organisation permissions and no webhook, and install it only on the repositories that the offers name:\n{}\n\
         # Its private key can mint any subset of these on all its installations, and nothing else.\n",
        config.name,
        list.join("\n")
    ))
}

fn template(offer: &OfferSection<'_>) -> Template {
    let own = &offer.own;
    let mut repositories = BTreeMap::new();
    if let Some(section) = own.section("repositories") {
        for name in own.raw("repositories").and_then(toml::Value::as_table).into_iter().flat_map(|table| table.keys()) {
            let id = section.integer_if(name, 1..=i64::MAX).and_then(|id| u64::try_from(id).ok());
            repositories.extend(id.map(|id| (name.clone(), id)));
        }
    }
    if repositories.is_empty() {
        let help = "name each repository with its id, which survives a renaming: repositories = { web = 1296269 }";
        own.fault("repositories", "an offer needs at least one repository", help);
    }
    let permissions = own.text_map("permissions");
    if permissions.is_empty() {
        own.fault("permissions", "an offer needs at least one permission", "for example: permissions = { contents = \"read\" }");
    }
    for (name, level) in &permissions {
        if !matches!(level.as_str(), "read" | "write") {
            own.fault("permissions", format!("`{name}` is `{level}`"), "use `read` or `write`; `admin` is never issued");
        }
    }
    let repository_param = own.text_if("repository_param");
    if repository_param.as_ref().is_some_and(|name| !offer.offer.params.contains_key(name)) {
        own.fault("repository_param", "the offer has no such parameter", "declare it under `params`");
    }
    Template { repositories, repository_param, permissions }
}

impl Template {
    /// The repositories that the parameters name, by id; all of the offer if it has no such parameter.
    fn chosen(&self, params: &Params) -> Result<BTreeSet<u64>, TargetError> {
        let Some(param) = &self.repository_param else { return Ok(self.repositories.values().copied().collect()) };
        let names: Vec<&str> = match params.get(param) {
            Some(Value::Text(name)) => vec![name],
            Some(Value::Texts(names)) => names.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        };
        let known: Vec<_> = self.repositories.keys().map(|name| format!("`{name}`")).collect();
        let id = |name: &&str| {
            let unknown = || TargetError::Unacceptable(format!("`{param}` must be one of {}", known.join(", ")));
            self.repositories.get(*name).copied().ok_or_else(unknown)
        };
        let chosen: BTreeSet<_> = names.iter().map(id).collect::<Result<_, _>>()?;
        // No list at all would mean every repository of the installation.
        if chosen.is_empty() {
            return Err(TargetError::Unacceptable(format!("`{param}` names no repository")));
        }
        Ok(chosen)
    }
}

impl GitHub {
    fn now(&self) -> Timestamp {
        self.surroundings.now()
    }

    async fn as_app(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Answer, TargetError> {
        let now = self.now().secs();
        let claims = AppClaims { exp: now + ASSERTION_SECS, iat: now - BACKDATED_SECS, iss: &self.app };
        self.send(method, path, &self.key.sign(&claims)?, body).await
    }

    async fn send(&self, method: Method, path: &str, token: &SecretString, body: Vec<u8>) -> Result<Answer, TargetError> {
        let mut headers = HeaderMap::new();
        let unfit = |_| TargetError::Refused("the token cannot stand in a header".to_owned());
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(unfit)?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
        headers.insert("x-github-api-version", HeaderValue::from_static("2022-11-28"));
        self.api.send(method, path, headers, body).await
    }

    /// Whether a token still works.
    async fn accepts(&self, token: &SecretString) -> Result<Acceptance, TargetError> {
        let answer = self.send(Method::GET, "/installation/repositories?per_page=1", token, Vec::new()).await?;
        match answer.status {
            StatusCode::OK => Ok(Acceptance::Accepted),
            StatusCode::UNAUTHORIZED => Ok(Acceptance::Refused),
            _ => Err(answer.unwanted("listing the token's repositories")),
        }
    }

    async fn revoke(&self, token: &SecretString) -> Result<Evidence, TargetError> {
        let answer = self.send(Method::DELETE, "/installation/token", token, Vec::new()).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(evidence([("token", "revoked")])),
            StatusCode::UNAUTHORIZED => Ok(evidence([("token", "not_found")])),
            _ => Err(answer.unwanted("revoking the token")),
        }
    }
}

/// Whether the token is what was asked for and no more.
fn narrow(token: &Token, carried: &Carried) -> bool {
    let repositories: BTreeSet<_> = token.repositories.iter().map(|repository| repository.id).collect();
    let within = |(name, level): (&String, &String)| {
        carried.permissions.get(name) == Some(level) || (name.as_str(), level.as_str()) == IMPLIED
    };
    repositories == carried.repository_ids && token.permissions.iter().all(within)
}

#[async_trait::async_trait]
impl Target for GitHub {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let template = offered::template(&self.templates, asked, "GitHub makes its tokens")?;
        let carried = Carried {
            grant: asked.grant.to_string(),
            installation: self.installation,
            permissions: template.permissions.clone(),
            repository_ids: template.chosen(asked.params)?,
        };
        let summary = vec![
            format!("installation token for repositories {:?}", carried.repository_ids),
            format!("permissions {:?}", carried.permissions),
            "GitHub lets it live one hour; it is revoked earlier".to_owned(),
        ];
        offered::plan(asked, &carried, (format!("installation-{}/{}", self.installation, asked.grant), asked.expires_at), summary)
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        // What was hashed is what is asked for, not what the configuration says by now.
        let unreadable = |_| TargetError::NotShown("a plan that it cannot read");
        let carried: Carried = serde_json::from_slice(&plan.canonical).map_err(unreadable)?;
        let wanted = Wanted { permissions: &carried.permissions, repository_ids: &carried.repository_ids };
        let body = serde_json::to_vec(&wanted).map_err(unreadable)?;
        let path = format!("/app/installations/{}/access_tokens", carried.installation);
        let answer = self.as_app(Method::POST, &path, body).await?;
        if answer.status != StatusCode::CREATED {
            return Err(answer.unwanted("asking for the token"));
        }
        let token: Token = answer.json()?;
        if !narrow(&token, &carried) {
            self.revoke(&token.token).await?;
            return Err(TargetError::Refused("GitHub gave more than was asked for; the token was revoked".to_owned()));
        }
        let repositories: Vec<_> = carried.repository_ids.iter().map(u64::to_string).collect();
        Ok(Minted {
            fields: BTreeMap::from([
                ("api".to_owned(), format!("{}{}", self.api.host(), self.api.base_path())),
                ("repository_ids".to_owned(), repositories.join(",")),
            ]),
            secrets: BTreeMap::from([("token".to_owned(), token.token.clone())]),
            to_revoke: Some(token.token),
        })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        // Its answer was lost: nobody but GitHub knows the token, and it dies within its hour.
        let Some(token) = handle.to_revoke else {
            return Ok(match step {
                Ending::Verify => dies_by_itself(self.now(), handle.expires_at.plus_secs(NATIVE_SECS)),
                _ => evidence([("token", "unknown")]),
            });
        };
        match step {
            Ending::CloseAuth => self.revoke(token).await,
            Ending::EndSessions => Ok(evidence([("sessions", "none"), ("checked", "each_request")])),
            Ending::Clean => Ok(evidence([("residue", "none")])),
            Ending::Verify => match self.accepts(token).await? {
                Acceptance::Refused => Ok(evidence([("token", "refused")])),
                Acceptance::Accepted => Err(TargetError::Refused("the token still works after it was revoked".to_owned())),
            },
        }
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        Ok(Vec::new())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        self.examination().await
    }

    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        let token =
            minted.secrets.get("token").ok_or_else(|| TargetError::Unacceptable("there is no token to try".to_owned()))?;
        let slow = |_| TargetError::Unreachable("the token could not be tried in time".to_owned());
        tokio::time::timeout(within, self.accepts(token)).await.map_err(slow)?
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        self.other_installations().await
    }
}

#[cfg(test)]
mod tests;
