//! What a baseline keeps of each request, durably, before it goes on: nothing, one record, or what Writ keeps.

use crate::ledger;
use crate::records::{self, Records};
use anyhow::Result;
use serde_json::Value;
use std::path::PathBuf;
use store::Store;

/// Where it is kept, as the command line says.
pub(crate) enum Kept {
    /// One record a request, in this file.
    Records(PathBuf),
    /// A decision and an outcome a request, in a ledger in this folder.
    Ledger(PathBuf),
}

/// The same, opened.
#[derive(Clone)]
pub(crate) enum Keeping {
    Nothing,
    Records(Records),
    Ledger(Store),
}

impl Keeping {
    pub(crate) fn open(kept: Option<Kept>) -> Result<Self> {
        Ok(match kept {
            None => Self::Nothing,
            Some(Kept::Records(file)) => Self::Records(records::open(file)?),
            Some(Kept::Ledger(folder)) => Self::Ledger(ledger::open(&folder)?),
        })
    }

    /// Resolves when it is durable that this was asked for.
    pub(crate) async fn decided(&self, message: &Value) -> Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Records(records) => records::keep(records, message).await,
            Self::Ledger(store) => ledger::decided(store, message).await,
        }
    }

    /// It was answered. Nobody waits for that to be durable.
    pub(crate) fn ended(&self, message: &Value) -> Result<()> {
        match self {
            Self::Nothing | Self::Records(_) => Ok(()),
            Self::Ledger(store) => ledger::ended(store, message),
        }
    }
}
