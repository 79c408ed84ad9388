//! Who speaks on either side of the gateway: what the client can do, and what the upstream said of itself.
//! Plain values; nothing here is trusted, and no decision rests on it.

use crate::mcp::message::Raw;
use crate::mcp::version::Era;
use serde_json::Value;
use std::sync::Arc;

/// The session of a legacy client, as the gateway named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionKey(pub Arc<str>);

/// The client, as an upstream shall see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientProfile {
    /// How it speaks, in which revision.
    pub era: Era,
    /// Its capabilities, as far as an upstream is told of them.
    pub capabilities: Value,
    /// Its session with the gateway; `None` for stateless clients.
    pub session: Option<SessionKey>,
}

/// The upstream, as it described itself.
#[derive(Debug, Clone)]
pub struct ServerProfile {
    /// How it speaks, in which revision (the negotiated one).
    pub era: Era,
    /// The whole result of `initialize` or `server/discover`, as it came.
    pub described: Raw,
    /// Its capabilities.
    pub capabilities: Value,
    /// Its `serverInfo`; `Value::Null` if it gave none.
    pub info: Value,
    /// Its instructions for models.
    pub instructions: Option<String>,
}
