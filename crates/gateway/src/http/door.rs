//! The part of the door for fuzz targets that leads to requests to HTTP APIs. Compiled with `--cfg fuzzing` alone.

use super::config::{HttpTarget, SignatureIn};
use super::inject::Draft;
use super::path::{self, Segments, Template};
use super::request;
use super::sigv4::Signing;
use crate::scrub::{Needles, Scanner};
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Map, Value};
use std::time::{Duration, SystemTime};

/// The names in a path, and whether a slash ends it.
#[must_use]
pub fn path(raw: &str) -> Option<(Vec<String>, bool)> {
    Segments::read(raw).ok().map(|read| (read.names, read.slash))
}

/// The path as it is sent.
#[must_use]
pub fn written(raw: &str) -> Option<String> {
    Segments::read(raw).ok().map(|read| path::write(&read))
}

/// The parameters of a path that the template matches.
#[must_use]
pub fn matched(template: &Template, raw: &str) -> Option<Vec<(String, String)>> {
    let found = template.matches(&Segments::read(raw).ok()?)?;
    Some(found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Whether some path matches both templates.
#[must_use]
pub fn overlaps(one: &Template, two: &Template) -> bool {
    one.overlaps(two)
}

/// A request as it was read: the route, what is decided on, and what is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The offer.
    pub offer: String,
    /// What policy decides on.
    pub arguments: Map<String, Value>,
    /// The query as it is sent.
    pub query: String,
    /// The headers as they are sent.
    pub headers: HeaderMap,
    /// The body as it is sent.
    pub body: Bytes,
}

/// Reads a request.
#[must_use]
pub fn ask(target: &HttpTarget, method: &Method, at: (&str, Option<&str>), headers: &HeaderMap, body: &Bytes) -> Option<Asked> {
    let segments = Segments::read(at.0).ok()?;
    let (route, in_path) = request::route(target, method, &segments)?;
    let read = request::read(route, in_path, at.1, headers, body).ok()?;
    let (arguments, query) = (read.arguments, read.query);
    Some(Asked { offer: route.offer.to_string(), arguments, query, headers: read.headers, body: read.body })
}

/// What passes of an answer that arrives in pieces of `step` bytes; `None` if a secret was found in it.
#[must_use]
pub fn scan(secret: &str, answer: &[u8], step: usize) -> Option<Vec<u8>> {
    let mut scanner = Scanner::new(Needles::of([secret]));
    let mut out = Vec::new();
    for piece in answer.chunks(step.max(1)) {
        out.extend_from_slice(&scanner.push(piece).ok()?);
    }
    out.extend_from_slice(&scanner.finish().ok()?);
    Some(out)
}

/// A signed request.
#[derive(Debug)]
pub struct Signed {
    /// The query as it is sent.
    pub query: String,
    /// The headers as they are sent.
    pub headers: HeaderMap,
    /// The signature.
    pub signature: String,
}

/// Signs a request as one for `service`, with the secret `secret` at the time 0.
#[must_use]
pub fn sign(
    service: &str,
    in_query: bool,
    method: Method,
    at: (String, String),
    headers: HeaderMap,
    body: Bytes,
) -> Option<Signed> {
    let signature = if in_query { SignatureIn::Query } else { SignatureIn::Header };
    let secret = "secret".to_owned().into();
    let signing =
        Signing { access_key_id: "AKID", secret_access_key: &secret, session_token: None, region: "r-1", service, signature };
    let (path, query) = at;
    let mut draft = Draft { method, https: true, authority: "api.test".into(), path, query, headers, body };
    let signature = signing.apply(&mut draft, SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)).ok()?;
    Some(Signed { query: draft.query, headers: draft.headers, signature })
}
