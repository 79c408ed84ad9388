//! One decision, top to bottom: reach, approval of the tool, parameters, arguments, policies. Pure; what it answers
//! is advice that the authority logs before anything happens.
//!
//! INVARIANT(error-denies): a policy that cannot be evaluated refuses the request. Cedar would skip it, and a skipped
//! `forbid` is a hole.

use crate::arguments::{self, Fault};
use crate::explain::{self, Words};
use crate::index::{IntentTargets, Nowhere, Target};
use crate::policy::Policy;
use crate::possible;
use crate::request::Request;
use crate::rules::Rule;
use crate::situation::{Parts, Situation, bound_input, own_input, truth};
use crate::uri::reads_in_several_ways;
use cedar_policy_core::ast::Value;
use cedar_policy_core::evaluator::Evaluator;
use domain::{Determining, Effect, Intent, Operation, Outcome, OwnerId, Reason, Sensitivity, Verdict};
use std::collections::BTreeSet;

/// What the applicable policies said.
#[derive(Default)]
pub(crate) struct Tally<'a> {
    pub(crate) permits: Vec<&'a Rule>,
    pub(crate) forbids: Vec<&'a Rule>,
    pub(crate) errors: Vec<&'a Rule>,
}

impl<'a> Tally<'a> {
    /// Evaluates every rule: all that settle the verdict are named in it, so none is skipped.
    pub(crate) fn of(rules: impl Iterator<Item = &'a Rule>, evaluator: &Evaluator<'_>) -> Self {
        let mut tally = Self::default();
        for rule in rules {
            match (holds(evaluator, rule), rule.info.effect) {
                (Some(true), Effect::Permit) => tally.permits.push(rule),
                (Some(true), Effect::Forbid) => tally.forbids.push(rule),
                (Some(false), _) => {}
                (None, _) => tally.errors.push(rule),
            }
        }
        tally
    }

    pub(crate) fn allows(&self) -> bool {
        self.errors.is_empty() && self.forbids.is_empty() && !self.permits.is_empty()
    }
}

/// Whether the rule's condition holds; `None` if it cannot be evaluated.
///
/// INVARIANT(index-is-scope): a rule is only asked about in an environment where its scope holds.
pub(crate) fn holds(evaluator: &Evaluator<'_>, rule: &Rule) -> Option<bool> {
    debug_assert!(in_scope(evaluator, rule), "`{}` was indexed where its scope does not hold", rule.info.id);
    truth(evaluator, &rule.condition)
}

/// Whether the parts of the scope that the index settles hold indeed.
fn in_scope(evaluator: &Evaluator<'_>, rule: &Rule) -> bool {
    let template = rule.ast.template();
    let parts = [
        template.principal_constraint().as_expr(),
        template.action_constraint().as_expr(),
        template.resource_constraint().as_expr(),
    ];
    rule.condition == rule.ast.condition() || parts.iter().all(|part| truth(evaluator, part) == Some(true))
}

/// A request that passed every check before the policies.
pub(crate) struct Ready<'a> {
    pub(crate) intent: &'a Intent,
    pub(crate) target: &'a Target,
    pub(crate) situation: Situation,
}

impl<'a> Ready<'a> {
    /// The policies that apply, in the order of their ids.
    pub(crate) fn rules(&self, policy: &'a Policy) -> impl Iterator<Item = &'a Rule> {
        let eid: &str = self.situation.resource.eid().as_ref();
        self.target.env.rules(&policy.rules, eid)
    }
}

/// Decides one request.
pub(crate) fn decide(policy: &Policy, request: &Request<'_>) -> Verdict {
    let decided = match request.operation {
        Operation::Answer { .. } => answer(policy, request),
        _ => prepare(policy, request).map(|ready| evaluate(policy, request, &ready)),
    };
    decided.unwrap_or_else(|refused| *refused)
}

/// An answer that no decided request stands behind. No policy is written about these, so the labels speak: it leaves while
/// nothing could be in it that is not public (`docs/decisions/0011`).
fn answer(policy: &Policy, request: &Request<'_>) -> Result<Verdict, Box<Verdict>> {
    footing(policy, request)?;
    if request.facts.labels.read_sensitivity > Sensitivity::Public {
        let text = "no request stands behind this question, and the task has read what is not public";
        return refuse(Reason::NotPermitted, text.to_owned());
    }
    let text = "no request stands behind this question, and the task has read nothing but what is public";
    Ok(verdict(Outcome::Allow, None, text.to_owned()))
}

/// What every request needs: an intent that is still there and still binds the task, something within its reach, an owner.
struct Footing<'a, 'r> {
    intent: &'a Intent,
    targets: &'a IntentTargets,
    target: &'a Target,
    owner: &'r OwnerId,
}

fn footing<'a, 'r>(policy: &'a Policy, request: &Request<'r>) -> Result<Footing<'a, 'r>, Box<Verdict>> {
    let intent = policy.intent(&request.task.intent);
    let (Some(intent), Some(targets)) = (intent, policy.index.get(&request.task.intent)) else {
        return refuse(
            Reason::OutOfReach,
            format!("the intent `{}` no longer exists; open a task of another", request.task.intent),
        );
    };
    let target = targets.find(&request.operation).map_err(|nowhere| nowhere_to_go(nowhere, request, intent))?;
    if let Err(fault) = intent.still_binds(&request.task.params) {
        let message = format!("the task no longer fits its intent `{}` ({fault}); open a new one", intent.name);
        return refuse(Reason::OutOfReach, message);
    }
    let Some(owner) = &request.agent.owner else {
        return refuse(Reason::AgentNotEligible, "the agent has no owner, so nobody answers for it".to_owned());
    };
    Ok(Footing { intent, targets, target, owner })
}

/// Everything before the policies.
pub(crate) fn prepare<'a>(policy: &'a Policy, request: &Request<'_>) -> Result<Ready<'a>, Box<Verdict>> {
    let Footing { intent, targets, target, owner } = footing(policy, request)?;
    let input = input(policy, target, request).map_err(|fault| bad_arguments(policy, targets, target, request, owner, &fault))?;
    let parts = parts(policy, targets, target);
    match Situation::new(&parts, request, owner, input) {
        Ok(situation) => Ok(Ready { intent, target, situation }),
        Err(error) => Err(Box::new(verdict(Outcome::Failed, Some(Reason::PolicyError), error.to_string()))),
    }
}

pub(crate) fn parts<'a>(policy: &'a Policy, targets: &'a IntentTargets, target: &'a Target) -> Parts<'a> {
    Parts { types: &policy.types, task_type: &targets.task_type, governed: &target.governed, mentions: target.env.mentions }
}

pub(crate) fn input(policy: &Policy, target: &Target, request: &Request<'_>) -> Result<Option<Value>, Fault> {
    let action = &target.governed.action;
    match request.operation {
        Operation::OpenTask | Operation::RenewTask | Operation::Answer { .. } => Ok(None),
        Operation::CallTool { arguments, .. } => arguments::read(&target.governed.members, arguments).map(Some),
        Operation::ReadResource { uri, .. } if reads_in_several_ways(uri) => Err(Fault::Uri),
        Operation::ReadResource { uri, .. } => Ok(own_input(action, uri, None)),
        Operation::GetPrompt { name, arguments, .. } => Ok(own_input(action, name, Some(arguments))),
        Operation::IssueCredential { target, offer, arguments, .. } | Operation::SendHttp { target, offer, arguments } => {
            let Some(offer) = policy.offer(target, offer) else { return Ok(None) };
            let bound = offer.bind(arguments).map_err(|faults| faults.into_iter().next());
            bound.map(|params| Some(bound_input(&params))).map_err(|fault| fault.map_or(Fault::TooMany, Fault::Param))
        }
    }
}

fn evaluate(policy: &Policy, request: &Request<'_>, ready: &Ready<'_>) -> Verdict {
    let evaluator = ready.situation.evaluator();
    let tally = Tally::of(ready.rules(policy), &evaluator);
    if tally.allows() {
        let mut allowed = verdict(Outcome::Allow, None, explain::permitted(&tally.permits));
        allowed.determining = determining(&tally.permits);
        return allowed;
    }
    if !tally.errors.is_empty() {
        return failed(&tally.errors);
    }
    if !request.facts.approved && ready.target.env.mentions.approved {
        let granted = Tally::of(ready.rules(policy), &ready.situation.evaluator_if_approved());
        if granted.allows() {
            return ask(&tally, &granted);
        }
    }
    denied(policy, request, ready, (&tally, &evaluator))
}

fn denied(
    policy: &Policy,
    request: &Request<'_>,
    ready: &Ready<'_>,
    (tally, evaluator): (&Tally<'_>, &Evaluator<'_>),
) -> Verdict {
    let permits: Vec<_> = ready.rules(policy).filter(|rule| rule.info.effect == Effect::Permit).collect();
    // What a task could never be allowed looks the same whatever its policies say.
    if !permits.iter().any(|rule| possible::could_hold(evaluator, &rule.condition)) {
        return verdict(Outcome::Deny, Some(Reason::NotPermitted), explain::unavailable(&request.operation, ready.intent));
    }
    let words = Words {
        evaluator,
        intent: ready.intent,
        resource: explain::resource(&request.operation),
        clear: policy.clear_arguments(&request.operation),
    };
    if tally.forbids.is_empty() {
        return verdict(Outcome::Deny, Some(Reason::NotPermitted), words.not_permitted(&request.operation, &permits));
    }
    let mut forbidden = verdict(Outcome::Deny, Some(Reason::Forbidden), words.forbidden(&request.operation, &tally.forbids));
    forbidden.determining = determining(&tally.forbids);
    forbidden
}

fn failed(errors: &[&Rule]) -> Verdict {
    let mut failed = verdict(Outcome::Failed, Some(Reason::PolicyError), explain::failed(errors));
    failed.determining = determining(errors);
    failed
}

/// Who may approve: anybody whom one of the newly satisfied permits names, if all lifted forbids that name approvers
/// name them too.
fn ask(before: &Tally<'_>, granted: &Tally<'_>) -> Verdict {
    let was = |rules: &[&Rule], rule: &Rule| rules.iter().any(|other| other.info.id == rule.info.id);
    let permits: Vec<_> = granted.permits.iter().copied().filter(|rule| !was(&before.permits, rule)).collect();
    let needed = if before.permits.is_empty() { permits.as_slice() } else { &[] };
    let named = |rule: &Rule| rule.approvers.iter().cloned().collect::<BTreeSet<OwnerId>>();
    let union: BTreeSet<OwnerId> = needed.iter().flat_map(|rule| named(rule)).collect();
    let lists = before.forbids.iter().map(|rule| named(rule)).chain([union]).filter(|list| !list.is_empty());
    let approvers = lists.reduce(|a, b| a.intersection(&b).cloned().collect());
    let settled: Vec<_> = before.forbids.iter().copied().chain(granted.permits.iter().copied()).collect();
    if approvers.as_ref().is_some_and(BTreeSet::is_empty) {
        let mut denied = verdict(Outcome::Deny, Some(Reason::Forbidden), explain::nobody_may_approve(&settled));
        denied.determining = determining(&before.forbids);
        return denied;
    }
    let approvers: Vec<_> = approvers.into_iter().flatten().map(|owner| owner.to_string()).collect();
    let asking: Vec<_> = before.forbids.iter().copied().chain(needed.iter().copied()).collect();
    let mut ask = verdict(Outcome::Ask, Some(Reason::ApprovalNeeded), explain::ask(&asking, &approvers));
    ask.determining = determining(&settled);
    ask.approvers = approvers;
    ask
}

fn nowhere_to_go(nowhere: Nowhere, request: &Request<'_>, intent: &Intent) -> Box<Verdict> {
    let reason = match nowhere {
        Nowhere::OutOfReach => Reason::OutOfReach,
        Nowhere::Unavailable => Reason::ToolUnavailable,
    };
    Box::new(verdict(Outcome::Deny, Some(reason), explain::unavailable(&request.operation, intent)))
}

fn bad_arguments(
    policy: &Policy,
    targets: &IntentTargets,
    target: &Target,
    request: &Request<'_>,
    owner: &OwnerId,
    fault: &Fault,
) -> Box<Verdict> {
    // The names of a hidden tool's arguments are not told either.
    let parts = parts(policy, targets, target);
    if !possible::could_allow(&policy.rules, target, &parts, (request.task, request.agent, owner)) {
        let intent = policy.intent(&request.task.intent);
        let text = intent.map_or_else(String::new, |intent| explain::unavailable(&request.operation, intent));
        return Box::new(verdict(Outcome::Deny, Some(Reason::NotPermitted), text));
    }
    Box::new(verdict(Outcome::Deny, Some(Reason::UnknownArgument), explain::bad_arguments(&request.operation, fault)))
}

fn determining(rules: &[&Rule]) -> Vec<Determining> {
    let mut rules = rules.to_vec();
    rules.sort_by(|a, b| a.info.id.cmp(&b.info.id));
    rules.dedup_by(|a, b| a.info.id == b.info.id);
    let of = |rule: &Rule| Determining {
        id: rule.info.id.clone(),
        effect: rule.info.effect,
        annotations: rule.info.annotations.clone(),
    };
    rules.into_iter().map(of).collect()
}

fn refuse<T>(reason: Reason, explanation: String) -> Result<T, Box<Verdict>> {
    Err(Box::new(verdict(Outcome::Deny, Some(reason), explanation)))
}

fn verdict(outcome: Outcome, reason: Option<Reason>, explanation: String) -> Verdict {
    Verdict { outcome, reason, determining: Vec::new(), explanation, approvers: Vec::new() }
}

#[cfg(test)]
mod tests;
