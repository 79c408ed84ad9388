//! What is wrong with a policy folder, and where: file, line, column, what to do. Owns the translation of offsets
//! into places; prints nothing itself (the binary renders it through `miette`).

use miette::{LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};
use std::fmt;
use std::ops::Range;

/// Most bytes of a file that a finding keeps on either side: a folder with a fault in each of 10,000 policies must not
/// hold 10,000 copies of its text.
const EXCERPT_BYTES_MAX: usize = 2_048;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The folder cannot be used.
    Error,
    /// It can, but somebody should look.
    Warning,
}

/// One finding in a policy folder.
#[derive(Clone)]
pub struct Diagnostic {
    /// The file, relative to the folder.
    pub path: String,
    /// The line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 where the whole file is meant.
    pub column: usize,
    /// What is wrong, lower case.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    span: Option<SourceSpan>,
    excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// An error that concerns a whole file (or the folder, with an empty path).
    pub(crate) fn whole(path: &str, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: 0,
            column: 0,
            message: message.into(),
            help: None,
            severity: Severity::Error,
            span: None,
            excerpt: None,
        }
    }

    /// An error at a place (byte offsets) of a file.
    pub(crate) fn at(path: &str, text: &str, span: Range<usize>, message: impl Into<String>) -> Self {
        let start = span.start.min(text.len());
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = span.end.clamp(start, text.len()).min(start + EXCERPT_BYTES_MAX);
        Self {
            line: line + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            span: Some(SourceSpan::from(start..end)),
            excerpt: Excerpt::around(path, text, line, line_start..end),
            ..Self::whole(path, message)
        }
    }

    /// The bytes of the file that are meant.
    pub(crate) fn bytes(&self) -> Option<Range<usize>> {
        self.span.map(|span| span.offset()..span.offset() + span.len())
    }

    /// The same with advice.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same as a warning.
    #[must_use]
    pub(crate) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Sorts by place and drops repetitions.
    pub(crate) fn sort(found: &mut Vec<Self>) {
        found.sort_by(|a, b| (&a.path, a.line, a.column, &a.message).cmp(&(&b.path, b.line, b.column, &b.message)));
        found.dedup_by(|a, b| (&a.path, a.line, a.column, &a.message) == (&b.path, b.line, b.column, &b.message));
    }
}

/// The lines of a file around a finding.
#[derive(Clone)]
struct Excerpt {
    path: String,
    text: String,
    /// Where the text begins in the file: bytes and lines before it.
    start: usize,
    line: usize,
}

impl Excerpt {
    /// The given bytes, which begin a line with this number (from 0), and two lines on either side; nothing if the line
    /// is too long to be shown.
    fn around(path: &str, text: &str, line: usize, bytes: Range<usize>) -> Option<Self> {
        if bytes.len() > 2 * EXCERPT_BYTES_MAX {
            return None;
        }
        let mut start = bytes.start;
        let mut first = line;
        for _ in 0..2 {
            let Some(above) = start.checked_sub(1) else { break };
            let begin = text.get(..above)?.rfind('\n').map_or(0, |newline| newline + 1);
            if bytes.start - begin > EXCERPT_BYTES_MAX {
                break;
            }
            (start, first) = (begin, first - 1);
        }
        let longest = (bytes.end + EXCERPT_BYTES_MAX).min(text.len());
        let below = text.as_bytes().get(bytes.end..longest).unwrap_or_default();
        let third = below.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(2);
        let end = third.map_or(longest, |(place, _)| bytes.end + place);
        let end = (end..=text.len()).find(|end| text.is_char_boundary(*end))?;
        let start = (0..=start).rev().find(|start| text.is_char_boundary(*start))?;
        Some(Self { path: path.to_owned(), text: text.get(start..end)?.to_owned(), start, line: first })
    }
}

impl SourceCode for Excerpt {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        above: usize,
        below: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let local = span.offset().checked_sub(self.start).ok_or(MietteError::OutOfBounds)?;
        let read = self.text.read_span(&SourceSpan::from(local..local + span.len()), above, below)?;
        let span = SourceSpan::from(read.span().offset() + self.start..read.span().offset() + self.start + read.span().len());
        let (line, lines) = (read.line() + self.line, read.line_count());
        Ok(Box::new(MietteSpanContents::new_named(self.path.clone(), read.data(), span, line, read.column(), lines)))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// One line (and one for the advice), as `path:line:column: severity: message`: how compilers print it.
impl fmt::Debug for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Error { "error" } else { "warning" };
        write!(f, "{}:{}:{}: {severity}: {}", self.path, self.line, self.column, self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "\n  help: {help}"))
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.excerpt.as_ref().map(|excerpt| excerpt as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.filter(|_| self.excerpt.is_some());
        span.map(|span| Box::new(std::iter::once(LabeledSpan::underline(span))) as Box<dyn Iterator<Item = _>>)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use miette::Diagnostic as _;

    #[test]
    fn an_excerpt_is_small_and_knows_its_place() {
        let text: String = (1..=5_000).map(|line| format!("line {line} äöü\n")).collect();
        for (wanted, line) in [("line 1 ", 1), ("line 2 ", 2), ("line 2500 ", 2_500), ("line 5000 ", 5_000)] {
            let start = text.find(wanted).unwrap();
            let found = Diagnostic::at("a.cedar", &text, start..start + 4, "x");
            assert_eq!((found.line, found.column), (line, 1));
            let excerpt = found.excerpt.as_ref().unwrap();
            assert!(excerpt.text.len() < 200, "{}", excerpt.text);
            let label = found.labels().unwrap().next().unwrap();
            let read = found.source_code().unwrap().read_span(label.inner(), 1, 1).unwrap();
            let shown = String::from_utf8(read.data().to_vec()).unwrap();
            assert!(shown.contains(wanted), "{shown}");
            assert_eq!(read.line() + 1, line.saturating_sub(1).max(1), "context begins a line above");
        }
    }

    #[test]
    fn odd_spans_are_harmless() {
        let one_line = "ä".repeat(100_000);
        for (text, span) in
            [("", 0..0), ("", 5..9), ("ab", 1..1_000), (one_line.as_str(), 3..150_000), (one_line.as_str(), 199_999..200_000)]
        {
            let found = Diagnostic::at("a", text, span.clone(), "x");
            if let (Some(mut labels), Some(source)) = (found.labels(), found.source_code()) {
                let _ = source.read_span(labels.next().unwrap().inner(), 1, 1);
            }
            assert!(found.excerpt.is_none_or(|excerpt| excerpt.text.len() <= 4 * EXCERPT_BYTES_MAX), "{span:?}");
        }
    }
}
