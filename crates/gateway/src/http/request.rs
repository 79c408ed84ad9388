//! From a request to the arguments that policy decides on and the request that is sent: path, query, headers and body are
//! read once, strictly, and written anew from what was read. What the route does not know is refused, not dropped: an API
//! could read it as anything. Pure. Knows no target, no credential and no policy. RFC 9110, WHATWG URL "urlencoded".

use super::config::HttpTarget;
use super::path::{Segments, encode};
use super::route::{BodyRule, Fields, Route};
use crate::admission::one;
use bytes::Bytes;
use domain::json::{self, Limits};
use domain::{Param, ParamType};
use http::header::{
    ACCEPT, ACCEPT_LANGUAGE, CONTENT_TYPE, HeaderName, HeaderValue, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_UNMODIFIED_SINCE,
};
use http::{HeaderMap, Method};
use serde_json::{Map, Value};

/// Longest query, in bytes as sent.
const QUERY_BYTES_MAX: usize = 8_192;
/// Most fields of a query or form.
const FIELDS_MAX: usize = 256;
/// Longest value of a header that goes along unseen by policy.
const HEADER_BYTES_MAX: usize = 512;

/// Headers of the client that every API sees. `Range` is not among them: a secret that an answer holds could be fetched
/// in halves.
const FORWARDED: [HeaderName; 6] = [ACCEPT, ACCEPT_LANGUAGE, IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE];

/// Why a request is not one of the route. Names fields, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskFault {
    #[error("{place} field `{name}` is unknown to this route")]
    Unknown { place: &'static str, name: String },
    #[error("{place} field `{name}` stands there more than once")]
    Doubled { place: &'static str, name: String },
    #[error("{place} field `{name}` must be {expected}")]
    Type { place: &'static str, name: String, expected: &'static str },
    #[error("the query cannot be read in one way only")]
    Query,
    #[error("there are too many fields")]
    TooMany,
    #[error("the body must be {0}")]
    Body(&'static str),
    #[error("header `{0}` cannot be read in one way only")]
    Header(HeaderName),
}

/// A request as it was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    /// What policy decides on.
    pub(crate) arguments: Map<String, Value>,
    /// The query as it is sent, without `?`.
    pub(crate) query: String,
    /// The headers as they are sent, without credentials.
    pub(crate) headers: HeaderMap,
    /// The body as it is sent.
    pub(crate) body: Bytes,
}

/// The route that a request means, and the parameters of its path.
pub(crate) fn route<'a>(target: &'a HttpTarget, method: &Method, path: &Segments) -> Option<(&'a Route, Vec<(&'a str, String)>)> {
    let of_method = target.routes.iter().filter(|route| route.method == *method);
    of_method.into_iter().find_map(|route| Some((route, route.path.matches(path)?)))
}

/// Whether a path of this route would be one of a more exact route to servers that fold letters (Express, IIS), cut off what
/// follows a dot (Rails) or a slash at the end: policy saw a parameter where they would see another route.
pub(crate) fn is_nearly_another(target: &HttpTarget, route: &Route, path: &Segments) -> bool {
    let mut others = target.routes.iter().filter(|other| other.method == route.method);
    others.any(|other| other.path.nearly_matches(path) && other.path.rank() < route.path.rank())
}

/// Reads a request of a route.
pub(crate) fn read(
    route: &Route,
    in_path: Vec<(&str, String)>,
    query: Option<&str>,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Asked, AskFault> {
    let mut reader = Reader { route, arguments: Map::new() };
    for (name, value) in in_path {
        reader.text("path", name, name, value)?;
    }
    let query = reader.query(query.unwrap_or_default())?;
    let mut sent = reader.headers(headers)?;
    let (body, media) = reader.body(headers, body)?;
    if let Some(media) = media {
        sent.insert(CONTENT_TYPE, media);
    }
    Ok(Asked { arguments: reader.arguments, query, headers: sent, body })
}

struct Reader<'a> {
    route: &'a Route,
    arguments: Map<String, Value>,
}

type Pairs = Vec<(String, String)>;

impl Reader<'_> {
    fn param(&self, name: &str) -> Option<&Param> {
        self.route.params.get(name)
    }

    /// Takes a parameter that stands somewhere as text.
    fn text(&mut self, place: &'static str, field: &str, param: &str, text: String) -> Result<(), AskFault> {
        let kind = self.param(param).map_or(ParamType::Text, |param| param.kind);
        let wrong = |expected| AskFault::Type { place, name: field.to_owned(), expected };
        let value = match kind {
            // One spelling of each number, so that what is decided is what everybody reads.
            ParamType::Long => match text.parse::<i64>() {
                Ok(number) if number.to_string() == text => number.into(),
                _ => return Err(wrong("a whole number, plainly written")),
            },
            ParamType::Bool => match text.as_str() {
                "true" => true.into(),
                "false" => false.into(),
                _ => return Err(wrong("`true` or `false`")),
            },
            ParamType::Text | ParamType::Texts if text.contains('\0') => return Err(wrong("text")),
            ParamType::Text => text.into(),
            ParamType::Texts => {
                let set = self.arguments.entry(param).or_insert_with(|| Value::Array(Vec::new()));
                if let Some(items) = set.as_array_mut() {
                    items.push(text.into());
                }
                return Ok(());
            }
        };
        match self.arguments.insert(param.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(AskFault::Doubled { place, name: field.to_owned() }),
        }
    }

    /// The default of a parameter that the request does not hold: it is decided on, so it is sent.
    fn default(&mut self, param: &str) -> Option<Value> {
        if self.arguments.contains_key(param) {
            return None;
        }
        let value = self.param(param)?.default.as_ref()?.to_json();
        self.arguments.insert(param.to_owned(), value.clone());
        Some(value)
    }

    fn query(&mut self, raw: &str) -> Result<String, AskFault> {
        if raw.len() > QUERY_BYTES_MAX {
            return Err(AskFault::TooMany);
        }
        self.urlencoded("query", raw, &self.route.query)
    }

    /// Reads fields in the form of queries and forms, and writes them anew.
    fn urlencoded(&mut self, place: &'static str, raw: &str, rule: &Fields) -> Result<String, AskFault> {
        let mut pairs = pairs(raw)?;
        for (name, value) in &pairs {
            let path = std::slice::from_ref(name);
            if let Some(param) = rule.params.get(path) {
                self.text(place, name, param, value.clone())?;
            } else if !rule.pass.contains(path) && (!rule.pass_others || self.route.resembles(name)) {
                return Err(AskFault::Unknown { place, name: shown(name) });
            }
        }
        for (path, param) in &rule.params {
            let name = path.concat();
            match self.default(param) {
                None => {}
                Some(Value::Array(items)) => {
                    pairs.extend(items.iter().filter_map(Value::as_str).map(|item| (name.clone(), item.to_owned())));
                }
                Some(Value::String(text)) => pairs.push((name, text)),
                Some(other) => pairs.push((name, other.to_string())),
            }
        }
        Ok(written(&pairs))
    }

    fn headers(&mut self, headers: &HeaderMap) -> Result<HeaderMap, AskFault> {
        let route = self.route;
        let mut sent = HeaderMap::with_capacity(12);
        let single = |name: &HeaderName| one(headers, name.as_str()).map_err(|()| AskFault::Header(name.clone()));
        for name in FORWARDED.iter().chain(&route.pass_headers) {
            if let Some(text) = single(name)? {
                let value = HeaderValue::from_str(text).ok().filter(|value| value.len() <= HEADER_BYTES_MAX);
                sent.insert(name.clone(), value.ok_or_else(|| AskFault::Header(name.clone()))?);
            }
        }
        for (name, param) in &route.headers {
            let given = single(name)?.map(str::to_owned);
            if let Some(text) = given {
                self.text("header", name.as_str(), param, text)?;
            } else {
                self.default(param);
            }
            let text = match self.arguments.get(param) {
                None => continue,
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            sent.insert(name.clone(), HeaderValue::from_str(&text).map_err(|_| AskFault::Header(name.clone()))?);
        }
        Ok(sent)
    }

    /// The body as it is sent, and its media type.
    fn body(&mut self, headers: &HeaderMap, body: &Bytes) -> Result<(Bytes, Option<HeaderValue>), AskFault> {
        let media = one(headers, CONTENT_TYPE.as_str()).map_err(|()| AskFault::Header(CONTENT_TYPE))?;
        let essence = media.and_then(|media| media.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
        match &self.route.body {
            BodyRule::Nothing if body.is_empty() => Ok((Bytes::new(), None)),
            BodyRule::Nothing => Err(AskFault::Body("empty")),
            BodyRule::Anything => {
                let media = media.map(HeaderValue::from_str).transpose().map_err(|_| AskFault::Header(CONTENT_TYPE))?;
                Ok((body.clone(), media))
            }
            BodyRule::Form(rule) => {
                let text = std::str::from_utf8(body).ok().filter(|_| essence == "application/x-www-form-urlencoded");
                let text = text.ok_or(AskFault::Body("`application/x-www-form-urlencoded`"))?;
                let form = self.urlencoded("body", text, rule)?;
                Ok((form.into(), Some(HeaderValue::from_static("application/x-www-form-urlencoded"))))
            }
            BodyRule::Json(rule) => {
                let value = (essence == "application/json").then(|| json::read(body, Limits::RECORD));
                let Some(Ok(Value::Object(mut object))) = value else {
                    return Err(AskFault::Body("one JSON object (`application/json`), each key once, each number exact"));
                };
                self.object(&mut Vec::new(), &object, rule)?;
                for (path, param) in &rule.params {
                    if let Some(value) = self.default(param) {
                        put(&mut object, path, value);
                    }
                }
                Ok((Value::Object(object).to_string().into(), Some(HeaderValue::from_static("application/json"))))
            }
        }
    }

    fn object(&mut self, at: &mut Vec<String>, object: &Map<String, Value>, rule: &Fields) -> Result<(), AskFault> {
        for (key, value) in object {
            at.push(key.clone());
            let leads_on = rule.params.keys().chain(&rule.pass).any(|path| path.len() > at.len() && path.starts_with(at));
            if let Some(param) = rule.params.get(at.as_slice()) {
                if ends_early(value) {
                    return Err(AskFault::Type { place: "body", name: shown(&at.join(".")), expected: "text" });
                }
                self.arguments.insert(param.clone(), value.clone());
            } else if rule.pass.contains(at.as_slice()) {
                // Goes along unseen.
            } else if let (true, Value::Object(inner)) = (leads_on, value) {
                self.object(at, inner, rule)?;
            } else if leads_on {
                return Err(AskFault::Type { place: "body", name: shown(&at.join(".")), expected: "an object" });
            } else if !rule.pass_others || self.route.resembles(&at.join(".")) {
                return Err(AskFault::Unknown { place: "body", name: shown(&at.join(".")) });
            }
            at.pop();
        }
        Ok(())
    }
}

/// Whether a text that policy sees would end before its end for some servers.
fn ends_early(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(ends_early),
        _ => false,
    }
}

/// A name as an error may show it.
fn shown(name: &str) -> String {
    name.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn put(object: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => drop(object.insert(last.clone(), value)),
        [first, rest @ ..] => {
            let inner = object.entry(first.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The fields of a query or form.
fn pairs(raw: &str) -> Result<Pairs, AskFault> {
    if raw.is_empty() {
        return Ok(Vec::new());
    }
    let mut pairs = Vec::new();
    for pair in raw.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        // A semicolon separates fields for some servers.
        if name.is_empty() || name.contains(|c: char| c.is_control() || c == ';') || pairs.len() == FIELDS_MAX {
            return Err(if pairs.len() == FIELDS_MAX { AskFault::TooMany } else { AskFault::Query });
        }
        pairs.push((name, value));
    }
    Ok(pairs)
}

fn decode(raw: &str) -> Result<String, AskFault> {
    let spaced = raw.replace('+', " ");
    let mut bytes = Vec::with_capacity(spaced.len());
    let mut rest = spaced.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else { return Err(AskFault::Query) };
            bytes.push(u8::try_from(high << 4 | low).map_err(|_| AskFault::Query)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| AskFault::Query)
}

fn written(pairs: &Pairs) -> String {
    let mut out = String::new();
    for (name, value) in pairs {
        push_field(&mut out, name, value);
    }
    out
}

/// Adds one field to a query.
pub(crate) fn push_field(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    encode(name, query);
    query.push('=');
    encode(value, query);
}

#[cfg(test)]
mod tests;
