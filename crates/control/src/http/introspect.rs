//! Token introspection for enforcement points (RFC 7662). A token that is not active here and now, for whatever reason,
//! is answered with `{"active":false}` and nothing else.

use crate::App;
use crate::authenticate::basic_client;
use crate::http::form;
use crate::respond::{self, OAuthAnswer};
use authority::Introspection;
use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use secrecy::ExposeSecret;
use token::oauth::request::{FORM_BYTES_MAX, TokenQuery};
use token::oauth::response::{introspection_active, introspection_inactive};

/// `POST /oauth/introspect`
pub(crate) async fn introspect(State(app): State<App>, request: Request) -> Result<Response, OAuthAnswer> {
    basic_client(&app, request.headers())?;
    let (parts, body) = request.into_parts();
    let form = form::read(&parts, body, FORM_BYTES_MAX).await?;
    let query = TokenQuery::parse(&form)?;
    let body = match app.authority.introspect(query.token.expose_secret()) {
        Introspection::Active(claims) => introspection_active(&claims),
        Introspection::Inactive => introspection_inactive(),
    };
    Ok(respond::no_store(StatusCode::OK, body.to_string()))
}
