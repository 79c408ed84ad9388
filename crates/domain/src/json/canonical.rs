//! One spelling for each JSON value (RFC 8785: members by UTF-16 code units, shortest floats, never the map's own order, which a
//! feature flag of another crate changes), except that whole numbers stay exact instead of passing through a double: two
//! values that differ must never look equal.

use serde_json::{Map, Number, Value};
use std::fmt::Write as _;

/// The canonical text of a value.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => write_object(out, members),
    }
}

/// RFC 8785 §3.2.3. UTF-16 order differs from UTF-8 order above the surrogates.
fn write_object(out: &mut String, members: &Map<String, Value>) {
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_unstable_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push('{');
    for (place, (name, value)) in sorted.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        write_text(out, name);
        out.push(':');
        write_value(out, value);
    }
    out.push('}');
}

/// RFC 8785 §3.2.2.2: only what must be escaped is escaped.
fn write_text(out: &mut String, text: &str) {
    out.reserve(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            control if control < ' ' => drop(write!(out, "\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}

fn write_number(out: &mut String, number: &Number) {
    match number.as_f64() {
        _ if number.is_i64() || number.is_u64() => drop(write!(out, "{number}")),
        Some(float) if float.is_finite() => write_float(out, float),
        // Not representable here (never built by a parser without arbitrary precision): keep its text.
        _ => drop(write!(out, "{number}")),
    }
}

/// RFC 8785 §3.2.2.3 (ECMAScript `Number::toString`): shortest digits that read back as the same double.
fn write_float(out: &mut String, float: f64) {
    if float == 0.0 {
        return out.push('0');
    }
    let text = format!("{float:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let digits: String = digits.chars().filter(|c| *c != '.').collect();
    out.push_str(sign);
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
    // `point` digits stand before the decimal point.
    let point = exponent + 1;
    let split = digits.split_at_checked(usize::try_from(point).unwrap_or(0));
    match (point, split) {
        (1..=21, _) if count <= point => drop(write!(out, "{digits}{}", zeros(point - count))),
        (1..=21, Some((whole, part))) => drop(write!(out, "{whole}.{part}")),
        (-5..=0, _) => drop(write!(out, "0.{}{digits}", zeros(-point))),
        _ => {
            let (first, rest) = digits.split_at_checked(1).unwrap_or((&digits, ""));
            let dot = if rest.is_empty() { "" } else { "." };
            let plus = if exponent > 0 { "+" } else { "" };
            let _ = write!(out, "{first}{dot}{rest}e{plus}{exponent}");
        }
    }
}
