//! The JSON-RPC envelope of MCP: bytes to [`Message`], once. What was parsed is what is decided, and the same bytes
//! are what is forwarded, so everything that two parsers could read differently is refused here: duplicate keys at
//! every depth, keys of `params` that differ only in case (from each other, or from those that are decided on), deep
//! nesting, invalid UTF-8, unpaired surrogates.
//! No I/O, no clock; fuzzable. Must never know tools, tasks or policy.
//! JSON-RPC 2.0; MCP 2026-07-28 "Messages"; batches: MCP 2025-03-26 only, which the caller checks.

use bytes::Bytes;
use domain::json::{FaultKind, Limits, read_text};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value};
use std::fmt;

/// Longest request id, as JSON text. An id is echoed and kept while a call runs; it is not a place to store things.
pub const ID_BYTES_MAX: usize = 256;
/// Longest method name.
pub const METHOD_BYTES_MAX: usize = 128;
/// Most messages of one batch (MCP 2025-03-26).
pub const BATCH_MAX: usize = 64;

/// Text that is known to be one valid JSON value in UTF-8: a cheap slice of what arrived, or something that we wrote.
#[derive(Clone, PartialEq, Eq)]
pub struct Raw(Bytes);

impl Raw {
    /// The JSON text of `value`.
    #[must_use]
    pub fn from_value(value: &Value) -> Self {
        Self(Bytes::from(value.to_string()))
    }

    /// Checks that `bytes` are one JSON value (syntax only: neither keys nor depth).
    ///
    /// # Errors
    /// [`Malformed::NotJson`].
    pub fn from_json(bytes: Bytes) -> Result<Self, Malformed> {
        let text = utf8(&bytes)?;
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| Malformed::NotJson)?;
        Ok(Self(bytes.slice_ref(raw.get().as_bytes())))
    }

    /// Text that this crate composed of JSON texts.
    pub(crate) const fn trusted(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The text as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The value, leniently (last duplicate wins): for text that nothing is decided on, such as an upstream's answer.
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::from_slice(&self.0).unwrap_or(Value::Null)
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Raw({} bytes)", self.0.len())
    }
}

/// A request id: a string or an integer, never null (MCP "Requests").
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Id {
    /// An integer.
    Number(i64),
    /// A string.
    Text(Box<str>),
}

impl Id {
    /// The id as a JSON value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self {
            Self::Number(number) => Value::Number(Number::from(*number)),
            Self::Text(text) => Value::String(text.to_string()),
        }
    }

    /// The id that `value` is, if it is one.
    #[must_use]
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::Number),
            Value::String(text) if text.len() <= ID_BYTES_MAX => Some(Self::Text(text.as_str().into())),
            _ => None,
        }
    }

    fn from_raw(raw: &RawValue) -> Result<Self, Malformed> {
        if raw.get().len() > ID_BYTES_MAX {
            return Err(Malformed::Id);
        }
        serde_json::from_str::<Value>(raw.get()).ok().as_ref().and_then(Self::from_value).ok_or(Malformed::Id)
    }
}

impl fmt::Display for Id {
    /// The id as JSON text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(_) => write!(f, "{}", self.to_value()),
        }
    }
}

/// The parameters of a request or notification: the exact text that arrived, and what it says.
#[derive(Debug, Clone)]
pub struct Params {
    raw: Raw,
    value: Map<String, Value>,
}

impl Params {
    /// The text as it arrived: what is forwarded.
    #[must_use]
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// What it says: what is decided on.
    #[must_use]
    pub fn value(&self) -> &Map<String, Value> {
        &self.value
    }

    /// The same parameters with other text: what they say apart from what the client cannot say, such as the state
    /// that an upstream handed out.
    #[must_use]
    pub(crate) fn with_raw(self, raw: Raw) -> Self {
        Self { raw, value: self.value }
    }

    /// Parameters that we wrote ourselves.
    #[must_use]
    pub fn from_value(value: Map<String, Value>) -> Self {
        let whole = Value::Object(value);
        let raw = Raw::from_value(&whole);
        match whole {
            Value::Object(value) => Self { raw, value },
            _ => Self { raw, value: Map::new() },
        }
    }

    /// The member `key`, if it is a string.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<&str> {
        self.value.get(key).and_then(Value::as_str)
    }

    /// A member of `_meta`.
    #[must_use]
    pub fn meta(&self, key: &str) -> Option<&Value> {
        self.value.get("_meta").and_then(|meta| meta.get(key))
    }
}

/// A request: it wants an answer.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its id.
    pub id: Id,
    /// What it asks.
    pub method: String,
    /// With what.
    pub params: Option<Params>,
}

/// A notification: nobody answers it.
#[derive(Debug, Clone)]
pub struct Notification {
    /// What it says.
    pub method: String,
    /// About what.
    pub params: Option<Params>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// Which request it answers; `None` when the peer could not tell (JSON-RPC 2.0 §5).
    pub id: Option<Id>,
    /// The result, or the error object, as text: unknown members survive.
    pub outcome: Result<Raw, Raw>,
}

/// One JSON-RPC message.
#[derive(Debug, Clone)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A notification.
    Notification(Notification),
    /// An answer.
    Response(Response),
}

/// The messages of one body.
#[derive(Debug, Clone)]
pub enum Payload {
    /// One message.
    Single(Message),
    /// A batch (MCP 2025-03-26 only). Never empty.
    Batch(Vec<Message>),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not UTF-8.
    #[error("the message is not valid UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("the message is not valid JSON")]
    NotJson,
    /// Two members of an object have the same name, or two of `params` differ only in case.
    #[error("an object in the message has the same key twice")]
    DuplicateKey,
    /// A member of `params` differs only in case from one that is decided on.
    #[error("a member of `params` is spelled in another case than the protocol spells it")]
    Spelling,
    /// Nested too deep.
    #[error("the message is nested too deep")]
    TooDeep,
    /// Not an object of JSON-RPC 2.0.
    #[error("the message is not a JSON-RPC 2.0 request, notification or response")]
    NotJsonRpc,
    /// The id is neither a string nor an integer, or it is too long.
    #[error("the id must be a string or an integer of at most {ID_BYTES_MAX} bytes")]
    Id,
    /// `params` is not an object.
    #[error("`params` must be an object")]
    Params,
    /// An empty batch, or one with too many messages.
    #[error("a batch must have 1 to {BATCH_MAX} messages")]
    Batch,
}

impl Malformed {
    /// The JSON-RPC error code.
    #[must_use]
    pub const fn code(self) -> i64 {
        match self {
            Self::NotUtf8 | Self::NotJson => super::version::code::PARSE_ERROR,
            Self::Params => super::version::code::INVALID_PARAMS,
            Self::DuplicateKey | Self::Spelling | Self::TooDeep | Self::NotJsonRpc | Self::Id | Self::Batch => {
                super::version::code::INVALID_REQUEST
            }
        }
    }
}

impl Payload {
    /// Parses the body of a request, or one line or event of a stream.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(body: &Bytes) -> Result<Self, Malformed> {
        let text = utf8(body)?;
        if !text.trim_start().starts_with('[') {
            return Message::from_text(body, text).map(Self::Single);
        }
        let parts: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| Malformed::NotJson)?;
        if !(1..=BATCH_MAX).contains(&parts.len()) {
            return Err(Malformed::Batch);
        }
        let messages = parts.into_iter().map(|part| Message::from_text(body, part.get())).collect::<Result<_, _>>()?;
        Ok(Self::Batch(messages))
    }
}

impl Message {
    /// Parses exactly one message.
    ///
    /// # Errors
    /// What is wrong with it; a batch is [`Malformed::NotJsonRpc`].
    pub fn parse(body: &Bytes) -> Result<Self, Malformed> {
        Self::from_text(body, utf8(body)?)
    }

    fn from_text(body: &Bytes, text: &str) -> Result<Self, Malformed> {
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(|error| fault_of(&error))?;
        if envelope.jsonrpc != Some(true) {
            return Err(Malformed::NotJsonRpc);
        }
        let id = envelope.id.map(Id::from_raw);
        match (envelope.method, envelope.result, envelope.error) {
            (Some(method), None, None) => {
                if method.is_empty() || method.len() > METHOD_BYTES_MAX {
                    return Err(Malformed::NotJsonRpc);
                }
                let params = envelope.params.map(|raw| parse_params(body, raw)).transpose()?;
                Ok(match id.transpose()? {
                    Some(id) => Self::Request(Request { id, method, params }),
                    None => Self::Notification(Notification { method, params }),
                })
            }
            (None, Some(raw), None) if envelope.params.is_none() => {
                let id = Some(id.ok_or(Malformed::Id)??);
                Ok(Self::Response(Response { id, outcome: Ok(slice(body, raw)) }))
            }
            (None, None, Some(raw)) if envelope.params.is_none() && raw.get().starts_with('{') => {
                let id = match envelope.id {
                    Some(text) if text.get() != "null" => Some(Id::from_raw(text)?),
                    _ => None,
                };
                Ok(Self::Response(Response { id, outcome: Err(slice(body, raw)) }))
            }
            _ => Err(Malformed::NotJsonRpc),
        }
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)
}

fn slice(body: &Bytes, raw: &RawValue) -> Raw {
    Raw(body.slice_ref(raw.get().as_bytes()))
}

/// Members of `params`, and of the objects in it, that are decided on or that we change.
const DECIDED_ON: &str = "_meta argument arguments context inputResponses name notifications ref requestState task uri";
const DECIDED_ON_WITHIN: [(&str, &str); 2] = [("ref", "name type uri"), ("notifications", "resourceSubscriptions")];

/// Some JSON libraries match member names without regard to case: `Name` would replace `name` upstream, and
/// `Arguments` alone would arrive there as arguments that nobody decided on.
fn one_spelling(object: &Map<String, Value>, known: &str) -> Result<(), Malformed> {
    let mut folded: Vec<String> = object.keys().map(|key| key.to_uppercase().to_lowercase()).collect();
    let respelt =
        |(folded, key): (&String, &String)| known.split(' ').any(|name| name != key && name.eq_ignore_ascii_case(folded));
    let respelt = folded.iter().zip(object.keys()).any(respelt);
    folded.sort_unstable();
    if folded.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
        return Err(Malformed::DuplicateKey);
    }
    if respelt { Err(Malformed::Spelling) } else { Ok(()) }
}

fn parse_params(body: &Bytes, raw: &RawValue) -> Result<Params, Malformed> {
    let value = match strict_value(raw.get())? {
        Value::Object(value) => value,
        _ => return Err(Malformed::Params),
    };
    one_spelling(&value, DECIDED_ON)?;
    for (member, known) in DECIDED_ON_WITHIN {
        if let Some(Value::Object(inner)) = value.get(member) {
            one_spelling(inner, known)?;
        }
    }
    Ok(Params { raw: slice(body, raw), value })
}

/// Reads JSON in which every reader must see the same thing.
///
/// # Errors
/// [`Malformed::NotJson`], [`Malformed::DuplicateKey`], [`Malformed::TooDeep`].
pub fn strict_value(text: &str) -> Result<Value, Malformed> {
    read_text(text, Limits::MESSAGE).map_err(|fault| match fault.kind {
        FaultKind::Duplicate(_) => Malformed::DuplicateKey,
        FaultKind::TooDeep(_) => Malformed::TooDeep,
        FaultKind::TooLarge(_) | FaultKind::Inexact | FaultKind::NotUtf8 | FaultKind::Syntax(_) => Malformed::NotJson,
    })
}

const DUPLICATE: &str = "duplicate key";
const NOT_ENVELOPE: &str = "not an envelope";

fn fault_of(error: &serde_json::Error) -> Malformed {
    // The visitor can speak to us only through serde_json's error text.
    let text = error.to_string();
    if text.starts_with(DUPLICATE) {
        Malformed::DuplicateKey
    } else if text.starts_with("recursion limit") {
        Malformed::TooDeep
    } else if text.starts_with(NOT_ENVELOPE) || text.starts_with("invalid type") {
        Malformed::NotJsonRpc
    } else {
        Malformed::NotJson
    }
}

/// The members of a message that mean something. Others are not read and, since the envelope is written anew, not
/// forwarded.
#[derive(Default)]
struct Envelope<'a> {
    jsonrpc: Option<bool>,
    id: Option<&'a RawValue>,
    method: Option<String>,
    params: Option<&'a RawValue>,
    result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EnvelopeVisitor;
        impl<'de> Visitor<'de> for EnvelopeVisitor {
            type Value = Envelope<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON-RPC message")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                fn put<T, E: serde::de::Error>(slot: &mut Option<T>, value: T) -> Result<(), E> {
                    if slot.replace(value).is_some() { Err(E::custom(DUPLICATE)) } else { Ok(()) }
                }
                let mut envelope = Envelope::default();
                while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    match &*key {
                        "jsonrpc" => {
                            let text: &RawValue = map.next_value()?;
                            put(&mut envelope.jsonrpc, text.get() == "\"2.0\"")?;
                        }
                        "method" => {
                            let text: &RawValue = map.next_value()?;
                            let method = serde_json::from_str(text.get()).map_err(|_| A::Error::custom(NOT_ENVELOPE))?;
                            put(&mut envelope.method, method)?;
                        }
                        "id" => put(&mut envelope.id, map.next_value()?)?,
                        "params" => put(&mut envelope.params, map.next_value()?)?,
                        "result" => put(&mut envelope.result, map.next_value()?)?,
                        "error" => put(&mut envelope.error, map.next_value()?)?,
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                    }
                }
                Ok(envelope)
            }
        }
        deserializer.deserialize_map(EnvelopeVisitor)
    }
}

#[cfg(test)]
mod tests;
