//! Why the store cannot be opened. At run time the ports' own errors speak; the cause then goes to the operator's
//! log. Never holds what was stored.

use std::path::PathBuf;

/// Why the store did not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process works on this directory.
    #[error("another process uses the data directory `{path}`; stop it, or choose another directory", path = path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The linked SQLite has a bug that corrupts databases.
    #[error("SQLite {found} is too old: at least {needed} is needed, for its fix of the WAL reset")]
    SqliteTooOld {
        /// Version linked.
        found: &'static str,
        /// Version needed.
        needed: &'static str,
    },
    /// The database was written by a newer Writ.
    #[error("the database has schema {found}, this program knows {known}; use the newer program")]
    SchemaNewer {
        /// Schema found.
        found: i64,
        /// Newest schema known.
        known: i64,
    },
    /// The anchor of a log that was in use is gone.
    #[error(
        "the anchor file `{path}` is missing, but the log is in use; restore it: it shows that the database did not go back in time",
        path = path.display()
    )]
    AnchorMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A stored batch does not carry this node's signature.
    #[error("the log batch at entry {first} was not signed by this node; it was changed in the database")]
    BatchUnsigned {
        /// First entry of the batch.
        first: u64,
    },
    /// The database contradicts itself.
    #[error("the database is damaged: {what}; restore it from a copy")]
    Damaged {
        /// What does not hold.
        what: &'static str,
    },
    /// The database file was deleted or replaced under the running program.
    #[error("the database file `{path}` was deleted or replaced while in use; stop, and restore it", path = path.display())]
    FileReplaced {
        /// The file.
        path: PathBuf,
    },
    /// A reader is in the way of a repair.
    #[error("a reader of the database is in the way of its repair; this passes")]
    Busy,
    /// The log refuses.
    #[error(transparent)]
    Log(#[from] auditlog::Error),
    /// The database failed.
    #[error("the database failed to {action}")]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: rusqlite::Error,
    },
    /// A file operation failed.
    #[error("{action} `{path}`", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A thread could not be started.
    #[error("a thread could not be started")]
    Thread(#[source] std::io::Error),
}

/// Wraps an error of SQLite with what was tried.
pub(crate) fn sqlite(action: &'static str) -> impl FnOnce(rusqlite::Error) -> Error {
    move |source| Error::Sqlite { action, source }
}

/// Wraps an error of the file system with what was tried.
pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}

impl Error {
    /// Few words for callers that are not operators: no path, no figure.
    pub(crate) fn brief(&self) -> &'static str {
        match self {
            Self::FileReplaced { .. } => "the database file is gone",
            Self::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => "the disk is full",
                Some(rusqlite::ErrorCode::SystemIoFailure) => "the disk cannot be written",
                Some(rusqlite::ErrorCode::ReadOnly) => "the database is read-only",
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => "the database is damaged",
                _ => "the database failed",
            },
            Self::Damaged { .. } | Self::BatchUnsigned { .. } => "the database is damaged",
            _ => "the store failed",
        }
    }
}
