//! A stateless upstream that asks, and a client with a session that is asked.

use super::fake::*;
use super::*;

const STATE: &str = r#""a\/b\u00e9 \"quoted\"""#;

fn asks(seen: &Seen) -> Response {
    json_text(format!(
        r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"input_required","requestState":{STATE},"inputRequests":{{
            "who":{{"method":"elicitation/create","params":{{"message":"who?","requestedSchema":{{}}}}}},
            "dirs":{{"method":"roots/list"}}}}}}}}"#,
        seen.body()["id"]
    ))
}

use axum::response::Response;

async fn asked(exchange: &mut Exchange) -> (Id, String) {
    match exchange.next().await.unwrap() {
        Event::Request { id, method, .. } => (id, method),
        other => panic!("not asked: {other:?}"),
    }
}

#[tokio::test]
async fn questions_are_asked_and_the_answers_go_into_the_next_round() {
    let fake = Fake::start(|seen| {
        stateless(seen, |seen| match seen.body()["params"].get("inputResponses") {
            None => asks(seen),
            Some(_) => result(seen, &json!({ "resultType": "complete", "content": [] })),
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut exchange = send(&connection, 4, "tools/call", json!({ "name": "echo" })).await.unwrap();
    let mut ids = HashMap::new();
    for _ in 0..2 {
        let (id, method) = asked(&mut exchange).await;
        ids.insert(method, id);
    }
    let invented = Id::Text("invented".into());
    assert_eq!(connection.answer(&invented, Ok(&raw("{}")), None).await, Err(UpstreamError::NoSuchRequest));
    connection.answer(&ids["roots/list"], Ok(&raw(r#"{"roots":[ 1.0 ]}"#)), None).await.unwrap();
    connection.answer(&ids["elicitation/create"], Ok(&raw(r#"{"action":"accept"}"#)), None).await.unwrap();
    assert_eq!(
        connection.answer(&ids["roots/list"], Ok(&raw("{}")), None).await,
        Err(UpstreamError::NoSuchRequest),
        "an answer counts once"
    );
    assert!(matches!(exchange.next().await.unwrap(), Event::Result(_)));

    let rounds = fake.of("tools/call");
    assert_eq!(rounds.len(), 2);
    assert_ne!(rounds[0].body()["id"], rounds[1].body()["id"]);
    assert!(rounds[1].text.contains(&format!(r#""requestState":{STATE}"#)), "{}", rounds[1].text);
    assert!(rounds[1].text.contains(r#""dirs":{"roots":[ 1.0 ]}"#), "{}", rounds[1].text);
    assert_eq!(rounds[1].body()["params"]["name"], "echo");
}

#[tokio::test]
async fn an_upstream_cannot_ask_for_ever() {
    let fake = Fake::start(|seen| stateless(seen, asks)).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let mut exchange = send(&connection, 4, "tools/call", json!({ "name": "echo" })).await.unwrap();
    let error = loop {
        match exchange.next().await {
            Ok(Event::Request { id, .. }) => connection.answer(&id, Ok(&raw("{}")), None).await.unwrap(),
            Ok(other) => panic!("unexpected {other:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error, UpstreamError::TooManyRounds(16));
}

#[tokio::test]
async fn a_client_that_cannot_ask_its_user_cancels_and_one_that_refuses_ends_the_call() {
    let fake = Fake::start(|seen| {
        stateless(seen, |seen| match seen.body()["params"].get("inputResponses") {
            None => asks(seen),
            Some(_) => result(seen, &json!({ "resultType": "complete" })),
        })
    })
    .await;
    let connection = Bench::new(http(&fake.url)).connect(1, &legacy("a")).await;
    let refusal = raw(r#"{"code":-32601,"message":"no"}"#);
    for refused in ["elicitation/create", "roots/list"] {
        let mut exchange = send(&connection, 4, "tools/call", json!({ "name": "echo" })).await.unwrap();
        for _ in 0..2 {
            let (id, method) = asked(&mut exchange).await;
            let outcome = if method == refused { Err(&refusal) } else { Ok(&raw("{}")) };
            connection.answer(&id, outcome, None).await.unwrap();
        }
        match (refused, exchange.next().await.unwrap()) {
            ("elicitation/create", Event::Result(_)) => {
                let round = fake.of("tools/call").pop().unwrap().body();
                assert_eq!(round["params"]["inputResponses"]["who"], json!({ "action": "cancel" }));
            }
            ("roots/list", Event::Error(error)) => assert_eq!(error.to_value()["code"], -32601),
            (_, other) => panic!("{refused}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_stateless_client_gets_the_question_as_it_came() {
    let fake = Fake::start(|seen| stateless(seen, asks)).await;
    let connection = Bench::new(http(&fake.url)).connect(1, &modern()).await;
    let mut got = events(send(&connection, 4, "tools/call", echo(1)).await.unwrap()).await.unwrap();
    let Some(Event::Result(raw)) = got.pop() else { panic!("no result") };
    assert!(String::from_utf8_lossy(raw.as_bytes()).contains(&format!(r#""requestState":{STATE}"#)));
}
