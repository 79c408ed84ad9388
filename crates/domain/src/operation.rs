//! What a task asks for. Each operation is one action of the policy schema; what is not here cannot be asked.

use crate::name::{OfferName, TargetName, ToolName, UpstreamName};
use crate::offer::SecretOrigin;
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
    /// Answer a question of an upstream that no decided request stands behind (`docs/decisions/0011`).
    Answer {
        /// Whose question.
        upstream: &'a UpstreamName,
        /// What it asked: the method of its request.
        question: &'a str,
        /// What would leave.
        answer: &'a Map<String, Value>,
    },
    /// Have a credential issued (design.md §9).
    IssueCredential {
        /// At which target.
        target: &'a TargetName,
        /// What of all that it offers.
        offer: &'a OfferName,
        /// What is said about it, as parsed; defaults are filled in when it is decided.
        arguments: &'a Map<String, Value>,
        /// How long the credential shall live, in seconds.
        lifetime_secs: u64,
        /// Who makes the secret.
        secret: SecretOrigin,
    },
    /// Send a request to an HTTP API, whose secret the gateway injects.
    SendHttp {
        /// The API.
        target: &'a TargetName,
        /// Which of its routes.
        offer: &'a OfferName,
        /// What the path, the query and the body say, by the names that the route gives them.
        arguments: &'a Map<String, Value>,
    },
}

impl<'a> Operation<'a> {
    /// The upstream that the operation would reach, if any.
    #[must_use]
    pub fn upstream(&self) -> Option<&'a UpstreamName> {
        match self {
            Self::OpenTask | Self::RenewTask | Self::IssueCredential { .. } | Self::SendHttp { .. } => None,
            Self::CallTool { upstream, .. }
            | Self::ReadResource { upstream, .. }
            | Self::GetPrompt { upstream, .. }
            | Self::Answer { upstream, .. } => Some(upstream),
        }
    }

    /// The target that the operation is about, if any.
    #[must_use]
    pub fn target(&self) -> Option<&'a TargetName> {
        match self {
            Self::IssueCredential { target, .. } | Self::SendHttp { target, .. } => Some(target),
            _ => None,
        }
    }

    /// The arguments, of those operations that have some.
    #[must_use]
    pub fn arguments(&self) -> Option<&'a Map<String, Value>> {
        match self {
            Self::CallTool { arguments, .. }
            | Self::GetPrompt { arguments, .. }
            | Self::IssueCredential { arguments, .. }
            | Self::SendHttp { arguments, .. }
            | Self::Answer { answer: arguments, .. } => Some(arguments),
            Self::OpenTask | Self::RenewTask | Self::ReadResource { .. } => None,
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
            Self::Answer { .. } => "answer",
            Self::IssueCredential { .. } => "credential.issue",
            Self::SendHttp { .. } => "http.request",
        }
    }

    /// What the operation is about: the tool's name, the resource's URI, the prompt's name, what was asked, the offer.
    #[must_use]
    pub fn subject(&self) -> Option<&'a str> {
        match self {
            Self::OpenTask | Self::RenewTask => None,
            Self::CallTool { tool, .. } => Some(tool.as_str()),
            Self::ReadResource { uri, .. } => Some(uri),
            Self::GetPrompt { name, .. } => Some(name),
            Self::Answer { question, .. } => Some(question),
            Self::IssueCredential { offer, .. } | Self::SendHttp { offer, .. } => Some(offer.as_str()),
        }
    }
}
