//! Rotation of the token signing key. Tokens of the old key stay verifiable until they expire; the port's owner sees to it.

use crate::App;
use crate::authenticate::admin;
use crate::problem::Problem;
use crate::respond;
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

/// `POST /v1/keys/rotate`
pub(crate) async fn rotate(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    let by = admin(&app, request.headers())?;
    let key_id = app.keys.rotate(&by).await.map_err(respond::port)?;
    Ok(Json(json!({ "key_id": key_id })))
}
