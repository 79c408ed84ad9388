//! A small, honest orders-and-helpdesk MCP server over SQLite: the sample upstream of the demo and
//! of the tests. It knows orders, customers, tickets and an outbox, and speaks Streamable HTTP in
//! both protocol eras (MCP 2026-07-28 stateless; 2025-11-25 and 2025-06-18 with sessions).
//!
//! It must never know that a gateway exists: no policy, no identity of an agent, no labels. What it
//! trusts is whoever reaches it, or whoever holds the one credential it was told to ask for. One of
//! its tickets carries a text that tries to talk a model into something else, as real tickets do.

mod endpoint;
mod era;
mod message;
mod offer;
mod records;
mod seed;
mod session;

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use secrecy::SecretString;

use crate::records::Records;
use crate::session::Sessions;

pub use crate::records::Email;

/// How many received calls are kept; older ones are dropped, so that a long benchmark cannot fill
/// the memory of the process that runs it.
const RECEIVED_CALLS_MAX: usize = 10_000;

/// Why the helpdesk could not start, or could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database cannot be opened, read or written.
    #[error("the helpdesk database cannot be used")]
    Database(#[from] rusqlite::Error),
    /// The listener failed.
    #[error("the helpdesk cannot serve on its listener")]
    Listener(#[from] std::io::Error),
}

/// One `tools/call` as it arrived, before it was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedCall {
    /// The tool that was named, known or not.
    pub tool: String,
    /// Its arguments as they were parsed; `null` if there were none.
    pub arguments: serde_json::Value,
    /// The protocol revision of the request, such as `2026-07-28`.
    pub revision: String,
    /// The session that carried it; `None` in the stateless revision.
    pub session: Option<String>,
    /// Whether an `Authorization` header came with it. Its value is not kept.
    pub authorized: bool,
}

/// The server: cheap to clone, all clones share the same records.
#[derive(Clone)]
pub struct Helpdesk {
    shared: Arc<Shared>,
}

struct Shared {
    records: Records,
    sessions: Sessions,
    received: Mutex<Vec<ReceivedCall>>,
    credential: Option<SecretString>,
}

impl std::fmt::Debug for Helpdesk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Helpdesk").finish_non_exhaustive()
    }
}

impl Helpdesk {
    /// Opens the helpdesk over a new database in memory, with its sample records.
    ///
    /// # Errors
    /// [`Error::Database`] if SQLite cannot make it.
    pub fn in_memory() -> Result<Self, Error> {
        Ok(Self::over(Records::in_memory()?))
    }

    /// Opens the helpdesk over a database file, made with its sample records if it is missing or empty.
    ///
    /// # Errors
    /// [`Error::Database`] if the file cannot be opened or written.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self::over(Records::open(path)?))
    }

    fn over(records: Records) -> Self {
        Self {
            shared: Arc::new(Shared {
                records,
                sessions: Sessions::default(),
                received: Mutex::new(Vec::new()),
                credential: None,
            }),
        }
    }

    /// The same helpdesk, answering only requests with `Authorization: Bearer <credential>`.
    /// Sessions and the record of calls begin anew.
    #[must_use]
    pub fn requiring(self, credential: SecretString) -> Self {
        Self {
            shared: Arc::new(Shared {
                records: self.shared.records.clone(),
                sessions: Sessions::default(),
                received: Mutex::new(Vec::new()),
                credential: Some(credential),
            }),
        }
    }

    /// Serves the MCP endpoint at `/mcp` until `shutdown` completes; requests under way are finished.
    ///
    /// # Errors
    /// [`Error::Listener`] if accepting fails for good.
    pub async fn serve(
        &self,
        listener: tokio::net::TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Error> {
        axum::serve(listener, endpoint::router(self.clone())).with_graceful_shutdown(shutdown).await?;
        Ok(())
    }

    /// Every tool call that arrived, oldest first (the latest ten thousand).
    #[must_use]
    pub fn received_calls(&self) -> Vec<ReceivedCall> {
        held(&self.shared.received).clone()
    }

    /// What was refunded on an order so far, in cents; `None` if there is no such order.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read.
    pub fn refunded_cents(&self, order_id: &str) -> Result<Option<i64>, Error> {
        Ok(self.shared.records.order(order_id)?.map(|order| order.refunded_cents))
    }

    /// Every email that `send_email` put into the outbox, oldest first. Nothing leaves the machine.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be read.
    pub fn sent_emails(&self) -> Result<Vec<Email>, Error> {
        self.shared.records.emails()
    }

    pub(crate) fn records(&self) -> &Records {
        &self.shared.records
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.shared.sessions
    }

    pub(crate) fn credential(&self) -> Option<&SecretString> {
        self.shared.credential.as_ref()
    }

    pub(crate) fn note_received(&self, call: ReceivedCall) {
        let mut received = held(&self.shared.received);
        if received.len() >= RECEIVED_CALLS_MAX {
            received.remove(0);
        }
        received.push(call);
    }
}

/// Takes a lock whose holder cannot leave the data half changed, so a poisoned one is as good.
pub(crate) fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
