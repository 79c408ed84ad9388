//! The text of a policy folder and its version. Owns the caps on what is parsed at all; reads no file itself.

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use std::fmt;
use std::str::FromStr;

/// Largest file: 10,000 policies fit four times over.
pub(crate) const FILE_BYTES_MAX: usize = 8 * 1_024 * 1_024;
/// Most files: a folder with more is a mistake (a checkout, a build directory).
pub(crate) const FILES_MAX: usize = 4_096;
/// Most text altogether, in bytes.
pub(crate) const TOTAL_BYTES_MAX: usize = 64 * 1_024 * 1_024;

/// One file below the policy folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path relative to the folder, with `/` on every system.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Everything in a policy folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sources {
    /// The files, in any order.
    pub files: Vec<SourceFile>,
}

impl Sources {
    /// Whether a file of this name belongs to the policy: `*.cedar`, `*.toml` and `*.lock.json`. Others (a readme, a
    /// schema written for an editor) are neither read nor part of the version.
    #[must_use]
    pub fn wants(path: &str) -> bool {
        let hidden = path.split('/').any(|part| part.starts_with('.'));
        !hidden && [".cedar", ".toml", ".lock.json"].iter().any(|end| path.ends_with(end))
    }

    /// The hash over every file that belongs to the policy, by path and content.
    #[must_use]
    pub fn version(&self) -> PolicyVersion {
        let mut files: Vec<_> = self.files.iter().filter(|file| Self::wants(&file.path)).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut hash = Context::new(&SHA256);
        hash.update(b"writ-policy-v1\n");
        for file in files {
            // Lengths first, so that no two folders share one byte string.
            for part in [&file.path, &file.text] {
                hash.update(&(part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        let mut version = [0; 32];
        version.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
        PolicyVersion(version)
    }
}

/// The content hash of a policy folder. Every decision records it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyVersion([u8; 32]);

impl PolicyVersion {
    /// The hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&HEXLOWER.encode_display(&self.0), f)
    }
}

impl fmt::Debug for PolicyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a policy version is 64 lower-case hexadecimal digits")]
pub struct MalformedVersion;

impl FromStr for PolicyVersion {
    type Err = MalformedVersion;
    fn from_str(text: &str) -> Result<Self, MalformedVersion> {
        crate::pin::parse_hex(text).map(Self).ok_or(MalformedVersion)
    }
}
