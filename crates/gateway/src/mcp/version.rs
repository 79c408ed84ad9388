//! Protocol revisions, their wire names, and the codes and keys that differ between them. Owns no behaviour.
//! Follows MCP 2026-07-28 "Versioning" and, for the session revisions, "Lifecycle".

use std::fmt;

/// A revision of MCP that Writ speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// 2024-11-05.
    V2024_11_05,
    /// 2025-03-26: the only one with JSON-RPC batches.
    V2025_03_26,
    /// 2025-06-18.
    V2025_06_18,
    /// 2025-11-25: the last one with sessions.
    V2025_11_25,
    /// 2026-07-28: stateless.
    V2026_07_28,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 5] = [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25, Self::V2026_07_28];
    /// The newest revision with sessions.
    pub const NEWEST_LEGACY: Self = Self::V2025_11_25;
    /// The newest stateless revision.
    pub const NEWEST_MODERN: Self = Self::V2026_07_28;

    /// The revision as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
            Self::V2026_07_28 => "2026-07-28",
        }
    }

    /// The revision by its wire name.
    #[must_use]
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.as_str() == text)
    }

    /// Whether the revision has no sessions.
    #[must_use]
    pub fn is_modern(self) -> bool {
        self >= Self::V2026_07_28
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Era {
    /// With `initialize` and sessions, in this revision.
    Legacy(Version),
    /// Stateless, in this revision.
    Modern(Version),
}

impl Era {
    /// The revision.
    #[must_use]
    pub const fn version(self) -> Version {
        match self {
            Self::Legacy(version) | Self::Modern(version) => version,
        }
    }

    /// Whether the peer is stateless.
    #[must_use]
    pub const fn is_modern(self) -> bool {
        matches!(self, Self::Modern(_))
    }
}

/// Names of HTTP headers (lower case, as hyper wants them).
pub mod header {
    /// The revision of a request.
    pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
    /// The session of a legacy request.
    pub const SESSION_ID: &str = "mcp-session-id";
    /// The method of a modern request.
    pub const METHOD: &str = "mcp-method";
    /// What a modern request is about: tool, prompt or resource URI.
    pub const NAME: &str = "mcp-name";
    /// Where an interrupted legacy stream goes on.
    pub const LAST_EVENT_ID: &str = "last-event-id";
}

/// Keys of `_meta` that modern requests carry.
pub mod meta {
    /// The revision.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// What the client can do.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// Who the client is.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// Which log messages the client wants with this request.
    pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
    /// Who the server is.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    /// Which subscription a notification belongs to.
    pub const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";
}

/// JSON-RPC error codes.
pub mod code {
    /// Not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// Not a request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// No such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// Wrong parameters; also an unknown tool or prompt.
    pub const INVALID_PARAMS: i64 = -32602;
    /// Our fault or the upstream's.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// No such resource, in the session revisions.
    pub const RESOURCE_NOT_FOUND: i64 = -32002;
    /// Header and body disagree (MCP 2026-07-28).
    pub const HEADER_MISMATCH: i64 = -32020;
    /// The client lacks a capability that the request needs (MCP 2026-07-28).
    pub const MISSING_CAPABILITY: i64 = -32021;
    /// The revision is not spoken here (MCP 2026-07-28).
    pub const UNSUPPORTED_VERSION: i64 = -32022;
}
