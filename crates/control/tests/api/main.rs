//! The control plane as its callers see it: every endpoint over a real authority, and every attack that it must refuse.
//! Nothing here reaches behind the router, but to break the ledger, to move the clock, and to read what was logged.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod authzen;
mod credentials;
mod discovery;
mod edge;
mod oauth;
mod operators;
mod revocation;
mod served;
