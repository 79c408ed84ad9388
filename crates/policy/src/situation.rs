//! A request as Cedar sees it: the task, its agent, the tool and the facts as entities and context, built straight
//! from typed values.
//!
//! No schema validation happens here, and none is needed: the attributes of a task are its bound parameters, whose
//! types the intent declares to the schema too (checked by `Intent::still_binds` before); arguments are typed by
//! `arguments::read` from the same signature that the schema was generated from; the rest is fixed in this file and
//! in `schema.rs`. `oracle.rs` validates random situations against the schema to keep the two together.

use crate::arguments::extension;
use crate::index::{Governed, entity, uid};
use crate::request::Request;
use crate::rules::Mentions;
use crate::schema::{LIFETIME, PROMPT, READ, SECRET};
use cedar_policy_core::ast::{
    Context, Entity, EntityType, EntityUID, EntityUIDEntry, Expr, Literal, Request as Ast, SlotEnv, Value, ValueKind,
};
use cedar_policy_core::entities::{Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use domain::{Agent, Facts, Operation, OwnerId, Task, WorkloadIdentity};
use serde_json::{Map, Value as Json};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The types that every policy folder has.
#[derive(Debug)]
pub(crate) struct Types {
    agent: EntityType,
    owner: EntityType,
    workload: EntityType,
    /// 1970-01-01T00:00:00Z as Cedar's `datetime`.
    epoch: Value,
}

impl Types {
    pub(crate) fn new() -> Option<Self> {
        let kind = |name| crate::index::entity_type(name).ok();
        let epoch = extension("datetime", &["1970-01-01".into()])?;
        Some(Self { agent: kind("Writ::Agent")?, owner: kind("Writ::Owner")?, workload: kind("Writ::Workload")?, epoch })
    }
}

/// Why a situation could not be built: nothing of it depends on arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unbuildable {
    /// The moment is outside of what Cedar can say.
    #[error("the time of the request cannot be represented")]
    Time,
    /// Two entities have one identifier.
    #[error("the entities of the request contradict each other")]
    Entities,
}

/// What policies are evaluated against.
pub(crate) struct Situation {
    principal: Arc<EntityUID>,
    action: Arc<EntityUID>,
    pub(crate) resource: Arc<EntityUID>,
    entities: Entities,
    input: Option<Value>,
    /// What the context of a credential holds beside input and facts.
    issue: Option<[Value; 2]>,
    facts: BTreeMap<SmolStr, Value>,
}

/// What is needed beside the request.
pub(crate) struct Parts<'a> {
    pub(crate) types: &'a Types,
    pub(crate) task_type: &'a EntityType,
    pub(crate) governed: &'a Governed,
    pub(crate) mentions: Mentions,
}

impl Situation {
    /// The situation of a request; `input` are its typed arguments.
    pub(crate) fn new(
        parts: &Parts<'_>,
        request: &Request<'_>,
        owner: &OwnerId,
        input: Option<Value>,
    ) -> Result<Self, Unbuildable> {
        let mut situation = Self::bare(parts, request.task, request.agent, owner)?;
        let workload = uid(&parts.types.workload, request.workload.subject.as_str());
        situation.facts = facts(parts, request.facts, &workload)?;
        if parts.mentions.workload {
            let posture = posture(workload, request.workload);
            situation.entities = add(situation.entities, [Arc::new(posture)])?;
        }
        situation.input = input;
        if let Operation::IssueCredential { lifetime_secs, secret, .. } = request.operation {
            situation.issue = Some([count(lifetime_secs), secret.as_str().into()]);
        }
        Ok(situation)
    }

    /// The situation without arguments and facts: what a listing can know.
    pub(crate) fn bare(parts: &Parts<'_>, task: &Task, agent: &Agent, owner: &OwnerId) -> Result<Self, Unbuildable> {
        let agent_uid = uid(&parts.types.agent, agent.id.as_str());
        let principal = uid(parts.task_type, &task.id.to_string());
        let params = task.params.0.iter().map(|(name, value)| (SmolStr::from(name), param(value)));
        let agent_value = Value::from(agent_uid.clone());
        let task = entity(principal.clone(), params.chain([(SmolStr::new_static(crate::intents::AGENT), agent_value)]), []);
        let attributes = [("name", agent.id.as_str().into()), ("owner", uid(&parts.types.owner, owner.as_str()).into())];
        let agent = entity(agent_uid.clone(), attributes, []);
        let (resource, tool) = match &parts.governed.resource {
            Some((uid, tool)) => (Arc::clone(uid), Some(Arc::clone(tool))),
            None => (Arc::new(agent_uid), None),
        };
        let entities = add(Entities::new(), [Arc::new(task), Arc::new(agent)].into_iter().chain(tool))?;
        let action = Arc::clone(&parts.governed.action);
        Ok(Self { principal: Arc::new(principal), action, resource, entities, input: None, issue: None, facts: BTreeMap::new() })
    }

    /// The request in Cedar's words.
    pub(crate) fn request(&self) -> Ast {
        self.with(self.facts.clone())
    }

    fn with(&self, facts: BTreeMap<SmolStr, Value>) -> Ast {
        let mut context = BTreeMap::new();
        context.insert(SmolStr::new_static("facts"), Value::record_arc(Arc::new(facts), None));
        if let Some(input) = &self.input {
            context.insert(SmolStr::new_static("input"), input.clone());
        }
        if let Some([lifetime, secret]) = &self.issue {
            context.insert(SmolStr::new_static(LIFETIME), lifetime.clone());
            context.insert(SmolStr::new_static(SECRET), secret.clone());
        }
        let known = |uid: &Arc<EntityUID>| EntityUIDEntry::Known { euid: Arc::clone(uid), loc: None };
        let context = Context::Value(Arc::new(context));
        Ast::new_unchecked(known(&self.principal), known(&self.action), known(&self.resource), Some(context))
    }

    #[cfg(test)]
    pub(crate) fn entities(&self) -> &Entities {
        &self.entities
    }

    /// Evaluates expressions in this situation.
    pub(crate) fn evaluator(&self) -> Evaluator<'_> {
        Evaluator::new(self.request(), &self.entities, Extensions::all_available())
    }

    /// The same as if a human had approved the request.
    pub(crate) fn evaluator_if_approved(&self) -> Evaluator<'_> {
        let mut facts = self.facts.clone();
        facts.insert(SmolStr::new_static("approved"), true.into());
        Evaluator::new(self.with(facts), &self.entities, Extensions::all_available())
    }
}

/// Whether the expression is true or false here; `None` if it cannot be evaluated (or is neither).
pub(crate) fn truth(evaluator: &Evaluator<'_>, expr: &Expr) -> Option<bool> {
    match evaluator.interpret(expr, &SlotEnv::new()).ok()?.value_kind() {
        ValueKind::Lit(Literal::Bool(truth)) => Some(*truth),
        _ => None,
    }
}

/// Entities have no ancestors here, so that there is no closure to compute.
fn add(entities: Entities, more: impl IntoIterator<Item = Arc<Entity>>) -> Result<Entities, Unbuildable> {
    let closed = TCComputation::AssumeAlreadyComputed;
    entities.add_entities(more, None::<&NoEntitiesSchema>, closed, Extensions::all_available()).map_err(|_| Unbuildable::Entities)
}

fn param(value: &domain::Value) -> Value {
    match value {
        domain::Value::Text(text) => text.as_str().into(),
        domain::Value::Long(number) => (*number).into(),
        domain::Value::Bool(truth) => (*truth).into(),
        domain::Value::Texts(texts) => Value::set(texts.iter().map(|text| Value::from(text.as_str())), None),
    }
}

/// Counters beyond 63 bits cannot happen; if they did, the largest number is the careful answer.
fn count(number: u64) -> Value {
    Value::from(i64::try_from(number).unwrap_or(i64::MAX))
}

fn facts(parts: &Parts<'_>, facts: &Facts, workload: &EntityUID) -> Result<BTreeMap<SmolStr, Value>, Unbuildable> {
    let mut record: BTreeMap<SmolStr, Value> = [
        ("approved", facts.approved.into()),
        ("attested_secs_ago", count(facts.attested_secs_ago)),
        ("binding", facts.binding.as_str().into()),
        ("calls_used", count(facts.calls_used)),
        ("read_sensitivity", facts.labels.read_sensitivity.level().into()),
        ("read_untrusted", facts.labels.read_untrusted.into()),
    ]
    .into_iter()
    .map(|(name, value)| (SmolStr::new_static(name), value))
    .collect();
    if parts.mentions.workload {
        record.insert(SmolStr::new_static("workload"), workload.clone().into());
    }
    if parts.mentions.now {
        let since = extension("duration", &[format!("{}ms", facts.now.millis()).into()]);
        let now = since.and_then(|since| extension("offset", &[parts.types.epoch.clone(), since]));
        record.insert(SmolStr::new_static("now"), now.ok_or(Unbuildable::Time)?);
    }
    Ok(record)
}

fn posture(uid: EntityUID, workload: &WorkloadIdentity) -> Entity {
    let attributes = [
        ("issuer", workload.issuer.as_str().into()),
        ("provider", workload.provider.as_str().into()),
        ("subject", workload.subject.as_str().into()),
    ];
    let tags = tags(workload).into_iter().map(|(name, text)| (SmolStr::from(name), Value::from(text.as_str())));
    entity(uid, attributes, tags)
}

/// The verified claims as texts: nested members joined by `/`, lists as canonical JSON, `null` as absent.
///
/// INVARIANT(one-source-per-tag): a name that two claims could mean is left out, unless one of them is a top-level
/// claim of exactly that name; so that nobody who controls one claim can pose as another.
fn tags(workload: &WorkloadIdentity) -> BTreeMap<String, String> {
    fn text(value: &Json) -> Option<String> {
        match value {
            Json::Null => None,
            Json::String(text) => Some(text.clone()),
            other => Some(domain::json::canonical(other)),
        }
    }
    fn nested(prefix: &str, members: &Map<String, Json>, out: &mut BTreeMap<String, Option<String>>) {
        for (name, value) in members {
            let path = format!("{prefix}/{name}");
            match value {
                Json::Object(inner) => nested(&path, inner, out),
                other => {
                    let text = text(other);
                    out.entry(path).and_modify(|taken| *taken = None).or_insert(text);
                }
            }
        }
    }
    let mut tags = BTreeMap::new();
    for (name, value) in &workload.claims {
        if let Json::Object(members) = value {
            nested(name, members, &mut tags);
        }
    }
    for (name, value) in workload.claims.iter().filter(|(_, value)| !value.is_object()) {
        tags.insert(name.clone(), text(value));
    }
    tags.insert("sub".to_owned(), Some(workload.subject.clone()));
    tags.into_iter().filter_map(|(name, text)| Some((name, text?))).collect()
}

/// Bound parameters as a record.
pub(crate) fn bound_input(params: &domain::Params) -> Value {
    Value::record(params.0.iter().map(|(name, value)| (SmolStr::from(name), param(value))), None)
}

/// The arguments of operations that are not tool calls, in the shape of their own actions.
pub(crate) fn own_input(action: &EntityUID, subject: &str, arguments: Option<&Map<String, Json>>) -> Option<Value> {
    let eid: &str = action.eid().as_ref();
    match eid {
        READ => Some(Value::record([("uri", Value::from(subject))], None)),
        PROMPT => {
            let text = domain::json::canonical(&Json::Object(arguments?.clone()));
            Some(Value::record([("name", Value::from(subject)), ("arguments", Value::from(text.as_str()))], None))
        }
        _ => None,
    }
}
