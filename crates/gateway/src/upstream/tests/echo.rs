//! Upstreams that repeat the credential that the gateway gave them: it never reaches an agent, in whatever message it stands.

use super::fake::*;
use super::stdio::{HANDSHAKE, shell};
use super::*;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const SECRET: &str = "sk-live/0123456789+abcdef";

fn file() -> (tempfile::NamedTempFile, SecretRef) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SECRET).unwrap();
    let secret = SecretRef::File(file.path().to_string_lossy().into_owned());
    (file, secret)
}

fn with_secret(url: &str, secret: SecretRef) -> Bench {
    let injection = Injection { header: "Authorization".into(), prefix: "Bearer ".into(), secret };
    Bench::with(Upstream { injection: Some(injection), ..upstream(http(url)) })
}

fn message(value: &Value) -> String {
    format!("data: {value}\n\n")
}

#[tokio::test]
async fn an_upstream_that_repeats_its_credential_is_not_heard() {
    type Answer = fn(&Seen, &str) -> Response;
    let cases: [(&str, Answer); 7] = [
        ("a result", |seen, said| result(seen, &json!({ "content": [{ "type": "text", "text": said }] }))),
        ("a result, in base64", |seen, said| result(seen, &json!({ "content": STANDARD.encode(said) }))),
        ("an error", |seen, said| {
            json_text(json!({ "jsonrpc": "2.0", "id": seen.body()["id"], "error": { "code": 1, "message": said } }).to_string())
        }),
        ("an error with a status", |seen, said| {
            let error = json!({ "jsonrpc": "2.0", "id": seen.body()["id"], "error": { "code": 1, "message": said } });
            let mut response = json_text(error.to_string());
            *response.status_mut() = ::http::StatusCode::BAD_REQUEST;
            response
        }),
        ("a result in a stream", |seen, said| {
            sse(message(&json!({ "jsonrpc": "2.0", "id": seen.body()["id"], "result": { "text": said } })))
        }),
        ("a message in a stream", |_, said| {
            sse(message(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": said } })))
        }),
        ("the id of an event", |_, said| sse(format!("id: {said}\ndata:\n\n"))),
    ];
    for (name, answer) in cases {
        let (_file, secret) = file();
        let fake = Fake::start(move |seen| {
            let said = seen.header("authorization").unwrap_or_default().to_owned();
            with_sessions(seen, move |seen| answer(seen, &said))
        })
        .await;
        let connection = with_secret(&fake.url, secret).connect(1, &legacy("a")).await;
        let outcome = match send(&connection, 1, "tools/call", echo(1)).await {
            Ok(exchange) => events(exchange).await,
            Err(error) => Err(error),
        };
        assert_eq!(outcome.unwrap_err(), UpstreamError::SecretEchoed, "{name}");
    }
}

#[tokio::test]
async fn what_an_upstream_says_of_itself_and_by_itself_does_not_hold_its_credential_either() {
    let (_file, secret) = file();
    let fake = Fake::start(|seen| match (seen.method.as_str(), seen.rpc().as_str()) {
        ("GET", _) => {
            let said = seen.header("authorization").unwrap_or_default();
            let note = |said: &str| json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "data": said } });
            stuck("text/event-stream", vec![message(&note("harmless")), message(&note(said)), message(&note("after"))])
        }
        _ => with_sessions(seen, |seen| result(seen, &json!({}))),
    })
    .await;
    let connection = with_secret(&fake.url, secret.clone()).connect(1, &legacy("a")).await;
    let mut heard = connection.unsolicited();
    for _ in 0..2 {
        let Event::Notification { params, .. } = heard.recv().await.unwrap() else { panic!("no notification") };
        assert_eq!(params.unwrap().to_value()["data"], "harmless", "the stream breaks off there and is opened again");
    }
    let fake = Fake::start(|seen| {
        let said = seen.header("authorization").unwrap_or_default();
        result(seen, &json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}, "instructions": said }))
    })
    .await;
    let error = with_secret(&fake.url, secret).connect(1, &legacy("a")).await.server().await.unwrap_err();
    assert_eq!(error, UpstreamError::SecretEchoed);
}

#[tokio::test]
async fn a_program_that_prints_its_environment_does_not_give_a_secret_of_it_away() {
    let (_file, secret) = file();
    let text = format!(
        r#"{HANDSHAKE} next; printf '{{"jsonrpc":"2.0","method":"notifications/message","params":{{"data":"%s"}}}}\n' "$KEY"
answer "{{\"key\":\"$KEY\"}}"; next; answer "{{\"mode\":\"$MODE\"}}"; next"#
    );
    let bench = Bench::new(shell(&text, vec![("KEY".into(), secret)], vec![("MODE".into(), "no-secret-at-all".into())]));
    let connection = bench.connect(1, &legacy("a")).await;
    let error = events(send(&connection, 1, "tools/call", json!({})).await.unwrap()).await.unwrap_err();
    assert_eq!(error, UpstreamError::SecretEchoed);
    assert_eq!(call(&connection, 2, "tools/call", json!({})).await.unwrap()["mode"], "no-secret-at-all");
}
