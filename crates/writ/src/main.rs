//! Writ: one binary.
fn main() {}
