//! `tools/<upstream>.toml`: what an operator says about tools. A tool that nobody labelled is assumed to be the worst:
//! its answers untrusted and confidential, its reach external. Owns the format; policies decide what a label forbids.

use crate::Diagnostic;
use crate::shape::Numbers;
use crate::spelling::did_you_mean;
use domain::{Reading, ToolTraits};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LabelFile {
    #[serde(default)]
    defaults: LabelTable,
    resources: Option<LabelTable>,
    prompts: Option<LabelTable>,
    unasked: Option<UnaskedTable>,
    #[serde(default)]
    tools: BTreeMap<Spanned<String>, LabelTable>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
struct LabelTable {
    untrusted: Option<bool>,
    sensitivity: Option<Spanned<String>>,
    sink: Option<Spanned<String>>,
    numbers: Option<Numbers>,
    #[serde(default)]
    clear_arguments: Vec<Spanned<String>>,
}

/// What is said without a decided request has no sink and no arguments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UnaskedTable {
    untrusted: Option<bool>,
    sensitivity: Option<Spanned<String>>,
}

impl From<UnaskedTable> for LabelTable {
    fn from(table: UnaskedTable) -> Self {
        Self { untrusted: table.untrusted, sensitivity: table.sensitivity, ..Self::default() }
    }
}

/// What an upstream says without a decided request brings into a task: its instructions, lists of resources and prompts,
/// log messages, notifications and questions outside of a call. Definitions of approved tools are not among it: an operator
/// accepted their text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Unasked {
    /// The labels that rise: those of `[unasked]`, else of `[defaults]`, else the worst.
    pub reading: Reading,
    /// Whether somebody wrote `[unasked]`.
    pub declared: bool,
}

/// What is said about one tool.
#[derive(Debug, Clone, Default)]
pub(crate) struct Label {
    pub(crate) traits: ToolTraits,
    pub(crate) numbers: Numbers,
    /// Where each of `clear_arguments` is written, to say so when the tool has no such argument.
    clear_spans: Vec<Range<usize>>,
}

/// What is said about one upstream.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    path: String,
    text: String,
    default: Label,
    pub(crate) resources: ToolTraits,
    pub(crate) prompts: ToolTraits,
    pub(crate) unasked: Unasked,
    tools: BTreeMap<String, (Label, Range<usize>)>,
}

impl Labels {
    /// Reads the file; what is wrong with it is added to `found`.
    pub(crate) fn read(path: &str, text: &str, found: &mut Vec<Diagnostic>) -> Self {
        let file: LabelFile = crate::toml_text::parse(path, text, found).unwrap_or_default();
        let mut label = |table: &LabelTable, base: &Label| table.over(base, path, text, found);
        let default = label(&file.defaults, &Label::default());
        let of = |table: Option<LabelTable>, label: &mut dyn FnMut(&LabelTable, &Label) -> Label| {
            table.map_or_else(|| default.traits.clone(), |table| label(&table, &default).traits)
        };
        let (resources, prompts) = (of(file.resources, &mut label), of(file.prompts, &mut label));
        let unasked = Unasked { declared: file.unasked.is_some(), reading: of(file.unasked.map(Into::into), &mut label).reading };
        let tools = file
            .tools
            .into_iter()
            .map(|(name, table)| (name.get_ref().clone(), (label(&table, &default), name.span())))
            .collect();
        Self { path: path.to_owned(), text: text.to_owned(), default, resources, prompts, unasked, tools }
    }

    /// What is said about a tool, or assumed.
    pub(crate) fn of(&self, tool: &str) -> &Label {
        self.tools.get(tool).map_or(&self.default, |(label, _)| label)
    }

    /// Whether the tool has labels of its own.
    pub(crate) fn names(&self, tool: &str) -> bool {
        self.tools.contains_key(tool)
    }

    /// Warns of labels for tools that are not approved.
    pub(crate) fn check_tools<'a>(&self, approved: impl Iterator<Item = &'a str> + Clone, found: &mut Vec<Diagnostic>) {
        for (name, (_, span)) in &self.tools {
            if !approved.clone().any(|tool| tool == name) {
                let message = format!("no tool `{}` is approved for this upstream", crate::lock::shown(name));
                let help =
                    did_you_mean(name, approved.clone()).unwrap_or_else(|| "remove the label, or approve the tool".to_owned());
                found.push(Diagnostic::at(&self.path, &self.text, span.clone(), message).help(help).warning());
            }
        }
    }

    /// Warns of clear arguments that the tool does not have.
    pub(crate) fn check_arguments<'a>(
        &self,
        tool: &str,
        known: impl Iterator<Item = &'a str> + Clone,
        found: &mut Vec<Diagnostic>,
    ) {
        let Some((label, _)) = self.tools.get(tool) else { return };
        for (name, span) in label.traits.clear_arguments.iter().zip(&label.clear_spans) {
            if !known.clone().any(|argument| argument == name) {
                let message = format!("tool `{tool}` has no argument `{}`", crate::lock::shown(name));
                let help = did_you_mean(name, known.clone()).unwrap_or_else(|| "remove it".to_owned());
                found.push(Diagnostic::at(&self.path, &self.text, span.clone(), message).help(help).warning());
            }
        }
    }
}

impl LabelTable {
    fn over(&self, base: &Label, path: &str, text: &str, found: &mut Vec<Diagnostic>) -> Label {
        let word = |given: &Option<Spanned<String>>| {
            let given = given.as_ref()?;
            Some((given.get_ref().clone(), given.span()))
        };
        let mut fault = |error: domain::Error, span: Range<usize>, words: &[&'static str], given: &str| {
            let fault = Diagnostic::at(path, text, span, error.to_string());
            found.push(match did_you_mean(given, words.iter().copied()) {
                Some(help) => fault.help(help),
                None => fault,
            });
        };
        let mut label = base.clone();
        if let Some((given, span)) = word(&self.sensitivity) {
            match given.parse() {
                Ok(level) => label.traits.reading.sensitivity = level,
                Err(error) => fault(error, span, &["public", "internal", "confidential", "restricted"], &given),
            }
        }
        if let Some((given, span)) = word(&self.sink) {
            match given.parse() {
                Ok(sink) => label.traits.sink = sink,
                Err(error) => fault(error, span, &["none", "internal", "external"], &given),
            }
        }
        label.traits.reading =
            Reading { untrusted: self.untrusted.unwrap_or(base.traits.reading.untrusted), ..label.traits.reading };
        label.numbers = self.numbers.unwrap_or(base.numbers);
        label.traits.clear_arguments = self.clear_arguments.iter().map(|name| name.get_ref().clone()).collect();
        label.clear_spans = self.clear_arguments.iter().map(Spanned::span).collect();
        label
    }
}
