//! Decisions per second at 10, 1,000 and 10,000 policies, in one interleaved run: what counts is the ratio.
//!
//! `cargo bench -p policy --bench decide`. Each request is of one of 5,000 tasks and meets the same number of
//! applicable policies (seven: two permits and five general forbids), in a different place of a folder that grows
//! around it. Cedar's own authorizer over 10,000 policies takes 23 ms.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark")]

use domain::{
    Agent, AgentState, Binding, Facts, Labels, Operation, Outcome, Progress, Task, TaskId, TaskState, Timestamp, WorkloadIdentity,
};
use policy::{Policy, Request, SourceFile, Sources, render_lock};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

/// The program's own: where policies lie in memory is a part of what a decision costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 20_000;
/// Live tasks, in every folder: their data is as cold in the small one as in the large one.
const TASKS: usize = 5_000;

struct Folder {
    name: &'static str,
    policy: Policy,
    cases: Vec<Case>,
    nanos: [Vec<u64>; 3],
}

struct Case {
    task: Task,
    agent: Agent,
    facts: Facts,
    upstream: domain::UpstreamName,
    tool: domain::ToolName,
    good: Map<String, Value>,
    bad: Map<String, Value>,
}

fn main() {
    // Each pair of intent and tool has two permits of its own; five forbids are general.
    let shapes = [("10", 1, 3), ("1,000", 10, 50), ("10,000", 50, 100)];
    let mut folders: Vec<_> = shapes.into_iter().map(|(name, intents, tools)| folder(name, intents, tools)).collect();
    for round in 0..ROUNDS {
        for folder in &mut folders {
            let case = &folder.cases[round.wrapping_mul(2_654_435_761) % folder.cases.len()];
            let good = time(&folder.policy, case, &case.good, Outcome::Allow);
            let bad = time(&folder.policy, case, &case.bad, Outcome::Deny);
            let operation = Operation::CallTool { upstream: &case.upstream, tool: &case.tool, arguments: &case.good };
            let start = Instant::now();
            assert!(black_box(folder.policy.could_allow(&case.task, &case.agent, &operation)));
            let listed = nanos(start);
            for (times, one) in folder.nanos.iter_mut().zip([good, bad, listed]) {
                times.push(one);
            }
        }
    }
    println!(
        "| policies | question | p50 | p99 | per second, one core | p50 over 10 | p99 over 10 |\n|---|---|---|---|---|---|---|"
    );
    for (place, question) in ["allow", "deny, explained", "listed"].into_iter().enumerate() {
        let mut base = None;
        for folder in &mut folders {
            let times = &mut folder.nanos[place];
            times.sort_unstable();
            let micros = |share: usize| times[times.len() * share / 1_000] as f64 / 1_000.0;
            let (p50, p99) = (micros(500), micros(990));
            let (base50, base99) = *base.get_or_insert((p50, p99));
            println!(
                "| {} | {question} | {p50:.1} µs | {p99:.1} µs | {:.0} | {:.2}x | {:.2}x |",
                folder.name,
                1e6 / p50,
                p50 / base50,
                p99 / base99
            );
        }
    }
}

fn nanos(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap()
}

fn time(policy: &Policy, case: &Case, arguments: &Map<String, Value>, expected: Outcome) -> u64 {
    let operation = Operation::CallTool { upstream: &case.upstream, tool: &case.tool, arguments };
    let request = Request { task: &case.task, agent: &case.agent, workload: &case.task.workload, operation, facts: &case.facts };
    let start = Instant::now();
    let verdict = black_box(policy.decide(black_box(&request)));
    let nanos = nanos(start);
    assert_eq!(verdict.outcome, expected, "{verdict:?}");
    nanos
}

fn folder(name: &'static str, intents: usize, tools: usize) -> Folder {
    let mut sources = Sources::default();
    let mut file = |path: String, text: String| sources.files.push(SourceFile { path, text });
    let mut cedar = String::new();
    let general = [
        "context.facts.binding == \"bearer\"",
        "context.facts.read_untrusted && resource.sink == \"external\"",
        "context.facts.attested_secs_ago > 3600",
        "context.facts.calls_used > 1000",
        "principal.agent.owner == Writ::Owner::\"nobody\"",
    ];
    for (place, condition) in general.iter().enumerate() {
        writeln!(cedar, "@id(\"general-{place}\") forbid (principal, action, resource is Writ::Tool) when {{ {condition} }};")
            .unwrap();
    }
    let params =
        "\n[params.order_id]\ntype = \"string\"\ndescription = \"d\"\n[params.max]\ntype = \"integer\"\ndescription = \"d\"\n";
    for intent in 0..intents {
        let text = format!("name = \"intent-{intent}\"\ndescription = \"d\"\nowner = \"o\"\nreach = [\"orders\"]\n{params}");
        file(format!("intents/{intent}.toml"), text);
        for tool in 0..tools {
            let scope = format!("principal is Intent::Intent{intent}, action == Orders::Action::\"tool_{tool}\", resource");
            writeln!(
                cedar,
                "@id(\"own-{intent}-{tool}\") permit ({scope}) when {{ context.input.order_id == principal.order_id && context.input.amount <= principal.max }};
                 @id(\"odd-{intent}-{tool}\") permit ({scope}) when {{ context.input has note && context.input.note == \"x\" }};"
            )
            .unwrap();
        }
    }
    let definitions: Vec<Value> = (0..tools).map(|tool| definition(&format!("tool_{tool}"))).collect();
    file("main.cedar".to_owned(), cedar);
    file("tools/orders.lock.json".to_owned(), render_lock(&"orders".parse().unwrap(), &definitions));
    file("tools/orders.toml".to_owned(), "[defaults]\nsink = \"none\"\n".to_owned());
    let start = Instant::now();
    let policy = Policy::compile(&sources).unwrap().policy;
    println!("{name}: {} policies compiled in {:?}", policy.rules().count(), start.elapsed());
    let cases = (0..intents).flat_map(|intent| (0..tools).map(move |tool| (intent, tool)));
    let cases = cases.cycle().take(TASKS).map(|(intent, tool)| case(&policy, intent, tool)).collect();
    Folder { name, policy, cases, nanos: Default::default() }
}

fn definition(name: &str) -> Value {
    json!({ "name": name, "inputSchema": { "type": "object", "properties": {
        "order_id": { "type": "string" }, "amount": { "type": "integer" }, "note": { "type": "string" },
        "body": { "type": "string" }, "lines": { "type": "array", "items": { "type": "string" } },
    }, "required": ["order_id", "amount"] } })
}

fn case(policy: &Policy, intent: usize, tool: usize) -> Case {
    let intent = policy.intent(&format!("intent-{intent}").parse().unwrap()).unwrap();
    let facts = Facts {
        now: Timestamp::from_secs(1_790_000_000),
        labels: Labels::default(),
        approved: false,
        calls_used: 3,
        binding: Binding::Dpop,
        attested_secs_ago: 10,
    };
    let object = |value: Value| value.as_object().unwrap().clone();
    let workload = WorkloadIdentity {
        provider: "ci".parse().unwrap(),
        issuer: "https://ci.example".to_owned(),
        subject: "repo:a/b".to_owned(),
        claims: object(json!({ "environment": "production" })),
    };
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(tool as u64).to_be_bytes());
    let progress =
        Progress { calls_used: 3, labels: facts.labels, seen_at: facts.now, attested_at: facts.now, state: TaskState::Open };
    let task = Task {
        id: TaskId::from_bytes(id),
        agent: "bot".parse().unwrap(),
        intent: intent.name.clone(),
        params: intent.bind(&object(json!({ "order_id": "A-1001", "max": 5000 }))).unwrap(),
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
    let arguments = |amount: i64| {
        object(json!({ "order_id": "A-1001", "amount": amount, "body": "b".repeat(500), "lines": ["a", "b", "c"] }))
    };
    Case {
        task,
        agent,
        facts,
        upstream: "orders".parse().unwrap(),
        tool: format!("tool_{tool}").parse().unwrap(),
        good: arguments(4_200),
        bad: arguments(900_000),
    }
}
