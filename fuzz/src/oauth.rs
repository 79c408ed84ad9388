//! Requests to the OAuth endpoints: forms, and the declaration of a task.

use domain::{Intent, Param, ParamType, TaskLimits};
use secrecy::ExposeSecret;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use token::oauth::request::{FORM_BYTES_MAX, Grant, TokenQuery, TokenRequest, WritTask};
use url::form_urlencoded;

/// What a form was read as is what another reader of forms finds in it, once.
pub fn form(data: &[u8]) {
    let found: Vec<(String, String)> =
        form_urlencoded::parse(data).map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    let one = |name: &str| {
        let mut values = found.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let (first, second) = (values.next(), values.next());
        assert!(second.is_none(), "`{name}` is read although it is there twice");
        first.filter(|value| !value.is_empty())
    };
    if let Ok(request) = TokenRequest::parse(data) {
        assert!(data.len() <= FORM_BYTES_MAX);
        let grant = one("grant_type").expect("a grant");
        match &request.grant {
            Grant::TokenExchange { subject_token, .. } => {
                assert!(grant.ends_with("token-exchange"));
                assert_eq!(Some(subject_token.expose_secret()), one("subject_token"));
            }
            Grant::JwtBearer { assertion } => {
                assert!(grant.ends_with("jwt-bearer"));
                assert_eq!(Some(assertion.expose_secret()), one("assertion"));
            }
            Grant::ClientCredentials => assert_eq!(grant, "client_credentials"),
        }
        assert_eq!(request.client_id.as_deref(), one("client_id"));
        assert_eq!(request.client_assertion.as_ref().map(|sent| sent.assertion.expose_secret()), one("client_assertion"));
        assert_eq!(request.scope.join(" "), one("scope").unwrap_or_default());
        assert_eq!(request.task.is_some(), one("authorization_details").is_some());
        for resource in &request.resources {
            assert!(
                found
                    .iter()
                    .any(|(name, value)| name == "resource" && value.trim_end_matches('/') == resource.trim_end_matches('/'))
            );
            assert!(url::Url::parse(resource).is_ok_and(|url| url.fragment().is_none()));
        }
        assert!(one("client_secret").is_none() && one("actor_token").is_none());
    }
    if let Ok(query) = TokenQuery::parse(data) {
        assert_eq!(Some(query.token.expose_secret()), one("token"));
        assert_eq!(query.client_id.as_deref(), one("client_id"));
    }
}

static INTENT: LazyLock<Intent> = LazyLock::new(|| {
    let param = |kind, default| Param {
        kind,
        description: String::new(),
        default,
        min: None,
        max: None,
        one_of: Vec::new(),
        sensitive: false,
    };
    let params = BTreeMap::from([
        (
            "text".to_owned(),
            Param { one_of: vec!["a".into(), "b".into()], ..param(ParamType::Text, Some(domain::Value::Text("a".into()))) },
        ),
        ("number".to_owned(), Param { min: Some(-3), max: Some(50_000), ..param(ParamType::Long, Some(domain::Value::Long(1))) }),
        ("flag".to_owned(), param(ParamType::Bool, Some(domain::Value::Bool(false)))),
        ("set".to_owned(), param(ParamType::Texts, Some(domain::Value::Texts(Default::default())))),
        ("free".to_owned(), param(ParamType::Text, None)),
    ]);
    Intent {
        name: "i".parse().expect("a name"),
        description: String::new(),
        owner: "o".parse().expect("a name"),
        reach: Default::default(),
        targets: Default::default(),
        params,
        limits: TaskLimits { lifetime_secs: 60, calls: 1, idle_secs: None },
    }
});

/// A declaration is what its text says, written anew it is the same, and parameters that fit keep their values.
pub fn task(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(task) = WritTask::parse(text) else { return };
    let look = crate::scan::look(data).expect("JSON");
    assert!(!look.doubled && !look.torn && look.depth <= 16);
    let said: Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(said.as_array().map(Vec::len), Some(1));
    let written = match &task {
        WritTask::Open { intent, parameters, lifetime_secs, replaces } => {
            let mut detail = json!({ "type": "writ_task", "intent": intent, "parameters": parameters });
            let members = detail.as_object_mut().expect("an object");
            members.extend(lifetime_secs.map(|secs| ("lifetime_secs".to_owned(), secs.into())));
            members.extend(replaces.as_ref().map(|id| ("replaces".to_owned(), id.as_str().into())));
            bound(parameters);
            detail
        }
        WritTask::Renew { task } => json!({ "type": "writ_task", "task": task }),
    };
    for (name, value) in written.as_object().expect("an object") {
        let there = said[0].get(name);
        assert!(there == Some(value) || (there.is_none() && name == "parameters"), "`{name}` is read as another");
    }
    assert_eq!(WritTask::parse(&json!([written]).to_string()).ok(), Some(task));
}

fn bound(parameters: &Map<String, Value>) {
    let Ok(params) = INTENT.bind(parameters) else { return };
    assert!(INTENT.still_binds(&params).is_ok());
    let written = params.to_json();
    assert_eq!(INTENT.bind(&written).as_ref(), Ok(&params));
    for (name, value) in parameters {
        match (value, &written[name]) {
            (Value::Array(given), Value::Array(kept)) => {
                assert!(given.iter().all(|item| kept.contains(item)) && kept.len() <= given.len())
            }
            (given, kept) => assert_eq!(given, kept),
        }
    }
}
