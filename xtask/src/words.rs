//! Words that must not be in the tree: left-over work in Rust code, and paths that exist on one
//! machine only, in any text file.

use crate::Finding;
use crate::tree::Tree;

/// Macros that mean "not finished".
const UNFINISHED: [&str; 3] = ["todo!", "dbg!", "unimplemented!"];

pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if file.is_rust() {
            for (number, line) in file.product().text().lines().enumerate() {
                for word in UNFINISHED.iter().filter(|word| line.contains(*word)) {
                    findings.push(Finding::new(&file.path, number + 1, format!("`{word}` is not finished work")));
                }
            }
        }
        for (number, line) in file.text.lines().enumerate() {
            for place in machine_paths().iter().filter(|place| names(line, place)) {
                findings.push(Finding::new(&file.path, number + 1, format!("`{place}` exists on one machine only")));
            }
        }
    }
    findings
}

/// Spelt in parts, so that this file does not find itself.
fn machine_paths() -> [String; 4] {
    ["work/main", "work/targets", "root", "Users"].map(|place| format!("/{place}/"))
}

/// Whether the path begins here: within an address or behind a variable it is a name, not a place.
fn names(line: &str, place: &str) -> bool {
    line.match_indices(place).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|before| !before.is_alphanumeric() && !"/.-_}~$".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unfinished_work_and_machine_paths_are_found() {
        let place = format!("/{}/x", "root");
        let work = format!("cd /{}/main/crates", "work");
        for (path, text, finds) in [
            ("crates/a/src/a.rs", concat!("fn a() { to", "do!() }"), 1),
            ("crates/a/src/a.rs", "// todo! is a word\nfn a() { x(\"dbg!\") }", 0),
            ("docs/a.md", place.as_str(), 1),
            ("docs/a.md", work.as_str(), 1),
            ("docs/a.md", concat!("https://host", "/ro", "ot/x and $HOME", "/ro", "ot/x"), 0),
        ] {
            assert_eq!(check(&Tree::of(&[(path, text)])).len(), finds, "{text}");
        }
    }
}
