//! What a log entry shows of the thing that a request is about. A resource's URI is text of the agent's choice and may hold
//! secrets: what may be one (user and password, query, fragment, a `data:` body) and what is too long is left out, and the
//! whole stands in the entry as a commitment. RFC 3986 §3.

use std::borrow::Cow;

/// Longest subject that an entry shows.
const SHOWN_BYTES_MAX: usize = 512;
/// What stands where something was left out.
const LEFT_OUT: &str = "…";

/// A subject as its entry has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subject<'a> {
    /// What is shown.
    pub shown: Cow<'a, str>,
    /// The whole, if less than that is shown.
    pub whole: Option<&'a str>,
}

impl<'a> Subject<'a> {
    pub(crate) fn of(whole: &'a str) -> Self {
        let (without_end, cut) = match whole.split_once([':']) {
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("data") => (whole.get(..=scheme.len()).unwrap_or_default(), true),
            _ => whole.find(['?', '#']).map_or((whole, false), |at| (whole.get(..at).unwrap_or_default(), true)),
        };
        let (start, rest) = match without_end.split_once("://") {
            Some((scheme, rest)) => {
                let authority = rest.split(['/', '\\']).next().unwrap_or_default();
                let userinfo = authority.rfind('@').map_or(0, |at| at + 1);
                (if userinfo > 0 { Some(scheme) } else { None }, rest.get(userinfo..).unwrap_or_default())
            }
            None => (None, without_end),
        };
        let short = without_end.len() <= SHOWN_BYTES_MAX;
        if start.is_none() && short && !cut {
            return Self { shown: Cow::Borrowed(whole), whole: None };
        }
        let mut shown = match start {
            Some(scheme) => format!("{scheme}://{LEFT_OUT}@{rest}"),
            None => without_end.to_owned(),
        };
        if cut || !short {
            let end = (0..=SHOWN_BYTES_MAX).rev().find(|end| shown.is_char_boundary(*end)).unwrap_or(0);
            shown.truncate(end);
            shown.push_str(LEFT_OUT);
        }
        Self { shown: Cow::Owned(shown), whole: Some(whole) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_shown() {
        for (whole, shown) in [
            ("get_order", None),
            ("file:///docs/a.txt", None),
            ("note:1", None),
            ("mail@example.org", None),
            ("https://host/a?key=s3cret", Some("https://host/a…")),
            ("https://host/a#s3cret", Some("https://host/a…")),
            ("https://user:s3cret@host/a", Some("https://…@host/a")),
            ("https://user:s3@cret@host/a@b?x", Some("https://…@host/a@b…")),
            ("https://user:s3cret@host\\@b", Some("https://…@host\\@b")),
            ("db:x?s3cret", Some("db:x…")),
            ("data:text/plain,s3cret", Some("data:…")),
            ("DATA:,s3cret", Some("DATA:…")),
        ] {
            let subject = Subject::of(whole);
            assert_eq!(&*subject.shown, shown.unwrap_or(whole));
            assert_eq!(subject.whole, shown.map(|_| whole));
        }
    }

    #[test]
    fn a_long_subject_is_cut_between_characters() {
        let just = "a".repeat(SHOWN_BYTES_MAX);
        assert_eq!(Subject::of(&just), Subject { shown: Cow::Borrowed(&just), whole: None });
        let long = format!("{}é{}", "a".repeat(SHOWN_BYTES_MAX - 1), "b".repeat(60_000));
        let subject = Subject::of(&long);
        assert_eq!((subject.shown.len(), subject.whole), (SHOWN_BYTES_MAX - 1 + LEFT_OUT.len(), Some(&*long)));
    }
}
