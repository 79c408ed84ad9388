//! The walls between crates: each may depend on those that the design lets it see, and on no other of
//! ours. An edge that is not in the table needs a decision record first. Design, "Shape of the code".

use std::collections::BTreeSet;

use anyhow::Context;

use crate::Finding;
use crate::tree::Tree;

/// Who may see whom. What is not listed here is not a crate of ours yet.
const ARROWS: [(&str, &[&str]); 16] = [
    ("domain", &[]),
    ("policy", &["domain"]),
    ("token", &["domain"]),
    ("auditlog", &[]),
    ("authority", &["domain", "policy", "token", "auditlog"]),
    ("store", &["authority", "auditlog", "domain"]),
    ("targets", &["authority", "domain"]),
    ("gateway", &["authority", "domain", "token"]),
    ("control", &["authority", "domain", "token"]),
    ("writ", &["domain", "policy", "token", "auditlog", "authority", "store", "targets", "gateway", "control", "helpdesk"]),
    ("testkit", &["domain", "policy", "token", "auditlog", "authority", "store"]),
    ("helpdesk", &[]),
    ("conformance", &[]),
    // The load driver measures every layer by itself and beside the others.
    (
        "load",
        &["domain", "policy", "token", "auditlog", "authority", "store", "targets", "gateway", "control", "testkit", "helpdesk"],
    ),
    // Reads hostile bytes with every crate that reads any.
    ("fuzz", &["domain", "policy", "token", "auditlog", "gateway", "control"]),
    ("xtask", &[]),
];

/// What tests may use on top of the arrows.
const FOR_TESTS: [&str; 2] = ["testkit", "helpdesk"];

pub(crate) fn check(tree: &Tree) -> anyhow::Result<Vec<Finding>> {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")) {
        let manifest: toml::Table = file.text.parse().with_context(|| format!("{} does not parse", file.path))?;
        let Some(name) = manifest.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str) else {
            continue;
        };
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            findings.push(Finding::new(&file.path, 0, format!("`{name}` has no place in the table of walls")));
            continue;
        };
        for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
            for dependency in names(&manifest, section).filter(|dependency| ours.contains(dependency)) {
                let for_tests = section == "dev-dependencies" && FOR_TESTS.contains(&dependency);
                if !allowed.contains(&dependency) && !for_tests {
                    let text = format!("`{name}` must not depend on `{dependency}` ({section})");
                    findings.push(Finding::new(&file.path, 0, text));
                }
            }
        }
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(toml::Value::as_bool);
        if inherits != Some(true) {
            findings.push(Finding::new(&file.path, 0, "lacks `[lints] workspace = true`"));
        }
    }
    Ok(findings)
}

fn names<'a>(manifest: &'a toml::Table, section: &str) -> impl Iterator<Item = &'a str> {
    manifest.get(section).and_then(toml::Value::as_table).into_iter().flat_map(|table| table.keys().map(String::as_str))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn manifest(name: &str, sections: &str) -> String {
        format!("[package]\nname = \"{name}\"\n[lints]\nworkspace = true\n{sections}")
    }

    #[test]
    fn edges_that_the_design_does_not_have_are_found() {
        for (name, sections, finds) in [
            ("policy", "[dependencies]\ndomain.workspace = true\nserde = \"1\"", 0),
            ("policy", "[dependencies]\ntoken.workspace = true", 1),
            ("gateway", "[dependencies]\ncontrol.workspace = true", 1),
            ("gateway", "[dependencies]\nhelpdesk.workspace = true", 1),
            ("gateway", "[dev-dependencies]\ntestkit.workspace = true\nhelpdesk.workspace = true", 0),
            ("gateway", "[dependencies]\ntestkit.workspace = true", 1),
            ("writ", "[dependencies]\nhelpdesk.workspace = true", 0),
            ("stranger", "", 1),
        ] {
            let path = format!("crates/{name}/Cargo.toml");
            let tree = Tree::of(&[(path.as_str(), manifest(name, sections).as_str())]);
            assert_eq!(check(&tree).unwrap().len(), finds, "{name}: {sections}");
        }
    }

    #[test]
    fn crates_inherit_the_lints() {
        let tree = Tree::of(&[("crates/domain/Cargo.toml", "[package]\nname = \"domain\"\n")]);
        assert_eq!(check(&tree).unwrap().len(), 1);
    }
}
