//! A compiled policy folder: what the rest of Writ asks. Owns the order of compilation; each question is answered in
//! a module of its own.

use crate::TargetOffers;
use crate::catalog::{self, Catalog};
use crate::decide;
use crate::explain::{self, Words};
use crate::index::{self, Index};
use crate::labels::Unasked;
use crate::lock::ApprovedTool;
use crate::possible;
use crate::request::{Considered, Explanation, Request, RuleInfo, Standing};
use crate::rules::{self, Rule};
use crate::schema;
use crate::situation::Types;
use crate::{Diagnostic, PolicyVersion, Severity, Sources};
use cedar_policy::{Schema, SchemaFragment};
use domain::{
    Agent, Intent, IntentName, Offer, OfferName, Operation, TargetName, Task, ToolName, ToolTraits, UpstreamName, Verdict,
};
use serde_json::Value;

/// A compiled policy folder: immutable, and shared between threads.
#[derive(Debug)]
pub struct Policy {
    version: PolicyVersion,
    catalog: Catalog,
    pub(crate) rules: Vec<Rule>,
    pub(crate) index: Index,
    pub(crate) types: Types,
    schema: Value,
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
    /// Compiles a folder: intents, labels and approved tools; the schema over them; the policies, validated in strict
    /// mode; the index.
    ///
    /// # Errors
    /// Every finding (warnings too), sorted by place, if at least one is an error.
    pub fn compile(sources: &Sources) -> Result<Compiled, Vec<Diagnostic>> {
        let mut found = Vec::new();
        if !catalog::check_size(sources, &mut found) {
            return Err(found);
        }
        let catalog = catalog::read(sources, &mut found);
        let generated = schema::generate(&catalog);
        // With a broken intent or tool file, every policy that uses it would be reported too: mend these first.
        let schema = if has_error(&found) { None } else { load(&generated, &mut found) };
        let rules = rules::read(sources, schema.as_ref(), &mut found);
        let index = if has_error(&found) { None } else { connect(&catalog, &rules, &mut found) };
        Diagnostic::sort(&mut found);
        match (index, Types::new()) {
            (Some(index), Some(types)) if !has_error(&found) => {
                let policy = Self { version: sources.version(), catalog, rules, index, types, schema: generated };
                Ok(Compiled { policy, warnings: found })
            }
            _ => Err(found),
        }
    }

    /// The content hash of the folder.
    #[must_use]
    pub fn version(&self) -> &PolicyVersion {
        &self.version
    }

    /// An intent by its name.
    #[must_use]
    pub fn intent(&self, name: &IntentName) -> Option<&Intent> {
        self.catalog.intents.get(name)
    }

    /// Every intent, by name.
    pub fn intents(&self) -> impl Iterator<Item = &Intent> {
        self.catalog.intents.values()
    }

    /// Every upstream that an intent reaches or that has a file in `tools/`, by name.
    pub fn upstreams(&self) -> impl Iterator<Item = &UpstreamName> {
        self.catalog.upstreams.keys()
    }

    /// An approved tool.
    #[must_use]
    pub fn approved(&self, upstream: &UpstreamName, tool: &ToolName) -> Option<&ApprovedTool> {
        Some(&self.catalog.upstreams.get(upstream)?.tools.get(tool)?.approved)
    }

    /// The approved tools of an upstream, by name.
    pub fn approved_tools(&self, upstream: &UpstreamName) -> impl Iterator<Item = &ApprovedTool> {
        self.catalog.upstreams.get(upstream).into_iter().flat_map(|entry| entry.tools.values().map(|tool| &tool.approved))
    }

    /// What may be asked for at a target.
    #[must_use]
    pub fn target(&self, name: &TargetName) -> Option<&TargetOffers> {
        Some(&self.catalog.targets.get(name)?.offers)
    }

    /// Every target that has a file, by name.
    pub fn targets(&self) -> impl Iterator<Item = &TargetOffers> {
        self.catalog.targets.values().map(|entry| &entry.offers)
    }

    /// One thing that a target offers.
    #[must_use]
    pub fn offer(&self, target: &TargetName, offer: &OfferName) -> Option<&Offer> {
        self.target(target)?.offers.get(offer)
    }

    /// How the thing that an operation uses is labelled; `None` for task operations and for what is not approved.
    #[must_use]
    pub fn traits(&self, operation: &Operation<'_>) -> Option<&ToolTraits> {
        match operation {
            Operation::OpenTask | Operation::RenewTask | Operation::Answer { .. } => None,
            Operation::CallTool { upstream, tool, .. } => Some(&self.approved(upstream, tool)?.traits),
            Operation::ReadResource { upstream, .. } => Some(&self.catalog.upstreams.get(*upstream)?.resources),
            Operation::GetPrompt { upstream, .. } => Some(&self.catalog.upstreams.get(*upstream)?.prompts),
            Operation::IssueCredential { target, offer, .. } | Operation::SendHttp { target, offer, .. } => {
                Some(&self.offer(target, offer)?.traits)
            }
        }
    }

    /// What an upstream's words bring into a task that come without a decided request.
    #[must_use]
    pub fn unasked(&self, upstream: &UpstreamName) -> Unasked {
        self.catalog.upstreams.get(upstream).map_or_else(Unasked::default, |entry| entry.unasked)
    }

    /// Every Cedar policy, by id.
    pub fn rules(&self) -> impl Iterator<Item = &RuleInfo> {
        self.rules.iter().map(|rule| &rule.info)
    }

    /// Decides one request. Whether the task is open, has calls left, and its agent may act is the authority's to
    /// check.
    #[must_use]
    pub fn decide(&self, request: &Request<'_>) -> Verdict {
        decide::decide(self, request)
    }

    /// Whether the task could ever be allowed this operation, whatever its arguments and the facts, approval counted:
    /// the filter of listings. It never hides what could be allowed.
    #[must_use]
    pub fn could_allow(&self, task: &Task, agent: &Agent, operation: &Operation<'_>) -> bool {
        let (Some(targets), Some(owner)) = (self.index.get(&task.intent), &agent.owner) else { return false };
        let Ok(target) = targets.find(operation) else { return false };
        let fits = self.intent(&task.intent).is_some_and(|intent| intent.still_binds(&task.params).is_ok());
        fits && possible::could_allow(&self.rules, target, &decide::parts(self, targets, target), (task, agent, owner))
    }

    /// The verdict, and every applicable policy with what it said. For people, and for the log's readers; slower than
    /// [`Policy::decide`].
    #[must_use]
    pub fn explain(&self, request: &Request<'_>) -> Explanation {
        let verdict = self.decide(request);
        let Ok(ready) = decide::prepare(self, request) else { return Explanation { verdict, considered: Vec::new() } };
        let evaluator = ready.situation.evaluator();
        let words = Words {
            evaluator: &evaluator,
            intent: ready.intent,
            resource: explain::resource(&request.operation),
            clear: self.clear_arguments(&request.operation),
        };
        let considered = ready.rules(self).map(|rule| {
            let standing = match decide::holds(&evaluator, rule) {
                Some(true) => Standing::Held,
                Some(false) => Standing::NotHeld,
                None => Standing::Error,
            };
            let unmet = if standing == Standing::NotHeld { words.unmet(rule) } else { Vec::new() };
            Considered { rule: rule.info.clone(), standing, unmet }
        });
        Explanation { verdict, considered: considered.collect() }
    }

    /// The generated Cedar schema, for people and editors.
    #[must_use]
    pub fn schema_text(&self) -> String {
        let fragment = SchemaFragment::from_json_value(self.schema.clone()).ok();
        let text = fragment.and_then(|fragment| fragment.to_cedarschema().ok()).unwrap_or_else(|| format!("{:#}", self.schema));
        // Cedar spells its own types `__cedar::String`, in case that an intent is called `string`.
        let own = ["entity String ", "entity Long ", "entity Bool ", "entity Decimal ", "entity Datetime "];
        if own.iter().any(|name| text.contains(name)) { text } else { text.replace("__cedar::", "") }
    }

    /// Names of arguments whose values may be told.
    pub(crate) fn clear_arguments(&self, operation: &Operation<'_>) -> &[String] {
        self.traits(operation).map_or(&[], |traits| traits.clear_arguments.as_slice())
    }

    #[cfg(test)]
    pub(crate) fn schema(&self) -> &Value {
        &self.schema
    }
}

fn has_error(found: &[Diagnostic]) -> bool {
    found.iter().any(|diagnostic| diagnostic.severity == Severity::Error)
}

fn load(generated: &Value, found: &mut Vec<Diagnostic>) -> Option<Schema> {
    Schema::from_json_value(generated.clone())
        .map_err(|error| found.push(Diagnostic::whole("", format!("the generated schema is not valid: {error}"))))
        .ok()
}

fn connect(catalog: &Catalog, rules: &[Rule], found: &mut Vec<Diagnostic>) -> Option<Index> {
    index::build(catalog, rules).map_err(|error| found.push(Diagnostic::whole("", error.to_string()))).ok()
}

#[cfg(test)]
mod tests;
