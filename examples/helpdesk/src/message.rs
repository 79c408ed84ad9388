//! JSON-RPC as MCP uses it: one request or notification in, one answer out, with the HTTP status
//! that Streamable HTTP asks for. It knows no tool and no record. JSON-RPC 2.0; MCP 2026-07-28 "Error Codes".

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// A request or a notification as it was received; a notification has no `id`.
#[derive(Debug, Deserialize)]
pub(crate) struct Incoming {
    pub(crate) jsonrpc: String,
    #[serde(default)]
    pub(crate) id: Option<Value>,
    pub(crate) method: String,
    #[serde(default)]
    pub(crate) params: Value,
}

impl Incoming {
    /// Reads one message. Arrays are refused: the revisions served here have no batches.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Fault> {
        let value: Value = serde_json::from_slice(body).map_err(|_| Fault::NotJson)?;
        let incoming: Self = serde_json::from_value(value).map_err(|_| Fault::NotARequest)?;
        let id_fits = matches!(incoming.id, None | Some(Value::String(_) | Value::Number(_)));
        if incoming.jsonrpc == "2.0" && id_fits { Ok(incoming) } else { Err(Fault::NotARequest) }
    }

    /// A member of `params._meta`, such as the protocol version of the stateless revision.
    pub(crate) fn meta(&self, key: &str) -> Option<&Value> {
        self.params.get("_meta")?.get(key)
    }
}

/// Why a request gets an error for an answer; each has one code and one status.
#[derive(Debug)]
pub(crate) enum Fault {
    NotJson,
    NotARequest,
    NoSuchMethod(String),
    BadParams(String),
    MissingMeta(&'static str),
    HeaderMismatch(String),
    UnsupportedRevision(String),
    Internal,
}

impl Fault {
    fn code(&self) -> i64 {
        match self {
            Self::NotJson => -32700,
            Self::NotARequest => -32600,
            Self::NoSuchMethod(_) => -32601,
            Self::BadParams(_) | Self::MissingMeta(_) => -32602,
            Self::Internal => -32603,
            Self::HeaderMismatch(_) => -32020,
            Self::UnsupportedRevision(_) => -32022,
        }
    }

    /// The stateless revision fixes the status of some errors; the older ones answer 200 to all that
    /// was a request.
    pub(crate) fn status(&self, stateless: bool) -> StatusCode {
        match self {
            Self::NotJson | Self::NotARequest | Self::MissingMeta(_) => StatusCode::BAD_REQUEST,
            Self::HeaderMismatch(_) | Self::UnsupportedRevision(_) => StatusCode::BAD_REQUEST,
            Self::NoSuchMethod(_) if stateless => StatusCode::NOT_FOUND,
            Self::NoSuchMethod(_) | Self::BadParams(_) | Self::Internal => StatusCode::OK,
        }
    }

    /// The error response to the request `id`.
    pub(crate) fn response(&self, id: Option<&Value>) -> Value {
        let mut error = json!({ "code": self.code(), "message": self.text() });
        if let (Self::UnsupportedRevision(requested), Some(error)) = (self, error.as_object_mut()) {
            let data = json!({ "supported": crate::era::REVISIONS, "requested": requested });
            error.insert("data".to_owned(), data);
        }
        json!({ "jsonrpc": "2.0", "id": id, "error": error })
    }

    fn text(&self) -> String {
        match self {
            Self::NotJson => "the body is not JSON".to_owned(),
            Self::NotARequest => "the body is not one JSON-RPC request or notification".to_owned(),
            Self::NoSuchMethod(method) => format!("no such method `{method}`"),
            Self::BadParams(what) => what.clone(),
            Self::MissingMeta(key) => format!("`params._meta` lacks `{key}`"),
            Self::HeaderMismatch(what) => format!("header mismatch: {what}"),
            Self::UnsupportedRevision(requested) => format!("protocol revision `{requested}` is not served here"),
            Self::Internal => "internal error".to_owned(),
        }
    }
}

/// The success response to the request `id`.
pub(crate) fn response(id: &Value, result: Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}
