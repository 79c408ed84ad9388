//! What comes to the gateway before anything is decided: hosts, origins, credentials, sizes, sessions, protocol.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::{Answer, ENDPOINT, LEGACY, MODERN, Setup, info};
use bytes::Bytes;
use gateway::Limits;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use secrecy::ExposeSecret;
use serde_json::json;

#[tokio::test]
async fn a_request_without_a_token_is_told_where_to_get_one() {
    let setup = Setup::new(false).await;
    let client = setup.client().await;
    let mut request = client.request("POST", client.body(1, "tools/list", json!({})));
    request.headers_mut().remove("authorization");
    request.headers_mut().remove("dpop");
    let answer = Answer::of(client.send(request).await).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    let challenges = answer.challenges();
    assert_eq!(challenges.len(), 2);
    for (challenge, scheme) in challenges.iter().zip(["Bearer ", "DPoP "]) {
        assert!(challenge.starts_with(scheme), "{challenge}");
        assert!(challenge.contains(r#"resource_metadata="https://writ.test/.well-known/oauth-protected-resource/mcp/orders""#));
        assert!(challenge.contains(r#"scope="mcp:orders""#));
        assert!(!challenge.contains("error="));
    }
    assert!(setup.upstream.seen("tools/list").is_empty());
}

#[tokio::test]
async fn credentials_that_could_be_read_in_two_ways_are_refused() {
    let setup = Setup::new(false).await;
    let client = setup.client().await;
    let token = client.issued.token.expose_secret().to_owned();
    type Change = Box<dyn Fn(&mut Request<Full<Bytes>>)>;
    let attacks: Vec<(&str, u16, Change)> = vec![
        (
            "a second Authorization header",
            400,
            Box::new(|request| {
                request.headers_mut().append("authorization", HeaderValue::from_static("Bearer other"));
            }),
        ),
        (
            "a second proof",
            400,
            Box::new(|request| {
                request.headers_mut().append("dpop", HeaderValue::from_static("a.b.c"));
            }),
        ),
        (
            "a token in the query",
            400,
            Box::new({
                let token = token.clone();
                move |request| *request.uri_mut() = format!("{ENDPOINT}?access_token={token}").parse().unwrap()
            }),
        ),
        (
            "a token in the query alone",
            400,
            Box::new({
                let token = token.clone();
                move |request| {
                    *request.uri_mut() = format!("{ENDPOINT}?access_token={token}").parse().unwrap();
                    request.headers_mut().remove("authorization");
                }
            }),
        ),
        (
            "a bound token as bearer",
            401,
            Box::new(move |request| {
                request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            }),
        ),
        (
            "a token without its proof",
            401,
            Box::new(|request| {
                request.headers_mut().remove("dpop");
            }),
        ),
        (
            "a proof for another method",
            401,
            Box::new({
                let proof = setup.world.holder.proof(
                    "GET",
                    "https://writ.test/mcp/orders",
                    setup.world.now(),
                    Some(client.issued.token.expose_secret()),
                );
                move |request| {
                    request.headers_mut().insert("dpop", proof.parse().unwrap());
                }
            }),
        ),
    ];
    for (what, status, change) in attacks {
        let mut request = client.request("POST", client.body(1, "tools/list", json!({})));
        change(&mut request);
        assert_eq!(client.send(request).await.status(), status, "{what}");
    }
    let replayed = client.request("POST", client.body(1, "tools/list", json!({})));
    let again = replayed.clone();
    assert_eq!(client.send(replayed).await.status(), 200);
    assert_eq!(client.send(again).await.status(), 401, "a proof that was used before");
    assert_eq!(setup.upstream.seen("tools/call").len(), 0);
}

#[tokio::test]
async fn requests_for_other_names_and_from_other_pages_are_refused() {
    let setup = Setup::new(false).await;
    let client = setup.client().await;
    for (header, value, status) in [
        ("host", "evil.example", 403),
        ("host", "writ.test.evil.example", 403),
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("host", "localhost:8080", 200),
        ("origin", "http://localhost:3000", 200),
        ("origin", "https://writ.test", 200),
    ] {
        let mut request = client.request("POST", client.body(1, "tools/list", json!({})));
        request.headers_mut().insert(header, HeaderValue::from_static(value));
        let response = client.send(request).await;
        assert_eq!(response.status(), status, "{header}: {value}");
        let readable = response.headers().get("access-control-allow-origin").is_some();
        assert_eq!(readable, header == "origin" && status == 200, "{header}: {value}");
    }
}

#[tokio::test]
async fn paths_methods_and_media_types_are_exact() {
    let setup = Setup::new(false).await;
    let client = setup.client().await;
    for path in ["/mcp/other", "/mcp/", "/mcp/orders/", "/mcp//orders", "/mcp/ORDERS", "/mcp/order%73", "/other"] {
        let mut request = client.request("POST", client.body(1, "tools/list", json!({})));
        *request.uri_mut() = path.parse().unwrap();
        assert_eq!(client.send(request).await.status(), 404, "{path}");
    }
    for (method, status) in [("PUT", 405), ("PATCH", 405), ("HEAD", 405), ("OPTIONS", 405), ("GET", 405), ("DELETE", 405)] {
        assert_eq!(client.send(client.request(method, "")).await.status(), status, "{method}");
    }
    for (header, value, status) in [("content-type", "text/plain", 415), ("accept", "application/json", 406)] {
        let mut request = client.request("POST", client.body(1, "tools/list", json!({})));
        request.headers_mut().insert(header, HeaderValue::from_static(value));
        assert_eq!(client.send(request).await.status(), status, "{header}");
    }
}

#[tokio::test]
async fn large_and_slow_bodies_are_refused() {
    let setup = Setup::with_limits(Limits { body_bytes_max: 2_000, body_secs_max: 1, ..Limits::default() }).await;
    let client = setup.client().await;
    let large = client.body(1, "tools/list", json!({ "x": "y".repeat(3_000) }));
    assert_eq!(client.post(large.clone()).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    // Without a length it is found out while reading.
    let pieces = futures_util::stream::iter(large.into_bytes().chunks(100).map(Bytes::copy_from_slice).collect::<Vec<_>>());
    let unannounced =
        StreamBody::new(futures_util::StreamExt::map(pieces, |piece| Ok::<_, std::io::Error>(http_body::Frame::data(piece))));
    let (parts, _) = client.request("POST", "").into_parts();
    assert_eq!(setup.gateway.handle(Request::from_parts(parts, unannounced), info()).await.status(), 413);

    let never = StreamBody::new(futures_util::stream::pending::<Result<http_body::Frame<Bytes>, std::io::Error>>());
    let (parts, _) = client.request("POST", "").into_parts();
    let slow = setup.gateway.handle(Request::from_parts(parts, never), info());
    assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(10), slow).await.unwrap().status(), 408);

    let broken =
        StreamBody::new(futures_util::stream::once(async { Err::<http_body::Frame<Bytes>, _>(std::io::Error::other("gone")) }));
    let (parts, _) = client.request("POST", "").into_parts();
    assert_eq!(setup.gateway.handle(Request::from_parts(parts, broken), info()).await.status(), 400);
}

#[tokio::test]
async fn hostile_messages_reach_nobody() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let before = setup.upstream.shared.seen.lock().unwrap().len();
    for (body, code) in [
        ("", -32700),
        ("{", -32700),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_order","name":"delete_everything"}}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_order","Name":"delete_everything"}}"#, -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_order","arguments":{"order_id":"o-1","order_id":"o-2"}}}"#,
            -32600,
        ),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]"#, -32600),
        ("[]", -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"tools/list"}"#, -32600),
    ] {
        let answer = client.post(body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.code(), code, "{body}");
    }
    assert_eq!(client.post(Bytes::from_static(b"\xff")).await.code(), -32700);
    assert_eq!(setup.upstream.shared.seen.lock().unwrap().len(), before);
}

#[tokio::test]
async fn a_session_belongs_to_its_task_alone() {
    let setup = Setup::new(false).await;
    let owner = setup.legacy_client().await;
    let mut thief = setup.client().await;
    thief.version = LEGACY;
    thief.session = owner.session.clone();
    assert_eq!(thief.ask("tools/list", json!({})).await.status, StatusCode::NOT_FOUND);
    assert_eq!(thief.send(thief.request("GET", "")).await.status(), 404);
    assert_eq!(thief.send(thief.request("DELETE", "")).await.status(), 404);
    assert_eq!(owner.ask("tools/list", json!({})).await.status, StatusCode::OK, "the thief's DELETE ended it");
    thief.session = Some("0".repeat(32));
    assert_eq!(thief.ask("tools/list", json!({})).await.status, StatusCode::NOT_FOUND);
    thief.session = None;
    assert_eq!(thief.ask("tools/list", json!({})).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(owner.send(owner.request("DELETE", "")).await.status(), 200);
    assert_eq!(owner.ask("tools/list", json!({})).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sessions_and_requests_of_one_task_are_bounded() {
    let setup = Setup::with_limits(Limits { sessions_per_task_max: 2, concurrent_per_task_max: 1, ..Limits::default() }).await;
    let mut client = setup.client().await;
    client.version = LEGACY;
    assert_eq!(client.initialize(LEGACY).await.status, StatusCode::OK);
    assert_eq!(client.initialize(LEGACY).await.status, StatusCode::OK);
    assert_eq!(client.initialize(LEGACY).await.status, StatusCode::SERVICE_UNAVAILABLE);

    let client = setup.legacy_client().await;
    let listening = client.send(client.request("GET", "")).await;
    assert_eq!(listening.status(), 200);
    assert_eq!(client.ask("tools/list", json!({})).await.status, StatusCode::TOO_MANY_REQUESTS);
    drop(listening);
    assert_eq!(client.ask("tools/list", json!({})).await.status, StatusCode::OK);
}

#[tokio::test]
async fn headers_of_stateless_requests_must_say_what_the_body_says() {
    let setup = Setup::new(true).await;
    let client = setup.client().await;
    let body = client.body(1, "tools/call", json!({ "name": "get_order", "arguments": { "order_id": "o-1" } }));
    for (header, value) in [
        ("mcp-method", Some("tools/list")),
        ("mcp-method", None),
        ("mcp-name", Some("delete_everything")),
        ("mcp-name", Some("=?base64?ZGVsZXRlX2V2ZXJ5dGhpbmc=?=")),
        ("mcp-name", None),
        ("mcp-protocol-version", Some(LEGACY)),
        ("mcp-protocol-version", None),
    ] {
        let mut request = client.request("POST", body.clone());
        match value {
            Some(value) => drop(request.headers_mut().insert(header, HeaderValue::from_static(value))),
            None => drop(request.headers_mut().remove(header)),
        }
        let answer = Answer::of(client.send(request).await).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, -32020), "{header}: {value:?}");
    }
    assert!(setup.upstream.seen("tools/call").is_empty());
    let mut request = client.request("POST", body);
    request.headers_mut().insert("mcp-name", HeaderValue::from_static("=?base64?Z2V0X29yZGVy?="));
    assert_eq!(client.send(request).await.status(), 200);
}

#[tokio::test]
async fn stateless_requests_are_checked_as_their_revision_says() {
    let setup = Setup::new(true).await;
    let client = setup.client().await;
    let unknown = client.ask("no/such", json!({})).await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::NOT_FOUND, -32601));
    for legacy_only in ["initialize", "ping", "logging/setLevel", "resources/subscribe"] {
        let answer = client.ask(legacy_only, json!({ "uri": "orders://1", "level": "info" })).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::NOT_FOUND, -32601), "{legacy_only}");
    }
    let bare = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} }).to_string();
    let answer = client.post(bare).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, -32602));
    let body = client.body(1, "tools/list", json!({})).replace(MODERN, "1900-01-01");
    let mut request = client.request("POST", body);
    request.headers_mut().insert("mcp-protocol-version", HeaderValue::from_static("1900-01-01"));
    let answer = Answer::of(client.send(request).await).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, -32022));
    assert_eq!(answer.json().pointer("/error/data/supported/0").unwrap(), MODERN);
    let response = json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string();
    assert_eq!(client.post(response).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_gateway_stops_when_calls_in_flight_are_answered_and_recorded() {
    let setup = Setup::new(false).await;
    let client = setup.legacy_client().await;
    let slow = client.call("refund", json!({ "order_id": "o-1", "amount_cents": 1 }));
    let stop = async {
        setup.upstream.shared.began.acquire().await.unwrap().forget();
        let stopping = setup.gateway.stop(std::time::Duration::from_secs(10));
        let release = async {
            assert_eq!(client.ask("tools/list", json!({})).await.status, StatusCode::SERVICE_UNAVAILABLE);
            setup.upstream.shared.gate.add_permits(1);
        };
        futures_util::future::join(stopping, release).await;
    };
    let (answer, ()) = futures_util::future::join(slow, stop).await;
    assert_eq!(answer.status, StatusCode::OK);
    let outcomes = setup.logged("outcome");
    assert_eq!(outcomes[0]["status"], "ok");
    let _ = client.request("GET", "").into_body().collect().await;
}
