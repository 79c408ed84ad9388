//! Sizes of product code: files, functions, traits. What is already over the line is written down in
//! `xtask/ratchet.toml` with its size, may only shrink, and leaves the list when it fits.
//! Style guide, rule 11 and section C.

use std::collections::BTreeMap;

use anyhow::Context;

use crate::Finding;
use crate::source::Source;
use crate::tree::{File, Tree};

const FILE_LINES_WARN: usize = 500;
const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;
const TRAIT_FUNCTIONS_MAX: usize = 7;

const RATCHET: &str = "xtask/ratchet.toml";

/// What is tolerated, by `path` or `path::name`.
#[derive(Default)]
struct Ratchet {
    lines: BTreeMap<String, usize>,
}

impl Ratchet {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let table: toml::Table = text.parse().with_context(|| format!("{RATCHET} does not parse"))?;
        let mut lines = BTreeMap::new();
        for (key, value) in table {
            let size = value.as_integer().and_then(|size| usize::try_from(size).ok());
            lines.insert(key, size.with_context(|| format!("{RATCHET}: sizes are whole numbers"))?);
        }
        Ok(Self { lines })
    }

    /// The limit for something whose usual limit is `max`.
    fn limit(&self, key: &str, max: usize) -> usize {
        self.lines.get(key).copied().unwrap_or(max).max(max)
    }
}

pub(crate) fn check(tree: &Tree) -> anyhow::Result<Vec<Finding>> {
    let ratchet = tree.file(RATCHET).map_or(Ok(Ratchet::default()), |file| Ratchet::parse(&file.text))?;
    let mut findings = Vec::new();
    let mut over = BTreeMap::new();
    for file in tree.rust().filter(|file| !file.is_test()) {
        let source = file.product();
        check_file(file, &source, &ratchet, &mut over, &mut findings);
        check_functions(file, &source, &ratchet, &mut over, &mut findings);
        check_traits(file, &source, &mut findings);
    }
    for (key, tolerated) in &ratchet.lines {
        let text = match over.get(key) {
            None => format!("`{key}` fits now: take it off the list"),
            Some(size) if size < tolerated => format!("`{key}` shrank to {size}: lower its entry from {tolerated}"),
            Some(_) => continue,
        };
        findings.push(Finding::new(RATCHET, 0, text));
    }
    Ok(findings)
}

fn check_file(file: &File, source: &Source, ratchet: &Ratchet, over: &mut BTreeMap<String, usize>, findings: &mut Vec<Finding>) {
    let lines = source.lines();
    if lines > FILE_LINES_MAX {
        over.insert(file.path.clone(), lines);
    }
    if lines > ratchet.limit(&file.path, FILE_LINES_MAX) {
        findings.push(Finding::new(&file.path, 0, format!("{lines} lines of code, more than {FILE_LINES_MAX}: split it")));
    } else if lines > FILE_LINES_WARN {
        findings.push(Finding::warning(&file.path, 0, format!("{lines} lines of code, more than {FILE_LINES_WARN}")));
    }
}

fn check_functions(
    file: &File,
    source: &Source,
    ratchet: &Ratchet,
    over: &mut BTreeMap<String, usize>,
    findings: &mut Vec<Finding>,
) {
    for function in source.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX) {
        let key = format!("{}::{}", file.path, function.name);
        if function.lines > ratchet.limit(&key, FUNCTION_LINES_MAX) {
            let text = format!("`{}` has {} lines, more than {FUNCTION_LINES_MAX}", function.name, function.lines);
            findings.push(Finding::new(&file.path, function.line, text));
        }
        over.insert(key, function.lines);
    }
}

fn check_traits(file: &File, source: &Source, findings: &mut Vec<Finding>) {
    for item in source.traits().into_iter().filter(|item| item.functions > TRAIT_FUNCTIONS_MAX) {
        let text = format!("trait `{}` has {} methods, more than {TRAIT_FUNCTIONS_MAX}", item.name, item.functions);
        findings.push(Finding::new(&file.path, item.line, text));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    x();\n".repeat(lines - 2))
    }

    #[test]
    fn long_functions_and_files_are_found_but_not_in_tests() {
        let long = function(71);
        let many = "const A: u8 = 1;\n".repeat(801);
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let tree = Tree::of(&[
            ("crates/a/src/ok.rs", &function(70)),
            ("crates/a/src/long.rs", &long),
            ("crates/a/src/many.rs", &many),
            ("crates/a/src/in_tests.rs", &in_tests),
            ("crates/a/tests/long.rs", &long),
        ]);
        let found: Vec<_> = check(&tree).unwrap().into_iter().map(|finding| finding.path).collect();
        assert_eq!(found, ["crates/a/src/long.rs", "crates/a/src/many.rs"]);
    }

    #[test]
    fn the_ratchet_tolerates_what_it_lists_and_only_turns_down() {
        let key = "crates/a/src/long.rs::long";
        for (tolerated, lines, finds) in [(80, 80, 0), (80, 81, 1), (80, 75, 1), (80, 20, 1)] {
            let tree = Tree::of(&[("crates/a/src/long.rs", &function(lines)), (RATCHET, &format!("\"{key}\" = {tolerated}\n"))]);
            assert_eq!(check(&tree).unwrap().len(), finds, "{tolerated} {lines}");
        }
    }

    #[test]
    fn wide_traits_are_found() {
        let wide = format!("trait Wide {{\n{}}}\n", "    fn a(&self);\n".repeat(8));
        let tree = Tree::of(&[("crates/a/src/wide.rs", &wide)]);
        assert_eq!(check(&tree).unwrap().len(), 1);
    }
}
