//! The authorization endpoint (RFC 6749 §3.1) of a server that has no people to ask: it refuses everybody, and says where
//! tokens are. It is there because clients do not accept metadata without one, even those that never go there. It never
//! redirects: no client has registered where to.

use crate::respond::OAuthAnswer;
use token::oauth::error::ErrorCode;

/// `GET /oauth/authorize`
pub(crate) async fn authorize() -> OAuthAnswer {
    let text = "nobody logs in here: prove a workload identity at the token endpoint";
    OAuthAnswer::new(ErrorCode::UnauthorizedClient, text)
}
