//! Claims about the message parser: tables, laws, and hostile bytes.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Payload, Malformed> {
    Payload::parse(&Bytes::copy_from_slice(text.as_bytes()))
}

#[test]
fn each_kind_of_message_is_told_apart() {
    for (text, kind) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request"),
        (r#"{"id":"a","params":{},"method":"ping","jsonrpc":"2.0"}"#, "request"),
        (r#" {"jsonrpc":"2.0","method":"notifications/initialized"}"#, "notification"),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "result"),
        (r#"{"jsonrpc":"2.0","id":"x","error":{"code":-1,"message":"m"}}"#, "error"),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}"#, "error"),
        (r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"m"}}"#, "error"),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "batch"),
    ] {
        let found = match parse(text).unwrap_or_else(|error| panic!("{text}: {error}")) {
            Payload::Batch(_) => "batch",
            Payload::Single(Message::Request(_)) => "request",
            Payload::Single(Message::Notification(_)) => "notification",
            Payload::Single(Message::Response(Response { outcome: Ok(_), .. })) => "result",
            Payload::Single(Message::Response(Response { outcome: Err(_), .. })) => "error",
        };
        assert_eq!(found, kind, "{text}");
    }
}

#[test]
fn what_two_readers_could_read_differently_is_refused() {
    let request = |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    for (text, fault) in [
        (request(r#"{"name":"safe","name":"danger"}"#), Malformed::DuplicateKey),
        (request(r#"{"name":"safe","Name":"danger"}"#), Malformed::DuplicateKey),
        (request("{\"task\":1,\"ta\u{17f}\u{212a}\":2}"), Malformed::DuplicateKey),
        (request(r#"{"name":"safe","\u006eame":"danger"}"#), Malformed::DuplicateKey),
        (request(r#"{"name":"t","arguments":{"a":{"b":[{"c":1,"c":2}]}}}"#), Malformed::DuplicateKey),
        (request(r#"{"name":"t","Arguments":{"path":"/etc"}}"#), Malformed::Spelling),
        (request("{\"name\":\"t\",\"argument\u{17f}\":{}}"), Malformed::Spelling),
        (request(r#"{"name":"t","REQUESTSTATE":"forged"}"#), Malformed::Spelling),
        (request(r#"{"ref":{"type":"ref/prompt","name":"allowed","NAME":"other"}}"#), Malformed::DuplicateKey),
        (request(r#"{"ref":{"type":"ref/resource","name":"n","Uri":"file:///x"}}"#), Malformed::Spelling),
        (request(r#"{"notifications":{"ResourceSubscriptions":["file:///x"]}}"#), Malformed::Spelling),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#.into(), Malformed::DuplicateKey),
        (r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#.into(), Malformed::DuplicateKey),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{},"params":{}}"#.into(), Malformed::DuplicateKey),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","m\u0065thod":"b"}"#.into(), Malformed::DuplicateKey),
        (request(r#"{"name":"\ud800"}"#), Malformed::NotJson),
        (request(r#"{"n":1e999}"#), Malformed::NotJson),
        (request(r#"{"n":NaN}"#), Malformed::NotJson),
        (request("[1]"), Malformed::Params),
        (request("null"), Malformed::Params),
        (request(r#""x""#), Malformed::Params),
    ] {
        assert_eq!(parse(&text).unwrap_err(), fault, "{text}");
    }
}

#[test]
fn what_is_not_a_message_is_refused() {
    for (text, fault) in [
        ("", Malformed::NotJson),
        ("x", Malformed::NotJson),
        ("{}", Malformed::NotJsonRpc),
        ("1", Malformed::NotJsonRpc),
        ("null", Malformed::NotJsonRpc),
        ("[]", Malformed::Batch),
        ("[1]", Malformed::NotJsonRpc),
        ("[[]]", Malformed::NotJsonRpc),
        (r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#, Malformed::NotJsonRpc),
        (r#"{"id":1,"method":"a"}"#, Malformed::NotJsonRpc),
        (r#"{"jsonrpc":"2.0","id":1,"method":1}"#, Malformed::NotJsonRpc),
        (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, Malformed::NotJsonRpc),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#, Malformed::NotJsonRpc),
        (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#, Malformed::NotJsonRpc),
        (r#"{"jsonrpc":"2.0","id":1,"error":"text"}"#, Malformed::NotJsonRpc),
        (r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#, Malformed::Id),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#, Malformed::Id),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"a"}"#, Malformed::Id),
        (r#"{"jsonrpc":"2.0","id":99999999999999999999,"method":"a"}"#, Malformed::Id),
        (r#"{"jsonrpc":"2.0","result":{}}"#, Malformed::Id),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a"} x"#, Malformed::NotJson),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a"}{"jsonrpc":"2.0","id":1,"method":"b"}"#, Malformed::NotJson),
    ] {
        assert_eq!(parse(text).unwrap_err(), fault, "{text}");
    }
    assert_eq!(Payload::parse(&Bytes::from_static(b"{\"a\":\"\xff\"}")).unwrap_err(), Malformed::NotUtf8);
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"a"}}"#, "i".repeat(ID_BYTES_MAX));
    assert_eq!(parse(&long).unwrap_err(), Malformed::Id);
    let many = format!("[{}]", vec![r#"{"jsonrpc":"2.0","method":"a"}"#; BATCH_MAX + 1].join(","));
    assert_eq!(parse(&many).unwrap_err(), Malformed::Batch);
}

#[test]
fn deep_nesting_is_refused_without_recursing_into_it() {
    for levels in [domain::limits::JSON_DEPTH_MAX + 1, 200, 200_000] {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"x":{deep}}}}}"#);
            assert_eq!(parse(&text).unwrap_err(), Malformed::TooDeep, "{levels}");
            // Outside of `params` nothing is built from it.
            let _ = parse(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","x":{deep}}}"#));
            let _ = parse(&deep);
        }
    }
}

#[test]
fn the_params_that_are_forwarded_are_the_bytes_that_arrived() {
    let params = r#"{ "name" : "t", "arguments": {"n": 1.50, "big": 12345678901234567890}, "_meta":{"x-unknown":[ ]} }"#;
    let text = format!(r#"{{"jsonrpc":"2.0","id":"1","method":"tools/call","params":{params},"extra":1}}"#);
    let Payload::Single(Message::Request(request)) = parse(&text).unwrap() else { panic!() };
    let parsed = request.params.unwrap();
    assert_eq!(parsed.raw().as_bytes(), params.as_bytes());
    assert_eq!(parsed.text("name"), Some("t"));
    assert_eq!(parsed.meta("x-unknown"), Some(&serde_json::json!([])));
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| Number::from_f64(f).map_or(Value::Null, Value::Number)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn strict_reading_agrees_with_plain_reading(value in json()) {
        let text = value.to_string();
        prop_assert_eq!(strict_value(&text).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Payload::parse(&Bytes::from(bytes));
    }

    #[test]
    fn any_mutation_of_a_call_is_parsed_or_refused(at in 0usize..90, byte in any::<u8>()) {
        let mut bytes =
            br#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t","arguments":{"a":[1]}}}"#.to_vec();
        if let Some(slot) = bytes.get_mut(at) {
            *slot = byte;
        }
        let _ = Payload::parse(&Bytes::from(bytes));
    }

    #[test]
    fn ids_come_back_as_they_came(text in "[^\\x00-\\x1f]{0,40}", number in any::<i64>()) {
        for id in [Id::Text(text.as_str().into()), Id::Number(number)] {
            let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
            let Payload::Single(Message::Request(request)) = parse(&body).unwrap() else { panic!() };
            prop_assert_eq!(request.id, id);
        }
    }
}
