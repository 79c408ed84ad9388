//! The Cedar schema that Writ generates (design.md §3, `docs/policy.md`): a type for each intent, an action for each
//! approved tool of each upstream in reach. Only the pairs within reach exist, so that a policy outside of it does
//! not validate and validation stays linear. Owns the names of everything that a policy can mention.

use crate::catalog::{Catalog, UpstreamEntry};
use crate::intents::AGENT;
use crate::shape::{Members, Shape};
use crate::spelling::pascal_case;
use crate::targets::{TargetEntry, members as params};
use domain::{Intent, ParamType};
use serde_json::{Map, Value, json};

/// The action that decides whether a task is opened.
pub(crate) const OPEN: &str = "open";
/// The action that decides whether a task is renewed.
pub(crate) const RENEW: &str = "renew";
/// The action that reads a resource. No tool can take this name: `:` is outside their alphabet.
pub(crate) const READ: &str = "mcp:resources/read";
/// The action that gets a prompt.
pub(crate) const PROMPT: &str = "mcp:prompts/get";

/// In the context of a credential: how long it shall live, in seconds.
pub(crate) const LIFETIME: &str = "lifetime_secs";
/// In the context of a credential: who makes its secret.
pub(crate) const SECRET: &str = "secret";

/// The Cedar type of an intent's tasks.
pub(crate) fn task_type(intent: &Intent) -> String {
    format!("Intent::{}", pascal_case(intent.name.as_str()))
}

/// The schema in Cedar's JSON format.
pub(crate) fn generate(catalog: &Catalog) -> Value {
    let tasks: Vec<_> = catalog.intents.values().map(task_type).collect();
    let mut namespaces = Map::new();
    namespaces.insert("Writ".to_owned(), writ(&tasks));
    let types: Map<_, _> = catalog.intents.values().map(|intent| (pascal_case(intent.name.as_str()), task(intent))).collect();
    namespaces.insert("Intent".to_owned(), json!({ "entityTypes": types, "actions": {} }));
    for (name, upstream) in &catalog.upstreams {
        let tasks: Vec<_> = catalog.intents.values().filter(|intent| intent.reach.contains(name)).map(task_type).collect();
        if !tasks.is_empty() {
            namespaces.insert(upstream.namespace.clone(), actions(upstream, &tasks));
        }
    }
    for (name, target) in &catalog.targets {
        let tasks: Vec<_> = catalog.intents.values().filter(|intent| intent.targets.contains(name)).map(task_type).collect();
        if !tasks.is_empty() {
            namespaces.insert(target.namespace.clone(), offers(target, &tasks));
        }
    }
    Value::Object(namespaces)
}

fn writ(tasks: &[String]) -> Value {
    let text = json!({ "type": "String" });
    let task_action = json!({ "appliesTo": {
        "principalTypes": tasks, "resourceTypes": ["Writ::Agent"],
        "context": record([("facts", named("Writ::Facts"))]),
    }});
    let actions = if tasks.is_empty() { json!({}) } else { json!({ OPEN: task_action, RENEW: task_action }) };
    let long = json!({ "type": "Long" });
    let truth = json!({ "type": "Boolean" });
    let offered = json!({ "shape": record([
        ("kind", text.clone()),
        ("offer", text.clone()),
        ("sensitivity", long.clone()),
        ("sink", text.clone()),
        ("target", text.clone()),
        ("untrusted", truth.clone()),
    ])});
    json!({
        "commonTypes": { "Facts": record([
            ("approved", truth.clone()),
            ("attested_secs_ago", long.clone()),
            ("binding", text.clone()),
            ("calls_used", long.clone()),
            ("now", json!({ "type": "Extension", "name": "datetime" })),
            ("read_sensitivity", long.clone()),
            ("read_untrusted", truth.clone()),
            ("workload", named("Writ::Workload")),
        ])},
        "entityTypes": {
            "Owner": {},
            "Agent": { "shape": record([("name", text.clone()), ("owner", named("Writ::Owner"))]) },
            "Workload": {
                "shape": record([("issuer", text.clone()), ("provider", text.clone()), ("subject", text.clone())]),
                "tags": text,
            },
            "Tool": { "shape": record([
                ("name", text.clone()),
                ("sensitivity", long.clone()),
                ("sink", text.clone()),
                ("untrusted", truth.clone()),
                ("upstream", text.clone()),
            ])},
            "Credential": offered.clone(),
            "Route": offered,
        },
        "actions": actions,
    })
}

fn task(intent: &Intent) -> Value {
    let params = intent.params.iter().map(|(name, param)| {
        let kind = match param.kind {
            ParamType::Text => json!({ "type": "String" }),
            ParamType::Long => json!({ "type": "Long" }),
            ParamType::Bool => json!({ "type": "Boolean" }),
            ParamType::Texts => json!({ "type": "Set", "element": { "type": "String" } }),
        };
        (name.as_str(), kind)
    });
    json!({ "shape": record(params.chain([(AGENT, named("Writ::Agent"))])) })
}

fn actions(upstream: &UpstreamEntry, tasks: &[String]) -> Value {
    let action = |input: Value| {
        json!({ "appliesTo": {
            "principalTypes": tasks, "resourceTypes": ["Writ::Tool"],
            "context": record([("input", input), ("facts", named("Writ::Facts"))]),
        }})
    };
    let text = || json!({ "type": "String" });
    let tools = upstream.tools.iter().map(|(name, tool)| (name.as_str().to_owned(), action(members(&tool.members))));
    let own = [
        (READ.to_owned(), action(record([("uri", text())]))),
        (PROMPT.to_owned(), action(record([("name", text()), ("arguments", text())]))),
    ];
    json!({ "entityTypes": {}, "actions": tools.chain(own).collect::<Map<_, _>>() })
}

/// The entity type of what a target offers.
pub(crate) const fn offered_type(http: bool) -> &'static str {
    if http { "Writ::Route" } else { "Writ::Credential" }
}

/// One action for each offer. A credential's lifetime and who makes its secret are in the context; a route has neither.
fn offers(target: &TargetEntry, tasks: &[String]) -> Value {
    let http = target.offers.is_http();
    let actions = target.offers.offers.iter().map(|(name, offer)| {
        let mut context = vec![("input", members(&params(&offer.params))), ("facts", named("Writ::Facts"))];
        if !http {
            context.push((LIFETIME, json!({ "type": "Long" })));
            context.push((SECRET, json!({ "type": "String" })));
        }
        let action = json!({ "appliesTo": {
            "principalTypes": tasks, "resourceTypes": [offered_type(http)], "context": record(context),
        }});
        (name.as_str().to_owned(), action)
    });
    json!({ "entityTypes": {}, "actions": actions.collect::<Map<_, _>>() })
}

fn members(members: &Members) -> Value {
    let attributes = members.iter().map(|(name, member)| {
        let mut kind = shape(&member.shape);
        if let (false, Value::Object(kind)) = (member.required, &mut kind) {
            kind.insert("required".to_owned(), false.into());
        }
        (name.as_str(), kind)
    });
    record(attributes)
}

fn shape(of: &Shape) -> Value {
    match of {
        Shape::Text | Shape::NumberText | Shape::Json => json!({ "type": "String" }),
        Shape::Long => json!({ "type": "Long" }),
        Shape::Bool => json!({ "type": "Boolean" }),
        Shape::Decimal => json!({ "type": "Extension", "name": "decimal" }),
        Shape::Set(item) => json!({ "type": "Set", "element": shape(item) }),
        Shape::Record(inner) => members(inner),
    }
}

fn record<'a>(attributes: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let attributes: Map<_, _> = attributes.into_iter().map(|(name, kind)| (name.to_owned(), kind)).collect();
    json!({ "type": "Record", "attributes": attributes })
}

fn named(name: &str) -> Value {
    json!({ "type": "EntityOrCommon", "name": name })
}
