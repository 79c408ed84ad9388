//! SHA-256 tree hashes with the leaf and node domain separation of RFC 6962 §2.1.
//!
//! Owns the one type that every other module passes around. Knows nothing of tiles, notes or files.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::Error;

/// Bytes in a hash.
pub const HASH_LEN: usize = 32;

/// A SHA-256 value: a leaf hash, the hash of a perfect subtree, or a root.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash([u8; HASH_LEN]);

impl Hash {
    /// The root of the tree without leaves: the hash of nothing (RFC 6962 §2.1).
    #[must_use]
    pub fn of_empty_tree() -> Self {
        finish(Context::new(&SHA256))
    }

    /// The hash of a leaf with this content (RFC 6962 §2.1: prefix `0x00`).
    #[must_use]
    pub fn of_leaf(content: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[0]);
        context.update(content);
        finish(context)
    }

    /// The hash of an inner node with these children (RFC 6962 §2.1: prefix `0x01`).
    #[must_use]
    pub fn of_node(left: &Self, right: &Self) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[1]);
        context.update(&left.0);
        context.update(&right.0);
        finish(context)
    }

    /// A hash that was stored or received as 32 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; HASH_LEN]) -> Self {
        Self(bytes)
    }

    /// Reads a hash from a slice.
    ///
    /// # Errors
    /// [`Error::HashLength`] unless it is exactly 32 bytes.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, Error> {
        <[u8; HASH_LEN]>::try_from(bytes).map(Self).map_err(|_| Error::HashLength { len: bytes.len() })
    }

    /// Reads the base64 form that checkpoints and proofs use.
    ///
    /// # Errors
    /// [`Error::Base64`] or [`Error::HashLength`]. Only the canonical encoding is accepted.
    pub fn from_base64(text: &str) -> Result<Self, Error> {
        Self::from_slice(&STANDARD.decode(text).map_err(|_| Error::Base64)?)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; HASH_LEN] {
        &self.0
    }
}

/// Splits concatenated hashes, as tiles hold them.
///
/// # Errors
/// [`Error::HashLength`] if the length is no multiple of 32.
pub fn split_hashes(bytes: &[u8]) -> Result<Vec<Hash>, Error> {
    bytes.chunks(HASH_LEN).map(Hash::from_slice).collect()
}

/// Concatenates hashes, as tiles hold them.
#[must_use]
pub fn join_hashes(hashes: &[Hash]) -> Vec<u8> {
    let mut out = Vec::with_capacity(hashes.len() * HASH_LEN);
    for hash in hashes {
        out.extend_from_slice(&hash.0);
    }
    out
}

fn finish(context: Context) -> Hash {
    let mut out = [0; HASH_LEN];
    // INVARIANT: SHA-256 gives exactly 32 bytes, so nothing is cut or left zero here.
    for (to, from) in out.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    Hash(out)
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
