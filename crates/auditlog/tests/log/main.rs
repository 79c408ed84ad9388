//! Laws, differential checks, faults and attacks on the log, with its real files and a database in memory.
//! One binary, so that the log is linked once; no network, no clock, no sleep.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod faults;
mod hostile;
mod laws;
mod rig;
mod tamper;
