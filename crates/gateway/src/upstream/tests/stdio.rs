//! Upstreams that are child processes: small scripts that behave badly, and a real server.

use super::*;

fn script(text: &str) -> Transport {
    shell(text, Vec::new(), Vec::new())
}

pub(super) fn shell(text: &str, env: Vec<(String, SecretRef)>, vars: Vec<(String, String)>) -> Transport {
    Transport::Stdio { command: "sh".into(), args: vec!["-c".into(), text.into()], env, vars }
}

/// The beginning of a script: the handshake of the session revisions. `$id` is the id of the line that was read.
pub(super) const HANDSHAKE: &str = r#"
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$1"; }
next() { IFS= read -r line || exit 0; id=$(printf '%s' "$line" | sed -n 's/^{"jsonrpc":"2.0","id":\([0-9]*\),.*/\1/p'); }
next
case "$line" in *server/discover*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no"}}\n' "$id"; next;; esac
answer '{"protocolVersion":"2025-11-25","capabilities":{},"serverInfo":{"name":"script","version":"1"}}'
next
"#;

pub(super) fn with_handshake(rest: &str) -> Transport {
    script(&format!("{HANDSHAKE}{rest}"))
}

#[tokio::test]
async fn a_child_sees_only_the_environment_that_was_configured() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let secret = SecretRef::File(file.path().to_string_lossy().into_owned());
    let text =
        format!(r#"{HANDSHAKE} next; answer "{{\"env\":\"$(env | cut -d= -f1 | sort | tr '\n' ' ')\",\"key\":\"$KEY\"}}"; next"#);
    let bench = Bench::new(shell(&text, vec![("KEY".into(), secret)], vec![("MODE".into(), "x".into())]));
    let connection = bench.connect(1, &legacy("a")).await;
    let answer = call(&connection, 1, "tools/call", json!({})).await.unwrap();
    assert_eq!(answer["key"], "s3cret");
    let names: Vec<&str> = answer["env"].as_str().unwrap().split_whitespace().collect();
    let shells_own = ["PWD", "OLDPWD", "SHLVL", "_"];
    let given: Vec<_> = names.into_iter().filter(|name| !shells_own.contains(name)).collect();
    assert_eq!(given, ["KEY", "MODE", "PATH"]);
}

#[tokio::test]
async fn a_child_that_dies_says_so_and_the_next_call_gets_a_new_one() {
    let bench = Bench::new(with_handshake(
        r#"next; case "$line" in *die*) exit 3;; esac; answer '{"pid":'$$'}'; next; case "$line" in *die*) exit 3;; esac"#,
    ));
    let connection = bench.connect(1, &legacy("a")).await;
    let first = call(&connection, 1, "tools/call", json!({})).await.unwrap();
    assert_eq!(call(&connection, 2, "tools/call", json!({ "die": 1 })).await.unwrap_err(), UpstreamError::Exited);
    let second = call(&connection, 3, "tools/call", json!({})).await.unwrap();
    assert_ne!(first["pid"], second["pid"]);
    // One that dies at each call is not started for ever.
    for id in 4..20 {
        call(&connection, id, "tools/call", json!({ "die": 1 })).await.unwrap_err();
    }
    let error = call(&connection, 20, "tools/call", json!({})).await.unwrap_err();
    assert_eq!(error, UpstreamError::Busy("new sessions"));
}

#[tokio::test]
async fn a_program_that_is_missing_is_named_as_such() {
    let missing = Transport::Stdio { command: "/no/such/program".into(), args: vec![], env: vec![], vars: vec![] };
    let error = Bench::new(missing).connect(1, &legacy("a")).await.server().await.unwrap_err();
    assert!(matches!(error, UpstreamError::NotStarted(_)), "{error}");
}

#[tokio::test]
async fn the_end_of_a_task_ends_its_child_and_all_that_it_started() {
    // The child ignores the hint, and so does its own child.
    let bench = Bench::new(with_handshake(
        r#"trap '' TERM; sh -c 'trap "" TERM; while :; do sleep 1; done' & other=$!; next; answer "{\"pids\":[$$,$other]}"; while :; do sleep 1; done"#,
    ));
    let connection = bench.connect(1, &legacy("a")).await;
    let answer = call(&connection, 1, "tools/call", json!({})).await.unwrap();
    let pids: Vec<i32> = answer["pids"].as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap() as i32).collect();
    let alive = |pid: i32| {
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !state.is_empty() && !state.contains(") Z ")
    };
    assert!(pids.iter().all(|pid| alive(*pid)));
    let mut under_way = send(&connection, 2, "tools/call", json!({})).await.unwrap();
    bench.end_task(1);
    assert_eq!(under_way.next().await.unwrap_err(), UpstreamError::TaskEnded(EndReason::Revoked));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while pids.iter().any(|pid| alive(*pid)) {
        assert!(std::time::Instant::now() < deadline, "still alive");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn closing_everything_waits_until_no_child_is_left() {
    let bench = Bench::new(with_handshake("next; answer '{\"pid\":'$$'}'; trap '' TERM; while :; do sleep 1; done"));
    let connection = bench.connect(1, &legacy("a")).await;
    let pid = call(&connection, 1, "tools/call", json!({})).await.unwrap()["pid"].clone();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
    bench.upstreams.close().await;
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn lines_that_mean_nothing_are_skipped_and_a_line_without_end_is_not() {
    let bench = Bench::new(with_handshake(
        r#"next; echo 'Listening on stdio'; echo; echo '{"jsonrpc":"2.0","id":999,"result":{}}'; answer '{"ok":true}'; next; exec cat /dev/zero"#,
    ));
    let connection = bench.connect(1, &legacy("a")).await;
    assert_eq!(call(&connection, 1, "tools/call", json!({})).await.unwrap(), json!({ "ok": true }));
    let error = call(&connection, 2, "tools/call", json!({})).await.unwrap_err();
    assert_eq!(error, UpstreamError::TooLarge(16 * 1024 * 1024));
}

#[tokio::test]
async fn a_child_that_floods_its_standard_error_still_answers() {
    let bench = Bench::new(with_handshake(
        r#"next; i=0; while [ $i -lt 3000 ]; do printf '%0200d\n' $i >&2; i=$((i+1)); done; answer '{"ok":true}'; next"#,
    ));
    let connection = bench.connect(1, &legacy("a")).await;
    assert_eq!(call(&connection, 1, "tools/call", json!({})).await.unwrap(), json!({ "ok": true }));
}

#[tokio::test]
async fn a_child_that_does_not_answer_is_given_up() {
    let bench = Bench::hasty(with_handshake("next; next; next"));
    let connection = bench.connect(1, &legacy("a")).await;
    assert_eq!(call(&connection, 1, "tools/call", json!({})).await.unwrap_err(), UpstreamError::Timeout);
}

#[tokio::test]
async fn a_silent_child_of_the_session_revisions_is_found_out() {
    // It ignores what it does not know, as some servers do before `initialize`.
    let bench = Bench::hasty(script(&HANDSHAKE.replacen("printf '{\"jsonrpc\":\"2.0\",\"id\":%s,\"error\"", ": '", 1)));
    let server = bench.connect(1, &modern()).await.server().await.unwrap();
    assert_eq!(server.info["name"], "script");
}

#[tokio::test]
async fn answers_and_progress_find_their_requests() {
    // It answers the second request first, and reports progress of both, whose clients chose the same id and token.
    let bench = Bench::new(with_handshake(
        r#"
token() { printf '%s' "$line" | sed -n 's/.*"progressToken":\("[^"]*"\|[0-9]*\).*/\1/p'; }
next; one=$id; t1=$(token); next; two=$id; t2=$(token)
for t in $t1 $t2; do printf '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1,"of":%s}}\n' "$t" "$t"; done
id=$two; answer '{"n":2}'; id=$one; answer '{"n":1}'; next
"#,
    ));
    let connection = bench.connect(1, &modern()).await;
    let params = |n: u64| json!({ "name": "t", "arguments": { "n": n }, "_meta": { "progressToken": 7 } });
    let one = send(&connection, 1, "tools/call", params(1)).await.unwrap();
    let two = send(&connection, 1, "tools/call", params(2)).await.unwrap();
    let (one, two) = (events(one).await.unwrap(), events(two).await.unwrap());
    for (got, n) in [(one, 1), (two, 2)] {
        let [Event::Notification { params: Some(progress), .. }, Event::Result(result)] = &got[..] else {
            panic!("{n}: {got:?}")
        };
        assert_eq!(progress.to_value()["progressToken"], 7, "the client's own token comes back");
        assert_eq!(result.to_value(), json!({ "n": n }));
    }
}

#[tokio::test]
async fn a_line_break_between_tokens_does_not_break_the_line() {
    let bench = Bench::new(with_handshake(r#"next; answer "$(printf '%s' "$line" | sed 's/.*"params"://; s/}$//')"; next"#));
    let connection = bench.connect(1, &legacy("a")).await;
    let params = raw("{\n  \"a\": \"b\\n\",\r\n\"c\": [1,\n2]}");
    let exchange = send_raw(&connection, 1, "tools/call", &params).await.unwrap();
    let Some(Event::Result(result)) = events(exchange).await.unwrap().pop() else { panic!("no result") };
    assert_eq!(result.to_value(), json!({ "a": "b\n", "c": [1, 2] }));
}

#[tokio::test]
async fn what_a_child_asks_reaches_the_newest_request_and_its_answer_the_child() {
    let bench = Bench::new(with_handshake(
        r#"next; call=$id; echo '{"jsonrpc":"2.0","id":"q1","method":"roots/list"}'; IFS= read -r line; id=$call; case "$line" in '{"jsonrpc":"2.0","id":"q1","result":{"roots":[]}}') answer '{"ok":true}';; *) answer '{"ok":false}';; esac; next"#,
    ));
    let connection = bench.connect(1, &legacy("a")).await;
    let mut exchange = send(&connection, 1, "tools/call", json!({})).await.unwrap();
    let Event::Request { id, .. } = exchange.next().await.unwrap() else { panic!("not asked") };
    connection.answer(&id, Ok(&raw(r#"{"roots":[]}"#)), None).await.unwrap();
    let Event::Result(result) = exchange.next().await.unwrap() else { panic!("no result") };
    assert_eq!(result.to_value(), json!({ "ok": true }));
}

#[tokio::test]
async fn a_cancelled_request_is_cancelled_at_the_child() {
    let bench = Bench::new(with_handshake(
        r#"next; call=$id; IFS= read -r line; next; case "$line" in *) answer "{\"cancelled\":$call}";; esac; next"#,
    ));
    let connection = bench.connect(1, &legacy("a")).await;
    let exchange = send(&connection, 1, "tools/call", json!({})).await.unwrap();
    drop(exchange);
    // The second line was the cancellation: the third is this.
    assert!(call(&connection, 2, "tools/call", json!({})).await.unwrap()["cancelled"].is_u64());
}

#[tokio::test]
async fn one_task_cannot_start_programs_without_end() {
    let bench = Bench::new(with_handshake("next"));
    let mut held = Vec::new();
    for session in 0..8 {
        held.push(bench.connect(1, &legacy(&session.to_string())).await);
    }
    let error = bench.upstreams.connect(&name(), TaskId::from_bytes([1; 16]), &legacy("more")).await.unwrap_err();
    assert_eq!(error, UpstreamError::Busy("programs"));
}

#[tokio::test]
async fn the_place_of_a_child_is_free_when_its_process_is_gone_and_not_before() {
    // Each outlives its connection as long as it can.
    let text = "trap '' TERM; next; answer '{\"pid\":'$$'}'; while :; do sleep 1; done";
    let bench = Bench::new(with_handshake(text));
    let mut pids = Vec::new();
    let alive = |pids: &[Value]| pids.iter().filter(|pid| std::path::Path::new(&format!("/proc/{pid}")).exists()).count();
    for session in 0..10 {
        let connection = bench.connect(1, &legacy(&session.to_string())).await;
        pids.push(call(&connection, 1, "tools/call", json!({})).await.unwrap()["pid"].clone());
        assert!(alive(&pids) <= 8, "{} processes of one task", alive(&pids));
        connection.close().await;
    }
}
