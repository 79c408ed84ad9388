//! Paths: the template of a route, and the one reading of a path that a client sent. What a template matched is what is
//! decided and, written anew, what is sent; a path that two readers could take for two things is refused.
//! Pure. Knows no method and no target. RFC 3986 §3.3, §6.2.

use std::fmt::Write as _;

/// Longest path that is read, in bytes as sent.
const PATH_BYTES_MAX: usize = 4_096;
/// Most segments of a path.
const SEGMENTS_MAX: usize = 64;

/// Why a path is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathFault {
    /// Longer than any path of an API.
    #[error("the path is too long")]
    TooLong,
    /// `//`, or nothing between two slashes once decoded.
    #[error("the path has an empty segment")]
    Empty,
    /// `.` or `..`, in clear or encoded.
    #[error("the path has a dot segment: what it names would depend on who resolves it")]
    Dots,
    /// A character that another reader would take for the end of a segment, or decode once more.
    #[error(
        "the path has an encoded or reserved character that servers read differently (`%`, `/`, `\\`, `;`, `?`, `#`, control)"
    )]
    Ambiguous,
    /// `%` without two hexadecimal digits, or bytes that are not UTF-8.
    #[error("the path is not validly encoded")]
    Encoding,
}

/// A path as a list of decoded segments. None of them is empty, a dot segment, or holds a character that could be read
/// as anything but itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segments {
    pub(crate) names: Vec<String>,
    /// Whether a slash stands at the end.
    pub(crate) slash: bool,
}

impl Segments {
    /// Reads the part of a path behind an endpoint: empty, or beginning with a slash.
    pub(crate) fn read(raw: &str) -> Result<Self, PathFault> {
        if raw.len() > PATH_BYTES_MAX {
            return Err(PathFault::TooLong);
        }
        let Some(rest) = raw.strip_prefix('/') else {
            return if raw.is_empty() { Ok(Self { names: Vec::new(), slash: false }) } else { Err(PathFault::Ambiguous) };
        };
        let (rest, slash) = rest.strip_suffix('/').map_or((rest, rest.is_empty()), |rest| (rest, true));
        if rest.is_empty() {
            return if slash && raw == "/" { Ok(Self { names: Vec::new(), slash }) } else { Err(PathFault::Empty) };
        }
        let names = rest.split('/').map(segment).collect::<Result<Vec<_>, _>>()?;
        if names.len() > SEGMENTS_MAX { Err(PathFault::TooLong) } else { Ok(Self { names, slash }) }
    }
}

fn segment(raw: &str) -> Result<String, PathFault> {
    let name = decode(raw)?;
    if name.is_empty() {
        return Err(PathFault::Empty);
    }
    if matches!(name.as_str(), "." | "..") {
        return Err(PathFault::Dots);
    }
    // A per cent sign that is left would be decoded by whoever decodes twice; a semicolon begins what some servers cut off.
    let strange = |c: char| c.is_control() || matches!(c, '%' | '/' | '\\' | ';' | '?' | '#');
    if name.contains(strange) { Err(PathFault::Ambiguous) } else { Ok(name) }
}

/// Decodes once.
fn decode(raw: &str) -> Result<String, PathFault> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (high, low) = (digit(rest.next()), digit(rest.next()));
            let (Some(high), Some(low)) = (high, low) else { return Err(PathFault::Encoding) };
            bytes.push(u8::try_from(high << 4 | low).map_err(|_| PathFault::Encoding)?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).map_err(|_| PathFault::Encoding)
}

/// Writes text so that it can stand anywhere in a URL (RFC 3986 §2.3: only unreserved characters stay).
pub(crate) fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// One place of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// Exactly this.
    Word(String),
    /// One segment, which is this parameter.
    Param(String),
    /// All segments that follow, at least one.
    Rest(String),
}

/// The template of a route's path: `/repos/{owner}/{repo}/contents/{path...}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    slash: bool,
}

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    /// It does not begin with a slash.
    #[error("a path begins with `/`")]
    Relative,
    /// A word of it could not be matched.
    #[error("`{0}` cannot stand in a path; write it decoded, and parameters as whole segments: `{{name}}`")]
    Word(String),
    /// A parameter stands in it twice, or is not a name.
    #[error("`{{{0}}}` is not a parameter name of its own")]
    Param(String),
    /// `{name...}` is not the last segment.
    #[error("`{{{0}...}}` takes all that follows, so it must be last")]
    RestNotLast(String),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What cannot stand in it.
    pub fn parse(text: &str) -> Result<Self, TemplateFault> {
        let rest = text.strip_prefix('/').ok_or(TemplateFault::Relative)?;
        let (rest, slash) = rest.strip_suffix('/').map_or((rest, rest.is_empty()), |rest| (rest, true));
        if rest.is_empty() && text != "/" {
            return Err(TemplateFault::Word(String::new()));
        }
        let mut parts: Vec<Part> = Vec::new();
        for raw in rest.split('/').filter(|_| !rest.is_empty()) {
            if let Some(Part::Rest(name)) = parts.last() {
                return Err(TemplateFault::RestNotLast(name.clone()));
            }
            let part = part(raw)?;
            if let Part::Param(name) | Part::Rest(name) = &part
                && parts.iter().any(|part| matches!(part, Part::Param(other) | Part::Rest(other) if other == name))
            {
                return Err(TemplateFault::Param(name.clone()));
            }
            parts.push(part);
        }
        Ok(Self { parts, slash })
    }

    /// The parameters that stand in it.
    pub fn params(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Word(_) => None,
            Part::Param(name) | Part::Rest(name) => Some(name.as_str()),
        })
    }

    /// The parameters of a path that it matches. Words are compared exactly: a server that folds case answers to more
    /// spellings than these.
    pub(crate) fn matches(&self, path: &Segments) -> Option<Vec<(&str, String)>> {
        let mut names = path.names.iter();
        let mut found = Vec::new();
        if self.slash != path.slash {
            return None;
        }
        for part in &self.parts {
            match part {
                Part::Word(word) => {
                    if names.next()? != word {
                        return None;
                    }
                }
                Part::Param(param) => found.push((param.as_str(), names.next()?.clone())),
                Part::Rest(param) => {
                    let rest: Vec<&str> = names.by_ref().map(String::as_str).collect();
                    if rest.is_empty() {
                        return None;
                    }
                    found.push((param.as_str(), rest.join("/")));
                }
            }
        }
        if names.next().is_none() { Some(found) } else { None }
    }

    /// Whether a lenient server would take a path for one of this template that is none.
    pub(crate) fn nearly_matches(&self, path: &Segments) -> bool {
        let folded = |text: &str| text.to_uppercase().to_lowercase();
        let mut names = path.names.iter();
        for part in &self.parts {
            let Some(name) = names.next() else { return false };
            match part {
                Part::Word(word) => {
                    let (name, word) = (folded(name), folded(word));
                    let ending = name.strip_prefix(&word);
                    if !ending.is_some_and(|ending| ending.starts_with('.') || ending.trim().is_empty()) {
                        return false;
                    }
                }
                Part::Param(_) => {}
                Part::Rest(_) => return true,
            }
        }
        names.next().is_none()
    }

    /// Which of two templates that match the same path is meant: words before parameters, from the left.
    pub(crate) fn rank(&self) -> Vec<u8> {
        let rank = |part: &Part| match part {
            Part::Word(_) => 0,
            Part::Param(_) => 1,
            Part::Rest(_) => 2,
        };
        self.parts.iter().map(rank).collect()
    }

    /// Whether some path matches both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        fn meet(one: &[Part], two: &[Part]) -> bool {
            match (one, two) {
                ([], []) => true,
                ([Part::Rest(_), ..], [_, ..]) | ([_, ..], [Part::Rest(_), ..]) => true,
                ([Part::Word(a), one @ ..], [Part::Word(b), two @ ..]) => a == b && meet(one, two),
                ([_, one @ ..], [_, two @ ..]) => meet(one, two),
                _ => false,
            }
        }
        self.slash == other.slash && meet(&self.parts, &other.parts)
    }
}

fn part(raw: &str) -> Result<Part, TemplateFault> {
    if let Some(inner) = raw.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
        let (name, rest) = inner.strip_suffix("...").map_or((inner, false), |name| (name, true));
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(TemplateFault::Param(name.to_owned()));
        }
        return Ok(if rest { Part::Rest(name.to_owned()) } else { Part::Param(name.to_owned()) });
    }
    match segment(raw) {
        Ok(word) if word == raw && !raw.contains(['{', '}']) => Ok(Part::Word(word)),
        _ => Err(TemplateFault::Word(raw.to_owned())),
    }
}

/// Writes segments as a path.
pub(crate) fn write(path: &Segments) -> String {
    let mut out = String::new();
    for name in &path.names {
        out.push('/');
        encode(name, &mut out);
    }
    if path.slash {
        out.push('/');
    }
    out
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn matched(template: &str, path: &str) -> Option<Vec<(String, String)>> {
        let template = Template::parse(template).unwrap();
        let found = template.matches(&Segments::read(path).ok()?)?;
        Some(found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn a_template_matches_whole_segments_and_nothing_else() {
        for (template, path, expected) in [
            ("/", "/", pairs(&[])),
            ("/", "", None),
            ("/a", "/a", pairs(&[])),
            ("/a", "/a/", None),
            ("/a/", "/a/", pairs(&[])),
            ("/a", "/A", None),
            ("/a", "/b", None),
            ("/a", "/a/b", None),
            ("/a/{x}", "/a", None),
            ("/a/{x}", "/a/b", pairs(&[("x", "b")])),
            ("/a/{x}", "/a/b%20c", pairs(&[("x", "b c")])),
            ("/a/{x}", "/a/b/c", None),
            ("/a/{x}/c/{y}", "/a/1/c/2", pairs(&[("x", "1"), ("y", "2")])),
            ("/f/{p...}", "/f/x/y/z", pairs(&[("p", "x/y/z")])),
            ("/f/{p...}", "/f", None),
        ] {
            assert_eq!(matched(template, path), expected, "{template} {path}");
        }
    }

    #[test]
    fn a_path_that_two_servers_read_differently_is_refused() {
        for path in [
            "/a/../b",
            "/a/./b",
            "/a/%2e%2e/b",
            "/a/.%2E/b",
            "/a/%2e/b",
            "/..",
            "/%2e%2e", // dot segments
            "/a//b",
            "//",
            "//a",
            "/a//",
            "/a/%2f/b",
            "/a%2fb",
            "/a%2Fb",
            "/a%5cb",
            "/a%5C..%5Cb", // separators
            "/a%252fb",
            "/a%252e%252e",
            "/a%25", // decoded twice
            "/a;x=1/b",
            "/a/..;/b",
            "/a%3bx", // path parameters
            "/a%00",
            "/a%0d%0ab",
            "/a%7f", // control
            "/a%",
            "/a%2",
            "/a%zz",
            "/a%ff",
            "/a%c0%ae",
            "/a%c0%af", // encodings, overlong ones among them
            "/a%3fx=1",
            "/a%23x",
            "a",
        ] {
            assert!(Segments::read(path).is_err(), "{path}");
        }
        assert_eq!(Segments::read(&format!("/{}", "a".repeat(PATH_BYTES_MAX))), Err(PathFault::TooLong));
        assert_eq!(Segments::read(&"/a".repeat(SEGMENTS_MAX + 1)), Err(PathFault::TooLong));
    }

    #[test]
    fn what_was_read_is_what_is_written() {
        for (path, written) in [("/a b", "/a%20b"), ("/%61", "/a"), ("/a%2Bb/", "/a%2Bb/"), ("/ä", "/%C3%A4"), ("/a..b", "/a..b")]
        {
            let read = Segments::read(path).unwrap();
            assert_eq!(write(&read), written);
            assert_eq!(Segments::read(written).unwrap(), read);
        }
    }

    #[test]
    fn a_template_that_cannot_match_is_a_fault() {
        for text in ["//", "", "a", "/a//b", "/..", "/a%20b", "/{}", "/{a b}", "/{a}/{a}", "/{a...}/b", "/x{a}", "/a;b", "/a?b"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_templates_overlap_if_a_path_matches_both() {
        for (one, two, overlap) in [
            ("/a/{x}", "/a/b", true),
            ("/a/{x}", "/{y}/b", true),
            ("/a/{x}", "/b/{x}", false),
            ("/a/{p...}", "/a/b/c", true),
            ("/a/{p...}", "/a", false),
            ("/a", "/a/", false),
        ] {
            let (one, two) = (Template::parse(one).unwrap(), Template::parse(two).unwrap());
            assert_eq!((one.overlaps(&two), two.overlaps(&one)), (overlap, overlap));
        }
    }
}
