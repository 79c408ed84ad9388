//! Whether the URI of a resource names one thing to all who read it. Policies compare its text; an upstream resolves it.
//! RFC 3986 §6.2.2, WHATWG URL §4.4.

/// Whether a URI has segments that a reader may resolve, in clear or encoded, or characters that a reader may drop. A policy
/// that compares the beginning of a URI would be walked around.
pub(crate) fn reads_in_several_ways(uri: &str) -> bool {
    // WHATWG URL §4.4 drops tabs and line breaks wherever they stand, blanks at both ends, and only then looks for segments.
    let dropped = uri.contains(|letter: char| letter.is_ascii_control()) || uri.starts_with(' ') || uri.ends_with(' ');
    let plain = uri.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    // A path may end at `?` and `#`; for a reader that only cuts off the scheme it goes on behind them.
    dropped || spelt_out(uri) || plain.split(['/', '\\', '?', '#']).any(|segment| matches!(segment, "." | ".."))
}

/// Whether a letter, digit, `-`, `.`, `_` or `~` is written as `%XX`: the same URI has a plainer spelling (RFC 3986 §6.2.2.2),
/// which a policy may name.
fn spelt_out(uri: &str) -> bool {
    uri.split('%').skip(1).any(|part| {
        let code = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        code.is_some_and(|code| code.is_ascii_alphanumeric() || b"-._~".contains(&code))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_that_readers_resolve_differently_is_seen() {
        for uri in [
            "orders://a/../b",
            "orders://a/%2e%2E/b",
            "orders://a/./b",
            "orders://a\\..\\b",
            "orders://a/%2e%2e%2fb",
            "..",
            // Dropped by a reader of URLs before it looks for segments.
            "orders://a/.\t./b",
            "orders://a/.%2\ne/b",
            "orders://a/.. ",
            "\u{1}orders://a",
            // A path goes on behind these for a reader that only cuts off the scheme.
            "orders://a?/../b",
            "orders://a#/../b",
            // RFC 3986 §6.2.2.2: the same as `secret`.
            "orders://%73ecret",
            "orders://a/x%2Dy",
            "orders://a/%4A",
            "orders://a/%7E%35%5f",
        ] {
            assert!(reads_in_several_ways(uri), "{uri}");
        }
        for uri in [
            "orders://1",
            "orders://a/..b/c..?x=../y",
            "orders://a/%C3%BC%20b%2Bc",
            "orders://a/100%",
            "a/%zz%7",
            "a%7B%60%3A%40",
        ] {
            assert!(!reads_in_several_ways(uri), "{uri}");
        }
    }
}
