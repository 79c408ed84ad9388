//! Against servers of the official Rust SDK, over each transport and in each era.

#[path = "../../../examples/peer/server.rs"]
mod server;

use super::*;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

/// The peer over HTTP; `sessions`: it keeps sessions for clients of the session revisions.
async fn serve(sessions: bool) -> Transport {
    let service = StreamableHttpService::new(
        || Ok(server::Peer),
        LocalSessionManager::default().into(),
        StreamableHttpServerConfig::default().with_legacy_session_mode(sessions),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let router = axum::Router::new().route_service("/mcp", service);
    tokio::spawn(async move { axum::serve(listener, router).await });
    http(&url)
}

/// The peer as a child process: the example next to this test.
fn child() -> Transport {
    let tests = std::env::current_exe().unwrap();
    let peer = tests.parent().and_then(std::path::Path::parent).unwrap().join("examples/peer");
    let command = peer.to_str().unwrap().to_owned();
    Transport::Stdio { command, args: Vec::new(), env: Vec::new(), vars: Vec::new() }
}

fn with_meta(mut params: Value, client: &ClientProfile) -> Value {
    if client.era.is_modern() {
        params["_meta"] = meta();
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = client.capabilities.clone();
    }
    params
}

fn said(result: &Raw) -> Value {
    let result = result.to_value();
    serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap()
}

fn end(events: &[Event]) -> &Raw {
    match events.last() {
        Some(Event::Result(raw)) => raw,
        other => panic!("no result: {other:?}"),
    }
}

/// Every kind of client against every kind of peer.
async fn pairs() -> Vec<(&'static str, Bench, ClientProfile)> {
    let mut pairs = Vec::new();
    for (client_name, mut client) in [("with a session", legacy("a")), ("stateless", modern())] {
        client.capabilities = json!({ "roots": {} });
        for (peer_name, transport) in [("sessions", serve(true).await), ("stateless", serve(false).await), ("child", child())] {
            let name: &'static str = format!("a client {client_name}, a peer {peer_name}").leak();
            pairs.push((name, Bench::new(transport), client.clone()));
        }
    }
    pairs
}

#[tokio::test]
async fn every_client_reaches_every_peer() {
    for (pair, bench, client) in pairs().await {
        let connection = bench.connect(1, &client).await;
        let server = connection.server().await.unwrap_or_else(|error| panic!("{pair}: {error}"));
        assert_eq!(server.info["name"], "peer", "{pair}");
        assert_eq!(server.era.is_modern(), client.era.is_modern(), "{pair}: no translation where none is needed");
        for n in 0..3 {
            let params = with_meta(json!({ "name": "echo", "arguments": { "n": n, "text": "ä\n" } }), &client);
            let got = events(send(&connection, n, "tools/call", params).await.unwrap()).await;
            let got = got.unwrap_or_else(|error| panic!("{pair}: {error}"));
            assert_eq!(said(end(&got)), json!({ "n": n, "text": "ä\n" }), "{pair}");
        }
        let names: Vec<_> = bench.upstreams.survey(&name()).await.unwrap().iter().map(|tool| tool["name"].clone()).collect();
        assert_eq!(names, ["echo", "progress", "ask", "ask-stateless"], "{pair}");
    }
}

#[tokio::test]
async fn progress_comes_in_order_and_before_the_result() {
    for (pair, bench, client) in pairs().await {
        let connection = bench.connect(1, &client).await;
        let mut params = with_meta(json!({ "name": "progress" }), &client);
        params["_meta"]["progressToken"] = "t-1".into();
        let got = events(send(&connection, 1, "tools/call", params).await.unwrap()).await.unwrap();
        let progress: Vec<_> = got
            .iter()
            .filter_map(|event| match event {
                Event::Notification { method, params: Some(params) } if method == "notifications/progress" => {
                    Some((params.to_value()["progressToken"].clone(), params.to_value()["progress"].as_f64()))
                }
                _ => None,
            })
            .collect();
        assert_eq!(progress, [1.0, 2.0, 3.0].map(|done| (json!("t-1"), Some(done))), "{pair}");
        assert!(end(&got).to_value()["content"][0]["text"] == "done", "{pair}");
    }
}

#[tokio::test]
async fn a_peer_that_asks_gets_its_answer() {
    for (pair, bench, client) in pairs().await {
        if client.era.is_modern() {
            continue;
        }
        let connection = bench.connect(1, &client).await;
        if pair.ends_with("peer stateless") {
            // Without a session there is nobody whom it could ask.
            continue;
        }
        let mut exchange = send(&connection, 1, "tools/call", json!({ "name": "ask" })).await.unwrap();
        let result = loop {
            match exchange.next().await.unwrap() {
                Event::Request { id, method, .. } => {
                    assert_eq!(method, "roots/list", "{pair}");
                    connection.answer(&id, Ok(&raw(r#"{"roots":[{"uri":"file:///x"}]}"#)), None).await.unwrap();
                }
                Event::Result(raw) => break raw,
                Event::Error(error) => panic!("{pair}: {}", error.to_value()),
                Event::Notification { .. } | Event::Cursor { .. } | Event::Paused => {}
            }
        };
        assert_eq!(said(&result)[0]["uri"], "file:///x", "{pair}");
    }
}

#[tokio::test]
async fn a_stateless_peer_that_asks_gets_its_answer_in_the_next_request() {
    for (pair, bench, client) in pairs().await {
        if !client.era.is_modern() {
            continue;
        }
        let connection = bench.connect(1, &client).await;
        let params = with_meta(json!({ "name": "ask-stateless" }), &client);
        let got = events(send(&connection, 1, "tools/call", params.clone()).await.unwrap()).await.unwrap();
        let asked = end(&got).to_value();
        assert_eq!(asked["resultType"], "input_required", "{pair}");
        let mut again = params;
        again["requestState"] = asked["requestState"].clone();
        again["inputResponses"] = json!({ "where": { "roots": [] } });
        let got = events(send(&connection, 2, "tools/call", again).await.unwrap()).await.unwrap();
        assert_eq!(said(end(&got))[1], "stéte", "{pair}");
    }
}
