//! Pure crates decide and never act: their product code names no clock, no entropy, no file, no
//! network and no executor. Time and entropy come to them as arguments. Style guide, rules 1 and 2.

use crate::Finding;
use crate::source::is_word;
use crate::tree::{File, Tree};

/// The crates that are pure as a whole.
const PURE: [&str; 3] = ["crates/domain/src/", "crates/policy/src/", "crates/token/src/"];

/// The log is pure but for the files at its edge, which hold its directory.
const AUDITLOG: &str = "crates/auditlog/src/";
const AUDITLOG_EDGE: [&str; 3] = ["edge", "directory", "anchor"];

/// What a pure crate must not name.
const ACTS: [&str; 13] = [
    "SystemTime::now",
    "Instant::now",
    "Uuid::now_v7",
    "Uuid::new_v4",
    "SystemRandom",
    "rand::fill",
    "getrandom",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "tokio::",
];

/// Signing with ECDSA draws its nonce inside the library: there is nothing to pass in.
const SIGNS: (&str, &str) = ("crates/token/src/sign.rs", "SystemRandom");

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust().filter(|file| !file.is_test() && is_pure(file)) {
        for (number, line) in file.product().text().lines().enumerate() {
            let excused = |act: &str| (file.path.as_str(), act) == SIGNS;
            for act in ACTS.iter().filter(|act| names(line, act) && !excused(act)) {
                let text = format!("`{act}` in a pure crate: take what it gives as an argument");
                findings.push(Finding::new(&file.path, number + 1, text));
            }
        }
    }
    findings
}

fn is_pure(file: &File) -> bool {
    if let Some(module) = file.path.strip_prefix(AUDITLOG) {
        let first = module.trim_end_matches(".rs").split('/').next().unwrap_or_default();
        return !AUDITLOG_EDGE.contains(&first);
    }
    PURE.iter().any(|root| file.path.starts_with(root))
}

fn names(line: &str, act: &str) -> bool {
    line.match_indices(act).any(|(at, _)| !line.get(..at).is_some_and(|before| before.ends_with(is_word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_are_found_in_pure_crates_only() {
        let act = "fn a() { std::fs::read(p); }\n";
        let tree = Tree::of(&[
            ("crates/domain/src/a.rs", act),
            ("crates/token/src/a/b.rs", act),
            ("crates/auditlog/src/tree.rs", act),
            ("crates/auditlog/src/directory.rs", act),
            ("crates/auditlog/src/directory/lock.rs", act),
            ("crates/store/src/a.rs", act),
            ("crates/policy/tests/a.rs", act),
            ("crates/policy/src/a.rs", "// std::fs is not for us\nfn a() { my_tokio::x(\"std::env\"); }\n"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["crates/domain/src/a.rs", "crates/token/src/a/b.rs", "crates/auditlog/src/tree.rs"]);
    }
}
