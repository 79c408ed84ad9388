//! Upstreams that do what no honest one would: each hurts only its own request, and is cut off in time.

use super::fake::*;
use super::*;
use axum::response::Response;
use futures_util::FutureExt;

/// The outcome of one tool call against a stateless upstream that answers it like this.
async fn outcome(answer: impl Fn(&Seen) -> Response + Send + Sync + Clone + 'static) -> Result<Vec<Event>, UpstreamError> {
    outcome_at(Bench::new, answer).await
}

async fn outcome_at(
    bench: fn(Transport) -> Bench,
    answer: impl Fn(&Seen) -> Response + Send + Sync + Clone + 'static,
) -> Result<Vec<Event>, UpstreamError> {
    let fake = Fake::start(move |seen| stateless(seen, answer.clone())).await;
    let connection = bench(http(&fake.url)).connect(1, &modern()).await;
    events(send(&connection, 1, "tools/call", echo(1)).await?).await
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn done(id: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [] } })
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let limit = UpstreamError::TooLarge(16 * 1024 * 1024);
    const PIECE: &str = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[";
    let huge: &'static str = Box::leak(PIECE.repeat(1_000).into_boxed_str());
    assert_eq!(outcome(move |_| endless("application/json", huge)).await.unwrap_err(), limit, "a body");
    assert_eq!(outcome(move |_| endless("text/event-stream", huge)).await.unwrap_err(), limit, "a line");
    let declared = |_: &Seen| {
        let mut response = stuck("application/json", vec!["{".into()]);
        response.headers_mut().insert("content-length", "99999999999".parse().unwrap());
        response
    };
    assert_eq!(outcome(declared).await.unwrap_err(), limit, "a declared length");
}

#[tokio::test]
async fn an_upstream_that_says_nothing_is_given_up() {
    for (name, answer) in
        [("a body that trickles", stuck as fn(&'static str, Vec<String>) -> Response), ("a broken body", broken)]
    {
        let error =
            outcome_at(Bench::hasty, move |_| answer("application/json", vec![r#"{"jsonrpc""#.into()])).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Timeout | UpstreamError::Unreachable(_)), "{name}: {error}");
    }
    assert_eq!(
        outcome_at(Bench::hasty, |_| stuck("text/event-stream", vec![": hello\n\n".into()])).await.unwrap_err(),
        UpstreamError::Timeout
    );
    assert_eq!(
        outcome_at(Bench::hasty, |_| endless("text/event-stream", ": still here\n\n")).await.unwrap_err(),
        UpstreamError::Timeout
    );
}

#[tokio::test]
async fn a_slow_upstream_delays_nobody_else() {
    let fake = Fake::start(|seen| {
        stateless(seen, |seen| match seen.body()["params"]["arguments"]["n"].as_u64() {
            Some(0) => stuck("application/json", vec!["{".into()]),
            _ => result(seen, &json!({ "content": [] })),
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    let slow = call(&connection, 1, "tools/call", echo(0));
    let fast = call(&connection, 2, "tools/call", echo(1));
    tokio::select! {
        biased;
        _ = slow => panic!("the slow one cannot be done"),
        fast = fast => { fast.unwrap(); }
    }
}

#[tokio::test]
async fn what_is_no_answer_is_refused() {
    type Answer = fn(&Seen) -> Response;
    let cases: [(&str, Answer); 8] = [
        ("another content type", |seen| ([("content-type", "text/html")], done(&seen.body()["id"]).to_string()).into_response()),
        ("malformed JSON", |_| json_text("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{".into())),
        ("another id", |_| json_text(done(&json!(2)).to_string())),
        ("an id of another type", |_| json_text(done(&json!("1")).to_string())),
        ("a doubled member", |_| json_text(r#"{"jsonrpc":"2.0","id":1,"result":{"a":1},"result":{"a":2}}"#.into())),
        ("a request", |_| json_text(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.into())),
        ("nothing", |_| status(202)),
        ("a malformed event", |_| sse("data: {oops\n\n".into())),
    ];
    use axum::response::IntoResponse;
    for (name, answer) in cases {
        let error = outcome(answer).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Protocol(_)), "{name}: {error}");
    }
}

#[tokio::test]
async fn in_a_stream_only_the_right_answer_counts_and_only_once() {
    let got = outcome(|seen| {
        let id = &seen.body()["id"];
        let asks = json!({ "jsonrpc": "2.0", "id": 77, "method": "roots/list" });
        let last = json!({ "jsonrpc": "2.0", "id": id, "result": { "second": true } });
        let other = json!({ "jsonrpc": "2.0", "id": 99, "result": { "of": "another" } });
        sse([event(&other), event(&asks), event(&done(id)), event(&last)].concat())
    })
    .await
    .unwrap();
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(matches!(&got[0], Event::Result(raw) if raw.to_value() == json!({ "content": [] })));
}

#[tokio::test]
async fn a_stream_that_ends_without_an_answer_is_an_error() {
    let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
    let text = event(&note);
    let error = outcome(move |_| sse(text.clone())).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable(_)), "{error}");
    let error = outcome(|_| broken("text/event-stream", vec!["id: 1\ndata:\n\n".into()])).await.unwrap_err();
    assert!(matches!(error, UpstreamError::Unreachable(_)), "a stateless stream cannot be resumed: {error}");
}

#[tokio::test]
async fn an_error_in_any_status_is_passed_on_and_a_status_alone_is_not() {
    for code in [400, 404, 500] {
        let got = outcome(move |seen| {
            let mut response = error(seen, -32020);
            *response.status_mut() = ::http::StatusCode::from_u16(code).unwrap();
            response
        })
        .await
        .unwrap();
        assert!(matches!(&got[0], Event::Error(raw) if raw.to_value()["code"] == -32020), "{code}");
        assert_eq!(outcome(move |_| status(code)).await.unwrap_err(), UpstreamError::Status(code));
    }
}

#[tokio::test]
async fn a_redirect_takes_the_credential_nowhere() {
    let thief = Fake::start(|seen| result(seen, &json!({}))).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret").unwrap();
    let secret = SecretRef::File(file.path().to_string_lossy().into_owned());
    for code in [301, 302, 303, 307, 308] {
        let target = thief.url.clone();
        let fake = Fake::start(move |seen| {
            stateless(seen, |_| {
                let mut response = status(code);
                response.headers_mut().insert("location", target.parse().unwrap());
                response
            })
        })
        .await;
        let injection = Injection { header: "x-key".into(), prefix: String::new(), secret: secret.clone() };
        let bench = Bench::with(Upstream { injection: Some(injection), ..upstream(http(&fake.url)) });
        let connection = bench.connect(1, &modern()).await;
        assert_eq!(call(&connection, 1, "tools/call", echo(1)).await.unwrap_err(), UpstreamError::Redirected, "{code}");
    }
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn a_refused_credential_is_named_as_such_and_never_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret").unwrap();
    let secret = SecretRef::File(file.path().to_string_lossy().into_owned());
    for code in [401, 403] {
        let fake = Fake::start(move |_| status(code)).await;
        let injection = Injection { header: "x-key".into(), prefix: String::new(), secret: secret.clone() };
        let bench = Bench::with(Upstream { injection: Some(injection), ..upstream(http(&fake.url)) });
        let error = call(&bench.connect(1, &modern()).await, 1, "tools/call", echo(1)).await.unwrap_err();
        assert_eq!(error, UpstreamError::Unauthorized(code));
        assert!(!format!("{error} {error:?} {:?}", bench.upstreams.status()).contains("s3cret"));
    }
}

#[tokio::test]
async fn a_url_that_would_leak_is_refused() {
    for url in [
        "http://example.org/mcp",
        "http://127.0.0.1.example.org/mcp",
        "http://10.0.0.1/mcp",
        "https://user:pass@example.org/mcp",
        "ftp://localhost/mcp",
        "/mcp",
        "",
    ] {
        let bench = Bench::new(http(url));
        let error = bench.upstreams.connect(&name(), TaskId::from_bytes([1; 16]), &modern()).await.unwrap_err();
        assert!(matches!(error, UpstreamError::Url(_)), "{url}: {error}");
    }
    for url in ["http://localhost:1/mcp", "http://[::1]:1/mcp", "https://example.org/mcp"] {
        let bench = Bench::new(http(url));
        assert!(bench.upstreams.connect(&name(), TaskId::from_bytes([1; 16]), &modern()).await.is_ok(), "{url}");
    }
}

#[tokio::test]
async fn a_lost_session_is_made_anew_once() {
    let lost = Arc::new(std::sync::atomic::AtomicUsize::new(1));
    let losses = Arc::clone(&lost);
    let fake = Fake::start(move |seen| {
        with_sessions(seen, |seen| {
            let left = losses.load(std::sync::atomic::Ordering::SeqCst);
            if left > 0 {
                losses.store(left - 1, std::sync::atomic::Ordering::SeqCst);
                return status(404);
            }
            result(seen, &json!({ "content": [] }))
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    call(&connection, 1, "tools/call", echo(1)).await.unwrap();
    assert_eq!((fake.of("initialize").len(), fake.of("tools/call").len()), (2, 2));
    lost.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(call(&connection, 2, "tools/call", echo(1)).await.unwrap_err(), UpstreamError::Status(404));
    assert_eq!((fake.of("initialize").len(), fake.of("tools/call").len()), (3, 4));
    // However often the client comes back, an upstream that loses every session does not keep the gateway busy.
    for id in 3..10 {
        call(&connection, id, "tools/call", echo(1)).await.unwrap_err();
    }
    assert!(fake.of("initialize").len() <= 5, "{}", fake.of("initialize").len());
}

#[tokio::test]
async fn an_interrupted_stream_of_a_session_goes_on_where_it_was() {
    let fake = Fake::start(|seen| {
        with_sessions(seen, |seen| match seen.method.as_str() {
            "POST" => sse("retry: 1\n\nid: e-1\ndata:\n\n".into()),
            _ => sse(event(&done(&json!(5)))),
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let got = events(send(&connection, 5, "tools/call", echo(1)).await.unwrap()).await.unwrap();
    assert!(got.iter().any(|event| matches!(event, Event::Paused)), "{got:?}");
    assert!(got.iter().any(|event| matches!(event, Event::Cursor { id: Some(id), .. } if id == "e-1")), "{got:?}");
    let resumed = fake.seen().into_iter().find(|seen| seen.method == "GET").unwrap();
    assert_eq!(resumed.header("last-event-id"), Some("e-1"));
    assert_eq!(resumed.header("mcp-session-id"), Some("session-1"));
}

#[tokio::test]
async fn an_upstream_with_too_many_questions_is_stopped() {
    let fake = Fake::start(|seen| {
        with_sessions(seen, |_| {
            let asks = |id: usize| event(&json!({ "jsonrpc": "2.0", "id": id, "method": "roots/list" }));
            sse((0..1_000).map(asks).collect())
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let error = events(send(&connection, 5, "tools/call", echo(1)).await.unwrap()).await.unwrap_err();
    assert_eq!(error, UpstreamError::Busy("requests to the client"));
}

#[tokio::test]
async fn a_session_id_that_is_none_is_refused() {
    for id in ["", "a b", "a\tb", &"x".repeat(2_000)] {
        let id = id.to_owned();
        let fake = Fake::start(move |seen| {
            let mut response = with_sessions(seen, |seen| result(seen, &json!({})));
            if response.headers_mut().remove("mcp-session-id").is_some() {
                response.headers_mut().insert("mcp-session-id", id.parse().unwrap());
            }
            response
        })
        .await;
        let error = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await.server().await.unwrap_err();
        assert!(matches!(error, UpstreamError::Protocol(_)), "{error}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_given_up() {
    let fake = Fake::start_async(|_| async { std::future::pending::<Response>().await }.boxed()).await;
    let bench = Bench::hasty(http(&fake.url));
    assert_eq!(bench.connect(1, &legacy("a")).await.server().await.unwrap_err(), UpstreamError::Timeout);
    assert_eq!(bench.upstreams.status()[0].reachable, Some(false));
}

#[tokio::test]
async fn what_an_upstream_says_to_nobody_takes_no_more_memory_than_it_may() {
    // A hundred messages of a mebibyte, then the answer: they have arrived when it has.
    let flood = r#"next; words=$(head -c 1048576 /dev/zero | tr '\0' x); i=0
while [ $i -lt 100 ]; do printf '{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"%s","n":%s}}\n' "$words" $i; i=$((i+1)); done
answer '{}'; next"#;
    for listens in [false, true] {
        let bench = Bench::new(super::stdio::with_handshake(flood));
        let connection = bench.connect(1, &legacy("a")).await;
        // One who listens and does not read, or nobody.
        let slow = listens.then(|| connection.unsolicited());
        call(&connection, 1, "tools/call", json!({})).await.unwrap();
        let mut heard = slow.unwrap_or_else(|| connection.unsolicited());
        let (mut kept, mut numbers) = (0, Vec::new());
        while let Ok(Event::Notification { params: Some(params), .. }) = heard.try_recv() {
            kept += params.as_bytes().len();
            numbers.push(params.to_value()["n"].as_u64().unwrap());
        }
        assert!(kept <= 4 * 1024 * 1024 && !numbers.is_empty(), "{kept} bytes of {numbers:?}, {listens}");
        assert!(listens || numbers.last() == Some(&99), "the newest stay: {numbers:?}");
        // What was read makes room again.
        drop(heard);
        assert!(connection.0.room.part(4 * 1024 * 1024).is_some(), "{listens}");
    }
}

#[tokio::test]
async fn an_upstream_that_asks_and_does_not_listen_makes_no_answers_pile_up() {
    let fake = Fake::start_async(|seen| {
        async move {
            if seen.method == "POST" && seen.rpc().is_empty() {
                // The answer to a ping.
                return std::future::pending::<Response>().await;
            }
            with_sessions(&seen, |seen| match seen.method.as_str() {
                "GET" => {
                    let ping = |id: usize| event(&json!({ "jsonrpc": "2.0", "id": id, "method": "ping" }));
                    let last = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
                    stuck("text/event-stream", vec![(0..500).map(ping).collect::<String>() + &event(&last)])
                }
                _ => result(seen, &json!({})),
            })
        }
        .boxed()
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut heard = connection.unsolicited();
    assert!(matches!(heard.recv().await.unwrap(), Event::Notification { .. }), "all pings came before it");
    let answers = |all: &[Seen]| all.iter().filter(|seen| seen.method == "POST" && seen.rpc().is_empty()).count();
    let mut seen = fake.watch();
    let more = seen.wait_for(|all| answers(all) > 16);
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), more).await.is_err(), "{}", answers(&fake.seen()));
}

#[tokio::test]
async fn a_call_may_be_pinged_as_often_as_it_lasts() {
    let fake = Fake::start(|seen| {
        with_sessions(seen, |seen| {
            let ping = |id: usize| event(&json!({ "jsonrpc": "2.0", "id": format!("p{id}"), "method": "ping" }));
            sse((0..100).map(ping).chain([event(&done(&seen.body()["id"]))]).collect())
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut exchange = send(&connection, 5, "tools/call", echo(1)).await.unwrap();
    let mut pings = 0;
    while let Event::Request { id, .. } = exchange.next().await.unwrap() {
        connection.answer(&id, Ok(&raw("{}")), None).await.unwrap();
        pings += 1;
    }
    assert_eq!(pings, 100);
}

/// What became of this many answers of twelve mebibytes that their reader keeps.
async fn kept(connection: &Connection, count: usize) -> Vec<Result<Event, UpstreamError>> {
    let mut kept = Vec::new();
    for id in 0..count {
        let sent = send(connection, i64::try_from(id).unwrap(), "tools/call", echo(1)).await;
        kept.push(match sent {
            Ok(mut exchange) => exchange.next().await,
            Err(error) => Err(error),
        });
    }
    kept
}

#[tokio::test]
async fn answers_that_nobody_takes_fill_the_share_of_their_task_and_no_other() {
    let words: &'static str = Box::leak("x".repeat(12 * 1024 * 1024).into_boxed_str());
    for streams in [false, true] {
        let fake = Fake::start(move |seen| {
            stateless(seen, |seen| {
                let answer = json!({ "jsonrpc": "2.0", "id": seen.body()["id"], "result": { "text": words } });
                if streams { sse(event(&answer)) } else { json_text(answer.to_string()) }
            })
        })
        .await;
        let bench = Bench::new(http(&fake.url));
        let (greedy, other) = (bench.connect(1, &modern()).await, bench.connect(2, &modern()).await);
        let full = kept(&greedy, 8).await;
        let given = full.iter().filter(|outcome| outcome.is_ok()).count();
        assert!((1..=5).contains(&given), "{given} answers, {streams}");
        let refused: Vec<_> = full.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        assert!(refused.iter().all(|error| **error == UpstreamError::NoRoom), "{refused:?}, {streams}");
        assert!(kept(&other, 2).await.iter().all(Result::is_ok), "another task has its own, {streams}");
        drop(full);
        assert!(kept(&greedy, 2).await.iter().all(Result::is_ok), "what was taken makes room again, {streams}");
    }
}

#[tokio::test]
async fn an_upstream_that_names_no_wait_is_not_come_back_to_at_the_speed_of_the_network() {
    let fake = Fake::start(|seen| {
        with_sessions(seen, |_| {
            let note = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
            sse(format!("retry: 0\n\nid: e-1\n{}", event(&note)))
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let started = std::time::Instant::now();
    let mut exchange = send(&connection, 5, "tools/call", echo(1)).await.unwrap();
    let mut pauses = 0;
    while pauses < 3 {
        pauses += u32::from(matches!(exchange.next().await.unwrap(), Event::Paused));
    }
    assert!(started.elapsed() >= std::time::Duration::from_secs(1), "{:?}", started.elapsed());
}
