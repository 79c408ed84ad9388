//! The API's description (OpenAPI 3.1). Written by hand in `openapi.json`; a test holds it against the table of endpoints.

use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("openapi.json");

/// The description, with this server in it.
pub(crate) fn document(issuer: &str) -> Value {
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        members.insert("servers".to_owned(), json!([{ "url": issuer }]));
    }
    document
}
