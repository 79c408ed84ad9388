//! Claims about reading and writing JSON: what is refused, that everything else is what `serde_json` reads, and that the
//! canonical form is a fixed point.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use proptest::prelude::*;
use serde_json::json;

const SMALL: Limits = Limits { bytes_max: 4_096, depth_max: 8, numbers: Numbers::Any };

fn fault(text: &str, limits: Limits) -> FaultKind {
    read(text.as_bytes(), limits).unwrap_err().kind
}

fn nested(levels: usize) -> String {
    format!("{}1{}", "[".repeat(levels), "]".repeat(levels))
}

#[test]
fn a_text_that_two_readers_could_read_differently_is_refused() {
    let twice = |name: &str| FaultKind::Duplicate(name.to_owned());
    for (text, expected) in [
        (r#"{"a":1,"a":2}"#, twice("a")),
        (r#"{"a":1,"a":1}"#, twice("a")),
        (r#"{"sub":1,"s\u0075b":2}"#, twice("sub")),
        (r#"{"x":{"a":1,"b":[{"c":1,"c":2}]}}"#, twice("c")),
        (r#"{"":1,"":2}"#, twice("")),
        ("123456789012345678901234567890", FaultKind::Inexact),
        ("[1e300]", FaultKind::Inexact),
        ("-9007199254740992.0", FaultKind::Inexact),
    ] {
        assert_eq!(fault(text, Limits::RECORD), expected, "{text}");
    }
    assert_eq!(read(&[b'"', 0xff, b'"'], Limits::RECORD).unwrap_err().kind, FaultKind::NotUtf8);
}

#[test]
fn depth_and_size_are_bounded_to_the_level_and_the_byte() {
    for limits in [SMALL, Limits::TOKEN, Limits::MESSAGE, Limits::RECORD, Limits::FILE] {
        let max = limits.depth_max;
        read(nested(max).as_bytes(), limits).unwrap();
        for levels in [max + 1, 200, 1_900] {
            assert_eq!(fault(&nested(levels), limits), FaultKind::TooDeep(max), "{levels}");
        }
        let objects = format!("{}1{}", r#"{"a":"#.repeat(max + 1), "}".repeat(max + 1));
        assert_eq!(fault(&objects, limits), FaultKind::TooDeep(max));
    }
    let text = |len: usize| format!("\"{}\"", "x".repeat(len - 2));
    read(text(4_096).as_bytes(), SMALL).unwrap();
    assert_eq!(fault(&text(4_097), SMALL), FaultKind::TooLarge(4_096));
    assert_eq!(read_text(&text(4_097), SMALL).unwrap_err().kind, FaultKind::TooLarge(4_096));
}

#[test]
fn what_is_no_json_is_refused_with_its_place() {
    for text in ["", "{", "nul", "\u{feff}{}", "NaN", "{} {}", "[1,]", "{\"a\":1,}", "'a'", "1e999", "\"\\ud800\"", "01", "[1] x"]
    {
        assert!(matches!(fault(text, SMALL), FaultKind::Syntax(_)), "{text}");
    }
    let shown = |text: &str| read(text.as_bytes(), SMALL).unwrap_err().to_string();
    assert_eq!(shown("{\n \"a\": 1,\n \"a\": 2}"), "member `a` occurs twice at line 3 column 4");
    assert_eq!(shown("[1,]"), "trailing comma at line 1 column 4");
    let long = format!(r#"{{"{0}":1,"{0}":1}}"#, "n\\n".repeat(200));
    assert!(shown(&long).len() < 300, "a name of the sender's choice does not flood a log");
}

#[test]
fn plain_texts_are_read_as_they_are() {
    let text = r#"{"a":[1,-2,1.5,true,null,"x"],"b":{"c":18446744073709551615}}"#;
    let expected = json!({"a":[1,-2,1.5,true,null,"x"],"b":{"c":18_446_744_073_709_551_615_u64}});
    assert_eq!(read(text.as_bytes(), Limits::RECORD).unwrap(), expected);
    assert_eq!(read(b" 12345678901234567890123 ", Limits::MESSAGE).unwrap(), json!(1.234_567_890_123_456_8e22));
}

#[test]
fn whole_numbers_that_overflow_are_not_exact() {
    for (text, exact) in [
        ("1", true),
        ("-9223372036854775808", true),
        ("18446744073709551615", true),
        ("0.1", true),
        ("18446744073709551616", false),
        ("-9223372036854775809", false),
        ("[{\"a\":1e300}]", false),
    ] {
        assert_eq!(is_exact(&read(text.as_bytes(), Limits::MESSAGE).unwrap()), exact, "{text}");
        assert_eq!(read(text.as_bytes(), Limits::RECORD).is_ok(), exact, "{text}");
    }
}

#[test]
fn every_spelling_of_a_value_has_one_canonical_form() {
    let cases = [
        (r#"{ "b": 1, "a": [ true, null ] }"#, r#"{"a":[true,null],"b":1}"#),
        ("1.0", "1"),
        ("1e2", "100"),
        ("-0.0", "0"),
        ("1e21", "1e+21"),
        ("1e20", "100000000000000000000"),
        ("1e-6", "0.000001"),
        ("1e-7", "1e-7"),
        ("333333333.5", "333333333.5"),
        ("333333333.33333329", "333333333.3333333"),
        ("4.50", "4.5"),
        ("2e-3", "0.002"),
        ("0.000000000000000000000000001", "1e-27"),
        ("9007199254740993", "9007199254740993"),
        ("18446744073709551615", "18446744073709551615"),
        (r#""\u20ac\u000f\n\u0041\"\/""#, "\"€\\u000f\\nA\\\"/\""),
        // RFC 8785 §3.2.3: U+1F600 (surrogates D83D…) sorts before U+FB33.
        ("{\"\u{fb33}\":1,\"\u{1f600}\":2,\"\\r\":3}", "{\"\\r\":3,\"\u{1f600}\":2,\"\u{fb33}\":1}"),
    ];
    for (given, expected) in cases {
        let value: Value = serde_json::from_str(given).unwrap();
        assert_eq!(canonical(&value), expected, "{given}");
    }
}

fn values() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |double| double.is_finite()).prop_map(Value::from),
    ];
    let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), number, any::<String>().prop_map(Value::from)];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Whether two readings are the same, to the order of members and the sign of zero.
fn same(a: &Value, b: &Value) -> bool {
    a == b && serde_json::to_vec(a).unwrap() == serde_json::to_vec(b).unwrap()
}

proptest! {
    #[test]
    fn what_is_read_is_what_serde_json_reads(value in values(), pretty in any::<bool>()) {
        let text = if pretty { format!("{value:#}") } else { value.to_string() };
        let expected: Value = serde_json::from_str(&text).unwrap();
        prop_assert!(same(&read(text.as_bytes(), Limits::MESSAGE).unwrap(), &expected));
    }

    /// Soup of JSON's own pieces, most of it no JSON, some of it with members twice or too deep.
    #[test]
    fn what_is_refused_though_serde_json_reads_it_is_refused_for_a_reason_of_ours(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"a\"", "\"\\u0061\"", "\"b\"", "1", "-0.0", "1e400", "1e20", "true", "null", " ",
                "{\"a\":", "\"a\":1,", "[[", "]]", "\u{e9}", "\\",
            ]),
            0..24,
        ),
    ) {
        let text = pieces.concat();
        match (read(text.as_bytes(), SMALL), serde_json::from_str::<Value>(&text)) {
            (Ok(ours), Ok(theirs)) => prop_assert!(same(&ours, &theirs), "{text}"),
            (Ok(_), Err(_)) => panic!("only we read {text}"),
            (Err(fault), Ok(_)) => {
                prop_assert!(matches!(fault.kind, FaultKind::Duplicate(_) | FaultKind::TooDeep(_)), "{text}: {fault}");
            }
            (Err(_), Err(_)) => {}
        }
    }

    #[test]
    fn hostile_bytes_neither_panic_nor_pass(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        if let Ok(value) = read(&bytes, SMALL) {
            prop_assert!(same(&value, &serde_json::from_slice::<Value>(&bytes).unwrap()));
        }
    }

    #[test]
    fn the_canonical_form_is_a_fixed_point_whatever_the_order_of_members(value in values()) {
        let text = canonical(&value);
        let again = read(text.as_bytes(), Limits::FILE).unwrap();
        prop_assert_eq!(canonical(&again), text.clone());
        prop_assert_eq!(canonical(&reversed(&value)), text);
    }

    #[test]
    fn a_float_reads_back_as_itself(float in any::<f64>().prop_filter("finite", |f| f.is_finite())) {
        let text = canonical(&Value::from(float));
        prop_assert_eq!(text.parse::<f64>().unwrap(), float);
    }
}

fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(reversed).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().rev().map(|(name, value)| (name.clone(), reversed(value))).collect())
        }
        scalar => scalar.clone(),
    }
}
