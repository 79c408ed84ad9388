//! The act with a real database: an agent gets a login for its task, reads what it may, and loses it with the task. Owns the
//! target, its rules and the steps; whether there is a database at all is the stage's.

use super::database::Database;
use super::outsider::Operator;
use super::report::Report;
use super::stage::Stage;
use crate::agent::evidence::Evidence;
use crate::agent::{Agent, Declared};
use crate::cli::Failure;
use crate::cli::output::member;
use crate::credential::delivery::{Held, deliver};
use crate::credential::folder::Folder;
use crate::credential::{Manner, Task, Wanted, request, secret::SCRAM_ITERATIONS};
use crate::key_file;
use crate::web::connector;
use anyhow::Context;
use http::Method;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const FILES: [&str; 4] =
    ["targets/orders-db.toml", "agents/report-bot.toml", "policy/intents/report-orders.toml", "policy/report-orders.cedar"];
const AGENT: &str = "owner = \"support\"\npurpose = \"Reports the orders of a region.\"\nreview_by = \"2099-01-01\"\nintents = [\"report-orders\"]\n[[identity]]\nprovider = \"dev\"\nclaims = { sub = \"report-bot\" }\n";
const INTENT: &str = "name = \"report-orders\"\ndescription = \"Report the orders of one region.\"\nowner = \"support\"\ntargets = [\"orders-db\"]\n[params.region]\ntype = \"string\"\ndescription = \"The region, such as eu.\"\n[limits]\nlifetime_secs = 900\n";
const PERMIT: &str = "// Only its own region, and only with a secret that the agent makes itself.\n@id(\"report-own-region\")\npermit (\n  principal is Intent::ReportOrders,\n  action == OrdersDb::Action::\"read_orders\",\n  resource is Writ::Credential\n) when { context.input.region == principal.region && context.secret == \"caller\" };\n";
const TARGET: &str = r#"kind = "postgresql"
owner = "support"
description = "The orders."
[connect]
host = "127.0.0.1"
port = PORT
database = "orders"
user = "writ_broker"
password = { file = "secrets/orders-db" }
tls = "off"
[offers.read_orders]
description = "Reads the orders of one region."
template = "orders_read"
lifetime_secs = 300
clear_arguments = ["region"]
[offers.read_orders.params.region]
type = "string"
description = "The region."
"#;
const APPLICATION: &str = "
CREATE ROLE orders_read NOLOGIN;
CREATE DATABASE orders;
\\c orders
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE TABLE orders (id integer PRIMARY KEY, region text NOT NULL, total integer NOT NULL);
INSERT INTO orders VALUES (1, 'eu', 10), (2, 'us', 20), (3, 'eu', 30);
CREATE TABLE cards (number text);
";
const RULES: &str = "
GRANT SELECT ON orders TO orders_read;
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY by_region ON orders FOR SELECT TO orders_read USING (region = (SELECT writ_lease.param('region')));
";
/// Login roles of ours.
const STANDING: &str = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'jit\\_%'";
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes agent, intent, permit and target into the stage's folder, and lets the database's administrator do his part.
///
/// # Errors
/// What could not be written or installed.
pub(super) async fn prepare(dir: &Path, database: &Database) -> anyhow::Result<()> {
    for folder in ["targets", "secrets"] {
        key_file::create_private_dir(&dir.join(folder))?;
    }
    let password = crate::system::random_text::<24>();
    key_file::create(&dir.join("secrets/orders-db"), password.as_bytes())?;
    let target = TARGET.replace("PORT", &database.port().to_string());
    for (file, text) in FILES.into_iter().zip([target.as_str(), AGENT, INTENT, PERMIT]) {
        fs::write(dir.join(file), text)?;
    }
    let config = crate::config::load(&dir.join("writ.toml")).map_err(|error| anyhow::anyhow!("{error}"))?;
    let script = crate::target_files::install_script(&config.policy, &config.dir, "orders-db")?;
    database.sql("postgres", APPLICATION).await?;
    database.sql("orders", &script).await?;
    database.sql("orders", &format!("{RULES}ALTER ROLE writ_broker PASSWORD '{password}';")).await?;
    Ok(())
}

/// Takes back what [`prepare`] wrote, if it failed on the way: a stage without this act must be whole.
pub(super) fn withdraw(dir: &Path) {
    for file in FILES {
        // What was not written yet is not there.
        let _ = fs::remove_file(dir.join(file));
    }
}

/// Tells it, or says that it is left out and why.
pub(super) async fn tell(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let database = match &stage.database {
        Ok(database) => database,
        Err(why) => {
            report.left_out(&format!("a database login for one task: {why}"));
            return Ok(());
        }
    };
    report.chapter("A database login for one task: report the orders of the region eu");
    let evidence =
        Evidence::Development { issuer: Box::new(stage.issuer()?), subject: "report-bot".into(), audience: stage.url.clone() };
    let declared = Declared {
        intent: "report-orders".into(),
        parameters: json!({ "region": "eu" }).as_object().cloned().unwrap_or_default(),
        lifetime_secs: None,
        upstreams: Vec::new(),
    };
    let agent = Agent::open(stage.url.clone(), connector(None)?, evidence, declared).await?;
    probed(stage, report).await?;
    let held = issued(&agent, report, database).await?;
    let folder = Folder::create()?;
    let environment = deliver(std::slice::from_ref(&held), &folder)?.set;
    let psql = |statements: &[&str]| {
        let mut psql = Command::new(database.psql());
        // One after the other, so that the first one's answer is seen before the next one begins.
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1"]).args(statements.iter().flat_map(|sql| ["-c", sql]));
        psql.envs(&environment).stdin(Stdio::null());
        psql.stdout(Stdio::piped()).stderr(Stdio::piped());
        psql
    };
    within(report, psql(&["SELECT count(*), sum(total) FROM orders"])).await?;
    outside(report, ["SELECT * FROM cards", "DELETE FROM orders", "CREATE ROLE mine"].map(|sql| psql(&[sql]))).await?;
    other_region(&agent, report).await?;
    ended(&agent, report, psql(&["SELECT 'in'", "SELECT pg_sleep(600)"]), psql(&["SELECT 1"])).await?;
    nothing_left(stage, report, database).await
}

/// A target issues nothing before a real credential was issued, used, taken back and proved dead there.
async fn probed(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let (operator, began) = (Operator::of(stage)?, Instant::now());
    let state = loop {
        let target = operator.ask(Method::GET, "/v1/targets/orders-db").await?;
        let state = member(&target, "/health/state");
        if state == "healthy" || began.elapsed() > PATIENCE {
            break state;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    report.step(
        "writ target show orders-db: a real PostgreSQL, started for this demo",
        "healthy: a probe issued a login there, used it, took it back, and proved it dead",
        &state,
        state == "healthy",
    );
    Ok(())
}

async fn issued(agent: &Agent, report: &mut Report, database: &Database) -> Result<Held, Failure> {
    let held = ask(agent, "eu").await?;
    let user = held.fields.get("user").cloned().unwrap_or_default();
    let stored = format!("SELECT left(rolpassword, 14), rolvaliduntil IS NOT NULL FROM pg_authid WHERE rolname = '{user}'");
    let stored = if user.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        database.sql("orders", &stored).await?
    } else {
        String::new()
    };
    report.step(
        "report-bot asks for a login that reads the orders of eu",
        "a role of this task alone that expires by itself; the agent made the password, Writ and the database have a verifier",
        &format!("{user} until {}; at the database: {stored}", held.expires_at),
        user.starts_with("jit_") && stored == "SCRAM-SHA-256$|t",
    );
    Ok(held)
}

async fn ask(agent: &Agent, region: &str) -> Result<Held, Failure> {
    let mut wanted = Wanted::parse("orders-db/read_orders").map_err(Failure::new)?;
    wanted.parameters.insert("region".into(), Value::from(region));
    let manner = Manner { lifetime_secs: None, scram_iterations: SCRAM_ITERATIONS };
    request(&Task::Holder(agent.clone()), &wanted, manner).await
}

async fn within(report: &mut Report, mut psql: Command) -> anyhow::Result<()> {
    let output = psql.output().await.context("psql")?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    report.step(
        "psql, unmodified: how many orders, and their sum",
        "2 of 3 rows, 40: only those of its region",
        &said,
        said == "2|40",
    );
    Ok(())
}

async fn outside(report: &mut Report, attempts: [Command; 3]) -> anyhow::Result<()> {
    let (mut said, mut good) = (Vec::new(), true);
    for mut attempt in attempts {
        let output = attempt.output().await.context("psql")?;
        let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        good &= !output.status.success() && error.contains("permission denied");
        said.push(error);
    }
    report.step(
        "psql: read the table of cards, delete the orders, make a role of its own",
        "refused by the database itself",
        &said.join("; "),
        good,
    );
    Ok(())
}

async fn other_region(agent: &Agent, report: &mut Report) -> Result<(), Failure> {
    let (happened, good) = match ask(agent, "us").await {
        Ok(held) => (format!("it got {}", held.id), false),
        Err(failure) => (failure.to_string(), true),
    };
    report.step("it asks for a login that reads the orders of us", "refused by policy: its task is about eu", &happened, good);
    Ok(())
}

/// The end of the task, seen from a session that is open.
async fn ended(agent: &Agent, report: &mut Report, mut session: Command, mut again: Command) -> Result<(), Failure> {
    let mut session = session.kill_on_drop(true).spawn().context("psql")?;
    let mut lines = BufReader::new(session.stdout.take().context("psql")?).lines();
    let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.context("psql")?.context("psql")?.unwrap_or_default();
    let began = Instant::now();
    agent.end().await?;
    let over = tokio::time::timeout(PATIENCE, session.wait_with_output()).await;
    let took = began.elapsed().as_millis();
    let said = match over {
        Ok(Ok(output)) => String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_owned(),
        _ => "it goes on".to_owned(),
    };
    report.step(
        "a session is open in the middle of a query, and the task ends",
        "the session dies",
        &format!("{first}, then after {took} ms: {said}"),
        first == "in" && said.contains("terminating connection"),
    );
    let output = again.output().await.context("psql")?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    report.step("it logs in once more with the same password", "refused by the database", &said, !output.status.success());
    Ok(())
}

async fn nothing_left(stage: &Stage, report: &mut Report, database: &Database) -> Result<(), Failure> {
    let (operator, began) = (Operator::of(stage)?, Instant::now());
    let left = loop {
        let left = database.sql("orders", STANDING).await?;
        let standing = operator.ask(Method::GET, "/v1/credentials?standing=true").await?;
        if left == "0" && standing.pointer("/items/0").is_none() || began.elapsed() > PATIENCE {
            break left;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let steps = operator.ask(Method::GET, "/v1/audit/entries?type=credential.step&limit=4").await?;
    let steps = steps.get("items").and_then(Value::as_array).into_iter().flatten();
    let mut steps: Vec<_> = steps.map(|entry| member(entry, "/leaf/event/detail/state")).collect();
    steps.reverse();
    report.step(
        "what is left at the database, and what the log says",
        "no role; auth_closed, sessions_ended, residue_cleaned, verified_dead",
        &format!("{left} roles; {}", steps.join(", ")),
        left == "0" && steps.last().is_some_and(|state| state == "verified_dead"),
    );
    Ok(())
}
