//! Every way in which the log can refuse. Messages name the file or figure, never key material.
//! Sorted by whose fault it is: bytes from outside, the caller, storage, the environment.

use std::path::PathBuf;

use crate::checkpoint::Head;

/// What went wrong, named for its cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // -- bytes from outside broke a format
    /// A hash was not 32 bytes.
    #[error("a hash has 32 bytes, found {len}")]
    HashLength {
        /// Length found.
        len: usize,
    },
    /// Base64 was not canonical.
    #[error("malformed base64")]
    Base64,
    /// An entry bundle does not parse.
    #[error("malformed entry bundle: {why}")]
    BundleMalformed {
        /// The rule that was broken.
        why: &'static str,
    },
    /// A resource path is not one of tlog-tiles.
    #[error("`{path}` is not a tile, bundle or checkpoint path")]
    PathMalformed {
        /// The path.
        path: String,
    },
    /// A frontier does not parse.
    #[error("malformed frontier: {hashes} hashes cannot describe {size} leaves")]
    FrontierMalformed {
        /// Hashes present.
        hashes: usize,
        /// Leaves claimed.
        size: u64,
    },
    /// A signed note does not parse.
    #[error("malformed signed note: {why}")]
    NoteMalformed {
        /// The rule that was broken.
        why: &'static str,
    },
    /// A verifier key does not parse.
    #[error("malformed verifier key: {why}")]
    KeyMalformed {
        /// The rule that was broken.
        why: &'static str,
    },
    /// A checkpoint body does not parse.
    #[error("malformed checkpoint: {why}")]
    CheckpointMalformed {
        /// The rule that was broken.
        why: &'static str,
    },
    /// A proof file does not parse.
    #[error("malformed log proof: {why}")]
    ReceiptMalformed {
        /// The rule that was broken.
        why: &'static str,
    },
    /// A trust policy does not parse.
    #[error("trust policy, line {line}: {why}")]
    PolicyMalformed {
        /// Line, from 1.
        line: usize,
        /// The rule that was broken.
        why: &'static str,
    },

    // -- bytes from outside parse, but do not hold
    /// A known key's signature is wrong.
    #[error("the signature by `{name}` does not verify")]
    SignatureInvalid {
        /// Key name.
        name: String,
    },
    /// Nobody known signed.
    #[error("the note carries no signature by a known key")]
    SignatureMissing,
    /// The checkpoint is of another log.
    #[error("the checkpoint is of log `{found}`, not of `{expected}`")]
    OriginDiffers {
        /// Origin line found.
        found: String,
        /// Origin expected.
        expected: String,
    },
    /// A Merkle proof does not lead to the root.
    #[error("the proof does not lead to the root of the tree of {size} leaves")]
    ProofInvalid {
        /// Tree size.
        size: u64,
    },
    /// A leaf or size lies outside the tree.
    #[error("position {position} is outside the tree of {size} leaves")]
    OutsideTree {
        /// Leaf index or size asked for.
        position: u64,
        /// Tree size.
        size: u64,
    },

    // -- the caller asked for what cannot be
    /// A leaf is over the limit.
    #[error("a log entry of {len} bytes exceeds the limit of {limit}; store large values apart and log their digest")]
    LeafTooLarge {
        /// Its length.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// A batch without leaves.
    #[error("an empty batch cannot be appended")]
    BatchEmpty,

    // -- storage lost, changed or went back in time
    /// A tile, bundle or checkpoint file is not there.
    #[error("`{path}` is missing from the log; restore the log directory from a copy")]
    FileMissing {
        /// Path inside the log directory.
        path: String,
    },
    /// A tile or bundle differs from what its entries give.
    #[error("`{path}` differs from what the log's entries give; restore the log directory from a copy")]
    FileCorrupt {
        /// Path inside the log directory.
        path: String,
    },
    /// A hash is in neither the tiles nor memory.
    #[error("no hash at level {level}, index {index}")]
    NodeMissing {
        /// Height of the subtree.
        level: u8,
        /// Index at that height.
        index: u64,
    },
    /// A stored batch is missing: the next begins elsewhere.
    #[error("a log batch is missing from the database: expected entry {expected}, found {found}")]
    BatchGap {
        /// Index expected.
        expected: u64,
        /// Index found.
        found: u64,
    },
    /// A stored batch is not what was committed.
    #[error("the log batch at entry {first} was changed in the database")]
    BatchChanged {
        /// First index of the batch.
        first: u64,
    },
    /// The database is older than something already signed.
    #[error(
        "the database went back in time: it holds {database} log entries, but {signed} were already signed for; \
         restore the newer database, or start a log with a new name"
    )]
    DatabaseBehind {
        /// Size in the database.
        database: u64,
        /// Size signed before.
        signed: u64,
    },
    /// Signing this head would fork the log.
    #[error("refusing to sign a fork: {proposed:?} is inconsistent with {signed:?}")]
    Fork {
        /// Head signed before.
        signed: Head,
        /// Head proposed.
        proposed: Head,
    },
    /// The anchor file cannot be used.
    #[error("anchor file `{path}` holds no checkpoint that verifies; restore it, it protects against a rolled-back database", path = path.display())]
    AnchorUnreadable {
        /// The file.
        path: PathBuf,
    },
    /// A checkpoint does not fit an anchor slot.
    #[error("a checkpoint of {len} bytes does not fit an anchor slot")]
    AnchorTooSmall {
        /// Its length.
        len: usize,
    },

    // -- the environment failed
    /// The signer failed.
    #[error("signing failed")]
    SigningFailed,
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
    /// The owner of the batches failed.
    #[error("the log's database failed to {action}")]
    Ledger {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
