//! WebSockets to an API: opened by the same rules as a request, each message of the task decided, each message of the API
//! searched for the secret, both sockets closed with the task. The client is an implementation that is not ours.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use super::support::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{FutureExt, SinkExt, StreamExt};
use gateway::http::{HttpApis, HttpLimits};
use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;

/// The gateway behind a real HTTP/1.1 server, for one connection.
async fn served(apis: &HttpApis) -> TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, apis) = (listener.local_addr().unwrap(), apis.clone());
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let apis = apis.clone();
            async move { Ok::<_, Infallible>(apis.handle(request, info()).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        let _ = connection.with_upgrades().await;
    });
    TcpStream::connect(address).await.unwrap()
}

fn opening(client: &Client<'_>, path: &str) -> http::Request<()> {
    let request = client.request("GET", path).header("connection", "Upgrade").header("upgrade", "websocket");
    let request = request.header("sec-websocket-version", "13").header("sec-websocket-key", STANDARD.encode([7; 16]));
    // The client sends the path alone; what it connects to is already there.
    request.uri(format!("ws://writ.test{path}")).body(()).unwrap()
}

type Opened = (WebSocketStream<TcpStream>, http::Response<Option<Vec<u8>>>);

async fn open_with(client: &Client<'_>, request: http::Request<()>) -> Result<Opened, (u16, String)> {
    match tokio_tungstenite::client_async(request, served(&client.setup.apis).await).await {
        Ok(opened) => Ok(opened),
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            Err((response.status().as_u16(), String::from_utf8_lossy(&body).into_owned()))
        }
        Err(other) => panic!("{other}"),
    }
}

async fn open(client: &Client<'_>) -> WebSocketStream<TcpStream> {
    open_with(client, opening(client, "/http/api/socket")).await.unwrap().0
}

/// What came until the socket closed: messages, and code and reason of the close.
async fn rest(socket: &mut WebSocketStream<TcpStream>) -> (Vec<Message>, Option<(CloseCode, String)>) {
    let mut got = Vec::new();
    loop {
        match tokio::time::timeout(Duration::from_secs(10), socket.next()).await.unwrap() {
            Some(Ok(Message::Close(frame))) => return (got, frame.map(|frame| (frame.code, frame.reason.to_string()))),
            Some(Ok(message)) => got.push(message),
            Some(Err(_)) | None => return (got, None),
        }
    }
}

fn echo(opened: Option<(u8, &[u8])>) -> Vec<Vec<u8>> {
    opened.into_iter().filter(|(opcode, _)| *opcode < CLOSE).map(|(opcode, payload)| frame(true, opcode, payload)).collect()
}

async fn echoing() -> Setup {
    let setup = Setup::new().await;
    setup.upstream.answer(|_| Answer::Socket(String::new(), Box::new(echo)));
    setup
}

async fn closed(setup: &Setup) {
    tokio::time::timeout(Duration::from_secs(5), setup.upstream.closed.notified()).await.unwrap();
}

#[tokio::test]
async fn messages_pass_both_ways_and_each_of_the_task_is_a_decision_in_the_log() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.upstream.answer(|_| Answer::Socket("sec-websocket-protocol: chat\r\nx-secret: 1\r\n".into(), Box::new(echo)));
    let mut request = opening(&client, "/http/api/socket");
    for (name, value) in [("sec-websocket-protocol", "chat"), ("sec-websocket-extensions", "permessage-deflate"), ("x-mine", "1")]
    {
        request.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let (mut socket, response) = open_with(&client, request).await.unwrap();
    assert_eq!(response.headers().get("sec-websocket-protocol").unwrap(), "chat");
    assert!(["sec-websocket-extensions", "x-secret"].iter().all(|name| !response.headers().contains_key(*name)));
    socket.send(Message::text("one")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("one"));
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("are you there".into()));
    socket.send(Message::binary(vec![0_u8; 70_000])).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().len(), 70_000);
    socket.close(None).await.unwrap();
    closed(&setup).await;

    let seen = setup.upstream.seen().pop().unwrap();
    assert_eq!((seen.line(), seen.sni.as_deref()), ("GET /v1/socket HTTP/1.1", Some("api.test")));
    assert_eq!(seen.header("authorization"), [format!("Bearer {SECRET}")]);
    assert_eq!((seen.header("sec-websocket-protocol"), seen.header("dpop")), (vec!["chat".to_owned()], vec![]));
    assert!(seen.header("sec-websocket-extensions").is_empty() && seen.header("x-mine").is_empty(), "{}", seen.head);
    assert_ne!(seen.header("sec-websocket-key"), [STANDARD.encode([7; 16])]);
    let opcodes: Vec<u8> = setup.upstream.frames.lock().unwrap().iter().map(|(opcode, _)| *opcode).collect();
    assert_eq!(opcodes, [TEXT, BINARY, CLOSE], "a ping is answered by the gateway");
    let decided = setup.logged("decision").into_iter().filter(|event| event["operation"] == "http.request");
    assert_eq!(decided.filter(|event| event["outcome"] == "allow" && event["subject"] == "socket").count(), 3);
    assert_eq!(setup.outcome().await, "ok");
    assert!(!format!("{:?}", setup.world.ledger.events()).contains(SECRET));
}

#[tokio::test]
async fn both_sockets_close_the_moment_that_the_task_may_have_nothing_more() {
    for (what, code, words) in [
        ("end of the task", CloseCode::Policy, "the task has ended"),
        ("other routes", CloseCode::Policy, "other routes"),
        ("the gateway stops", CloseCode::Away, "the gateway is stopping"),
    ] {
        let setup = echoing().await;
        let client = setup.client().await;
        let mut socket = open(&client).await;
        socket.send(Message::text("one")).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("one"));
        match what {
            "end of the task" => setup.end_task(&client).await,
            "other routes" => setup.apis.replace(Vec::new()).unwrap(),
            _ => setup.apis.stop(Duration::from_secs(5)).await,
        }
        let _ = socket.send(Message::text("two")).await;
        let (got, close) = rest(&mut socket).await;
        let close = close.unwrap();
        assert!(got.is_empty() && close.0 == code && close.1.contains(words), "{what}: {close:?}");
        closed(&setup).await;
        let frames = setup.upstream.frames.lock().unwrap().clone();
        assert!(frames.iter().all(|(_, payload)| payload != b"two"), "{what}: {frames:?}");
        assert_eq!(frames.last().unwrap(), &(CLOSE, 1001_u16.to_be_bytes().to_vec()), "{what}: the API is not told why");
        assert!(["withheld", "cancelled"].contains(&setup.outcome().await.as_str()));
    }
}

#[tokio::test]
async fn the_secret_is_in_no_frame_that_the_task_gets() {
    let (head, tail) = SECRET.split_at(9);
    let encoded = STANDARD.encode(format!("Bearer {SECRET}"));
    let escaped: String = SECRET.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    for (name, frames) in [
        ("text", vec![frame(true, TEXT, format!("you sent {SECRET}"))]),
        ("binary", vec![frame(true, BINARY, [&[0, 159, 146], SECRET.as_bytes()].concat())]),
        ("base64", vec![frame(true, TEXT, encoded)]),
        ("escaped", vec![frame(true, TEXT, format!("{{\"echo\":\"{escaped}\"}}"))]),
        (
            "fragments",
            vec![frame(false, TEXT, head), frame(false, 0, &tail.as_bytes()[..3]), frame(true, 0, &tail.as_bytes()[3..])],
        ),
        ("a ping between fragments", vec![frame(false, TEXT, head), frame(true, PING, "x"), frame(true, 0, tail)]),
        ("two messages", vec![frame(true, TEXT, head), frame(true, TEXT, tail)]),
        ("half of it", vec![frame(true, TEXT, &SECRET.as_bytes()[..20])]),
    ] {
        let setup = Setup::new().await;
        let client = setup.client().await;
        let said = [frame(true, TEXT, "fine"), frames.concat(), frame(true, TEXT, "after it")].concat();
        let talk = move |opened: Option<(u8, &[u8])>| opened.is_none().then(|| said.clone()).into_iter().collect();
        let talk = std::sync::Mutex::new(Some(talk));
        setup.upstream.answer(move |_| Answer::Socket(String::new(), Box::new(talk.lock().unwrap().take().unwrap())));
        let mut socket = open(&client).await;
        let (got, close) = rest(&mut socket).await;
        assert_eq!(got.first(), Some(&Message::text("fine")), "{name}");
        assert!(!got.contains(&Message::text("after it")) && !format!("{got:?}").contains(tail), "{name}: {got:?}");
        let close = close.unwrap();
        assert!(close.0 == CloseCode::Policy && close.1.contains("credential of the API"), "{name}: {close:?}");
        assert_eq!(setup.outcome().await, "secret_echoed", "{name}");
    }
}

#[tokio::test]
async fn pings_and_reasons_of_the_api_carry_nothing_to_the_task() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let close = [&4_003_u16.to_be_bytes()[..], SECRET.as_bytes()].concat();
    let said = [frame(true, PING, SECRET), frame(true, TEXT, "fine"), frame(true, CLOSE, close)].concat();
    setup.upstream.answer(move |_| {
        let said = said.clone();
        Answer::Socket(String::new(), Box::new(move |opened| opened.is_none().then(|| said.clone()).into_iter().collect()))
    });
    let mut socket = open(&client).await;
    let (got, close) = rest(&mut socket).await;
    assert_eq!((got, close), (vec![Message::text("fine")], Some((CloseCode::Library(4_003), String::new()))));
    assert_eq!(setup.outcome().await, "ok");
}

#[tokio::test]
async fn a_compressed_message_is_withheld() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    setup.upstream.answer(|_| {
        let talk = |opened: Option<(u8, &[u8])>| {
            opened.is_none().then(|| frame(true, BINARY, b"\x1f\x8b\x08rest")).into_iter().collect()
        };
        Answer::Socket(String::new(), Box::new(talk))
    });
    let (got, close) = rest(&mut open(&client).await).await;
    assert!(got.is_empty() && close.unwrap().1.contains("compressed"));
    assert_eq!(setup.outcome().await, "withheld");
}

#[tokio::test]
async fn what_the_task_read_meanwhile_limits_what_it_may_send() {
    let setup = echoing().await;
    let client = setup.client().await;
    let mut socket = open(&client).await;
    socket.send(Message::text("before")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("before"));
    setup.upstream.answer(|_| ok("", "{}"));
    assert_eq!(client.get("/http/api/repos/r1/issues").await.status, 200);
    socket.send(Message::text("what was read")).await.unwrap();
    let (got, close) = rest(&mut socket).await;
    assert_eq!((got, close), (Vec::new(), Some((CloseCode::Policy, "a message was refused: forbidden".to_owned()))));
    closed(&setup).await;
    assert!(setup.upstream.frames.lock().unwrap().iter().all(|(_, payload)| payload != b"what was read"));
}

fn no_sockets() -> String {
    let forbidden = POLICIES.replace(
        "permit (principal is Intent::Triage, action == Api::Action::\"socket\"",
        "forbid (principal, action == Api::Action::\"socket\"",
    );
    assert_ne!(forbidden, POLICIES);
    forbidden
}

#[tokio::test]
async fn nothing_comes_down_while_the_opening_is_decided_again() {
    for (policies, stays) in [(POLICIES.to_owned(), true), (no_sockets(), false)] {
        let setup = Setup::new().await;
        setup.upstream.answer(|seen| match seen.line().contains("/socket") {
            true => Answer::Socket(String::new(), Box::new(echo)),
            false => ok("content-type: application/json\r\n", "{}"),
        });
        let (client, other) = (setup.client().await, setup.client().await);
        let mut socket = open(&client).await;
        setup.reload_policies(&policies).await;
        let hold = setup.world.ledger.hold_next_commit();
        setup.apis.replace(vec![setup.target.clone()]).unwrap();
        hold.written().await;
        setup.upstream.speaks.notify_one();
        // What the API says is at the gateway before these, which come and go.
        for _ in 0..3 {
            assert_eq!(other.get("/http/api/echo").await.status, 200);
        }
        assert!(socket.next().now_or_never().is_none(), "it is not decided yet");
        hold.go();
        if stays {
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("unasked"));
        } else {
            let (got, close) = rest(&mut socket).await;
            assert!(got.is_empty() && close.unwrap().1.contains("refused"));
        }
    }
}

#[tokio::test]
async fn a_message_between_two_steps_of_a_reload_waits_for_the_routes_that_its_policy_knows() {
    for same in [true, false] {
        let setup = echoing().await;
        let client = setup.client().await;
        let mut socket = open(&client).await;
        let decided = || setup.logged("decision").into_iter().filter(|event| event["operation"] == "http.request").count();
        let before = decided();
        setup.reload_policies(&format!("{POLICIES}\n// another version\n")).await;
        socket.send(Message::text("between")).await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(300), socket.next()).await;
        assert!(early.is_err(), "{early:?}");
        assert_eq!(decided(), before, "its policy means other routes by these names");
        if same {
            setup.apis.replace(vec![setup.target.clone()]).unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("between"));
        } else {
            let other = With { limits: HttpLimits { timeout_secs: 6, ..HttpLimits::default() }, ..With::default() };
            setup.apis.replace(vec![target(&setup.world, &setup.upstream, &other, setup.secrets.path())]).unwrap();
            let (got, close) = rest(&mut socket).await;
            assert!(got.is_empty() && close.unwrap().1.contains("other routes"));
            assert!(setup.upstream.frames.lock().unwrap().iter().all(|(_, payload)| payload != b"between"));
        }
    }
}

#[tokio::test]
async fn other_policies_decide_an_open_socket_again_and_another_description_ends_it() {
    let setup = echoing().await;
    let client = setup.client().await;
    let mut socket = open(&client).await;
    let say = |text: &'static str| Message::text(text);
    socket.send(say("one")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), say("one"));
    setup.reload(POLICIES, &setup.target).await;
    socket.send(say("two")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), say("two"), "it lives on");
    let allowed = || {
        let decided = setup.logged("decision").into_iter().filter(|event| event["operation"] == "http.request");
        decided.filter(|event| event["outcome"] == "allow").count()
    };
    assert_eq!(allowed(), 4, "the opening twice, each message once");
    setup.reload(&no_sockets(), &setup.target).await;
    let (got, close) = rest(&mut socket).await;
    let close = close.unwrap();
    assert!(got.is_empty() && close.0 == CloseCode::Policy && close.1.contains("refused"), "nobody needs to speak: {close:?}");
    closed(&setup).await;

    setup.reload(POLICIES, &setup.target).await;
    let mut socket = open(&client).await;
    let other = With { limits: HttpLimits { timeout_secs: 6, ..HttpLimits::default() }, ..With::default() };
    setup.reload(POLICIES, &target(&setup.world, &setup.upstream, &other, setup.secrets.path())).await;
    assert!(rest(&mut socket).await.1.unwrap().1.contains("other routes"));
}

#[tokio::test]
async fn an_opening_obeys_the_rules_of_requests() {
    let setup = echoing().await;
    let client = setup.client().await;
    for (path, name, value, status) in [
        ("/http/api/echo", "x", "y", 400),
        ("/http/api/socket/x", "x", "y", 404),
        ("/http/api/socket?token=x", "x", "y", 400),
        ("/http/api/socket", "cookie", "session=1", 400),
        ("/http/api/socket", "origin", "https://evil.test", 403),
        ("/http/api/socket", "host", "evil.test", 403),
        ("/http/api/socket", "sec-websocket-protocol", "bearer.found", 400),
        ("/http/api/socket", "connection", "Upgrade, authorization", 400),
        ("/http/api/socket", "authorization", "Bearer found", 401),
    ] {
        let mut request = opening(&client, path);
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        if name == "authorization" {
            request.headers_mut().remove("dpop");
        }
        let refused = open_with(&client, request).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.0, status, "{path} {name}: {}", refused.1);
    }
    assert_eq!(client.get("/http/api/socket").await.status, 400, "no opening at all");
    let old = client.request("GET", "/http/api/socket").header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(client.go(old.header("sec-websocket-version", "8"), "").await.status, 400);
    setup.end_task(&client).await;
    assert_eq!(open_with(&client, opening(&client, "/http/api/socket")).await.map(|_| ()).unwrap_err().0, 401);
    assert!(setup.upstream.seen().is_empty());
}

#[tokio::test]
async fn an_api_that_agrees_to_something_else_opens_nothing() {
    let setup = Setup::new().await;
    let client = setup.client().await;
    let agreed = "HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: Upgrade\r\n";
    for (path, answer) in [
        ("socket", format!("{agreed}sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")),
        ("socket", format!("{agreed}\r\n")),
        ("socket", "HTTP/1.1 101 Switching\r\nupgrade: h2c\r\nconnection: Upgrade\r\n\r\n".to_owned()),
        ("echo", format!("{agreed}\r\n{SECRET}")),
    ] {
        let shown = answer.clone();
        setup.upstream.answer(move |_| Answer::Last(vec![answer.clone().into_bytes()]));
        let got = match path {
            "socket" => open_with(&client, opening(&client, "/http/api/socket")).await.map(|_| ()).unwrap_err(),
            _ => {
                let got = client.get("/http/api/echo").await;
                (got.status.as_u16(), got.text())
            }
        };
        assert!(got.0 == 502 && !got.1.contains(SECRET), "{path} {shown}: {got:?}");
        assert_eq!(setup.outcome().await, "upstream_error", "{path} {shown}");
    }
    // An extension would compress messages; a subprotocol that nobody asked for could be anything.
    for extra in ["sec-websocket-extensions: permessage-deflate\r\n", "sec-websocket-protocol: chat\r\n"] {
        setup.upstream.answer(move |_| Answer::Socket(extra.into(), Box::new(echo)));
        assert_eq!(open_with(&client, opening(&client, "/http/api/socket")).await.map(|_| ()).unwrap_err().0, 502, "{extra}");
    }
    // A plain answer is one like any other.
    setup.upstream.answer(|_| Answer::Pieces(vec![b"HTTP/1.1 403 No\r\ncontent-length: 2\r\n\r\nno".to_vec()]));
    assert_eq!(open_with(&client, opening(&client, "/http/api/socket")).await.map(|_| ()).unwrap_err(), (403, "no".to_owned()));
}

#[tokio::test]
async fn messages_are_bounded_in_size_number_and_silence() {
    let limits = |limits: HttpLimits| async move {
        let setup = Setup::with(With { limits, ..With::default() }).await;
        setup.upstream.answer(|_| Answer::Socket(String::new(), Box::new(echo)));
        setup
    };
    let small =
        HttpLimits { request_bytes: 64, response_bytes: 100, requests_per_minute: 4, timeout_secs: 5, ..HttpLimits::default() };
    let setup = limits(small).await;
    let mut socket = open(&setup.client().await).await;
    socket.send(Message::text("x".repeat(65))).await.unwrap();
    assert_eq!(rest(&mut socket).await.1.unwrap().0, CloseCode::Size, "of the task");
    assert!(setup.upstream.frames.lock().unwrap().iter().all(|(opcode, _)| *opcode == CLOSE));
    let mut socket = open(&setup.client().await).await;
    for _ in 0..2 {
        socket.send(Message::text("x".repeat(60))).await.unwrap();
    }
    let (got, close) = rest(&mut socket).await;
    assert_eq!((got.len(), close.unwrap().0), (1, CloseCode::Size), "of the API, in all");
    let mut socket = open(&setup.client().await).await;
    for _ in 0..6 {
        socket.send(Message::text("x")).await.unwrap();
    }
    let (got, close) = rest(&mut socket).await;
    assert!(got.len() <= 3 && close.is_some_and(|close| close.0 == CloseCode::Policy && close.1.contains("in a minute")));
    let texts = setup.upstream.frames.lock().unwrap().iter().filter(|(_, payload)| payload == b"x").count();
    assert_eq!(texts, 3, "the opening and three messages");
    // A client that does not keep to the protocol.
    let mut socket = open(&setup.client().await).await;
    socket.send(Message::text("fine")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("fine"));
    tokio::io::AsyncWriteExt::write_all(socket.get_mut(), &frame(true, TEXT, "not masked")).await.unwrap();
    assert_eq!(rest(&mut socket).await.1.unwrap().0, CloseCode::Protocol);

    let setup = limits(HttpLimits { timeout_secs: 1, ..HttpLimits::default() }).await;
    let (got, close) = rest(&mut open(&setup.client().await).await).await;
    assert!(got.is_empty() && close.unwrap().0 == CloseCode::Away);
    assert_eq!(setup.outcome().await, "timeout");
}

#[tokio::test]
async fn no_log_no_message() {
    let setup = echoing().await;
    let client = setup.client().await;
    let mut socket = open(&client).await;
    setup.world.ledger.break_with(Some(testkit::Fault::Failed));
    socket.send(Message::text("unlogged")).await.unwrap();
    assert!(rest(&mut socket).await.1.unwrap().1.contains("a message was refused"));
    closed(&setup).await;
    assert!(setup.upstream.frames.lock().unwrap().iter().all(|(opcode, _)| *opcode == CLOSE));
}
