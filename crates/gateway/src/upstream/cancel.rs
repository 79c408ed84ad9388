//! A request that nobody waits for any more is cancelled at its upstream. MCP 2025-11-25 "Cancellation"; MCP 2026-07-28
//! "Transport-Specific Cancellation" for children. A stateless request over HTTP needs none: its stream is closed.

use super::link::{Carrier, Link, Prepared, Session, spawn};
use crate::mcp::message::{Id, Raw};
use crate::mcp::stream;
use serde_json::json;
use std::sync::Arc;

/// Tells the upstream that nobody waits for a request any more, when it is dropped before its end.
pub(super) struct Cancel {
    link: Arc<Link>,
    session: Arc<Session>,
    id: Id,
    /// The upstream is not told.
    silent: bool,
    armed: bool,
}

impl Cancel {
    /// For this request, in this session.
    pub(super) fn new(link: &Arc<Link>, session: &Arc<Session>, request: &Prepared) -> Self {
        // `initialize` must not be cancelled (MCP 2025-11-25 "Cancellation"), and who does not know `server/discover`
        // need not know of its cancellation before a session has begun.
        let silent = matches!(request.method.as_str(), "initialize" | "server/discover");
        Self { link: Arc::clone(link), session: Arc::clone(session), id: request.id.clone(), silent, armed: true }
    }

    /// The request has come to its end.
    pub(super) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let params = Raw::from_value(&json!({ "requestId": self.id.to_value(), "reason": "the client no longer waits" }));
        let message = stream::call(None, "notifications/cancelled", Some(&params));
        match &self.session.carrier {
            Carrier::Child(child) => child.abandon(&self.id, (!self.silent).then_some(message)),
            Carrier::Http(_) if self.silent => {}
            Carrier::Http(_) => {
                let (link, session) = (Arc::clone(&self.link), Arc::clone(&self.session));
                spawn(async move {
                    if let Err(error) = link.send(&session, message).await {
                        tracing::debug!(%error, upstream = %link.name(), "a cancellation did not reach the upstream");
                    }
                });
            }
        }
    }
}
