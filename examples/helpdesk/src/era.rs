//! Which protocol revision a request speaks, and whether its headers tell the same as its body. The
//! stateless revision 2026-07-28 repeats method and name in headers for intermediaries; a server that
//! reads the body must refuse a request whose headers say something else.
//! MCP 2026-07-28, basic/transports/streamable-http, "Request Metadata" and "Server Validation".

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::message::{Fault, Incoming};

/// The stateless revision.
pub(crate) const STATELESS: &str = "2026-07-28";
/// The newest revision with sessions: the answer to a client that asks for an unknown one.
pub(crate) const SESSION_NEWEST: &str = "2025-11-25";
/// All revisions served, newest first.
pub(crate) const REVISIONS: [&str; 3] = [STATELESS, SESSION_NEWEST, "2025-06-18"];

const VERSION_HEADER: &str = "mcp-protocol-version";
const VERSION_META: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_META: &str = "io.modelcontextprotocol/clientCapabilities";

/// How a request is to be handled.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// On its own: everything needed is in the request.
    Stateless,
    /// Within a session, or opening one.
    Session,
}

/// Tells the era of a request and, for the stateless one, checks that headers and body agree.
///
/// # Errors
/// The [`Fault`] that the revision prescribes for what is missing or differs.
pub(crate) fn of(headers: &HeaderMap, incoming: &Incoming) -> Result<Era, Fault> {
    let header = text(headers, VERSION_HEADER)?;
    let meta = incoming.meta(VERSION_META).map(|version| version.as_str().unwrap_or_default());
    match (header, meta) {
        (Some(header), _) if !REVISIONS.contains(&header) => Err(Fault::UnsupportedRevision(header.to_owned())),
        (header, None) if header != Some(STATELESS) => Ok(Era::Session),
        (_, None) => Err(Fault::MissingMeta(VERSION_META)),
        (None, Some(_)) => Err(Fault::HeaderMismatch("`MCP-Protocol-Version` is required".to_owned())),
        (Some(header), Some(meta)) if header != meta => {
            Err(Fault::HeaderMismatch(format!("`MCP-Protocol-Version` is `{header}`, the body says `{meta}`")))
        }
        (Some(STATELESS), Some(_)) => {
            check_mirrored(headers, incoming)?;
            match incoming.meta(CAPABILITIES_META) {
                Some(capabilities) if capabilities.is_object() => Ok(Era::Stateless),
                _ => Err(Fault::MissingMeta(CAPABILITIES_META)),
            }
        }
        // A revision with sessions, named in the body as well: harmless.
        (Some(_), Some(_)) => Ok(Era::Session),
    }
}

fn check_mirrored(headers: &HeaderMap, incoming: &Incoming) -> Result<(), Fault> {
    let method = text(headers, "mcp-method")?;
    if method != Some(incoming.method.as_str()) {
        return Err(Fault::HeaderMismatch(format!(
            "`Mcp-Method` is `{}`, the body says `{}`",
            method.unwrap_or_default(),
            incoming.method
        )));
    }
    let member = match incoming.method.as_str() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return Ok(()),
    };
    let in_body = incoming.params.get(member).and_then(|value| value.as_str());
    let in_header = text(headers, "mcp-name")?.map(decoded).transpose()?;
    if in_header.is_none() || in_header.as_deref() != in_body {
        return Err(Fault::HeaderMismatch(format!(
            "`Mcp-Name` is `{}`, the body says `{}`",
            in_header.unwrap_or_default(),
            in_body.unwrap_or_default()
        )));
    }
    Ok(())
}

/// A header that may occur once and holds visible ASCII.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Fault::HeaderMismatch(format!("`{name}` occurs more than once")));
    }
    first.map(|value| value.to_str().map_err(|_| Fault::HeaderMismatch(format!("`{name}` is not ASCII")))).transpose()
}

/// Undoes the Base64 form that carries names which a header cannot.
fn decoded(value: &str) -> Result<String, Fault> {
    let Some(encoded) = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) else {
        return Ok(value.to_owned());
    };
    STANDARD
        .decode(encoded)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Fault::HeaderMismatch("`Mcp-Name` is not Base64 of UTF-8".to_owned()))
}
