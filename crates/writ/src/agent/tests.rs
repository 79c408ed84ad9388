//! Claims about the end of a task as the agent's side tells it: which answers mean that it is over, and which do not.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;

/// A server that answers `(path, status, body)` one after the other, each on a connection of its own, and fails if it is
/// asked for something else.
async fn scripted(script: Vec<(&'static str, u16, &'static str)>) -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        for (path, status, body) in script {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let (mut asked, mut length) = (String::new(), 0);
            stream.read_line(&mut asked).await.unwrap();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).await.unwrap();
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            stream.read_exact(&mut vec![0; length]).await.unwrap();
            assert!(asked.starts_with(&format!("POST {path} ")), "expected {path}, was asked {asked}");
            let head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        }
    });
    (base, served)
}

const TOKEN: (&str, u16, &str) = (
    "/oauth/token",
    200,
    r#"{"access_token":"x","expires_in":300,"scope":"mcp:a","authorization_details":[{"type":"writ_task","task":"t"}]}"#,
);
const END: &str = "/v1/tasks/t/end";

/// Opens a task at a server that answers so, ends it, and gives what that said.
async fn ended(answers: Vec<(&'static str, u16, &'static str)>) -> Result<(), String> {
    let (base, served) = scripted([vec![TOKEN], answers].concat()).await;
    let evidence = Evidence::Command("echo evidence".into());
    let declared = Declared { intent: "i".into(), parameters: Map::new(), lifetime_secs: None, upstreams: Vec::new() };
    let connector = crate::web::connector(None).unwrap();
    let agent = Agent::open(base, connector, evidence, declared).await.unwrap();
    let outcome = agent.end().await.map_err(|failure| failure.to_string());
    served.await.unwrap();
    outcome
}

#[tokio::test]
async fn a_task_counts_as_ended_only_if_the_server_says_so() {
    for (name, answers) in [
        ("done", vec![(END, 200, "{}")]),
        ("it had ended", vec![(END, 409, r#"{"code":"task_ended"}"#)]),
        ("it is not there", vec![(END, 404, "{}")]),
        ("its token died with it", vec![(END, 401, r#"{"code":"invalid_token","end_reason":"agent"}"#)]),
        ("nobody remembers it", vec![(END, 401, "{}"), ("/oauth/token", 400, r#"{"error":"invalid_grant"}"#)]),
        ("the token was too old", vec![(END, 401, "{}"), TOKEN, (END, 200, "{}")]),
        ("it ended during the renewal", vec![(END, 401, "{}"), TOKEN, (END, 409, "{}")]),
        ("the server was busy", vec![(END, 503, "{}"), (END, 200, "{}")]),
        ("the issuer was busy", vec![(END, 401, "{}"), ("/oauth/token", 503, "{}"), (END, 401, "{}"), TOKEN, (END, 200, "{}")]),
    ] {
        assert_eq!(ended(answers).await, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn a_task_that_could_not_be_ended_is_not_said_to_have() {
    for (name, answers) in [
        ("a renewed token is refused as well", vec![(END, 401, "{}"), TOKEN, (END, 401, "{}")]),
        ("it may not", vec![(END, 403, r#"{"code":"forbidden"}"#)]),
        ("the request is malformed", vec![(END, 400, "{}")]),
    ] {
        assert!(ended(answers).await.is_err(), "{name}");
    }
}
