//! What a request to an HTTP API may look like: every way around a route, a field or a limit is refused.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
use super::super::config::{ConnectTable, HttpLimits};
use super::super::route::RouteTable;
use super::*;
use domain::{Offer, ToolTraits};
use http::HeaderMap;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

fn param(kind: ParamType, default: Option<domain::Value>) -> Param {
    Param { kind, description: String::new(), default, min: None, max: None, one_of: Vec::new(), sensitive: false }
}

/// A target with one route of these own members and parameters.
fn target(route: &str, params: &[(&str, ParamType, Option<domain::Value>)]) -> Result<HttpTarget, String> {
    let connect: ConnectTable = toml::from_str("url = \"https://api.test/v1\"\nauth = { form = \"none\" }").unwrap();
    let table: RouteTable = toml::from_str(route).map_err(|error| error.to_string())?;
    let params = params.iter().map(|(name, kind, default)| ((*name).to_owned(), param(*kind, default.clone())));
    let offer = Offer {
        name: "route".parse().unwrap(),
        description: String::new(),
        params: params.collect::<BTreeMap<_, _>>(),
        traits: ToolTraits::default(),
        lifetime_secs: 60,
    };
    HttpTarget::new("api".parse().unwrap(), (connect, Vec::new()), HttpLimits::default(), vec![(table, offer)], Path::new("/"))
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

struct Case {
    target: HttpTarget,
    method: &'static str,
}

impl Case {
    fn ask(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Asked, AskFault> {
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let segments = Segments::read(path).unwrap();
        let (found, in_path) = route(&self.target, &self.method.parse().unwrap(), &segments).unwrap_or_else(|| panic!("{path}"));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        read(found, in_path, query, &map, &Bytes::from(body.to_owned()))
    }
}

fn search() -> Case {
    let route = r#"
        method = "GET"
        path = "/items/{id}"
        query = { q = "text", page = "page", tag = "tags", all = "all" }
        headers = { x-region = "region" }
        pass = ["query.sort", "header.x-trace"]
    "#;
    let params = [
        ("id", ParamType::Long, None),
        ("text", ParamType::Text, None),
        ("page", ParamType::Long, Some(domain::Value::Long(1))),
        ("tags", ParamType::Texts, None),
        ("all", ParamType::Bool, None),
        ("region", ParamType::Text, Some(domain::Value::Text("eu".into()))),
    ];
    Case { target: target(route, &params).unwrap(), method: "GET" }
}

#[test]
fn what_is_read_is_decided_and_sent() {
    let asked = search().ask("/items/7?q=a%20b%2Bc+d&tag=x&tag=y&all=true&sort=up", &[("x-trace", "t1")], "").unwrap();
    let expected = json!({ "id": 7, "text": "a b+c d", "page": 1, "tags": ["x", "y"], "all": true, "region": "eu" });
    assert_eq!(Value::Object(asked.arguments), expected);
    assert_eq!(asked.query, "q=a%20b%2Bc%20d&tag=x&tag=y&all=true&sort=up&page=1", "a default is decided on, so it is sent");
    assert_eq!(asked.headers.get("x-region").unwrap(), "eu");
    assert_eq!(asked.headers.get("x-trace").unwrap(), "t1");
}

#[test]
fn a_query_that_two_servers_read_differently_is_refused() {
    for query in [
        "q=1&q=2",
        "page=1&page=1",
        "Q=1",
        "q[]=1",
        "q%5B%5D=1",
        "unknown=1",
        "q=1;page=2&;=1",
        "q=%",
        "q=%zz",
        "q=%ff",
        "=1",
        "&",
        "q=1&&all=true",
        "page=01",
        "page=+1",
        "page=1.0",
        "page=1e3",
        "page=0x1",
        "page=",
        "page=99999999999999999999",
        "all=1",
        "all=TRUE",
        "q=%00",
        "q=1&access_token=x",
        "q%00=1",
    ] {
        assert!(search().ask(&format!("/items/7?{query}"), &[], "").is_err(), "{query}");
    }
    for id in ["07", "+7", "7a", "%37%20"] {
        assert!(search().ask(&format!("/items/{id}"), &[], "").is_err(), "{id}");
    }
    assert!(matches!(search().ask(&format!("/items/7?q={}", "a".repeat(QUERY_BYTES_MAX)), &[], ""), Err(AskFault::TooMany)));
}

#[test]
fn only_headers_that_the_route_knows_go_along() {
    let headers = [
        ("accept", "application/json"),
        ("x-evil", "1"),
        ("x-http-method-override", "DELETE"),
        ("range", "bytes=0-1"),
        ("x-forwarded-for", "1.1.1.1"),
        ("host", "evil.test"),
        ("te", "trailers"),
        ("x-original-url", "/admin"),
        ("user-agent", "secret channel"),
    ];
    let asked = search().ask("/items/7", &headers, "").unwrap();
    let mut names: Vec<_> = asked.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "x-region"]);
    assert!(search().ask("/items/7", &[("x-region", "a"), ("x-region", "b")], "").is_err());
    assert!(search().ask("/items/7", &[("accept", &"a".repeat(HEADER_BYTES_MAX + 1))], "").is_err());
}

#[test]
fn a_body_where_there_is_none_is_refused() {
    assert_eq!(search().ask("/items/7", &[], "x"), Err(AskFault::Body("empty")));
}

fn mail() -> Case {
    let route = r#"
        method = "POST"
        path = "/mail"
        body = { to = "to", "options.priority" = "priority", "options.tags" = "tags" }
        pass = ["body.text", "body.options.meta"]
    "#;
    let params = [
        ("to", ParamType::Text, None),
        ("priority", ParamType::Long, Some(domain::Value::Long(3))),
        ("tags", ParamType::Texts, None),
    ];
    Case { target: target(route, &params).unwrap(), method: "POST" }
}

const JSON: [(&str, &str); 1] = [("content-type", "application/json; charset=utf-8")];

#[test]
fn the_fields_of_a_json_body_are_decided_and_sent() {
    let body = r#" {"to": "a@b", "text": {"any": [1, "thing"]}, "options": {"tags": ["x"], "meta": {"k": 1.5}}} "#;
    let asked = mail().ask("/mail", &JSON, body).unwrap();
    assert_eq!(Value::Object(asked.arguments), json!({ "to": "a@b", "priority": 3, "tags": ["x"] }));
    let sent: Value = serde_json::from_slice(&asked.body).unwrap();
    let expected = json!({ "to": "a@b", "text": { "any": [1, "thing"] }, "options": { "tags": ["x"], "meta": { "k": 1.5 }, "priority": 3 } });
    assert_eq!(sent, expected);
    assert_eq!(asked.headers.get("content-type").unwrap(), "application/json");
    let asked = mail().ask("/mail", &JSON, r#"{"to": "a@b"}"#).unwrap();
    assert_eq!(asked.body, r#"{"to":"a@b","options":{"priority":3}}"#);
}

#[test]
fn a_json_body_with_anything_else_in_it_is_refused() {
    for body in [
        r#"{"to": "a", "bcc": "evil@x"}"#,
        r#"{"to": "a", "Bcc": "evil@x"}"#,
        r#"{"to": "a", "options": {"bcc": 1}}"#, // unknown
        r#"{"to": "a", "to": "b"}"#,
        r#"{"to": "a", "t\u006f": "b"}"#,
        r#"{"to": "a", "options": {"tags": [], "tags": []}}"#, // doubled
        r#"{"to": "a", "TO": "b"}"#,
        r#"{"to": "a", "options": 1}"#,
        r#"{"to": "a", "options": [{"priority": 1}]}"#,
        r#"{"to": "a", "text": 1e999}"#,
        r#"{"to": "a", "text": "\ud800"}"#,
        r#"{"to": "evil@x\u0000@ours"}"#,
        r#"{"to": "a", "options": {"tags": ["x\u0000"]}}"#,
        "[]",
        "null",
        "",
        "{",
        r#"{"to": "a"} {}"#,
        r#"{"to": "a", "text": {"k": 1, "k": 2}}"#,
        "{\"to\": \"a\", // c\n \"text\": 1}",
        "\u{feff}{\"to\": \"a\"}",
    ] {
        assert!(mail().ask("/mail", &JSON, body).is_err(), "{body}");
    }
    let deep = format!(r#"{{"to": "a", "text": {}1{}}}"#, "[".repeat(200), "]".repeat(200));
    assert!(mail().ask("/mail", &JSON, &deep).is_err());
    for media in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        assert!(mail().ask("/mail", &[("content-type", media)], r#"{"to": "a"}"#).is_err(), "{media}");
    }
    assert!(mail().ask("/mail", &[JSON[0], ("content-type", "text/plain")], r#"{"to": "a"}"#).is_err());
}

#[test]
fn what_passes_unseen_cannot_stand_for_what_is_seen() {
    let route = r#"
        method = "POST"
        path = "/mail"
        body = { to = "to" }
        query = { folder = "folder" }
        pass = ["body.*", "query.*"]
    "#;
    let params = [("to", ParamType::Text, None), ("folder", ParamType::Text, None)];
    let case = Case { target: target(route, &params).unwrap(), method: "POST" };
    let asked = case.ask("/mail?folder=in&x=1&x=2", &JSON, r#"{"to": "a", "cc": {"any": 1}}"#).unwrap();
    assert_eq!(Value::Object(asked.arguments), json!({ "to": "a", "folder": "in" }));
    for (query, body) in [
        ("folder=in", r#"{"to": "a", "To": "b"}"#),
        ("folder=in", r#"{"to": "a", "to ": "b"}"#),
        ("folder=in", r#"{"to": "a", "to[]": "b"}"#),
        ("folder=in&Folder=out", r#"{"to": "a"}"#),
        ("folder=in&folder[]=out", r#"{"to": "a"}"#),
        ("folder=in&folder%20=out", r#"{"to": "a"}"#),
        // Fields of query and body are one set for some servers, and the first or the last of them counts.
        ("folder=in&to=b", r#"{"to": "a"}"#),
        ("folder=in", r#"{"to": "a", "folder": "out"}"#),
        // Some take the method from a field.
        ("folder=in&_method=DELETE", r#"{"to": "a"}"#),
        ("folder=in", r#"{"to": "a", "_method": "DELETE"}"#),
        ("folder=in", r#"{"to": "a", "X-HTTP-Method-Override": "DELETE"}"#),
    ] {
        assert!(case.ask(&format!("/mail?{query}"), &JSON, body).is_err(), "{query} {body}");
    }
}

#[test]
fn another_spelling_of_a_field_that_policy_sees_does_not_pass_unseen() {
    let route =
        "method = \"POST\"\npath = \"/pay\"\nbody = { amount_cents = \"amount\", \"bank.key\" = \"key\" }\npass = [\"body.*\"]";
    let params = [("amount", ParamType::Long, None), ("key", ParamType::Text, None)];
    let case = Case { target: target(route, &params).unwrap(), method: "POST" };
    let ask = |name: &str| {
        let body = json!({ "amount_cents": 1, "bank": { "key": "k" }, name: 2 });
        case.ask("/pay", &JSON, &body.to_string())
    };
    for name in [
        "amountCents",
        "amount-cents",
        "amount cents",
        "amount.cents",
        "AMOUNT_CENTS",
        "amount_cent\u{17f}",
        "amount_cents\0",
        "amount_cents[0]",
        "bank.\u{212a}ey",
        "bank_key",
        // What lies in it would be taken for what lies in `bank`.
        "Bank",
        // Brackets that nothing stands before, or that are not closed.
        "[amount_cents]",
        "[amount_cents][0]",
        "[[amount_cents]]",
        "amount[cents",
        "amount[cents]",
        "Amount]cents",
        "bank[key",
    ] {
        assert!(ask(name).is_err(), "{name:?}");
    }
    for name in ["_amount_cents", "amount", "cents", "method", "note", "[note]", "note[cents]", "[]"] {
        assert!(ask(name).is_ok(), "{name:?}");
    }
}

#[test]
fn a_form_is_read_like_a_query() {
    let route = "method = \"POST\"\npath = \"/f\"\nbody_format = \"form\"\nbody = { a = \"a\", n = \"n\" }";
    let case =
        Case { target: target(route, &[("a", ParamType::Text, None), ("n", ParamType::Long, None)]).unwrap(), method: "POST" };
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let asked = case.ask("/f", &form, "a=x+y%26&n=5").unwrap();
    assert_eq!(
        (Value::Object(asked.arguments), asked.body.as_ref()),
        (json!({ "a": "x y&", "n": 5 }), b"a=x%20y%26&n=5".as_slice())
    );
    for body in ["a=1&a=2", "a=1&b=2", "a=%ff", "n=x"] {
        assert!(case.ask("/f", &form, body).is_err(), "{body}");
    }
    assert!(case.ask("/f", &JSON, "{\"a\":\"x\"}").is_err());
}

#[test]
fn the_more_exact_route_is_meant() {
    let connect: ConnectTable = toml::from_str("url = \"https://api.test\"\nauth = { form = \"none\" }").unwrap();
    let offer = |name: &str, params: &[&str]| Offer {
        name: name.parse().unwrap(),
        description: String::new(),
        params: params.iter().map(|name| ((*name).to_owned(), param(ParamType::Text, None))).collect(),
        traits: ToolTraits::default(),
        lifetime_secs: 60,
    };
    let table = |text: &str| toml::from_str::<RouteTable>(text).unwrap();
    let routes = vec![
        (table("method = \"GET\"\npath = \"/a/{p...}\""), offer("rest", &["p"])),
        (table("method = \"GET\"\npath = \"/a/{x}\""), offer("one", &["x"])),
        (table("method = \"GET\"\npath = \"/a/b\""), offer("word", &[])),
    ];
    let made =
        HttpTarget::new("api".parse().unwrap(), (connect, Vec::new()), HttpLimits::default(), routes, Path::new("/")).unwrap();
    let named = |path: &str| {
        let segments = Segments::read(path).unwrap();
        route(&made, &Method::GET, &segments).map(|(route, _)| route.offer.to_string())
    };
    assert_eq!(named("/a/b").unwrap(), "word");
    assert_eq!(named("/a/c").unwrap(), "one");
    assert_eq!(named("/a/c/d").unwrap(), "rest");
    assert_eq!(named("/b"), None);
}

#[test]
fn a_description_that_means_two_things_is_a_fault() {
    for (route, fault) in [
        ("method = \"TRACE\"\npath = \"/\"", "no method"),
        ("method = \"CONNECT\"\npath = \"/\"", "no method"),
        ("method = \"get\"\npath = \"/\"", "no method"),
        ("method = \"GET\"\npath = \"/{other}\"", "none of its `params`"),
        ("method = \"GET\"\npath = \"/\"", "stands nowhere"),
        ("method = \"GET\"\npath = \"/{a}\"\nquery = { a = \"a\" }", "two places"),
        ("method = \"GET\"\npath = \"/{a}\"\npass = [\"body\"]", "a GET has no body"),
        ("method = \"POST\"\npath = \"/{a}\"\npass = [\"everything\"]", "in `pass`"),
        ("method = \"POST\"\npath = \"/{a}\"\npass = [\"header.cookie\"]", "credentials"),
        ("method = \"POST\"\npath = \"/\"\nheaders = { authorization = \"a\" }", "credentials"),
        ("method = \"POST\"\npath = \"/\"\nheaders = { host = \"a\" }", "belongs to the protocol"),
        ("method = \"POST\"\npath = \"/\"\nbody = { \"x\" = \"a\" }\npass = [\"body.x.y\"]", "lies within"),
        ("method = \"POST\"\npath = \"/\"\nsurprise = 1", "surprise"),
    ] {
        let found = target(route, &[("a", ParamType::Text, None)]).unwrap_err();
        assert!(found.contains(fault), "{route}: {found}");
    }
}

#[test]
fn a_place_that_the_secret_must_not_go_to_is_a_fault() {
    for (connect, fault) in [
        ("url = \"http://api.test/\"", "https"),
        ("url = \"https://u:p@api.test/\"", "credentials"),
        ("url = \"https://10.0.0.1/\"", "not a public one"),
        ("url = \"https://169.254.169.254/\"", "not a public one"),
        ("url = \"https://[::1]/\"", "not a public one"),
        ("url = \"https://2130706433/\"", "not a public one"),
        ("url = \"https://0x7f.1/\"", "not a public one"),
        ("url = \"https://api.test./\"", "no host"),
        ("url = \"https://api.test/a?b=c\"", "plain"),
        ("url = \"https://api.test/\"\naddresses = [\"everywhere\"]", "no network"),
        ("url = \"file:///etc/passwd\"", "host"),
    ] {
        let connect: ConnectTable = toml::from_str(&format!("{connect}\nauth = {{ form = \"none\" }}")).unwrap();
        let made =
            HttpTarget::new("api".parse().unwrap(), (connect, Vec::new()), HttpLimits::default(), Vec::new(), Path::new("/"));
        let found = made.unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(found.contains(fault), "{fault}: {found}");
    }
    let named = "url = \"https://10.0.0.1/\"\naddresses = [\"10.0.0.0/24\"]\nauth = { form = \"none\" }";
    let connect: ConnectTable = toml::from_str(named).unwrap();
    assert!(
        HttpTarget::new("api".parse().unwrap(), (connect, Vec::new()), HttpLimits::default(), Vec::new(), Path::new("/")).is_ok()
    );
}

#[test]
fn a_path_that_lenient_servers_take_for_a_more_exact_route_is_none_of_the_other() {
    let connect: ConnectTable = toml::from_str("url = \"https://api.test\"\nauth = { form = \"none\" }").unwrap();
    let offer = |name: &str, params: &[&str]| Offer {
        name: name.parse().unwrap(),
        description: String::new(),
        params: params.iter().map(|name| ((*name).to_owned(), param(ParamType::Text, None))).collect(),
        traits: ToolTraits::default(),
        lifetime_secs: 60,
    };
    let table = |text: &str| toml::from_str::<RouteTable>(text).unwrap();
    let routes = vec![
        (table("method = \"GET\"\npath = \"/users/{id}\""), offer("user", &["id"])),
        (table("method = \"GET\"\npath = \"/users/{id}/\""), offer("folder", &["id"])),
        (table("method = \"GET\"\npath = \"/users/export\""), offer("export", &[])),
        (table("method = \"GET\"\npath = \"/users/v1.0\""), offer("old", &[])),
        (table("method = \"POST\"\npath = \"/users/new\""), offer("new", &[])),
    ];
    let at = "api".parse().unwrap();
    let target = HttpTarget::new(at, (connect, Vec::new()), HttpLimits::default(), routes, Path::new("/")).unwrap();
    let nearly = |path: &str| {
        let path = Segments::read(path).unwrap();
        let (found, _) = route(&target, &Method::GET, &path).unwrap();
        is_nearly_another(&target, found, &path)
    };
    for path in ["/users/Export", "/users/EXPORT", "/users/export.json", "/users/export.", "/users/export%20", "/users/export/"] {
        assert!(nearly(path), "{path}");
    }
    for path in ["/users/export", "/users/exports", "/users/7", "/users/v1.1", "/users/New", "/users/7/"] {
        assert!(!nearly(path), "{path}");
    }
}
