//! Claims about the life of a task under `writ exec`: it ends with its command, however that ends, and if `exec` itself is
//! killed, its liveness ends it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod served;

use served::{Server, text};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

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
    // USR1 would end `exec` itself, and leave the command with an open task.
    for signal in ["TERM", "USR1"] {
        let script = format!("trap 'exit 42' {signal}; echo ready; while :; do sleep 0.05; done");
        let mut exec = server.exec(&REFUND, &["--", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(exec.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(text(&server.task(), "state"), "open");
        assert!(Command::new("kill").args([&format!("-{signal}"), &exec.id().to_string()]).status().unwrap().success());
        assert_eq!(exec.wait().unwrap().code(), Some(42), "{signal}");
        assert_eq!(text(&server.task(), "end_reason"), "completed", "{signal}");
    }
}

#[test]
fn a_signal_before_the_command_was_started_means_that_it_is_not() {
    let server = Server::start();
    let marker = server.dir.path().join("ran");
    let kill = |signal: &str, process: u32| {
        assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success())
    };
    // The server answers only after the signal has come.
    kill("-STOP", server.process.id());
    let script = format!("trap '' TERM; touch {}", marker.display());
    let mut exec = server.exec(&REFUND, &["--", "sh", "-c", &script]).spawn().unwrap();
    let handles_term = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", exec.id())).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() & (1 << 14) != 0
    };
    while !handles_term() {
        std::thread::yield_now();
    }
    kill("-TERM", exec.id());
    kill("-CONT", server.process.id());
    assert_eq!(exec.wait().unwrap().code(), Some(143));
    assert!(!marker.exists(), "it ran");
    let task = server.task();
    assert!(task.is_null() || text(&task, "state") == "ended", "{task:#}");
}

#[test]
fn text_that_looks_like_a_number_is_explained() {
    let server = Server::start();
    let refund = |order: &str| {
        let order = format!("order_id={order}");
        let declared = ["refund-order", "--param", &order, "--param", "max_amount_cents=5000"];
        server.exec(&declared, &["--", "true"]).output().unwrap()
    };
    let refused = refund("1001");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("--param 'order_id=\"1001\"'"), "{said}");
    let declared = ["refund-order", "--param", "order_id=A-1001", "--param", "max_amount_cents=-1"];
    let said = server.exec(&declared, &["--", "true"]).output().unwrap().stderr;
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("out of range") && !said.contains("quotes"), "{said}");
    assert!(refund("\"1001\"").status.success());
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

#[test]
fn the_stdio_bridge_ends_with_its_task_whether_or_not_its_answers_are_read() {
    let server = Server::start();
    for ended_by in ["its input", "a signal"] {
        let mut exec = server.exec(&TICKET, &["--stdio", "helpdesk"]);
        let mut exec = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = exec.stdin.take().unwrap();
        // The first answer is read, so that the task is open; the others fill the pipe and what is before it.
        input.write_all(b"not json\n").unwrap();
        let mut output = exec.stdout.take().unwrap();
        output.read_exact(&mut [0; 8]).unwrap();
        input.write_all("not json\n".repeat(800).as_bytes()).unwrap();
        let unread = ended_by == "its input";
        if unread {
            drop(input);
        } else {
            assert!(Command::new("kill").args(["-TERM", &exec.id().to_string()]).status().unwrap().success());
        }
        let status = exec.wait().unwrap();
        let mut said = String::new();
        exec.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!((status.code(), said.contains("were not read")), (Some(if unread { 1 } else { 143 }), unread), "{said}");
        assert_eq!(text(&server.task(), "end_reason"), "completed", "{ended_by}");
        drop(output);
    }
}

#[test]
fn only_who_was_told_the_path_reaches_the_endpoint() {
    let server = Server::start();
    let mut exec = server
        .exec(&REFUND, &["--", "sh", "-c", "echo $WRIT_MCP_HELPDESK_URL; exec sleep 60"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(exec.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let (host, path) = url.trim().strip_prefix("http://").unwrap().split_once('/').unwrap();
    let status = |path: &str, headers: &str| {
        let mut stream = TcpStream::connect(host).unwrap();
        write!(stream, "POST /{path} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let own = format!("host: {host}\r\n");
    assert!(!["403", "404"].contains(&&*status(path, &own)), "the command itself gets through");
    assert_eq!(status("helpdesk", &own), "404", "without the secret");
    assert_eq!(status(&format!("x{path}"), &own), "404", "with another secret");
    assert_eq!(status(&path.replace("helpdesk", "other"), &own), "404", "another upstream");
    assert_eq!(status(path, &format!("{own}origin: https://evil.example\r\n")), "403", "a page in a browser");
    assert_eq!(status(path, "host: evil.example\r\n"), "403", "a name that was bound to this address");
    exec.kill().unwrap();
    exec.wait().unwrap();
}
