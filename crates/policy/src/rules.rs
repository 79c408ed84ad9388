//! `*.cedar`: policies parsed, named by their `@id`, validated in strict mode, and linted. Owns what Writ demands of
//! a policy beyond Cedar's own rules.

use crate::Diagnostic;
use crate::catalog::{Kind, kind};
use crate::check::Checker;
use crate::nesting;
use crate::request::RuleInfo;
use crate::source::{SourceFile, Sources};
use cedar_policy::{PolicyId, PolicySet, Schema};
use cedar_policy_core::ast::{EntityReference, Expr, ExprKind, Policy as Ast, PrincipalOrResourceConstraint as Scope};
use cedar_policy_core::parser::Loc;
use cedar_policy_core::validator::ValidationError;
use domain::{Effect, OwnerId};
use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

/// Longest `@id`.
const ID_BYTES_MAX: usize = 128;
/// Deepest nesting of a condition: what walks it uses the stack of a request.
const DEPTH_MAX: usize = 400;
/// The annotation that names who may approve.
const APPROVERS: &str = "approvers";

/// One policy, ready to be evaluated.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) info: RuleInfo,
    pub(crate) ast: Ast,
    /// What is left to evaluate in an environment of the index: the clauses, and the scope where it says more than the
    /// index has settled.
    pub(crate) condition: Expr,
    /// Who may approve, by the policy's own word.
    pub(crate) approvers: Vec<OwnerId>,
    pub(crate) mentions: Mentions,
}

/// Which facts a policy names anywhere. A fact that no applicable policy names need not be built: should one ask for
/// it all the same, its evaluation errs, and that denies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mentions {
    pub(crate) approved: bool,
    pub(crate) now: bool,
    pub(crate) workload: bool,
}

impl Mentions {
    fn of(condition: &Expr) -> Self {
        let mut found = Self::default();
        let mut name = |name: &str| match name {
            "approved" => found.approved = true,
            "now" => found.now = true,
            "workload" => found.workload = true,
            _ => {}
        };
        for part in condition.subexpressions() {
            match part.expr_kind() {
                ExprKind::GetAttr { attr, .. } | ExprKind::HasAttr { attr, .. } => name(attr),
                ExprKind::ExtHasAttr { attrs, .. } => attrs.iter().for_each(|attr| name(attr)),
                ExprKind::Record(members) => members.keys().for_each(|member| name(member)),
                _ => {}
            }
        }
        found
    }

    pub(crate) fn joined(self, other: Self) -> Self {
        Self { approved: self.approved || other.approved, now: self.now || other.now, workload: self.workload || other.workload }
    }
}

/// Reads every policy, validated against `schema` if there is one. The rules come sorted by id.
pub(crate) fn read(sources: &Sources, schema: Option<&Schema>, found: &mut Vec<Diagnostic>) -> Vec<Rule> {
    nesting::with_room(|| read_all(sources, schema, found))
}

fn read_all(sources: &Sources, schema: Option<&Schema>, found: &mut Vec<Diagnostic>) -> Vec<Rule> {
    let checker = schema.map(Checker::new);
    let mut rules: BTreeMap<String, Rule> = BTreeMap::new();
    for file in sources.files.iter().filter(|file| kind(&file.path) == Kind::Cedar) {
        let reader = Reader { file };
        let Some(set) = reader.parse(found) else { continue };
        let mut policies: Vec<_> = set.policies().collect();
        policies.sort_by_key(|policy| policy.as_ref().loc().map_or(0, Loc::start));
        let (mut line, mut counted) = (1, 0);
        for policy in policies {
            let start = policy.as_ref().loc().map_or(counted, Loc::start);
            line += file.text.get(counted..start).unwrap_or_default().matches('\n').count();
            counted = start;
            let Some(rule) = reader.rule(policy, line, found) else { continue };
            if let Some(other) = rules.get(&rule.info.id) {
                let message = format!("policy `{}` is also in `{}` on line {}", rule.info.id, other.info.path, other.info.line);
                found.push(reader.at(rule.ast.loc(), message).help("give each policy its own `@id`"));
                continue;
            }
            if let Some(checker) = &checker {
                reader.validate(checker, &rule, found);
            }
            rules.insert(rule.info.id.clone(), rule);
        }
    }
    rules.into_values().collect()
}

struct Reader<'a> {
    file: &'a SourceFile,
}

impl Reader<'_> {
    fn parse(&self, found: &mut Vec<Diagnostic>) -> Option<PolicySet> {
        if let Err(deep) = nesting::check(&self.file.text) {
            let found_there = Diagnostic::at(&self.file.path, &self.file.text, deep.at..deep.at + 1, deep.message);
            found.push(found_there.help("split it into several policies; a long list of values may stay as it is"));
            return None;
        }
        match PolicySet::from_str(&self.file.text) {
            Ok(set) => {
                for template in set.templates() {
                    let span = template.as_ref().loc().map_or(0..0, |loc| loc.start()..loc.end());
                    let message = "templates are not used here";
                    let help = "write the policy without `?principal` and `?resource`: an intent's parameters do that job";
                    found.push(Diagnostic::at(&self.file.path, &self.file.text, span, message).help(help));
                }
                Some(set)
            }
            Err(errors) => {
                found.extend(errors.iter().map(|error| self.translate(error)));
                None
            }
        }
    }

    fn rule(&self, policy: &cedar_policy::Policy, line: usize, found: &mut Vec<Diagnostic>) -> Option<Rule> {
        let Some(id) = policy.annotation("id") else {
            let help = "write `@id(\"what-it-says\")` above it: decisions and the log name policies by their id";
            found.push(self.at(policy.as_ref().loc(), "the policy has no `@id`").help(help));
            return None;
        };
        let printable = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(printable) {
            let message = format!("`{}` cannot be the id of a policy", crate::lock::shown(id));
            found.push(
                self.at(policy.as_ref().loc(), message)
                    .help(format!("use 1 to {ID_BYTES_MAX} of letters, digits, `-`, `_`, `.`, `/` and `:`")),
            );
            return None;
        }
        let annotations =
            policy.annotations().filter(|(name, _)| *name != "id").map(|(name, text)| (name.to_owned(), text.to_owned()));
        let annotations: BTreeMap<String, String> = annotations.collect();
        let ast: Ast = policy.new_id(PolicyId::new(id)).as_ref().clone();
        let whole = ast.condition();
        if too_deep(&whole) {
            let message = format!("the condition of policy `{id}` is nested deeper than {DEPTH_MAX}");
            found.push(
                self.at(policy.as_ref().loc(), message)
                    .help("split it into several policies, or compare with a set: `[..].contains(x)`"),
            );
            return None;
        }
        let mentions = Mentions::of(&whole);
        let condition =
            if settled(&ast) { ast.non_scope_constraints().cloned().unwrap_or_else(|| Expr::val(true)) } else { whole };
        let approvers = self.approvers(policy, annotations.get(APPROVERS), mentions, found)?;
        let effect = match policy.effect() {
            cedar_policy::Effect::Permit => Effect::Permit,
            cedar_policy::Effect::Forbid => Effect::Forbid,
        };
        let info = RuleInfo { id: id.to_owned(), effect, annotations, path: self.file.path.clone(), line };
        Some(Rule { info, ast, condition, approvers, mentions })
    }

    fn approvers(
        &self,
        policy: &cedar_policy::Policy,
        annotation: Option<&String>,
        mentions: Mentions,
        found: &mut Vec<Diagnostic>,
    ) -> Option<Vec<OwnerId>> {
        let Some(annotation) = annotation else { return Some(Vec::new()) };
        if !mentions.approved {
            let message = "the policy names approvers but does not ask for an approval";
            found.push(
                self.at(policy.as_ref().loc(), message).help("make its condition depend on `context.facts.approved`").warning(),
            );
        }
        match annotation.split(',').map(|name| name.trim().parse()).collect::<Result<Vec<_>, _>>() {
            Ok(approvers) => Some(approvers),
            Err(error) => {
                let help = "list names of owners: `@approvers(\"support-leads, finance\")`";
                found.push(self.at(policy.as_ref().loc(), format!("`@approvers`: {error}")).help(help));
                None
            }
        }
    }

    fn validate(&self, checker: &Checker<'_>, rule: &Rule, found: &mut Vec<Diagnostic>) {
        let checked = checker.check(rule);
        let (id, errors) = (&rule.info.id, checked.errors.len());
        for error in &checked.errors {
            let mut diagnostic = self.translate(error);
            let written = diagnostic.bytes().and_then(|bytes| self.file.text.get(bytes));
            match error {
                ValidationError::UnrecognizedActionId(_) => {
                    diagnostic.help = written.and_then(|written| checker.meant_action(written)).or(diagnostic.help);
                }
                ValidationError::UnsafeOptionalAttributeAccess(_) => {
                    diagnostic.help = diagnostic.help.as_deref().and_then(guarded).or(diagnostic.help);
                }
                ValidationError::UnexpectedType(_) if diagnostic.message.contains(RECORD) => {
                    diagnostic.message = diagnostic.message.replace(ENTITY, "an entity").replace(RECORD, "a record");
                    if written.is_some_and(|written| written.starts_with('!')) {
                        let help = "`!` binds closer than `has` and `.`: write `!(… has …)`, with the brackets";
                        diagnostic.help = Some(help.to_owned());
                    }
                }
                ValidationError::IncompatibleTypes(_)
                | ValidationError::UnexpectedType(_)
                | ValidationError::NonLitExtConstructor(_)
                    if diagnostic.message.contains("decimal")
                        || written.is_some_and(|written| written.starts_with("decimal")) =>
                {
                    diagnostic.help = Some(NUMBERS.to_owned());
                }
                _ => {}
            }
            found.push(diagnostic);
        }
        found.extend(checked.warnings.iter().map(|warning| self.translate(warning).warning()));
        for absent in checked.absent {
            let message = format!("for policy `{id}`, `has` looks for `{}`, which no request could have", absent.name);
            let found_there = self.at(Some(&absent.at), message).warning();
            found.push(match absent.help {
                Some(help) => found_there.help(help),
                None => found_there,
            });
        }
        for entity in &checked.foreign {
            let help = "a request carries its own task, agent, tool and workload, and nothing of other entities";
            let message = format!("for policy `{id}`, attributes of an entity that is named here are unknown");
            found.push(self.at(entity.source_loc().or(rule.ast.loc()), message).help(help));
        }
        let whole = |message: String| self.at(rule.ast.loc(), message);
        if checked.nowhere && errors == 0 {
            // INVARIANT(reach-is-visible): a policy outside every intent's reach is a mistake, not a remark.
            let message = format!("policy `{id}` applies to nothing: no intent in its scope reaches what its scope names");
            found.push(whole(message).help("add the upstream to the intent's `reach`, or mend the scope"));
        } else if checked.impossible && errors == 0 {
            let message = format!("policy `{id}` can never hold: its condition is false for every request");
            found.push(whole(message).warning());
        }
    }

    fn at(&self, place: Option<&Loc>, message: impl Into<String>) -> Diagnostic {
        let span: Range<usize> = place.map_or(0..0, |loc| loc.start()..loc.end());
        Diagnostic::at(&self.file.path, &self.file.text, span, message)
    }

    /// Cedar's own message with its place and help.
    fn translate(&self, error: &dyn miette::Diagnostic) -> Diagnostic {
        let label = error.labels().and_then(|mut labels| labels.next());
        let mut message = error.to_string();
        if let Some(label) = label.as_ref().and_then(|label| label.label()).filter(|label| !message.contains(label)) {
            message = format!("{message} ({label})");
        }
        let span = label.map_or(0..0, |label| label.offset()..label.offset() + label.len());
        let diagnostic = Diagnostic::at(&self.file.path, &self.file.text, span, message);
        match error.help() {
            Some(help) => diagnostic.help(help.to_string()),
            None => diagnostic,
        }
    }
}

/// Cedar's own names for what may have attributes.
const ENTITY: &str = "__cedar::internal::AnyEntity";
const RECORD: &str = "__cedar::internal::OpenRecord{}";

/// What can be done with an argument that need not be whole.
const NUMBERS: &str = "an argument of type `number` is a `decimal`, which no parameter of a task can be: compare it with \
     constants, as `context.input.x.lessThanOrEqual(decimal(\"5.0\"))`; to compare it with a parameter by `==`, make both text, by \
     `numbers = \"text\"` for the tool in tools/*.toml and `type = \"string\"` for the parameter (docs/policy.md, \"Arguments\")";

/// How to ask for what may be absent. Cedar names the test; which ways of testing its checker follows, and what each says of a
/// request without it, is what a person must know.
fn guarded(help: &str) -> Option<String> {
    let test = help.split('`').nth(1)?.strip_suffix(" && ..")?;
    Some(format!(
        "it may be absent: `{test} && …` is false then, `if {test} then … else true` is true; the checker follows these two \
         ways, not `!({test}) || …`"
    ))
}

/// Whether being in an environment of the index already means that the scope holds: it names types, actions, and at
/// most the one resource.
fn settled(ast: &Ast) -> bool {
    let principal = matches!(ast.principal_constraint().as_inner(), Scope::Any | Scope::Is(_));
    let resource =
        matches!(ast.resource_constraint().as_inner(), Scope::Any | Scope::Is(_) | Scope::Eq(EntityReference::EUID(_)));
    principal && resource
}

/// Whether the expression is nested deeper than [`DEPTH_MAX`]; itself without recursion.
fn too_deep(expr: &Expr) -> bool {
    let mut open = vec![(expr, 0)];
    while let Some((expr, depth)) = open.pop() {
        if depth > DEPTH_MAX {
            return true;
        }
        let mut push = |part| open.push((part, depth + 1));
        match expr.expr_kind() {
            ExprKind::And { left, right } | ExprKind::Or { left, right } => [left, right].into_iter().for_each(|part| push(part)),
            ExprKind::If { test_expr, then_expr, else_expr } => {
                [test_expr, then_expr, else_expr].into_iter().for_each(|part| push(part));
            }
            ExprKind::BinaryApp { arg1, arg2, .. } => [arg1, arg2].into_iter().for_each(|part| push(part)),
            ExprKind::UnaryApp { arg, .. } => push(arg),
            ExprKind::GetAttr { expr, .. }
            | ExprKind::HasAttr { expr, .. }
            | ExprKind::ExtHasAttr { expr, .. }
            | ExprKind::Like { expr, .. }
            | ExprKind::Is { expr, .. } => push(expr),
            ExprKind::ExtensionFunctionApp { args, .. } | ExprKind::Set(args) => args.iter().for_each(push),
            ExprKind::Record(members) => members.values().for_each(push),
            ExprKind::Lit(_) | ExprKind::Var(_) | ExprKind::Slot(_) | ExprKind::Unknown(_) => {}
        }
    }
    false
}

/// The parts of a policy's clauses that must all hold (`a && b && !c`), in order.
pub(crate) fn conjuncts(rule: &Rule) -> Vec<&Expr> {
    fn split<'a>(expr: &'a Expr, parts: &mut Vec<&'a Expr>) {
        match expr.expr_kind() {
            ExprKind::And { left, right } => {
                split(left, parts);
                split(right, parts);
            }
            _ => parts.push(expr),
        }
    }
    let mut parts = Vec::new();
    if let Some(body) = rule.ast.non_scope_constraints_arc().map(Arc::as_ref) {
        split(body, &mut parts);
    }
    parts
}
