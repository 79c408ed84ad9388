//! One request that somebody asks about over the API, parsed and owned. The wire forms differ (REST, AuthZEN); what they
//! ask about is one of these.

use domain::{Operation, ToolName, UpstreamName};
use serde_json::{Map, Value};

/// What is asked about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    /// Calling a tool.
    Tool { upstream: UpstreamName, tool: ToolName, arguments: Map<String, Value> },
    /// Reading a resource.
    Resource { upstream: UpstreamName, uri: String },
    /// Getting a prompt.
    Prompt { upstream: UpstreamName, name: String, arguments: Map<String, Value> },
}

impl Asked {
    /// It as an operation that can be decided.
    pub(crate) fn operation(&self) -> Operation<'_> {
        match self {
            Self::Tool { upstream, tool, arguments } => Operation::CallTool { upstream, tool, arguments },
            Self::Resource { upstream, uri } => Operation::ReadResource { upstream, uri },
            Self::Prompt { upstream, name, arguments } => Operation::GetPrompt { upstream, name, arguments },
        }
    }
}
