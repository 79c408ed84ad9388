//! Claims about the life of a task under `writ exec`: it ends with its command, however that ends, and if `exec` itself is
//! killed, its liveness ends it.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server over a fresh folder, whose tasks for tickets may be silent for two seconds only.
struct Server {
    dir: tempfile::TempDir,
    process: Child,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        assert!(writ(dir.path(), &["init", "."]).status.success());
        // Taken and given back: free at this moment.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        edit(&dir.path().join("writ.toml"), "127.0.0.1:8700", &format!("127.0.0.1:{port}"));
        edit(&dir.path().join("policy/intents/answer-ticket.toml"), "idle_secs = 300", "idle_secs = 2");
        let mut process = command(dir.path(), &["serve"]).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let serving = lines.by_ref().map_while(Result::ok).any(|line| line.contains("serving"));
        assert!(serving, "the server did not start");
        // Keep reading, so that the server never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { dir, process }
    }

    fn exec<'a>(&self, intent: &[&'a str], rest: &[&'a str]) -> Command {
        let args = [&["exec", "--dev", "support-bot", "--intent"], intent, rest].concat();
        command(self.dir.path(), &args)
    }

    /// The newest task.
    fn task(&self) -> Value {
        let output = writ(self.dir.path(), &["task", "list", "--limit", "1", "--json"]);
        let page: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        page.pointer("/items/0").cloned().unwrap_or_default()
    }

    /// Waits until the newest task is so.
    fn until(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let task = self.task();
            if so(&task) {
                return task;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {task:#}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(args).current_dir(dir).env_remove("WRIT_CONFIG").env_remove("WRIT_SERVER");
    command
}

fn writ(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

fn text<'a>(task: &'a Value, member: &str) -> &'a str {
    task.get(member).and_then(Value::as_str).unwrap_or_default()
}

const REFUND: [&str; 5] = ["refund-order", "--param", "order_id=A-1001", "--param", "max_amount_cents=5000"];
const TICKET: [&str; 3] = ["answer-ticket", "--param", "ticket_id=4710"];

#[test]
fn a_task_ends_with_its_command_however_that_ends() {
    let server = Server::start();
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        let output = server.exec(&REFUND, &["--", "sh", "-c", script]).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        let task = server.task();
        assert_eq!((text(&task, "state"), text(&task, "end_reason")), ("ended", "completed"), "{script}");
    }
    let output = server.exec(&REFUND, &["--", "/no/such/program"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(text(&server.task(), "state"), "ended", "a command that cannot be started leaves no task");
}

#[test]
fn the_command_gets_endpoints_and_a_task_but_no_token() {
    let server = Server::start();
    let output = server.exec(&REFUND, &["--", "sh", "-c", "env; cat \"$WRIT_MCP_CONFIG\""]).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["WRIT_TASK=tsk_", "WRIT_MCP_HELPDESK_URL=http://127.0.0.1:", "\"mcpServers\""] {
        assert!(shown.contains(part), "{part}");
    }
    assert!(!shown.contains("eyJ"), "no JWT reaches the command");
    let config = shown.lines().find_map(|line| line.strip_prefix("WRIT_MCP_CONFIG=")).unwrap();
    assert!(!Path::new(config).exists(), "the list of endpoints is gone with the command");
}

#[test]
fn a_signal_reaches_the_command_and_ends_the_task() {
    let server = Server::start();
    let script = "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done";
    let mut exec = server.exec(&REFUND, &["--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(exec.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(text(&server.task(), "state"), "open");
    assert!(Command::new("kill").args(["-TERM", &exec.id().to_string()]).status().unwrap().success());
    assert_eq!(exec.wait().unwrap().code(), Some(42));
    assert_eq!(text(&server.task(), "end_reason"), "completed");
}

#[test]
fn if_exec_itself_is_killed_liveness_ends_the_task() {
    let server = Server::start();
    let mut exec = server.exec(&TICKET, &["--", "sh", "-c", "echo ready; exec sleep 60"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(exec.stdout.take().unwrap()).read_line(&mut ready).unwrap();
    // Silent for longer than its limit, but alive: the heartbeat keeps it.
    let opened = Instant::now();
    server.until("it stays open while exec lives", |task| {
        text(task, "state") == "open" && opened.elapsed() > Duration::from_secs(4)
    });
    exec.kill().unwrap();
    exec.wait().unwrap();
    let task = server.until("it ends", |task| text(task, "state") == "ended");
    assert_eq!(text(&task, "end_reason"), "liveness");
}

#[test]
fn an_intent_that_is_not_the_agents_runs_no_command() {
    let server = Server::start();
    let marker = server.dir.path().join("ran");
    let output = server.exec(&["nonsense"], &["--", "touch", marker.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("may not declare intent"));
    assert!(!marker.exists());
}

#[test]
fn the_stdio_bridge_ends_its_task_with_its_input() {
    let server = Server::start();
    let mut exec = server.exec(&TICKET, &["--stdio", "helpdesk"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = exec.stdin.take().unwrap();
    writeln!(input, "not json").unwrap();
    let mut answer = String::new();
    BufReader::new(exec.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    assert!(answer.contains("-32700"), "{answer}");
    drop(input);
    assert!(exec.wait().unwrap().success());
    assert_eq!(text(&server.task(), "end_reason"), "completed");
}
