//! SQL and migrations behind the ports of `authority`: one SQLite database for state and fresh log entries, one
//! directory of published tiles, one anchor file outside both.
//!
//! The only crate that names SQL. Knows what is stored and when it is durable; never what it means or who may.
//! [`open`] checks everything that a crash, a restore or a hand in the files could have left, and refuses what no
//! crash can explain.

mod archive;
mod batch;
mod chain;
mod change;
mod connection;
mod desk;
mod error;
mod grant;
mod index;
mod keeper;
mod ledger;
mod open;
mod posted;
mod progress;
mod publisher;
mod record;
#[cfg(test)]
mod rig;
mod search;
mod shared;
mod terms;
mod writer;

pub use chain::{ChainCheck, ChainFlaw};
pub use error::Error;
pub use open::{Keys, Store, StoreConfig, is_in_use, open};
