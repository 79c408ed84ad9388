//! Forms that are repeated, contradictory, oversized or malformed, each with the error code of its RFC.
//! No evidence in them is verified.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;

/// A form of these pairs, encoded.
fn form(pairs: &[(&str, &str)]) -> Vec<u8> {
    let mut serializer = url::form_urlencoded::Serializer::new(String::new());
    serializer.extend_pairs(pairs);
    serializer.finish().into_bytes()
}

const EXCHANGE: [(&str, &str); 3] =
    [("grant_type", GRANT_TOKEN_EXCHANGE), ("subject_token", "a.b.c"), ("subject_token_type", TOKEN_TYPE_JWT)];

fn exchange(more: &[(&str, &str)]) -> Result<TokenRequest, OAuthError> {
    TokenRequest::parse(&form(&[&EXCHANGE, more].concat()))
}

fn code(result: Result<TokenRequest, OAuthError>) -> Option<&'static str> {
    result.err().map(|error| error.code.as_str())
}

#[test]
fn a_token_exchange_opens_a_task() {
    let details = json!([{
        "type": "writ_task", "intent": "RefundOrder", "parameters": { "order_id": 7 }, "lifetime_secs": 300,
    }]);
    let request = exchange(&[
        ("resource", "https://writ.example/mcp/orders/"),
        ("resource", "https://writ.example/mcp/helpdesk"),
        ("resource", "https://writ.example/mcp/orders"),
        ("scope", "mcp tools"),
        ("authorization_details", &details.to_string()),
        ("client_id", "agt_1"),
        ("requested_token_type", TOKEN_TYPE_ACCESS_TOKEN),
        ("something_new", "ignored"),
    ])
    .unwrap();
    let Grant::TokenExchange { subject_token, subject_token_type } = &request.grant else {
        unreachable!("another grant");
    };
    assert_eq!((subject_token.expose_secret(), *subject_token_type), ("a.b.c", SubjectTokenType::Jwt));
    assert_eq!(request.resources, ["https://writ.example/mcp/orders", "https://writ.example/mcp/helpdesk"]);
    assert_eq!(request.scope, ["mcp", "tools"]);
    assert_eq!(request.client_id.as_deref(), Some("agt_1"));
    let expected = WritTask::Open {
        intent: "RefundOrder".to_owned(),
        parameters: json!({ "order_id": 7 }).as_object().unwrap().clone(),
        lifetime_secs: Some(300),
        replaces: None,
    };
    assert_eq!(request.task, Some(expected));
}

#[test]
fn the_other_grants_are_parsed() {
    let request = TokenRequest::parse(&form(&[("grant_type", GRANT_JWT_BEARER), ("assertion", "x.y.z")])).unwrap();
    assert!(matches!(&request.grant, Grant::JwtBearer { assertion } if assertion.expose_secret() == "x.y.z"));
    assert_eq!(request.grant.evidence_error(), ErrorCode::InvalidGrant);

    let request = TokenRequest::parse(&form(&[
        ("grant_type", GRANT_CLIENT_CREDENTIALS),
        ("client_id", "spiffe://example.org/agent/a"),
        ("client_assertion_type", ASSERTION_TYPE_JWT_SPIFFE),
        ("client_assertion", "x.y.z"),
    ]))
    .unwrap();
    assert!(matches!(request.grant, Grant::ClientCredentials));
    assert_eq!(request.client_assertion.unwrap().kind, ClientAssertionType::JwtSpiffe);
    assert_eq!(request.task, None);
    assert_eq!(Grant::ClientCredentials.evidence_error(), ErrorCode::InvalidClient);
}

#[test]
fn secrets_are_never_shown() {
    let shown =
        format!("{:?}", exchange(&[("client_assertion", "s3cret"), ("client_assertion_type", ASSERTION_TYPE_JWT_BEARER)]));
    assert!(!shown.contains("a.b.c") && !shown.contains("s3cret"), "{shown}");
}

#[test]
fn repeated_parameters_are_refused_even_when_empty() {
    for name in ["grant_type", "subject_token", "scope", "authorization_details", "client_id", "unknown"] {
        let found = exchange(&[(name, ""), (name, "x")]);
        assert_eq!(found.map_err(|error| error.description).err().as_deref(), Some("a parameter is repeated"), "{name}");
    }
    let smuggled = b"grant_type=client_credentials&grant%5Ftype=client_credentials";
    assert_eq!(code(TokenRequest::parse(smuggled)), Some("invalid_request"));
}

#[test]
fn each_fault_has_its_own_code() {
    let cases: [(&[(&str, &str)], &str); 16] = [
        (&[("actor_token", "x.y.z")], "invalid_request"),
        (&[("actor_token_type", TOKEN_TYPE_JWT)], "invalid_request"),
        (&[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")], "invalid_request"),
        (&[("requested_token_type", "urn:ietf:params:oauth:token-type:saml2")], "invalid_request"),
        (&[("audience", "orders")], "invalid_target"),
        (&[("resource", "orders")], "invalid_target"),
        (&[("resource", "https://writ.example/mcp#x")], "invalid_target"),
        (&[("resource", "https://writ.example/a b")], "invalid_target"),
        (&[("resource", "https://writ.example/\u{e9}")], "invalid_target"),
        (&[("scope", " a")], "invalid_scope"),
        (&[("scope", "a  b")], "invalid_scope"),
        (&[("scope", "a\"b")], "invalid_scope"),
        (&[("client_secret", "x")], "invalid_client"),
        (&[("client_assertion", "x")], "invalid_request"),
        (&[("client_assertion_type", ASSERTION_TYPE_JWT_BEARER)], "invalid_request"),
        (
            &[("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"), ("client_assertion", "x")],
            "invalid_client",
        ),
    ];
    for (more, expected) in cases {
        assert_eq!(code(exchange(more)), Some(expected), "{more:?}");
    }
    let nine = vec![("resource", "https://h.example"); RESOURCES_MAX + 1];
    assert_eq!(code(exchange(&nine)), Some("invalid_target"));

    let parse = |pairs: &[(&str, &str)]| code(TokenRequest::parse(&form(pairs)));
    assert_eq!(parse(&[]), Some("invalid_request"));
    assert_eq!(parse(&[("grant_type", "")]), Some("invalid_request"));
    for grant in ["password", "authorization_code", "refresh_token", "Client_Credentials", "urn:x"] {
        assert_eq!(parse(&[("grant_type", grant)]), Some("unsupported_grant_type"));
    }
    assert_eq!(parse(&[("grant_type", GRANT_JWT_BEARER)]), Some("invalid_request"));
    assert_eq!(parse(&EXCHANGE[..2]), Some("invalid_request"));
    assert_eq!(parse(&[EXCHANGE[0], EXCHANGE[2]]), Some("invalid_request"));
    let access_token = ("subject_token_type", TOKEN_TYPE_ACCESS_TOKEN);
    assert_eq!(parse(&[EXCHANGE[0], EXCHANGE[1], access_token]), Some("invalid_request"));
    assert_eq!(exchange(&[]).unwrap().grant.evidence_error(), ErrorCode::InvalidRequest);
}

#[test]
fn authorization_details_are_one_task_without_unknown_members() {
    let good = json!({ "type": "writ_task", "intent": "RefundOrder" });
    let with = |name: &str, value: Value| {
        let mut detail = good.clone();
        detail[name] = value;
        json!([detail]).to_string()
    };
    assert!(WritTask::parse(&json!([good]).to_string()).is_ok());
    let renewal = WritTask::parse(r#"[{"type":"writ_task","task":"tsk_01h"}]"#);
    assert_eq!(renewal, Ok(WritTask::Renew { task: "tsk_01h".to_owned() }));
    let successor = WritTask::parse(&with("replaces", json!("tsk_01h"))).unwrap();
    assert!(matches!(successor, WritTask::Open { replaces: Some(task), .. } if task == "tsk_01h"));
    let refused = [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        "[1]".to_owned(),
        good.to_string(),
        json!([good, good]).to_string(),
        with("type", json!("payment_initiation")),
        with("type", json!(null)),
        with("intent", json!("")),
        with("intent", json!("a b")),
        with("intent", json!("x".repeat(129))),
        with("intent", json!(["RefundOrder"])),
        with("parameters", json!([])),
        with("parameters", json!("x")),
        with("lifetime_secs", json!(0)),
        with("lifetime_secs", json!(-1)),
        with("lifetime_secs", json!(1.5)),
        with("lifetime_secs", json!("300")),
        with("task", json!("agt_1")),
        with("task", json!("tsk_../x")),
        with("task", json!(null)),
        with("task", json!("tsk_01h")),
        with("replaces", json!("agt_1")),
        with("replaces", json!(7)),
        json!([{ "type": "writ_task", "task": "tsk_01h", "parameters": {} }]).to_string(),
        json!([{ "type": "writ_task", "task": "tsk_01h", "replaces": "tsk_2" }]).to_string(),
        with("locations", json!(["https://h"])),
        with("admin", json!(true)),
        r#"[{"type":"writ_task","intent":"A","intent":"B"}]"#.to_owned(),
        r#"[{"type":"writ_task","intent":"A","parameters":{"x":1,"x":2}}]"#.to_owned(),
        format!(r#"[{{"type":"writ_task","intent":"A","parameters":{{"x":{}{}}}}}]"#, "[".repeat(99), "]".repeat(99)),
    ];
    for text in refused {
        let error = WritTask::parse(&text).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidAuthorizationDetails, "{text}");
        if !text.is_empty() {
            assert_eq!(code(exchange(&[("authorization_details", &text)])), Some("invalid_authorization_details"));
        }
    }
}

#[test]
fn malformed_forms_are_refused() {
    let mut huge = form(&EXCHANGE);
    huge.extend(format!("&x={}", "a".repeat(FORM_BYTES_MAX)).bytes());
    let mut many = form(&EXCHANGE);
    many.extend((0..70).flat_map(|i| format!("&p{i}=x").into_bytes()));
    let cases: [&[u8]; 7] = [&huge, &many, b"a=%", b"a=%4", b"a=%zz", b"a=%ff%fe", b"a=\x01&grant_type=client_credentials"];
    for body in cases {
        assert_eq!(code(TokenRequest::parse(body)), Some("invalid_request"));
    }
    assert_eq!(code(TokenRequest::parse(&[0xff, 0xfe])), Some("invalid_request"));
}

#[test]
fn token_queries_need_a_token() {
    let query = TokenQuery::parse(&form(&[("token", "t"), ("token_type_hint", "refresh_token")])).unwrap();
    assert_eq!(query.token.expose_secret(), "t");
    assert_eq!(query.token_type_hint.as_deref(), Some("refresh_token"));
    let code = |pairs: &[(&str, &str)]| TokenQuery::parse(&form(pairs)).unwrap_err().code;
    assert_eq!(code(&[]), ErrorCode::InvalidRequest);
    assert_eq!(code(&[("token", "a"), ("token", "b")]), ErrorCode::InvalidRequest);
    assert_eq!(code(&[("token", "a"), ("client_secret", "b")]), ErrorCode::InvalidClient);
}

proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = TokenRequest::parse(&body);
        let _ = TokenQuery::parse(&body);
    }

    #[test]
    fn encoded_values_come_back_as_they_were(token in "\\PC{1,60}") {
        let query = TokenQuery::parse(&form(&[("token", &token)])).unwrap();
        prop_assert_eq!(query.token.expose_secret(), token.as_str());
    }

    #[test]
    fn arbitrary_details_never_panic(text in "\\PC{0,120}") {
        let _ = WritTask::parse(&text);
    }
}
