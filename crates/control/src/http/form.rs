//! Form bodies of the OAuth endpoints (RFC 6749 §3.2, Appendix B): the media type, the size, and nothing in the query.
//! What is in the form is `token`'s to parse.

use crate::body::{self, Unread};
use crate::respond::OAuthAnswer;
use axum::body::{Body, Bytes};
use http::StatusCode;
use http::request::Parts;
use token::oauth::error::ErrorCode;

/// The bytes of the form.
pub(crate) async fn read(parts: &Parts, body: Body, limit: usize) -> Result<Bytes, OAuthAnswer> {
    let invalid = |text: &str| OAuthAnswer::new(ErrorCode::InvalidRequest, text);
    if parts.uri.query().is_some() {
        return Err(invalid("parameters go into the body, never into the query"));
    }
    if !body::is_type(&parts.headers, "application/x-www-form-urlencoded") {
        return Err(invalid("send the parameters as content-type application/x-www-form-urlencoded"));
    }
    body::read(body, limit).await.map_err(|why| match why {
        Unread::TooLarge(limit) => {
            invalid(&format!("the form has more than {limit} bytes")).status(StatusCode::PAYLOAD_TOO_LARGE)
        }
        Unread::Slow => invalid("the form did not arrive in time").status(StatusCode::REQUEST_TIMEOUT),
        Unread::Broken => invalid("the form could not be read"),
    })
}
