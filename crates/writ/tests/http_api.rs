//! Claims about HTTP APIs in the whole product: `writ exec`, the server, an API that records, an unmodified curl. Skips loudly
//! where there is no curl (fails if WRIT_REQUIRE_SERVICES is set).
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other test files need more of it")]
mod served;

use served::Server;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

const SECRET: &str = "sk-live-0123456789abcdef";

const INTENT: &str = r#"
name = "triage"
description = "Work on the issues of one repository."
owner = "support"
targets = ["issues"]

[params.repo]
type = "string"
description = "The repository."
"#;

const POLICY: &str = r#"
@id("own-repository")
permit (principal is Intent::Triage, action == Issues::Action::"list", resource is Writ::Route)
when { context.input.repo == principal.repo };
"#;

const TARGET: &str = r#"
kind = "http"
owner = "support"
description = "Issues of repositories."

[connect]
url = "http://127.0.0.1:PORT/v1"
addresses = ["127.0.0.1"]
auth = { form = "bearer", secret = { file = "secrets/issues" } }

[limits]
requests_per_minute = 100

[offers.list]
description = "Lists the issues of a repository."
method = "GET"
path = "/repos/{repo}/issues"
query = { page = "page" }
reading = { untrusted = true, sensitivity = "internal" }
sink = "none"
[offers.list.params]
repo = { type = "string", description = "The repository." }
page = { type = "integer", description = "The page.", default = 1 }
"#;

/// An API that says which request it got; on the page 9, with the credential. Gives its port and what it saw.
fn api() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&seen);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.extend_from_slice(&byte);
            }
            let head = String::from_utf8(head).unwrap();
            let line = head.lines().next().unwrap_or_default().to_owned();
            let body = if line.contains("page=9") { head.clone() } else { line };
            heard.lock().unwrap().push(head);
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (port, seen)
}

fn prepare(dir: &Path, port: u16) {
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("policy/intents/triage.toml", INTENT);
    write("policy/triage.cedar", POLICY);
    write("targets/issues.toml", &TARGET.replace("PORT", &port.to_string()));
    write("secrets/issues", SECRET);
    let agent = dir.join("agents/support-bot.toml");
    let text = fs::read_to_string(&agent).unwrap();
    fs::write(&agent, text.replacen("intents = [", "intents = [\"triage\", ", 1)).unwrap();
}

#[test]
fn a_command_uses_an_api_without_its_key() {
    if Command::new("curl").arg("--version").output().is_err() {
        #[expect(clippy::disallowed_methods, reason = "whether services must be there is said by whoever runs the tests")]
        let required = std::env::var_os("WRIT_REQUIRE_SERVICES").is_some();
        assert!(!required, "curl is missing");
        return eprintln!("SKIPPED: there is no curl");
    }
    let (port, seen) = api();
    let server = Server::start_with(|dir| prepare(dir, port));
    let script = r#"
        curl -s -H 'Authorization: Bearer placeholder' "$WRIT_HTTP_ISSUES_URL/repos/shop/issues?page=2"; echo
        curl -s -o /dev/null -w '%{http_code}\n' "$WRIT_HTTP_ISSUES_URL/repos/private/issues"
        curl -s -o /dev/null -w '%{http_code}\n' "$WRIT_HTTP_ISSUES_URL/admin"
        curl -s -o /dev/null -w '%{http_code}\n' -H 'X-Api-Key: found' "$WRIT_HTTP_ISSUES_URL/repos/shop/issues"
        curl -s "$WRIT_HTTP_ISSUES_URL/repos/shop/issues?page=9"; echo
        env
    "#;
    let output = server.exec(&["triage", "--param", "repo=shop"], &["--", "sh", "-c", script]).output().unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines.get(..4), Some(&["GET /v1/repos/shop/issues?page=2 HTTP/1.1", "403", "404", "400"][..]), "{told}");
    assert!(lines.get(4).is_some_and(|line| line.contains("withheld")), "{told}");
    assert!(!told.contains(SECRET), "{told}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert!(seen.iter().all(|head| head.contains(&format!("authorization: Bearer {SECRET}\r\n"))), "{seen:?}");
}
