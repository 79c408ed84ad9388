//! Entra's token endpoint, and a storage account that takes its tokens: a federated credential is matched to the letter
//! (issuer, subject, audience), a token is for one resource and lives as long as Entra likes, and a role assignment says
//! which container an application reads. There is no way to take a token back. What it cannot show: how long the real service lets
//! a token live, and continuous access evaluation.
#![expect(clippy::indexing_slicing, reason = "test support fails by panicking")]

use super::{Answer, Now, Seen, in_time, token, verified};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The longest that an assertion may be valid here; ours live two minutes.
const ASSERTION_SECS: i64 = 600;
/// What tokens for blobs are asked for.
const STORAGE: &str = "https://storage.azure.com/.default";

struct Issued {
    application: String,
    /// Whom the assertion vouched for.
    agent: String,
    scope: String,
    expires_at: i64,
}

/// One tenant and one storage account.
pub struct Entra {
    now: Now,
    tenant: String,
    /// What assertions are verified with.
    pub key_set: String,
    /// Federated credentials by application, as `az` takes them.
    trusted: BTreeMap<String, Value>,
    /// Which container an application may read.
    pub roles: BTreeMap<String, String>,
    /// Seconds that a token lives.
    pub lives_secs: i64,
    tokens: BTreeMap<String, Issued>,
}

impl Entra {
    /// A tenant that trusts nobody yet.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self {
            now,
            tenant: "11111111-2222-3333-4444-555555555555".to_owned(),
            key_set: String::new(),
            trusted: BTreeMap::new(),
            roles: BTreeMap::new(),
            lives_secs: 3_599,
            tokens: BTreeMap::new(),
        }
    }

    /// What an administrator does with the output of `writ target install`: publishes the keys, runs the commands.
    ///
    /// # Panics
    /// It is not what was expected.
    pub fn install(&mut self, script: &str) {
        self.key_set = script.lines().find_map(|line| line.strip_prefix("# {")).map(|keys| format!("{{{keys}")).unwrap();
        let mut commands = script.lines().filter(|line| line.starts_with("az "));
        assert!(commands.all(|line| line.starts_with("az ad app federated-credential create ")), "{script}");
        for command in script.split("az ad app federated-credential create ").skip(1) {
            let application = command.split('\'').nth(1).unwrap().to_owned();
            let parameters = command.split('\'').nth(3).unwrap();
            self.trusted.insert(application, serde_json::from_str(parameters).unwrap());
        }
    }

    /// For which agents tokens work at this moment.
    #[must_use]
    pub fn live(&self) -> Vec<String> {
        let now = (self.now)();
        self.tokens.values().filter(|issued| issued.expires_at > now).map(|issued| issued.agent.clone()).collect()
    }

    /// Answers one request.
    pub fn answer(&mut self, seen: &Seen) -> Answer {
        let path = seen.path.split('?').next().unwrap_or_default();
        if path == format!("/{}/oauth2/v2.0/token", self.tenant) {
            return self.exchange(&seen.form());
        }
        // The oldest version that knows bearer tokens.
        let version = seen.headers.get("x-ms-version").and_then(|version| version.to_str().ok()).unwrap_or_default();
        if version < "2017-11-09" {
            return failed(400, "MissingRequiredHeader", "x-ms-version");
        }
        match (seen.method.as_str(), path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice()) {
            ("GET" | "HEAD", ["blobs", container, name]) => self.blob(seen, container, name),
            ("PUT" | "DELETE", ["blobs", container, _]) => match self.container(seen) {
                Ok(_) => failed(403, "AuthorizationPermissionMismatch", container),
                Err(answer) => answer,
            },
            // What Writ tries a token at: the list of containers, for which reading blobs is not enough.
            ("GET", ["blobs"]) => match self.container(seen) {
                Ok(_) => failed(403, "AuthorizationPermissionMismatch", "the list"),
                Err(answer) => answer,
            },
            _ => failed(404, "ResourceNotFound", path),
        }
    }

    fn exchange(&mut self, form: &BTreeMap<String, String>) -> Answer {
        let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let wrong = |code: &str| Answer::json(401, &json!({ "error": "invalid_client", "error_description": code }));
        let Some(trusted) = self.trusted.get(of("client_id")) else { return wrong("AADSTS700016") };
        let Some(claims) = verified(of("client_assertion"), &self.key_set) else { return wrong("AADSTS5000111") };
        let matching = claims["iss"] == trusted["issuer"]
            && claims["sub"] == trusted["subject"]
            && trusted["audiences"].as_array().is_some_and(|audiences| audiences.contains(&claims["aud"]));
        if !matching || of("client_assertion_type") != ASSERTION_TYPE || of("grant_type") != "client_credentials" {
            return wrong("AADSTS70021");
        }
        if !in_time(&claims, (self.now)(), ASSERTION_SECS) {
            return wrong("AADSTS700024");
        }
        let token = token("eyJ0eXAiOiJKV1Qi.");
        let issued = Issued {
            application: of("client_id").to_owned(),
            agent: claims["writ_agent"].as_str().unwrap_or_default().to_owned(),
            scope: of("scope").to_owned(),
            expires_at: (self.now)() + self.lives_secs,
        };
        self.tokens.insert(token.clone(), issued);
        Answer::json(200, &json!({ "token_type": "Bearer", "access_token": token, "expires_in": self.lives_secs }))
    }

    /// The container that who asks may read.
    fn container(&self, seen: &Seen) -> Result<&str, Answer> {
        let issued = self.tokens.get(&seen.bearer()).filter(|issued| issued.expires_at > (self.now)());
        let Some(issued) = issued.filter(|issued| issued.scope == STORAGE) else {
            return Err(failed(401, "InvalidAuthenticationInfo", "the token"));
        };
        Ok(self.roles.get(&issued.application).map(String::as_str).unwrap_or_default())
    }

    fn blob(&self, seen: &Seen, container: &str, name: &str) -> Answer {
        match self.container(seen) {
            Err(answer) => answer,
            Ok(own) if own != container => failed(403, "AuthorizationPermissionMismatch", container),
            Ok(_) => {
                let content = format!("the blob {name}");
                let range = format!("bytes 0-{}/{}", content.len() - 1, content.len());
                let status = if seen.headers.contains_key("x-ms-range") { 206 } else { 200 };
                Answer::bytes(status, "application/octet-stream", content.into_bytes())
                    .with("content-range", range)
                    .with("etag", "\"0x1\"")
                    .with("last-modified", "Sun, 22 Nov 2026 00:00:00 GMT")
                    .with("x-ms-blob-type", "BlockBlob")
            }
        }
    }
}

fn failed(status: u16, code: &str, what: &str) -> Answer {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{what}</Message></Error>");
    Answer::bytes(status, "application/xml", body.into_bytes()).with("x-ms-error-code", code)
}
