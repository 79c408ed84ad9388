//! A task's connection to one upstream.

use super::error::UpstreamError;
use super::exchange::{Event, Exchange};
use super::profile::ServerProfile;
use crate::mcp::message::{Id, Raw};
use domain::ToolName;
use http::HeaderMap;
use std::sync::Arc;
use tokio::sync::broadcast;

/// A request of the client on its way to the upstream.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The client's id for it.
    pub id: &'a Id,
    /// What it asks.
    pub method: &'a str,
    /// With what: the text that was decided on.
    pub params: Option<&'a Raw>,
    /// The client's HTTP headers. Only trace context is passed on.
    pub headers: &'a HeaderMap,
}

/// A connection; cheap to clone.
#[derive(Debug, Clone)]
pub struct Connection {}

impl Connection {
    /// What the upstream says of itself.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn server(&self) -> Result<Arc<ServerProfile>, UpstreamError> {
        Err(UpstreamError::Closed)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Why it could not be sent, or was answered with something that is no answer.
    pub async fn request(&self, outgoing: Outgoing<'_>) -> Result<Exchange, UpstreamError> {
        let _ = outgoing;
        Err(UpstreamError::Closed)
    }

    /// Sends a notification of the client. `notifications/initialized` and `notifications/cancelled` are not needed:
    /// the connection does the first by itself, and dropping the [`Exchange`] does the second.
    ///
    /// # Errors
    /// Why it could not be sent.
    pub async fn notify(&self, method: &str, params: Option<&Raw>) -> Result<(), UpstreamError> {
        let _ = (method, params);
        Err(UpstreamError::Closed)
    }

    /// Hands the client's answer to a request of the upstream on.
    ///
    /// # Errors
    /// [`UpstreamError::NoSuchRequest`] if nothing waits for it; else why it could not be sent.
    pub async fn answer(&self, id: &Id, outcome: Result<&Raw, &Raw>) -> Result<(), UpstreamError> {
        let _ = (id, outcome);
        Err(UpstreamError::Closed)
    }

    /// What comes from the upstream outside any exchange: changes of lists, updates of resources, log messages,
    /// requests to the client.
    #[must_use]
    pub fn unsolicited(&self) -> broadcast::Receiver<Event> {
        broadcast::channel(1).1
    }

    /// Whether the live definition of the tool is the approved one. Lists the upstream's tools if it was not seen
    /// lately.
    ///
    /// # Errors
    /// Why the upstream's tools could not be listed.
    pub async fn tool_is_approved(&self, tool: &ToolName) -> Result<bool, UpstreamError> {
        let _ = tool;
        Ok(false)
    }

    /// Closes the connection and everything under way on it.
    pub async fn close(&self) {}
}
