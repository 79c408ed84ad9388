//! How commands speak: results on standard output, for people or as one JSON document; colour only on a terminal that
//! wants it. Owns no content.

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

/// Whether the results of this command are for people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Text.
    Human,
    /// One JSON document.
    Json,
}

/// Whether colour may be used on standard output.
pub(crate) fn colour_on_stdout() -> bool {
    colour(io::stdout().is_terminal())
}

/// Whether colour may be used on standard error.
pub(crate) fn colour_on_stderr() -> bool {
    colour(io::stderr().is_terminal())
}

/// <https://no-color.org>: set and not empty means no colour.
fn colour(terminal: bool) -> bool {
    terminal && crate::system::variable("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Text in a colour, if colour may be used.
pub(crate) fn painted(text: &str, paint: Paint, colour: bool) -> String {
    if !colour {
        return text.to_owned();
    }
    let code = match paint {
        Paint::Good => "32",
        Paint::Bad => "31",
        Paint::Warn => "33",
        Paint::Strong => "1",
        Paint::Faint => "2",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// What a piece of text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// As wanted.
    Good,
    /// Not as wanted.
    Bad,
    /// Worth a look.
    Warn,
    /// A heading.
    Strong,
    /// An aside.
    Faint,
}

/// Why some of the results are lost: a full disk, say.
static LOST: OnceLock<io::Error> = OnceLock::new();

/// Prints a line.
pub(crate) fn line(text: &str) {
    raw(format!("{text}\n").as_bytes());
}

/// Prints bytes as they are. A reader that went away (a closed pipe) is not an error of ours.
pub(crate) fn raw(bytes: &[u8]) {
    note_loss(io::stdout().write_all(bytes));
}

/// Why some of what was printed did not arrive, if so. Half of a proof must not look like all of it.
pub(crate) fn lost() -> Option<&'static io::Error> {
    note_loss(io::stdout().flush());
    LOST.get()
}

fn note_loss(written: io::Result<()>) {
    if let Err(error) = written
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        let _ = LOST.set(error);
    }
}

/// Prints a line to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints a JSON document.
pub(crate) fn json(value: &Value) {
    line(&format!("{value:#}"));
}

/// Prints a table, or what to say when there are no rows.
pub(crate) fn table(headers: &[&str], rows: Vec<Vec<String>>, empty: &str) {
    if rows.is_empty() {
        return line(empty);
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(headers);
    table.add_rows(rows);
    line(&table.trim_fmt());
}

/// Text from outside with control characters made visible: a terminal must not obey what an agent wrote, nor show it in
/// another order than it stands.
pub(crate) fn tame(text: &str) -> String {
    text.chars().flat_map(|c| if commands(c) { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

/// Control characters, separators of lines, and what turns the direction of text (UAX #9).
fn commands(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

/// The text of a member of a JSON object, tamed; empty if it is absent.
pub(crate) fn member(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => tame(text),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| tame(&item.as_str().map_or_else(|| item.to_string(), str::to_owned)))
            .collect::<Vec<_>>()
            .join(", "),
        Some(other) => tame(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_an_agent_wrote_cannot_command_the_terminal() {
        let shown = member(&json!({ "text": "a\u{1b}[2J\nb" }), "/text");
        assert_eq!(shown, "a\\u{1b}[2J\\nb");
        assert_eq!(member(&json!({ "list": ["a", "b\u{7}"] }), "/list"), "a, b\\u{7}");
        assert_eq!(member(&json!({ "list": [{ "c": "\u{9b}2J" }] }), "/list"), "{\"c\":\"\\u{9b}2J\"}");
        assert_eq!(tame("abc\u{202e}cba\u{2028}"), "abc\\u{202e}cba\\u{2028}");
        assert_eq!(tame("größer – “ja” 👩‍💻"), "größer – “ja” 👩‍💻");
    }

    #[test]
    fn colour_needs_permission() {
        assert_eq!(painted("x", Paint::Bad, false), "x");
        assert_eq!(painted("x", Paint::Bad, true), "\u{1b}[31mx\u{1b}[0m");
    }
}
