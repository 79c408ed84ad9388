//! Names and openings: no module is a drawer for leftovers, and every file says first what it owns.
//! Style guide, rules 12 and 13.

use crate::Finding;
use crate::tree::Tree;

/// Names that say nothing about what is inside.
const FORBIDDEN: [&str; 9] = ["util", "utils", "common", "types", "helper", "helpers", "manager", "managers", "misc"];
/// An opening of fewer characters cannot say what is owned and what is not.
const OPENING_CHARS_MIN: usize = 60;
/// A longer one belongs into `docs/`.
const OPENING_LINES_MAX: usize = 8;

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.rust() {
        let parts = file.path.trim_end_matches(".rs").split('/');
        for part in parts.filter(|part| FORBIDDEN.contains(part)) {
            findings.push(Finding::new(&file.path, 0, format!("`{part}` says nothing: name it for what is inside")));
        }
        let opening = file.text.lines().take_while(|line| line.starts_with("//!")).count();
        if opening == 0 {
            let text = "opens without `//!`: say what it owns, what it must not know, which specification it follows";
            findings.push(Finding::new(&file.path, 1, text));
        } else if file.text.lines().take(opening).map(str::len).sum::<usize>() < OPENING_CHARS_MIN {
            let text = "opens with a few words of `//!`: say what it owns and what it must not know";
            findings.push(Finding::warning(&file.path, 1, text));
        } else if opening > OPENING_LINES_MAX {
            let text = format!("opens with {opening} lines of `//!`: more than {OPENING_LINES_MAX} belong into docs");
            findings.push(Finding::warning(&file.path, 1, text));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawers_and_silent_files_are_found() {
        let opening = "//! What it owns, in one sentence, and what it must never know, in another.\n";
        let tree = Tree::of(&[
            ("crates/a/src/good.rs", opening),
            ("crates/a/src/utils.rs", opening),
            ("crates/a/src/common/x.rs", opening),
            ("crates/a/src/silent.rs", "fn x() {}\n"),
            ("crates/a/src/short.rs", "//! One.\n"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|finding| (finding.path, finding.warning)).collect();
        let wanted = [("utils.rs", false), ("common/x.rs", false), ("silent.rs", false), ("short.rs", true)]
            .map(|(name, warning)| (format!("crates/a/src/{name}"), warning));
        assert_eq!(found, wanted);
    }
}
