//! Workload identity federation: Writ vouches for one task at a cloud's token endpoint with a short assertion of its own
//! key (RFC 7523 claims), so that no secret of the cloud is kept here. The cloud is given the key set once and trusts one
//! issuer, one audience and the subjects that its own configuration names.

use crate::assertion::AssertionKey;
use crate::config::{Config, Section};
use authority::target::{Asked, TargetError};
use domain::Timestamp;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// Seconds for which an assertion is valid: long enough for one exchange over a slow line.
const ASSERTION_SECS: i64 = 120;

/// The issuer as the cloud knows it, and its key.
pub(crate) struct Federation {
    issuer: String,
    key: AssertionKey,
}

/// For whom Writ vouches; part of the plan, so that exactly this was decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Vouched {
    agent: String,
    audience: String,
    grant: String,
    intent: String,
    subject: String,
    task: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    iat: i64,
    iss: &'a str,
    jti: &'a str,
    nbf: i64,
    sub: &'a str,
    writ_agent: &'a str,
    writ_intent: &'a str,
    writ_task: &'a str,
}

impl Vouched {
    /// For the task of a request, under this subject and for this audience.
    pub(crate) fn of(asked: &Asked<'_>, subject: String, audience: String) -> Self {
        Self {
            agent: asked.agent.to_string(),
            audience,
            grant: asked.grant.to_string(),
            intent: asked.intent.to_string(),
            subject,
            task: asked.task.to_string(),
        }
    }
}

impl Federation {
    /// `issuer` and `assertion_key` of `[connect]`.
    pub(crate) fn read(config: &Config<'_>) -> Self {
        let connect: &Section<'_> = &config.connect;
        let issuer = connect.text("issuer", "https://writ.example.com/federation");
        // It stands in a command that an administrator runs.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b":/.-_~".contains(&byte);
        // One that is missing was already said.
        if !(issuer.is_empty() || issuer.starts_with("https://") && issuer.bytes().all(plain)) {
            let help = "the one that the cloud was told: letters, digits and `:/.-_~`";
            connect.fault("issuer", "an issuer is a plain `https` URL", help);
        }
        Self { issuer, key: AssertionKey::new(connect.secret("assertion_key")) }
    }

    /// The assertion for one exchange.
    pub(crate) fn vouch(&self, vouched: &Vouched, now: Timestamp) -> Result<SecretString, TargetError> {
        self.key.sign(&Claims {
            aud: &vouched.audience,
            exp: now.secs() + ASSERTION_SECS,
            iat: now.secs(),
            iss: &self.issuer,
            jti: &vouched.grant,
            nbf: now.secs(),
            sub: &vouched.subject,
            writ_agent: &vouched.agent,
            writ_intent: &vouched.intent,
            writ_task: &vouched.task,
        })
    }

    /// The issuer and the key set, as they go into the cloud's configuration.
    pub(crate) fn introduced(&self) -> Result<(&str, String), TargetError> {
        Ok((&self.issuer, self.key.key_set()?))
    }
}

/// Headers of a form.
pub(crate) fn form_headers() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))])
}

/// The body of a form. `*` and `~` are written as the SDKs of the platforms write them (RFC 3986 §2.3), not as browsers do:
/// a server that checks a signature over what it read and wrote anew comes to the same bytes.
pub(crate) fn form(pairs: &[(&str, &str)]) -> String {
    let written = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    written.replace('*', "%2A").replace("%7E", "~")
}
