//! Between the eras: what a client of one era says, in the words of the other. Only `_meta` is touched; every other byte
//! of the parameters stays. MCP 2026-07-28 "Versioning", "Per-request protocol fields".

use super::error::UpstreamError;
use super::link::Link;
use crate::mcp::leaving;
use crate::mcp::message::Raw;
use crate::mcp::object::Members;
use crate::mcp::version::{Era, meta};
use serde_json::{Value, json};

const NOT_AN_OBJECT: UpstreamError = UpstreamError::Protocol("parameters are not an object");

/// Parameters as an upstream of this era wants them from this client.
pub(super) fn outbound(link: &Link, era: Era, params: Option<&Raw>) -> Result<Option<Raw>, UpstreamError> {
    match (link.client.era.is_modern(), era.is_modern()) {
        (false, false) => Ok(params.cloned()),
        // A stateless client's own requests carry everything; ours do not.
        (true, true) if params.is_some_and(carries_version) => Ok(params.cloned()),
        (_, true) => modern(link, era, params).map(Some),
        (true, false) => params.map(legacy).transpose(),
    }
}

fn carries_version(params: &Raw) -> bool {
    Members::of(params).and_then(|members| members.value("_meta")).is_some_and(|tags| tags.get(meta::PROTOCOL_VERSION).is_some())
}

fn modern(link: &Link, era: Era, params: Option<&Raw>) -> Result<Raw, UpstreamError> {
    let none = Raw::from_value(&json!({}));
    let mut members = Members::of(params.unwrap_or(&none)).ok_or(NOT_AN_OBJECT)?;
    let tags = members.get("_meta").map(|text| Raw::from_json(text.to_owned().into())).transpose();
    let tags = tags.map_err(|_| NOT_AN_OBJECT)?.unwrap_or_else(|| Raw::from_value(&json!({})));
    let mut tags = Members::of(&tags).ok_or(NOT_AN_OBJECT)?;
    let client = &link.client;
    tags.set(meta::PROTOCOL_VERSION, &Value::from(era.version().as_str()));
    let capabilities = if client.capabilities.is_object() { client.capabilities.clone() } else { json!({}) };
    tags.set(meta::CLIENT_CAPABILITIES, &capabilities);
    tags.set(meta::CLIENT_INFO, &leaving::name());
    if let Some(level) = link.inbox.log_level() {
        tags.set(meta::LOG_LEVEL, &Value::from(level));
    }
    members.set_text("_meta", String::from_utf8_lossy(tags.to_raw().as_bytes()).into_owned());
    Ok(members.to_raw())
}

/// A server of both eras would take these keys for a stateless request.
fn legacy(params: &Raw) -> Result<Raw, UpstreamError> {
    let mut members = Members::of(params).ok_or(NOT_AN_OBJECT)?;
    let Some(text) = members.get("_meta").map(str::to_owned) else { return Ok(params.clone()) };
    let tags = Raw::from_json(text.into()).map_err(|_| NOT_AN_OBJECT)?;
    let mut tags = Members::of(&tags).ok_or(NOT_AN_OBJECT)?;
    for key in [meta::PROTOCOL_VERSION, meta::CLIENT_CAPABILITIES, meta::CLIENT_INFO, meta::LOG_LEVEL] {
        tags.remove(key);
    }
    let rest = tags.to_raw();
    if rest.as_bytes() == b"{}" {
        members.remove("_meta");
    } else {
        members.set_text("_meta", String::from_utf8_lossy(rest.as_bytes()).into_owned());
    }
    Ok(members.to_raw())
}

/// The log level that a stateless request asks for.
pub(super) fn log_level(params: Option<&Raw>) -> Option<String> {
    let tags = Members::of(params?)?.value("_meta")?;
    tags.get(meta::LOG_LEVEL).and_then(Value::as_str).map(str::to_owned)
}
