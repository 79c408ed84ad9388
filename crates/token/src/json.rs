//! Strict JSON for hostile input: duplicate members are refused at every depth (two readers of one
//! document must never see two values, RFC 8725 §2.6) and nesting is bounded. Also the few typed reads
//! of claims that all token kinds share. It knows no token kind.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::excerpt;
use crate::{Error, UnixSeconds};

/// Deepest nesting of a token's or key document's JSON; real ones stay below 8.
pub(crate) const DEPTH_MAX: usize = 16;

/// `NumericDate`s later than the year 9999 are nonsense and would only invite overflow.
const NUMERIC_DATE_MAX: i64 = 253_402_300_799;

/// Parses `bytes` as one JSON object without duplicate members. `part` names it in errors.
pub(crate) fn parse_object(bytes: &[u8], part: &'static str) -> Result<Map<String, Value>, Error> {
    match parse(bytes, part)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::JsonMalformed { part }),
    }
}

/// Parses `bytes` as one JSON value without duplicate members, at most [`DEPTH_MAX`] deep.
pub(crate) fn parse(bytes: &[u8], part: &'static str) -> Result<Value, Error> {
    let fault = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value =
        Strict { depth: 0, fault: &fault }.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    value.map_err(|_| fault.take().unwrap_or(Error::JsonMalformed { part }))
}

/// Builds a [`Value`] while refusing what `serde_json` alone would silently accept. The cause is kept
/// aside, since serde's errors carry text only.
#[derive(Clone, Copy)]
struct Strict<'f> {
    depth: usize,
    fault: &'f RefCell<Option<Error>>,
}

impl Strict<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH_MAX {
            *self.fault.borrow_mut() = Some(Error::JsonTooDeep { limit: DEPTH_MAX });
            return Err(E::custom("too deep"));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            if map.contains_key(&name) {
                *self.fault.borrow_mut() = Some(Error::MemberDuplicate { name: excerpt(&name) });
                return Err(A::Error::custom("duplicate member"));
            }
            let value = access.next_value_seed(inner)?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// A string claim that must be there and not be empty.
pub(crate) fn required_str<'m>(map: &'m Map<String, Value>, claim: &'static str, bytes_max: usize) -> Result<&'m str, Error> {
    optional_str(map, claim, bytes_max)?.ok_or(Error::ClaimMissing { claim })
}

/// A string claim that may be absent, but if present must be a string of 1 to `bytes_max` bytes.
pub(crate) fn optional_str<'m>(
    map: &'m Map<String, Value>,
    claim: &'static str,
    bytes_max: usize,
) -> Result<Option<&'m str>, Error> {
    match map.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= bytes_max => Ok(Some(text)),
        Some(_) => Err(Error::ClaimMalformed { claim }),
    }
}

/// A `NumericDate` claim (RFC 7519 §2): fractions are cut off, negative or absurd values refused.
pub(crate) fn optional_time(map: &Map<String, Value>, claim: &'static str) -> Result<Option<UnixSeconds>, Error> {
    let Some(value) = map.get(claim) else {
        return Ok(None);
    };
    let seconds = match value {
        Value::Number(number) => number.as_i64().or_else(|| number.as_f64().and_then(whole)),
        _ => None,
    };
    seconds
        .filter(|secs| (0..=NUMERIC_DATE_MAX).contains(secs))
        .map(|secs| Some(UnixSeconds(secs)))
        .ok_or(Error::ClaimMalformed { claim })
}

/// A `NumericDate` claim that must be there.
pub(crate) fn required_time(map: &Map<String, Value>, claim: &'static str) -> Result<UnixSeconds, Error> {
    optional_time(map, claim)?.ok_or(Error::ClaimMissing { claim })
}

/// The whole seconds of a fractional date. The range makes the cast exact.
#[expect(clippy::cast_possible_truncation, reason = "bounded by the range check")]
fn whole(seconds: f64) -> Option<i64> {
    (0.0..=1e12).contains(&seconds).then(|| seconds.floor() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<(), Error>) {
        assert_eq!(parse(text.as_bytes(), "test").map(|_| ()), expected, "{text}");
    }

    fn duplicate(name: &str) -> Result<(), Error> {
        Err(Error::MemberDuplicate { name: name.to_owned() })
    }

    #[test]
    fn duplicate_members_are_refused_at_every_depth() {
        check(r#"{"a":1,"b":{"a":1}}"#, Ok(()));
        check(r#"{"a":1,"a":1}"#, duplicate("a"));
        check(r#"{"a":{"b":[{"c":1,"c":2}]}}"#, duplicate("c"));
        check(r#"{"sub":1,"s\u0075b":2}"#, duplicate("sub"));
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        check(&nested(DEPTH_MAX), Ok(()));
        check(&nested(DEPTH_MAX + 1), Err(Error::JsonTooDeep { limit: DEPTH_MAX }));
        check(&nested(4000), Err(Error::JsonTooDeep { limit: DEPTH_MAX }));
    }

    #[test]
    fn anything_after_the_value_is_refused() {
        check("{} {}", Err(Error::JsonMalformed { part: "test" }));
        check("", Err(Error::JsonMalformed { part: "test" }));
        check("{\"a\":1e999}", Err(Error::JsonMalformed { part: "test" }));
    }

    #[test]
    fn dates_are_whole_seconds_within_reason() {
        let check = |value: Value, expected: Option<i64>| {
            let map = Map::from_iter([("exp".to_owned(), value.clone())]);
            let read = optional_time(&map, "exp").ok().flatten().map(|time| time.0);
            assert_eq!(read, expected, "{value}");
        };
        check(1.into(), Some(1));
        check(serde_json::json!(1.9), Some(1));
        check((-1).into(), None);
        check("1".into(), None);
        check(u64::MAX.into(), None);
        check(serde_json::json!(1e300), None);
        check(Value::Null, None);
    }
}
