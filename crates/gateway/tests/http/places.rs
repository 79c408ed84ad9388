//! Where the secret goes: to one host at a checked address over TLS with its name, in the form that the operator chose.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::support::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gateway::http::HttpLimits;
use http_body::Frame;
use http_body_util::StreamBody;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};

fn v4(text: &str) -> IpAddr {
    text.parse::<Ipv4Addr>().unwrap().into()
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_followed() {
    for lookups in [
        vec![vec![v4("10.0.0.1")]],
        vec![vec![v4("127.0.0.2")]],
        vec![vec![v4("169.254.169.254")]],
        // One of ours among public ones, in either order.
        vec![vec![v4("127.0.0.1"), v4("10.0.0.1")]],
        vec![vec![v4("192.168.0.1"), v4("127.0.0.1")]],
        vec![vec!["::ffff:10.0.0.1".parse().unwrap()]],
        vec![Vec::new()],
    ] {
        let shown = format!("{lookups:?}");
        let setup = Setup::with(With { lookups, ..With::default() }).await;
        let got = setup.client().await.get("/http/api/echo").await;
        assert_eq!((got.status.as_u16(), got.reason().as_str()), (502, "unreachable"), "{shown}");
        assert_eq!(setup.upstream.accepted.load(Ordering::SeqCst), 0, "{shown}");
    }
}

#[tokio::test]
async fn a_name_that_is_rebound_is_checked_at_each_connection() {
    let lookups = vec![vec![v4("127.0.0.1")], vec![v4("127.0.0.2")]];
    let setup = Setup::with(With { lookups, ..With::default() }).await;
    let client = setup.client().await;
    setup
        .upstream
        .answer(|_| Answer::Last(vec![b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}".to_vec()]));
    assert_eq!(client.get("/http/api/echo").await.status, 200);
    assert_eq!(client.get("/http/api/echo").await.status, 502);
    assert_eq!(setup.upstream.accepted.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_without_the_name_or_a_trusted_certificate_sees_no_request() {
    for with in [With { certified: "other.test", ..With::default() }, With { trusted: false, ..With::default() }] {
        let setup = Setup::with(with).await;
        let got = setup.client().await.get("/http/api/echo").await;
        assert_eq!((got.status.as_u16(), got.reason().as_str()), (502, "unreachable"));
        assert!(setup.upstream.seen().is_empty());
        assert_eq!(setup.outcome().await, "upstream_error");
    }
}

#[tokio::test]
async fn each_form_of_credential_is_put_where_it_belongs() {
    let basic = format!("Basic {}", STANDARD.encode(format!("svc:{SECRET}")));
    for (auth, header, value, line) in [
        (
            "form = \"bearer\", secret = { file = \"secret\" }",
            "authorization",
            format!("Bearer {SECRET}"),
            "GET /v1/echo HTTP/1.1",
        ),
        (
            "form = \"header\", name = \"X-Key\", prefix = \"k \", secret = { file = \"secret\" }",
            "x-key",
            format!("k {SECRET}"),
            "GET /v1/echo HTTP/1.1",
        ),
        ("form = \"basic\", user = \"svc\", password = { file = \"secret\" }", "authorization", basic, "GET /v1/echo HTTP/1.1"),
        (
            "form = \"query\", name = \"key\", secret = { file = \"secret\" }",
            "accept-encoding",
            "identity".to_owned(),
            "GET /v1/echo?key=sk-live%2F0123456789%2Babcdef HTTP/1.1",
        ),
        ("form = \"none\"", "accept-encoding", "identity".to_owned(), "GET /v1/echo HTTP/1.1"),
    ] {
        let setup = Setup::with(With { auth, ..With::default() }).await;
        let got = setup.client().await.get("/http/api/echo").await;
        assert_eq!(got.status, 200, "{auth}: {}", got.text());
        let seen = setup.upstream.seen().pop().unwrap();
        assert_eq!((seen.line(), seen.header(header)), (line, vec![value]), "{auth}");
        if !auth.contains("none") {
            setup.upstream.answer(|seen| ok("", format!("{}{}", seen.head, String::from_utf8_lossy(&seen.body))));
            assert_eq!(setup.client().await.get("/http/api/echo").await.reason(), "withheld", "{auth}: an echo of the request");
        }
    }
}

#[tokio::test]
async fn a_request_is_signed_for_aws() {
    let aws = "form = \"sigv4\", access_key_id = \"AKIDEXAMPLE\", secret_access_key = { file = \"secret\" }, region = \"eu-central-1\", service = \"execute-api\"";
    let setup = Setup::with(With { auth: aws, ..With::default() }).await;
    let client = setup.client().await;
    assert_eq!(client.get("/http/api/repos/r1/issues").await.status, 200);
    let seen = setup.upstream.seen().pop().unwrap();
    let authorization = seen.header("authorization").pop().unwrap();
    assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"), "{authorization}");
    assert!(
        authorization.contains("/eu-central-1/execute-api/aws4_request, SignedHeaders=") && authorization.contains("host"),
        "{authorization}"
    );
    setup.upstream.answer(|seen| ok("", &seen.head));
    assert_eq!(client.get("/http/api/repos/r1/issues").await.reason(), "withheld", "a signature can be used again for a while");
}

#[tokio::test]
async fn a_token_of_client_credentials_is_fetched_kept_and_never_shown() {
    let auth = "form = \"oauth\", token_url = \"https://api.test:PORT/token\", client_id = \"writ\", client_secret = { file = \"secret\" }, scope = \"read\"";
    let setup = Setup::with(With { auth, ..With::default() }).await;
    let client = setup.client().await;
    let script = |seen: &Seen| match seen.line().starts_with("POST /token ") {
        true => ok(
            "content-type: application/json\r\n",
            r#"{"access_token": "tok-0123456789", "token_type": "Bearer", "expires_in": 600}"#,
        ),
        false => ok("", "{}"),
    };
    setup.upstream.answer(script);
    assert_eq!(client.get("/http/api/echo").await.status, 200);
    assert_eq!(client.get("/http/api/echo").await.status, 200);
    let seen = setup.upstream.seen();
    let pair = STANDARD.encode("writ:sk-live%2F0123456789%2Babcdef");
    assert_eq!(seen.len(), 3, "one token for two requests");
    assert_eq!(seen.first().unwrap().header("authorization"), [format!("Basic {pair}")]);
    assert_eq!(String::from_utf8(seen.first().unwrap().body.clone()).unwrap(), "grant_type=client_credentials&scope=read");
    assert_eq!(seen.last().unwrap().header("authorization"), ["Bearer tok-0123456789"]);
    // The API does not take it any more: it is fetched anew.
    setup.upstream.answer(move |seen| match seen.line().starts_with("POST /token ") {
        true => script(seen),
        false => Answer::Pieces(vec![b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n".to_vec()]),
    });
    assert_eq!(client.get("/http/api/echo").await.status, 401);
    setup.upstream.answer(move |seen| match seen.line().starts_with("POST /token ") {
        true => script(seen),
        false => ok("", "tok-0123456789"),
    });
    assert_eq!(client.get("/http/api/echo").await.reason(), "withheld", "the token is a secret, too");
    assert_eq!(setup.upstream.seen().iter().filter(|seen| seen.line().starts_with("POST /token")).count(), 2);
}

#[tokio::test]
async fn a_token_outlives_a_reload_that_leaves_its_api_as_it_was() {
    let auth = "form = \"oauth\", token_url = \"https://api.test:PORT/token\", client_id = \"writ\", client_secret = { file = \"secret\" }";
    let with = With { auth, ..With::default() };
    let setup = Setup::with(With { auth, ..With::default() }).await;
    let client = setup.client().await;
    setup.upstream.answer(|seen| match seen.line().starts_with("POST /token ") {
        true => ok(
            "content-type: application/json\r\n",
            r#"{"access_token": "tok-0123456789", "token_type": "Bearer", "expires_in": 600}"#,
        ),
        false => ok("", "{}"),
    });
    let fetched = || setup.upstream.seen().iter().filter(|seen| seen.line().starts_with("POST /token")).count();
    let other = With { limits: HttpLimits { timeout_secs: 6, ..HttpLimits::default() }, ..with };
    let other = target(&setup.world, &setup.upstream, &other, setup.secrets.path());
    for (target, tokens) in [(&setup.target, 1), (&setup.target, 1), (&other, 2)] {
        setup.reload(POLICIES, target).await;
        assert_eq!(client.get("/http/api/echo").await.status, 200);
        assert_eq!(fetched(), tokens);
    }
}

#[tokio::test]
async fn a_request_whose_policy_was_replaced_while_its_credential_was_fetched_is_not_sent() {
    let auth = "form = \"oauth\", token_url = \"https://api.test:PORT/token\", client_id = \"writ\", client_secret = { file = \"secret\" }";
    let setup = Setup::with(With { auth, ..With::default() }).await;
    let client = setup.client().await;
    setup.upstream.answer(|seen| match seen.line().starts_with("POST /token ") {
        true => match ok("content-type: application/json\r\n", r#"{"access_token": "tok-0123456789", "token_type": "Bearer"}"#) {
            Answer::Pieces(pieces) => Answer::Held(pieces),
            other => other,
        },
        false => ok("", "{}"),
    });
    let change = async {
        setup.upstream.hanging.notified().await;
        setup.reload_policies(&format!("{POLICIES}\n// another version\n")).await;
        setup.upstream.goes_on.notify_one();
    };
    let (answer, ()) = futures_util::future::join(client.get("/http/api/echo"), change).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(setup.upstream.seen().len(), 1, "the token alone was asked for");
    let status = setup.logged("outcome").pop().and_then(|outcome| outcome.get("status").cloned());
    assert_eq!(status, Some("not_released".into()));
}

#[tokio::test]
async fn an_api_gets_the_ids_of_our_trace_if_its_target_says_so_and_never_those_of_the_task() {
    for (trace, expected) in [(true, vec![TRACE.to_owned()]), (false, vec![])] {
        let setup = Setup::with(With { trace, ..With::default() }).await;
        let client = setup.client().await;
        setup.upstream.answer(|_| ok("", "{}"));
        let own = "00-11111111111111111111111111111111-2222222222222222-01";
        assert_eq!(client.go(client.request("GET", "/http/api/echo").header("traceparent", own), "").await.status, 200);
        assert_eq!(setup.upstream.seen().pop().unwrap().header("traceparent"), expected);
    }
}

#[tokio::test]
async fn tasks_share_no_token_and_what_an_api_refuses_of_one_disturbs_no_other() {
    let auth = "form = \"oauth\", token_url = \"https://api.test:PORT/token\", client_id = \"writ\", client_secret = { file = \"secret\" }";
    let setup = Setup::with(With { auth, ..With::default() }).await;
    let (one, two) = (setup.client().await, setup.client().await);
    let given = AtomicUsize::new(0);
    setup.upstream.answer(move |seen| {
        if seen.line().starts_with("POST /token ") {
            let number = given.fetch_add(1, Ordering::SeqCst);
            let body = format!(r#"{{"access_token": "tok-0123456789-{number}", "token_type": "Bearer", "expires_in": 600}}"#);
            return ok("content-type: application/json\r\n", body);
        }
        // The first token was revoked at the API.
        match seen.header("authorization").concat().ends_with("-0") {
            true => Answer::Pieces(vec![b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n".to_vec()]),
            false => ok("", "{}"),
        }
    });
    let mut statuses = Vec::new();
    for client in [&one, &two, &one, &two, &one] {
        statuses.push(client.get("/http/api/echo").await.status.as_u16());
    }
    assert_eq!(statuses, [401, 200, 200, 200, 200], "a refused token is fetched anew once, for its task alone");
    let used = setup.upstream.seen().into_iter().filter(|seen| seen.line().starts_with("GET "));
    let used: Vec<String> =
        used.map(|seen| seen.header("authorization").concat().replace("Bearer tok-0123456789-", "")).collect();
    assert_eq!(used, ["0", "1", "2", "1", "2"]);
}

#[tokio::test]
async fn a_token_endpoint_that_errs_shows_nothing_of_it() {
    let auth = "form = \"oauth\", token_url = \"https://api.test:PORT/token\", client_id = \"writ\", client_secret = { file = \"secret\" }, client_auth = \"body\"";
    for answer in [
        "HTTP/1.1 400 Bad\r\ncontent-length: 14\r\n\r\nthe secret was",
        "HTTP/1.1 302 Found\r\nlocation: https://evil.test/\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 53\r\n\r\n{\"access_token\": \"0123456789\", \"token_type\": \"mac\"   }",
    ] {
        let setup = Setup::with(With { auth, ..With::default() }).await;
        setup.upstream.answer(move |_| Answer::Pieces(vec![answer.as_bytes().to_vec()]));
        let got = setup.client().await.get("/http/api/echo").await;
        assert_eq!((got.status.as_u16(), got.reason().as_str()), (502, "credential"), "{answer}");
        assert!(!got.text().contains("secret was") && setup.upstream.seen().len() == 1);
        assert_eq!(setup.outcome().await, "upstream_error");
    }
}

#[tokio::test]
async fn a_secret_that_cannot_be_had_or_not_be_looked_for_stops_the_request_without_a_word_about_it() {
    for (auth, file) in [
        ("form = \"bearer\", secret = { file = \"missing\" }", "missing"),
        ("form = \"bearer\", secret = { file = \"short\" }", "1234567"),
        ("form = \"bearer\", secret = { env = \"WRIT_NO_SUCH_VARIABLE\" }", "WRIT_NO"),
    ] {
        let setup = Setup::with(With { auth, ..With::default() }).await;
        let got = setup.client().await.get("/http/api/echo").await;
        assert_eq!((got.status.as_u16(), got.reason().as_str()), (502, "credential"));
        assert!(
            !got.text().contains(file) && !got.text().contains(&setup.secrets.path().display().to_string()),
            "{}",
            got.text()
        );
        assert!(setup.upstream.seen().is_empty());
    }
}

#[tokio::test]
async fn a_rotated_secret_is_used_at_once() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    std::fs::write(setup.secrets.path().join("secret"), "rotated-0123456789\n").unwrap();
    assert_eq!(client.get("/http/api/echo").await.status, 200);
    assert_eq!(setup.upstream.seen().pop().unwrap().header("authorization"), ["Bearer rotated-0123456789"]);
}

#[tokio::test]
async fn a_request_whose_body_takes_its_time_is_not_sent_where_its_api_was_before() {
    // Another description of the API; other policies, whose routes are not described yet; both as one reload has them.
    for change in ["description", "policies", "both"] {
        let setup = Setup::new().await;
        let client = setup.client().await;
        let (rest, body) = tokio::sync::oneshot::channel();
        let body = futures_util::stream::once(async { body.await.map(|text: &'static str| Frame::data(Bytes::from(text))) });
        let request = client.request("POST", "/http/api/repos/r1/comments").header("content-type", "application/json");
        let request = request.body(StreamBody::new(Box::pin(body))).unwrap();
        let mut answer = Box::pin(setup.apis.handle(request, info()));
        assert!(futures_util::poll!(&mut answer).is_pending(), "its body has not come");
        let moved = With { limits: HttpLimits { timeout_secs: 6, ..HttpLimits::default() }, ..With::default() };
        let moved = target(&setup.world, &setup.upstream, &moved, setup.secrets.path());
        let policies = format!("{POLICIES}\n// another version\n");
        match change {
            "description" => setup.apis.replace(vec![moved]).unwrap(),
            "policies" => setup.reload_policies(&policies).await,
            _ => setup.reload(&policies, &moved).await,
        }
        rest.send(r#"{"text":"hello"}"#).unwrap();
        let got = Got::of(answer.await).await;
        assert_eq!((got.status.as_u16(), got.reason().as_str()), (503, "policy_changed"), "{change}: {}", got.text());
        assert!(setup.upstream.seen().is_empty(), "{change}");
        assert_eq!(setup.outcome().await, "not_released", "{change}");
        if change == "both" {
            assert_eq!(client.post("/http/api/repos/r1/comments", serde_json::json!({ "text": "again" })).await.status, 200);
        }
    }
}
