//! Claims about HTTP APIs in the whole product: `writ exec`, the server, an API that records, an unmodified curl. Skips loudly
//! where there is no curl (fails if WRIT_REQUIRE_SERVICES is set).
#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "other test files need more of it")]
mod served;

use served::Server;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

const SECRET: &str = "sk-live-0123456789abcdef";

const INTENT: &str = r#"
name = "triage"
description = "Work on the issues of one repository."
owner = "support"
targets = ["issues", "events"]

[params.repo]
type = "string"
description = "The repository."
"#;

const POLICY: &str = r#"
@id("own-repository")
permit (principal is Intent::Triage, action == Issues::Action::"list", resource is Writ::Route)
when { context.input.repo == principal.repo };

@id("own-events")
permit (principal is Intent::Triage, action == Events::Action::"live", resource is Writ::Route)
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

const EVENTS: &str = r#"
kind = "http"
owner = "support"
description = "Events of repositories."

[connect]
url = "http://127.0.0.1:PORT/v1"
addresses = ["127.0.0.1"]
auth = { form = "bearer", secret = { file = "secrets/issues" } }

[offers.live]
description = "Events of a repository, as they happen."
method = "GET"
path = "/repos/{repo}/live"
websocket = true
reading = { untrusted = true, sensitivity = "internal" }
sink = "internal"
[offers.live.params]
repo = { type = "string", description = "The repository." }
"#;

/// A client of WebSockets with nothing but the standard library: sends its arguments one by one, prints what comes.
const CLIENT: &str = r#"
import base64, os, socket, struct, sys, urllib.parse
url = urllib.parse.urlparse(os.environ["WRIT_HTTP_EVENTS_URL"] + sys.argv[1])
stream = socket.create_connection((url.hostname, url.port), 30)
head = f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
stream.sendall((head + f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n").encode())
read = stream.makefile("rb")
status = read.readline().decode().split()[1]
print(status, flush=True)
while read.readline().strip():
    pass
closed = status != "101"
def receive():
    global closed
    opcode, length = read.read(2)
    data = read.read(length if length < 126 else struct.unpack(">H", read.read(2))[0])
    closed = opcode == 0x88
    print(f"closed {struct.unpack('>H', data[:2])[0]}" if closed else data.decode(), flush=True)
for text in sys.argv[2:]:
    if not closed:
        mask = os.urandom(4)
        stream.sendall(bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(text.encode())))
        receive()
while not closed:
    receive()
"#;

/// An API that says again what it is told over a WebSocket; when told `secret`, its credential. Gives its port and what
/// it was told.
fn events() -> (u16, Arc<Mutex<Vec<String>>>) {
    use tokio_tungstenite::tungstenite::{Message, accept};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, told) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let heard = Arc::clone(&told);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let heard = Arc::clone(&heard);
            std::thread::spawn(move || {
                let mut socket = accept(stream.unwrap()).unwrap();
                while let Ok(Message::Text(text)) = socket.read() {
                    let answer = if text.as_str() == "secret" { SECRET.into() } else { text.clone() };
                    heard.lock().unwrap().push(text.to_string());
                    if socket.send(Message::Text(answer)).is_err() {
                        return;
                    }
                }
                heard.lock().unwrap().push("over".to_owned());
            });
        }
    });
    (port, told)
}

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

fn prepare(dir: &Path, (port, events): (u16, u16)) {
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("policy/intents/triage.toml", INTENT);
    write("policy/triage.cedar", POLICY);
    write("targets/issues.toml", &TARGET.replace("PORT", &port.to_string()));
    write("targets/events.toml", &EVENTS.replace("PORT", &events.to_string()));
    write("secrets/issues", SECRET);
    fs::set_permissions(dir.join("secrets/issues"), fs::Permissions::from_mode(0o600)).unwrap();
    let agent = dir.join("agents/support-bot.toml");
    let text = fs::read_to_string(&agent).unwrap();
    fs::write(&agent, text.replacen("intents = [", "intents = [\"triage\", ", 1)).unwrap();
}

/// Whether a program is there.
fn has(program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok() {
        return true;
    }
    #[expect(clippy::disallowed_methods, reason = "whether services must be there is said by whoever runs the tests")]
    let required = std::env::var_os("WRIT_REQUIRE_SERVICES").is_some();
    assert!(!required, "{program} is missing");
    eprintln!("SKIPPED: there is no {program}");
    false
}

#[test]
fn a_command_uses_an_api_without_its_key() {
    if !has("curl") {
        return;
    }
    let (port, seen) = api();
    let server = Server::start_with(|dir| prepare(dir, (port, 9)));
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

#[test]
fn a_command_talks_over_a_websocket_until_its_task_ends() {
    if !has("python3") {
        return;
    }
    let (port, told) = events();
    let server = Server::start_with(|dir| prepare(dir, (9, port)));
    let talk = |path: &'static str, words: &[&'static str]| {
        let rest = [&["--", "python3", "-c", CLIENT, path], words].concat();
        let mut command = server.exec(&["triage", "--param", "repo=shop"], &rest);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let said = |talking: std::process::Child| {
        let output = talking.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let answers = said(talk("/repos/shop/live", &["hello", "secret", "more"]));
    assert!(answers.starts_with("101\nhello\nclosed 1008\n") && !answers.contains(SECRET), "{answers}");
    assert!(said(talk("/repos/private/live", &["hello"])).starts_with("403\n"));

    told.lock().unwrap().clear();
    let talking = talk("/repos/shop/live", &["still here"]);
    let heard = |word: &str| told.lock().unwrap().iter().any(|told| told == word);
    let task = server.until("the command talks", |_| heard("still here"));
    assert!(served::writ(server.dir.path(), &["task", "end", served::text(&task, "id")]).status.success());
    let answers = said(talking);
    assert!(answers.starts_with("101\nstill here\nclosed 1008\n"), "{answers}");
    server.until("the API's socket is closed", |_| heard("over"));
}
