//! Commits that go wrong on demand, in the test build only.
//! The one seam in the writer: everything around it is what the product runs.

use std::sync::PoisonError;

use rusqlite::Connection;

use super::Writer;
use crate::error::{Error, io, sqlite};

/// How the next commit goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It has no effect.
    Failed,
    /// It takes effect, but reports that it failed.
    FailedButPersisted,
    /// It succeeds, but the database file was deleted a moment before.
    Unlinked,
    /// The writer breaks down in the middle of it.
    Panic,
}

impl Writer {
    pub(super) fn finish(&self, connection: &Connection) -> Result<(), Error> {
        let fault = self.shared.injected.lock().unwrap_or_else(PoisonError::into_inner).take();
        let commit = |sql| connection.execute_batch(sql).map_err(sqlite("commit"));
        let failed = || Err(Error::Damaged { what: "injected" });
        match fault {
            None => commit("COMMIT"),
            Some(Fault::Unlinked) => {
                let path = self.shared.database();
                std::fs::remove_file(&path).map_err(io("remove", path))?;
                commit("COMMIT")
            }
            #[expect(clippy::panic, reason = "what a bug would do")]
            Some(Fault::Panic) => panic!("injected"),
            Some(Fault::Failed) => commit("ROLLBACK").and_then(|()| failed()),
            Some(Fault::FailedButPersisted) => commit("COMMIT").and_then(|()| failed()),
        }
    }
}
