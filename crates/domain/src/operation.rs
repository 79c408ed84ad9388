//! What a task asks for. Each operation is one action of the policy schema; what is not here cannot be asked.

use crate::name::{ToolName, UpstreamName};
use serde_json::{Map, Value};

/// One thing that a task wants to do, borrowed from the parsed request: what was parsed is what is decided.
#[derive(Debug, Clone, Copy)]
pub enum Operation<'a> {
    /// Open the task itself.
    OpenTask,
    /// Renew the task's token.
    RenewTask,
    /// Call a tool (`tools/call`).
    CallTool {
        /// Where.
        upstream: &'a UpstreamName,
        /// Which.
        tool: &'a ToolName,
        /// The arguments as parsed.
        arguments: &'a Map<String, Value>,
    },
    /// Read or subscribe to a resource (`resources/read`, `resources/subscribe`).
    ReadResource {
        /// Where.
        upstream: &'a UpstreamName,
        /// The resource's URI as the upstream spells it.
        uri: &'a str,
    },
    /// Get a prompt (`prompts/get`).
    GetPrompt {
        /// Where.
        upstream: &'a UpstreamName,
        /// Its name.
        name: &'a str,
        /// Its arguments.
        arguments: &'a Map<String, Value>,
    },
}

impl<'a> Operation<'a> {
    /// The upstream that the operation would reach, if any.
    #[must_use]
    pub fn upstream(&self) -> Option<&'a UpstreamName> {
        match self {
            Self::OpenTask | Self::RenewTask => None,
            Self::CallTool { upstream, .. } | Self::ReadResource { upstream, .. } | Self::GetPrompt { upstream, .. } => {
                Some(upstream)
            }
        }
    }

    /// The kind of operation, as it stands in the log.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OpenTask => "task.open",
            Self::RenewTask => "task.renew",
            Self::CallTool { .. } => "tools/call",
            Self::ReadResource { .. } => "resources/read",
            Self::GetPrompt { .. } => "prompts/get",
        }
    }

    /// What the operation is about: the tool's name, the resource's URI, the prompt's name.
    #[must_use]
    pub fn subject(&self) -> Option<&'a str> {
        match self {
            Self::OpenTask | Self::RenewTask => None,
            Self::CallTool { tool, .. } => Some(tool.as_str()),
            Self::ReadResource { uri, .. } => Some(uri),
            Self::GetPrompt { name, .. } => Some(name),
        }
    }
}
