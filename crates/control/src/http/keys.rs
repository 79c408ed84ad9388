//! Rotation of the token signing key. Owns the endpoint only: keys live behind a port, never here, and tokens of the old
//! key stay verifiable until they expire.

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
