//! The URI that a resource template names with the arguments that are there so far: what a completion is decided on.
//! Pure. RFC 6570, for values that are text (levels 1 to 3, and prefixes of level 4).

use serde_json::{Map, Value};
use std::collections::HashSet;

/// Longest URI that is made of a template. A template may say one value as often as it likes: a few million bytes of both could
/// stand for more than any memory holds.
const URI_BYTES_MAX: usize = 64 * 1_024;

/// How the variables of one expression are written (RFC 6570 appendix A).
struct Style {
    first: &'static str,
    between: &'static str,
    named: bool,
    if_empty: &'static str,
    reserved: bool,
}

fn style(operator: Option<char>) -> Option<Style> {
    let of = |first, between, named, if_empty, reserved| Style { first, between, named, if_empty, reserved };
    Some(match operator {
        None => of("", ",", false, "", false),
        Some('+') => of("", ",", false, "", true),
        Some('#') => of("#", ",", false, "", true),
        Some('.') => of(".", ".", false, "", false),
        Some('/') => of("/", "/", false, "", false),
        Some(';') => of(";", ";", true, "", false),
        Some('?') => of("?", "&", true, "=", false),
        Some('&') => of("&", "&", true, "=", false),
        Some(_) => return None,
    })
}

/// The URI, and the names of the values that it says in full. `None` if the template is malformed, a value is no text, or the URI
/// would be too long. What is not there is left out.
pub(crate) fn expand<'v>(template: &str, values: &'v Map<String, Value>) -> Option<(String, HashSet<&'v str>)> {
    let mut said = HashSet::new();
    let mut uri = String::with_capacity(template.len());
    let mut rest = Some(template).filter(|template| template.len() <= URI_BYTES_MAX)?;
    while let Some((before, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}')?;
        if before.contains('}') {
            return None;
        }
        uri.push_str(before);
        uri.push_str(&expression_of(expression, values, &mut said)?);
        if uri.len() > URI_BYTES_MAX {
            return None;
        }
        rest = after;
    }
    if rest.contains('}') {
        return None;
    }
    uri.push_str(rest);
    (uri.len() <= URI_BYTES_MAX).then_some((uri, said))
}

fn expression_of<'v>(expression: &str, values: &'v Map<String, Value>, said: &mut HashSet<&'v str>) -> Option<String> {
    let plain = |first: char| first.is_ascii_alphanumeric() || matches!(first, '_' | '%');
    let operator = expression.chars().next().filter(|first| !plain(*first));
    let style = style(operator)?;
    let names = operator.map_or(Some(expression), |operator| expression.strip_prefix(operator))?;
    let mut out = String::new();
    let mut between = style.first;
    for variable in names.split(',') {
        let variable = variable.strip_suffix('*').unwrap_or(variable);
        let (name, length) = match variable.split_once(':') {
            Some((name, length)) => (name, length.parse::<usize>().ok().filter(|length| *length < 10_000)?),
            None => (variable, usize::MAX),
        };
        if name.is_empty() || !name.chars().all(|letter| plain(letter) || letter == '.') {
            return None;
        }
        let (name, value) = match values.get_key_value(name) {
            None => continue,
            Some((name, Value::String(text))) => (name, text),
            Some(_) => return None,
        };
        if value.chars().nth(length).is_none() {
            said.insert(name);
        }
        out.push_str(between);
        between = style.between;
        if style.named {
            out.push_str(name);
            out.push_str(if value.is_empty() { style.if_empty } else { "=" });
        }
        let shown: String = value.chars().take(length).collect();
        push_encoded(&mut out, &shown, style.reserved);
        if out.len() > URI_BYTES_MAX {
            return None;
        }
    }
    Some(out)
}

fn push_encoded(out: &mut String, value: &str, reserved: bool) {
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if plain || (reserved && b":/?#[]@!$&'()*+,;=%".contains(&byte)) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn templates_expand_as_their_specification_says() {
        let values = json!({ "var": "value", "hello": "Hello World!", "path": "/foo/bar", "empty": "", "x": "1024", "y": "768" });
        let Value::Object(values) = values else { panic!() };
        for (template, expected) in [
            ("orders://1", Some("orders://1")),
            ("orders://{var}/x", Some("orders://value/x")),
            ("{hello}", Some("Hello%20World%21")),
            ("{+hello}", Some("Hello%20World!")),
            ("{path}", Some("%2Ffoo%2Fbar")),
            ("{+path}/here", Some("/foo/bar/here")),
            ("X{#var}", Some("X#value")),
            ("{x,y}", Some("1024,768")),
            ("{/var,x}/here", Some("/value/1024/here")),
            ("X{.x,y}", Some("X.1024.768")),
            ("{empty,x}", Some(",1024")),
            ("{+empty,absent,x}", Some(",1024")),
            ("{;x,y,empty}", Some(";x=1024;y=768;empty")),
            ("{?x,y,empty}", Some("?x=1024&y=768&empty=")),
            ("?fixed=yes{&x}", Some("?fixed=yes&x=1024")),
            ("{var:3}{absent}", Some("val")),
            ("{/list*}{?absent}", Some("")),
            ("{", None),
            ("}", None),
            ("{}", None),
            ("{!var}", None),
            ("{a b}", None),
            ("{var:x}", None),
        ] {
            assert_eq!(expand(template, &values).map(|(uri, _)| uri).as_deref(), expected, "{template}");
        }
        for (template, in_full) in [("{x}{y}", 2), ("{?x,y}", 2), ("{x}", 1), ("{x}{y:2}", 1), ("{x}{y:3}", 2), ("{z}", 0)] {
            let Value::Object(values) = json!({ "x": "1024", "y": "768" }) else { panic!() };
            assert_eq!(expand(template, &values).map(|(_, said)| said.len()), Some(in_full), "{template}");
        }
        let Value::Object(number) = json!({ "var": 1 }) else { panic!() };
        assert_eq!(expand("{var}", &number), None);
    }

    #[test]
    fn a_template_that_says_one_value_many_times_is_not_expanded() {
        let Value::Object(values) = json!({ "x": "v".repeat(1_000) }) else { panic!() };
        assert_eq!(expand(&"{x}".repeat(1_000), &values), None);
        assert_eq!(expand(&format!("{{{}x}}", "x,".repeat(1_000)), &values), None);
        assert_eq!(expand(&"/{x:1}".repeat(1_000), &values).map(|(uri, _)| uri.len()), Some(2_000));
    }
}
