//! Token revocation (RFC 7009). An enforcement point authenticates; whoever holds a token may revoke that token without
//! (a public client, RFC 7009 §2.1): it can only take away what it has. An unknown token is as good as revoked: 200.

use crate::App;
use crate::authenticate::{basic_client, has_authorization};
use crate::http::form;
use crate::respond::{self, OAuthAnswer};
use authority::Actor;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use http::header::RETRY_AFTER;
use secrecy::ExposeSecret;
use token::oauth::error::ErrorCode;
use token::oauth::request::{FORM_BYTES_MAX, TokenQuery};

/// `POST /oauth/revoke`
pub(crate) async fn revoke(State(app): State<App>, request: Request) -> Result<Response, OAuthAnswer> {
    let by = match has_authorization(request.headers()) {
        true => Actor::Operator(basic_client(&app, request.headers())?.name.clone()),
        false => Actor::Holder,
    };
    let (parts, body) = request.into_parts();
    let form = form::read(&parts, body, FORM_BYTES_MAX).await?;
    let query = TokenQuery::parse(&form)?;
    app.authority.revoke_token(query.token.expose_secret(), &by).await.map_err(|error| {
        tracing::error!(%error, "token not revoked");
        // RFC 7009 §2.2.1: 503 means that the token still lives and the client has to try again.
        OAuthAnswer::new(ErrorCode::TemporarilyUnavailable, "the token could not be revoked; try again").with(RETRY_AFTER, "1")
    })?;
    Ok(respond::no_store(StatusCode::OK, String::new()))
}
