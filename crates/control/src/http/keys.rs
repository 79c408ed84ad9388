//! Rotation of the token signing key. Owns the endpoint only: keys live behind a port, never here. A new key is published
//! before it signs, and tokens of the old one stay verifiable until they expire.

use crate::App;
use crate::authenticate::admin;
use crate::instant;
use crate::problem::Problem;
use crate::respond;
use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};

/// `POST /v1/keys/rotate`
pub(crate) async fn rotate(State(app): State<App>, request: Request) -> Result<Json<Value>, Problem> {
    let by = admin(&app, request.headers())?;
    let next = app.keys.rotate(&by).await.map_err(respond::port)?;
    Ok(Json(json!({ "key_id": next.key_id, "signs_at": instant::to_text(next.signs_at) })))
}
