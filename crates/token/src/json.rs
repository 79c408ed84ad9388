//! JSON of tokens, key sets and proofs: `domain`'s strict reader (RFC 8725 §2.6 wants no member twice) in the words of this
//! crate's errors, and the few typed reads of claims that all token kinds share. It knows no token kind.

use domain::json::{self, FaultKind, Limits};
use serde_json::{Map, Value};

use crate::error::excerpt;
use crate::{Error, UnixSeconds};

/// `NumericDate`s later than the year 9999 are nonsense and would only invite overflow.
const NUMERIC_DATE_MAX: i64 = 253_402_300_799;

/// Parses `bytes` as one JSON object without duplicate members. `part` names it in errors.
pub(crate) fn parse_object(bytes: &[u8], part: &'static str) -> Result<Map<String, Value>, Error> {
    match parse(bytes, part)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::JsonMalformed { part }),
    }
}

/// Reads `bytes` as one JSON value ([`Limits::TOKEN`]).
pub(crate) fn parse(bytes: &[u8], part: &'static str) -> Result<Value, Error> {
    json::read(bytes, Limits::TOKEN).map_err(|fault| match fault.kind {
        FaultKind::TooDeep(limit) => Error::JsonTooDeep { limit },
        FaultKind::TooLarge(limit) => Error::TooLarge { limit },
        FaultKind::Duplicate(name) => Error::MemberDuplicate { name: excerpt(&name) },
        FaultKind::Inexact | FaultKind::NotUtf8 | FaultKind::Syntax(_) => Error::JsonMalformed { part },
    })
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
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_wrong_with_a_text_is_told_in_the_words_of_tokens() {
        let fault = |text: &str| parse(text.as_bytes(), "test").unwrap_err();
        assert_eq!(fault(r#"{"sub":1,"s\u0075b":2}"#), Error::MemberDuplicate { name: "sub".to_owned() });
        let limit = Limits::TOKEN.depth_max;
        assert_eq!(fault(&("[".repeat(limit + 1) + &"]".repeat(limit + 1))), Error::JsonTooDeep { limit });
        assert_eq!(fault("{} {}"), Error::JsonMalformed { part: "test" });
        assert!(parse_object(b"[]", "test").is_err());
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
