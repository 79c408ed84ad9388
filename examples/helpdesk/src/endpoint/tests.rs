//! Claims about the endpoint, made over its own router without a socket: what each revision asks
//! for, what is refused and with which status and code, and what a call leaves behind.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

async fn send(helpdesk: &Helpdesk, method: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri("/mcp").header("content-type", "application/json");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:8080");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from(body.to_owned())).unwrap();
    let response = router(helpdesk.clone()).oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
}

fn stateless_body(method: &str, mut params: Value) -> String {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

const VERSION: (&str, &str) = ("mcp-protocol-version", "2026-07-28");

async fn call(helpdesk: &Helpdesk, tool: &str, arguments: Value) -> Value {
    let body = stateless_body("tools/call", json!({ "name": tool, "arguments": arguments }));
    let headers = [VERSION, ("mcp-method", "tools/call"), ("mcp-name", tool)];
    let answer = send(helpdesk, "POST", &headers, &body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.body["result"].clone()
}

async fn open_session(helpdesk: &Helpdesk, revision: &str) -> (String, Value) {
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": revision, "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let answer = send(helpdesk, "POST", &[], &body.to_string()).await;
    let session = answer.headers[SESSION_HEADER].to_str().unwrap().to_owned();
    (session, answer.body["result"].clone())
}

#[tokio::test]
async fn discovery_names_every_revision() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    let headers = [VERSION, ("mcp-method", "server/discover")];
    let answer = send(&helpdesk, "POST", &headers, &stateless_body("server/discover", json!({}))).await;
    assert_eq!(answer.body["result"]["supportedVersions"], json!(["2026-07-28", "2025-11-25", "2025-06-18"]));
    assert_eq!(answer.body["result"]["resultType"], "complete");
}

#[tokio::test]
async fn lists_and_reads_say_how_long_and_by_whom_they_may_be_kept() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    for (method, params, name) in [
        ("tools/list", json!({}), None),
        ("resources/list", json!({}), None),
        ("prompts/list", json!({}), None),
        ("resources/read", json!({ "uri": "helpdesk://guides/refunds" }), Some("helpdesk://guides/refunds")),
    ] {
        let mut headers = vec![VERSION, ("mcp-method", method)];
        headers.extend(name.map(|name| ("mcp-name", name)));
        let answer = send(&helpdesk, "POST", &headers, &stateless_body(method, params)).await;
        assert_eq!(answer.body["result"]["ttlMs"], 60_000, "{method}: {}", answer.body);
        assert_eq!(answer.body["result"]["cacheScope"], "public", "{method}");
    }
}

#[tokio::test]
async fn headers_that_differ_from_the_body_are_refused() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    let body = stateless_body("tools/call", json!({ "name": "get_order", "arguments": { "order_id": "A-1001" } }));
    let method = ("mcp-method", "tools/call");
    let name = ("mcp-name", "get_order");
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], i64);
    let cases: &[Case<'_>] = &[
        ("another method", &[VERSION, ("mcp-method", "tools/list"), name], -32020),
        ("no method", &[VERSION, name], -32020),
        ("another name", &[VERSION, method, ("mcp-name", "list_orders")], -32020),
        ("no name", &[VERSION, method], -32020),
        ("name twice", &[VERSION, method, name, ("mcp-name", "refund")], -32020),
        ("encoded other name", &[VERSION, method, ("mcp-name", "=?base64?cmVmdW5k?=")], -32020),
        ("broken encoding", &[VERSION, method, ("mcp-name", "=?base64?***?=")], -32020),
        ("another version", &[("mcp-protocol-version", "2025-11-25"), method, name], -32020),
        ("no version", &[method, name], -32020),
        ("unknown version", &[("mcp-protocol-version", "1999-01-01"), method, name], -32022),
    ];
    for (case, headers, code) in cases {
        let answer = send(&helpdesk, "POST", headers, &body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{case}");
        assert_eq!(answer.body["error"]["code"], *code, "{case}: {}", answer.body);
    }
    assert_eq!(helpdesk.received_calls(), []);
}

#[tokio::test]
async fn an_encoded_name_that_says_the_same_is_accepted() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    let body = stateless_body("tools/call", json!({ "name": "get_order", "arguments": { "order_id": "A-1001" } }));
    let headers = [VERSION, ("mcp-method", "tools/call"), ("mcp-name", "=?base64?Z2V0X29yZGVy?=")];
    let answer = send(&helpdesk, "POST", &headers, &body).await;
    assert_eq!(answer.body["result"]["structuredContent"]["total_cents"], 4_990);
}

#[tokio::test]
async fn stateless_requests_without_their_metadata_are_refused() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    let headers = [VERSION, ("mcp-method", "tools/list")];
    for meta in [json!({}), json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" })] {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "_meta": meta } });
        let answer = send(&helpdesk, "POST", &headers, &body.to_string()).await;
        assert_eq!((answer.status, &answer.body["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(-32602)));
    }
}

#[tokio::test]
async fn unknown_methods_are_404_when_stateless_and_200_in_a_session() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    let headers = [VERSION, ("mcp-method", "initialize")];
    let answer = send(&helpdesk, "POST", &headers, &stateless_body("initialize", json!({}))).await;
    assert_eq!((answer.status, &answer.body["error"]["code"]), (StatusCode::NOT_FOUND, &json!(-32601)));
    let (session, _) = open_session(&helpdesk, "2025-11-25").await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "no/such" }).to_string();
    let answer = send(&helpdesk, "POST", &[(SESSION_HEADER, &session)], &body).await;
    assert_eq!((answer.status, &answer.body["error"]["code"]), (StatusCode::OK, &json!(-32601)));
}

#[tokio::test]
async fn a_session_keeps_the_revision_it_agreed_on() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    for (asked, agreed) in
        [("2025-06-18", "2025-06-18"), ("2025-11-25", "2025-11-25"), ("2024-11-05", "2025-11-25"), ("2026-07-28", "2025-11-25")]
    {
        let (_, result) = open_session(&helpdesk, asked).await;
        assert_eq!(result["protocolVersion"], agreed, "{asked}");
    }
}

#[tokio::test]
async fn requests_outside_a_session_are_refused() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
    assert_eq!(send(&helpdesk, "POST", &[], &body).await.status, StatusCode::BAD_REQUEST);
    let (session, _) = open_session(&helpdesk, "2025-11-25").await;
    let named = [(SESSION_HEADER, session.as_str())];
    assert_eq!(send(&helpdesk, "POST", &named, &body).await.status, StatusCode::OK);
    assert_eq!(send(&helpdesk, "DELETE", &named, "").await.status, StatusCode::NO_CONTENT);
    assert_eq!(send(&helpdesk, "POST", &named, &body).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn bodies_that_are_not_one_message_are_refused() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    for (body, code) in [
        ("{", -32700),
        ("[]", -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
    ] {
        let answer = send(&helpdesk, "POST", &[], body).await;
        assert_eq!((answer.status, &answer.body["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(code)), "{body}");
    }
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    let body = stateless_body("server/discover", json!({}));
    let method = ("mcp-method", "server/discover");
    for (name, value, status) in [
        ("host", "attacker.example", StatusCode::FORBIDDEN),
        ("host", "127.0.0.1.attacker.example", StatusCode::FORBIDDEN),
        ("origin", "https://attacker.example", StatusCode::FORBIDDEN),
        ("origin", "null", StatusCode::FORBIDDEN),
        ("host", "localhost:9", StatusCode::OK),
        ("host", "[::1]:9", StatusCode::OK),
        ("origin", "http://localhost:3000", StatusCode::OK),
    ] {
        let answer = send(&helpdesk, "POST", &[VERSION, method, (name, value)], &body).await;
        assert_eq!(answer.status, status, "{name}: {value}");
    }
}

#[tokio::test]
async fn only_the_credential_opens_a_helpdesk_that_asks_for_one() {
    let helpdesk = Helpdesk::in_memory().unwrap().requiring("sesame-for-tests".into());
    let body = stateless_body("server/discover", json!({}));
    let method = ("mcp-method", "server/discover");
    let present = |value| [VERSION, method, ("authorization", value)];
    assert_eq!(send(&helpdesk, "POST", &[VERSION, method], &body).await.status, StatusCode::UNAUTHORIZED);
    for wrong in ["Bearer sesame", "Bearer sesame-for-testz", "Basic sesame-for-tests", "Bearer "] {
        let answer = send(&helpdesk, "POST", &present(wrong), &body).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    let answer = send(&helpdesk, "POST", &present("Bearer sesame-for-tests"), &body).await;
    assert_eq!(answer.status, StatusCode::OK);
}

#[tokio::test]
async fn refunds_stay_within_what_was_paid() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    for (order_id, amount_cents, error, refunded) in [
        ("A-1001", 1_500, false, 1_500),
        ("A-1001", 3_491, true, 1_500),
        ("A-1001", 3_490, false, 4_990),
        ("A-1001", 1, true, 4_990),
        ("A-1001", 0, true, 4_990),
        ("A-1001", -5, true, 4_990),
    ] {
        let result = call(&helpdesk, "refund", json!({ "order_id": order_id, "amount_cents": amount_cents })).await;
        assert_eq!(result["isError"], error, "{amount_cents}");
        assert_eq!(helpdesk.refunded_cents(order_id).unwrap(), Some(refunded), "{amount_cents}");
    }
    let result = call(&helpdesk, "refund", json!({ "order_id": "A-9999", "amount_cents": 1 })).await;
    assert_eq!(result["isError"], true);
}

#[tokio::test]
async fn every_tool_does_what_it_says() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    let orders = call(&helpdesk, "list_orders", json!({ "customer_id": "C-100" })).await;
    assert_eq!(orders["structuredContent"]["orders"].as_array().unwrap().len(), 2);
    let all = call(&helpdesk, "list_orders", Value::Null).await;
    assert_eq!(all["structuredContent"]["orders"].as_array().unwrap().len(), 5);
    let found = call(&helpdesk, "search_customers", json!({ "query": "LYON" })).await;
    assert_eq!(found["structuredContent"]["customers"][0]["customer_id"], "C-103");
    let everybody = call(&helpdesk, "search_customers", json!({ "query": "" })).await;
    assert_eq!(everybody["structuredContent"]["customers"].as_array().unwrap().len(), 4);
    call(&helpdesk, "reply_ticket", json!({ "ticket_id": 4710, "body": "Done." })).await;
    let ticket = call(&helpdesk, "read_ticket", json!({ "ticket_id": 4710 })).await;
    assert_eq!(ticket["structuredContent"]["replies"], json!(["Done."]));
    call(&helpdesk, "send_email", json!({ "to": "a@b.example", "subject": "s", "body": "b" })).await;
    assert_eq!(helpdesk.sent_emails().unwrap()[0].to, "a@b.example");
}

#[tokio::test]
async fn the_injection_is_in_ticket_4711_and_nowhere_else() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    for (ticket_id, injected) in [(4710, false), (4711, true), (4712, false)] {
        let ticket = call(&helpdesk, "read_ticket", json!({ "ticket_id": ticket_id })).await;
        let body = ticket["structuredContent"]["body"].as_str().unwrap();
        assert_eq!(body.contains("send_email") && body.contains("A-1002"), injected, "{ticket_id}");
    }
}

#[tokio::test]
async fn unknown_arguments_are_a_readable_tool_error() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    for arguments in [json!({ "order_id": "A-1001", "x": 1 }), json!({}), json!({ "order_id": 5 })] {
        let result = call(&helpdesk, "get_order", arguments).await;
        assert_eq!(result["isError"], true);
        assert!(result["content"][0]["text"].as_str().unwrap().starts_with("invalid arguments"));
    }
}

#[tokio::test]
async fn received_calls_tell_what_arrived_in_order() {
    let helpdesk = Helpdesk::in_memory().unwrap();
    call(&helpdesk, "get_order", json!({ "order_id": "A-1001" })).await;
    let (session, _) = open_session(&helpdesk, "2025-06-18").await;
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "no_such_tool", "arguments": { "a": 1 } } });
    let headers = [(SESSION_HEADER, session.as_str()), ("authorization", "Bearer x")];
    let answer = send(&helpdesk, "POST", &headers, &body.to_string()).await;
    assert_eq!(answer.body["error"]["code"], -32602);
    let calls = helpdesk.received_calls();
    assert_eq!(calls.len(), 2);
    assert_eq!((calls[0].tool.as_str(), calls[0].session.as_deref(), calls[0].authorized), ("get_order", None, false));
    assert_eq!(
        calls[1],
        ReceivedCall {
            tool: "no_such_tool".to_owned(),
            arguments: json!({ "a": 1 }),
            revision: "2025-06-18".to_owned(),
            session: Some(session),
            authorized: true,
        }
    );
}
