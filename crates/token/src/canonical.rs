//! Canonical JSON: one value, one byte string. Keys are sorted by UTF-16 code units as in RFC 8785 (never
//! by the map's own order, which a feature flag of another crate changes), without white space.

use serde_json::Value;

/// The canonical bytes of `value`.
///
/// Strings and integers are written as RFC 8785 demands; other numbers as `serde_json` writes them, which
/// is deterministic but may differ from RFC 8785 in the exponent's form.
#[must_use]
pub fn canonical_json(value: &Value) -> Vec<u8> {
    let mut out = String::new();
    write(value, &mut out);
    out.into_bytes()
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (index, (name, value)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_scalar(&Value::String(name.clone()), out);
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        scalar => write_scalar(scalar, out),
    }
}

/// `serde_json` escapes exactly what RFC 8785 §3.2.2.2 does: controls, quote and backslash.
fn write_scalar(scalar: &Value, out: &mut String) {
    out.push_str(&scalar.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_whatever_order_they_came_in() {
        let value = json!({"b": [1, {"z": 1, "a": null}], "a": "x\u{1}\"\\é", "B": true});
        let expected = "{\"B\":true,\"a\":\"x\\u0001\\\"\\\\é\",\"b\":[1,{\"a\":null,\"z\":1}]}";
        assert_eq!(String::from_utf8(canonical_json(&value)).as_deref(), Ok(expected));
    }

    #[test]
    fn keys_are_sorted_by_utf_16_units() {
        // U+10000 is D800 DC00 in UTF-16 and so comes before U+FFFF, unlike in UTF-8.
        let value = json!({"\u{ffff}": 1, "\u{10000}": 2});
        let expected = "{\"\u{10000}\":2,\"\u{ffff}\":1}";
        assert_eq!(String::from_utf8(canonical_json(&value)).as_deref(), Ok(expected));
    }
}
