//! Connections begin and end with their task, and nothing of one task reaches another.

use super::fake::*;
use super::*;
use axum::response::Response;
use futures_util::FutureExt;
use tokio::sync::Notify;

#[tokio::test]
async fn tasks_and_sessions_never_share_a_session_of_the_upstream() {
    let fake = Fake::start(|seen| with_sessions(seen, |seen| result(seen, &json!({})))).await;
    let bench = Bench::new(http(&fake.url));
    for (task, client) in [(1, legacy("a")), (2, legacy("a")), (1, legacy("b")), (1, modern()), (1, legacy("a"))] {
        call(&bench.connect(task, &client).await, 1, "tools/call", echo(1)).await.unwrap();
    }
    assert_eq!(fake.of("initialize").len(), 4, "one for each but the last, which is the first again");
    let mut other = modern();
    other.capabilities = json!({ "roots": {} });
    call(&bench.connect(1, &other).await, 1, "tools/call", echo(1)).await.unwrap();
    assert_eq!(fake.of("initialize").len(), 5, "a client that can do other things needs a session of its own");
}

#[tokio::test]
async fn ids_of_clients_that_share_a_session_cannot_meet() {
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let fake = Fake::start_async(move |seen| {
        let both = Arc::clone(&both);
        async move {
            if seen.rpc() == "tools/call" {
                both.wait().await;
            }
            with_sessions(&seen, |seen| result(seen, &json!({ "n": seen.body()["params"]["arguments"]["n"] })))
        }
        .boxed()
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    let (one, two) = tokio::join!(call(&connection, 1, "tools/call", echo(10)), call(&connection, 1, "tools/call", echo(20)));
    assert_eq!((one.unwrap()["n"].as_u64(), two.unwrap()["n"].as_u64()), (Some(10), Some(20)));
    let sent = fake.of("tools/call");
    assert_ne!(sent[0].body()["id"], sent[1].body()["id"]);
}

#[tokio::test]
async fn the_end_of_a_task_ends_what_is_under_way_and_its_session() {
    let fake = Fake::start(|seen| with_sessions(seen, |_| stuck("text/event-stream", vec![": wait\n\n".into()]))).await;
    let bench = Bench::new(http(&fake.url));
    let connection = bench.connect(1, &legacy("a")).await;
    let other = bench.connect(2, &legacy("b")).await;
    let mut under_way = send(&connection, 1, "tools/call", echo(1)).await.unwrap();
    let mut unharmed = send(&other, 1, "tools/call", echo(1)).await.unwrap();
    bench.end_task(1);
    assert_eq!(under_way.next().await.unwrap_err(), UpstreamError::TaskEnded(EndReason::Revoked));
    let farewell = fake.wait_for(|seen| seen.method == "DELETE").await;
    assert_eq!(farewell.header("mcp-session-id"), Some("session-1"));
    let refused = send(&connection, 2, "tools/call", echo(1)).await.unwrap_err();
    assert_eq!(refused, UpstreamError::TaskEnded(EndReason::Revoked));
    let refused = bench.upstreams.connect(&name(), TaskId::from_bytes([1; 16]), &legacy("a")).await.unwrap_err();
    assert_eq!(refused, UpstreamError::TaskEnded(EndReason::Revoked));
    assert!(unharmed.next().now_or_never().is_none(), "another task's call goes on");
    assert_eq!(fake.of("tools/call").len(), 2);
}

#[tokio::test]
async fn a_task_that_ends_during_the_handshake_leaves_no_session() {
    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (at, on) = (Arc::clone(&arrived), Arc::clone(&go));
    let fake = Fake::start_async(move |seen| {
        let (arrived, go) = (Arc::clone(&at), Arc::clone(&on));
        async move {
            if seen.rpc() == "initialize" {
                arrived.notify_one();
                go.notified().await;
            }
            with_sessions(&seen, |seen| result(seen, &json!({})))
        }
        .boxed()
    })
    .await;
    let bench = Bench::new(http(&fake.url));
    let connection = bench.connect(1, &legacy("a")).await;
    let under_way = tokio::spawn(async move { connection.server().await.map(drop) });
    arrived.notified().await;
    bench.end_task(1);
    assert_eq!(under_way.await.unwrap(), Err(UpstreamError::TaskEnded(EndReason::Revoked)));
    go.notify_one();
    assert!(fake.of("tools/call").is_empty());
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_at_the_upstream() {
    let fake = Fake::start(|seen| with_sessions(seen, |_| stuck("text/event-stream", vec![": wait\n\n".into()]))).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let exchange = send(&connection, 42, "tools/call", echo(1)).await.unwrap();
    drop(exchange);
    let cancelled = fake.wait_for(|seen| seen.rpc() == "notifications/cancelled").await;
    assert_eq!(cancelled.body()["params"]["requestId"], 42);
    assert_eq!(cancelled.header("mcp-session-id"), Some("session-1"));
}

#[tokio::test]
async fn a_client_that_goes_away_before_the_first_byte_cancels_too() {
    let fake = Fake::start_async(|seen| {
        async move {
            if seen.rpc() == "tools/call" {
                std::future::pending::<()>().await;
            }
            with_sessions(&seen, |_| status(500))
        }
        .boxed()
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    connection.server().await.unwrap();
    let under_way = {
        let connection = connection.clone();
        tokio::spawn(async move { send(&connection, 42, "tools/call", echo(1)).await.map(drop) })
    };
    fake.wait_for(|seen| seen.rpc() == "tools/call").await;
    under_way.abort();
    let cancelled = fake.wait_for(|seen| seen.rpc() == "notifications/cancelled").await;
    assert_eq!(cancelled.body()["params"]["requestId"], 42);
}

#[tokio::test]
async fn a_call_that_ended_is_not_cancelled() {
    let fake = Fake::start(|seen| with_sessions(seen, |seen| result(seen, &json!({})))).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    call(&connection, 1, "tools/call", echo(1)).await.unwrap();
    connection.close().await;
    fake.wait_for(|seen| seen.method == "DELETE").await;
    assert!(fake.of("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn a_stateless_call_is_cancelled_by_closing_its_stream() {
    struct Noticed(Arc<Notify>);
    impl Drop for Noticed {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let gone = Arc::new(Notify::new());
    let noticed = Arc::clone(&gone);
    let fake = Fake::start(move |seen| {
        let noticed = Arc::clone(&noticed);
        stateless(seen, move |_| {
            use futures_util::StreamExt;
            let guard = Noticed(noticed);
            let first = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(": wait\n\n"))]);
            let rest = futures_util::stream::poll_fn(move |_| {
                let _guard = &guard;
                std::task::Poll::Pending
            });
            let mut response = Response::new(axum::body::Body::from_stream(first.chain(rest)));
            response.headers_mut().insert("content-type", "text/event-stream".parse().unwrap());
            response
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    let exchange = send(&connection, 42, "tools/call", echo(1)).await.unwrap();
    drop(exchange);
    gone.notified().await;
    assert!(fake.of("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn only_what_the_upstream_asked_can_be_answered() {
    let fake = Fake::start(|seen| {
        with_sessions(seen, |_| {
            let asks = json!({ "jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {} });
            stuck("text/event-stream", vec![format!("data: {asks}\n\n")])
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut exchange = send(&connection, 1, "tools/call", echo(1)).await.unwrap();
    let Event::Request { id, .. } = exchange.next().await.unwrap() else { panic!("not asked") };
    assert_eq!(connection.answer(&Id::Number(1), Ok(&raw("{}")), None).await, Err(UpstreamError::NoSuchRequest));
    connection.answer(&id, Ok(&raw(r#"{"action" : "accept"}"#)), None).await.unwrap();
    assert_eq!(connection.answer(&id, Ok(&raw("{}")), None).await, Err(UpstreamError::NoSuchRequest));
    let answered = fake.seen().into_iter().find(|seen| seen.body().get("result").is_some()).unwrap();
    assert_eq!(answered.text, r#"{"jsonrpc":"2.0","id":"q","result":{"action" : "accept"}}"#);
}

#[tokio::test]
async fn what_came_before_anybody_listened_is_not_lost() {
    let fake = Fake::start(|seen| {
        with_sessions(seen, |seen| match seen.method.as_str() {
            "GET" => {
                let asks = json!({ "jsonrpc": "2.0", "id": 3, "method": "roots/list" });
                stuck("text/event-stream", vec![format!("data: {asks}\n\n")])
            }
            _ => result(seen, &json!({})),
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut heard = connection.unsolicited();
    let Event::Request { id, .. } = heard.recv().await.unwrap() else { panic!("not asked") };
    connection.answer(&id, Ok(&raw(r#"{"roots":[]}"#)), None).await.unwrap();
}

#[tokio::test]
async fn one_task_cannot_take_all_connections() {
    let fake = Fake::start(|seen| with_sessions(seen, |seen| result(seen, &json!({})))).await;
    let bench = Bench::new(http(&fake.url));
    let mut held = Vec::new();
    for session in 0..64 {
        held.push(bench.connect(1, &legacy(&session.to_string())).await);
    }
    let error = bench.upstreams.connect(&name(), TaskId::from_bytes([1; 16]), &legacy("more")).await.unwrap_err();
    assert_eq!(error, UpstreamError::Busy("connections"));
    bench.connect(2, &legacy("a")).await;
    drop(held.pop());
    bench.connect(1, &legacy("more")).await;
}

#[tokio::test]
async fn whoever_learns_first_of_a_changed_registration_ends_what_others_have_under_way() {
    let server = || Fake::start(|seen| stateless(seen, |_| stuck("text/event-stream", vec![": wait\n\n".into()])));
    let (old, new) = (server().await, server().await);
    let bench = Bench::new(http(&old.url));
    let mut under_way = send(&bench.connect(1, &modern()).await, 1, "tools/call", echo(1)).await.unwrap();
    bench.table.upstreams.lock().unwrap().insert(name(), Arc::new(upstream(http(&new.url))));
    bench.connect(2, &modern()).await;
    assert_eq!(under_way.next().await.unwrap_err(), UpstreamError::Closed);
}

#[tokio::test]
async fn a_changed_registration_takes_effect_at_once() {
    let server = || Fake::start(|seen| stateless(seen, |_| stuck("text/event-stream", vec![": wait\n\n".into()])));
    let (old, new) = (server().await, server().await);
    let bench = Bench::new(http(&old.url));
    let connection = bench.connect(1, &modern()).await;
    let mut under_way = send(&connection, 1, "tools/call", echo(1)).await.unwrap();
    let register = |upstreams: HashMap<_, _>| *bench.table.upstreams.lock().unwrap() = upstreams;

    register(HashMap::from([(name(), Arc::new(upstream(http(&new.url))))]));
    assert!(!connection.is_current());
    assert_eq!(send(&connection, 2, "tools/call", echo(1)).await.unwrap_err(), UpstreamError::Closed);
    assert_eq!(under_way.next().await.unwrap_err(), UpstreamError::Closed);
    let connection = bench.connect(1, &modern()).await;
    let mut under_way = send(&connection, 3, "tools/call", echo(1)).await.unwrap();
    assert_eq!((old.of("tools/call").len(), new.of("tools/call").len()), (1, 1));

    // Removed, and nobody asks for it: what is under way ends all the same.
    register(HashMap::new());
    assert_eq!(under_way.next().await.unwrap_err(), UpstreamError::Closed);
    let error = bench.upstreams.connect(&name(), TaskId::from_bytes([1; 16]), &modern()).await.unwrap_err();
    assert_eq!(error, UpstreamError::Unknown);
}

#[tokio::test]
async fn closing_everything_waits_until_sessions_have_ended() {
    let fake = Fake::start(|seen| with_sessions(seen, |seen| result(seen, &json!({})))).await;
    let bench = Bench::new(http(&fake.url));
    for task in 1..4 {
        bench.connect(task, &legacy("a")).await.server().await.unwrap();
    }
    bench.upstreams.close().await;
    assert_eq!(fake.seen().iter().filter(|seen| seen.method == "DELETE").count(), 3);
}

#[tokio::test]
async fn announcements_go_on_in_the_session_that_took_the_place_of_a_lost_one() {
    // The first session is lost before its stream is opened: the stream and the call are answered as the protocol says.
    let sessions = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let fake = Fake::start(move |seen| {
        use std::sync::atomic::Ordering::SeqCst;
        if seen.rpc() == "initialize" {
            let number = sessions.fetch_add(1, SeqCst) + 1;
            let mut response = with_sessions(seen, |_| status(500));
            response.headers_mut().insert("mcp-session-id", format!("session-{number}").parse().unwrap());
            return response;
        }
        if seen.header("mcp-session-id") == Some("session-1") && !seen.rpc().starts_with("notifications/") {
            return status(404);
        }
        with_sessions(seen, |seen| match seen.method.as_str() {
            "GET" => {
                let note = json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" });
                stuck("text/event-stream", vec![format!("data: {note}\n\n")])
            }
            _ => result(seen, &json!({})),
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut heard = connection.unsolicited();
    fake.wait_for(|seen| seen.method == "GET").await;
    call(&connection, 1, "tools/call", echo(1)).await.unwrap();
    let event = tokio::time::timeout(std::time::Duration::from_secs(20), heard.recv()).await;
    assert!(matches!(event, Ok(Ok(Event::Notification { .. }))), "{event:?}");
}

/// An upstream with sessions that forgets the first when `forget` says so, and refuses to announce what is called `gone`.
async fn forgetful(forget: Arc<std::sync::atomic::AtomicBool>) -> Fake {
    use std::sync::atomic::Ordering::SeqCst;
    let sessions = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    Fake::start(move |seen| {
        if seen.rpc() == "initialize" {
            let number = sessions.fetch_add(1, SeqCst) + 1;
            let mut response = with_sessions(seen, |_| status(500));
            response.headers_mut().insert("mcp-session-id", format!("session-{number}").parse().unwrap());
            return response;
        }
        let first = seen.header("mcp-session-id") == Some("session-1");
        if first && forget.load(SeqCst) && seen.method == "POST" {
            return status(404);
        }
        with_sessions(seen, |seen| match seen.method.as_str() {
            "GET" => stuck("text/event-stream", vec![": quiet\n\n".to_owned()]),
            _ if !first && seen.body()["params"]["uri"] == "gone" => error(seen, -32602),
            _ => result(seen, &json!({})),
        })
    })
    .await
}

#[tokio::test]
async fn a_session_that_takes_the_place_of_a_lost_one_is_told_what_that_was_told() {
    let forget = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let fake = forgetful(Arc::clone(&forget)).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut heard = connection.unsolicited();
    call(&connection, 1, "logging/setLevel", json!({ "level": "error" })).await.unwrap();
    for (id, method, uri) in [
        (2, "resources/subscribe", "kept"),
        (3, "resources/subscribe", "gone"),
        (4, "resources/subscribe", "given up"),
        (5, "resources/unsubscribe", "given up"),
    ] {
        call(&connection, id, method, json!({ "uri": uri })).await.unwrap();
    }
    forget.store(true, std::sync::atomic::Ordering::SeqCst);
    call(&connection, 6, "tools/call", echo(1)).await.unwrap();
    let renewed = |seen: &Seen| seen.header("mcp-session-id") == Some("session-2") && seen.method == "POST";
    let told: Vec<_> = fake.seen().into_iter().filter(renewed).map(|seen| (seen.rpc(), seen.body()["params"].clone())).collect();
    let methods: Vec<&str> = told.iter().map(|(method, _)| method.as_str()).collect();
    let all = ["notifications/initialized", "logging/setLevel", "resources/subscribe", "resources/subscribe", "tools/call"];
    assert_eq!(methods, all, "before the call that is sent again: {told:?}");
    assert_eq!(told[1].1["level"], "error");
    assert_eq!([&told[2].1["uri"], &told[3].1["uri"]], ["gone", "kept"]);
    // What it did not take is said.
    let said = tokio::time::timeout(std::time::Duration::from_secs(10), heard.recv()).await;
    let Ok(Ok(Event::Notification { method, params: Some(params) })) = said else { panic!("{said:?}") };
    assert!(method == "notifications/message" && params.to_value()["data"].as_str().unwrap().contains("subscribe again"));
}

#[tokio::test]
async fn a_subscription_that_a_renewed_session_does_not_take_ends() {
    let forget = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let fake = forgetful(Arc::clone(&forget)).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    connection.server().await.unwrap();
    // As a stateless client's subscription leaves it behind.
    assert_eq!(connection.0.inbox.subscribe("gone"), Some(true));
    let params = json!({ "notifications": {}, "_meta": meta() });
    let mut exchange = send(&connection, 1, "subscriptions/listen", params).await.unwrap();
    assert!(matches!(exchange.next().await.unwrap(), Event::Notification { .. }), "acknowledged");
    forget.store(true, std::sync::atomic::Ordering::SeqCst);
    call(&connection, 2, "tools/call", echo(1)).await.unwrap();
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), exchange.next()).await;
    assert!(matches!(ended, Ok(Ok(Event::Error(_)))), "{ended:?}");
}
