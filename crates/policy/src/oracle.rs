//! Cedar itself as the judge: on random folders and requests, the indexed decision equals Cedar's own authorizer over
//! the full set of policies, and every situation that is built without validation would have passed it.

use crate::arguments;
use crate::decide::{parts, prepare};
use crate::fixture::{Case, compile, object};
use crate::{Policy, Request};
use cedar_policy::{Context, Entities, Entity, PolicySet, Schema};
use cedar_policy_core::ast::EntityUIDEntry;
use cedar_policy_core::authorizer::{Authorizer, Decision};
use domain::{Binding, Labels, Operation, Outcome, Sensitivity, Value as Param};
use proptest::prelude::*;
use serde_json::{Value, json};

const SCOPES: [&str; 21] = [
    "principal, action, resource",
    "principal is Intent::RefundOrder, action, resource",
    "principal is Intent::LookAround, action, resource is Writ::Tool",
    "principal, action == Orders::Action::\"refund\", resource",
    "principal is Intent::RefundOrder, action == Orders::Action::\"refund\", resource",
    "principal, action in [Orders::Action::\"refund\", Orders::Action::\"get_order\"], resource",
    "principal, action, resource == Writ::Tool::\"orders/refund\"",
    "principal, action, resource == Writ::Agent::\"bot\"",
    "principal, action == Writ::Action::\"open\", resource == Writ::Agent::\"other\"",
    "principal, action in [Writ::Action::\"open\", Writ::Action::\"renew\"], resource is Writ::Agent",
    "principal == Intent::RefundOrder::\"tsk_07070707070707070707070707070707\", action, resource",
    "principal is Intent::LookAround, action == Crm::Action::\"find\", resource",
    "principal in Intent::RefundOrder::\"tsk_07070707070707070707070707070707\", action, resource",
    "principal is Intent::LookAround in Intent::LookAround::\"tsk_07070707070707070707070707070707\", action, resource",
    "principal, action in Orders::Action::\"refund\", resource in Writ::Tool::\"orders/refund\"",
    "principal, action, resource is Writ::Tool in Writ::Tool::\"orders/get_order\"",
    "principal, action, resource in Writ::Agent::\"bot\"",
    "principal, action, resource is Writ::Agent in Writ::Agent::\"other\"",
    "principal, action in [Orders::Action::\"mcp:resources/read\", Orders::Action::\"mcp:prompts/get\"], resource",
    "principal, action == Orders::Action::\"refund\", resource == Writ::Tool::\"orders/get_order\"",
    "principal == Intent::LookAround::\"other\", action, resource == Writ::Agent::\"bot\"",
];

const CONDITIONS: [&str; 12] = [
    "true",
    "context.facts.read_untrusted",
    "!context.facts.approved",
    "context.facts.approved",
    "context.facts.calls_used * 3074457345618258603 > 5",
    "context.facts.workload.hasTag(\"environment\") && context.facts.workload.getTag(\"environment\") == \"production\"",
    "context.facts.now > datetime(\"2026-01-01\") && context.facts.binding == \"dpop\"",
    "principal.agent.owner == Writ::Owner::\"support\" && context.facts.read_sensitivity < 2",
    "!(context.facts has approved && context.facts.approved)",
    "!(context has facts)",
    "if context has facts then context.facts.read_untrusted else true",
    "context.facts has workload && context.facts.workload has subject && context.facts has now",
];

fn cedar() -> impl Strategy<Value = String> {
    let rule = (prop::bool::ANY, 0..SCOPES.len(), 0..CONDITIONS.len());
    prop::collection::vec(rule, 0..14).prop_map(|rules| {
        let line = |(place, (permit, scope, condition)): (usize, (bool, usize, usize))| {
            let effect = if permit { "permit" } else { "forbid" };
            format!("@id(\"r{place}\") {effect} ({}) when {{ {} }};\n", SCOPES[scope], CONDITIONS[condition])
        };
        rules.into_iter().enumerate().map(line).collect()
    })
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e6..1e6).prop_map(|number: f64| Value::from((number * 100.0).round() / 100.0)),
        "[a-z\u{e9}\u{1f600}\"\\\\]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("city|zip|[a-c]", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn case(policy: &Policy) -> impl Strategy<Value = (Case, usize)> + use<> {
    let refund = Case::refund(policy).task;
    let look = Case::new(policy, "look-around", json!({}), "get_order", json!({})).task;
    let operation = (0_usize..6, 0_usize..4);
    let facts = (any::<bool>(), 0_u8..4, any::<bool>(), 0_u64..9, any::<bool>());
    (any::<bool>(), operation, facts, any::<bool>()).prop_map(
        move |(refunds, (kind, tool), (untrusted, level, approved, calls, bearer), own)| {
            let (upstream, tool, arguments) = [
                (
                    "orders",
                    "refund",
                    json!({ "order_id": "A-1", "amount_cents": 5, "ship": { "city": "x" }, "lines": ["a"], "fraction": 1.5 }),
                ),
                ("orders", "get_order", json!({ "order_id": "A-1" })),
                ("orders", "send", json!({ "to": "x" })),
                ("crm", "find", json!({})),
            ][tool]
                .clone();
            let levels = [Sensitivity::Public, Sensitivity::Internal, Sensitivity::Confidential, Sensitivity::Restricted];
            let task = if refunds { refund.clone() } else { look.clone() };
            let mut case = Case {
                agent: domain::Agent {
                    id: if own { "bot" } else { "other" }.parse().unwrap(),
                    owner: Some("support".parse().unwrap()),
                    purpose: String::new(),
                    rules: Vec::new(),
                    intents: vec![task.intent.clone()],
                    review_by: domain::Timestamp::from_secs(0),
                    state: domain::AgentState::Active,
                    allow_bearer: bearer,
                    declared: false,
                },
                facts: domain::Facts {
                    now: task.opened_at,
                    labels: Labels { read_untrusted: untrusted, read_sensitivity: levels[usize::from(level)] },
                    approved,
                    calls_used: calls,
                    binding: if bearer { Binding::Bearer } else { Binding::Dpop },
                    attested_secs_ago: calls,
                },
                task,
                upstream: upstream.parse().unwrap(),
                tool: tool.parse().unwrap(),
                arguments: object(arguments),
            };
            if refunds {
                case.task.params.0.insert("urgent".to_owned(), Param::Bool(own));
            }
            (case, kind)
        },
    )
}

fn operation(case: &Case, kind: usize) -> Operation<'_> {
    match kind {
        0 => Operation::OpenTask,
        1 => Operation::RenewTask,
        2 => Operation::ReadResource { upstream: &case.upstream, uri: "file:///x" },
        3 => Operation::GetPrompt { upstream: &case.upstream, name: "p", arguments: &case.arguments },
        _ => case.operation(),
    }
}

/// What Cedar says over the full set, by our rules: an error refuses.
fn judged(policy: &Policy, request: &Request<'_>, all: &PolicySet, approved: bool) -> Option<Outcome> {
    let ready = prepare(policy, request).ok()?;
    let full = everything(policy, request, approved);
    let response = Authorizer::new().is_authorized(full.0, all.as_ref(), full.1.as_ref());
    drop(ready);
    Some(match response {
        response if !response.diagnostics.errors.is_empty() => Outcome::Failed,
        response if response.decision == Decision::Allow => Outcome::Allow,
        _ => Outcome::Deny,
    })
}

/// The situation with every fact in it, validated by Cedar against the schema.
fn everything(policy: &Policy, request: &Request<'_>, approved: bool) -> (cedar_policy_core::ast::Request, Entities) {
    // Every folder of the fixture has the same schema: its policies do not enter it.
    thread_local!(static SCHEMA: Schema = Schema::from_json_value(compile("").schema().clone()).unwrap());
    let schema = SCHEMA.with(Clone::clone);
    let targets = policy.index.get(&request.task.intent).unwrap();
    let target = targets.find(&request.operation).unwrap();
    let mut parts = parts(policy, targets, target);
    parts.mentions = crate::rules::Mentions { approved: true, now: true, workload: true };
    let input = crate::decide::input(policy, target, request).unwrap();
    let facts = domain::Facts { approved, ..request.facts.clone() };
    let request = Request { facts: &facts, ..*request };
    let owner = request.agent.owner.as_ref().unwrap();
    let situation = crate::situation::Situation::new(&parts, &request, owner, input).unwrap();
    let ast = situation.request();
    let uid = |entry: &EntityUIDEntry| cedar_policy::EntityUid::from(entry.uid().unwrap().clone());
    let context = Context::from(ast.context().unwrap().clone());
    cedar_policy::Request::new(uid(ast.principal()), uid(ast.action()), uid(ast.resource()), context, Some(&schema))
        .expect("what is built without validation is valid");
    let entities = situation.entities().iter().cloned().map(Entity::from);
    let entities = Entities::from_entities(entities, Some(&schema)).expect("entities built without validation are valid");
    (ast, entities)
}

/// Conditions that are wrong in some environments, in all, or in none.
const DOUBTFUL: [&str; 8] = [
    "context.input.order_id == 1",
    "context.input.amount_cents > 1",
    "context.input has why && context.input.why == \"x\"",
    "context.input.why == \"x\"",
    "principal.order_id == \"x\"",
    "principal has order_id && principal.order_id == \"x\"",
    "resource.sink == 5",
    "principal is Intent::Nowhere",
];

#[test]
fn the_environments_that_validation_leaves_out_hold_no_finding() {
    let schema = Schema::from_json_value(compile("").schema().clone()).unwrap();
    let validator = cedar_policy::Validator::new(schema.clone());
    for scope in SCOPES {
        for condition in CONDITIONS.iter().chain(&DOUBTFUL) {
            let text = format!("@id(\"a\") permit ({scope}) when {{ {condition} }};");
            let judged = validator.validate(&text.parse().unwrap(), cedar_policy::ValidationMode::Strict);
            let mut found = Vec::new();
            crate::rules::read(&crate::fixture::folder(&[("a.cedar", &text)]), Some(&schema), &mut found);
            let refused = found.iter().any(|finding| finding.severity == crate::Severity::Error);
            assert_eq!(refused, judged.validation_errors().next().is_some(), "{text}: {found:?} {judged}");
            let never = found.iter().any(|finding| finding.message.contains("can never hold"));
            let impossible = judged
                .validation_warnings()
                .any(|warning| matches!(warning, cedar_policy::ValidationWarning::ImpossiblePolicy(_)));
            assert_eq!(never, impossible && !refused, "{text}: {found:?} {judged}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_indexed_decision_is_that_of_cedar_over_the_full_set(
        (text, cases) in cedar().prop_flat_map(|text| {
            let policy = crate::Policy::compile(&crate::fixture::sources(&text)).unwrap().policy;
            (Just(text), prop::collection::vec(case(&policy), 12))
        })
    ) {
        let policy = crate::Policy::compile(&crate::fixture::sources(&text)).unwrap().policy;
        let all: PolicySet = text.parse().unwrap();
        for (case, kind) in cases {
            let request = case.request(operation(&case, kind));
            let verdict = policy.decide(&request);
            let Some(plain) = judged(&policy, &request, &all, case.facts.approved) else {
                prop_assert_eq!(verdict.outcome, Outcome::Deny);
                continue;
            };
            let granted = judged(&policy, &request, &all, true);
            let expected = match (plain, granted) {
                (Outcome::Deny, Some(Outcome::Allow)) => Outcome::Ask,
                (plain, _) => plain,
            };
            prop_assert_eq!(verdict.outcome, expected, "{:?} {:?}", verdict, request.operation);
            // A listing never hides what was allowed or asked about.
            if matches!(verdict.outcome, Outcome::Allow | Outcome::Ask) {
                prop_assert!(policy.could_allow(&case.task, &case.agent, &request.operation));
            }
        }
    }

    #[test]
    fn arguments_that_are_read_are_valid_for_the_schema(
        members in prop::collection::btree_map("order_id|amount_cents|fraction|lines|extra|ship|why|[a-z]", json_value(), 0..6)
    ) {
        thread_local!(static POLICY: Policy = compile("@id(\"a\") permit (principal, action, resource);"));
        POLICY.with(|policy| {
            let mut arguments = object(json!({ "order_id": "A-1", "amount_cents": 1 }));
            arguments.extend(members.into_iter().filter(|(name, _)| name != "order_id" && name != "amount_cents"));
            let case = Case::refund(policy).with(|case| case.arguments = arguments);
            let request = case.request(case.operation());
            let governed = policy.index.get(&case.task.intent).unwrap().find(&request.operation).unwrap();
            if arguments::read(&governed.governed.members, &case.arguments).is_ok() {
                everything(policy, &request, false);
                assert_eq!(policy.decide(&request).outcome, Outcome::Allow);
            } else {
                assert_eq!(policy.decide(&request).reason, Some(domain::Reason::UnknownArgument));
            }
        });
    }
}
