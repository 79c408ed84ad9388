//! Which era is spoken, and what of a request arrives in it.

use super::fake::*;
use super::*;

#[tokio::test]
async fn a_stateless_request_arrives_as_it_was_decided() {
    let fake = Fake::start(|seen| stateless(seen, |seen| result(seen, &json!({ "content": [] })))).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let secret = SecretRef::File(file.path().to_string_lossy().into_owned());
    let injection = Injection { header: "Authorization".into(), prefix: "Bearer ".into(), secret };
    let bench = Bench::with(Upstream { injection: Some(injection), ..upstream(http(&fake.url)) });
    let connection = bench.connect(1, &modern()).await;

    let text = format!(r#"{{"name" : "écho", "arguments":{{"big":12345678901234567890123, "f": 1.50}}, "_meta":{}}}"#, meta());
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("authorization", "Bearer agents-own-token"),
        ("dpop", "proof"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("tracestate", "vendor=order-4711"),
        ("baggage", "customer=jane"),
        ("mcp-session-id", "mine"),
        ("mcp-param-region", "forged"),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let id = Id::Number(7);
    let params = raw(&text);
    let outgoing = Outgoing { id: &id, method: "tools/call", params: Some(&params), headers: &headers, released: None };
    events(connection.forward(outgoing).await.unwrap()).await.unwrap();

    let arrived = fake.of("tools/call").pop().unwrap();
    assert_eq!(arrived.text, format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{text}}}"#));
    assert_eq!(arrived.header("authorization"), Some("Bearer s3cret"));
    assert_eq!(arrived.header("mcp-method"), Some("tools/call"));
    assert_eq!(arrived.header("mcp-name"), Some("=?base64?w6ljaG8=?="));
    assert_eq!(arrived.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(arrived.header("accept-encoding"), Some("identity"));
    assert!(arrived.header("traceparent").is_some());
    for kept_here in ["dpop", "cookie", "tracestate", "baggage", "x-forwarded-for", "mcp-session-id", "mcp-param-region"] {
        assert_eq!(arrived.header(kept_here), None, "{kept_here}");
    }
    assert!(fake.seen().iter().all(|seen| !format!("{:?}", seen.headers).contains("agents-own-token")));
}

#[tokio::test]
async fn a_trace_that_is_none_stays_here() {
    let fake = Fake::start(|seen| stateless(seen, |seen| result(seen, &json!({})))).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    for trace in ["the secret is 4711", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01", ""] {
        let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), trace.parse().unwrap())]);
        let (id, params) = (Id::Number(1), Raw::from_value(&echo(1)));
        let outgoing = Outgoing { id: &id, method: "tools/call", params: Some(&params), headers: &headers, released: None };
        events(connection.forward(outgoing).await.unwrap()).await.unwrap();
    }
    assert!(fake.of("tools/call").iter().all(|seen| seen.header("traceparent").is_none()));
}

#[tokio::test]
async fn an_upstream_sees_our_span_in_place_of_the_clients_if_requests_are_traced() {
    const OURS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-1111111111111111-01";
    const THEIRS: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let fake = Fake::start(|seen| stateless(seen, |seen| result(seen, &json!({})))).await;
    for (traceparent, expected) in
        [(Some((|| Some(OURS.to_owned())) as fn() -> Option<String>), OURS), (Some(|| None), THEIRS), (None, THEIRS)]
    {
        let bench = Bench::new(http(&fake.url));
        let settings = Settings { traceparent, ..Settings::default() };
        let registry = Arc::clone(&bench.table) as Arc<dyn Registry>;
        let bench = Bench { upstreams: Upstreams::new(registry, settings).unwrap(), ..bench };
        let connection = bench.connect(1, &modern()).await;
        let headers = HeaderMap::from_iter([("traceparent".parse().unwrap(), THEIRS.parse().unwrap())]);
        let (id, params) = (Id::Number(1), Raw::from_value(&echo(1)));
        let outgoing = Outgoing { id: &id, method: "tools/call", params: Some(&params), headers: &headers, released: None };
        events(connection.forward(outgoing).await.unwrap()).await.unwrap();
        assert_eq!(fake.of("tools/call").pop().unwrap().header("traceparent"), Some(expected));
    }
}

#[tokio::test]
async fn a_session_that_asks_outside_the_request_reaches_a_stateless_client() {
    let asked = Arc::new(tokio::sync::Notify::new());
    let answered = Arc::new(tokio::sync::Notify::new());
    let fake = Fake::start_async(move |seen| {
        use futures_util::{FutureExt, StreamExt};
        let (asked, answered) = (Arc::clone(&asked), Arc::clone(&answered));
        async move {
            if seen.body().get("result").is_some() {
                answered.notify_one();
            }
            if seen.rpc() == "tools/call" {
                asked.notify_one();
                answered.notified().await;
            }
            with_sessions(&seen, |seen| match seen.method.as_str() {
                // It asks on the stream that belongs to no request, because of a request.
                "GET" => {
                    let text = json!({ "jsonrpc": "2.0", "id": 8, "method": "roots/list" });
                    let pieces = futures_util::stream::once(async move {
                        asked.notified().await;
                        Ok::<_, std::io::Error>(bytes::Bytes::from(format!("data: {text}\n\n")))
                    });
                    let body = axum::body::Body::from_stream(pieces.chain(futures_util::stream::pending()));
                    let mut response = axum::response::Response::new(body);
                    response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
                    response
                }
                _ => result(seen, &json!({ "content": [] })),
            })
        }
        .boxed()
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    let mut exchange = send(&connection, 1, "tools/call", echo(1)).await.unwrap();
    let Event::Request { id, method, .. } = exchange.next().await.unwrap() else { panic!("not asked") };
    assert_eq!(method, "roots/list");
    connection.answer(&id, Ok(&raw(r#"{"roots":[]}"#)), None).await.unwrap();
    assert!(matches!(exchange.next().await.unwrap(), Event::Result(_)));
}

#[tokio::test]
async fn a_governed_request_is_not_sent_without_a_released_decision() {
    let fake = Fake::start(|seen| stateless(seen, |seen| result(seen, &json!({})))).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    for method in ["tools/call", "resources/read", "resources/subscribe", "prompts/get", "completion/complete"] {
        let (id, headers, params) = (Id::Number(1), HeaderMap::new(), Raw::from_value(&echo(1)));
        let outgoing = Outgoing { id: &id, method, params: Some(&params), headers: &headers, released: None };
        assert_eq!(connection.request(outgoing).await.unwrap_err(), UpstreamError::NotReleased, "{method}");
    }
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn a_stateless_client_reaches_a_server_with_sessions() {
    let fake = Fake::start(|seen| with_sessions(seen, |seen| result(seen, &json!({ "content": [] })))).await;
    let bench = Bench::new(http(&fake.url));
    let connection = bench.connect(1, &modern()).await;
    assert_eq!(connection.server().await.unwrap().era, Era::Legacy(Version::V2025_11_25));
    call(&connection, 7, "tools/call", echo(1)).await.unwrap();

    let arrived = fake.of("tools/call").pop().unwrap();
    assert_eq!(arrived.header("mcp-session-id"), Some("session-1"));
    assert_eq!(arrived.header("mcp-method"), None);
    assert_eq!(arrived.body()["params"], json!({ "name": "echo", "arguments": { "n": 1 } }), "no trace of the other era");
    let said = fake.of("initialize").pop().unwrap().body();
    assert_eq!(said["params"]["clientInfo"]["name"], "writ");
    assert_eq!(fake.of("notifications/initialized").len(), 1);
    // What was found out holds for the next task, too.
    call(&bench.connect(2, &modern()).await, 7, "tools/call", echo(1)).await.unwrap();
    assert_eq!((fake.of("server/discover").len(), fake.of("initialize").len()), (1, 2));
}

#[tokio::test]
async fn a_client_with_a_session_reaches_a_stateless_server() {
    let fake =
        Fake::start(|seen| stateless(seen, |seen| result(seen, &json!({ "content": [], "resultType": "complete" })))).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let server = connection.server().await.unwrap();
    assert_eq!((server.info["name"].as_str(), server.instructions.as_deref()), (Some("fake"), Some("be kind")));
    call(&connection, 1, "logging/setLevel", json!({ "level": "error" })).await.unwrap();
    assert_eq!(call(&connection, 2, "ping", json!({})).await.unwrap(), json!({}));
    connection.notify("notifications/initialized", None).await.unwrap();
    connection.notify("notifications/roots/list_changed", None).await.unwrap();
    call(&connection, 3, "tools/call", json!({ "name": "echo", "_meta": { "progressToken": 5 } })).await.unwrap();

    let tags = fake.of("tools/call").pop().unwrap().body()["params"]["_meta"].clone();
    assert_eq!(tags["progressToken"], 5);
    assert_eq!(tags["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(tags["io.modelcontextprotocol/clientInfo"]["name"], "writ");
    assert_eq!(tags["io.modelcontextprotocol/logLevel"], "error");
    let methods: Vec<_> = fake.seen().iter().map(Seen::rpc).collect();
    assert_eq!(methods, ["initialize", "server/discover", "tools/call"]);
}

#[tokio::test]
async fn a_server_of_both_eras_is_spoken_to_in_the_clients_own() {
    let fake = Fake::start(|seen| match seen.rpc().as_str() {
        "server/discover" => result(seen, &discovered()),
        _ => with_sessions(seen, |seen| result(seen, &json!({}))),
    })
    .await;
    let bench = Bench::new(http(&fake.url));
    assert!(!bench.connect(1, &legacy("a")).await.server().await.unwrap().era.is_modern());
    assert!(bench.connect(1, &modern()).await.server().await.unwrap().era.is_modern());
}

#[tokio::test]
async fn changes_reach_a_client_with_a_session_from_a_stateless_server() {
    let fake = Fake::start(|seen| {
        stateless(seen, |seen| {
            let id = &seen.body()["id"];
            let note = |method: &str| {
                let params = json!({ "_meta": { "io.modelcontextprotocol/subscriptionId": id }, "uri": "a:b" });
                format!("data: {}\n\n", json!({ "jsonrpc": "2.0", "method": method, "params": params }))
            };
            let mut pieces = vec![note("notifications/subscriptions/acknowledged")];
            if seen.body()["params"]["notifications"]["resourceSubscriptions"] == json!(["a:b"]) {
                pieces.push(note("notifications/resources/updated"));
            }
            stuck("text/event-stream", pieces)
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut heard = connection.unsolicited();
    call(&connection, 1, "resources/subscribe", json!({ "uri": "a:b" })).await.unwrap();
    let Event::Notification { method, .. } = heard.recv().await.unwrap() else { panic!("no notification") };
    assert_eq!(method, "notifications/resources/updated");
}

#[tokio::test]
async fn changes_reach_a_stateless_client_from_a_server_with_sessions() {
    let fake = Fake::start(|seen| {
        with_sessions(seen, |seen| {
            let note = |method: &str| format!("data: {}\n\n", json!({ "jsonrpc": "2.0", "method": method }));
            match seen.method.as_str() {
                "GET" => stuck(
                    "text/event-stream",
                    vec![note("notifications/prompts/list_changed"), note("notifications/tools/list_changed")],
                ),
                _ => result(seen, &json!({})),
            }
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true });
    let mut listening =
        send(&connection, 9, "subscriptions/listen", json!({ "notifications": wanted, "_meta": meta() })).await.unwrap();
    let Event::Notification { method, params } = listening.next().await.unwrap() else { panic!("no notification") };
    assert_eq!(method, "notifications/subscriptions/acknowledged");
    // The server offers no prompts, so it honours only the first.
    assert_eq!(params.unwrap().to_value(), json!({ "notifications": { "toolsListChanged": true } }));
    let Event::Notification { method, .. } = listening.next().await.unwrap() else { panic!("no notification") };
    assert_eq!(method, "notifications/tools/list_changed");
}
