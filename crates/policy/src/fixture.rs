//! A small policy folder and its requests, for this crate's own tests.

use crate::{Compiled, Diagnostic, Policy, Request, SourceFile, Sources, render_lock};
use domain::{
    Agent, AgentState, Binding, Facts, Labels, Operation, Progress, Sensitivity, Task, TaskId, TaskState, Timestamp, ToolName,
    UpstreamName, Verdict, WorkloadIdentity,
};
use serde_json::{Map, Value, json};

pub(crate) const INTENT: &str = r#"
name = "refund-order"
description = "Refund one order."
owner = "support"
reach = ["orders"]
[params.order_id]
type = "string"
description = "The order."
[params.max_amount_cents]
type = "integer"
description = "The most."
max = 50000
[params.note]
type = "string"
description = "Why."
default = ""
sensitive = true
[params.tags]
type = "strings"
description = "Marks."
default = []
[params.urgent]
type = "boolean"
description = "Now."
default = false
"#;

pub(crate) const OTHER_INTENT: &str = r#"
name = "look-around"
description = "Look at orders."
owner = "support"
reach = ["orders", "crm"]
"#;

pub(crate) const LABELS: &str = r#"
[resources]
untrusted = false
sensitivity = "internal"
sink = "none"
[tools.refund]
untrusted = false
sensitivity = "internal"
sink = "internal"
clear_arguments = ["amount_cents"]
[tools.get_order]
untrusted = false
sensitivity = "internal"
sink = "none"
[tools.send]
untrusted = false
sensitivity = "internal"
sink = "external"
"#;

pub(crate) fn definitions() -> Vec<Value> {
    vec![
        json!({ "name": "refund", "description": "Refund.", "inputSchema": { "type": "object", "properties": {
            "order_id": { "type": "string" },
            "amount_cents": { "type": "integer" },
            "fraction": { "type": "number" },
            "lines": { "type": "array", "items": { "type": "string" } },
            "extra": { "type": "object" },
            "ship": { "type": "object", "properties": { "city": { "type": "string" }, "zip": { "type": "integer" } }, "required": ["city"] },
            "why": { "anyOf": [{ "type": "string" }, { "type": "null" }] },
        }, "required": ["order_id", "amount_cents"] } }),
        json!({ "name": "get_order", "inputSchema": { "type": "object", "properties": { "order_id": { "type": "string" } }, "required": ["order_id"] } }),
        json!({ "name": "send", "inputSchema": { "type": "object", "properties": { "to": { "type": "string" } }, "required": ["to"] } }),
    ]
}

/// The folder with these policies.
pub(crate) fn sources(cedar: &str) -> Sources {
    let upstream: UpstreamName = "orders".parse().unwrap();
    let crm: UpstreamName = "crm".parse().unwrap();
    let find = json!({ "name": "find", "inputSchema": { "type": "object", "properties": { "query": { "type": "string" } } } });
    folder(&[
        ("intents/refund-order.toml", INTENT),
        ("intents/look-around.toml", OTHER_INTENT),
        ("tools/orders.toml", LABELS),
        ("tools/orders.lock.json", &render_lock(&upstream, &definitions())),
        ("tools/crm.toml", "[tools.find]\nsink = \"none\"\n"),
        ("tools/crm.lock.json", &render_lock(&crm, &[find])),
        ("main.cedar", cedar),
    ])
}

pub(crate) fn folder(files: &[(&str, &str)]) -> Sources {
    Sources {
        files: files.iter().map(|(path, text)| SourceFile { path: (*path).to_owned(), text: (*text).to_owned() }).collect(),
    }
}

pub(crate) fn compile(cedar: &str) -> Policy {
    match Policy::compile(&sources(cedar)) {
        Ok(Compiled { policy, warnings }) => {
            assert!(warnings.is_empty(), "{warnings:#?}");
            policy
        }
        Err(found) => panic!("{found:#?}"),
    }
}

pub(crate) fn findings(sources: &Sources) -> Vec<Diagnostic> {
    match Policy::compile(sources) {
        Ok(compiled) => compiled.warnings,
        Err(found) => found,
    }
}

/// What is asked, with what a test changes about it.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) task: Task,
    pub(crate) agent: Agent,
    pub(crate) facts: Facts,
    pub(crate) upstream: UpstreamName,
    pub(crate) tool: ToolName,
    pub(crate) arguments: Map<String, Value>,
}

impl Case {
    /// A refund of 100 cents of the task's own order.
    pub(crate) fn refund(policy: &Policy) -> Self {
        let params = json!({ "order_id": "A-1", "max_amount_cents": 5000 });
        Self::new(policy, "refund-order", params, "refund", json!({ "order_id": "A-1", "amount_cents": 100 }))
    }

    pub(crate) fn new(policy: &Policy, intent: &str, params: Value, tool: &str, arguments: Value) -> Self {
        let intent = policy.intent(&intent.parse().unwrap()).unwrap();
        let workload = WorkloadIdentity {
            provider: "ci".parse().unwrap(),
            issuer: "https://ci.example".to_owned(),
            subject: "repo:a/b".to_owned(),
            claims: object(json!({ "environment": "production", "job": { "runner": "hosted" } })),
        };
        let facts = Facts {
            now: Timestamp::from_secs(1_790_000_000),
            labels: Labels { read_untrusted: false, read_sensitivity: Sensitivity::Public },
            approved: false,
            calls_used: 3,
            binding: Binding::Dpop,
            attested_secs_ago: 10,
        };
        let progress =
            Progress { calls_used: 3, labels: facts.labels, seen_at: facts.now, attested_at: facts.now, state: TaskState::Open };
        let task = Task {
            id: TaskId::from_bytes([7; 16]),
            agent: "bot".parse().unwrap(),
            intent: intent.name.clone(),
            params: intent.bind(&object(params)).unwrap(),
            opened_at: facts.now,
            deadline: facts.now.plus_secs(600),
            calls_max: 10,
            idle_secs: None,
            workload,
            predecessor: None,
            progress,
        };
        let agent = Agent {
            id: "bot".parse().unwrap(),
            owner: Some("support".parse().unwrap()),
            purpose: String::new(),
            rules: Vec::new(),
            intents: vec![intent.name.clone()],
            review_by: Timestamp::from_millis(i64::MAX),
            state: AgentState::Active,
            allow_bearer: false,
            declared: false,
        };
        let (upstream, tool) = tool.split_once('/').unwrap_or(("orders", tool));
        Self {
            task,
            agent,
            facts,
            upstream: upstream.parse().unwrap(),
            tool: tool.parse().unwrap(),
            arguments: object(arguments),
        }
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn operation(&self) -> Operation<'_> {
        Operation::CallTool { upstream: &self.upstream, tool: &self.tool, arguments: &self.arguments }
    }

    pub(crate) fn request<'a>(&'a self, operation: Operation<'a>) -> Request<'a> {
        Request { task: &self.task, agent: &self.agent, workload: &self.task.workload, operation, facts: &self.facts }
    }

    pub(crate) fn decide(&self, policy: &Policy) -> Verdict {
        policy.decide(&self.request(self.operation()))
    }

    pub(crate) fn listed(&self, policy: &Policy) -> bool {
        policy.could_allow(&self.task, &self.agent, &self.operation())
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        other => panic!("{other} is not an object"),
    }
}
