//! `tools/<upstream>.lock.json`: the tool definitions that an operator approved, as the upstream sent them, with
//! their pins. The schema is typed from these, so that a policy is checked offline and a changed live definition
//! shows by its hash. Owns the file's format; which live definition to refuse is the gateway's business.

use crate::Diagnostic;
use crate::pin::{parse_hex, pin};
use domain::json::{Limits, read_text};
use domain::{Digest, ToolName, ToolTraits, UpstreamName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most tools of one upstream.
const TOOLS_MAX: usize = 2_000;
/// Largest definition in canonical form, in bytes.
const DEFINITION_BYTES_MAX: usize = 256 * 1_024;
/// What to do when a lock file is not as it should be.
const ACCEPT: &str = "write it with `writ upstream accept`, which shows what changed; never edit it by hand";

/// A tool as an operator approved it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApprovedTool {
    /// Where it is.
    pub upstream: UpstreamName,
    /// Its name.
    pub name: ToolName,
    /// The pin of its definition.
    pub pin: Digest,
    /// How it is labelled.
    pub traits: ToolTraits,
    /// Its title, as the upstream sent it.
    pub title: Option<String>,
    /// Its description, as the upstream sent it.
    pub description: Option<String>,
    /// The whole wire definition.
    pub definition: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockFile {
    version: u64,
    upstream: String,
    tools: Vec<LockedTool>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockedTool {
    pin: String,
    definition: Value,
}

/// A definition out of a lock file, before it has labels.
pub(crate) struct Locked {
    pub(crate) name: ToolName,
    pub(crate) pin: Digest,
    pub(crate) definition: Value,
}

/// The text of `tools/<upstream>.lock.json` that approves these definitions, sorted by name.
#[must_use]
pub fn render_lock(upstream: &UpstreamName, definitions: &[Value]) -> String {
    let mut tools: Vec<_> = definitions.iter().map(|definition| (name_of(definition), definition)).collect();
    tools.sort_by_key(|(name, _)| *name);
    let tools: Vec<_> = tools
        .into_iter()
        .map(|(_, given)| LockedTool { pin: format!("sha256:{}", pin(upstream, given)), definition: given.clone() })
        .collect();
    let file = serde_json::json!({ "version": 1, "upstream": upstream.as_str(), "tools": tools });
    // Values that were parsed from JSON always print as JSON.
    format!("{:#}\n", file)
}

fn name_of(definition: &Value) -> &str {
    definition.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Reads a lock file; `None` if it is not one. What cannot be governed is left out with a warning: it stays
/// unreachable.
pub(crate) fn read(path: &str, upstream: &UpstreamName, text: &str, found: &mut Vec<Diagnostic>) -> Option<Vec<Locked>> {
    let value = read_text(text, Limits::FILE).map_err(|fault| (place(text, fault.line, fault.column), fault.to_string()));
    // What the file says is wrong as a whole: `serde_json` knows no place in a value.
    let file = value.and_then(|value| serde_json::from_value(value).map_err(|error| (place(text, 0, 0), error.to_string())));
    let file: LockFile = match file {
        Ok(file) => file,
        Err((span, error)) => {
            found.push(Diagnostic::at(path, text, span, format!("not a lock file: {error}")).help(ACCEPT));
            return None;
        }
    };
    let mut whole = |message: String| found.push(Diagnostic::whole(path, message).help(ACCEPT));
    if file.version != 1 {
        whole(format!("lock file version {} is not known; this release reads version 1", file.version));
        return None;
    }
    if file.upstream != upstream.as_str() {
        whole(format!("the file is named for upstream `{upstream}` but holds tools of `{}`", shown(&file.upstream)));
        return None;
    }
    if file.tools.len() > TOOLS_MAX {
        whole(format!("{} tools are more than the {TOOLS_MAX} that one upstream may have", file.tools.len()));
        return None;
    }
    let mut locked: Vec<Locked> = Vec::new();
    for tool in file.tools {
        match tool.check(upstream) {
            Ok(tool) if locked.iter().any(|other| other.name == tool.name) => {
                found.push(Diagnostic::whole(path, format!("tool `{}` is approved twice", tool.name)).help(ACCEPT));
            }
            Ok(tool) => locked.push(tool),
            Err(Refused::Forged(message)) => {
                found.push(Diagnostic::whole(path, message).help(ACCEPT));
                return None;
            }
            Err(Refused::Ungovernable(message)) => found.push(Diagnostic::whole(path, message).warning()),
        }
    }
    Some(locked)
}

enum Refused {
    Forged(String),
    Ungovernable(String),
}

impl LockedTool {
    fn check(self, upstream: &UpstreamName) -> Result<Locked, Refused> {
        let name = name_of(&self.definition);
        let real = pin(upstream, &self.definition);
        // INVARIANT(pinned-is-typed): the definition that policies are typed from is the one that was approved.
        if self.pin.strip_prefix("sha256:").and_then(parse_hex).map(Digest) != Some(real) {
            return Err(Refused::Forged(format!("the pin of tool `{}` does not match its definition", shown(name))));
        }
        let Ok(name) = name.parse::<ToolName>() else {
            return Err(Refused::Ungovernable(format!(
                "tool `{}` has a name that MCP does not allow: it stays unreachable",
                shown(name)
            )));
        };
        if domain::json::canonical(&self.definition).len() > DEFINITION_BYTES_MAX {
            return Err(Refused::Ungovernable(format!(
                "the definition of tool `{name}` is larger than {DEFINITION_BYTES_MAX} bytes: it stays unreachable"
            )));
        }
        Ok(Locked { name, pin: real, definition: self.definition })
    }
}

/// Cuts hostile text to what may stand in a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// The byte range of a line and column (both from 1), as JSON errors give them.
fn place(text: &str, line: usize, column: usize) -> std::ops::Range<usize> {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let at = (start + column.saturating_sub(1)).min(text.len());
    at..at
}
