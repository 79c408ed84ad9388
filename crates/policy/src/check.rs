//! Strict validation of one policy, in the environments that its scope can match and in no others. Cedar's own
//! validator walks every pair of intent and action for each policy: with many of both, that is the square. Owns the
//! choice of environments; each is typed by Cedar (`Typechecker::typecheck_by_single_request_env`).

use crate::rules::Rule;
use crate::spelling::did_you_mean;
use cedar_policy::Schema;
use cedar_policy_core::ast::{
    ActionConstraint, BinaryOp, EntityReference, EntityType, EntityUID, Expr, ExprKind, Literal,
    PrincipalOrResourceConstraint as Scope,
};
use cedar_policy_core::parser::Loc;
use cedar_policy_core::validator::typecheck::{PolicyCheck, Typechecker};
use cedar_policy_core::validator::types::{BoolType, RequestEnv, Type};
use cedar_policy_core::validator::{
    ValidationError, ValidationMode, ValidationWarning, Validator, ValidatorSchema, confusable_string_checks,
};
use smol_str::SmolStr;
use std::collections::{BTreeMap, HashMap};

/// Checks policies against one schema.
pub(crate) struct Checker<'a> {
    schema: &'a ValidatorSchema,
    typechecker: Typechecker<'a>,
    envs: HashMap<&'a EntityUID, Vec<RequestEnv<'a>>>,
}

/// What was found in one policy.
pub(crate) struct Checked<'a> {
    pub(crate) errors: Vec<ValidationError>,
    pub(crate) warnings: Vec<ValidationWarning>,
    /// Its scope matches no request that is within any reach.
    pub(crate) nowhere: bool,
    /// Its condition is false for every request.
    pub(crate) impossible: bool,
    /// Entities that it names and whose attributes it reads: no request carries them.
    pub(crate) foreign: Vec<&'a Expr>,
    /// What it looks for with `has` though no request that it applies to could have it.
    pub(crate) absent: Vec<Absent>,
}

/// An attribute that is never there.
pub(crate) struct Absent {
    pub(crate) name: String,
    pub(crate) at: Loc,
    /// What may have been meant.
    pub(crate) help: Option<String>,
}

/// Where a policy looks for which attribute, and, while no environment has it, what is there instead.
type Sought = BTreeMap<(usize, usize), Option<Absent>>;

impl<'a> Checker<'a> {
    pub(crate) fn new(schema: &'a Schema) -> Self {
        let schema: &ValidatorSchema = schema.as_ref();
        let mut envs: HashMap<_, Vec<_>> = HashMap::new();
        for env in schema.unlinked_request_envs(ValidationMode::Strict) {
            if let RequestEnv::DeclaredAction { action, .. } = &env {
                envs.entry(*action).or_default().push(env);
            }
        }
        Self { schema, typechecker: Typechecker::new(schema, ValidationMode::Strict), envs }
    }

    /// INVARIANT(all-matching-typed): an environment is left out only if the scope itself is false in it.
    pub(crate) fn check<'r>(&self, rule: &'r Rule) -> Checked<'r> {
        let template = rule.ast.template();
        let errors = Validator::validate_entity_types_and_literals(self.schema, template).collect();
        let warnings = confusable_string_checks(std::iter::once(template)).collect();
        let mut checked =
            Checked { errors, warnings, nowhere: true, impossible: true, foreign: foreign(&rule.condition), absent: Vec::new() };
        let mut sought = Sought::new();
        for env in self.envs_of(rule) {
            checked.nowhere = false;
            match self.typechecker.typecheck_by_single_request_env(template, env) {
                PolicyCheck::Success(typed) => {
                    checked.impossible = false;
                    seek(&typed, &mut sought);
                }
                PolicyCheck::Irrelevant(errors, typed) => {
                    checked.errors.extend(errors);
                    seek(&typed, &mut sought);
                }
                PolicyCheck::Fail(errors) => {
                    checked.impossible = false;
                    checked.errors.extend(errors);
                }
            }
        }
        checked.absent = sought.into_values().flatten().collect();
        checked
    }

    fn envs_of<'r>(&'r self, rule: &'r Rule) -> Box<dyn Iterator<Item = &'r RequestEnv<'a>> + 'r> {
        let (principal, resource) = (rule.ast.principal_constraint(), rule.ast.resource_constraint());
        let (principal, resource) = (principal.as_inner().clone(), resource.as_inner().clone());
        let fits = move |env: &&RequestEnv<'a>| match env {
            RequestEnv::DeclaredAction { principal: task, resource: tool, .. } => {
                can_be(&principal, task) && can_be(&resource, tool)
            }
            RequestEnv::UndeclaredAction => false,
        };
        let of = |action: &EntityUID| self.envs.get(action).into_iter().flatten();
        match rule.ast.action_constraint() {
            ActionConstraint::Any => Box::new(self.envs.values().flatten().filter(fits)),
            ActionConstraint::Eq(action) => Box::new(of(action).filter(fits)),
            // There are no groups of actions: `in` a list is being one of it.
            ActionConstraint::In(actions) => Box::new(actions.iter().flat_map(move |action| of(action)).filter(fits)),
        }
    }

    /// Cedar suggests any action that looks alike; the one of the same upstream is more likely.
    pub(crate) fn meant_action(&self, written: &str) -> Option<String> {
        let actions: Vec<_> = self.envs.keys().map(ToString::to_string).collect();
        did_you_mean(written, actions.iter().map(String::as_str))
    }
}

/// Notes for each `has` of a typed condition whether it can hold: the checker knows it to be false where there is no such
/// attribute. A name that is mistyped there is no error to Cedar, and a `forbid` that depends on it never forbids.
fn seek(typed: &Expr<Option<Type>>, sought: &mut Sought) {
    for part in typed.subexpressions() {
        let (ExprKind::HasAttr { expr, attr }, Some(at)) = (part.expr_kind(), part.source_loc()) else { continue };
        let found = sought.entry((at.start(), at.end()));
        if !matches!(part.data(), Some(Type::Bool(BoolType::False))) {
            found.and_modify(|absent| *absent = None).or_insert(None);
            continue;
        }
        found.or_insert_with(|| {
            let known: Vec<&str> = match expr.data() {
                Some(Type::Record { attrs, .. }) => attrs.keys().map(SmolStr::as_str).collect(),
                _ => Vec::new(),
            };
            Some(Absent { name: attr.to_string(), at: at.clone(), help: did_you_mean(attr, known) })
        });
    }
}

/// Whether an entity of this type can be what the scope names.
fn can_be(scope: &Scope, kind: &EntityType) -> bool {
    match scope {
        Scope::Is(wanted) | Scope::IsIn(wanted, _) => wanted.as_ref() == kind,
        Scope::Eq(EntityReference::EUID(uid)) => uid.entity_type() == kind,
        Scope::Any | Scope::Eq(EntityReference::Slot(_)) | Scope::In(_) => true,
    }
}

/// Entities written in the policy whose attributes or tags it reads.
fn foreign(condition: &Expr) -> Vec<&Expr> {
    fn named<'a>(expr: &'a Expr, found: &mut Vec<&'a Expr>) {
        match expr.expr_kind() {
            ExprKind::Lit(Literal::EntityUID(_)) => found.push(expr),
            ExprKind::If { then_expr, else_expr, .. } => {
                named(then_expr, found);
                named(else_expr, found);
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    for part in condition.subexpressions() {
        match part.expr_kind() {
            ExprKind::GetAttr { expr, .. } | ExprKind::HasAttr { expr, .. } | ExprKind::ExtHasAttr { expr, .. } => {
                named(expr, &mut found)
            }
            ExprKind::BinaryApp { op: BinaryOp::GetTag | BinaryOp::HasTag, arg1, .. } => named(arg1, &mut found),
            _ => {}
        }
    }
    found
}
