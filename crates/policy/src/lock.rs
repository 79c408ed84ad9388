//! Approved tool definitions.
use domain::{Digest, ToolName, ToolTraits, UpstreamName};
use serde_json::Value;

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

/// The text of `tools/<upstream>.lock.json` that approves these definitions.
#[must_use]
pub fn render_lock(upstream: &UpstreamName, definitions: &[Value]) -> String {
    format!("{upstream} {}", definitions.len())
}
