//! Server-sent events as MCP writes them to clients, and the JSON-RPC frames inside. Writes only: reading what an
//! upstream streams is the upstream half's. WHATWG HTML "Server-sent events"; MCP "Streamable HTTP".

use super::message::{Id, Raw};
use bytes::{BufMut, Bytes, BytesMut};

/// A comment that keeps a quiet stream open.
pub const KEEP_ALIVE: Bytes = Bytes::from_static(b":\n\n");

/// One message as an event. JSON text has no raw line breaks inside strings, but may have them between tokens.
#[must_use]
pub fn event(id: Option<&str>, message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 48);
    put_id(&mut out, id);
    for line in message.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.put_slice(b"data: ");
        out.put_slice(line);
        out.put_u8(b'\n');
    }
    out.put_u8(b'\n');
    out.freeze()
}

/// An event without a message, from which a client can come back (MCP 2025-11-25 "Sending Messages" §6).
#[must_use]
pub fn cursor(id: Option<&str>, retry_millis: Option<u64>) -> Bytes {
    let mut out = BytesMut::with_capacity(48);
    put_id(&mut out, id);
    if let Some(millis) = retry_millis {
        out.put_slice(format!("retry: {millis}\n").as_bytes());
    }
    out.put_slice(b"data: \n\n");
    out.freeze()
}

fn put_id(out: &mut BytesMut, id: Option<&str>) {
    // An id that could end its line would let an upstream write fields of ours.
    if let Some(id) = id.filter(|id| !id.bytes().any(|byte| matches!(byte, b'\n' | b'\r' | 0))) {
        out.put_slice(b"id: ");
        out.put_slice(id.as_bytes());
        out.put_u8(b'\n');
    }
}

/// The frame of a response with a result.
#[must_use]
pub fn result(id: &Id, result: &Raw) -> Bytes {
    respond(Some(id), b"\"result\":", result.as_bytes())
}

/// The frame of a response with an error object.
#[must_use]
pub fn error(id: Option<&Id>, error: &Raw) -> Bytes {
    respond(id, b"\"error\":", error.as_bytes())
}

fn respond(id: Option<&Id>, member: &[u8], value: &[u8]) -> Bytes {
    let id = id.map(ToString::to_string);
    let mut out = BytesMut::with_capacity(value.len() + 48 + id.as_ref().map_or(0, String::len));
    out.put_slice(b"{\"jsonrpc\":\"2.0\",");
    if let Some(id) = id {
        out.put_slice(b"\"id\":");
        out.put_slice(id.as_bytes());
        out.put_u8(b',');
    }
    out.put_slice(member);
    out.put_slice(value);
    out.put_u8(b'}');
    out.freeze()
}

/// The frame of a notification, or with an id that of a request.
#[must_use]
pub fn call(id: Option<&Id>, method: &str, params: Option<&Raw>) -> Bytes {
    let method = serde_json::Value::from(method).to_string();
    let mut out = BytesMut::with_capacity(params.map_or(0, |raw| raw.as_bytes().len()) + method.len() + 64);
    out.put_slice(b"{\"jsonrpc\":\"2.0\",");
    if let Some(id) = id {
        out.put_slice(format!("\"id\":{id},").as_bytes());
    }
    out.put_slice(b"\"method\":");
    out.put_slice(method.as_bytes());
    if let Some(params) = params {
        out.put_slice(b",\"params\":");
        out.put_slice(params.as_bytes());
    }
    out.put_u8(b'}');
    out.freeze()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;
    use crate::mcp::message::{Message, Payload};

    #[test]
    fn line_breaks_between_tokens_do_not_end_an_event() {
        assert_eq!(&event(Some("7"), b"{\r\n\"a\":1\n}")[..], b"id: 7\ndata: {\ndata: \ndata: \"a\":1\ndata: }\n\n");
    }

    #[test]
    fn an_event_id_cannot_write_other_fields() {
        assert_eq!(&cursor(Some("1\ndata: x"), Some(5))[..], b"retry: 5\ndata: \n\n");
    }

    #[test]
    fn frames_are_messages() {
        let raw = Raw::from_json(Bytes::from_static(b"{\"a\":1}")).unwrap();
        let id = Id::Text("a\"b".into());
        for frame in [
            result(&id, &raw),
            error(Some(&id), &raw),
            error(None, &raw),
            call(Some(&id), "m", Some(&raw)),
            call(None, "m", None),
        ] {
            let Ok(Payload::Single(message)) = Payload::parse(&frame) else { panic!("{frame:?}") };
            if let Message::Request(request) = message {
                assert_eq!(request.id, id);
            }
        }
    }
}
