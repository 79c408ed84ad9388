//! Laws, differential checks, faults and attacks on the log, with its real files and a database in memory.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod faults;
mod laws;
mod rig;
mod tamper;
