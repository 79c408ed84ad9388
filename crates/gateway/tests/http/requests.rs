//! What leaves the gateway for an HTTP API, and what never does, byte for byte as the other side received it.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::support::*;
use gateway::http::HttpLimits;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret;
use serde_json::json;
use std::convert::Infallible;
use testkit::Fault;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn a_request_of_the_task_is_sent_with_a_secret_that_the_agent_never_sees() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let got = client.get("/http/api/repos/r1/issues").await;
    assert_eq!((got.status.as_u16(), got.text().as_str()), (200, "{\"fine\":true}"), "{got:?}");
    let seen = setup.upstream.seen().pop().unwrap();
    assert_eq!(seen.line(), "GET /v1/repos/r1/issues?page=1 HTTP/1.1");
    assert_eq!(seen.header("authorization"), [format!("Bearer {SECRET}")]);
    assert_eq!(seen.header("host"), [format!("api.test:{}", setup.upstream.port)]);
    assert_eq!(seen.sni.as_deref(), Some("api.test"));
    assert_eq!(seen.header("accept-encoding"), ["identity"]);
    assert_eq!(seen.header("dpop"), [""; 0]);
    assert_eq!(setup.outcome().await, "ok");
    let decision = setup.logged("decision").pop().unwrap();
    assert_eq!((&decision["operation"], &decision["subject"]), (&json!("http.request"), &json!("read")));
    assert!(!format!("{:?}", setup.world.ledger.events()).contains(SECRET));
}

#[tokio::test]
async fn what_the_task_may_not_do_is_refused_with_the_reason_and_nothing_is_sent() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let comment = json!({ "text": "hello" });
    for (got, status, reason) in [
        (client.get("/http/api/repos/private/issues").await, 403, "not_permitted"),
        (client.post("/http/api/repos/private/comments", comment.clone()).await, 403, "not_permitted"),
        (client.get("/http/api/admin").await, 404, "no_route"),
        (client.post("/http/api/repos/r1/issues", comment).await, 404, "no_route"),
        (client.go(client.request("DELETE", "/http/api/repos/r1/issues"), "").await, 404, "no_route"),
        (client.get("/http/api/repos/r1/issues?admin=1").await, 400, "unknown_argument"),
        (client.get("/http/api/repos/r1/issues?page=1&page=2").await, 400, "unknown_argument"),
        (client.post("/http/api/mail", json!({ "to": "a", "bcc": "evil" })).await, 400, "unknown_argument"),
        (client.get("/http/api/repos/r1/..%2f..%2fadmin").await, 400, "request"),
        (client.get("/http/api/repos/%252e%252e/issues").await, 400, "request"),
        (client.get("/http/api/repos/r1;x=y/issues").await, 400, "request"),
        (client.get("/http/api/repos//issues").await, 400, "request"),
        (client.get("/http/other/repos/r1/issues").await, 404, "no_api"),
        (client.get("/http/API/repos/r1/issues").await, 404, "no_api"),
    ] {
        assert_eq!((got.status.as_u16(), got.reason().as_str()), (status, reason), "{}", got.text());
    }
    assert!(setup.upstream.seen().is_empty());
    let denied = setup.logged("decision").into_iter().filter(|event| event["operation"] == "http.request");
    assert_eq!(
        denied.filter(|event| event["outcome"] == "deny").count(),
        12,
        "each attempt is in the log, but for those at no API"
    );
}

#[tokio::test]
async fn no_log_no_request() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.world.ledger.break_with(Some(Fault::Failed));
    assert_eq!(client.get("/http/api/echo").await.status, 503);
    assert_eq!(client.get("/http/api/admin").await.status, 503);
    assert!(setup.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_credential_of_somebody_else_is_refused() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    for (name, value) in [
        ("cookie", "session=1"),
        ("proxy-authorization", "Basic eA=="),
        ("x-api-key", "found"),
        ("api-key", "found"),
        ("private-token", "found"),
        ("x-auth-token", "found"),
        ("x-amz-security-token", "found"),
        ("x-goog-api-key", "found"),
        ("x-access-token", "found"),
        ("authorization", "Bearer found"),
    ] {
        let got = client.go(client.request("GET", "/http/api/echo").header(name, value), "").await;
        assert_eq!(got.status, 400, "{name}: {}", got.text());
    }
    assert!(setup.upstream.seen().is_empty());
}

#[tokio::test]
async fn the_place_of_the_secret_is_the_gateways_alone() {
    for (auth, path, header) in [
        ("form = \"header\", name = \"x-license\", secret = { file = \"secret\" }", "/http/api/echo", Some("x-license")),
        ("form = \"query\", name = \"key\", secret = { file = \"secret\" }", "/http/api/echo?KEY=mine", None),
    ] {
        let setup = Setup::with(With { auth, ..With::default() }).await;
        let client = setup.client().await;
        let mut request = client.request("GET", path);
        if let Some(name) = header {
            request = request.header(name, "mine");
        }
        let got = client.go(request, "").await;
        assert_eq!(got.reason(), "foreign_credential", "{}", got.text());
        assert!(setup.upstream.seen().is_empty());
    }
}

#[tokio::test]
async fn tricks_with_headers_and_methods_are_refused() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    for (method, name, value, status) in [
        ("GET", "connection", "close, authorization", 400),
        ("GET", "connection", "x-inject", 400),
        ("GET", "upgrade", "websocket", 400),
        ("GET", "content-encoding", "gzip", 400),
        ("TRACE", "x", "y", 405),
        ("CONNECT", "x", "y", 405),
        ("OPTIONS", "x", "y", 405),
        ("PROPFIND", "x", "y", 405),
        ("GET", "origin", "https://evil.test", 403),
        ("GET", "host", "evil.test", 403),
    ] {
        let got = client.go(client.request(method, "/http/api/echo").header(name, value), "").await;
        assert_eq!(got.status.as_u16(), status, "{method} {name}: {value}: {}", got.text());
    }
    // HTTP/2 and absolute forms carry an authority; it must be the host.
    let absolute = client.request("GET", "/http/api/echo").uri("https://evil.test/http/api/echo");
    assert_eq!(client.go(absolute, "").await.status, 403);
    assert!(setup.upstream.seen().is_empty());
}

#[tokio::test]
async fn only_the_token_of_this_task_for_this_api_opens_it() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let bare = http::Request::builder().uri("/http/api/echo").header("host", "writ.test");
    let got = client.go(bare, "").await;
    assert_eq!(got.status, 401);
    let challenge = got.headers.get("www-authenticate").unwrap().to_str().unwrap().to_owned();
    assert!(
        challenge.contains(r#"resource_metadata="https://writ.test/.well-known/oauth-protected-resource/http/api""#),
        "{challenge}"
    );
    assert!(challenge.contains(r#"scope="http:api""#), "{challenge}");
    assert!(setup.client().await.issued.claims.scope.unwrap().contains("http:api"));
    // A proof for another path of the same API, and a bound token without its key.
    let elsewhere = client.request("GET", "/http/api/repos/r1/issues").uri("/http/api/echo");
    assert_eq!(client.go(elsewhere, "").await.status, 401);
    let mut unbound = client.request("GET", "/http/api/echo");
    unbound.headers_mut().unwrap().remove("dpop");
    assert_eq!(client.go(unbound, "").await.status, 401);
    setup.end_task(&client).await;
    assert_eq!(client.get("/http/api/echo").await.status, 401);
    assert!(setup.upstream.seen().is_empty());
}

#[tokio::test]
async fn what_a_route_reads_limits_what_the_task_may_send_afterwards() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let mail = || client.post("/http/api/mail", json!({ "to": "a@b", "text": "x" }));
    assert_eq!(mail().await.status, 200);
    assert_eq!(client.get("/http/api/repos/r1/issues").await.status, 200);
    let got = mail().await;
    assert_eq!((got.status.as_u16(), got.reason().as_str()), (403, "forbidden"));
    assert!(got.text().contains("no-exfiltration"), "{}", got.text());
}

#[tokio::test]
async fn sizes_and_rates_are_bounded_for_each_task() {
    let limits = HttpLimits { request_bytes: 64, requests_per_minute: 3, timeout_secs: 5, ..HttpLimits::default() };
    let setup = Setup::with(With { limits, ..With::default() }).await;
    let client = setup.client().await;
    assert_eq!(client.post("/http/api/mail", json!({ "to": "a", "text": "x".repeat(80) })).await.status, 413);
    assert_eq!(client.get("/http/api/echo").await.status, 200);
    assert_eq!(client.get("/http/api/echo").await.status, 200);
    let got = client.get("/http/api/echo").await;
    assert_eq!((got.status.as_u16(), got.reason().as_str()), (429, "rate"));
    assert!(got.headers.contains_key("retry-after"));
    assert_eq!(setup.client().await.get("/http/api/echo").await.status, 200, "another task has its own rate");

    let limits = HttpLimits { bytes_per_task: 20, timeout_secs: 5, ..HttpLimits::default() };
    let setup = Setup::with(With { limits, ..With::default() }).await;
    let client = setup.client().await;
    assert_eq!(client.get("/http/api/echo").await.status, 200);
    assert_eq!(client.get("/http/api/echo").await.reason(), "withheld");
    assert_eq!(client.get("/http/api/echo").await.reason(), "bytes");
}

/// A connection to the gateway behind a real HTTP/1.1 server.
async fn connected(setup: &Setup) -> tokio::net::TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let apis = setup.apis.clone();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let apis = apis.clone();
            async move { Ok::<_, Infallible>(apis.handle(request, info()).await) }
        });
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
    });
    tokio::net::TcpStream::connect(address).await.unwrap()
}

/// Bytes of a client that says no more then; gives what came back.
async fn raw(setup: &Setup, bytes: &[u8]) -> String {
    let mut socket = connected(setup).await;
    socket.write_all(bytes).await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_smuggled_request_never_reaches_the_api() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let inner = "GET /v1/admin HTTP/1.1\r\nhost: api.test\r\n\r\n";
    for framing in [
        format!("content-length: {}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}", inner.len() + 5),
        format!("transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n{inner}"),
        format!("transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{inner}"),
        format!("transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("content-length: 0\r\ncontent-length: {}\r\n\r\n{inner}", inner.len()),
        format!("content-length: +0\r\n\r\n{inner}"),
        format!("x: a\r\n folded: {}\r\n\r\n", "b"),
        format!("x: a\ncontent-length: 0\n\n{inner}"),
        format!("content-length : 0\r\n\r\n{inner}"),
        format!("x: a\rcontent-length: 5\r\n\r\n{inner}"),
    ] {
        let request =
            client.request("POST", "/http/api/repos/r1/comments").header("content-type", "application/json").body(()).unwrap();
        let mut head = "POST /http/api/repos/r1/comments HTTP/1.1\r\n".to_owned();
        for (name, value) in request.headers() {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        let answer = raw(&setup, format!("{head}{framing}").as_bytes()).await;
        assert!(!answer.contains("fine"), "{framing:?}: {answer}");
    }
    assert!(setup.upstream.seen().is_empty(), "{:?}", setup.upstream.seen());
}

#[tokio::test]
async fn each_request_of_a_connection_is_admitted_by_itself() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let request = client.request("GET", "/http/api/echo").body(()).unwrap();
    let mut first = "GET /http/api/echo HTTP/1.1\r\n".to_owned();
    for (name, value) in request.headers() {
        first.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
    }
    let second = "GET /http/api/echo HTTP/1.1\r\nhost: writ.test\r\nconnection: close\r\n\r\n";
    let mut socket = connected(&setup).await;
    socket.write_all(format!("{first}\r\n{second}").as_bytes()).await.unwrap();
    let mut answers = String::new();
    socket.read_to_string(&mut answers).await.unwrap();
    let statuses: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).filter_map(|answer| answer.get(..3)).collect();
    assert_eq!(statuses, ["200", "401"], "the second has no token: {answers}");
    assert_eq!(setup.upstream.seen().len(), 1);
}

#[tokio::test]
async fn over_http2_the_authority_and_the_host_must_be_one() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let (near, far) = tokio::io::duplex(64 * 1_024);
    let apis = setup.apis.clone();
    tokio::spawn(async move {
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let apis = apis.clone();
            async move { Ok::<_, Infallible>(apis.handle(request, info()).await) }
        });
        let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(far), service).await;
    });
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(near)).await.unwrap();
    tokio::spawn(connection);
    for (authority, host, status) in [
        ("writ.test", None, 200),
        ("writ.test", Some("writ.test"), 200),
        ("writ.test", Some("evil.test"), 403),
        ("evil.test", Some("writ.test"), 403),
        ("evil.test", None, 403),
    ] {
        let mut request = client.request("GET", "/http/api/echo");
        request.headers_mut().unwrap().remove("host");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.uri(format!("https://{authority}/http/api/echo"));
        let request = request.body(http_body_util::Full::<bytes::Bytes>::default()).unwrap();
        let got = sender.send_request(request).await.unwrap();
        assert_eq!(got.status().as_u16(), status, "{authority} {host:?}");
    }
    assert_eq!(setup.upstream.seen().len(), 2);
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_certificate_is_worth_nothing_without_it() {
    let setup = Setup::new().await;
    let world = &setup.world;
    let request = authority::IssueRequest {
        evidence: authority::EvidenceInput::Jwt(world.issuer.token("workload:bot", testkit::ISSUER, world.now()).into()),
        task: testkit::task_request("triage", json!({ "repo": "r1" })),
        resources: Vec::new(),
        holder: authority::Holder { dpop: None, certificate: Some([7; 32]) },
    };
    let issued = world.authority.issue(request).await.unwrap();
    for (certificate, status) in [(Some([7; 32]), 200), (Some([8; 32]), 401), (None, 401)] {
        let request = http::Request::get("/http/api/echo").header("host", "writ.test");
        let request = request.header("authorization", format!("Bearer {}", issued.token.expose_secret()));
        let info = gateway::ConnectionInfo { certificate, ..info() };
        let body = http_body_util::Full::<bytes::Bytes>::default();
        assert_eq!(setup.apis.handle(request.body(body).unwrap(), info).await.status().as_u16(), status, "{certificate:?}");
    }
    // A token without a key is taken only from an agent that may have such; this one is bound to a DPoP key.
    let client = setup.client().await;
    for scheme in ["Bearer", "DPoP"] {
        let request = http::Request::get("/http/api/echo").header("host", "writ.test");
        let request = request.header("authorization", format!("{scheme} {}", client.issued.token.expose_secret()));
        assert_eq!(client.go(request, "").await.status, 401, "{scheme}");
    }
    assert_eq!(setup.upstream.seen().len(), 1);
}

#[tokio::test]
async fn a_body_is_read_by_the_gateway_and_written_anew() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let request = client.request("POST", "/http/api/mail").header("content-type", "application/json; charset=utf-8");
    let got = client.go(request, " {\"text\" : \"\\u0061\", \"to\":\"x@y\"} ").await;
    assert_eq!(got.status, 200);
    let seen = setup.upstream.seen().pop().unwrap();
    assert_eq!(String::from_utf8(seen.body.clone()).unwrap(), r#"{"text":"a","to":"x@y"}"#);
    assert_eq!(
        (seen.header("content-type"), seen.header("transfer-encoding")),
        (vec!["application/json".to_owned()], Vec::new())
    );
}

#[tokio::test]
async fn a_stopping_gateway_takes_no_request() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.apis.stop(std::time::Duration::from_secs(1)).await;
    let response = client.send(client.request("GET", "/http/api/echo").body(Default::default()).unwrap()).await;
    assert_eq!(response.status(), 503);
    assert!(response.into_body().collect().await.is_ok());
}
