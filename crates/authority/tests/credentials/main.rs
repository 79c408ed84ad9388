//! Just-in-time credentials: every law of issuing and taking back, with a clock that is moved by hand and targets in
//! memory that break on demand.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod crash;
mod ending;
mod issuing;
mod record;
mod rig;
mod standing;
