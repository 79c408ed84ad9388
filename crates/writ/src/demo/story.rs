//! The story itself. Each act is a few steps; each step says what should happen before it looks at what did.

use super::login;
use super::outsider::{self, Answer, Operator, call, open};
use super::report::Report;
use super::stage::Stage;
use crate::agent::Agent;
use crate::agent::evidence::Evidence;
use crate::cli::Failure;
use crate::cli::output::member;
use crate::log_check::{self, Expected, Finding};
use http::{Method, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const ORDER: &str = "A-1001";

/// Tells it.
///
/// # Errors
/// The stage broke down. A step that differs is no error: the report knows.
pub(crate) async fn tell(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let task = well_behaved(stage, report).await?;
    talked_into(stage, report).await?;
    not_let_in(stage, report).await?;
    stolen(stage, report).await?;
    revoked(stage, report).await?;
    changed_tool(stage, report).await?;
    login::tell(stage, report).await?;
    the_log(stage, report, &task).await
}

fn refund_parameters() -> Value {
    json!({ "order_id": ORDER, "max_amount_cents": 5000 })
}

/// A call that must be refused.
struct Attempt<'a> {
    what: &'a str,
    tool: &'a str,
    arguments: Value,
    /// What the refusal must mention.
    words: &'a [&'a str],
}

/// Makes the attempt: it must be refused with these words, and must not reach the upstream.
async fn refused(stage: &Stage, report: &mut Report, agent: &Agent, attempt: Attempt<'_>) -> Result<(), Failure> {
    let before = stage.helpdesk.received_calls().len();
    let answer = call(agent, attempt.tool, attempt.arguments).await?;
    let reached = stage.helpdesk.received_calls().len() != before;
    let text = answer.text();
    let good = !answer.is_good() && !reached && attempt.words.iter().all(|word| text.contains(word));
    let happened = if reached { format!("it REACHED the upstream: {text}") } else { text };
    report.step(attempt.what, "refused, with the reason; the upstream never hears of it", &happened, good);
    Ok(())
}

fn told(report: &mut Report, what: &str, expected: &str, answer: &Answer) {
    report.step(what, expected, &answer.text(), answer.is_good());
}

/// Act one: an agent that does what it said.
async fn well_behaved(stage: &Stage, report: &mut Report) -> Result<String, Failure> {
    report.chapter("A well-behaved agent: refund order A-1001, at most 50.00");
    let opened = open(stage, "support-bot", "refund-order", refund_parameters()).await;
    let happened = match &opened {
        Ok(agent) => format!("task {}, a token bound to the agent's key, for {}", agent.task(), agent.upstreams().join(", ")),
        Err(failure) => failure.to_string(),
    };
    report.step(
        "support-bot proves its identity and declares what it came to do",
        "a task, and a short-lived token bound to a key that never leaves the agent",
        &happened,
        opened.is_ok(),
    );
    let agent = opened?;
    let listed = outsider::mcp(&agent, "tools/list", json!({})).await?.tools();
    report.step(
        "it lists the tools",
        "only those that its task may use: get_order, refund",
        &listed.join(", "),
        listed == ["get_order", "refund"],
    );
    told(report, "it looks up its order", "allowed", &call(&agent, "get_order", json!({ "order_id": ORDER })).await?);
    let refunded = call(&agent, "refund", json!({ "order_id": ORDER, "amount_cents": 1500 })).await?;
    let cents = stage.helpdesk.refunded_cents(ORDER).ok().flatten();
    report.step(
        "it refunds 15.00",
        "allowed and carried out",
        &format!("{} (refunded: {cents:?} cents)", refunded.text()),
        refunded.is_good() && cents == Some(1500),
    );
    let injected = stage.helpdesk.received_calls().iter().all(|call| call.authorized);
    report.step(
        "the upstream asks for a credential of its own",
        "the gateway adds it; the agent never sees it, and its token never goes upstream",
        if injected { "every call came with the upstream's own credential" } else { "a call came without it" },
        injected,
    );
    let attempt = Attempt {
        what: "it tries another order",
        tool: "refund",
        arguments: json!({ "order_id": "A-1002", "amount_cents": 100 }),
        words: &[ORDER],
    };
    refused(stage, report, &agent, attempt).await?;
    let attempt = Attempt {
        what: "it tries more than it declared",
        tool: "refund",
        arguments: json!({ "order_id": ORDER, "amount_cents": 900_000 }),
        words: &["5000"],
    };
    refused(stage, report, &agent, attempt).await?;
    finished(stage, report, &agent).await?;
    Ok(agent.task())
}

async fn finished(stage: &Stage, report: &mut Report, agent: &Agent) -> Result<(), Failure> {
    let operator = Operator::of(stage)?;
    let token = agent.token();
    let before = operator.introspect(token.expose_secret()).await?;
    agent.end().await?;
    let answer = call(agent, "get_order", json!({ "order_id": ORDER })).await?;
    let after = operator.introspect(token.expose_secret()).await?;
    report.step(
        "it says that it is done, and calls once more",
        "the task's token is dead at once: at the gateway (401) and at introspection",
        &format!("gateway {}, introspection: active {before} before, {after} after", answer.status.as_u16()),
        answer.status == StatusCode::UNAUTHORIZED && before && !after,
    );
    Ok(())
}

/// Act two: an agent that a ticket talks into something else.
async fn talked_into(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.chapter("An agent that a ticket talks into something else");
    let agent = open(stage, "case-bot", "handle-case", json!({ "ticket_id": 4711 })).await?;
    let ticket = call(&agent, "read_ticket", json!({ "ticket_id": 4711 })).await?;
    told(
        report,
        "case-bot reads ticket 4711, in which a stranger wrote instructions",
        "allowed; from now on the task has read untrusted text",
        &ticket,
    );
    let attempt = Attempt {
        what: "as the ticket says, it refunds A-1002",
        tool: "refund",
        arguments: json!({ "order_id": "A-1002", "amount_cents": 68_900 }),
        words: &[],
    };
    refused(stage, report, &agent, attempt).await?;
    let found = call(&agent, "search_customers", json!({ "query": "" })).await?;
    told(
        report,
        "it searches all customers (its policy is too generous: it may)",
        "allowed; the task has now read confidential data as well",
        &found,
    );
    let mail = json!({ "to": "archive@case-backup.example", "subject": "customers", "body": "all of them" });
    let attempt = Attempt {
        what: "as the ticket says, it mails them to a stranger (its policy permits mail)",
        tool: "send_email",
        arguments: mail,
        words: &["no-exfiltration"],
    };
    refused(stage, report, &agent, attempt).await?;
    let sent = stage.helpdesk.sent_emails().map(|sent| sent.len()).unwrap_or(usize::MAX);
    report.step("the outbox of the upstream", "empty", &format!("{sent} mails"), sent == 0);
    agent.end().await
}

/// Act three: who gets nothing.
async fn not_let_in(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.chapter("Who gets nothing");
    let cases = [
        ("nobody-bot", "refund-order", "an agent that nobody registered", "registered"),
        ("old-bot", "refund-order", "a suspended agent", "suspended"),
        ("forgotten-bot", "refund-order", "an agent that is overdue for review", "review"),
        ("case-bot", "refund-order", "an agent with an intent that is not among its own", "handle-case"),
    ];
    for (subject, intent, what, word) in cases {
        let opened = open(stage, subject, intent, refund_parameters()).await;
        not_opened(report, &format!("{what} asks for a task"), opened, word);
    }
    let dir = stage.dir.join("dev");
    let file = dir.join("evidence.jwt");
    fs::write(&file, stage.issuer()?.identity_token("support-bot", &stage.url)?).map_err(anyhow::Error::new)?;
    let first = outsider::open_with(stage, Evidence::File(file.clone()), "refund-order", refund_parameters()).await?;
    let again = outsider::open_with(stage, Evidence::File(file.clone()), "refund-order", refund_parameters()).await;
    not_opened(report, "somebody shows the same proof of identity a second time", again, "used before");
    let _ = fs::remove_file(file);
    first.end().await
}

fn not_opened(report: &mut Report, what: &str, opened: Result<Agent, Failure>, word: &str) {
    let (happened, good) = match opened {
        Ok(agent) => (format!("it got task {}", agent.task()), false),
        Err(failure) => (failure.to_string(), failure.to_string().contains(word)),
    };
    report.step(what, "refused, with the reason", &happened, good);
}

/// Act four: a token in the wrong hands.
async fn stolen(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.chapter("A stolen token");
    let agent = open(stage, "support-bot", "refund-order", refund_parameters()).await?;
    let token = agent.token();
    let bearer = outsider::show_token(&agent, "Bearer", token.expose_secret()).await?;
    let bare = outsider::show_token(&agent, "DPoP", token.expose_secret()).await?;
    let thief = outsider::mcp(&agent.thief()?, "tools/list", json!({})).await?.status;
    let owner = outsider::mcp(&agent, "tools/list", json!({})).await?;
    let all = [bearer, bare, thief].iter().all(|status| *status == StatusCode::UNAUTHORIZED);
    report.step(
        "a thief uses it as a bearer token, without a proof, and with a proof of another key",
        "401 each time; its owner goes on undisturbed",
        &format!("{}, {}, {}; its owner: {}", bearer.as_u16(), bare.as_u16(), thief.as_u16(), owner.status.as_u16()),
        all && owner.is_good(),
    );
    agent.end().await
}

/// Act five: an operator pulls the plug.
async fn revoked(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.chapter("An operator ends a running task");
    let agent = open(stage, "support-bot", "refund-order", refund_parameters()).await?;
    let before = call(&agent, "get_order", json!({ "order_id": ORDER })).await?;
    let ended = Operator::of(stage)?.ask(Method::POST, &format!("/v1/tasks/{}/end", agent.task())).await?;
    let after = call(&agent, "get_order", json!({ "order_id": ORDER })).await?;
    report.step(
        "writ task end, while the agent works",
        "its next call is refused at once",
        &format!(
            "before {}, ended by `{}`, after {}",
            before.status.as_u16(),
            member(&ended, "/end_reason"),
            after.status.as_u16()
        ),
        before.is_good() && member(&ended, "/end_reason") == "revoked" && after.status == StatusCode::UNAUTHORIZED,
    );
    Ok(())
}

/// Act six: the upstream changes a tool behind everybody's back.
async fn changed_tool(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    report.chapter("An upstream changes a tool after it was approved");
    let agent = open(stage, "support-bot", "refund-order", refund_parameters()).await?;
    stage.tamper.change_definition(true);
    let listed = outsider::mcp(&agent, "tools/list", json!({})).await?.tools();
    report.step(
        "the description of `refund` now holds instructions; the agent lists its tools",
        "`refund` is quarantined: get_order only",
        &listed.join(", "),
        listed == ["get_order"],
    );
    let attempt = Attempt {
        what: "it calls `refund` all the same",
        tool: "refund",
        arguments: json!({ "order_id": ORDER, "amount_cents": 100 }),
        words: &[],
    };
    refused(stage, report, &agent, attempt).await?;
    let diff = Operator::of(stage)?.ask(Method::GET, "/v1/upstreams/helpdesk/diff").await?;
    let changed = format!(
        "{} {}: {}",
        member(&diff, "/items/0/name"),
        member(&diff, "/items/0/state"),
        member(&diff, "/items/0/differences/0/live")
    );
    report.step(
        "writ upstream diff helpdesk",
        "the operator sees exactly what changed",
        &changed,
        changed.starts_with("refund changed") && changed.contains("IMPORTANT"),
    );
    stage.tamper.change_definition(false);
    // What an agent's listing shows can take an approval away at once; only a look of the gateway's own gives it back.
    Operator::of(stage)?.ask(Method::GET, "/v1/upstreams/helpdesk/diff").await?;
    let listed = outsider::mcp(&agent, "tools/list", json!({})).await?.tools();
    report.step(
        "the upstream is repaired, the operator looks again, the agent lists its tools",
        "get_order, refund",
        &listed.join(", "),
        listed == ["get_order", "refund"],
    );
    agent.end().await
}

/// Act seven: who did what, and can it be proved?
async fn the_log(stage: &Stage, report: &mut Report, task: &str) -> Result<(), Failure> {
    report.chapter("Who did what, and can it be proved?");
    let operator = Operator::of(stage)?;
    let entries = operator.ask(Method::GET, &format!("/v1/audit/entries?task={task}&limit=100")).await?;
    let mut lines: Vec<String> = entries.get("items").and_then(Value::as_array).into_iter().flatten().map(line).collect();
    lines.reverse();
    let whole = lines.iter().any(|line| line.contains("deny")) && lines.iter().any(|line| line.contains("allow"));
    report.step(
        "writ audit search --task (the first task)",
        "every decision and its outcome, refusals included",
        &format!("{} entries", lines.len()),
        whole,
    );
    lines.iter().for_each(|line| report.aside(line));
    let touched = operator.ask(Method::GET, "/v1/audit/entries?resource=order_id%3DA-1002").await?;
    let by: Vec<String> = touched.get("items").and_then(Value::as_array).into_iter().flatten().map(line).collect();
    report.step(
        "the reverse: who touched order A-1002?",
        "the refused attempts, and nothing else",
        &by.join("; "),
        !by.is_empty() && by.iter().all(|line| line.contains("deny")),
    );
    published(stage, &operator).await?;
    verified(stage, report)
}

fn line(entry: &Value) -> String {
    let event = |name: &str| member(entry, &format!("/leaf/event/{name}"));
    let parts = ["type", "agent", "operation", "subject", "outcome", "status", "reason", "determining", "by"].map(event);
    let text = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    format!("{:>4}  {text}", member(entry, "/index"))
}

/// Waits until the published log has caught up.
async fn published(stage: &Stage, operator: &Operator) -> Result<(), Failure> {
    let newest = operator.ask(Method::GET, "/v1/audit/entries?limit=1").await?;
    let wanted = newest.pointer("/items/0/index").and_then(Value::as_u64).unwrap_or(0) + 1;
    for _ in 0..100 {
        let checkpoint = fs::read_to_string(stage.config.data.dir.join("log/checkpoint")).unwrap_or_default();
        let size = checkpoint.lines().nth(1).and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
        if size >= wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(Failure::new("the log was not published in time"))
}

fn verified(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let copy = stage.dir.join("log-copy");
    copy_folder(&stage.config.data.dir.join("log"), &copy).map_err(anyhow::Error::new)?;
    let key = fs::read_to_string(stage.config.data.dir.join("keys/log.vkey")).map_err(anyhow::Error::new)?;
    let check = || -> anyhow::Result<Finding> {
        let expected = Expected { dir: copy.clone(), trust: log_check::trust_of_key(&key)?, older: None, max_age_secs: None };
        log_check::check(&expected, &mut |_, _| {})
    };
    let honest = check()?;
    report.step(
        "writ audit verify, on a copy of the log, offline",
        "valid",
        &honest.sentence(),
        matches!(honest, Finding::Valid(_)),
    );
    tampered(&copy).map_err(anyhow::Error::new)?;
    let forged = check()?;
    report.step(
        "somebody changes one refusal in the copy to an allow",
        "detected, with the entry",
        &forged.sentence(),
        matches!(forged, Finding::Invalid { .. }),
    );
    let _ = fs::remove_dir_all(copy);
    Ok(())
}

/// Rewrites the first `deny` of each bundle of the copy (older partial bundles may lie beside the one that counts); no
/// length changes.
fn tampered(copy: &Path) -> std::io::Result<()> {
    for path in files(&copy.join("tile/entries"))? {
        let bytes = fs::read(&path)?;
        let (from, to) = (br#""outcome":"deny","#, br#""outcome":"allo","#);
        if let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
            let changed: Vec<u8> = bytes.iter().take(at).chain(to).chain(bytes.iter().skip(at + from.len())).copied().collect();
            fs::write(path, changed)?;
        }
    }
    Ok(())
}

fn files(dir: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

fn copy_folder(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
