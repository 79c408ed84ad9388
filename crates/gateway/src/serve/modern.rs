//! The stateless era: each request carries its revision and what its client can do, and its headers say again what its
//! body says. Headers and body must agree, since others in front of us may have trusted the headers.
//! MCP 2026-07-28 "Request Metadata", "Server Validation", "Discovery", "Subscriptions".

use crate::admission::one;
use crate::flight::{Reply, upstream_fault};
use crate::hear;
use crate::listen::{Admitted, Inner};
use crate::mcp::leaving;
use crate::mcp::message::{Message, Params, Payload, Raw, Request};
use crate::mcp::object::Members;
use crate::mcp::stream;
use crate::mcp::version::{Era, Version, code, header, meta};
use crate::respond::{Body, Fault, Refusal, bare};
use crate::serve::{Incoming, dispatch};
use crate::shape::Kind;
use crate::upstream::{ClientProfile, MirroredParameter};
use authority::{CallStatus, Decision};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{Operation, ToolName};
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::sync::Arc;

/// Most resources of one subscription: each is decided on its own.
const SUBSCRIBED_MAX: usize = 64;
/// How long a client may remember what an upstream says of itself.
const DISCOVER_TTL_MILLIS_MAX: u64 = 60_000;

/// Whether the message is of the stateless era: it says so in `_meta`, or its header names a revision that no session has.
pub(crate) fn opens(headers: &HeaderMap, payload: &Payload) -> bool {
    let (method, params) = match payload {
        Payload::Single(Message::Request(request)) => (request.method.as_str(), request.params.as_ref()),
        Payload::Single(Message::Notification(notification)) => (notification.method.as_str(), notification.params.as_ref()),
        Payload::Single(Message::Response(_)) => ("", None),
        Payload::Batch(_) => return false,
    };
    if params.is_some_and(|params| params.meta(meta::PROTOCOL_VERSION).is_some()) {
        return true;
    }
    let session = headers.contains_key(header::SESSION_ID);
    let named = one(headers, header::PROTOCOL_VERSION).ok().flatten();
    let legacy = named.is_none_or(|named| Version::from_wire(named).is_some_and(|version| !version.is_modern()));
    method != "initialize" && !session && !legacy
}

/// Serves one message of the stateless era.
pub(crate) async fn serve(gateway: &Arc<Inner>, admitted: Admitted, payload: Payload) -> Result<Response<Body>, Refusal> {
    let request = match payload {
        Payload::Single(Message::Request(request)) => request,
        // This revision has no notification that a client sends over HTTP; an unknown one is taken and means nothing.
        Payload::Single(Message::Notification(_)) => return Ok(bare(StatusCode::ACCEPTED)),
        Payload::Single(Message::Response(_)) | Payload::Batch(_) => {
            let text = "send one request; answers go into `inputResponses` of its retry";
            return Err(Fault::new(StatusCode::BAD_REQUEST, None, code::INVALID_REQUEST, text).into());
        }
    };
    let version = check_version(&admitted.headers, &request)?;
    check_names(&admitted.headers, &request)?;
    let capabilities = request.params.as_ref().and_then(|params| params.meta(meta::CLIENT_CAPABILITIES));
    let Some(capabilities @ Value::Object(_)) = capabilities else {
        return Err(missing_meta(&request, meta::CLIENT_CAPABILITIES));
    };
    let capabilities = leaving::capabilities(capabilities);
    let era = Era::Modern(version);
    let client = ClientProfile { era, capabilities: capabilities.clone(), session: None };
    let fault = |error| Refusal::from(upstream_fault(&error, Some(&request.id), era));
    let (upstream, task) = (&admitted.endpoint.upstream, admitted.caller.task());
    let connection = gateway.upstreams.connect(upstream, task, &client).await.map_err(fault)?;
    if request.method == "server/discover" {
        let server = connection.server().await.map_err(fault)?;
        let described = hear::introduction(gateway, &admitted.caller, upstream, &server.described).await;
        let result = discovered(&described, server.era);
        return Ok(Reply::Message(StatusCode::OK, stream::result(&request.id, &result)).into_response());
    }
    let incoming = Incoming { gateway: Arc::clone(gateway), admitted, connection, era, capabilities, request, underway: None };
    dispatch(incoming).await.map(Reply::into_response)
}

fn mismatch(request: &Request, text: String) -> Refusal {
    Fault::new(StatusCode::BAD_REQUEST, Some(&request.id), code::HEADER_MISMATCH, format!("Header mismatch: {text}")).into()
}

fn missing_meta(request: &Request, key: &str) -> Refusal {
    let text = format!("`_meta` must hold `{key}`");
    Fault::new(StatusCode::BAD_REQUEST, Some(&request.id), code::INVALID_PARAMS, text).into()
}

/// The revision of a request: the header and `_meta` must name the same, and it must be one that is spoken here.
fn check_version(headers: &HeaderMap, request: &Request) -> Result<Version, Refusal> {
    let said = request.params.as_ref().and_then(|params| params.meta(meta::PROTOCOL_VERSION)).and_then(Value::as_str);
    let said = said.ok_or_else(|| missing_meta(request, meta::PROTOCOL_VERSION))?;
    let named = one(headers, header::PROTOCOL_VERSION).ok().flatten();
    let named = named.ok_or_else(|| mismatch(request, "the MCP-Protocol-Version header is missing or doubled".into()))?;
    if named != said {
        return Err(mismatch(request, "the MCP-Protocol-Version header and `_meta` name different revisions".into()));
    }
    match Version::from_wire(said).filter(|version| version.is_modern()) {
        Some(version) => Ok(version),
        None => {
            let requested: String = said.chars().take(64).collect();
            let data = Some(json!({ "supported": supported(), "requested": requested }));
            let text = "Unsupported protocol version";
            let fault = Fault::new(StatusCode::BAD_REQUEST, Some(&request.id), code::UNSUPPORTED_VERSION, text);
            Err(Fault { data, ..fault }.into())
        }
    }
}

/// The revisions that are spoken here, newest first.
fn supported() -> Vec<&'static str> {
    Version::ALL.into_iter().rev().map(Version::as_str).collect()
}

/// `Mcp-Method` and `Mcp-Name` must say what the body says.
fn check_names(headers: &HeaderMap, request: &Request) -> Result<(), Refusal> {
    let method = one(headers, header::METHOD).ok().flatten();
    if method != Some(request.method.as_str()) {
        return Err(mismatch(request, "the Mcp-Method header is missing or not the method of the body".into()));
    }
    let key = match request.method.as_str() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        // Of the extension for long-running work; without the header nobody in front of us was misled.
        "tasks/get" | "tasks/update" | "tasks/cancel" if headers.contains_key(header::NAME) => "taskId",
        _ => return Ok(()),
    };
    let name = one(headers, header::NAME).ok().flatten().and_then(decoded);
    let said = request.params.as_ref().and_then(|params: &Params| params.text(key));
    match (name, said) {
        (Some(name), Some(said)) if name == said => Ok(()),
        _ => Err(mismatch(request, format!("the Mcp-Name header is missing or not the `{key}` of the body"))),
    }
}

/// Parameters that a tool's definition wants repeated in headers must say there what the arguments say. The upstream gets
/// headers made from the arguments in any case; this tells a client that would mislead whoever reads only headers.
/// MCP 2026-07-28 "Server Behavior for Custom Headers".
pub(crate) fn check_mirrored(incoming: &Incoming, tool: &ToolName, arguments: &Map<String, Value>) -> Result<(), Refusal> {
    let parameters = incoming.connection.mirrored(tool);
    match parameters.iter().find(|parameter| !agrees(&incoming.admitted.headers, parameter, arguments)) {
        None => Ok(()),
        Some(MirroredParameter { header, .. }) => {
            Err(mismatch(&incoming.request, format!("the {header} header is missing or not what the arguments say")))
        }
    }
}

fn agrees(headers: &HeaderMap, parameter: &MirroredParameter, arguments: &Map<String, Value>) -> bool {
    let Ok(sent) = one(headers, parameter.header.as_str()) else { return false };
    match (sent.map(decoded), parameter.text(arguments)) {
        (None, None) => true,
        (Some(Some(sent)), Some(given)) => sent == given || same_number(&sent, &given),
        _ => false,
    }
}

/// Whether two texts are the same integer, as `42.0` and `42` are.
fn same_number(sent: &str, given: &str) -> bool {
    match (given.parse::<i64>(), sent.parse::<f64>()) {
        #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "mirrored integers are below 2^53, so both are exact")]
        (Ok(given), Ok(sent)) => sent == given as f64,
        _ => false,
    }
}

/// A header value in clear (MCP 2026-07-28 "Value Encoding"); `None` if it is not encoded as it claims.
pub(crate) fn decoded(value: &str) -> Option<Cow<'_, str>> {
    match value.strip_prefix("=?base64?").and_then(|value| value.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok().map(Cow::Owned),
        None => Some(Cow::Borrowed(value)),
    }
}

/// What the upstream says of itself, as a stateless client is told.
fn discovered(described: &Raw, era: Era) -> Raw {
    let said = described.to_value();
    let ours = Raw::from_value(&json!({
        "capabilities": said.get("capabilities").unwrap_or(&json!({})),
        "_meta": { meta::SERVER_INFO: said.get("serverInfo").unwrap_or(&Value::Null) },
        "instructions": said.get("instructions").unwrap_or(&Value::Null),
    }));
    let raw = if era.is_modern() { described } else { &ours };
    let Some(mut members) = Members::of(raw) else { return ours };
    let ttl = members.value("ttlMs").and_then(|ttl| ttl.as_u64()).unwrap_or(0).min(DISCOVER_TTL_MILLIS_MAX);
    members.set("resultType", &json!("complete"));
    members.set("supportedVersions", &json!(supported()));
    members.set("ttlMs", &json!(ttl));
    members.set("cacheScope", &json!("private"));
    if members.value("instructions").is_some_and(|text| text.is_null()) {
        members.remove("instructions");
    }
    members.to_raw()
}

/// Opens a stream of changes. Each resource in it is decided like a read; those that are refused are left out, and the
/// acknowledgement shows which remained.
pub(crate) async fn subscribe(mut incoming: Incoming) -> Result<Reply, Refusal> {
    let wanted = incoming.request.params.as_ref().and_then(|params| params.value().get("notifications"));
    let Some(wanted @ Value::Object(_)) = wanted.cloned() else {
        return Err(incoming.invalid("`notifications` must be an object"));
    };
    let strings = |name: &str| match wanted.get(name) {
        None => Ok(Vec::new()),
        Some(list) => match serde_json::from_value::<Vec<String>>(list.clone()) {
            Ok(list) if list.len() <= SUBSCRIBED_MAX => Ok(list),
            _ => Err(incoming.invalid(&format!("`{name}` must be at most {SUBSCRIBED_MAX} strings"))),
        },
    };
    let (uris, mut handles) = (strings("resourceSubscriptions")?, strings("taskIds")?);
    let task = incoming.admitted.caller.task();
    handles.retain(|handle| incoming.gateway.handles.knows(task, incoming.upstream(), handle));
    let mut allowed = Vec::with_capacity(uris.len());
    for uri in uris {
        if let Decision::Allow(permit) =
            incoming.decide(Operation::ReadResource { upstream: incoming.upstream(), uri: &uri }).await
        {
            permit.release().map_err(Refusal::Over)?.record(CallStatus::Ok.into());
            allowed.push(uri);
        }
    }
    // What nobody decided on goes nowhere.
    let leaving = |(name, said): (&String, &Value)| {
        let value = match name.as_str() {
            "resourceSubscriptions" => json!(allowed),
            "taskIds" => json!(handles),
            "toolsListChanged" | "promptsListChanged" | "resourcesListChanged" if said.is_boolean() => said.clone(),
            _ => return None,
        };
        Some((name.clone(), value))
    };
    let narrowed: Map<String, Value> = wanted.as_object().into_iter().flatten().filter_map(leaving).collect();
    let mut value = Map::from_iter([("notifications".to_owned(), Value::Object(narrowed))]);
    let tags = incoming.request.params.as_ref().and_then(|params| params.value().get("_meta"));
    value.extend(tags.map(|tags| ("_meta".to_owned(), tags.clone())));
    incoming.request.params = Some(Params::from_value(value));
    incoming.fly(None, Kind::Subscription).await
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use bytes::Bytes;
    use http::HeaderValue;

    fn request(text: &str) -> (Payload, Request) {
        let payload = Payload::parse(&Bytes::copy_from_slice(text.as_bytes())).unwrap();
        let Payload::Single(Message::Request(request)) = payload.clone() else { panic!("{text}") };
        (payload, request)
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn code_of(refusal: Refusal) -> (u16, i64) {
        let Refusal::Fault(fault) = refusal else { panic!("{refusal:?}") };
        (fault.status.as_u16(), fault.code)
    }

    #[test]
    fn mirrored_parameters_must_say_what_the_arguments_say() {
        let parameter = MirroredParameter { header: "mcp-param-region".parse().unwrap(), path: vec!["region".to_owned()] };
        let said = |value: Value| json!({ "region": value }).as_object().unwrap().clone();
        for (pairs, arguments, ok) in [
            (&[("mcp-param-region", "eu")][..], said(json!("eu")), true),
            (&[("mcp-param-region", "=?base64?ZXU=?=")][..], said(json!("eu")), true),
            (&[("mcp-param-region", "42.0")][..], said(json!(42)), true),
            (&[][..], said(Value::Null), true),
            (&[][..], Map::new(), true),
            (&[][..], said(json!("eu")), false),
            (&[("mcp-param-region", "us")][..], said(json!("eu")), false),
            (&[("mcp-param-region", "=?base64?dXM=?=")][..], said(json!("eu")), false),
            (&[("mcp-param-region", "=?base64?ZXU?=")][..], said(json!("eu")), false),
            (&[("mcp-param-region", "=?base64?!!!?=")][..], said(json!("eu")), false),
            (&[("mcp-param-region", "eu"), ("mcp-param-region", "us")][..], said(json!("eu")), false),
            (&[("mcp-param-region", "eu")][..], Map::new(), false),
            (&[("mcp-param-region", "43")][..], said(json!(42)), false),
        ] {
            assert_eq!(agrees(&headers(pairs), &parameter, &arguments), ok, "{pairs:?} {arguments:?}");
        }
    }

    const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"refund","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

    #[test]
    fn headers_that_do_not_say_what_the_body_says_are_refused() {
        let (_, call) = request(CALL);
        for (pairs, ok) in [
            (&[("mcp-method", "tools/call"), ("mcp-name", "refund")][..], true),
            (&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?cmVmdW5k?=")][..], true),
            (&[("mcp-method", "tools/list"), ("mcp-name", "refund")][..], false),
            (&[("mcp-method", "TOOLS/CALL"), ("mcp-name", "refund")][..], false),
            (&[("mcp-name", "refund")][..], false),
            (&[("mcp-method", "tools/call")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "get_order")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "Refund")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?Z2V0X29yZGVy?=")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?cmVmdW5k")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "=?BASE64?cmVmdW5k?=")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "=?base64?!!!?=")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "refund"), ("mcp-name", "get_order")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-method", "tools/call"), ("mcp-name", "refund")][..], false),
            (&[("mcp-method", "tools/call"), ("mcp-name", "refund\u{e4}")][..], false),
        ] {
            let checked = check_names(&headers(pairs), &call);
            assert_eq!(checked.is_ok(), ok, "{pairs:?}");
            if let Err(refusal) = checked {
                assert_eq!(code_of(refusal), (400, code::HEADER_MISMATCH), "{pairs:?}");
            }
        }
    }

    #[test]
    fn the_revision_is_named_alike_in_header_and_body_and_is_spoken_here() {
        let call = |version: &str| request(&CALL.replace("2026-07-28", version)).1;
        let bare = request(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{}}}"#).1;
        let named = |version: &str| headers(&[("mcp-protocol-version", version)]);
        assert_eq!(check_version(&named("2026-07-28"), &call("2026-07-28")).unwrap(), Version::V2026_07_28);
        for (headers, request, expected) in [
            (HeaderMap::new(), call("2026-07-28"), (400, code::HEADER_MISMATCH)),
            (named("2025-11-25"), call("2026-07-28"), (400, code::HEADER_MISMATCH)),
            (named("2026-07-28"), call("2025-11-25"), (400, code::HEADER_MISMATCH)),
            (named("1900-01-01"), call("1900-01-01"), (400, code::UNSUPPORTED_VERSION)),
            (named("2025-11-25"), call("2025-11-25"), (400, code::UNSUPPORTED_VERSION)),
            (named("2026-07-28"), bare, (400, code::INVALID_PARAMS)),
        ] {
            assert_eq!(code_of(check_version(&headers, &request).unwrap_err()), expected);
        }
    }

    #[test]
    fn the_era_is_told_by_body_or_header() {
        let list = request(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).0;
        let initialize = request(r#"{"jsonrpc":"2.0","id":1,"method":"initialize"}"#).0;
        let call = request(CALL).0;
        assert!(opens(&HeaderMap::new(), &call));
        assert!(opens(&headers(&[("mcp-session-id", "x")]), &call));
        assert!(opens(&headers(&[("mcp-protocol-version", "2026-07-28")]), &list));
        assert!(opens(&headers(&[("mcp-protocol-version", "2099-01-01")]), &list));
        assert!(!opens(&headers(&[("mcp-protocol-version", "2025-11-25")]), &list));
        assert!(!opens(&headers(&[("mcp-protocol-version", "2099-01-01"), ("mcp-session-id", "x")]), &list));
        assert!(!opens(&HeaderMap::new(), &list));
        assert!(!opens(&headers(&[("mcp-protocol-version", "2026-07-28")]), &initialize));
    }
}
