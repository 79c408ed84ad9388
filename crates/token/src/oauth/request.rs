//! Requests to our OAuth endpoints, parsed into one enum arm per grant (RFC 6749 §3.2, RFC 8693, RFC
//! 7523, RFC 8705, RFC 8707, RFC 9396). Verifying the evidence in them is `verify`'s business.

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::json;
use crate::oauth::WRIT_TASK_TYPE;
use crate::oauth::error::{ErrorCode, OAuthError};
pub use crate::oauth::form::FORM_BYTES_MAX;
use crate::oauth::form::{Form, invalid};
use crate::oauth::metadata::slashless;

/// Grant type of token exchange (RFC 8693 §2.1).
pub const GRANT_TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
/// Grant type of JWT bearer assertions (RFC 7523 §2.1).
pub const GRANT_JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Grant type of client credentials (RFC 6749 §4.4).
pub const GRANT_CLIENT_CREDENTIALS: &str = "client_credentials";

const TOKEN_TYPE_JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const TOKEN_TYPE_ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
/// What we issue (RFC 8693 §3).
pub(super) const TOKEN_TYPE_ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ASSERTION_TYPE_JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ASSERTION_TYPE_JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// Most `resource` parameters in one request.
const RESOURCES_MAX: usize = 8;
/// Longest `resource`, `client_id` or `scope` in bytes.
const TEXT_BYTES_MAX: usize = 2048;
/// Longest intent name or task id in bytes.
const NAME_BYTES_MAX: usize = 128;
/// What task ids start with.
const TASK_ID_PREFIX: &str = "tsk_";

/// What a subject token claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectTokenType {
    /// `urn:ietf:params:oauth:token-type:jwt`.
    Jwt,
    /// `urn:ietf:params:oauth:token-type:id_token`.
    IdToken,
}

/// Which grant is asked for, with its evidence.
#[derive(Debug)]
pub enum Grant {
    /// Token exchange (RFC 8693): evidence in, task-bound access token out.
    TokenExchange {
        /// The evidence.
        subject_token: SecretString,
        /// Its declared type.
        subject_token_type: SubjectTokenType,
    },
    /// JWT bearer grant (RFC 7523 §2.1): workload identity federation.
    JwtBearer {
        /// The evidence.
        assertion: SecretString,
    },
    /// Client credentials; the evidence is the client's X.509-SVID or its assertion.
    ClientCredentials,
}

/// What kind of client assertion was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAssertionType {
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-bearer` (RFC 7523 §2.2).
    JwtBearer,
    /// `urn:ietf:params:oauth:client-assertion-type:jwt-spiffe`.
    JwtSpiffe,
}

/// A client assertion.
#[derive(Debug)]
pub struct ClientAssertion {
    /// Its type.
    pub kind: ClientAssertionType,
    /// The JWT.
    pub assertion: SecretString,
}

/// The `writ_task` authorization detail (RFC 9396): opens a task, or renews one.
#[derive(Debug, Clone, PartialEq)]
pub enum WritTask {
    /// Declares an intent.
    Open {
        /// Its name.
        intent: String,
        /// Its parameters; typed later, by the intent's schema.
        parameters: Map<String, Value>,
        /// Wanted lifetime in seconds.
        lifetime_secs: Option<u64>,
        /// The task whose place this one takes, `tsk_…`: a change of course.
        replaces: Option<String>,
    },
    /// Keeps what was declared.
    Renew {
        /// The task, `tsk_…`.
        task: String,
    },
}

/// A token request.
#[derive(Debug)]
pub struct TokenRequest {
    /// The grant.
    pub grant: Grant,
    /// `client_id`, if sent.
    pub client_id: Option<String>,
    /// The client assertion, if sent.
    pub client_assertion: Option<ClientAssertion>,
    /// `resource` values (RFC 8707), absolute URIs without fragment, slash-less canonical form.
    pub resources: Vec<String>,
    /// `scope`, split at spaces.
    pub scope: Vec<String>,
    /// The task asked for.
    pub task: Option<WritTask>,
}

/// An introspection (RFC 7662 §2.1) or revocation (RFC 7009 §2.1) request.
#[derive(Debug)]
pub struct TokenQuery {
    /// The token asked about.
    pub token: SecretString,
    /// `token_type_hint`; only a hint.
    pub token_type_hint: Option<String>,
    /// `client_id`, if sent.
    pub client_id: Option<String>,
    /// The client assertion, if sent.
    pub client_assertion: Option<ClientAssertion>,
}

impl Grant {
    /// The error code for evidence of this grant that does not verify: `invalid_request` for token exchange
    /// (RFC 8693 §2.2.2), `invalid_grant` for assertions (RFC 7523 §3.1), `invalid_client` where the client
    /// itself is the evidence (RFC 6749 §5.2).
    #[must_use]
    pub const fn evidence_error(&self) -> ErrorCode {
        match self {
            Self::TokenExchange { .. } => ErrorCode::InvalidRequest,
            Self::JwtBearer { .. } => ErrorCode::InvalidGrant,
            Self::ClientCredentials => ErrorCode::InvalidClient,
        }
    }

    fn read(form: &mut Form) -> Result<Self, OAuthError> {
        match form.require("grant_type")?.as_str() {
            GRANT_TOKEN_EXCHANGE => Self::read_exchange(form),
            GRANT_JWT_BEARER => Ok(Self::JwtBearer { assertion: form.require("assertion")?.into() }),
            GRANT_CLIENT_CREDENTIALS => Ok(Self::ClientCredentials),
            _ => Err(OAuthError::new(ErrorCode::UnsupportedGrantType, "use token-exchange, jwt-bearer or client_credentials")),
        }
    }

    fn read_exchange(form: &mut Form) -> Result<Self, OAuthError> {
        if form.has("actor_token") || form.has("actor_token_type") {
            return Err(invalid("actor tokens are not supported"));
        }
        let requested = form.take("requested_token_type");
        if requested.is_some_and(|wanted| wanted != TOKEN_TYPE_ACCESS_TOKEN && wanted != TOKEN_TYPE_JWT) {
            return Err(invalid("requested_token_type must be access_token or jwt"));
        }
        let subject_token = form.require("subject_token")?.into();
        let subject_token_type = match form.require("subject_token_type")?.as_str() {
            TOKEN_TYPE_JWT => SubjectTokenType::Jwt,
            TOKEN_TYPE_ID_TOKEN => SubjectTokenType::IdToken,
            _ => return Err(invalid("subject_token_type must be jwt or id_token")),
        };
        Ok(Self::TokenExchange { subject_token, subject_token_type })
    }
}

impl TokenRequest {
    /// Parses an `application/x-www-form-urlencoded` body. Unknown parameters are ignored (RFC 6749 §3.2),
    /// repeated ones are not.
    ///
    /// # Errors
    /// The RFC's own error answer.
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        let mut form = Form::parse(body, &["resource", "audience"])?;
        let grant = Grant::read(&mut form)?;
        let (client_id, client_assertion) = read_client(&mut form)?;
        if form.has("audience") {
            let text = "name the target with resource, not with audience";
            return Err(OAuthError::new(ErrorCode::InvalidTarget, text));
        }
        let resources = read_resources(form.take_all("resource"))?;
        let scope = form.take("scope").map(|scope| read_scope(&scope)).transpose()?;
        let task = form.take("authorization_details").map(|text| WritTask::parse(&text)).transpose()?;
        let scope = scope.unwrap_or_default();
        Ok(Self { grant, client_id, client_assertion, resources, scope, task })
    }
}

impl WritTask {
    /// Parses an `authorization_details` value: an array of exactly one object of type `writ_task` without
    /// unknown members (RFC 9396 §5).
    ///
    /// # Errors
    /// `invalid_authorization_details`.
    pub fn parse(text: &str) -> Result<Self, OAuthError> {
        let refused = |why: &str| OAuthError::new(ErrorCode::InvalidAuthorizationDetails, why);
        let value = json::parse(text.as_bytes(), "authorization_details")
            .map_err(|_| refused("not JSON, nested too deep, or a member is repeated"))?;
        let Value::Array(mut details) = value else {
            return Err(refused("must be an array"));
        };
        let (Some(Value::Object(mut detail)), true) = (details.pop(), details.is_empty()) else {
            return Err(refused("must hold exactly one object"));
        };
        if detail.remove("type").as_ref().and_then(Value::as_str) != Some(WRIT_TASK_TYPE) {
            return Err(refused("the only known type is writ_task"));
        }
        let renewed = take_task_id(&mut detail, "task")?;
        let parsed = match renewed {
            Some(task) => Self::Renew { task },
            None => Self::read_open(&mut detail)?,
        };
        match (detail.keys().next(), &parsed) {
            (None, _) => Ok(parsed),
            (Some(name), Self::Open { .. }) => Err(refused(&format!("unknown member {name}"))),
            // A silently ignored declaration would leave the agent believing that it changed something.
            (Some(_), Self::Renew { .. }) => {
                Err(refused("a renewal keeps what was declared: give task alone, or declare anew with replaces"))
            }
        }
    }

    fn read_open(detail: &mut Map<String, Value>) -> Result<Self, OAuthError> {
        let refused = |why: &str| OAuthError::new(ErrorCode::InvalidAuthorizationDetails, why);
        let intent = match detail.remove("intent") {
            Some(Value::String(name)) if is_name(&name) => name,
            _ => return Err(refused("intent must be the name of an intent")),
        };
        let parameters = match detail.remove("parameters") {
            None => Map::new(),
            Some(Value::Object(parameters)) => parameters,
            Some(_) => return Err(refused("parameters must be an object")),
        };
        let lifetime_secs = match detail.remove("lifetime_secs").map(|value| value.as_u64()) {
            None => None,
            Some(Some(secs)) if secs > 0 => Some(secs),
            Some(_) => return Err(refused("lifetime_secs must be a positive whole number")),
        };
        let replaces = take_task_id(detail, "replaces")?;
        Ok(Self::Open { intent, parameters, lifetime_secs, replaces })
    }
}

/// Removes a member that holds the id of a task.
fn take_task_id(detail: &mut Map<String, Value>, name: &str) -> Result<Option<String>, OAuthError> {
    match detail.remove(name) {
        None => Ok(None),
        Some(Value::String(id)) if id.starts_with(TASK_ID_PREFIX) && is_name(&id) => Ok(Some(id)),
        Some(_) => {
            let text = format!("{name} must be the id of a task (tsk_...)");
            Err(OAuthError::new(ErrorCode::InvalidAuthorizationDetails, &text))
        }
    }
}

impl TokenQuery {
    /// Parses an introspection or revocation form.
    ///
    /// # Errors
    /// `invalid_request`, or `invalid_client` for a client authentication that we do not have.
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        let mut form = Form::parse(body, &[])?;
        let (client_id, client_assertion) = read_client(&mut form)?;
        Ok(Self {
            token: form.require("token")?.into(),
            token_type_hint: form.take("token_type_hint"),
            client_id,
            client_assertion,
        })
    }
}

/// `client_id` and the client assertion. A client secret proves nothing here and is refused, so that
/// nobody believes that it does.
fn read_client(form: &mut Form) -> Result<(Option<String>, Option<ClientAssertion>), OAuthError> {
    let refused = |why: &str| OAuthError::new(ErrorCode::InvalidClient, why);
    if form.has("client_secret") {
        return Err(refused("client secrets are not accepted; prove a workload identity"));
    }
    let client_id = form.take("client_id");
    if client_id.as_ref().is_some_and(|id| id.len() > TEXT_BYTES_MAX) {
        return Err(refused("client_id is too long"));
    }
    let kind = match form.take("client_assertion_type").as_deref() {
        None => None,
        Some(ASSERTION_TYPE_JWT_BEARER) => Some(ClientAssertionType::JwtBearer),
        Some(ASSERTION_TYPE_JWT_SPIFFE) => Some(ClientAssertionType::JwtSpiffe),
        Some(_) => return Err(refused("client_assertion_type must be jwt-bearer or jwt-spiffe")),
    };
    match (kind, form.take("client_assertion")) {
        (None, None) => Ok((client_id, None)),
        (Some(kind), Some(jwt)) => Ok((client_id, Some(ClientAssertion { kind, assertion: jwt.into() }))),
        _ => Err(invalid("client_assertion and client_assertion_type belong together")),
    }
}

/// RFC 8707 §2: absolute URIs without a fragment. Both spellings of the end are accepted, one is kept.
fn read_resources(values: Vec<String>) -> Result<Vec<String>, OAuthError> {
    let refused = |why: &str| OAuthError::new(ErrorCode::InvalidTarget, why);
    if values.len() > RESOURCES_MAX {
        return Err(refused("too many resources"));
    }
    let mut resources: Vec<String> = Vec::with_capacity(values.len());
    for value in values {
        let absolute = url::Url::parse(&value).is_ok_and(|url| url.fragment().is_none());
        let plain = value.len() <= TEXT_BYTES_MAX && value.bytes().all(|b| b.is_ascii_graphic());
        if !absolute || !plain {
            return Err(refused("resource must be an absolute URI without fragment"));
        }
        let resource = slashless(&value);
        if !resources.iter().any(|known| known == resource) {
            resources.push(resource.to_owned());
        }
    }
    Ok(resources)
}

/// RFC 6749 §3.3: printable tokens, one space between them.
fn read_scope(text: &str) -> Result<Vec<String>, OAuthError> {
    let token = |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    if text.len() > TEXT_BYTES_MAX || !text.split(' ').all(token) {
        return Err(OAuthError::new(ErrorCode::InvalidScope, "scope is malformed"));
    }
    Ok(text.split(' ').map(str::to_owned).collect())
}

/// Letters, digits, `_`, `-`, `.` and `:`; short.
fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests;
