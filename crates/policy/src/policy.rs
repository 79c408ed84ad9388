//! A compiled policy.
use crate::lock::ApprovedTool;
use crate::request::{Explanation, Offer, Request, RuleInfo};
use crate::{Diagnostic, PolicyVersion, Sources};
use domain::{Agent, Intent, IntentName, Operation, Outcome, Reason, Task, ToolName, ToolTraits, UpstreamName, Verdict};
use std::collections::BTreeMap;

/// A compiled policy folder: immutable, shared.
#[derive(Debug)]
pub struct Policy {
    version: PolicyVersion,
    intents: BTreeMap<IntentName, Intent>,
    tools: BTreeMap<UpstreamName, BTreeMap<ToolName, ApprovedTool>>,
    rules: Vec<RuleInfo>,
}

/// What compiling yields.
#[derive(Debug)]
pub struct Compiled {
    /// The policy.
    pub policy: Policy,
    /// What somebody should look at.
    pub warnings: Vec<Diagnostic>,
}

impl Policy {
    /// Compiles a folder.
    ///
    /// # Errors
    /// Every finding, sorted by place, if at least one is an error.
    pub fn compile(sources: &Sources) -> Result<Compiled, Vec<Diagnostic>> {
        let policy = Self { version: sources.version(), intents: BTreeMap::new(), tools: BTreeMap::new(), rules: Vec::new() };
        Ok(Compiled { policy, warnings: Vec::new() })
    }

    /// The content hash of the folder.
    #[must_use]
    pub fn version(&self) -> &PolicyVersion {
        &self.version
    }

    /// An intent by its name.
    #[must_use]
    pub fn intent(&self, name: &IntentName) -> Option<&Intent> {
        self.intents.get(name)
    }

    /// Every intent, by name.
    pub fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.intents.values()
    }

    /// Every upstream that an intent reaches or that has a file in `tools/`, by name.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamName> {
        self.tools.keys()
    }

    /// An approved tool.
    #[must_use]
    pub fn approved(&self, upstream: &UpstreamName, tool: &ToolName) -> Option<&ApprovedTool> {
        self.tools.get(upstream)?.get(tool)
    }

    /// The approved tools of an upstream, by name.
    pub fn approved_tools(&self, upstream: &UpstreamName) -> impl Iterator<Item = &ApprovedTool> {
        self.tools.get(upstream).into_iter().flat_map(BTreeMap::values)
    }

    /// How the thing that an operation uses is labelled; `None` for task operations and unapproved tools.
    #[must_use]
    pub fn traits(&self, operation: &Operation<'_>) -> Option<&ToolTraits> {
        match operation {
            Operation::CallTool { upstream, tool, .. } => Some(&self.approved(upstream, tool)?.traits),
            _ => None,
        }
    }

    /// Every Cedar policy, by id.
    pub fn rules(&self) -> impl Iterator<Item = &RuleInfo> {
        self.rules.iter()
    }

    /// Decides one request.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Verdict {
        let _ = request;
        Verdict {
            outcome: Outcome::Failed,
            reason: Some(Reason::PolicyError),
            determining: Vec::new(),
            explanation: String::new(),
            approvers: Vec::new(),
        }
    }

    /// Whether the task could ever be allowed this, whatever the arguments, approval counted.
    #[must_use]
    pub fn could_allow(&self, task: &Task, agent: &Agent, upstream: &UpstreamName, offer: Offer<'_>) -> bool {
        let _ = (task, agent, upstream, offer);
        false
    }

    /// The verdict and every applicable policy, with what was not met.
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        Explanation { verdict: self.decide(request), considered: Vec::new() }
    }

    /// The generated Cedar schema.
    #[must_use]
    pub fn schema_text(&self) -> String {
        String::new()
    }
}
