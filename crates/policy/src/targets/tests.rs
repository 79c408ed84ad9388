//! What targets offer, as policies see it: typed parameters, lifetimes, who makes the secret, reach.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use crate::fixture::{Case, findings, folder, object};
use crate::{Policy, Request, Severity, Sources, run_tests};
use cedar_policy::{Context, Entities, Entity, EntityUid};
use domain::{Operation, Outcome, Reason, SecretOrigin};
use serde_json::{Value, json};

const INTENT: &str = r#"
name = "fix-orders"
description = "Repair orders of one region."
owner = "orders"
targets = ["orders-db", "billing"]
[params.region]
type = "string"
description = "The region."
"#;

const ORDERS_DB: &str = r#"
kind = "postgresql"
owner = "team-orders"
description = "The orders database."
[connect]
host = "127.0.0.1"
password = { file = "secrets/orders-db" }
[limits]
live_max = 10
[offers.read_orders]
description = "Reads the orders of one region."
template = "orders_read"
lifetime_secs = 600
reading = { untrusted = true, sensitivity = "confidential" }
sink = "none"
clear_arguments = ["region"]
[offers.read_orders.params.region]
type = "string"
description = "The region."
one_of = ["eu", "us"]
[offers.read_orders.params.rows]
type = "integer"
description = "At most so many."
default = 100
max = 1000
[offers.everything]
description = "All of it."
template = "owner"
"#;

const BILLING: &str = r#"
kind = "http"
owner = "team-billing"
[connect]
url = "https://billing.example"
[offers.charge]
description = "Charges a customer."
method = "POST"
path = "/v1/customers/{customer}/charges"
reading = { untrusted = false, sensitivity = "internal" }
sink = "internal"
[offers.charge.params.customer]
type = "string"
description = "Whom."
[offers.charge.params.cents]
type = "integer"
description = "How much."
"#;

const CEDAR: &str = r#"
@id("open") permit (principal, action == Writ::Action::"open", resource);
@id("own-region") permit (
  principal is Intent::FixOrders, action == OrdersDb::Action::"read_orders", resource is Writ::Credential
) when { context.input.region == principal.region && context.lifetime_secs <= 300 && context.input.rows <= 100 };
@id("no-secret-of-ours") forbid (principal, action, resource is Writ::Credential) when { context.secret == "writ" };
@id("small-charge") permit (principal, action == Billing::Action::"charge", resource is Writ::Route)
when { context.input.cents < 500 && resource.sink == "internal" };
"#;

fn sources(more: &[(&str, &str)]) -> Sources {
    let mut files = vec![
        ("intents/fix-orders.toml", INTENT),
        ("targets/orders-db.toml", ORDERS_DB),
        ("targets/billing.toml", BILLING),
        ("main.cedar", CEDAR),
    ];
    for (path, text) in more {
        files.retain(|(known, _)| known != path);
        files.push((path, text));
    }
    folder(&files)
}

fn policy() -> Policy {
    Policy::compile(&sources(&[])).unwrap_or_else(|found| panic!("{found:#?}")).policy
}

/// What is asked of one offer.
struct Ask(&'static str, Value, u64, SecretOrigin);

fn verdict(policy: &Policy, Ask(offer, arguments, lifetime_secs, secret): Ask) -> (Outcome, Option<Reason>, String, bool) {
    let case = Case::new(policy, "fix-orders", json!({ "region": "eu" }), "none", json!({}));
    let (target, offer) = offer.split_once('/').unwrap();
    let (target, offer) = (target.parse().unwrap(), offer.parse().unwrap());
    let arguments = object(arguments);
    let operation = if target == "billing".parse().unwrap() {
        Operation::SendHttp { target: &target, offer: &offer, arguments: &arguments }
    } else {
        Operation::IssueCredential { target: &target, offer: &offer, arguments: &arguments, lifetime_secs, secret }
    };
    let verdict = policy.decide(&case.request(operation));
    let listed = policy.could_allow(&case.task, &case.agent, &operation);
    (verdict.outcome, verdict.reason, verdict.explanation, listed)
}

#[test]
fn a_credential_is_decided_by_its_parameters_lifetime_and_secret() {
    use SecretOrigin::{Caller, Writ};
    let policy = policy();
    let eu = || json!({ "region": "eu" });
    let cases = [
        (Ask("orders-db/read_orders", eu(), 300, Caller), Outcome::Allow, None),
        (Ask("orders-db/read_orders", json!({ "region": "us" }), 300, Caller), Outcome::Deny, Some(Reason::NotPermitted)),
        (Ask("orders-db/read_orders", eu(), 301, Caller), Outcome::Deny, Some(Reason::NotPermitted)),
        (Ask("orders-db/read_orders", eu(), 300, Writ), Outcome::Deny, Some(Reason::Forbidden)),
        (
            Ask("orders-db/read_orders", json!({ "region": "eu", "rows": 101 }), 300, Caller),
            Outcome::Deny,
            Some(Reason::NotPermitted),
        ),
        (Ask("orders-db/read_orders", json!({}), 300, Caller), Outcome::Deny, Some(Reason::UnknownArgument)),
        (Ask("orders-db/read_orders", json!({ "region": "mars" }), 300, Caller), Outcome::Deny, Some(Reason::UnknownArgument)),
        (
            Ask("orders-db/read_orders", json!({ "region": "eu", "table": "x" }), 300, Caller),
            Outcome::Deny,
            Some(Reason::UnknownArgument),
        ),
        (Ask("orders-db/everything", json!({}), 300, Caller), Outcome::Deny, Some(Reason::NotPermitted)),
        (Ask("orders-db/nothing", json!({}), 300, Caller), Outcome::Deny, Some(Reason::ToolUnavailable)),
        (Ask("other-db/read_orders", eu(), 300, Caller), Outcome::Deny, Some(Reason::OutOfReach)),
        (Ask("billing/charge", json!({ "customer": "c", "cents": 499 }), 0, Caller), Outcome::Allow, None),
        (Ask("billing/charge", json!({ "customer": "c", "cents": 500 }), 0, Caller), Outcome::Deny, Some(Reason::NotPermitted)),
    ];
    for (ask, outcome, reason) in cases {
        let shown = format!("{} {} {}", ask.0, ask.1, ask.2);
        let found = verdict(&policy, ask);
        assert_eq!((found.0, found.1), (outcome, reason), "{shown}: {}", found.2);
    }
}

#[test]
fn a_refusal_says_what_would_be_allowed_and_no_value_that_is_not_clear() {
    let policy = policy();
    let long = verdict(&policy, Ask("orders-db/read_orders", json!({ "region": "eu" }), 900, SecretOrigin::Caller)).2;
    assert!(long.contains("`lifetime_secs` must be at most 300 and is 900"), "{long}");
    let rows = verdict(&policy, Ask("orders-db/read_orders", json!({ "region": "eu", "rows": 777 }), 9, SecretOrigin::Caller)).2;
    assert!(rows.contains("`rows` must be at most 100") && !rows.contains("777"), "{rows}");
}

#[test]
fn an_offer_that_no_policy_permits_is_not_listed_and_a_route_is_no_credential() {
    let policy = policy();
    let listed = |offer| verdict(&policy, Ask(offer, json!({}), 300, SecretOrigin::Caller)).3;
    assert!(listed("orders-db/read_orders") && listed("billing/charge"));
    assert!(!listed("orders-db/everything") && !listed("orders-db/nothing"));
    let case = Case::new(&policy, "fix-orders", json!({ "region": "eu" }), "none", json!({}));
    let (billing, charge) = ("billing".parse().unwrap(), "charge".parse().unwrap());
    let (database, read) = ("orders-db".parse().unwrap(), "read_orders".parse().unwrap());
    let none = object(json!({ "region": "eu" }));
    let (lifetime_secs, secret) = (60, SecretOrigin::Caller);
    for operation in [
        Operation::IssueCredential { target: &billing, offer: &charge, arguments: &none, lifetime_secs, secret },
        Operation::SendHttp { target: &database, offer: &read, arguments: &none },
    ] {
        assert_eq!(policy.decide(&case.request(operation)).reason, Some(Reason::ToolUnavailable));
    }
}

#[test]
fn what_is_built_without_validation_is_valid_for_the_schema() {
    let policy = policy();
    let schema = cedar_policy::Schema::from_json_value(policy.schema().clone()).unwrap();
    let case = Case::new(&policy, "fix-orders", json!({ "region": "eu" }), "none", json!({}));
    let (billing, charge) = ("billing".parse().unwrap(), "charge".parse().unwrap());
    let (database, read) = ("orders-db".parse().unwrap(), "read_orders".parse().unwrap());
    let (region, charged) = (object(json!({ "region": "eu" })), object(json!({ "customer": "c", "cents": 1 })));
    let secret = SecretOrigin::Writ;
    for operation in [
        Operation::IssueCredential { target: &database, offer: &read, arguments: &region, lifetime_secs: 1, secret },
        Operation::SendHttp { target: &billing, offer: &charge, arguments: &charged },
    ] {
        let request: Request<'_> = case.request(operation);
        let targets = policy.index.get(&case.task.intent).unwrap();
        let target = targets.find(&operation).unwrap();
        let mut parts = crate::decide::parts(&policy, targets, target);
        parts.mentions = crate::rules::Mentions { approved: true, now: true, workload: true };
        let input = crate::decide::input(&policy, target, &request).unwrap();
        let owner = case.agent.owner.as_ref().unwrap();
        let situation = crate::situation::Situation::new(&parts, &request, owner, input).unwrap();
        let ast = situation.request();
        let uid = |entry: &cedar_policy_core::ast::EntityUIDEntry| EntityUid::from(entry.uid().unwrap().clone());
        let context = Context::from(ast.context().unwrap().clone());
        cedar_policy::Request::new(uid(ast.principal()), uid(ast.action()), uid(ast.resource()), context, Some(&schema)).unwrap();
        let entities = situation.entities().iter().cloned().map(Entity::from);
        Entities::from_entities(entities, Some(&schema)).unwrap();
    }
}

#[test]
fn faults_of_target_files_are_found() {
    let cases = [
        ("targets/orders-db.toml", ORDERS_DB.replace("postgresql", "postgres"), "`postgres` is not a kind of target"),
        ("targets/orders-db.toml", ORDERS_DB.replace("owner = \"team", "ownr = \"team"), "unknown field `ownr`"),
        ("targets/orders-db.toml", ORDERS_DB.replace("= 600", "= 999999"), "`lifetime_secs` is out of range"),
        ("targets/orders-db.toml", ORDERS_DB.replace("[\"region\"]", "[\"regoin\"]"), "has no parameter `regoin`"),
        ("targets/orders-db.toml", ORDERS_DB.replace("\"none\"", "\"nowhere\""), "sink"),
        ("targets/orders-db.toml", ORDERS_DB.replace("untrusted = true,", "untrused = true,"), "unknown field `untrused`"),
        ("targets/writ.toml", BILLING.to_owned(), "Writ's own namespace"),
        ("targets/orders.db.toml", BILLING.to_owned(), "would both be `OrdersDb`"),
        ("tools/billing.toml", String::new(), "upstream `billing` and target `billing` would both be"),
        ("intents/fix-orders.toml", INTENT.replace("\"billing\"", "\"biling\""), "reaches target `biling`"),
        ("more.cedar", "@id(\"x\") permit (principal, action == OrdersDb::Action::\"read_orders\", resource) when { context.input.regoin == \"eu\" };".to_owned(), "regoin"),
        ("more.cedar", "@id(\"x\") permit (principal, action == Billing::Action::\"charge\", resource) when { context.lifetime_secs < 5 };".to_owned(), "lifetime_secs"),
    ];
    for (path, text, expected) in cases {
        let found = findings(&sources(&[(path, &text)]));
        assert!(found.iter().any(|finding| finding.message.contains(expected)), "{expected}: {found:#?}");
    }
    assert!(findings(&sources(&[])).iter().all(|finding| finding.severity == Severity::Warning && finding.path.is_empty()));
}

#[test]
fn the_version_covers_target_files() {
    let before = sources(&[]).version();
    let wider = ORDERS_DB.replace("orders_read", "orders_owner");
    assert_ne!(before, sources(&[("targets/orders-db.toml", &wider)]).version());
}

#[test]
fn cases_can_ask_for_credentials() {
    let tests = r#"
[[case]]
name = "own region"
intent = "fix-orders"
params = { region = "eu" }
target = "orders-db"
offer = "read_orders"
arguments = { region = "eu" }
lifetime_secs = 60
expect = "allow"
policy = "own-region"
listed = true
[[case]]
name = "a secret of ours"
intent = "fix-orders"
params = { region = "eu" }
target = "orders-db"
offer = "read_orders"
arguments = { region = "eu" }
lifetime_secs = 60
secret = "writ"
expect = "deny"
policy = "no-secret-of-ours"
[[case]]
name = "a charge"
intent = "fix-orders"
params = { region = "eu" }
target = "billing"
offer = "charge"
arguments = { customer = "c", cents = 1 }
expect = "allow"
[[case]]
name = "mistyped"
intent = "fix-orders"
params = { region = "eu" }
target = "orders-bd"
offer = "read_orders"
expect = "deny"
"#;
    let report = run_tests(&policy(), &sources(&[("tests/credentials.toml", tests)]));
    let failures: Vec<_> = report.cases.iter().filter_map(|case| case.failure.as_deref()).collect();
    assert!(report.faults.is_empty(), "{:?}", report.faults);
    assert_eq!(failures, ["no target `orders-bd`; did you mean `orders-db`?"]);
}

/// A bounded fuzzer of the reader of target files: a valid one with pieces cut out, repeated and exchanged.
mod hostile {
    use super::*;
    use proptest::{collection::vec, prelude::*, sample::select};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(250))]

        #[test]
        fn an_altered_file_is_read_or_told_to_be_wrong_at_a_place_that_it_has(
            edits in vec(
                (
                    any::<u16>(),
                    0_u8..24,
                    select(vec![
                        "", "\n", "\"", "'", "\"\"\"", "[", "]", "[[", "{", "}", "=", ".", "#", "\\u0000", "\u{e9}", "-1", "1e9", "nan",
                        "true", "kind = 1\n", "[offers]\n", "[offers.x]\n", "9223372036854775808", "1979-05-27",
                    ]),
                ),
                1..4,
            ),
        ) {
            let mut letters: Vec<char> = ORDERS_DB.chars().collect();
            for (at, cut, put) in edits {
                let at = usize::from(at) % (letters.len() + 1);
                let end = (at + usize::from(cut)).min(letters.len());
                letters.splice(at..end, put.chars());
            }
            let text: String = letters.into_iter().collect();
            let sources = folder(&[("intents/fix-orders.toml", INTENT), ("targets/orders-db.toml", &text)]);
            let Err(found) = Policy::compile(&sources) else { return Ok(()) };
            prop_assert!(found.iter().any(|finding| finding.severity == Severity::Error), "{text}");
            let lines = text.split('\n').count();
            for finding in found.iter().filter(|finding| finding.path == "targets/orders-db.toml") {
                prop_assert!(finding.line <= lines, "{finding:?} in {lines} lines");
                prop_assert!(!finding.message.contains('\0') && finding.message.len() < 2_000, "{finding:?}");
            }
        }
    }
}
