//! A door for the fuzz targets (`fuzz/`): the reader of AuthZEN questions as a function of plain values. Compiled with
//! `--cfg fuzzing` alone and no part of the crate otherwise; holds no rule of its own.

use super::Question;
use crate::operation::Asked;
use domain::Binding;
use serde_json::{Map, Value};

/// A question as it was read.
#[derive(Debug)]
pub struct Read {
    /// Type and id of the subject.
    pub subject: (String, String),
    /// The action.
    pub action: String,
    /// Type and id of the resource.
    pub resource: (String, String),
    /// How the task's token is bound.
    pub binding: Binding,
    /// What is decided on: the upstream, the tool, prompt or URI, and the arguments.
    pub asked: Option<(String, String, Map<String, Value>)>,
}

/// Reads a question; `None` if it is none.
#[must_use]
pub fn question(item: &Map<String, Value>, defaults: Option<&Map<String, Value>>) -> Option<Read> {
    let read = Question::read(item, defaults).ok()?;
    let asked = read.asked().map(|asked| match asked {
        Asked::Tool { upstream, tool, arguments } => (upstream.to_string(), tool.to_string(), arguments),
        Asked::Prompt { upstream, name, arguments } => (upstream.to_string(), name, arguments),
        Asked::Resource { upstream, uri } => (upstream.to_string(), uri, Map::new()),
    });
    let own = |(kind, id): (&str, &str)| (kind.to_owned(), id.to_owned());
    let (subject, resource) = (own(read.subject), own(read.resource));
    Some(Read { subject, action: read.action.to_owned(), resource, binding: read.binding, asked })
}

/// The moment that a text names, in milliseconds, and how it is written.
#[must_use]
pub fn moment(text: &str) -> Option<(i64, String)> {
    let at = crate::instant::from_text(text)?;
    Some((at.millis(), crate::instant::to_text(at)))
}
