//! The claims of our access tokens (`at+jwt`, RFC 9068) as values, and their canonical bytes: what is
//! decided and logged is exactly what is signed. It must never sign and never read a clock.

use serde_json::{Map, Value, json};

use crate::jws::sha256;
use crate::{Error, UnixSeconds, json};

/// Longest `act` chain that we write or read. Delegation depth is limited far below this elsewhere.
pub const ACT_DEPTH_MAX: usize = 8;
/// Largest canonical claims in bytes, so that the token stays below
/// [`crate::access::ACCESS_TOKEN_BYTES_MAX`] (base64url adds a third, header and signature 250 bytes).
pub const CLAIMS_BYTES_MAX: usize = 5 * 1024;
/// Longest string claim in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// A base64url SHA-256 without padding.
const THUMBPRINT_BYTES: usize = 43;

/// How a token is bound to the holder's key (`cnf`, RFC 7800).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Confirmation {
    /// DPoP: RFC 7638 SHA-256 thumbprint of the proof key, base64url (RFC 9449 §6.1).
    Jkt(String),
    /// Mutual TLS: SHA-256 of the client certificate's DER, base64url (RFC 8705 §3.1).
    X5tS256(String),
}

/// One link of the `act` chain (RFC 8693 §4.1): the outermost acts now, the inner ones acted before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The acting agent.
    pub subject: String,
    /// Its task, if the chain records it.
    pub task: Option<String>,
    /// Who acted before it.
    pub act: Option<Box<Actor>>,
}

/// Everything that one of our access tokens says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessClaims {
    /// `iss`: our issuer URL, slash-less.
    pub issuer: String,
    /// `sub`: the agent.
    pub subject: String,
    /// `client_id`: who asked for the token (RFC 9068 §2.2).
    pub client_id: String,
    /// `aud`: the resource URIs; written as a string if there is one, as an array otherwise. Never empty.
    pub audience: Vec<String>,
    /// `iat`.
    pub issued_at: UnixSeconds,
    /// `exp`; later than `issued_at`.
    pub expires_at: UnixSeconds,
    /// `jti`.
    pub token_id: String,
    /// `task`: the task that the token belongs to.
    pub task: String,
    /// `intent`: the name of the task's intent.
    pub intent: String,
    /// `act`: on whose behalf the task was delegated.
    pub act: Option<Actor>,
    /// `cnf`; `None` is a bearer token.
    pub confirmation: Option<Confirmation>,
    /// `scope`: space separated.
    pub scope: Option<String>,
    /// `authorization_details` as granted (RFC 9396 §9.1); omitted if empty.
    pub authorization_details: Vec<Value>,
}

/// The canonical JSON bytes of valid claims: the only thing that [`crate::sign::mint`] signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanonicalClaims {
    bytes: Vec<u8>,
}

impl CanonicalClaims {
    /// Reads bytes back that are claimed to be canonical (the signer's side of *no log, no key*).
    ///
    /// # Errors
    /// [`Error::ClaimsNotCanonical`] if re-serialising the claims gives other bytes (unknown members
    /// included); otherwise as [`AccessClaims::canonical`] and [`AccessClaims::from_map`].
    pub fn parse(bytes: &[u8]) -> Result<(Self, AccessClaims), Error> {
        if bytes.len() > CLAIMS_BYTES_MAX {
            return Err(Error::TooLarge { limit: CLAIMS_BYTES_MAX });
        }
        let claims = AccessClaims::from_map(&json::parse_object(bytes, "payload")?)?;
        let canonical = claims.canonical()?;
        if canonical.bytes != bytes {
            return Err(Error::ClaimsNotCanonical);
        }
        Ok((canonical, claims))
    }

    /// The bytes: UTF-8 JSON, keys sorted, no white space.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// SHA-256 of the bytes: what a log entry decides.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        sha256(&self.bytes)
    }
}

impl AccessClaims {
    /// The canonical bytes of these claims.
    ///
    /// # Errors
    /// [`Error::ClaimsUnfit`] for claims that must never be signed: empty or overlong strings, no
    /// audience, `exp` not after `iat`, an `act` chain deeper than [`ACT_DEPTH_MAX`]; or claims so many
    /// that no verifier would take the token ([`Error::TooLarge`]).
    pub fn canonical(&self) -> Result<CanonicalClaims, Error> {
        let claims = self.to_map();
        if self.expires_at <= self.issued_at {
            return Err(Error::ClaimsUnfit { what: "`exp` is not after `iat`" });
        }
        // What a stranger could not read back must not be signed.
        match Self::from_map(&claims) {
            Ok(read) if read == *self => {}
            _ => return Err(Error::ClaimsUnfit { what: "a claim is empty, too long or too deep" }),
        }
        let bytes = domain::json::canonical(&Value::Object(claims)).into_bytes();
        if bytes.len() > CLAIMS_BYTES_MAX {
            return Err(Error::TooLarge { limit: CLAIMS_BYTES_MAX });
        }
        Ok(CanonicalClaims { bytes })
    }

    /// Reads the claims of a token of ours. All required claims must be there and well-typed (RFC 9068
    /// §2.2); claims we do not know are ignored. Checks no time, issuer or audience.
    ///
    /// # Errors
    /// [`Error::ClaimMissing`] or [`Error::ClaimMalformed`].
    pub fn from_map(claims: &Map<String, Value>) -> Result<Self, Error> {
        let text = |claim| json::required_str(claims, claim, TEXT_BYTES_MAX).map(str::to_owned);
        let scope = json::optional_str(claims, "scope", TEXT_BYTES_MAX)?.map(str::to_owned);
        Ok(Self {
            issuer: text("iss")?,
            subject: text("sub")?,
            client_id: text("client_id")?,
            audience: read_audience(claims)?,
            issued_at: json::required_time(claims, "iat")?,
            expires_at: json::required_time(claims, "exp")?,
            token_id: text("jti")?,
            task: text("task")?,
            intent: text("intent")?,
            act: claims.get("act").map(|act| read_actor(act, 1)).transpose()?,
            confirmation: claims.get("cnf").map(read_confirmation).transpose()?,
            scope,
            authorization_details: read_details(claims)?,
        })
    }

    /// Checks that the presenter of the token proved the key that the token is bound to. A bound token
    /// sent as plain bearer is refused, and so is an unbound one sent with a DPoP proof (RFC 9449 §7.1):
    /// its holder believes in a protection that is not there.
    ///
    /// # Errors
    /// [`Error::BindingMissing`] or [`Error::BindingWrong`].
    pub fn check_binding(&self, presented: &Presented<'_>) -> Result<(), Error> {
        let (bound, proved) = match &self.confirmation {
            Some(Confirmation::Jkt(bound)) => (bound, presented.proof_jkt),
            Some(Confirmation::X5tS256(bound)) => (bound, presented.certificate_thumbprint),
            None if presented.proof_jkt.is_some() => return Err(Error::BindingMissing),
            None => return Ok(()),
        };
        match proved {
            Some(proved) if proved == bound => Ok(()),
            Some(_) => Err(Error::BindingWrong),
            None => Err(Error::BindingMissing),
        }
    }

    pub(crate) fn to_map(&self) -> Map<String, Value> {
        let mut claims = Map::new();
        let mut put = |name: &str, value: Value| claims.insert(name.to_owned(), value);
        put("iss", self.issuer.clone().into());
        put("sub", self.subject.clone().into());
        put("client_id", self.client_id.clone().into());
        put(
            "aud",
            match self.audience.as_slice() {
                [single] => single.clone().into(),
                several => several.into(),
            },
        );
        put("iat", self.issued_at.0.into());
        put("exp", self.expires_at.0.into());
        put("jti", self.token_id.clone().into());
        put("task", self.task.clone().into());
        put("intent", self.intent.clone().into());
        if let Some(act) = &self.act {
            put("act", write_actor(act));
        }
        match &self.confirmation {
            Some(Confirmation::Jkt(jkt)) => put("cnf", json!({ "jkt": jkt })),
            Some(Confirmation::X5tS256(thumbprint)) => put("cnf", json!({ "x5t#S256": thumbprint })),
            None => None,
        };
        if let Some(scope) = &self.scope {
            put("scope", scope.clone().into());
        }
        if !self.authorization_details.is_empty() {
            put("authorization_details", self.authorization_details.clone().into());
        }
        claims
    }
}

/// What the presenter of a token proved about itself in this request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Presented<'a> {
    /// Thumbprint of the key of a verified DPoP proof.
    pub proof_jkt: Option<&'a str>,
    /// `x5t#S256` of the client certificate of the connection.
    pub certificate_thumbprint: Option<&'a str>,
}

/// `aud`: one string, or a non-empty array of strings.
fn read_audience(claims: &Map<String, Value>) -> Result<Vec<String>, Error> {
    let malformed = Error::ClaimMalformed { claim: "aud" };
    let text = |value: &Value| match value.as_str() {
        Some(text) if !text.is_empty() && text.len() <= TEXT_BYTES_MAX => Ok(text.to_owned()),
        _ => Err(malformed.clone()),
    };
    match claims.get("aud") {
        None => Err(Error::ClaimMissing { claim: "aud" }),
        Some(Value::Array(values)) if values.is_empty() => Err(malformed),
        Some(Value::Array(values)) => values.iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}

/// `cnf` with exactly one member that we understand. A binding that we do not understand must never
/// turn a bound token into a bearer token.
fn read_confirmation(value: &Value) -> Result<Confirmation, Error> {
    let malformed = Error::ClaimMalformed { claim: "cnf" };
    let members = value.as_object().filter(|members| members.len() == 1).ok_or(malformed.clone())?;
    let text = |name| json::optional_str(members, name, THUMBPRINT_BYTES).ok().flatten();
    match (text("jkt"), text("x5t#S256")) {
        (Some(jkt), None) => Ok(Confirmation::Jkt(jkt.to_owned())),
        (None, Some(thumbprint)) => Ok(Confirmation::X5tS256(thumbprint.to_owned())),
        _ => Err(malformed),
    }
}

fn read_actor(value: &Value, depth: usize) -> Result<Actor, Error> {
    let malformed = Error::ClaimMalformed { claim: "act" };
    let members = value.as_object().ok_or(malformed.clone())?;
    if depth > ACT_DEPTH_MAX {
        return Err(malformed);
    }
    let text = |name| {
        json::optional_str(members, name, TEXT_BYTES_MAX).map(|text| text.map(str::to_owned)).map_err(|_| malformed.clone())
    };
    Ok(Actor {
        subject: text("sub")?.ok_or(malformed.clone())?,
        task: text("task")?,
        act: members.get("act").map(|act| read_actor(act, depth + 1)).transpose()?.map(Box::new),
    })
}

fn write_actor(actor: &Actor) -> Value {
    let mut value = Map::new();
    value.insert("sub".to_owned(), actor.subject.clone().into());
    if let Some(task) = &actor.task {
        value.insert("task".to_owned(), task.clone().into());
    }
    if let Some(act) = &actor.act {
        value.insert("act".to_owned(), write_actor(act));
    }
    Value::Object(value)
}

/// `authorization_details`: absent, or an array of objects (RFC 9396 §2).
fn read_details(claims: &Map<String, Value>) -> Result<Vec<Value>, Error> {
    match claims.get("authorization_details") {
        None => Ok(Vec::new()),
        Some(Value::Array(details)) if details.iter().all(Value::is_object) => Ok(details.clone()),
        Some(_) => Err(Error::ClaimMalformed { claim: "authorization_details" }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
