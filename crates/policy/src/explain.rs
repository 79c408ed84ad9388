//! Verdicts in words, for a person or a model: what was refused, by which policy, what would be allowed instead.
//!
//! INVARIANT(says-no-secret): a text holds no value of an argument unless the operator labelled it clear, no value of
//! a parameter that is declared sensitive, and nothing at all about the policies of a tool that the task could never
//! be allowed.

use crate::arguments::{Fault, plain};
use crate::rules::{Rule, conjuncts};
use crate::situation::truth;
use cedar_policy_core::ast::{BinaryOp, Expr, ExprKind, SlotEnv, UnaryOp, Var};
use cedar_policy_core::evaluator::Evaluator;
use domain::{Intent, Operation};

/// Most policies and conditions spelled out in one explanation.
const SPELLED_MAX: usize = 3;

/// Longest text of one annotation in an explanation, in characters.
const ANNOTATION_CHARS_MAX: usize = 400;

pub(crate) fn permitted(permits: &[&Rule]) -> String {
    format!("permitted by {}", ids(permits))
}

/// For everything that is outside: one text, so that what is hidden and what is not there look alike.
pub(crate) fn unavailable(operation: &Operation<'_>, intent: &Intent) -> String {
    format!("{} is not available to tasks of intent `{}`", what(operation), intent.name)
}

pub(crate) fn bad_arguments(operation: &Operation<'_>, fault: &Fault) -> String {
    let help = match fault {
        Fault::Unknown { help: Some(help), .. } => format!("; {help}"),
        _ => String::new(),
    };
    format!("{} {fault}{help}", what(operation))
}

pub(crate) fn failed(errors: &[&Rule]) -> String {
    format!("refused because {} could not be evaluated; its owner must mend it", ids(errors))
}

pub(crate) fn nobody_may_approve(rules: &[&Rule]) -> String {
    format!("needs an approval by {}, but these policies name nobody in common who may give it", ids(rules))
}

pub(crate) fn ask(rules: &[&Rule], approvers: &[String]) -> String {
    let by = if approvers.is_empty() { String::new() } else { format!(" by one of `{}`", approvers.join("`, `")) };
    let said: Vec<_> = rules.iter().take(SPELLED_MAX).filter_map(|rule| said(rule)).collect();
    let said = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
    format!("needs the approval of a person{by}, because of {}{said}", ids(rules))
}

/// What makes up an explanation of a refusal.
pub(crate) struct Words<'a> {
    pub(crate) evaluator: &'a Evaluator<'a>,
    pub(crate) intent: &'a Intent,
    /// Whose attributes `resource` has: `tool's`, `credential's`, `route's`.
    pub(crate) resource: &'static str,
    /// Arguments whose values may be shown.
    pub(crate) clear: &'a [String],
}

impl Words<'_> {
    pub(crate) fn forbidden(&self, operation: &Operation<'_>, forbids: &[&Rule]) -> String {
        let said: Vec<_> = forbids.iter().take(SPELLED_MAX).filter_map(|rule| said(rule)).collect();
        let said = if said.is_empty() { String::new() } else { format!(": {}", said.join("; ")) };
        format!("{} is forbidden by {}{said}", what(operation), ids(forbids))
    }

    /// The permits that came closest, with what they still need.
    pub(crate) fn not_permitted(&self, operation: &Operation<'_>, permits: &[&Rule]) -> String {
        let mut closest: Vec<_> = permits.iter().map(|rule| (self.unmet(rule), *rule)).collect();
        closest.sort_by_key(|(unmet, _)| unmet.len());
        let fewest = closest.first().map_or(0, |(unmet, _)| unmet.len());
        closest.retain(|(unmet, _)| unmet.len() == fewest);
        let needs = closest.iter().take(SPELLED_MAX).map(|(unmet, rule)| {
            let said = said(rule).map_or_else(String::new, |said| format!(" ({said})"));
            let unmet = unmet.iter().take(SPELLED_MAX).cloned().collect::<Vec<_>>().join(" and ");
            let unmet = if unmet.is_empty() { "its condition does not hold".to_owned() } else { unmet };
            format!("for `{}` {unmet}{said}", rule.info.id)
        });
        format!("{} is not permitted: {}", what(operation), needs.collect::<Vec<_>>().join("; or "))
    }

    /// The parts of the rule's condition that do not hold. Parts that err (an optional argument behind a failed
    /// `has`) say nothing of their own.
    pub(crate) fn unmet(&self, rule: &Rule) -> Vec<String> {
        let parts = conjuncts(rule).into_iter();
        let mut unmet: Vec<_> =
            parts.filter(|part| truth(self.evaluator, part) == Some(false)).map(|part| self.requirement(part, true)).collect();
        unmet.dedup();
        unmet
    }

    /// What must be so for `expr` to be `wanted`.
    fn requirement(&self, expr: &Expr, wanted: bool) -> String {
        self.spelled(expr, wanted).unwrap_or_else(|| "another condition of it must hold".to_owned())
    }

    fn spelled(&self, expr: &Expr, wanted: bool) -> Option<String> {
        match expr.expr_kind() {
            ExprKind::UnaryApp { op: UnaryOp::Not, arg } => self.spelled(arg, !wanted),
            ExprKind::Or { left, right } if wanted => {
                Some(format!("either {} or {}", self.spelled(left, true)?, self.spelled(right, true)?))
            }
            // Not (a and b): whichever of the two is true now must become false.
            ExprKind::And { left, right } if !wanted => {
                Some(format!("either {} or {}", self.spelled(left, false)?, self.spelled(right, false)?))
            }
            ExprKind::BinaryApp { op, arg1, arg2 } => self.comparison(*op, arg1, arg2, wanted),
            ExprKind::ExtensionFunctionApp { fn_name, args } => {
                let words = match (fn_name.to_string().as_str(), wanted) {
                    ("lessThan", true) | ("greaterThanOrEqual", false) => BELOW,
                    ("lessThanOrEqual", true) | ("greaterThan", false) => AT_MOST,
                    ("greaterThan", true) | ("lessThanOrEqual", false) => ABOVE,
                    ("greaterThanOrEqual", true) | ("lessThan", false) => AT_LEAST,
                    _ => return None,
                };
                match args.as_slice() {
                    [left, right] => self.compared(left, right, words),
                    _ => None,
                }
            }
            ExprKind::HasAttr { expr, attr } => {
                let must = if wanted { "must" } else { "must not" };
                matches!(path(expr)?, (Root::Input, _)).then(|| format!("the argument `{attr}` {must} be given"))
            }
            ExprKind::Like { expr, pattern } => {
                let must = if wanted { "must" } else { "must not" };
                Some(format!("{} {must} look like `{pattern}`", self.operand(expr)?.name?))
            }
            ExprKind::GetAttr { .. } => self.flag(expr, wanted),
            _ => None,
        }
    }

    /// A truth value on its own.
    fn flag(&self, expr: &Expr, wanted: bool) -> Option<String> {
        let (root, names) = path(expr)?;
        match (root, names.as_slice(), wanted) {
            (Root::Facts, ["approved"], true) => Some("a person must approve it".to_owned()),
            (Root::Facts, ["read_untrusted"], false) => Some("the task must not have read untrusted content".to_owned()),
            _ => Some(format!("{} must be {wanted}", self.operand(expr)?.name?)),
        }
    }

    fn comparison(&self, op: BinaryOp, left: &Expr, right: &Expr, wanted: bool) -> Option<String> {
        let words = match (op, wanted) {
            (BinaryOp::Eq, true) => EQUAL,
            (BinaryOp::Eq, false) => UNEQUAL,
            (BinaryOp::Less, true) => BELOW,
            (BinaryOp::LessEq, true) => AT_MOST,
            (BinaryOp::Less, false) => AT_LEAST,
            (BinaryOp::LessEq, false) => ABOVE,
            (BinaryOp::Contains, _) => {
                let (set, item) = (self.operand(left)?, self.operand(right)?);
                let must = if wanted { "must be" } else { "must not be" };
                return Some(format!("{} {must} one of {}", item.name.or(item.value)?, set.told()?));
            }
            (BinaryOp::HasTag, _) => {
                let must = if wanted { "must" } else { "must not" };
                return Some(format!("the workload {must} have proved the claim {}", self.operand(right)?.value?));
            }
            _ => return None,
        };
        self.compared(left, right, words)
    }

    /// `left` must be … `right`, told from the side that the caller can change.
    fn compared(&self, left: &Expr, right: &Expr, words: [&'static str; 2]) -> Option<String> {
        let [forward, backward] = words;
        let (left, right) = (self.operand(left)?, self.operand(right)?);
        let (subject, words, bound) = if right.changeable && !left.changeable || left.name.is_none() {
            (right, backward, left)
        } else {
            (left, forward, right)
        };
        let is = subject.value.as_ref().map_or_else(String::new, |value| format!(" and is {value}"));
        Some(format!("{} must {words} {}{is}", subject.name.clone()?, bound.told()?))
    }

    fn operand(&self, expr: &Expr) -> Option<Operand> {
        let value = self.evaluator.interpret(expr, &SlotEnv::new()).ok().as_ref().and_then(plain);
        let Some((root, names)) = path(expr) else {
            return self.computed(expr, value);
        };
        let name = names.join(".");
        let operand = match root {
            Root::Input => {
                let clear = names.first().is_some_and(|name| self.clear.iter().any(|clear| clear == name));
                Operand { name: Some(format!("`{name}`")), value: value.filter(|_| clear), changeable: true }
            }
            Root::Task => {
                let sensitive = names.first().and_then(|name| self.intent.params.get(*name)).is_some_and(|param| param.sensitive);
                Operand { name: Some(format!("the task's `{name}`")), value: value.filter(|_| !sensitive), changeable: false }
            }
            Root::Facts => Operand { name: Some(format!("`facts.{name}`")), value, changeable: false },
            Root::Resource => Operand { name: Some(format!("the {} `{name}`", self.resource)), value, changeable: false },
            Root::Credential => Operand { name: Some(format!("`{name}`")), value, changeable: true },
        };
        Some(operand)
    }

    /// Literals, sums and products, and claims of the workload.
    fn computed(&self, expr: &Expr, value: Option<String>) -> Option<Operand> {
        match expr.expr_kind() {
            ExprKind::BinaryApp { op: op @ (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul), arg1, arg2 } => {
                let (left, right) = (self.operand(arg1)?, self.operand(arg2)?);
                // What is computed of something tells of it.
                let sayable = left.value.is_some() && right.value.is_some();
                let name = format!("{} {op} {}", left.part(arg1)?, right.part(arg2)?);
                let changeable = left.changeable || right.changeable;
                Some(Operand { name: Some(name), value: value.filter(|_| sayable), changeable })
            }
            ExprKind::BinaryApp { op: BinaryOp::GetTag, arg2, .. } => {
                let claim = self.operand(arg2)?.value?;
                Some(Operand { name: Some(format!("the workload's claim {claim}")), value: None, changeable: false })
            }
            ExprKind::ExtensionFunctionApp { args, .. } => match args.as_slice() {
                [only] if matches!(only.expr_kind(), ExprKind::Lit(_)) => self.operand(only),
                _ => None,
            },
            ExprKind::Lit(_) | ExprKind::Set(_)
                if !expr.subexpressions().any(|part| matches!(part.expr_kind(), ExprKind::Var(_))) =>
            {
                Some(Operand { name: None, value: Some(value?), changeable: false })
            }
            _ => None,
        }
    }
}

const EQUAL: [&str; 2] = ["be", "be"];
const UNEQUAL: [&str; 2] = ["not be", "not be"];
const BELOW: [&str; 2] = ["be below", "be above"];
const AT_MOST: [&str; 2] = ["be at most", "be at least"];
const ABOVE: [&str; 2] = ["be above", "be below"];
const AT_LEAST: [&str; 2] = ["be at least", "be at most"];

/// One side of a comparison.
struct Operand {
    /// What it is called; literals have no name.
    name: Option<String>,
    /// What it is now, if that may be said.
    value: Option<String>,
    /// The caller chose it for this request.
    changeable: bool,
}

impl Operand {
    fn told(&self) -> Option<String> {
        match (&self.name, &self.value) {
            (Some(name), Some(value)) => Some(format!("{value} ({name})")),
            (Some(name), None) => Some(name.clone()),
            (None, value) => value.clone(),
        }
    }

    /// As a part of a sum or product.
    fn part(&self, expr: &Expr) -> Option<String> {
        let part = self.name.as_ref().or(self.value.as_ref())?;
        let nested = matches!(expr.expr_kind(), ExprKind::BinaryApp { op, .. } if *op != BinaryOp::GetTag);
        Some(if nested { format!("({part})") } else { part.clone() })
    }
}

enum Root {
    Input,
    Facts,
    Task,
    Resource,
    Credential,
}

/// `context.input.a.b` as its root and the names below.
fn path(expr: &Expr) -> Option<(Root, Vec<&str>)> {
    fn names<'a>(expr: &'a Expr, below: &mut Vec<&'a str>) -> Option<Var> {
        match expr.expr_kind() {
            ExprKind::GetAttr { expr, attr } => {
                let var = names(expr, below)?;
                below.push(attr);
                Some(var)
            }
            ExprKind::Var(var) => Some(*var),
            _ => None,
        }
    }
    let mut below = Vec::new();
    let root = match names(expr, &mut below)? {
        Var::Principal => Root::Task,
        Var::Resource => Root::Resource,
        Var::Action => return None,
        Var::Context => match (!below.is_empty()).then(|| below.remove(0))? {
            "input" => Root::Input,
            "facts" => Root::Facts,
            own @ (crate::schema::LIFETIME | crate::schema::SECRET) => return Some((Root::Credential, vec![own])),
            _ => return None,
        },
    };
    Some((root, below))
}

/// What a rule's author says about it.
fn said(rule: &Rule) -> Option<String> {
    let texts = ["reason", "hint"].into_iter().filter_map(|name| rule.info.annotations.get(name));
    let texts: Vec<String> = texts.map(|text| text.chars().take(ANNOTATION_CHARS_MAX).collect()).collect();
    (!texts.is_empty()).then(|| texts.join("; "))
}

fn ids(rules: &[&Rule]) -> String {
    let shown: Vec<_> = rules.iter().take(SPELLED_MAX).map(|rule| format!("`{}`", rule.info.id)).collect();
    let more = rules.len().saturating_sub(SPELLED_MAX);
    if more == 0 { shown.join(" and ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// Whose attributes `resource` has in policies about this operation.
pub(crate) fn resource(operation: &Operation<'_>) -> &'static str {
    match operation {
        Operation::IssueCredential { .. } => "credential's",
        Operation::SendHttp { .. } => "route's",
        Operation::OpenTask | Operation::RenewTask => "agent's",
        Operation::CallTool { .. } | Operation::ReadResource { .. } | Operation::GetPrompt { .. } | Operation::Answer { .. } => {
            "tool's"
        }
    }
}

/// What the operation is, without its arguments. A resource's URI is an argument.
fn what(operation: &Operation<'_>) -> String {
    match operation {
        Operation::OpenTask => "opening the task".to_owned(),
        Operation::RenewTask => "renewing the task".to_owned(),
        Operation::CallTool { upstream, tool, .. } => format!("`{upstream}/{tool}`"),
        Operation::ReadResource { upstream, .. } => format!("reading this resource of `{upstream}`"),
        Operation::GetPrompt { upstream, .. } => format!("getting this prompt of `{upstream}`"),
        Operation::Answer { upstream, .. } => format!("answering a question of `{upstream}`"),
        Operation::IssueCredential { target, offer, .. } => format!("the credential `{target}/{offer}`"),
        Operation::SendHttp { target, offer, .. } => format!("the request `{target}/{offer}`"),
    }
}
