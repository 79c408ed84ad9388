//! What a task could ever be allowed, whatever arguments it would send and whoever would approve: the filter of
//! listings. Hiding is never the control, so doubt shows: this may show what is later refused, and never hides what
//! could be allowed.

use crate::index::Target;
use crate::rules::Rule;
use crate::situation::{Parts, Situation, truth};
use cedar_policy_core::ast::{Expr, ExprKind, UnaryOp, Var};
use cedar_policy_core::evaluator::Evaluator;
use domain::{Agent, Effect, OwnerId, Task};

/// Whether some arguments and facts exist for which the target could be allowed.
pub(crate) fn could_allow(
    rules: &[Rule],
    target: &Target,
    parts: &Parts<'_>,
    (task, agent, owner): (&Task, &Agent, &OwnerId),
) -> bool {
    let resource: &str = match &parts.governed.resource {
        Some((uid, _)) => uid.eid().as_ref(),
        None => agent.id.as_str(),
    };
    if !crate::index::has_permit(target.env.rules(rules, resource)) {
        return false;
    }
    let Ok(situation) = Situation::bare(parts, task, agent, owner) else { return false };
    let evaluator = situation.evaluator();
    let mut permitted = false;
    for rule in target.env.rules(rules, resource) {
        match rule.info.effect {
            Effect::Permit => permitted = permitted || could_hold(&evaluator, &rule.condition),
            // A context that is not known yet has no attributes here: what `has` says of it is no answer.
            Effect::Forbid if always(&evaluator, &rule.condition) == Some(true) => return false,
            Effect::Forbid => {}
        }
    }
    permitted
}

/// Whether the condition could hold for some context.
pub(crate) fn could_hold(evaluator: &Evaluator<'_>, condition: &Expr) -> bool {
    always(evaluator, condition) != Some(false)
}

/// `Some(b)`: in every context the expression is `b`, or errs (which refuses anyway). `None`: it depends.
fn always(evaluator: &Evaluator<'_>, expr: &Expr) -> Option<bool> {
    match expr.expr_kind() {
        ExprKind::And { left, right } => match (always(evaluator, left), always(evaluator, right)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), right) => right,
            (None, _) => None,
        },
        ExprKind::Or { left, right } => match (always(evaluator, left), always(evaluator, right)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), right) => right,
            (None, _) => None,
        },
        ExprKind::If { test_expr, then_expr, else_expr } => match always(evaluator, test_expr)? {
            true => always(evaluator, then_expr),
            false => always(evaluator, else_expr),
        },
        ExprKind::UnaryApp { op: UnaryOp::Not, arg } => Some(!always(evaluator, arg)?),
        _ if mentions_context(expr) => None,
        _ => truth(evaluator, expr),
    }
}

fn mentions_context(expr: &Expr) -> bool {
    expr.subexpressions().any(|part| matches!(part.expr_kind(), ExprKind::Var(Var::Context)))
}
