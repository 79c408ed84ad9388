//! The files of the repository as git knows them (tracked, or new and not ignored), read once.
//! It knows nothing of rules.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use crate::source::Source;

/// Files above this are data, not text that somebody wrote.
const TEXT_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// A file that could be read as text.
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    /// The whole content.
    pub(crate) text: String,
}

impl File {
    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it is test, bench or example: no part of a product.
    pub(crate) fn is_test(&self) -> bool {
        ["/tests/", "/benches/", "/examples/"].iter().any(|part| self.path.contains(part))
            || self.path.ends_with("/tests.rs")
            || ["crates/testkit/", "benches/", "fuzz/"].iter().any(|part| self.path.starts_with(part))
    }

    /// Its Rust, with comments and literals blanked and in-file test modules removed.
    pub(crate) fn product(&self) -> Source {
        Source::new(&self.text).without_test_modules()
    }
}

/// All text files of the repository.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

impl Tree {
    /// Reads the tree under `root`.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let listing = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root)
            .output()
            .context("`git` lists the files of the tree; is it installed?")?;
        ensure!(listing.status.success(), "`git ls-files` failed in {}", root.display());
        let mut files = Vec::new();
        for path in listing.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty()) {
            let path = String::from_utf8_lossy(path).into_owned();
            let place = root.join(&path);
            // A file that was deleted and not yet committed is still listed.
            let Ok(metadata) = std::fs::metadata(&place) else { continue };
            if !metadata.is_file() || metadata.len() > TEXT_BYTES_MAX {
                continue;
            }
            let bytes = std::fs::read(&place).with_context(|| format!("cannot read {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(File { path, text });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { files })
    }

    /// The Rust files.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }

    /// A file by its path.
    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    #[cfg(test)]
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() });
        Self { files: files.collect() }
    }
}
