//! Discovery documents, byte for byte where clients compare bytes (RFC 8414, RFC 9728, AuthZEN §9), and the description.
//! Owns the check of answers against the description, too.

use crate::served::{ADMIN, Served, refund};
use serde_json::{Value, json};
use testkit::ISSUER;

#[tokio::test]
async fn the_authorization_server_names_itself_exactly() {
    let served = Served::new().await;
    let answer = served.get("/.well-known/oauth-authorization-server").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let document = answer.json();
    assert_eq!(document["issuer"], ISSUER);
    for (member, path) in [
        ("authorization_endpoint", "/oauth/authorize"),
        ("token_endpoint", "/oauth/token"),
        ("introspection_endpoint", "/oauth/introspect"),
        ("revocation_endpoint", "/oauth/revoke"),
        ("jwks_uri", "/oauth/jwks"),
    ] {
        assert_eq!(document[member], format!("{ISSUER}{path}"));
    }
    assert_eq!(document["authorization_details_types_supported"], json!(["writ_task"]));
    // Nobody is sent anywhere by it, whatever they bring.
    let refused = served.get("/oauth/authorize?response_type=code&client_id=x&redirect_uri=https%3A%2F%2Fevil.test%2F").await;
    assert_eq!((refused.status.as_u16(), refused.json()["error"].clone()), (400, json!("unauthorized_client")));
    assert!(refused.headers.get("location").is_none());
    assert_eq!(document["introspection_endpoint_auth_methods_supported"], json!(["client_secret_basic"]));
    assert!(document["dpop_signing_alg_values_supported"].as_array().unwrap().contains(&json!("ES256")));
}

#[tokio::test]
async fn every_resource_has_its_own_document_and_the_origin_has_none() {
    let served = Served::new().await;
    let document = served.get("/.well-known/oauth-protected-resource/mcp/orders").await.json();
    assert_eq!(document["resource"], format!("{ISSUER}/mcp/orders"));
    assert_eq!(document["authorization_servers"], json!([ISSUER]));
    assert_eq!(document["scopes_supported"], json!(["mcp:orders"]));
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/",
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-protected-resource/mcp/",
        "/.well-known/oauth-protected-resource/mcp/orders/",
        "/.well-known/oauth-protected-resource/mcp/payroll",
        "/.well-known/oauth-protected-resource/mcp/..%2f..",
        "/.well-known/oauth-authorization-server/",
        "/.well-known/oauth-authorization-server/mcp/orders",
        "/.well-known/authzen-configuration/",
        "/oauth/token/",
        "/healthz/",
    ] {
        assert_eq!(served.get(path).await.refusal(), (404, "not_found".into()), "{path}");
    }
}

#[tokio::test]
async fn pages_of_any_origin_may_read_discovery_and_nothing_else() {
    let served = Served::new().await;
    let preflight = async |path: &str| {
        served.ask("OPTIONS", path, &[("origin", "https://page.test"), ("access-control-request-method", "GET")], "").await
    };
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp/orders", "/oauth/jwks"] {
        let answer = preflight(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (204, "*"), "{path}");
        assert_eq!(served.get(path).await.header("access-control-allow-origin"), "*");
    }
    for path in ["/oauth/token", "/v1/agents", "/access/v1/evaluation"] {
        let answer = preflight(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (405, ""), "{path}");
    }
}

#[tokio::test]
async fn keys_are_public_keys() {
    let served = Served::new().await;
    let document = served.get("/oauth/jwks").await.json();
    let keys = document["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 1);
    assert!(keys.iter().all(|key| key.get("d").is_none() && key["kid"].is_string()));
}

#[tokio::test]
async fn authzen_metadata_names_what_there_is() {
    let served = Served::new().await;
    let document = served.get("/.well-known/authzen-configuration").await.json();
    let expected = json!({
        "policy_decision_point": ISSUER,
        "access_evaluation_endpoint": format!("{ISSUER}/access/v1/evaluation"),
        "access_evaluations_endpoint": format!("{ISSUER}/access/v1/evaluations"),
    });
    assert_eq!(document, expected);
}

/// What is wrong with `value` by this schema: the subset of JSON Schema that the description uses, and stricter in one
/// thing: a member that the schema does not name is a fault, unless it says that there may be others.
fn faults(document: &Value, schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        return faults(document, document.pointer(reference.trim_start_matches('#')).unwrap(), value, at, out);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fits = any.iter().any(|one| {
            let mut inner = Vec::new();
            faults(document, one, value, at, &mut inner);
            inner.is_empty()
        });
        out.extend((!fits).then(|| format!("{at}: fits none")));
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().map(|one| one.as_str().unwrap()).collect(),
        _ => vec![],
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) => {
            if number.is_f64() {
                "number"
            } else {
                "integer"
            }
        }
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.is_empty() && !types.contains(&is) {
        return out.push(format!("{at}: {is} where {types:?} is described"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        out.push(format!("{at}: {value} is not described"));
    }
    if let Value::Array(items) = value {
        items.iter().for_each(|item| faults(document, &schema["items"], item, &format!("{at}[]"), out));
    }
    if let (Value::Object(members), Some(described)) = (value, schema["properties"].as_object()) {
        for required in schema["required"].as_array().into_iter().flatten() {
            if !members.contains_key(required.as_str().unwrap()) {
                out.push(format!("{at}: {required} is missing"));
            }
        }
        for (name, member) in members {
            match described.get(name) {
                Some(schema) => faults(document, schema, member, &format!("{at}.{name}"), out),
                None => out.push(format!("{at}.{name} is not described")),
            }
        }
    }
}

#[tokio::test]
async fn what_is_answered_is_what_is_described() {
    let served = Served::new().await;
    let (token, task) = served.opened().await;
    let document = served.get("/openapi.json").await.json();
    assert_eq!(document["servers"], json!([{ "url": ISSUER }]));
    let agent = json!({"owner": "ops", "purpose": "x", "intents": ["mail"], "review_by": "2030-01-01", "allow_bearer": true,
        "identity": [{"provider": "ci", "claims": {"sub": "s", "ref": {"prefix": "refs/"}}}]});
    let upstream = json!({"owner": "ops", "url": "https://u.test/mcp", "injection": {"header": "authorization", "prefix": "Bearer ", "secret": {"env": "WRIT_UPSTREAM_U"}}});
    let pins = json!({"tools": [{"name": "refund", "pin": "11".repeat(32)}]});
    let question =
        json!({"task": task, "upstream": "orders", "tool": "refund", "arguments": {"order_id": "o-2", "amount_cents": 1}});
    let decided = served.act(&token, "/access/v1/evaluation", json!({"subject": {"type": "task", "id": task},
        "action": {"name": "get_order"}, "resource": {"type": "upstream", "id": "orders", "properties": {"arguments": {"order_id": "o-1"}}}})).await.json();
    let decision = decided["context"]["id"].as_str().unwrap().to_owned();
    let calls = [
        ("get", "/v1/agents", "/v1/agents".to_owned(), Value::Null),
        ("put", "/v1/agents/{agent}", "/v1/agents/new".to_owned(), agent),
        ("get", "/v1/agents/{agent}", "/v1/agents/bot".to_owned(), Value::Null),
        ("post", "/v1/agents/{agent}/suspend", "/v1/agents/new/suspend".to_owned(), Value::Null),
        ("post", "/v1/agents/{agent}/resume", "/v1/agents/new/resume".to_owned(), Value::Null),
        ("get", "/v1/owners", "/v1/owners".to_owned(), Value::Null),
        ("get", "/v1/intents", "/v1/intents".to_owned(), Value::Null),
        ("get", "/v1/intents/{intent}", "/v1/intents/refund-order".to_owned(), Value::Null),
        ("put", "/v1/upstreams/{upstream}", "/v1/upstreams/new".to_owned(), upstream),
        ("get", "/v1/upstreams", "/v1/upstreams".to_owned(), Value::Null),
        ("get", "/v1/upstreams/{upstream}", "/v1/upstreams/orders".to_owned(), Value::Null),
        ("get", "/v1/upstreams/{upstream}/tools", "/v1/upstreams/orders/tools".to_owned(), Value::Null),
        ("post", "/v1/upstreams/{upstream}/accept", "/v1/upstreams/orders/accept".to_owned(), pins),
        ("delete", "/v1/upstreams/{upstream}", "/v1/upstreams/new".to_owned(), Value::Null),
        ("get", "/v1/tasks", "/v1/tasks?limit=1".to_owned(), Value::Null),
        ("get", "/v1/tasks/{task}", format!("/v1/tasks/{task}"), Value::Null),
        ("get", "/v1/policy", "/v1/policy".to_owned(), Value::Null),
        ("post", "/v1/policy/reload", "/v1/policy/reload".to_owned(), Value::Null),
        ("post", "/v1/policy/explain", "/v1/policy/explain".to_owned(), question),
        ("get", "/v1/decisions/{decision}", format!("/v1/decisions/{decision}"), Value::Null),
        ("get", "/v1/audit/entries", "/v1/audit/entries".to_owned(), Value::Null),
        ("get", "/v1/audit/entries/{index}", "/v1/audit/entries/0".to_owned(), Value::Null),
        ("post", "/v1/keys/rotate", "/v1/keys/rotate".to_owned(), Value::Null),
        ("get", "/readyz", "/readyz".to_owned(), Value::Null),
        ("post", "/v1/tasks/{task}/end", format!("/v1/tasks/{task}/end"), Value::Null),
    ];
    let mut wrong = Vec::new();
    for (method, path, uri, body) in calls {
        let answer = served.operate(ADMIN, &method.to_uppercase(), &uri, body).await;
        assert_eq!(answer.status, 200, "{method} {uri}: {}", String::from_utf8_lossy(&answer.body));
        let schema = &document["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path}");
        faults(&document, schema, &answer.json(), &format!("{method} {path}"), &mut wrong);
    }
    let schema = json!({"$ref": "#/components/schemas/EvaluationAnswer"});
    faults(&document, &schema, &decided, "evaluation", &mut wrong);
    let issued = served.token(&served.exchange("bot", &refund("o-9"))).await.json();
    faults(&document, &json!({"$ref": "#/components/schemas/TokenAnswer"}), &issued, "token", &mut wrong);
    let refused = served.operate(ADMIN, "GET", "/v1/agents?limit=0", Value::Null).await.json();
    faults(&document, &json!({"$ref": "#/components/schemas/Problem"}), &refused, "problem", &mut wrong);
    assert!(wrong.is_empty(), "{wrong:#?}");
}
