//! What is wrong with a configuration file, and where: message, place and hint, shown to people with the line and a
//! caret, to programs as JSON. Owns the rendering; knows no option by name. Every fault of all files is shown at once.

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};
use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A text that was read, and the name under which people know it.
#[derive(Debug)]
pub(crate) struct Source {
    named: NamedSource<String>,
}

impl Source {
    /// A text under its path, or whatever else names it.
    pub(crate) fn new(name: impl AsRef<str>, text: String) -> Arc<Self> {
        Arc::new(Self { named: NamedSource::new(name, text) })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.named.name()
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        self.named.inner()
    }

    /// Line and column (both from one, in characters) of a byte offset.
    pub(crate) fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text().get(..offset).unwrap_or_else(|| self.text());
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        (line, column)
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    source: Arc<Source>,
    span: Range<usize>,
    message: String,
    help: Option<String>,
}

impl Fault {
    /// A fault at a place.
    pub(crate) fn new(source: &Arc<Source>, span: Range<usize>, message: impl Into<String>) -> Self {
        // A caret needs something to stand under, and a span must stay within the text.
        let end = span.end.min(source.text().len());
        let start = span.start.min(end);
        Self { source: Arc::clone(source), span: start..end, message: message.into(), help: None }
    }

    /// The same with a hint what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// As one JSON object.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let (line, column) = self.source.place(self.span.start);
        serde_json::json!({
            "file": self.source.name(), "line": line, "column": column, "message": self.message, "help": self.help,
        })
    }

    /// With the line, a caret and the hint.
    pub(crate) fn render(&self, colour: bool) -> String {
        let theme = if colour { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
        let handler = GraphicalReportHandler::new_themed(theme).with_width(120).with_links(false);
        let mut out = String::new();
        match handler.render_report(&mut out, self) {
            Ok(()) => out,
            Err(fmt::Error) => format!("{self}\n"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl Diagnostic for Fault {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source.named)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new(Some("here".to_owned()), self.span.start, self.span.len());
        Some(Box::new(std::iter::once(label)))
    }
}

/// All faults found so far. Readers share it.
#[derive(Debug, Default)]
pub(crate) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Adds one.
    pub(crate) fn push(&self, fault: Fault) {
        self.0.borrow_mut().push(fault);
    }

    /// What was read if there was no fault, else the faults in the order of files and lines.
    pub(crate) fn into_result<T>(self, read: Option<T>) -> Result<T, Refused> {
        let mut faults = self.0.into_inner();
        faults.sort_by(|a, b| (a.source.name(), a.span.start).cmp(&(b.source.name(), b.span.start)));
        match read {
            Some(read) if faults.is_empty() => Ok(read),
            _ => Err(Refused(faults)),
        }
    }
}

/// A configuration with faults. Shows all of them.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) Vec<Fault>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "the configuration has {count} {}", if count == 1 { "fault" } else { "faults" })
    }
}

impl std::error::Error for Refused {}
