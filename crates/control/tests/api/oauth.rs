//! The OAuth endpoints: what they answer, and every way in which they must refuse (RFC 6749, 8693, 7523, 9396, 9449, 7662,
//! 7009).

use crate::served::{ADMIN, AUDITOR, Answer, POINT, Served, basic, refund};
use serde_json::{Value, json};
use testkit::{Fault, ISSUER};

type Fields = Vec<(&'static str, String)>;

fn with(mut fields: Fields, name: &'static str, value: impl Into<String>) -> Fields {
    fields.retain(|(known, _)| *known != name);
    fields.push((name, value.into()));
    fields
}

fn without(mut fields: Fields, name: &str) -> Fields {
    fields.retain(|(known, _)| *known != name);
    fields
}

fn description(answer: &Answer) -> String {
    answer.json()["error_description"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn evidence_and_a_declared_intent_buy_a_bound_token_of_one_task() {
    let served = Served::new().await;
    let answer = served.token(&served.exchange("bot", &refund("o-1"))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(!answer.header("dpop-nonce").is_empty());
    let body = answer.json();
    assert_eq!(body["token_type"], "DPoP");
    assert_eq!(body["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(body["expires_in"], 300);
    assert_eq!(body["scope"], "mcp:orders");
    assert!(body.get("refresh_token").is_none(), "renewal is re-attestation");
    let granted = &body["authorization_details"][0];
    assert_eq!((granted["type"].as_str(), granted["intent"].as_str()), (Some("writ_task"), Some("refund-order")));
    assert!(granted["task"].as_str().unwrap().starts_with("tsk_"));
    assert_eq!(granted["deadline"], served.world.now() + 600);
    let told = served.introspect(body["access_token"].as_str().unwrap()).await;
    assert_eq!((told["active"].as_bool(), told["sub"].as_str()), (Some(true), Some("bot")));
    assert!(told["cnf"]["jkt"].is_string());
}

#[tokio::test]
async fn the_other_grants_buy_the_same() {
    let served = Served::new().await;
    let evidence = || served.world.issuer.token("workload:bot", ISSUER, served.world.now());
    let details = json!([refund("o-1")]).to_string();
    let bearer: Fields = vec![
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".into()),
        ("assertion", evidence()),
        ("authorization_details", details.clone()),
    ];
    assert_eq!(served.token(&bearer).await.status, 200);
    let client: Fields = vec![
        ("grant_type", "client_credentials".into()),
        ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".into()),
        ("client_assertion", evidence()),
        ("authorization_details", details),
        ("scope", "mcp:orders".into()),
    ];
    assert_eq!(served.token(&client).await.status, 200);
}

#[tokio::test]
async fn a_client_id_beside_an_assertion_names_the_same_client() {
    let served = Served::new().await;
    for (client_id, status) in [("workload:mailer", 401), ("bot", 401), ("workload:bot", 200)] {
        let evidence = served.world.issuer.token("workload:bot", ISSUER, served.world.now());
        let client: Fields = vec![
            ("grant_type", "client_credentials".into()),
            ("client_id", client_id.into()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".into()),
            ("client_assertion", evidence),
            ("authorization_details", json!([refund("o-1")]).to_string()),
        ];
        assert_eq!(served.token(&client).await.status, status, "{client_id}");
    }
}

#[tokio::test]
async fn every_refusal_has_the_code_that_its_rfc_names() {
    let served = Served::new().await;
    let good = || served.exchange("bot", &refund("o-1"));
    let assertion = |jwt: &str| -> Fields {
        vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".into()),
            ("assertion", jwt.into()),
            ("authorization_details", json!([refund("o-1")]).to_string()),
        ]
    };
    let client = |jwt: &str| -> Fields {
        vec![
            ("grant_type", "client_credentials".into()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".into()),
            ("client_assertion", jwt.into()),
            ("authorization_details", json!([refund("o-1")]).to_string()),
        ]
    };
    let other_audience = served.world.issuer.token("workload:bot", "https://elsewhere.test", served.world.now());
    let expired = served.world.issuer.token("workload:bot", ISSUER, served.world.now() - 4_000);
    let mut repeated = good();
    repeated.push(("authorization_details", json!([refund("o-2")]).to_string()));
    let detail = |detail: Value| with(good(), "authorization_details", json!([detail]).to_string());
    let cases: Vec<(&str, Fields, u16, &str)> = vec![
        ("no grant type", without(good(), "grant_type"), 400, "invalid_request"),
        ("unknown grant type", with(good(), "grant_type", "password"), 400, "unsupported_grant_type"),
        ("a parameter twice", repeated, 400, "invalid_request"),
        ("no evidence", without(good(), "subject_token"), 400, "invalid_request"),
        ("an actor", with(good(), "actor_token", "x"), 400, "invalid_request"),
        ("no details", without(good(), "authorization_details"), 400, "invalid_request"),
        ("details that are no JSON", with(good(), "authorization_details", "[{"), 400, "invalid_authorization_details"),
        ("another type", detail(json!({"type": "payment"})), 400, "invalid_authorization_details"),
        (
            "an unknown member",
            detail(json!({"type": "writ_task", "intent": "mail", "admin": true})),
            400,
            "invalid_authorization_details",
        ),
        (
            "an unknown intent",
            detail(json!({"type": "writ_task", "intent": "rule-the-world"})),
            400,
            "invalid_authorization_details",
        ),
        ("no parameters", detail(json!({"type": "writ_task", "intent": "refund-order"})), 400, "invalid_authorization_details"),
        (
            "a task that is not there",
            detail(json!({"type": "writ_task", "task": format!("tsk_{:032x}", 1)})),
            400,
            "invalid_grant",
        ),
        ("a subject token that is none", with(good(), "subject_token", "x.y.z"), 400, "invalid_request"),
        ("a subject token for others", with(good(), "subject_token", other_audience.as_str()), 400, "invalid_request"),
        ("an assertion for others", assertion(&other_audience), 400, "invalid_grant"),
        ("an expired assertion", assertion(&expired), 400, "invalid_grant"),
        ("a client assertion for others", client(&other_audience), 401, "invalid_client"),
        ("no client evidence", without(without(client(""), "client_assertion"), "client_assertion_type"), 401, "invalid_client"),
        (
            "two pieces of evidence",
            [good(), client(&expired)]
                .concat()
                .into_iter()
                .filter(|(n, v)| !(*n == "grant_type" && v == "client_credentials") && *n != "authorization_details")
                .chain([("authorization_details", json!([refund("o-1")]).to_string())])
                .collect(),
            400,
            "invalid_request",
        ),
        ("a client secret", with(good(), "client_secret", "hunter2"), 401, "invalid_client"),
        ("nobody we know", served.exchange("stranger", &refund("o-1")), 400, "unauthorized_client"),
        ("an intent above the ceiling", served.exchange("mailer", &refund("o-1")), 400, "invalid_authorization_details"),
        ("a resource out of reach", with(good(), "resource", format!("{ISSUER}/mcp/payroll")), 400, "invalid_target"),
        ("a resource elsewhere", with(good(), "resource", "https://elsewhere.test/mcp/orders"), 400, "invalid_target"),
        ("an audience", with(good(), "audience", "x"), 400, "invalid_target"),
        ("an unknown scope", with(good(), "scope", "admin"), 400, "invalid_scope"),
    ];
    for (name, fields, status, code) in cases {
        let answer = served.token(&fields).await;
        assert_eq!(answer.refusal(), (status, code.to_owned()), "{name}: {}", description(&answer));
        assert_eq!(answer.header("cache-control"), "no-store", "{name}");
        // Faults of parameters are told one by one beside the sentence.
        let known =
            |key: &String| matches!(key.as_str(), "error" | "error_description") || key == "errors" && name == "no parameters";
        assert!(answer.json().as_object().unwrap().keys().all(known), "{name}");
    }
    assert_eq!(served.world.authority.open_tasks(), 0, "nothing was opened on the way");
}

#[tokio::test]
async fn all_faults_of_the_parameters_come_at_once() {
    let served = Served::new().await;
    let wrong =
        json!({"type": "writ_task", "intent": "refund-order", "parameters": {"max_amount_cents": 999_999, "colour": "red"}});
    let text = description(&served.token(&served.exchange("bot", &wrong)).await);
    for part in ["order_id", "max_amount_cents", "colour"] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn evidence_buys_one_task_only() {
    let served = Served::new().await;
    let fields = served.exchange("bot", &refund("o-1"));
    assert_eq!(served.token(&fields).await.status, 200);
    let again = served.token(&fields).await;
    assert_eq!(again.refusal(), (400, "invalid_request".into()));
    assert!(description(&again).contains("used before"));
    assert_eq!(served.world.authority.open_tasks(), 1);
}

#[tokio::test]
async fn a_token_needs_a_proof_of_possession_that_is_for_this_request() {
    let served = Served::new().await;
    let send = async |proofs: &[String]| {
        let fields = served.exchange("bot", &refund("o-1"));
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let headers: Vec<(&str, &str)> = proofs.iter().map(|proof| ("dpop", proof.as_str())).collect();
        served.form("/oauth/token", &headers, &fields).await
    };
    let proof = |method: &str, uri: &str| served.world.holder.proof(method, uri, served.world.now(), None);
    let uri = format!("{ISSUER}/oauth/token");
    for (name, proofs) in [
        ("none", vec![]),
        ("another method", vec![proof("GET", &uri)]),
        ("another endpoint", vec![proof("POST", &format!("{ISSUER}/oauth/revoke"))]),
        ("another host", vec![proof("POST", "https://elsewhere.test/oauth/token")]),
        ("two of them", vec![proof("POST", &uri), proof("POST", &uri)]),
        ("an old one", vec![served.world.holder.proof("POST", &uri, served.world.now() - 600, None)]),
        ("for an access token", vec![served.world.holder.proof("POST", &uri, served.world.now(), Some("x"))]),
        ("garbage", vec!["x".to_owned()]),
    ] {
        assert_eq!(send(&proofs).await.refusal(), (400, "invalid_dpop_proof".into()), "{name}");
    }
    let used = proof("POST", &uri);
    assert_eq!(send(std::slice::from_ref(&used)).await.status, 200);
    assert_eq!(send(&[used]).await.refusal(), (400, "invalid_dpop_proof".into()), "a proof is good once");
}

#[tokio::test]
async fn the_form_is_a_form_of_bounded_size_and_nothing_is_in_the_query() {
    let served = Served::new().await;
    let kind = ("content-type", "application/x-www-form-urlencoded");
    let json = served.ask("POST", "/oauth/token", &[("content-type", "application/json")], "{}").await;
    assert_eq!(json.refusal(), (400, "invalid_request".into()));
    let untyped = served.ask("POST", "/oauth/token", &[], "grant_type=client_credentials").await;
    assert_eq!(untyped.refusal(), (400, "invalid_request".into()));
    let fields = served.exchange("bot", &refund("o-1"));
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
    let proof = served.world.holder.proof("POST", &format!("{ISSUER}/oauth/token"), served.world.now(), None);
    let query = served.ask("POST", "/oauth/token?scope=mcp:orders", &[kind, ("dpop", &proof)], body.clone()).await;
    assert_eq!(query.refusal(), (400, "invalid_request".into()), "whatever the body says");
    assert_eq!(served.ask("POST", "/oauth/token", &[kind, ("dpop", &proof)], body).await.status, 200);
    let large = served.ask("POST", "/oauth/token", &[kind], "a=".to_owned() + &"b".repeat(70_000)).await;
    assert_eq!(large.refusal(), (413, "invalid_request".into()));
    let charset =
        served.ask("POST", "/oauth/token", &[("content-type", "application/x-www-form-urlencoded; charset=UTF-8")], "").await;
    assert!(description(&charset).contains("grant_type"), "parameters of the media type do not matter");
}

#[tokio::test]
async fn a_client_that_sends_basic_credentials_hears_that_there_are_none() {
    let served = Served::new().await;
    let fields = served.exchange("bot", &refund("o-1"));
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = served.form("/oauth/token", &[("authorization", &basic("bot", "hunter2"))], &fields).await;
    assert_eq!(answer.refusal(), (401, "invalid_client".into()));
    assert!(answer.header("www-authenticate").starts_with("Basic "), "RFC 6749 §5.2");
}

#[tokio::test]
async fn policy_and_standing_refuse_in_their_own_words() {
    let served = Served::new().await;
    let branch = served.world.issuer.token_with("workload:mailer", ISSUER, served.world.now(), json!({"ref": "refs/heads/evil"}));
    let mail = json!({"type": "writ_task", "intent": "mail"});
    let denied = served.token(&with(served.exchange("mailer", &mail), "subject_token", branch)).await;
    assert_eq!(denied.refusal(), (400, "access_denied".into()));
    assert!(description(&denied).contains("no-mail-tasks-from-untrusted-branch"), "{}", description(&denied));
    assert_eq!(served.operate(ADMIN, "POST", "/v1/agents/bot/suspend", Value::Null).await.status, 200);
    let suspended = served.token(&served.exchange("bot", &refund("o-1"))).await;
    assert_eq!(suspended.refusal(), (400, "unauthorized_client".into()));
    assert!(description(&suspended).contains("suspended"));
}

#[tokio::test]
async fn no_log_no_token() {
    let served = Served::new().await;
    served.world.ledger.break_with(Some(Fault::Failed));
    let answer = served.token(&served.exchange("bot", &refund("o-1"))).await;
    assert_eq!(answer.refusal(), (503, "temporarily_unavailable".into()));
    assert_eq!(answer.header("retry-after"), "1");
    assert!(!description(&answer).contains("told to break"), "causes are for the operator's log");
    served.world.ledger.break_with(None);
    assert_eq!(served.token(&served.exchange("bot", &refund("o-1"))).await.status, 200, "it recovers by itself");
}

#[tokio::test]
async fn a_task_is_renewed_with_fresh_evidence_and_by_nobody_else() {
    let served = Served::new().await;
    let (_, task) = served.opened().await;
    let renewal = json!({"type": "writ_task", "task": task});
    let renewed = served.token(&served.exchange("bot", &renewal)).await;
    assert_eq!(renewed.status, 200);
    assert_eq!(renewed.json()["authorization_details"][0]["task"], task.as_str());
    assert_eq!(served.token(&served.exchange("mailer", &renewal)).await.refusal(), (400, "invalid_grant".into()));
    let sly = json!({"type": "writ_task", "task": task, "parameters": {"max_amount_cents": 10_000}});
    let answer = served.token(&served.exchange("bot", &sly)).await;
    assert_eq!(answer.refusal(), (400, "invalid_authorization_details".into()), "a renewal changes nothing");
}

#[tokio::test]
async fn a_change_of_course_ends_what_went_before() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let mut course = refund("o-2");
    course["replaces"] = task.as_str().into();
    let answer = served.token(&served.exchange("bot", &course)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(served.introspect(&token).await, json!({"active": false}));
    let old = served.operate(ADMIN, "GET", &format!("/v1/tasks/{task}"), Value::Null).await.json();
    assert_eq!(old["end_reason"], "superseded");
    let new = answer.json()["authorization_details"][0]["task"].as_str().unwrap().to_owned();
    let new = served.operate(ADMIN, "GET", &format!("/v1/tasks/{new}"), Value::Null).await.json();
    assert_eq!(new["predecessor"], task.as_str());
}

#[tokio::test]
async fn introspection_tells_enforcement_points_only() {
    let served = Served::new().await;
    let (token, _) = served.opened().await;
    for (name, authorization) in [
        ("nothing", None),
        ("a wrong secret", Some(basic("pep-1", "wrong"))),
        ("a wrong name", Some(basic("pep-2", POINT))),
        ("another's secret", Some(basic("pep-1", ADMIN))),
        ("an auditor", Some(basic("otto", AUDITOR))),
        ("the secret as bearer", Some(format!("Bearer {POINT}"))),
        ("the token itself", Some(format!("DPoP {token}"))),
        ("garbage", Some("Basic !!!".to_owned())),
    ] {
        let headers: Vec<(&str, &str)> = authorization.iter().map(|value| ("authorization", value.as_str())).collect();
        let answer = served.form("/oauth/introspect", &headers, &[("token", &token)]).await;
        assert_eq!(answer.refusal(), (401, "invalid_client".into()), "{name}");
        assert!(answer.header("www-authenticate").starts_with("Basic realm="), "{name}");
        assert!(!answer.json().to_string().contains("bot"), "{name}");
    }
    let missing = served.form("/oauth/introspect", &[("authorization", &basic("pep-1", POINT))], &[]).await;
    assert_eq!(missing.refusal(), (400, "invalid_request".into()));
}

#[tokio::test]
async fn every_token_that_is_not_good_looks_the_same() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let (head, tail) = token.rsplit_once('.').unwrap();
    let flipped: String = tail.chars().rev().collect();
    for other in
        ["", "x", "a.b.c", &format!("{head}.{flipped}"), &"x".repeat(20_000), &served.world.issuer.token("bot", ISSUER, 0)]
    {
        if !other.is_empty() {
            assert_eq!(served.introspect(other).await, json!({"active": false}));
        }
    }
    assert_eq!(served.introspect(&token).await["active"], true);
    assert_eq!(served.operate(ADMIN, "POST", &format!("/v1/tasks/{task}/end"), Value::Null).await.status, 200);
    assert_eq!(served.introspect(&token).await, json!({"active": false}), "a task's end reaches its token at once");
}

#[tokio::test]
async fn a_token_past_its_time_is_not_active() {
    let served = Served::new().await;
    let (token, _) = served.opened().await;
    served.world.clock.advance_secs(301);
    assert_eq!(served.introspect(&token).await, json!({"active": false}));
}

#[tokio::test]
async fn a_revoked_token_is_dead_and_the_task_lives_on() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let revoke = async |headers: &[(&str, &str)], token: &str| served.form("/oauth/revoke", headers, &[("token", token)]).await;
    assert_eq!(revoke(&[("authorization", &basic("pep-1", "wrong"))], &token).await.refusal(), (401, "invalid_client".into()));
    assert_eq!(served.introspect(&token).await["active"], true, "a refused revocation revokes nothing");
    assert_eq!(revoke(&[], "unknown").await.status, 200, "RFC 7009 §2.2");
    assert_eq!(revoke(&[], &token).await.status, 200, "who holds it may give it up");
    assert_eq!(served.introspect(&token).await, json!({"active": false}));
    let answer = served.act(&token, &format!("/v1/tasks/{task}/end"), Value::Null).await;
    assert_eq!(answer.refusal(), (401, "invalid_token".into()));
    let events = served.world.ledger.events();
    assert!(events.iter().any(|event| event["type"] == "token.revoked" && event["by"] == "holder"));
    let renewed = served.token(&served.exchange("bot", &json!({"type": "writ_task", "task": task}))).await;
    assert_eq!(renewed.status, 200);
}

#[tokio::test]
async fn a_revocation_that_could_not_be_logged_says_so() {
    let served = Served::new().await;
    let (token, _) = served.opened().await;
    served.world.ledger.break_with(Some(Fault::Failed));
    let answer = served.form("/oauth/revoke", &[("authorization", &basic("pep-1", POINT))], &[("token", &token)]).await;
    assert_eq!(answer.refusal(), (503, "temporarily_unavailable".into()));
}

/// A certificate with this URI as its only subject alternative name, signed by itself.
fn certificate(uri: &str) -> Vec<u8> {
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI(uri.try_into().unwrap())];
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

async fn form_over(served: &Served, chain: &[Vec<u8>], fields: &[(&'static str, String)]) -> Answer {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    served.ask_over(chain, "POST", "/oauth/token", &[("content-type", "application/x-www-form-urlencoded")], body).await
}

#[tokio::test]
async fn a_token_bound_to_a_certificate_works_over_its_connection_only() {
    let served = Served::new().await;
    let (own, other) = (certificate("spiffe://prod.test/bot"), certificate("spiffe://prod.test/thief"));
    let answer = form_over(&served, std::slice::from_ref(&own), &served.exchange("bot", &refund("o-1"))).await;
    assert_eq!((answer.status.as_u16(), answer.json()["token_type"].as_str().unwrap().to_owned()), (200, "Bearer".to_owned()));
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    let task = answer.json()["authorization_details"][0]["task"].as_str().unwrap().to_owned();
    assert!(served.introspect(&token).await["cnf"]["x5t#S256"].is_string());
    let (path, authorization) = (format!("/v1/tasks/{task}/end"), format!("Bearer {token}"));
    for chain in [vec![], vec![other.clone()], vec![other, own.clone()]] {
        let answer = served.ask_over(&chain, "POST", &path, &[("authorization", &authorization)], "").await;
        assert_eq!(answer.refusal(), (401, "invalid_token".into()));
    }
    assert_eq!(served.ask_over(&[own], "POST", &path, &[("authorization", &authorization)], "").await.status, 200);
}

#[tokio::test]
async fn a_certificate_alone_proves_nothing_outside_a_configured_trust_domain() {
    let served = Served::new().await;
    let fields = |client_id: Option<&str>| -> Fields {
        let mut fields: Fields =
            vec![("grant_type", "client_credentials".into()), ("authorization_details", json!([refund("o-1")]).to_string())];
        fields.extend(client_id.map(|id| ("client_id", id.to_owned())));
        fields
    };
    let chain = [certificate("spiffe://prod.test/bot")];
    let unknown = form_over(&served, &chain, &fields(None)).await;
    assert_eq!(unknown.refusal(), (401, "invalid_client".into()));
    assert!(description(&unknown).contains("trust domain"), "{}", description(&unknown));
    let named = form_over(&served, &chain, &fields(Some("spiffe://prod.test/bot"))).await;
    assert!(description(&named).contains("trust domain"), "its own name is no hindrance");
    let other = form_over(&served, &chain, &fields(Some("spiffe://prod.test/admin"))).await;
    assert_eq!(other.refusal(), (401, "invalid_client".into()));
    assert!(description(&other).contains("client_id"), "{}", description(&other));
    let garbage = form_over(&served, &[vec![1, 2, 3]], &fields(None)).await;
    assert_eq!(garbage.refusal(), (401, "invalid_client".into()));
}
