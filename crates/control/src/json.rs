//! Strict JSON from outside (RFC 8259, I-JSON RFC 7493 §2): duplicate member names, deep nesting and numbers that cannot
//! be held exactly are refused, because two readers of such a text could see two different requests. Pure; the caller
//! caps the size.

use domain::limits::JSON_DEPTH_MAX;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Whole numbers beyond this are not exact in every reader (RFC 7493 §2.2).
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// The value of a JSON text, or what is wrong with it and where (lower case, fit for the sender).
pub(crate) fn parse(text: &[u8]) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: 0 }.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth >= JSON_DEPTH_MAX {
            return Err(E::custom(format_args!("nested deeper than {JSON_DEPTH_MAX} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
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
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
        if number.abs() >= EXACT_MAX {
            return Err(E::custom("a number is too large to be held exactly; send it as a string"));
        }
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                let shown: String = name.chars().take(64).flat_map(char::escape_debug).collect();
                return Err(de::Error::custom(format_args!("member `{shown}` occurs twice")));
            }
            let value = members.next_value_seed(inner)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_text_that_two_readers_could_read_differently_is_refused() {
        let deep = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        let cases = [
            (r#"{"a":1,"a":2}"#.to_owned(), "occurs twice"),
            (r#"{"a":1,"\u0061":2}"#.to_owned(), "occurs twice"),
            (r#"{"x":{"a":1,"b":[{"a":1,"a":1}]}}"#.to_owned(), "occurs twice"),
            (deep(65), "nested deeper"),
            ("123456789012345678901234567890".to_owned(), "exactly"),
            ("1e300".to_owned(), "exactly"),
            ("1e999".to_owned(), "out of range"),
            ("{} {}".to_owned(), "trailing"),
            (String::new(), "EOF"),
            ("{".to_owned(), "EOF"),
            ("nul".to_owned(), "EOF"),
            ("\u{feff}{}".to_owned(), "expected"),
            ("NaN".to_owned(), "expected"),
        ];
        for (text, expected) in cases {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(parse(&[b'"', 0xff, b'"']).is_err(), "not UTF-8");
    }

    #[test]
    fn plain_texts_are_read_as_they_are() {
        let text = r#"{"a":[1,-2,1.5,true,null,"x"],"b":{"c":18446744073709551615}}"#;
        assert_eq!(
            parse(text.as_bytes()).unwrap(),
            json!({"a":[1,-2,1.5,true,null,"x"],"b":{"c":18_446_744_073_709_551_615_u64}})
        );
        assert!(parse(format!("{}1{}", "[".repeat(64), "]".repeat(64)).as_bytes()).is_ok());
    }
}
