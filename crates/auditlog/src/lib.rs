//! A tamper-evident Merkle log of opaque bytes in the formats of C2SP: tlog-tiles, tlog-checkpoint, signed-note,
//! tlog-cosignature, tlog-proof, tlog-policy. Knows nothing of what entries mean or of the database that holds them
//! first. Pure but for `directory` and `anchor`, which touch files; reads no clock and draws no randomness.
//!
//! An entry's path: [`sequence::integrate`] gives it an index, the caller commits, [`publish::Publisher`] writes tiles
//! and a signed checkpoint, [`proof`] and [`receipt`] prove it, [`verify`](mod@verify) checks all of it as a stranger
//! would. [`recover`](mod@recover) brings a crashed log back.

mod error;

pub mod anchor;
pub mod checkpoint;
pub mod cosignature;
pub mod directory;
pub mod edge;
pub mod hash;
pub mod note;
pub mod port;
pub mod proof;
pub mod publish;
pub mod reader;
pub mod receipt;
pub mod recover;
pub mod sequence;
pub mod tile;
pub mod tree;
pub mod trust;
pub mod verify;

pub use error::Error;
