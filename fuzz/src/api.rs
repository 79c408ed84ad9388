//! Requests to HTTP APIs and their answers: what policy saw is what leaves, and no secret comes back.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use domain::{Offer, Param, ParamType, ToolTraits};
use gateway::door::{self, Asked};
use gateway::http::{HttpLimits, HttpTarget, Template};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use url::{Url, form_urlencoded};

/// A path is sent as it was read, and every other reader of it sees the same names.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let raw = lines.next().unwrap_or_default();
    let Some((names, slash)) = door::path(raw) else { return };
    assert!(raw.len() <= 4_096 && names.len() <= 64);
    assert!(
        !names
            .iter()
            .any(|name| name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '%', ';', '?', '#']))
    );
    let written = door::written(raw).expect("what is read is written");
    assert_eq!(door::path(&written), Some((names.clone(), slash)));
    assert_eq!(door::written(&written).as_ref(), Some(&written), "a path has two spellings");
    // What hyper reads as a path; another reader would drop blanks.
    let sent = raw.parse::<http::Uri>().is_ok().then_some(raw);
    for spelling in sent.into_iter().chain([written.as_str()]) {
        let url = Url::parse(&format!("https://api.test{spelling}")).expect("a path of a URL");
        assert_eq!((url.host_str(), url.query(), url.fragment()), (Some("api.test"), None, None));
        let seen: Vec<String> = url.path_segments().expect("a path").map(decoded).collect();
        let mut expected = names.clone();
        expected.extend((slash || names.is_empty()).then(String::new));
        assert_eq!(seen, expected, "another reader sees another path");
    }
    assert!(written.is_empty() || Url::parse(&format!("https://api.test{written}")).is_ok_and(|url| url.path() == written));
    templates(raw, (&names, slash), lines);
}

fn templates<'a>(raw: &str, (names, slash): (&[String], bool), lines: impl Iterator<Item = &'a str>) {
    let templates: Vec<_> = lines.filter_map(|text| Some((text, Template::parse(text).ok()?))).collect();
    for (text, template) in &templates {
        let Some(found) = door::matched(template, raw) else { continue };
        let mut filled = (*text).to_owned();
        for (name, value) in &found {
            filled = filled.replace(&format!("{{{name}}}"), value).replace(&format!("{{{name}...}}"), value);
        }
        // Values cannot hold a slash, and words are compared as they stand.
        let mut path: String = names.iter().map(|name| format!("/{name}")).collect();
        if slash {
            path.push('/');
        }
        if !names.iter().any(|name| name.contains(['{', '}'])) && !text.contains('%') {
            assert_eq!(filled, path, "`{text}` matched another path");
        }
    }
    if let [(_, one), (_, two)] = templates.as_slice() {
        assert_eq!(door::overlaps(one, two), door::overlaps(two, one));
        if door::matched(one, raw).is_some() && door::matched(two, raw).is_some() {
            assert!(door::overlaps(one, two), "two templates of one path do not overlap");
        }
    }
}

fn decoded(text: &str) -> String {
    String::from_utf8_lossy(&percent_encoding::percent_decode_str(text).collect::<Vec<u8>>()).into_owned()
}

/// One API with a route of each form.
static TARGET: LazyLock<HttpTarget> = LazyLock::new(|| {
    let routes = [
        (
            "search",
            "method = \"GET\"\npath = \"/items/{id}\"\nquery = { q = \"text\", page = \"page\", tag = \"tags\", all = \"all\" }\nheaders = { x-region = \"region\" }\npass = [\"query.sort\"]",
            "id:i text:s page:i=1 tags:t all:b=false region:s",
        ),
        (
            "post",
            "method = \"POST\"\npath = \"/mail/{box}\"\nbody = { to = \"to\", \"meta.urgent\" = \"urgent\", tags = \"tags\" }\npass = [\"body.text\"]",
            "box:s to:s urgent:b=false tags:t",
        ),
        (
            "open",
            "method = \"PUT\"\npath = \"/open\"\nbody = { order_id = \"order\", \"meta.kind\" = \"kind\" }\nquery = { dry = \"dry\" }\npass = [\"body.*\", \"query.*\"]",
            "order:i kind:s=plain dry:b=true",
        ),
        (
            "form",
            "method = \"PATCH\"\npath = \"/form/{rest...}\"\nbody_format = \"form\"\nbody = { amount = \"amount\", to = \"to\" }\npass = [\"body.*\"]",
            "rest:s amount:i=7 to:s",
        ),
    ];
    let routes = routes.into_iter().map(|(name, route, params)| {
        let params = params.split(' ').map(|param| {
            let (name, kind) = param.split_once(':').expect("a kind");
            let (kind, default) = kind.split_once('=').map_or((kind, None), |(kind, default)| (kind, Some(default)));
            let (kind, default) = match kind {
                "i" => (ParamType::Long, default.map(|text| domain::Value::Long(text.parse().expect("a number")))),
                "b" => (ParamType::Bool, default.map(|text| domain::Value::Bool(text == "true"))),
                "t" => (ParamType::Texts, default.map(|text| domain::Value::Texts([text.to_owned()].into()))),
                _ => (ParamType::Text, default.map(|text| domain::Value::Text(text.to_owned()))),
            };
            (
                name.to_owned(),
                Param { kind, description: String::new(), default, min: None, max: None, one_of: Vec::new(), sensitive: false },
            )
        });
        let params: BTreeMap<_, _> = params.collect();
        let name = name.parse().expect("a name");
        let offer = Offer { name, description: String::new(), params, traits: ToolTraits::default(), lifetime_secs: 60 };
        (toml::from_str(route).expect("a route"), offer)
    });
    let connect = toml::from_str("url = \"https://api.test/v1\"\nauth = { form = \"none\" }").expect("a place");
    let name = "api".parse().expect("a name");
    HttpTarget::new(name, (connect, Vec::new()), HttpLimits::default(), routes.collect(), Path::new("/")).expect("a target")
});

/// What is decided on is what stands in the request that leaves, for a reader of forms and JSON that is not ours; and what
/// leaves is read as itself.
pub fn request(data: &[u8]) {
    let Some((method, raw, headers, body)) = asked(data) else { return };
    let (path, query) = raw.split_once('?').map_or((raw, None), |(path, query)| (path, Some(query)));
    let Some(read) = door::ask(&TARGET, &method, (path, query), &headers, &body) else { return };
    sent_is_decided(&read);
    let written = door::written(path).expect("it was read");
    let again = door::ask(&TARGET, &method, (&written, Some(&read.query)), &read.headers, &read.body);
    assert_eq!(again, Some(read), "what leaves is read as something else");
}

/// Method, path with query, a header each line; an empty line; the body.
fn asked(data: &[u8]) -> Option<(Method, &str, HeaderMap, Bytes)> {
    let at = data.windows(2).position(|pair| pair == b"\n\n")?;
    let mut lines = std::str::from_utf8(&data[..at]).ok()?.split('\n');
    let (method, raw) = lines.next()?.split_once(' ')?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        headers.append(name.parse::<http::HeaderName>().ok()?, HeaderValue::from_str(value).ok()?);
    }
    // What hyper reads as a target.
    raw.parse::<http::Uri>().ok()?;
    Some((method.parse().ok()?, raw, headers, Bytes::copy_from_slice(&data[at + 2..])))
}

fn sent_is_decided(read: &Asked) {
    let fields: &[(&str, &str)] = match read.offer.as_str() {
        "search" => &[("q", "text"), ("page", "page"), ("tag", "tags"), ("all", "all")],
        "open" => &[("dry", "dry")],
        _ => &[],
    };
    sent_in_form(&read.query, fields, read);
    let unseen = if read.offer == "search" { &["sort"][..] } else { &[] };
    for (name, _) in form_urlencoded::parse(read.query.as_bytes()) {
        let seen = fields.iter().any(|(field, _)| *field == name) || unseen.contains(&&*name);
        assert!(seen || (read.offer == "open" && !looks_like(&name, fields)), "`{name}` goes along unseen");
    }
    match read.offer.as_str() {
        "form" => {
            let fields = [("amount", "amount"), ("to", "to")];
            let text = std::str::from_utf8(&read.body).expect("a form is text");
            sent_in_form(text, &fields, read);
            for (name, _) in form_urlencoded::parse(text.as_bytes()) {
                assert!(
                    fields.iter().any(|(field, _)| *field == name) || !looks_like(&name, &fields),
                    "`{name}` goes along unseen"
                );
            }
        }
        "post" | "open" => sent_in_json(read),
        _ => assert!(read.body.is_empty()),
    }
}

/// Whether a lenient server could take one name for the other.
fn looks_like(name: &str, fields: &[(&str, &str)]) -> bool {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-', '.', ' '], "");
    fields.iter().any(|(field, _)| plain(field) == plain(name.split('[').next().unwrap_or_default()))
}

fn sent_in_form(text: &str, fields: &[(&str, &str)], read: &Asked) {
    for (field, param) in fields {
        let sent: Vec<String> = form_urlencoded::parse(text.as_bytes())
            .filter(|(name, _)| name == field)
            .map(|(_, value)| value.into_owned())
            .collect();
        let decided: Vec<String> = match read.arguments.get(*param) {
            None => Vec::new(),
            Some(Value::Array(items)) => items.iter().map(plain).collect(),
            Some(one) => vec![plain(one)],
        };
        assert_eq!(sent, decided, "`{field}` is not sent as it was decided");
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn sent_in_json(read: &Asked) {
    let sent: Value = serde_json::from_slice(&read.body).expect("a JSON body");
    let look = crate::scan::look(&read.body).expect("a JSON body");
    assert!(!look.doubled && !look.torn);
    let fields: &[(&[&str], &str)] = match read.offer.as_str() {
        "post" => &[(&["to"], "to"), (&["meta", "urgent"], "urgent"), (&["tags"], "tags")],
        _ => &[(&["order_id"], "order"), (&["meta", "kind"], "kind")],
    };
    for (path, param) in fields {
        let value = path.iter().try_fold(&sent, |value, name| value.get(name));
        assert_eq!(value, read.arguments.get(*param), "`{param}` is not sent as it was decided");
    }
    let names = sent.as_object().expect("an object").keys();
    for name in names.filter(|name| !["to", "meta", "tags", "text", "order_id"].contains(&name.as_str())) {
        assert!(read.offer == "open" && !looks_like(name, &[("order_id", ""), ("meta", "")]), "`{name}` goes along unseen");
    }
}

const SECRETS: [&str; 5] = ["hunter2-hunter2", "aaaaaaaaab", "p&ss w0rd/\"<+>\\%", "ghp_0123456789abcdefABCDEF", "12345678"];

/// A secret in an answer is found wherever and however it stands there, and what holds none passes whole.
pub fn echo(data: &[u8]) {
    let [which, form, step, rest @ ..] = data else { return };
    let secret = SECRETS[usize::from(*which) % SECRETS.len()];
    let step = usize::from(*step) + 1;
    let whole = door::scan(secret, rest, rest.len());
    for step in [step, 1, 3] {
        assert_eq!(door::scan(secret, rest, step), whole, "in pieces of {step}");
    }
    if let Some(passed) = &whole {
        assert_eq!(passed, rest, "what passes is not what came");
        let occurs = rest.windows(secret.len()).any(|window| window.eq_ignore_ascii_case(secret.as_bytes()));
        assert!(!occurs, "the secret passes");
    }
    let at = usize::from(form / 16) * rest.len() / 16;
    let (before, after) = rest.split_at(at);
    let planted = [before, b"\n\n \"", planted(secret, form % 16, before.len()).as_bytes(), b"\" ", after].concat();
    assert_eq!(door::scan(secret, &planted, step), None, "a planted secret passes");
}

fn planted(secret: &str, form: u8, length: usize) -> String {
    let each = |write: &dyn Fn(u8) -> String| secret.bytes().map(write).collect::<String>();
    match form {
        0 => secret.to_owned(),
        1 => secret.to_ascii_uppercase(),
        2 => each(&|byte| format!("%{byte:02x}")),
        3 => each(&|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }),
        4 => each(&|byte| format!("\\u{:04X}", byte)),
        5 => serde_json::json!(secret).to_string().trim_matches('"').to_owned(),
        6 => each(&|byte| format!("&#{byte};")),
        7 => each(&|byte| format!("&#x{byte:x};")),
        8 => secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;"),
        9 => each(&|byte| format!("{byte:02X}")),
        // A line of blanks alone would begin another text.
        10 => each(&|byte| format!("{}{}", char::from(byte), if byte == b' ' { "" } else { "\r\n" })).trim_end().to_owned(),
        11 => each(&|byte| format!("{}\0", char::from(byte))),
        12 => STANDARD_NO_PAD.encode(format!("x{secret}yz")),
        13 => STANDARD_NO_PAD.encode(format!("xy{secret}")),
        14 => STANDARD_NO_PAD.encode([&vec![b'.'; length % 64][..], secret.as_bytes(), b"..."].concat()),
        _ => form_urlencoded::byte_serialize(secret.as_bytes()).collect(),
    }
}

/// A signature is of what leaves: computed anew from the request as sent, it is the same.
pub fn sigv4(data: &[u8]) {
    let Some((method, raw, headers, body)) = asked(data) else { return };
    let (path, query) = raw.split_once('?').unwrap_or((raw, ""));
    let Some(read) = door::ask(&TARGET, &method, (path, Some(query)), &headers, &body) else { return };
    let path = format!("/v1{}", door::written(path).expect("it was read"));
    for (service, in_query) in [("s3", false), ("execute-api", false), ("s3", true), ("sqs", true)] {
        let at = (path.clone(), read.query.clone());
        let Some(signed) = door::sign(service, in_query, method.clone(), at, read.headers.clone(), read.body.clone()) else {
            // A header that is not text cannot be signed, and does not leave.
            assert!(read.headers.values().any(|value| value.to_str().is_err()), "a request that was read is not signed");
            continue;
        };
        assert!(signed.query.starts_with(&read.query));
        assert_eq!(signed.signature, expected(service, in_query, (&method, &path), &signed, &read), "{service} {in_query}");
    }
}

/// AWS General Reference, "Create a signed AWS API request".
fn expected(service: &str, in_query: bool, (method, path): (&Method, &str), signed: &door::Signed, read: &Asked) -> String {
    let hash = |bytes: &[u8]| HEXLOWER.encode(digest(&SHA256, bytes).as_ref());
    let pairs: Vec<(&str, &str)> =
        signed.query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect();
    let named = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value).unwrap_or_default();
    let mut canonical: Vec<String> =
        pairs.iter().filter(|(name, _)| *name != "X-Amz-Signature").map(|(name, value)| format!("{name}={value}")).collect();
    canonical.sort_by(|a, b| a.split_once('=').cmp(&b.split_once('=')));
    let header = |name: &str| {
        signed.headers.get_all(name).iter().map(|value| value.to_str().unwrap_or_default().trim()).collect::<Vec<_>>().join(",")
    };
    let list = if in_query {
        decoded(named("X-Amz-SignedHeaders"))
    } else {
        let header = header("authorization");
        header.split("SignedHeaders=").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or_default().to_owned()
    };
    let headers: String = list
        .split(';')
        .map(|name| {
            let value = if name == "host" { "api.test".to_owned() } else { header(name) };
            format!("{name}:{}\n", value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
        })
        .collect();
    let path = if service == "s3" { path.to_owned() } else { path.replace('%', "%25") };
    let body = if in_query && service == "s3" { "UNSIGNED-PAYLOAD".to_owned() } else { hash(&read.body) };
    let request = format!("{method}\n{path}\n{}\n{headers}\n{list}\n{body}", canonical.join("&"));
    let scope = format!("19700102/r-1/{service}/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n19700102T000000Z\n{scope}\n{}", hash(request.as_bytes()));
    let step = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let key = ["19700102", "r-1", service, "aws4_request"]
        .into_iter()
        .fold(b"AWS4secret".to_vec(), |key, part| step(&key, part).as_ref().to_vec());
    HEXLOWER.encode(step(&key, &text).as_ref())
}
