//! Which policies apply where, found once at compile time: for each pair of intent and action the few policies whose
//! scope can match. Cedar looks at every policy on each request; with this, 10,000 policies cost what the applicable
//! ones cost. Owns the proof obligation that nothing applicable is left out (`oracle.rs` compares with Cedar's
//! own authorizer over the full set).

use crate::catalog::{Catalog, ToolEntry, UpstreamEntry};
use crate::rules::{Mentions, Rule};
use crate::schema::{OPEN, PROMPT, READ, RENEW, offered_type, task_type};
use crate::shape::{Member, Members, Shape};
use crate::targets::{TargetEntry, members};
use cedar_policy_core::ast::{
    ActionConstraint, Eid, Entity, EntityReference, EntityType, EntityUID, PartialValue, PrincipalOrResourceConstraint as Scope,
    Value,
};
use domain::{Effect, IntentName, Offer, OfferName, Operation, TargetName, ToolName, ToolTraits, UpstreamName};
use smol_str::SmolStr;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// The policies that can apply to one kind of request, by their place in the sorted list of rules.
#[derive(Debug, Default)]
pub(crate) struct Env {
    rules: Vec<u32>,
    /// Those that name the one agent that they are about (`resource == Writ::Agent::"…"`, task actions only).
    by_agent: HashMap<SmolStr, Vec<u32>>,
    /// Facts that any of them mentions.
    pub(crate) mentions: Mentions,
}

impl Env {
    /// The rules to evaluate when the request's resource has this identifier, in the order of their ids.
    pub(crate) fn rules<'a>(&'a self, rules: &'a [Rule], resource: &str) -> impl Iterator<Item = &'a Rule> {
        let mut general = self.rules.iter().peekable();
        let mut own = self.by_agent.get(resource).into_iter().flatten().peekable();
        std::iter::from_fn(move || match (general.peek(), own.peek()) {
            (Some(a), Some(b)) if a <= b => general.next(),
            (_, Some(_)) => own.next(),
            (_, None) => general.next(),
        })
        .filter_map(|place| rules.get(*place as usize))
    }
}

/// What an action needs beside its policies: shared by all intents that reach it.
#[derive(Debug)]
pub(crate) struct Governed {
    pub(crate) action: Arc<EntityUID>,
    /// The tool entity; `None` for task actions, whose resource is the agent.
    pub(crate) resource: Option<(Arc<EntityUID>, Arc<Entity>)>,
    pub(crate) members: Members,
}

/// One kind of request of one intent.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) governed: Arc<Governed>,
    pub(crate) env: Arc<Env>,
}

/// Everything that one intent may ask for.
#[derive(Debug)]
pub(crate) struct IntentTargets {
    pub(crate) task_type: EntityType,
    open: Target,
    renew: Target,
    upstreams: HashMap<UpstreamName, UpstreamTargets>,
    offers: HashMap<TargetName, OfferTargets>,
}

#[derive(Debug)]
struct OfferTargets {
    http: bool,
    offers: HashMap<OfferName, Target>,
}

#[derive(Debug)]
struct UpstreamTargets {
    tools: HashMap<ToolName, Target>,
    read: Target,
    prompt: Target,
}

/// Why there is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nowhere {
    OutOfReach,
    Unavailable,
}

impl IntentTargets {
    pub(crate) fn find(&self, operation: &Operation<'_>) -> Result<&Target, Nowhere> {
        let within = |upstream: &UpstreamName| self.upstreams.get(upstream).ok_or(Nowhere::OutOfReach);
        match operation {
            Operation::OpenTask => Ok(&self.open),
            Operation::RenewTask => Ok(&self.renew),
            Operation::CallTool { upstream, tool, .. } => within(upstream)?.tools.get(*tool).ok_or(Nowhere::Unavailable),
            Operation::ReadResource { upstream, .. } => Ok(&within(upstream)?.read),
            Operation::GetPrompt { upstream, .. } => Ok(&within(upstream)?.prompt),
            // It has no action of its own: that the upstream is within reach is all that is asked here.
            Operation::Answer { upstream, .. } => Ok(&within(upstream)?.read),
            Operation::IssueCredential { target, offer, .. } => self.offered(target, offer, false),
            Operation::SendHttp { target, offer, .. } => self.offered(target, offer, true),
        }
    }

    fn offered(&self, target: &TargetName, offer: &OfferName, http: bool) -> Result<&Target, Nowhere> {
        let known = self.offers.get(target).ok_or(Nowhere::OutOfReach)?;
        match known.offers.get(offer) {
            Some(found) if known.http == http => Ok(found),
            _ => Err(Nowhere::Unavailable),
        }
    }
}

/// The index over all intents.
pub(crate) type Index = HashMap<IntentName, IntentTargets>;

/// A name that the schema generator made does not parse: never seen, and no reason to panic.
#[derive(Debug, thiserror::Error)]
#[error("the name `{0}` cannot be used in policies")]
pub(crate) struct BadName(String);

/// Builds the index.
///
/// # Errors
/// If a generated name is not a Cedar name.
pub(crate) fn build(catalog: &Catalog, rules: &[Rule]) -> Result<Index, BadName> {
    let builder = Builder::new(rules);
    let open = Arc::new(governed("Writ::Action", OPEN, None, Members::new())?);
    let renew = Arc::new(governed("Writ::Action", RENEW, None, Members::new())?);
    let upstreams: Result<HashMap<_, _>, BadName> =
        catalog.upstreams.iter().map(|(name, entry)| Ok((name.clone(), actions(name, entry)?))).collect();
    let upstreams = upstreams?;
    let offers: Result<HashMap<_, _>, BadName> =
        catalog.targets.iter().map(|(name, entry)| Ok((name, offers_of(entry)?))).collect();
    let offers = offers?;
    let mut envs = HashMap::new();
    let mut index = Index::new();
    for (name, intent) in &catalog.intents {
        let task_type = entity_type(&task_type(intent))?;
        let mut target = |governed: &Arc<Governed>| Target {
            governed: Arc::clone(governed),
            env: builder.env(&task_type, governed, &mut envs),
        };
        let reach = intent.reach.iter().filter_map(|upstream| Some((upstream.clone(), upstreams.get(upstream)?)));
        let reach = reach
            .map(|(upstream, actions)| {
                let tools = actions.tools.iter().map(|(tool, governed)| (tool.clone(), target(governed))).collect();
                (upstream, UpstreamTargets { tools, read: target(&actions.read), prompt: target(&actions.prompt) })
            })
            .collect();
        let reached = intent.targets.iter().filter_map(|name| Some((name.clone(), offers.get(name)?)));
        let reached = reached
            .map(|(name, known)| {
                let offers = known.offers.iter().map(|(offer, governed)| (offer.clone(), target(governed))).collect();
                (name, OfferTargets { http: known.http, offers })
            })
            .collect();
        let (open, renew) = (target(&open), target(&renew));
        index.insert(name.clone(), IntentTargets { task_type, open, renew, upstreams: reach, offers: reached });
    }
    Ok(index)
}

struct Actions {
    tools: BTreeMap<ToolName, Arc<Governed>>,
    read: Arc<Governed>,
    prompt: Arc<Governed>,
}

struct Offers {
    http: bool,
    offers: BTreeMap<OfferName, Arc<Governed>>,
}

fn offers_of(entry: &TargetEntry) -> Result<Offers, BadName> {
    let kind = format!("{}::Action", entry.namespace);
    let one = |offer: &Offer| {
        governed(&kind, offer.name.as_str(), Some(offer_entity(entry, offer)?), members(&offer.params)).map(Arc::new)
    };
    let offers = entry.offers.offers.values().map(|offer| Ok((offer.name.clone(), one(offer)?)));
    Ok(Offers { http: entry.offers.is_http(), offers: offers.collect::<Result<_, BadName>>()? })
}

/// `Writ::Credential::"orders-db/read_orders"` or `Writ::Route::"billing/charge"`.
fn offer_entity(entry: &TargetEntry, offer: &Offer) -> Result<(Arc<EntityUID>, Arc<Entity>), BadName> {
    let target = &entry.offers;
    let uid = uid(&entity_type(offered_type(target.is_http()))?, &format!("{}/{}", target.name, offer.name));
    let attributes: [(&'static str, Value); 6] = [
        ("kind", target.kind.as_str().into()),
        ("offer", offer.name.as_str().into()),
        ("sensitivity", offer.traits.reading.sensitivity.level().into()),
        ("sink", offer.traits.sink.as_str().into()),
        ("target", target.name.as_str().into()),
        ("untrusted", offer.traits.reading.untrusted.into()),
    ];
    Ok((Arc::new(uid.clone()), Arc::new(entity(uid, attributes, []))))
}

fn actions(name: &UpstreamName, entry: &UpstreamEntry) -> Result<Actions, BadName> {
    let kind = format!("{}::Action", entry.namespace);
    let text = || Member { shape: Shape::Text, required: true, nullable: false };
    let tool = |tool: &ToolEntry| {
        let resource = tool_entity(name, tool.approved.name.as_str(), &tool.approved.traits)?;
        governed(&kind, tool.approved.name.as_str(), Some(resource), tool.members.clone()).map(Arc::new)
    };
    let own = |action: &str, traits: &ToolTraits, members: &[&'static str]| {
        let members = members.iter().map(|member| (SmolStr::new_static(member), text())).collect();
        governed(&kind, action, Some(tool_entity(name, action, traits)?), members).map(Arc::new)
    };
    Ok(Actions {
        tools: entry.tools.iter().map(|(name, entry)| Ok((name.clone(), tool(entry)?))).collect::<Result<_, BadName>>()?,
        read: own(READ, &entry.resources, &["uri"])?,
        prompt: own(PROMPT, &entry.prompts, &["name", "arguments"])?,
    })
}

fn governed(
    kind: &str,
    action: &str,
    resource: Option<(Arc<EntityUID>, Arc<Entity>)>,
    members: Members,
) -> Result<Governed, BadName> {
    Ok(Governed { action: Arc::new(uid(&entity_type(kind)?, action)), resource, members })
}

/// `Writ::Tool::"orders/refund"`: a `/` cannot be in an upstream's name, so no two tools share an identifier.
fn tool_entity(upstream: &UpstreamName, tool: &str, traits: &ToolTraits) -> Result<(Arc<EntityUID>, Arc<Entity>), BadName> {
    let uid = uid(&entity_type("Writ::Tool")?, &format!("{upstream}/{tool}"));
    let attributes: [(&'static str, Value); 5] = [
        ("name", tool.into()),
        ("sensitivity", traits.reading.sensitivity.level().into()),
        ("sink", traits.sink.as_str().into()),
        ("untrusted", traits.reading.untrusted.into()),
        ("upstream", upstream.as_str().into()),
    ];
    Ok((Arc::new(uid.clone()), Arc::new(entity(uid, attributes, []))))
}

/// An entity without ancestors.
pub(crate) fn entity(
    uid: EntityUID,
    attributes: impl IntoIterator<Item = (impl Into<SmolStr>, Value)>,
    tags: impl IntoIterator<Item = (SmolStr, Value)>,
) -> Entity {
    let attributes = attributes.into_iter().map(|(name, value)| (name.into(), PartialValue::Value(value)));
    let tags = tags.into_iter().map(|(name, value)| (name, PartialValue::Value(value)));
    Entity::new_with_attr_partial_value(uid, attributes, HashSet::new(), HashSet::new(), tags)
}

/// The Cedar entity type of this name.
pub(crate) fn entity_type(name: &str) -> Result<EntityType, BadName> {
    name.parse().map_err(|_| BadName(name.to_owned()))
}

pub(crate) fn uid(kind: &EntityType, eid: &str) -> EntityUID {
    EntityUID::from_components(kind.clone(), Eid::new(eid), None)
}

/// The rules sorted into buckets by what their scope names.
struct Builder<'a> {
    rules: &'a [Rule],
    any: Vec<u32>,
    by_task: HashMap<EntityType, Vec<u32>>,
    by_action: HashMap<EntityUID, Vec<u32>>,
    by_both: HashMap<(EntityType, EntityUID), Vec<u32>>,
}

type Envs = HashMap<Vec<u32>, Arc<Env>>;

impl<'a> Builder<'a> {
    fn new(rules: &'a [Rule]) -> Self {
        let mut builder =
            Self { rules, any: Vec::new(), by_task: HashMap::new(), by_action: HashMap::new(), by_both: HashMap::new() };
        for (place, rule) in (0_u32..).zip(rules) {
            let task = one_type(rule.ast.principal_constraint().as_inner());
            let actions: Option<HashSet<&EntityUID>> = match rule.ast.action_constraint() {
                ActionConstraint::Any => None,
                ActionConstraint::Eq(action) => Some(HashSet::from([action.as_ref()])),
                // There are no groups of actions in the schema: `in` a list is being one of it.
                ActionConstraint::In(actions) => Some(actions.iter().map(Arc::as_ref).collect()),
            };
            match (task, actions) {
                (None, None) => builder.any.push(place),
                (Some(task), None) => builder.by_task.entry(task).or_default().push(place),
                (None, Some(actions)) => {
                    actions.into_iter().for_each(|action| builder.by_action.entry(action.clone()).or_default().push(place));
                }
                (Some(task), Some(actions)) => actions
                    .into_iter()
                    .for_each(|action| builder.by_both.entry((task.clone(), action.clone())).or_default().push(place)),
            }
        }
        builder
    }

    /// The environment of one intent and action. Equal ones are shared: with many intents most are.
    fn env(&self, task: &EntityType, governed: &Governed, envs: &mut Envs) -> Arc<Env> {
        let action = governed.action.as_ref();
        let buckets = [
            Some(&self.any),
            self.by_task.get(task),
            self.by_action.get(action),
            self.by_both.get(&(task.clone(), action.clone())),
        ];
        let mut places: Vec<u32> = buckets.into_iter().flatten().flatten().copied().collect();
        places.retain(|place| self.rule(*place).is_some_and(|rule| self.resource_fits(rule, governed)));
        places.sort_unstable();
        Arc::clone(envs.entry(places).or_insert_with_key(|places| Arc::new(self.sort(places, governed))))
    }

    fn rule(&self, place: u32) -> Option<&'a Rule> {
        self.rules.get(place as usize)
    }

    /// Whether the rule's resource can be the one of this action.
    fn resource_fits(&self, rule: &Rule, governed: &Governed) -> bool {
        let scope = rule.ast.resource_constraint();
        let scope = scope.as_inner();
        match (&governed.resource, scope) {
            (Some((uid, _)), Scope::Eq(EntityReference::EUID(wanted))) => uid == wanted,
            (Some((uid, _)), Scope::Is(kind)) => uid.entity_type() == kind.as_ref(),
            (None, Scope::Is(kind)) => kind.to_string() == "Writ::Agent",
            (None, Scope::Eq(EntityReference::EUID(wanted))) => wanted.entity_type().to_string() == "Writ::Agent",
            _ => true,
        }
    }

    fn sort(&self, places: &[u32], governed: &Governed) -> Env {
        let mut env = Env::default();
        for place in places {
            let Some(rule) = self.rule(*place) else { continue };
            env.mentions = env.mentions.joined(rule.mentions);
            match rule.ast.resource_constraint().as_inner() {
                Scope::Eq(EntityReference::EUID(agent)) if governed.resource.is_none() => {
                    let eid: &str = agent.eid().as_ref();
                    env.by_agent.entry(eid.into()).or_default().push(*place);
                }
                _ => env.rules.push(*place),
            }
        }
        env
    }
}

/// The one principal type that the scope names; `None` if it could be any.
fn one_type(scope: &Scope) -> Option<EntityType> {
    match scope {
        Scope::Is(kind) | Scope::IsIn(kind, _) => Some(kind.as_ref().clone()),
        Scope::Eq(EntityReference::EUID(uid)) => Some(uid.entity_type().clone()),
        _ => None,
    }
}

/// Whether any of the rules permits.
pub(crate) fn has_permit<'a>(mut rules: impl Iterator<Item = &'a Rule>) -> bool {
    rules.any(|rule| rule.info.effect == Effect::Permit)
}
