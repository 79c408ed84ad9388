//! Claims about single decisions, attacks among them. Whole folders and their diagnostics are tested beside `policy.rs`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use crate::fixture::{Case, compile, object, sources};
use crate::{Policy, Sources};
use domain::{Binding, Operation, Outcome, Params, Reason, Value as Param};
use serde_json::{Value, json};

const OWN: &str = r#"
@id("own") @hint("ask for another task")
permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource)
when { context.input.order_id == principal.order_id && context.input.amount_cents <= principal.max_amount_cents };
"#;

fn check(policy: &Policy, case: &Case, outcome: Outcome, reason: Option<Reason>, fragment: &str) {
    let verdict = case.decide(policy);
    assert_eq!((verdict.outcome, verdict.reason), (outcome, reason), "{verdict:?}");
    assert!(verdict.explanation.contains(fragment), "`{}` lacks `{fragment}`", verdict.explanation);
}

fn with_arguments(policy: &Policy, arguments: Value) -> Case {
    Case::refund(policy).with(|case| case.arguments = object(arguments))
}

#[test]
fn a_forbid_that_asks_whether_a_fact_is_there_hides_no_tool() {
    for forbid in [
        "forbid (principal, action, resource) unless { context.facts has approved && context.facts.approved };",
        "forbid (principal, action, resource) when { !(context has facts) };",
    ] {
        let text = format!("@id(\"p\") permit (principal, action, resource);\n@id(\"f\") {forbid}");
        let policy = Policy::compile(&crate::fixture::sources(&text)).unwrap().policy;
        let case = Case::refund(&policy).with(|case| case.facts.approved = true);
        assert_eq!(case.decide(&policy).outcome, Outcome::Allow, "{forbid}");
        assert!(case.listed(&policy), "{forbid}");
    }
}

#[test]
fn a_permit_that_holds_allows_and_is_named() {
    let policy = compile(OWN);
    let verdict = Case::refund(&policy).decide(&policy);
    assert_eq!(verdict.outcome, Outcome::Allow);
    assert_eq!(verdict.reason, None);
    assert_eq!(verdict.determining.iter().map(|by| by.id.as_str()).collect::<Vec<_>>(), ["own"]);
    insta::assert_snapshot!(verdict.explanation, @"permitted by `own`");
}

#[test]
fn a_denial_says_what_would_be_allowed() {
    let policy = compile(OWN);
    let verdict = with_arguments(&policy, json!({ "order_id": "A-1", "amount_cents": 900000 })).decide(&policy);
    insta::assert_snapshot!(verdict.explanation, @"`orders/refund` is not permitted: for `own` `amount_cents` must be at most 5000 (the task's `max_amount_cents`) and is 900000 (ask for another task)");
}

#[test]
fn a_denial_holds_no_argument_value_that_is_not_labelled_clear() {
    let policy = compile(OWN);
    let verdict = with_arguments(&policy, json!({ "order_id": "SECRET-9", "amount_cents": 1 })).decide(&policy);
    insta::assert_snapshot!(verdict.explanation, @"`orders/refund` is not permitted: for `own` `order_id` must be `A-1` (the task's `order_id`) (ask for another task)");
}

#[test]
fn a_denial_holds_nothing_computed_of_what_it_may_not_hold() {
    let mut sources = sources(
        r#"@id("n") permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource)
           when { context.input.amount_cents * 2 <= 100 };"#,
    );
    let shown = |sources: &Sources| {
        let policy = Policy::compile(sources).unwrap().policy;
        Case::refund(&policy).decide(&policy).explanation
    };
    assert!(shown(&sources).contains("`amount_cents` * 2 must be at most 100 and is 200"));
    let labels = sources.files.iter_mut().find(|file| file.path == "tools/orders.toml").unwrap();
    labels.text = labels.text.replace("clear_arguments = [\"amount_cents\"]", "");
    assert_eq!(shown(&sources), "`orders/refund` is not permitted: for `n` `amount_cents` * 2 must be at most 100");
}

#[test]
fn a_denial_holds_no_value_of_a_sensitive_parameter() {
    let policy = compile(
        r#"@id("n") permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource)
           when { context.input.order_id == principal.note };"#,
    );
    let case = Case::refund(&policy).with(|case| {
        case.task.params.0.insert("note".to_owned(), Param::Text("SECRET".to_owned()));
    });
    check(&policy, &case, Outcome::Deny, Some(Reason::NotPermitted), "must be the task's `note`");
    assert!(!case.decide(&policy).explanation.contains("SECRET"));
}

#[test]
fn conditions_are_told_in_words() {
    let cases = [
        ("context.facts.approved == true && context.facts.read_untrusted", "`facts.approved` must be true and is false"),
        ("context.facts.calls_used < 2", "`facts.calls_used` must be below 2 and is 3"),
        ("context.facts.calls_used > 9", "`facts.calls_used` must be above 9 and is 3"),
        (
            "principal.urgent || context.facts.read_untrusted",
            "either the task's `urgent` must be true or `facts.read_untrusted` must be",
        ),
        (
            r#"resource.sink != "internal" || context.facts.read_untrusted"#,
            "either the tool's `sink` must not be `internal` and is `internal` or",
        ),
        (r#"["B-1", "B-2"].contains(context.input.order_id)"#, "`order_id` must be one of `B-1`, `B-2`"),
        (r#"context.input.order_id like "B-*""#, "`order_id` must look like `B-*`"),
        ("context.input has why && context.input.why == \"x\"", "the argument `why` must be given"),
        (r#"context.facts.workload.hasTag("team")"#, "the workload must have proved the claim `team`"),
        (
            r#"context.facts.workload.hasTag("environment") && context.facts.workload.getTag("environment") == "staging""#,
            "the workload's claim `environment` must be `staging`",
        ),
        (
            r#"context.input.amount_cents == 1 || context.input.amount_cents == 2"#,
            "either `amount_cents` must be 1 and is 100 or",
        ),
        (
            r#"context.input has fraction && context.input.fraction.lessThan(decimal("1.5"))"#,
            "the argument `fraction` must be given",
        ),
        ("context.input.amount_cents * 2 <= 150", "`amount_cents` * 2 must be at most 150 and is 200"),
        (
            "90 >= context.input.amount_cents - context.facts.calls_used * 2",
            "`amount_cents` - (`facts.calls_used` * 2) must be at most 90 and is 94",
        ),
        (r#"principal.tags.containsAll([context.input.order_id])"#, "another condition"),
    ];
    for (condition, fragment) in cases {
        let rule =
            r#"@id("r") permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource) when { COND };"#;
        let compiled = Policy::compile(&sources(&rule.replace("COND", condition)));
        let policy = compiled.unwrap_or_else(|found| panic!("{condition}: {found:#?}")).policy;
        let verdict = Case::refund(&policy).decide(&policy);
        assert_eq!(verdict.outcome, Outcome::Deny, "{condition}");
        assert!(verdict.explanation.contains(fragment), "{condition}: `{}` lacks `{fragment}`", verdict.explanation);
    }
}

#[test]
fn a_fraction_as_text_is_compared_with_a_parameter_in_the_one_spelling_of_json() {
    let mut sources = sources(
        r#"@id("r") permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource)
        when { context.input has fraction && context.input.fraction == principal.note };"#,
    );
    for file in sources.files.iter_mut().filter(|file| file.text.contains("[tools.refund]")) {
        file.text = file.text.replace("[tools.refund]", "[tools.refund]\nnumbers = \"text\"");
    }
    let policy = Policy::compile(&sources).unwrap_or_else(|found| panic!("{found:#?}")).policy;
    let outcome = |note: &str, fraction: &str| {
        let params = json!({ "order_id": "A-1", "max_amount_cents": 1, "note": note });
        let fraction: serde_json::Value = serde_json::from_str(fraction).unwrap();
        let arguments = json!({ "order_id": "A-1", "amount_cents": 1, "fraction": fraction });
        Case::new(&policy, "refund-order", params, "refund", arguments).decide(&policy).outcome
    };
    for same in ["12.5", "12.50", "1.25e1"] {
        assert_eq!(outcome("12.5", same), Outcome::Allow, "{same}");
    }
    assert_eq!(outcome("5", "5.0"), Outcome::Allow);
    for (note, other) in [("12.5", "12.500001"), ("12.50", "12.5"), ("5.0", "5"), ("12.5", "125")] {
        assert_eq!(outcome(note, other), Outcome::Deny, "{note} {other}");
    }
}

#[test]
fn an_unknown_argument_is_refused_before_any_policy() {
    let policy = compile(r#"@id("all") permit (principal, action, resource);"#);
    let cases = [
        (json!({ "order_id": "A-1", "amount_cents": 1, "amount_cent": 2 }), "did you mean `amount_cents`?"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "Amount_cents": 2 }), "no argument `Amount_cents`"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "оrder_id": "A-2" }), "no argument `оrder_id`"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "__proto__": {} }), "no argument `__proto__`"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "ship": { "city": "x", "street": "y" } }), "no argument `ship.street`"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "ship": { "zip": 1 } }), "needs the argument `ship.city`"),
        (json!({ "order_id": "A-1" }), "needs the argument `amount_cents`"),
        (json!({ "order_id": null, "amount_cents": 1 }), "takes text as `order_id`"),
        (json!({ "order_id": ["A-1"], "amount_cents": 1 }), "takes text as `order_id`"),
        (json!({ "order_id": "A-1", "amount_cents": "1" }), "takes a whole number"),
        (json!({ "order_id": "A-1", "amount_cents": 1.0 }), "takes a whole number"),
        (json!({ "order_id": "A-1", "amount_cents": 9_223_372_036_854_775_808_u64 }), "takes a whole number"),
        (json!({ "order_id": "A-1", "amount_cents": 1e300 }), "takes a whole number"),
        (json!({ "order_id": "A-1", "amount_cents": true }), "takes a whole number"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "fraction": 0.00001 }), "at most four decimals"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "fraction": 1e20 }), "at most four decimals"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "fraction": "1.5" }), "takes a number"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "lines": ["a", 2] }), "takes text as `lines[]`"),
        (json!({ "order_id": "A-1", "amount_cents": 1, "lines": vec!["x"; 10_001] }), "at most 10000 list items"),
    ];
    for (arguments, fragment) in cases {
        check(&policy, &with_arguments(&policy, arguments), Outcome::Deny, Some(Reason::UnknownArgument), fragment);
    }
    let fine = json!({
        "order_id": "A-1", "amount_cents": i64::MIN, "fraction": -1.25, "lines": ["a", "a"], "extra": { "deep": [1, null, { "x": 1e3 }] },
        "ship": { "city": "x" }, "why": null,
    });
    check(&policy, &with_arguments(&policy, fine), Outcome::Allow, None, "permitted by `all`");
}

#[test]
fn a_long_hostile_argument_name_is_cut_in_the_message() {
    let policy = compile(r#"@id("all") permit (principal, action, resource);"#);
    let name = "\u{1b}[31m".repeat(10_000);
    let verdict = with_arguments(&policy, json!({ "order_id": "A-1", "amount_cents": 1, (name): 1 })).decide(&policy);
    assert!(verdict.explanation.len() < 600 && !verdict.explanation.contains('\u{1b}'), "{}", verdict.explanation);
}

#[test]
fn what_policy_sees_of_each_argument_is_what_was_sent() {
    let rule = |condition: &str| {
        let rule =
            r#"@id("r") permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource) when { COND };"#;
        compile(&rule.replace("COND", condition))
    };
    let arguments = json!({
        "order_id": "A-1", "amount_cents": 7, "fraction": 2, "lines": ["b", "a", "a"], "extra": { "z": 1.50, "a": [null] },
        "ship": { "city": "Köln", "zip": 50667 }, "why": "x",
    });
    for condition in [
        r#"context.input has fraction && context.input.fraction == decimal("2.0")"#,
        r#"context.input has lines && context.input.lines == ["a", "b"]"#,
        r#"context.input has extra && context.input.extra == "{\"a\":[null],\"z\":1.5}""#,
        r#"context.input has ship && context.input.ship.city == "Köln" && context.input.ship has zip && context.input.ship.zip == 50667"#,
        r#"context.input has why && context.input.why == "x""#,
    ] {
        let policy = rule(condition);
        let verdict = with_arguments(&policy, arguments.clone()).decide(&policy);
        assert_eq!(verdict.outcome, Outcome::Allow, "{condition}: {}", verdict.explanation);
    }
    let absent = rule("!(context.input has why)");
    check(
        &absent,
        &with_arguments(&absent, json!({ "order_id": "A-1", "amount_cents": 7, "why": null })),
        Outcome::Allow,
        None,
        "",
    );
}

#[test]
fn a_policy_that_errs_refuses_although_a_permit_holds() {
    // The forbid overflows for large amounts: Cedar skips it, and the permit would allow.
    let policy = compile(
        r#"@id("all") permit (principal, action, resource);
           @id("cap") forbid (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource)
           when { context.input.amount_cents * 100 > 1000000 };"#,
    );
    check(&policy, &Case::refund(&policy), Outcome::Allow, None, "");
    let huge = with_arguments(&policy, json!({ "order_id": "A-1", "amount_cents": i64::MAX }));
    check(&policy, &huge, Outcome::Failed, Some(Reason::PolicyError), "`cap` could not be evaluated");
    assert_eq!(huge.decide(&policy).determining.iter().map(|by| by.id.as_str()).collect::<Vec<_>>(), ["cap"]);
}

#[test]
fn a_forbid_wins_over_every_permit() {
    let policy = compile(
        r#"@id("all") permit (principal, action, resource);
           @id("never") @reason("bearer tokens leak") forbid (principal, action, resource) when { context.facts.binding == "bearer" };"#,
    );
    let case = Case::refund(&policy).with(|case| case.facts.binding = Binding::Bearer);
    check(&policy, &case, Outcome::Deny, Some(Reason::Forbidden), "`orders/refund` is forbidden by `never`: bearer tokens leak");
    check(&policy, &Case::refund(&policy), Outcome::Allow, None, "");
}

#[test]
fn nothing_is_allowed_without_a_permit() {
    let policy = compile("");
    let case = Case::refund(&policy);
    check(&policy, &case, Outcome::Deny, Some(Reason::NotPermitted), "not available to tasks of intent `refund-order`");
    for operation in [Operation::OpenTask, Operation::RenewTask] {
        assert_eq!(policy.decide(&case.request(operation)).outcome, Outcome::Deny);
    }
}

#[test]
fn hidden_missing_and_out_of_reach_look_the_same() {
    let policy = compile(OWN);
    let own = Case::refund(&policy);
    let text = |tool: &str, arguments: Value| {
        let (upstream, tool) = tool.split_once('/').unwrap();
        let case = Case::refund(&policy).with(|case| {
            case.upstream = upstream.parse().unwrap();
            case.tool = tool.parse().unwrap();
            case.arguments = object(arguments);
        });
        let verdict = case.decide(&policy);
        assert_eq!(verdict.outcome, Outcome::Deny);
        (verdict.reason.unwrap(), verdict.explanation.replace(&format!("{upstream}/{tool}"), "X"))
    };
    let plain = "`X` is not available to tasks of intent `refund-order`";
    // Approved but never permitted, with good and bad arguments: no word about them.
    assert_eq!(text("orders/send", json!({ "to": "x" })), (Reason::NotPermitted, plain.to_owned()));
    assert_eq!(text("orders/send", json!({ "tp": "x" })), (Reason::NotPermitted, plain.to_owned()));
    assert_eq!(text("orders/nothing", json!({})), (Reason::ToolUnavailable, plain.to_owned()));
    assert_eq!(text("crm/find", json!({})), (Reason::OutOfReach, plain.to_owned()));
    assert_eq!(text("nowhere/find", json!({})), (Reason::OutOfReach, plain.to_owned()));
    assert_eq!(own.decide(&policy).outcome, Outcome::Allow);
}

#[test]
fn a_task_that_no_longer_fits_its_intent_gets_nothing() {
    let policy = compile(r#"@id("all") permit (principal, action, resource);"#);
    let change = |name: &str, value: Option<Param>| {
        Case::refund(&policy).with(|case| match value {
            Some(value) => drop(case.task.params.0.insert(name.to_owned(), value)),
            None => drop(case.task.params.0.remove(name)),
        })
    };
    let cases = [
        change("order_id", None),
        change("order_id", Some(Param::Long(1))),
        change("surplus", Some(Param::Bool(true))),
        change("max_amount_cents", Some(Param::Long(50_001))),
        Case::refund(&policy).with(|case| case.task.params = Params::default()),
        Case::refund(&policy).with(|case| case.task.intent = "gone".parse().unwrap()),
    ];
    for case in cases {
        check(&policy, &case, Outcome::Deny, Some(Reason::OutOfReach), "open a");
        assert!(!case.listed(&policy));
    }
}

#[test]
fn an_ownerless_agent_gets_nothing() {
    let policy = compile(r#"@id("all") permit (principal, action, resource);"#);
    let case = Case::refund(&policy).with(|case| case.agent.owner = None);
    check(&policy, &case, Outcome::Deny, Some(Reason::AgentNotEligible), "no owner");
}

#[test]
fn a_request_that_an_approval_would_allow_is_asked_about() {
    let policy = compile(
        r#"@id("mail") @approvers("leads, finance") @reason("it leaves the house")
           permit (principal, action == Orders::Action::"send", resource) when { context.facts.approved };
           @id("guard") @approvers("leads, security")
           forbid (principal, action, resource is Writ::Tool) when { resource.sink == "external" && context.facts.read_untrusted }
           unless { context.facts.approved };
           @id("hard") forbid (principal, action, resource is Writ::Tool) when { context.facts.read_sensitivity > 2 };"#,
    );
    let case = || Case::new(&policy, "look-around", json!({}), "send", json!({ "to": "a@b" }));
    let ask = case().decide(&policy);
    assert_eq!((ask.outcome, ask.reason), (Outcome::Ask, Some(Reason::ApprovalNeeded)));
    assert_eq!(ask.approvers, ["finance", "leads"]);
    insta::assert_snapshot!(ask.explanation, @"needs the approval of a person by one of `finance`, `leads`, because of `mail`: it leaves the house");
    // Two policies ask: only who satisfies both may answer.
    let both = case().with(|case| case.facts.labels.read_untrusted = true).decide(&policy);
    assert_eq!(both.approvers, ["leads"]);
    assert_eq!(both.determining.iter().map(|by| by.id.as_str()).collect::<Vec<_>>(), ["guard", "mail"]);
    // What an approval cannot lift is a denial, and no question.
    let hard = case().with(|case| case.facts.labels.read_sensitivity = domain::Sensitivity::Restricted);
    check(&policy, &hard, Outcome::Deny, Some(Reason::Forbidden), "forbidden by `hard`");
    check(&policy, &case().with(|case| case.facts.approved = true), Outcome::Allow, None, "permitted by `mail`");
    assert!(case().listed(&policy), "approval counts for listings");
}

#[test]
fn a_question_that_nobody_may_answer_is_a_denial() {
    let policy = compile(
        r#"@id("mail") @approvers("leads") permit (principal, action == Orders::Action::"send", resource) when { context.facts.approved };
           @id("guard") @approvers("security") forbid (principal, action, resource is Writ::Tool) unless { context.facts.approved };"#,
    );
    let case = Case::new(&policy, "look-around", json!({}), "send", json!({ "to": "a@b" }));
    check(&policy, &case, Outcome::Deny, Some(Reason::Forbidden), "nobody in common");
}

#[test]
fn an_approval_of_what_needs_none_changes_nothing() {
    let policy = compile(OWN);
    let case = with_arguments(&policy, json!({ "order_id": "A-2", "amount_cents": 1 })).with(|case| case.facts.approved = true);
    check(&policy, &case, Outcome::Deny, Some(Reason::NotPermitted), "must be `A-1`");
}

#[test]
fn verified_claims_are_tags_and_no_claim_poses_as_another() {
    let rule = |tag: &str, value: &str| {
        let rule = r#"@id("r") permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource)
            when { context.facts.workload.hasTag("TAG") && context.facts.workload.getTag("TAG") == "VALUE" };"#;
        compile(&rule.replace("TAG", tag).replace("VALUE", value))
    };
    let claims = json!({
        "environment": "production", "job": { "runner": "hosted", "n": 5 }, "groups": ["b", "a"], "none": null,
        "a/b": "top", "a": { "b": "nested" }, "x": { "y/z": "one", "y": { "z": "two" } }, "sub": "forged",
    });
    let cases = [
        ("environment", "production", true),
        ("environment", "staging", false),
        ("job/runner", "hosted", true),
        ("job/n", "5", true),
        ("groups", r#"[\"b\",\"a\"]"#, true),
        ("none", "", false),
        ("none", "null", false),
        ("a/b", "top", true),
        ("a/b", "nested", false),
        ("x/y/z", "one", false),
        ("x/y/z", "two", false),
        ("sub", "repo:a/b", true),
        ("sub", "forged", false),
    ];
    for (tag, value, allowed) in cases {
        let policy = rule(tag, value);
        let case = Case::refund(&policy).with(|case| case.task.workload.claims = object(claims.clone()));
        assert_eq!(case.decide(&policy).outcome == Outcome::Allow, allowed, "{tag} {value}");
    }
}

#[test]
fn the_moment_and_the_workload_are_facts() {
    let policy = compile(
        r#"@id("r") permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource)
           when { context.facts.now >= datetime("2026-09-21T14:13:20Z") && context.facts.now < datetime("2026-09-21T14:13:21Z")
                  && context.facts.workload.provider == "ci" && context.facts.workload.subject == "repo:a/b"
                  && principal.agent == Writ::Agent::"bot" && principal.agent.owner == Writ::Owner::"support" };"#,
    );
    check(&policy, &Case::refund(&policy), Outcome::Allow, None, "");
    let extreme = Case::refund(&policy).with(|case| case.facts.now = domain::Timestamp::from_millis(i64::MIN));
    assert_eq!(extreme.decide(&policy).outcome, Outcome::Deny);
}

#[test]
fn opening_is_decided_and_can_name_the_agent() {
    let policy = compile(
        r#"@id("bot-opens") permit (principal is Intent::RefundOrder, action == Writ::Action::"open", resource == Writ::Agent::"bot");
           @id("all-renew") permit (principal, action == Writ::Action::"renew", resource) when { context.facts.attested_secs_ago < 60 };"#,
    );
    let case = Case::refund(&policy);
    assert_eq!(policy.decide(&case.request(Operation::OpenTask)).outcome, Outcome::Allow);
    assert_eq!(policy.decide(&case.request(Operation::RenewTask)).outcome, Outcome::Allow);
    let other = Case::refund(&policy).with(|case| case.agent.id = "other".parse().unwrap());
    assert_eq!(policy.decide(&other.request(Operation::OpenTask)).outcome, Outcome::Deny);
    assert_eq!(policy.decide(&case.request(case.operation())).outcome, Outcome::Deny, "opening permits no call");
}

#[test]
fn resources_and_prompts_are_governed_by_their_own_actions() {
    let policy = compile(
        r#"@id("docs") permit (principal, action == Orders::Action::"mcp:resources/read", resource)
           when { context.input.uri like "file:///docs/*" && !(context.input.uri like "*..*") };
           @id("prompt") permit (principal, action == Orders::Action::"mcp:prompts/get", resource)
           when { context.input.name == "hello" && context.input.arguments == "{\"a\":\"1\"}" };"#,
    );
    let case = Case::refund(&policy);
    let upstream = &case.upstream;
    let read = |uri| policy.decide(&case.request(Operation::ReadResource { upstream, uri })).outcome;
    assert_eq!(read("file:///docs/a"), Outcome::Allow);
    assert_eq!(read("file:///docs/../etc/passwd"), Outcome::Deny);
    let arguments = object(json!({ "a": "1" }));
    let get = |name| policy.decide(&case.request(Operation::GetPrompt { upstream, name, arguments: &arguments })).outcome;
    assert_eq!(get("hello"), Outcome::Allow);
    assert_eq!(get("bye"), Outcome::Deny);
    let reading = Operation::ReadResource { upstream, uri: "" };
    assert!(policy.could_allow(&case.task, &case.agent, &reading));
    assert_eq!(policy.traits(&reading).unwrap().reading.sensitivity, domain::Sensitivity::Internal);
    let prompting = Operation::GetPrompt { upstream, name: "", arguments: &arguments };
    assert!(policy.traits(&prompting).unwrap().reading.untrusted, "unlabelled is the worst");
}

#[test]
fn an_answer_behind_no_request_leaves_within_reach_while_nothing_but_public_data_was_read() {
    // Whatever the policies say: none can be written about it.
    let policy = compile(r#"@id("all") permit (principal, action, resource);"#);
    let case = Case::refund(&policy);
    let answer = object(json!({ "roots": [] }));
    let (near, far) = (case.upstream.clone(), "mail".parse().unwrap());
    let decide = |case: &Case, upstream| {
        let operation = Operation::Answer { upstream, question: "roots/list", answer: &answer };
        let verdict = policy.decide(&case.request(operation));
        (verdict.outcome, verdict.reason)
    };
    assert_eq!(decide(&case, &near), (Outcome::Allow, None));
    assert_eq!(decide(&case, &far), (Outcome::Deny, Some(Reason::OutOfReach)));
    for sensitivity in ["internal", "confidential", "restricted"] {
        let read = Case::refund(&policy).with(|case| case.facts.labels.read_sensitivity = sensitivity.parse().unwrap());
        assert_eq!(decide(&read, &near), (Outcome::Deny, Some(Reason::NotPermitted)), "{sensitivity}");
    }
    let ownerless = Case::refund(&policy).with(|case| case.agent.owner = None);
    assert_eq!(decide(&ownerless, &near), (Outcome::Deny, Some(Reason::AgentNotEligible)));
}

#[test]
fn a_listing_never_hides_what_could_be_allowed() {
    let cases = [
        (OWN, true),
        // False whatever the arguments are: this task's own parameters settle it.
        (
            r#"@id("a") permit (principal is Intent::RefundOrder, action, resource) when { principal.urgent && context.facts.approved };"#,
            false,
        ),
        (
            r#"@id("a") permit (principal is Intent::RefundOrder, action, resource) when { context.facts.approved && principal.urgent };"#,
            false,
        ),
        (
            r#"@id("a") permit (principal is Intent::RefundOrder, action, resource) when { context.facts.approved || principal.urgent };"#,
            true,
        ),
        (
            r#"@id("a") permit (principal is Intent::RefundOrder, action, resource is Writ::Tool) when { resource.sink == "none" };"#,
            false,
        ),
        (
            r#"@id("a") permit (principal is Intent::RefundOrder, action, resource) when { if principal.urgent then true else context.facts.approved };"#,
            true,
        ),
        (
            r#"@id("a") permit (principal, action, resource); @id("b") forbid (principal, action, resource) unless { context.facts.approved };"#,
            true,
        ),
        (
            r#"@id("a") permit (principal, action, resource); @id("b") forbid (principal, action, resource is Writ::Tool) when { resource.sink == "internal" };"#,
            false,
        ),
        (r#"@id("a") permit (principal is Intent::LookAround, action, resource);"#, false),
        (r#"@id("a") forbid (principal, action, resource) unless { context.facts.approved };"#, false),
    ];
    for (cedar, listed) in cases {
        let policy = Policy::compile(&sources(cedar)).unwrap_or_else(|found| panic!("{found:#?}")).policy;
        assert_eq!(Case::refund(&policy).listed(&policy), listed, "{cedar}");
    }
}

#[test]
fn an_explanation_lists_every_applicable_policy() {
    let policy = compile(&format!(
        "{OWN} @id(\"guard\") forbid (principal, action, resource) when {{ context.facts.read_untrusted }};
         @id(\"elsewhere\") permit (principal, action == Orders::Action::\"get_order\", resource);"
    ));
    let case = with_arguments(&policy, json!({ "order_id": "A-2", "amount_cents": 1 }));
    let explanation = policy.explain(&case.request(case.operation()));
    let told: Vec<_> =
        explanation.considered.iter().map(|seen| (seen.rule.id.as_str(), seen.standing, seen.unmet.join("; "))).collect();
    insta::assert_debug_snapshot!(told, @r#"
    [
        (
            "guard",
            NotHeld,
            "`facts.read_untrusted` must be true",
        ),
        (
            "own",
            NotHeld,
            "`order_id` must be `A-1` (the task's `order_id`)",
        ),
    ]
    "#);
}

#[test]
fn huge_arguments_are_bounded_work() {
    let policy = compile(r#"@id("all") permit (principal, action, resource);"#);
    let mut deep = json!(1);
    for _ in 0..120 {
        deep = json!([deep]);
    }
    let case =
        with_arguments(&policy, json!({ "order_id": "x".repeat(3_000_000), "amount_cents": 1, "extra": { "deep": deep } }));
    check(&policy, &case, Outcome::Allow, None, "");
}
