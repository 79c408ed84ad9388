//! `cargo xtask tidy`: the checks that no compiler makes. It reads the tree and says what breaks a
//! rule of the house; it changes nothing, and builds nothing.
//!
//! It must never grow into a build system: what cargo, clippy or cargo-deny can say, they say.

mod names;
mod purity;
mod sizes;
mod source;
mod tree;
mod walls;
mod words;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::tree::Tree;

/// One broken rule at one place.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The file, relative to the root.
    pub(crate) path: String,
    /// The line, from 1; 0 means the whole file.
    pub(crate) line: usize,
    /// What is wrong and what to do.
    pub(crate) text: String,
    /// A warning is printed, and does not fail.
    pub(crate) warning: bool,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, text: text.into(), warning: false }
    }

    pub(crate) fn warning(path: &str, line: usize, text: impl Into<String>) -> Self {
        Self { warning: true, ..Self::new(path, line, text) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, text, .. } = self;
        let level = if self.warning { "warning" } else { "error" };
        if *line == 0 { write!(f, "{level}: {path}: {text}") } else { write!(f, "{level}: {path}:{line}: {text}") }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [command] if command == "tidy" => tidy(),
        _ => bail!("usage: cargo xtask tidy"),
    }
}

fn tidy() -> anyhow::Result<ExitCode> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("xtask lies in the root of the workspace")?;
    let tree = Tree::read(root)?;
    let mut findings = Vec::new();
    findings.extend(names::check(&tree));
    findings.extend(sizes::check(&tree)?);
    findings.extend(purity::check(&tree));
    findings.extend(walls::check(&tree)?);
    findings.extend(words::check(&tree));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        eprintln!("{finding}");
    }
    let errors = findings.iter().filter(|finding| !finding.warning).count();
    let warnings = findings.len() - errors;
    println!("tidy: {} files, {errors} errors, {warnings} warnings", tree.files.len());
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
