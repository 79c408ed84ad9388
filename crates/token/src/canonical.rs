//! Canonical JSON: one value, one byte string. Keys sorted by UTF-16 code units as in RFC 8785 (never
//! relying on the map's own order, which another crate's feature may change), no white space.

use serde_json::Value;

/// The canonical bytes of `value`.
///
/// Strings and integers are written as RFC 8785 demands; other numbers as `serde_json` writes them, which
/// is deterministic but may differ from RFC 8785 in the exponent's form.
#[must_use]
pub fn canonical_json(value: &Value) -> Vec<u8> {
    todo!()
}
