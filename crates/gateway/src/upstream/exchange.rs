//! One request to an upstream and everything that comes back for it, in order. Dropping an [`Exchange`] before its
//! outcome cancels the request at the upstream.

use super::error::UpstreamError;
use crate::mcp::message::{Id, Raw};

/// Something that an upstream sent.
#[derive(Debug, Clone)]
pub enum Event {
    /// A notification.
    Notification {
        /// What it says.
        method: String,
        /// About what, as it came.
        params: Option<Raw>,
    },
    /// A request to the client; answer it with [`super::Connection::answer`].
    Request {
        /// Its id, chosen by the upstream (or by the gateway, for a stateless upstream).
        id: Id,
        /// What it asks.
        method: String,
        /// With what, as it came.
        params: Option<Raw>,
    },
    /// A point from which the stream could go on after an interruption: it stands before the event that follows it,
    /// or alone (MCP 2025-11-25 "Resumability").
    Cursor {
        /// The id of the server-sent event.
        id: Option<String>,
        /// How long a client should wait before it comes back, in milliseconds.
        retry_millis: Option<u64>,
    },
    /// The upstream closed the connection but not the stream. [`Exchange::next`] goes on by itself after the wait that
    /// the upstream asked for; a caller may let its own client come back instead.
    Paused,
    /// The result: the end.
    Result(Raw),
    /// The error object: the end.
    Error(Raw),
}

impl Event {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Result(_) | Self::Error(_))
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Exchange {}

impl Exchange {
    /// The next event. Safe to cancel. After the end, [`UpstreamError::Closed`].
    ///
    /// # Errors
    /// Why no outcome will come.
    pub async fn next(&mut self) -> Result<Event, UpstreamError> {
        Err(UpstreamError::Closed)
    }
}
