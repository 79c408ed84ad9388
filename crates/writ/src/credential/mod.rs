//! Credentials as their holder sees them: which are wanted, the secret that it makes itself, and the request.
//! Everything goes over HTTP, as any other client would. Owns no decision and no target.

pub(crate) mod delivery;
pub(crate) mod folder;
pub(crate) mod secret;

use crate::agent::Agent;
use crate::cli::Failure;
use crate::client::refused;
use crate::web::Web;
use delivery::Held;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use http_body_util::Full;
use secrecy::SecretString;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// The variable with the local endpoint of the task's API.
pub(crate) const TASK_URL: &str = "WRIT_TASK_URL";
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A credential that is wanted: `TARGET/OFFER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where.
    pub(crate) target: String,
    /// What.
    pub(crate) offer: String,
    /// What is said about it.
    pub(crate) parameters: Map<String, Value>,
}

impl Wanted {
    /// Reads `TARGET/OFFER`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((target, offer)) if !target.is_empty() && !offer.is_empty() && !offer.contains('/') => {
                Ok(Self { target: target.to_owned(), offer: offer.to_owned(), parameters: Map::new() })
            }
            _ => Err("expected TARGET/OFFER, for example orders-db/read_orders".to_owned()),
        }
    }

    /// Gives each `[TARGET/OFFER:]NAME=VALUE` to the credentials that it is for.
    pub(crate) fn with_parameters(mut wanted: Vec<Self>, given: &[(String, String)]) -> Result<Vec<Self>, Failure> {
        for (name, value) in given {
            let (of, name) = name.rsplit_once(':').map_or((None, name.as_str()), |(of, name)| (Some(of), name));
            let value: Value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.clone()));
            let fits = |one: &&mut Self| of.is_none_or(|of| of == format!("{}/{}", one.target, one.offer));
            let mut any = false;
            for one in wanted.iter_mut().filter(fits) {
                any = true;
                one.parameters.insert(name.to_owned(), value.clone());
            }
            if !any {
                return Err(Failure::usage(format!("no --credential is meant by --credential-param `{name}`"))
                    .next("write it as NAME=VALUE for all, or TARGET/OFFER:NAME=VALUE for one"));
            }
        }
        Ok(wanted)
    }
}

/// The API of a task, for whoever acts for it.
pub(crate) enum Task {
    /// Who holds its token.
    Holder(Agent),
    /// A command under `writ exec`, which asks through the endpoint that it was given and holds no token.
    Local(Box<Web>, String),
}

impl Task {
    /// The task under which this process runs, if there is one.
    pub(crate) fn surrounding() -> Option<Self> {
        crate::system::variable(TASK_URL).map(|url| Self::Local(Box::new(Web::new()), url))
    }

    /// One exchange; `path` begins with `/`.
    ///
    /// # Errors
    /// What the server said, or why it was not reached.
    pub(crate) async fn api(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (web, url) = match self {
            Self::Holder(agent) => return agent.api(method, path, body).await,
            Self::Local(web, url) => (web, url),
        };
        let mut request = Request::builder().method(method).uri(format!("{url}{path}"));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body.map(Value::to_string).unwrap_or_default()));
        let request = request.map_err(|error| Failure::usage(format!("{TASK_URL} is not usable")).why(error.to_string()))?;
        // The URL is itself the right to ask: it is not shown.
        let gone = |_| Failure::new("the `writ exec` above this command does not answer");
        let answer = web.send(request, ANSWER_BYTES_MAX).await.map_err(gone)?;
        if !answer.status.is_success() {
            return Err(refused(&answer));
        }
        serde_json::from_slice(&answer.body).map_err(|_| Failure::new("the server's answer is not JSON"))
    }
}

/// How credentials are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// How long each shall live; as long as its offer allows if absent.
    pub(crate) lifetime_secs: Option<u64>,
    /// Iterations of SCRAM verifiers.
    pub(crate) scram_iterations: NonZeroU32,
}

/// Asks for one credential, with a secret of our own making where the target can do with a verifier.
///
/// # Errors
/// What the server said, or why it was not reached.
pub(crate) async fn request(task: &Task, wanted: &Wanted, manner: Manner) -> Result<Held, Failure> {
    let offers = task.api(Method::GET, "/offers", None).await?;
    let named = |offer: &&Value| {
        let text = |name: &str| offer.get(name).and_then(Value::as_str);
        text("target") == Some(&wanted.target) && text("offer") == Some(&wanted.offer)
    };
    let offers = offers.get("items").and_then(Value::as_array);
    // A task that may not have it is told so by the decision, not by our guess.
    let verifier = offers.and_then(|offers| offers.iter().find(named)).and_then(|offer| offer.get("verifier")?.as_str());
    let made = match verifier {
        Some(kind) => secret::make(kind, manner.scram_iterations)?.map(|made| (kind, made)),
        None => None,
    };
    let mut body = json!({ "target": wanted.target, "offer": wanted.offer, "parameters": wanted.parameters });
    if let Some(members) = body.as_object_mut() {
        members.extend(manner.lifetime_secs.map(|secs| ("lifetime_secs".to_owned(), secs.into())));
        members.extend(made.as_ref().map(|(kind, made)| ("verifier".to_owned(), json!({ *kind: made.verifier }))));
    }
    let answer = task.api(Method::POST, "/credentials", Some(&body)).await?;
    held(answer, made.map(|(_, made)| made)).ok_or_else(|| Failure::new("the server's answer holds no credential"))
}

fn held(mut answer: Value, made: Option<secret::Made>) -> Option<Held> {
    let texts = |value: Value| match value {
        Value::Object(members) => {
            let text = |(name, value)| if let Value::String(text) = value { Some((name, text)) } else { None };
            members.into_iter().filter_map(text).collect::<BTreeMap<_, _>>()
        }
        _ => BTreeMap::new(),
    };
    let fields = texts(answer.get_mut("fields")?.take());
    let secrets = answer.get_mut("secrets").map(Value::take).map(texts).unwrap_or_default();
    let mut secrets: BTreeMap<_, _> = secrets.into_iter().map(|(name, text)| (name, SecretString::from(text))).collect();
    secrets.extend(made.map(|made| (made.name.to_owned(), made.secret)));
    let text = |name: &str| Some(answer.get(name)?.as_str()?.to_owned());
    Some(Held {
        id: text("id")?,
        target: text("target")?,
        offer: text("offer")?,
        kind: text("kind")?,
        expires_at: text("expires_at")?,
        fields,
        secrets,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_wanted_is_named_by_target_and_offer() {
        let read = Wanted::parse("orders-db/read_orders").unwrap();
        assert_eq!((read.target.as_str(), read.offer.as_str()), ("orders-db", "read_orders"));
        for text in ["orders-db", "/x", "x/", "a/b/c", ""] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_parameter_goes_to_those_that_it_is_for() {
        let wanted = || vec![Wanted::parse("db/a").unwrap(), Wanted::parse("db/b").unwrap()];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let given = [pair("region", "eu"), pair("db/b:limit", "5")];
        let read = Wanted::with_parameters(wanted(), &given).unwrap();
        let parameters: Vec<_> = read.into_iter().map(|one| Value::Object(one.parameters)).collect();
        assert_eq!(parameters, [json!({ "region": "eu" }), json!({ "region": "eu", "limit": 5 })]);
        assert!(Wanted::with_parameters(wanted(), &[pair("db/c:x", "1")]).is_err());
    }

    #[test]
    fn our_own_secret_joins_what_was_answered() {
        let answer = json!({
            "id": "grt_1", "target": "db", "offer": "a", "kind": "postgresql", "expires_at": "2026-01-01T00:00:00Z",
            "fields": { "user": "jit_1" }, "secrets": {},
        });
        let made = secret::make("sha256", secret::SCRAM_ITERATIONS).unwrap();
        let held = held(answer, made).unwrap();
        assert_eq!(held.fields.get("user").unwrap(), "jit_1");
        assert!(held.secrets.contains_key("password"));
    }
}
