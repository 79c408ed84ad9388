//! No form of an injected secret passes, wherever an answer is cut into pieces; what is no secret passes unchanged.
#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use proptest::prelude::*;

const SECRET: &str = "sk-Live/9+x~Zq\"1<&>_ü";

fn scan(needles: &Arc<Needles>, text: &[u8], piece: usize) -> Result<Vec<u8>, Echo> {
    let mut scanner = Scanner::new(Arc::clone(needles));
    let mut out = Vec::new();
    for piece in text.chunks(piece) {
        out.extend_from_slice(&scanner.push(piece)?);
    }
    out.extend_from_slice(&scanner.finish()?);
    Ok(out)
}

fn percent_all(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn json_all(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect()
}

fn html_all(text: &str) -> String {
    text.chars().map(|c| format!("&#x{:x};", u32::from(c))).collect()
}

fn forms(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let url: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut lines = STANDARD.encode(format!("user:{secret}"));
    lines.insert_str(9, "\r\n");
    let mut forms = vec![
        ("clear", secret.as_bytes().to_vec()),
        ("upper", secret.to_ascii_uppercase().into_bytes()),
        ("percent", url.clone().into_bytes()),
        ("percent lower", url.to_ascii_lowercase().into_bytes()),
        ("percent all", percent_all(secret).into_bytes()),
        ("json", serde_json::to_vec(secret).unwrap()),
        ("json slash", serde_json::to_string(secret).unwrap().replace('/', "\\/").into_bytes()),
        ("json all", json_all(secret).into_bytes()),
        ("html all", html_all(secret).into_bytes()),
        ("html", secret.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").into_bytes()),
        ("hex", secret.bytes().map(|byte| format!("{byte:02x}")).collect::<String>().into_bytes()),
        ("hex upper", secret.bytes().map(|byte| format!("{byte:02X}")).collect::<String>().into_bytes()),
        ("hex spaced", secret.bytes().map(|byte| format!("{byte:02x} ")).collect::<String>().into_bytes()),
        ("base64 over lines", lines.into_bytes()),
        ("utf-16", secret.replace('ü', "").bytes().flat_map(|byte| [byte, 0]).collect()),
        ("base64 in a url", STANDARD.encode(secret).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D").into_bytes()),
        ("base64 in json", STANDARD.encode(secret).replace('/', "\\/").into_bytes()),
    ];
    for before in ["", "x", "xy", "xyz"] {
        for after in ["", "z", "zz"] {
            forms.push(("base64", STANDARD.encode(format!("{before}{secret}{after}")).into_bytes()));
            forms.push(("base64url", URL_SAFE.encode(format!("{before}{secret}{after}")).into_bytes()));
        }
    }
    forms
}

#[test]
fn a_secret_is_found_in_every_form_across_every_border() {
    // In UTF-16 the letter outside ASCII has no zero byte, so that form is looked for without it.
    for (secret, skipped) in [(SECRET, "utf-16"), ("ghp_0123456789abcdef", ""), ("correct horse battery", "")] {
        let needles = Needles::of([secret]);
        for (name, form) in forms(secret) {
            if name == skipped {
                continue;
            }
            let text = [b"{\"echo\": \"".as_slice(), &form, b"\", \"rest\": 1}"].concat();
            for piece in [1, 2, 3, 5, 7, 64, 4096] {
                assert_eq!(scan(&needles, &text, piece), Err(Echo), "{name} in pieces of {piece}");
            }
        }
    }
}

#[test]
fn nothing_of_a_secret_leaves_before_it_is_found() {
    let secret = "ghp_0123456789abcdef";
    let needles = Needles::of([secret]);
    for (name, form) in forms(secret) {
        let text = [b"before ".as_slice(), &form].concat();
        let mut scanner = Scanner::new(Arc::clone(&needles));
        let mut out = Vec::new();
        for byte in &text {
            match scanner.push(&[*byte]) {
                Ok(bytes) => out.extend_from_slice(&bytes),
                Err(Echo) => break,
            }
        }
        // Base64 of what stands before the secret is none of it.
        let free = if name.starts_with("base64") { 16 } else { 9 };
        assert!(out.len() <= "before ".len() + free, "{name}: {:?}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn what_holds_no_secret_passes_unchanged_and_at_once() {
    let needles = Needles::of(["ghp_0123456789abcdef"]);
    for text in ["", "data: {\"a\": 1}\n\n", "100% of \\ & &amp; \\u12 %zz %", "ghp_0123456789abcdeX", "g gh ghp ghp_", "&&&;;;"]
    {
        for piece in [1, 2, 1000] {
            assert_eq!(scan(&needles, text.as_bytes(), piece).unwrap(), text.as_bytes(), "{text}");
        }
    }
    let mut scanner = Scanner::new(needles);
    for event in ["data: something ghp\n\n", "data: 50%\n\n", ": \\\n\n"] {
        assert_eq!(scanner.push(event.as_bytes()).unwrap(), event, "an event is not held back");
    }
}

#[test]
fn an_answer_that_breaks_off_within_the_secret_is_an_echo() {
    let needles = Needles::of(["ghp_0123456789abcdef"]);
    assert_eq!(scan(&needles, b"x ghp_0123456", 4), Err(Echo));
    assert_eq!(scan(&needles, b"x ghp_01", 4).unwrap(), b"x ghp_01");
}

#[test]
fn nothing_is_looked_for_when_nothing_was_sent() {
    assert_eq!(scan(&Needles::of([]), b"anything %41 \\u0041", 3).unwrap(), b"anything %41 \\u0041");
    assert!(!Needles::of(["ghp_0123456789abcdef"]).occur_in(b"text/html"));
    assert!(!format!("{:?}", Needles::of(["ghp_0123456789abcdef"])).contains("ghp"));
}

proptest! {
    #[test]
    fn a_stream_without_the_secret_is_never_changed(text in proptest::collection::vec(any::<u8>(), 0..400), piece in 1_usize..50) {
        let needles = Needles::of(["ghp_0123456789abcdef", "another-secret"]);
        prop_assert_eq!(scan(&needles, &text, piece).unwrap(), text);
    }

    #[test]
    fn a_secret_is_found_wherever_it_stands(
        before in proptest::collection::vec(any::<u8>(), 0..80), after in proptest::collection::vec(any::<u8>(), 0..80), piece in 1_usize..50,
        secret in "[a-zA-Z0-9_./+-]{8,60}",
    ) {
        let needles = Needles::of([secret.as_str()]);
        let text = [&before[..], secret.as_bytes(), &after[..]].concat();
        prop_assert_eq!(scan(&needles, &text, piece), Err(Echo));
        let encoded = STANDARD.encode(&text);
        prop_assert_eq!(scan(&needles, encoded.as_bytes(), piece), Err(Echo));
    }
}
