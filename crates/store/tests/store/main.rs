//! The store through its ports: state, log, search, damage, crashes.
//! Real files and threads; no network, no fake.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod crash;
mod credential_crash;
mod damage;
mod grants;
mod index;
mod log;
mod rig;
mod state;
