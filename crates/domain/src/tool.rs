//! What an operator said about a tool, and the pin of its definition. Owns neither the definition (the gateway reads
//! it) nor the file in which it is approved (the policy crate reads that).

use crate::label::{Reading, Sink};
use data_encoding::HEXLOWER;
use std::fmt;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&HEXLOWER.encode_display(&self.0), f)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How an operator labelled a tool. The default is what is assumed of a tool that nobody labelled: the worst.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolTraits {
    /// What its answer brings into the task.
    pub reading: Reading,
    /// Where it can send.
    pub sink: Sink,
    /// Names of top-level arguments that the log may show in clear; all others are logged as commitments.
    pub clear_arguments: Vec<String>,
}
