//! What holds for every request: ids, headers, unknown paths, limits, the log's read path, health.
//! Owns no endpoint of its own.

use crate::served::{ADMIN, Served};
use serde_json::{Value, json};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn an_unknown_path_or_method_is_a_problem_with_an_id() {
    let served = Served::new().await;
    for (method, path, status, code) in [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v2/agents", 404, "not_found"),
        ("POST", "/healthz", 405, "method_not_allowed"),
        ("GET", "/oauth/token", 405, "method_not_allowed"),
        ("BREW", "/v1/agents", 405, "method_not_allowed"),
    ] {
        let answer = served.ask(method, path, &[], "").await;
        assert_eq!(answer.refusal(), (status, code.into()), "{method} {path}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert_eq!(answer.json()["request_id"], answer.header("x-request-id"));
        assert_eq!(answer.header("allow").is_empty(), status == 404, "{method} {path}");
    }
}

#[tokio::test]
async fn every_answer_is_hardened() {
    let served = Served::new().await;
    for path in ["/healthz", "/v1/agents", "/nowhere", "/.well-known/oauth-authorization-server", "/log/checkpoint"] {
        let answer = served.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{path}");
        assert!(answer.header("strict-transport-security").starts_with("max-age="), "{path}");
        assert!(!answer.header("cache-control").is_empty(), "{path}");
    }
    assert_eq!(served.get("/v1/agents").await.header("cache-control"), "no-store");
}

#[tokio::test]
async fn an_id_that_does_not_fit_a_log_line_is_replaced() {
    let served = Served::new().await;
    for id in ["a b", "a\tb", &"x".repeat(129), ""] {
        let answer = served.ask("GET", "/healthz", &[("x-request-id", id)], "").await;
        assert!(answer.header("x-request-id").starts_with("req_"), "{id:?}");
    }
    let (one, two) = (served.get("/healthz").await, served.get("/healthz").await);
    assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
}

#[tokio::test]
async fn a_token_in_the_query_is_refused_everywhere() {
    let served = Served::new().await;
    for path in [
        "/v1/agents?access_token=x",
        "/healthz?token=x",
        "/oauth/revoke?token=x",
        "/access/v1/evaluation?a=1&access_token=x",
        "/v1/agents?access%5Ftoken=x",
    ] {
        assert_eq!(served.ask("POST", path, &[], "").await.refusal(), (400, "invalid_request".into()), "{path}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let served = Served::new().await;
    tokio::time::pause();
    let never = axum::body::Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let authorization = format!("Bearer {ADMIN}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let answer = served.ask("PUT", "/v1/agents/new", &headers, never).await;
    assert_eq!(answer.refusal(), (408, "timeout".into()));
}

#[tokio::test]
async fn the_log_is_read_by_its_grammar_only() {
    let served = Served::new().await;
    served.world.ledger.publish("checkpoint", b"log.test\n1\n".to_vec());
    served.world.ledger.publish("tile/0/000", vec![1; 8_192]);
    served.world.ledger.publish("tile/0/x001/000.p/7", vec![2; 224]);
    for secret in ["../writ.db", "tile/../keys/token.p8", "keys/token.p8"] {
        served.world.ledger.publish(secret, b"secret".to_vec());
    }
    let checkpoint = served.get("/log/checkpoint").await;
    assert_eq!(
        (checkpoint.header("content-type"), checkpoint.header("cache-control")),
        ("text/plain; charset=utf-8", "no-cache")
    );
    let full = served.get("/log/tile/0/000").await;
    assert_eq!((full.header("content-type"), full.body.len()), ("application/octet-stream", 8_192));
    assert!(full.header("cache-control").contains("immutable"));
    let partial = served.get("/log/tile/0/x001/000.p/7").await;
    assert!(!partial.header("cache-control").contains("immutable"));
    assert_eq!(partial.header("access-control-allow-origin"), "*");
    for path in [
        "/log/../writ.db",
        "/log/tile/../keys/token.p8",
        "/log/tile/..%2fkeys%2ftoken.p8",
        "/log/tile/%2e%2e/keys/token.p8",
        "/log/keys/token.p8",
        "/log/tile//0/000",
        "/log//tile/0/000",
        "/log/tile/0/000/",
        "/log/tile/0/001",
        "/log/",
        "/log",
    ] {
        let answer = served.get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"), "{path}");
    }
}

#[tokio::test]
async fn health_is_told_apart_from_readiness() {
    let served = Served::new().await;
    assert_eq!(served.get("/healthz").await.status, 200);
    assert_eq!(served.get("/readyz").await.json(), json!({"ready": true, "checks": {"ledger": "ok"}}));
    served.asked.broken.store(true, Ordering::Relaxed);
    let unready = served.get("/readyz").await;
    assert_eq!(
        (unready.status.as_u16(), unready.json()["checks"]["ledger"].as_str().unwrap().to_owned()),
        (503, "it cannot be written".into())
    );
    assert_eq!(served.get("/healthz").await.status, 200);
    assert!(served.get("/metrics").await.header("content-type").starts_with("application/openmetrics-text"));
    let rotated = json!({"key_id": "key-2", "signs_at": "2027-01-15T08:00:00Z"});
    assert_eq!(served.operate(ADMIN, "POST", "/v1/keys/rotate", Value::Null).await.json(), rotated);
}
