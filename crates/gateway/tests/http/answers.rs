//! What comes back: never the secret, never compressed, never more than was agreed, never after the task's end.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::support::*;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use gateway::http::HttpLimits;
use http_body_util::{BodyExt, Full};
use secrecy::ExposeSecret;
use std::time::Duration;

/// An answer with this body, chunked in pieces of so many bytes.
fn chunked(headers: &str, body: &[u8], piece: usize) -> Answer {
    let mut pieces = vec![format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n").into_bytes()];
    pieces.extend(body.chunks(piece).map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()));
    pieces.push(b"0\r\n\r\n".to_vec());
    Answer::Pieces(pieces)
}

type Answers = Box<dyn Fn() -> Answer + Send>;

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

#[tokio::test]
async fn an_answer_that_echoes_the_secret_is_withheld_and_logged() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let pair = format!("authorization: Bearer {SECRET}\r\n");
    let answers: Vec<(&str, Answers)> = vec![
        ("header", Box::new(|| ok(&format!("x-echo: {SECRET}\r\n"), "{}"))),
        ("header, encoded", Box::new(|| ok(&format!("x-echo: {}\r\n", STANDARD.encode(SECRET)), "{}"))),
        ("cookie", Box::new(|| ok(&format!("set-cookie: a={SECRET}\r\n"), "{}"))),
        ("body", Box::new(move || ok("", format!("you sent {pair}")))),
        (
            "json",
            Box::new(|| {
                ok("content-type: application/json\r\n", serde_json::json!({ "echo": SECRET }).to_string().replace('/', "\\/"))
            }),
        ),
        ("percent", Box::new(|| ok("", format!("?key={}", percent(SECRET))))),
        ("base64", Box::new(|| ok("", STANDARD.encode(format!("Bearer {SECRET}"))))),
        ("base64url", Box::new(|| ok("", URL_SAFE.encode(format!("xBearer {SECRET}"))))),
        ("hex", Box::new(|| ok("", SECRET.bytes().map(|byte| format!("{byte:02X}")).collect::<String>()))),
        ("byte by byte", Box::new(|| chunked("", format!("x{SECRET}y").as_bytes(), 1))),
        ("across a border", Box::new(|| chunked("", format!("{}{SECRET}", "x".repeat(4090)).as_bytes(), 4096))),
        (
            "error page",
            Box::new(|| {
                Answer::Pieces(vec![
                    format!("HTTP/1.1 500 Oops\r\ncontent-length: {}\r\n\r\n{SECRET}", SECRET.len()).into_bytes(),
                ])
            }),
        ),
        (
            "trailer",
            Box::new(|| {
                Answer::Pieces(vec![format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n2\r\n{{}}\r\n0\r\nx-t: {SECRET}\r\n\r\n").into_bytes()])
            }),
        ),
    ];
    for (name, answer) in answers {
        setup.upstream.answer(move |_| answer());
        let got = client.get("/http/api/echo").await;
        assert_eq!((got.status.as_u16(), got.reason().as_str()), (502, "withheld"), "{name}: {got:?}");
        assert!(!format!("{got:?}").contains(SECRET), "{name}");
        assert_eq!(setup.outcome().await, "secret_echoed", "{name}");
    }
    assert!(!format!("{:?}", setup.world.ledger.events()).contains(SECRET));
}

#[tokio::test]
async fn the_reason_phrase_and_trailers_of_an_answer_are_not_passed_on() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.upstream.answer(|_| {
        Answer::Pieces(vec![
            format!("HTTP/1.1 200 {SECRET}\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx-t: 1\r\n\r\n").into_bytes(),
        ])
    });
    let got = client.get("/http/api/echo").await;
    assert_eq!((got.status.as_u16(), got.text().as_str()), (200, "{}"));
    assert!(!format!("{got:?}").contains(SECRET) && !got.headers.contains_key("x-t"));
}

#[tokio::test]
async fn a_compressed_answer_is_withheld() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    for (name, headers, body) in [
        ("gzip", "content-encoding: gzip\r\n", b"\x1f\x8b\x08rest".as_slice()),
        ("deflate", "content-encoding: deflate\r\n", b"x\x9crest"),
        ("br", "content-encoding: br\r\n", b"rest"),
        ("zstd", "content-encoding: ZSTD\r\n", b"rest"),
        ("two", "content-encoding: identity\r\ncontent-encoding: gzip\r\n", b"rest"),
        ("unsaid gzip", "", b"\x1f\x8b\x08rest"),
        ("unsaid zstd", "", b"\x28\xb5\x2f\xfdrest"),
        ("unsaid zlib", "", b"x\x9crest"),
        ("unsaid zip", "", b"PK\x03\x04rest"),
    ] {
        setup.upstream.answer(move |_| ok(headers, body));
        let got = client.get("/http/api/echo").await;
        assert_eq!(got.status, 502, "{name}: {got:?}");
        assert!(!got.text().contains("rest") && setup.outcome().await == "withheld", "{name}");
    }
    setup.upstream.answer(|_| {
        Answer::Last(vec![b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n4\r\nrest\r\n0\r\n\r\n".to_vec()])
    });
    assert_eq!(client.get("/http/api/echo").await.status, 502, "a transfer coding");
    setup.upstream.answer(|_| ok("", b"\x1f\x8b\x08rest"));
    assert_eq!(client.get("/http/api/download").await.status, 200, "a route may say that its answers are such files");
}

#[tokio::test]
async fn a_redirect_is_passed_on_and_not_followed() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let port = setup.upstream.port;
    for (location, passed) in [
        ("https://evil.test/x".to_owned(), Some("https://evil.test/x")),
        ("//evil.test/v1/x".to_owned(), Some("//evil.test/v1/x")),
        ("/v1/repos/r1/issues".to_owned(), Some("/http/api/repos/r1/issues")),
        (format!("https://api.test:{port}/v1/repos/r1/issues"), Some("/http/api/repos/r1/issues")),
        (format!("https://evil.test/?token={SECRET}"), None),
        (format!("https://evil.test/?token={}", percent(SECRET)), None),
    ] {
        let (before, sent) = (setup.upstream.seen().len(), location.clone());
        setup.upstream.answer(move |_| {
            Answer::Pieces(vec![format!("HTTP/1.1 302 Found\r\nlocation: {sent}\r\ncontent-length: 0\r\n\r\n").into_bytes()])
        });
        let got = client.get("/http/api/echo").await;
        assert_eq!(
            (got.status.as_u16(), got.headers.get("location").map(|value| value.to_str().unwrap())),
            (302, passed),
            "{location}"
        );
        assert_eq!(setup.upstream.seen().len(), before + 1, "{location}");
        assert_eq!(setup.outcome().await, if passed.is_some() { "ok" } else { "secret_echoed" });
    }
}

#[tokio::test]
async fn headers_that_would_go_around_the_gateway_are_taken_out() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let headers = "set-cookie: session=1\r\nwww-authenticate: Basic realm=x\r\nalt-svc: h3=\":443\"\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: 5\r\n\
        access-control-allow-origin: *\r\nrefresh: 0\r\nstrict-transport-security: max-age=1\r\nx-fine: yes\r\netag: \"1\"\r\n";
    setup.upstream.answer(move |_| ok(headers, "{}"));
    let got = client.get("/http/api/echo").await;
    let mut names: Vec<_> = got.headers.keys().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["etag", "x-fine"]);
}

#[tokio::test]
async fn events_pass_as_they_come_until_the_secret_would() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let stream = format!("data: one\n\ndata: x{}", &STANDARD.encode(format!("a{SECRET}b")));
    setup.upstream.answer(move |_| chunked("content-type: text/event-stream\r\n", stream.as_bytes(), 11));
    let got = client.get("/http/api/echo").await;
    assert!(got.cut && got.status == 200 && got.text().starts_with("data: one\n\n"), "{got:?}");
    assert!(got.text().len() < "data: one\n\ndata: x".len() + 8, "{}", got.text());
    assert_eq!(setup.outcome().await, "secret_echoed");
}

#[tokio::test]
async fn a_stream_is_cut_and_its_socket_closed_when_the_task_ends() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    setup.upstream.answer(move |_| Answer::Hang(head.as_bytes().to_vec()));
    let response = client.send(client.request("GET", "/http/api/echo").body(Full::new(Bytes::new())).unwrap()).await;
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
    setup.end_task(&client).await;
    let cut = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap();
    assert!(cut.unwrap_err().to_string().contains("the task has ended"));
    drop(body);
    tokio::time::timeout(Duration::from_secs(5), setup.upstream.closed.notified()).await.unwrap();
    assert_eq!(setup.outcome().await, "withheld");
}

#[tokio::test]
async fn a_request_under_way_is_cut_when_the_task_ends() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.upstream.answer(|_| Answer::Hang(Vec::new()));
    let (got, ()) = tokio::join!(client.get("/http/api/echo"), async {
        setup.upstream.hanging.notified().await;
        setup.end_task(&client).await;
    });
    // Whoever is told to prove itself anew would do so and send the request again.
    assert!(got.status == 403 && !got.headers.contains_key("www-authenticate"), "{} {}", got.status, got.text());
    assert_eq!(got.reason(), "task_over");
    tokio::time::timeout(Duration::from_secs(5), setup.upstream.closed.notified()).await.unwrap();
    assert_eq!(setup.outcome().await, "withheld");
}

async fn revoke(setup: &Setup, client: &crate::support::Client<'_>) {
    let token = client.issued.token.expose_secret();
    setup.world.authority.revoke_token(token, &authority::Actor::Holder).await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_stops_what_is_under_way_and_what_comes_after() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.upstream.answer(|_| Answer::Hang(Vec::new()));
    let (got, ()) = tokio::join!(client.get("/http/api/echo"), async {
        setup.upstream.hanging.notified().await;
        revoke(&setup, &client).await;
    });
    // Whoever is told to prove itself anew would do so and send the request again.
    assert!(got.status == 403 && !got.headers.contains_key("www-authenticate"), "{} {}", got.status, got.text());
    assert_eq!(got.reason(), "task_over");
    tokio::time::timeout(Duration::from_secs(5), setup.upstream.closed.notified()).await.unwrap();
    assert_eq!(setup.outcome().await, "withheld");
    let seen = setup.upstream.seen().len();
    assert_eq!(client.get("/http/api/echo").await.status, 401);
    assert_eq!(setup.upstream.seen().len(), seen, "nothing was sent");
    assert!(setup.world.authority.live_task(client.task()).unwrap().ended().is_none(), "the task goes on with another token");
}

#[tokio::test]
async fn a_revoked_token_cuts_a_stream_and_only_its_own() {
    let setup = Setup::new().await;
    let (client, other) = (setup.client().await, setup.client().await);
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
    setup.upstream.answer(move |_| Answer::Hang(head.as_bytes().to_vec()));
    let mut bodies = Vec::new();
    for client in [&client, &other] {
        let mut body =
            client.send(client.request("GET", "/http/api/echo").body(Full::new(Bytes::new())).unwrap()).await.into_body();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
        bodies.push(body);
    }
    revoke(&setup, &client).await;
    let (mut kept, mut body) = (bodies.pop().unwrap(), bodies.pop().unwrap());
    let cut = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap();
    assert!(cut.unwrap_err().to_string().contains("revoked"));
    drop(body);
    tokio::time::timeout(Duration::from_secs(5), setup.upstream.closed.notified()).await.unwrap();
    assert!(futures_util::poll!(std::pin::pin!(kept.frame())).is_pending(), "another token's stream goes on");
}

#[tokio::test]
async fn an_answer_that_is_too_slow_or_too_large_ends() {
    let limits = HttpLimits { timeout_secs: 1, response_bytes: 2_000_000, ..HttpLimits::default() };
    let setup = Setup::with(With { limits, ..With::default() }).await;
    let client = setup.client().await;
    setup.upstream.answer(|_| Answer::Hang(Vec::new()));
    assert_eq!(client.get("/http/api/echo").await.status, 504);
    assert_eq!(setup.outcome().await, "timeout");
    setup.upstream.answer(|_| Answer::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab".to_vec()));
    assert_eq!(client.get("/http/api/echo").await.status, 504);
    setup.upstream.answer(|_| chunked("", &vec![b'x'; 3_000_000], 65_536));
    let got = client.get("/http/api/echo").await;
    assert!(got.cut && got.body.len() <= 2_000_000, "{}", got.body.len());
    assert_eq!(setup.outcome().await, "upstream_error");
    setup.upstream.answer(|_| Answer::Last(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nab".to_vec()]));
    assert_eq!(client.get("/http/api/echo").await.status, 502, "half an answer is none");
    setup.upstream.answer(|_| ok("", vec![b'x'; 1_500_000]));
    let got = client.get("/http/api/echo").await;
    assert!(!got.cut && got.body.len() == 1_500_000, "a large answer passes piece by piece");
    assert_eq!(setup.outcome().await, "ok");
    let many: String = (0..300).map(|at| format!("x-{at}: y\r\n")).collect();
    setup.upstream.answer(move |_| ok(&many, "{}"));
    assert_eq!(client.get("/http/api/echo").await.status, 502);
}

#[tokio::test]
async fn what_an_api_says_unasked_is_an_answer_to_nobody() {
    let setup = Setup::new().await;
    let (one, two) = (setup.client().await, setup.client().await);
    let forged = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged";
    for first in [
        format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}{forged}"),
        format!("HTTP/1.1 204 No Content\r\n\r\n{forged}"),
        format!("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n{forged}"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 70\r\n\r\n{{}}{forged}"),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n{forged}"),
        format!("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}{forged}"),
    ] {
        let shown = first.clone();
        setup.upstream.answer(move |_| Answer::Pieces(vec![first.clone().into_bytes()]));
        let got = one.get("/http/api/echo").await;
        assert!(!got.text().contains("forged"), "{shown}: {got:?}");
        setup.upstream.answer(|_| ok("", "{\"mine\":true}"));
        assert_eq!(two.get("/http/api/echo").await.text(), "{\"mine\":true}", "{shown}");
    }
}

#[tokio::test]
async fn a_head_has_no_body_and_its_length() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.upstream.answer(|_| Answer::Pieces(vec![b"HTTP/1.1 200 OK\r\ncontent-length: 123\r\n\r\n".to_vec()]));
    let got = client.go(client.request("HEAD", "/http/api/echo"), "").await;
    assert_eq!(
        (got.status.as_u16(), got.headers.get("content-length").unwrap().to_str().unwrap(), got.body.len()),
        (200, "123", 0)
    );
}

#[tokio::test]
async fn an_answer_that_nobody_reads_lets_go_of_the_api_when_its_task_ends() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.upstream.answer(|_| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        Answer::Hang(format!("{head}a\r\ndata: one\n\r\n").into_bytes())
    });
    let request = client.request("GET", "/http/api/echo").body(Full::new(Bytes::new())).unwrap();
    let mut unread = client.send(request).await.into_body();
    unread.frame().await.unwrap().unwrap();
    setup.end_task(&client).await;
    tokio::time::timeout(Duration::from_secs(10), setup.upstream.closed.notified()).await.unwrap();
    assert_eq!(setup.outcome().await, "cancelled");
    // Its place is free, too.
    tokio::time::timeout(Duration::from_secs(10), setup.apis.stop(Duration::from_secs(60))).await.unwrap();
    assert!(unread.frame().await.unwrap().is_err(), "half an answer does not look like a whole one");
}

#[tokio::test]
async fn what_an_api_says_to_proxies_and_to_dpop_clients_is_not_passed_on() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup
        .upstream
        .answer(|_| ok("x-accel-redirect: /private\r\nx-sendfile: /etc/passwd\r\ndpop-nonce: n\r\nx-fine: 1\r\n", "{}"));
    let got = client.get("/http/api/echo").await;
    let of_api = ["x-accel-redirect", "x-sendfile", "dpop-nonce", "x-fine"].map(|name| got.headers.contains_key(name));
    assert_eq!(of_api, [false, false, false, true]);
}

#[tokio::test]
async fn answers_that_a_client_does_not_read_are_withheld_once_they_fill_the_share_of_its_task() {
    let limits = HttpLimits { requests_per_minute: 1_000, ..HttpLimits::default() };
    let setup = Setup::with(With { limits, ..With::default() }).await;
    let (client, other) = (setup.client().await, setup.client().await);
    setup.upstream.answer(|_| ok("content-type: application/json\r\n", vec![b'x'; 1_000_000]));
    let mut unread = Vec::new();
    for _ in 0..80 {
        unread.push(client.send(client.request("GET", "/http/api/echo").body(Full::default()).unwrap()).await);
    }
    let given = unread.iter().filter(|answer| answer.status() == 200).count();
    assert!((16..=67).contains(&given), "{given}");
    let refused = Got::of(unread.pop().unwrap()).await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (502, "withheld"), "{refused:?}");
    assert_eq!(setup.outcome().await, "withheld");
    assert_eq!(other.get("/http/api/echo").await.status, 200, "another task has its own share");
    drop(unread);
    assert_eq!(client.get("/http/api/echo").await.status, 200, "there is room again");
}
