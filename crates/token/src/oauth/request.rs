//! Requests to our OAuth endpoints, parsed into one enum arm per grant (RFC 6749 §3.2, RFC 8693, RFC
//! 7523, RFC 8705, RFC 8707, RFC 9396). Verifying the evidence in them is `verify`'s business.

use secrecy::SecretString;
use serde_json::{Map, Value};

use crate::oauth::error::OAuthError;

/// Largest form in bytes.
pub const FORM_BYTES_MAX: usize = 64 * 1024;

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
pub struct WritTask {
    /// Name of the intent.
    pub intent: String,
    /// Its parameters; typed later, by the intent's schema.
    pub parameters: Map<String, Value>,
    /// Wanted lifetime in seconds.
    pub lifetime_secs: Option<u64>,
    /// The task to renew, `tsk_…`.
    pub task: Option<String>,
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

impl TokenRequest {
    /// Parses an `application/x-www-form-urlencoded` body.
    ///
    /// # Errors
    /// The RFC's own error answer.
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        todo!()
    }
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

impl TokenQuery {
    /// Parses an introspection or revocation form.
    ///
    /// # Errors
    /// `invalid_request`.
    pub fn parse(body: &[u8]) -> Result<Self, OAuthError> {
        todo!()
    }
}
