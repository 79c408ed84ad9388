//! A small policy folder for tests: one upstream `orders` with tools that read, change and send, two intents, and
//! policies of every kind. What it allows is stated where it is used.

use domain::{Transport, Upstream};
use policy::render_lock;
use serde_json::{Value, json};

/// Tools of upstream `orders`, as it would list them.
#[must_use]
pub fn definitions() -> Vec<Value> {
    let tool = |name: &str, properties: Value, required: &[&str]| {
        json!({
            "name": name,
            "description": format!("the tool {name}"),
            "inputSchema": { "type": "object", "properties": properties, "required": required },
        })
    };
    let text = || json!({ "type": "string" });
    vec![
        tool("get_order", json!({ "order_id": text() }), &["order_id"]),
        tool(
            "refund",
            json!({ "order_id": text(), "amount_cents": { "type": "integer" }, "note": text() }),
            &["order_id", "amount_cents"],
        ),
        tool("read_ticket", json!({ "ticket_id": text() }), &["ticket_id"]),
        tool("send_email", json!({ "to": text(), "body": text() }), &["to", "body"]),
        tool("delete_everything", json!({}), &[]),
    ]
}

/// The files of the policy folder.
#[must_use]
pub fn policy_files() -> Vec<(&'static str, String)> {
    let orders = "orders".parse().unwrap();
    vec![
        ("intents/refund-order.toml", REFUND_ORDER.into()),
        ("intents/mail.toml", MAIL.into()),
        ("main.cedar", POLICIES.into()),
        ("tools/orders.toml", LABELS.into()),
        ("tools/orders.lock.json", render_lock(&orders, &definitions())),
    ]
}

/// Upstream `orders` at this URL.
#[must_use]
pub fn orders(url: &str) -> Upstream {
    Upstream {
        name: "orders".parse().unwrap(),
        owner: "team-shop".parse().unwrap(),
        transport: Transport::Http { url: url.into() },
        injection: None,
        timeout_secs: 10,
    }
}

const REFUND_ORDER: &str = r#"
name = "refund-order"
description = "Refund one order, up to an amount."
owner = "team-support"
reach = ["orders"]

[params.order_id]
type = "string"
description = "The order."

[params.max_amount_cents]
type = "integer"
description = "At most this much."
min = 1
max = 10000

[params.reason]
type = "string"
description = "Why; may hold personal data."
default = ""
sensitive = true

[limits]
lifetime_secs = 600
calls = 5
idle_secs = 120
"#;

const MAIL: &str = r#"
name = "mail"
description = "Send mail about tickets."
owner = "team-support"
reach = ["orders"]

[limits]
lifetime_secs = 600
calls = 5
"#;

const LABELS: &str = r#"
[tools.get_order]
sensitivity = "internal"
untrusted = false
sink = "none"
clear_arguments = ["order_id"]

[tools.refund]
sensitivity = "public"
untrusted = false
sink = "internal"
clear_arguments = ["order_id", "amount_cents"]

[tools.read_ticket]
sensitivity = "confidential"
untrusted = true
sink = "none"
clear_arguments = ["ticket_id"]

[tools.send_email]
sensitivity = "public"
untrusted = false
sink = "external"
"#;

const POLICIES: &str = r#"
@id("open-tasks")
permit (principal, action == Writ::Action::"open", resource);

@id("renew-tasks")
permit (principal, action == Writ::Action::"renew", resource);

@id("no-mail-tasks-from-untrusted-branch")
forbid (principal is Intent::Mail, action == Writ::Action::"open", resource)
when { context.facts.workload.hasTag("ref") && context.facts.workload.getTag("ref") != "refs/heads/main" };

@id("read-own-order")
permit (principal is Intent::RefundOrder, action == Orders::Action::"get_order", resource)
when { context.input.order_id == principal.order_id };

@id("refund-own-order")
permit (principal is Intent::RefundOrder, action == Orders::Action::"refund", resource)
when { context.input.order_id == principal.order_id && context.input.amount_cents <= principal.max_amount_cents };

@id("read-tickets")
permit (principal, action == Orders::Action::"read_ticket", resource);

@id("send-mail")
permit (principal is Intent::Mail, action == Orders::Action::"send_email", resource);

@id("no-exfiltration")
@approvers("team-security")
forbid (principal, action, resource is Writ::Tool)
when { resource.sink == "external" && context.facts.read_untrusted && context.facts.read_sensitivity > 1 }
unless { context.facts.approved };
"#;
