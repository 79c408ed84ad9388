//! The one way in which Writ reads JSON that somebody else wrote, and the one way in which it writes JSON that is hashed.
//!
//! Two readers of one text must never see two values: a member that occurs twice is refused at every depth (RFC 8259 §4
//! leaves it open, RFC 7493 §2.3 forbids it), so is what is not UTF-8; depth and size are bounded, for each reader with
//! a reason ([`Limits`]). Numbers are read as `serde_json` reads them; [`Numbers::Exact`] is for those that go on to others.
//! Unknown members, types and spelling are the business of whoever knows what the text should say.
//!
//! Pure; knows no message, token or policy.

mod canonical;

pub use canonical::canonical;

use crate::limits::{JSON_DEPTH_MAX, REQUEST_BYTES_MAX};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// Doubles from here on may stand for more than one whole number (RFC 7493 §2.2).
const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
/// Longest excerpt of a member's name in a fault, in characters.
const NAME_SHOWN_MAX: usize = 64;

/// What may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest text, in bytes.
    pub bytes_max: usize,
    /// Most objects and arrays around a value.
    pub depth_max: usize,
    /// Which numbers.
    pub numbers: Numbers,
}

/// Which numbers may be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// All that `serde_json` reads: whole ones of 64 bits exactly, others as the nearest double. What is decided on is checked
    /// where it is decided.
    Any,
    /// Only such that every reader holds alike (RFC 7493 §2.2); see [`is_exact`]. For what goes on to somebody who may read more
    /// digits.
    Exact,
}

impl Limits {
    /// Messages of agents and upstreams: arguments may be nested as deep as a document.
    pub const MESSAGE: Self = Self { bytes_max: REQUEST_BYTES_MAX, depth_max: JSON_DEPTH_MAX, numbers: Numbers::Any };
    /// Requests whose values are written anew, stored or compared: the same depth, and no number that could change on the way.
    pub const RECORD: Self = Self { numbers: Numbers::Exact, ..Self::MESSAGE };
    /// Tokens, key sets and declarations of tasks: real ones stay below 8 levels, and they are read before anybody is known.
    pub const TOKEN: Self = Self { depth_max: 16, ..Self::MESSAGE };
    /// Files that Writ wrote around definitions out of messages: those and a few levels more. Kept below the 128 levels at
    /// which `serde_json` gives up.
    pub const FILE: Self = Self { bytes_max: usize::MAX, depth_max: JSON_DEPTH_MAX + 8, numbers: Numbers::Any };
}

/// Why a text is not read, and where. A text that is too large or not UTF-8 has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Why.
    pub kind: FaultKind,
    /// Line, from 1; 0 if there is no place.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// It has more bytes than this.
    #[error("it has more than {0} bytes")]
    TooLarge(usize),
    /// It is nested deeper than this.
    #[error("nested deeper than {0} levels")]
    TooDeep(usize),
    /// This member (or the beginning of its name) occurs twice in one object.
    #[error("member `{}` occurs twice", .0.escape_debug())]
    Duplicate(String),
    /// A number is not exact.
    #[error("a number is too large to be held exactly; send it as a string")]
    Inexact,
    /// It is not UTF-8.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// It is not JSON.
    #[error("{0}")]
    Syntax(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}", self.kind),
            line => write!(f, "{} at line {line} column {}", self.kind, self.column),
        }
    }
}

impl std::error::Error for Fault {}

/// Reads one JSON value and nothing after it.
///
/// # Errors
/// [`Fault`] says why not and where.
pub fn read(text: &[u8], limits: Limits) -> Result<Value, Fault> {
    within(text.len(), limits)?;
    let text = std::str::from_utf8(text).map_err(|_| Fault { kind: FaultKind::NotUtf8, line: 0, column: 0 })?;
    read_text(text, limits)
}

/// The same for text that is known to be UTF-8.
///
/// # Errors
/// As [`read`].
pub fn read_text(text: &str, limits: Limits) -> Result<Value, Fault> {
    within(text.len(), limits)?;
    let shared = Shared { limits, fault: Cell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Reader { left: limits.depth_max, shared: &shared }.deserialize(&mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let syntax = || {
            let (text, place) = (error.to_string(), format!(" at line {line} column {column}"));
            FaultKind::Syntax(text.strip_suffix(&place).unwrap_or(&text).to_owned())
        };
        Fault { kind: shared.fault.take().unwrap_or_else(syntax), line, column }
    })
}

/// Whether every number in `value` is one that all readers hold alike: whole numbers of 64 bits, and fractions below 2^53.
/// A whole number that overflowed into a double is not what a reader with big integers would see.
#[must_use]
pub fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_i64() || number.is_u64() || number.as_f64().is_some_and(is_exact_double),
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn is_exact_double(double: f64) -> bool {
    double.abs() < EXACT_BELOW
}

fn within(len: usize, limits: Limits) -> Result<(), Fault> {
    if len > limits.bytes_max {
        return Err(Fault { kind: FaultKind::TooLarge(limits.bytes_max), line: 0, column: 0 });
    }
    Ok(())
}

/// What one reading shares at all depths. The cause is kept here, because serde's errors carry text only.
struct Shared {
    limits: Limits,
    fault: Cell<Option<FaultKind>>,
}

/// Builds a [`Value`] and refuses what `serde_json` alone would let pass.
#[derive(Clone, Copy)]
struct Reader<'s> {
    /// How many levels more there may be.
    left: usize,
    shared: &'s Shared,
}

impl Reader<'_> {
    #[cold]
    fn refuse<E: serde::de::Error>(self, kind: FaultKind) -> E {
        self.shared.fault.set(Some(kind));
        E::custom("refused")
    }

    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left, ..self }),
            None => Err(self.refuse(FaultKind::TooDeep(self.shared.limits.depth_max))),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        if self.shared.limits.numbers == Numbers::Exact && !is_exact_double(number) {
            return Err(self.refuse(FaultKind::Inexact));
        }
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            match object.entry(name) {
                Entry::Vacant(free) => drop(free.insert(members.next_value_seed(inner)?)),
                Entry::Occupied(taken) => {
                    let name = taken.key().chars().take(NAME_SHOWN_MAX).collect();
                    return Err(self.refuse(FaultKind::Duplicate(name)));
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests;
