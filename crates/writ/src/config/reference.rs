//! Renders the registry of options as `docs/configuration.md`. A test keeps the file equal to what this gives.

use super::SECTIONS;
use std::fmt::Write;

const HEAD: &str = "# Configuration\n\n\
    `writ serve --config writ.toml` reads one file, and one file for each agent beside it. Relative paths start at the folder of\n\
    `writ.toml`. Unknown options are errors. All errors are shown at once, with file, line and a hint. `writ init DIR` writes a\n\
    working, commented start. Secrets never stand in a file: only where they are read from.\n\n\
    This page is made from the program's own registry of options (`crates/writ/src/config`); a test keeps the two equal.\n";

/// The page.
pub(crate) fn markdown() -> String {
    let mut page = HEAD.to_owned();
    for section in SECTIONS {
        // Writing to a `String` cannot fail.
        let _ = write!(
            page,
            "\n## `{}`\n\n{}\n\n| option | takes | default | meaning |\n|---|---|---|---|\n",
            section.header, section.doc
        );
        for option in section.options {
            let variable = option.env.map(|name| format!(" Environment: `{name}`.")).unwrap_or_default();
            let _ = writeln!(page, "| `{}` | {} | {} | {}{variable} |", option.name, option.takes, option.default, option.doc);
        }
    }
    page
}
