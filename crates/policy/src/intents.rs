//! `intents/*.toml`: kinds of task as files. Owns the format and its messages; what an intent may do is decided by
//! policies.

use crate::Diagnostic;
use crate::lock::shown;
use crate::spelling::{did_you_mean, is_identifier};
use domain::limits::{PARAMS_MAX, TASK_CALLS_MAX, TASK_LIFETIME_SECS_MAX};
use domain::{Intent, IntentName, Param, ParamType, TaskLimits};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use std::str::FromStr;
use toml::Spanned;

/// The attribute that every task has beside its parameters.
pub(crate) const AGENT: &str = "agent";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IntentFile {
    name: Spanned<String>,
    description: Spanned<String>,
    owner: Spanned<String>,
    #[serde(default)]
    reach: Vec<Spanned<String>>,
    #[serde(default)]
    targets: Vec<Spanned<String>>,
    #[serde(default)]
    params: BTreeMap<Spanned<String>, ParamTable>,
    #[serde(default)]
    limits: LimitsTable,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ParamTable {
    r#type: Spanned<String>,
    description: String,
    default: Option<Spanned<toml::Value>>,
    min: Option<i64>,
    max: Option<i64>,
    #[serde(default)]
    one_of: Vec<String>,
    #[serde(default)]
    sensitive: bool,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    lifetime_secs: Option<Spanned<u64>>,
    calls: Option<Spanned<u64>>,
    idle_secs: Option<Spanned<u64>>,
}

/// Reads one intent; what is wrong with it is added to `found`.
pub(crate) fn read(path: &str, text: &str, found: &mut Vec<Diagnostic>) -> Option<(Intent, Range<usize>)> {
    let file: IntentFile = crate::toml_text::parse(path, text, found)?;
    let before = found.len();
    let mut reader = Reader { path, text, found };
    let name = reader.word::<IntentName>(&file.name);
    let owner = reader.word(&file.owner);
    let reach = file.reach.iter().filter_map(|upstream| reader.word(upstream)).collect();
    let targets = file.targets.iter().filter_map(|target| reader.word(target)).collect();
    if file.description.get_ref().trim().is_empty() {
        reader.say(file.description.span(), "an intent needs a description", "say what a task of it is for");
    }
    let limits = reader.limits(&file.limits);
    let params = reader.params(file.params, &[AGENT]);
    let span = file.name.span();
    if found.len() > before {
        return None;
    }
    let description = file.description.into_inner();
    Some((Intent { name: name?, description, owner: owner?, params, reach, targets, limits }, span))
}

/// One file, and what is wrong with it.
pub(crate) struct Reader<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    pub(crate) found: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    pub(crate) fn say(&mut self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Diagnostic::at(self.path, self.text, span, message).help(help));
    }

    pub(crate) fn word<T: FromStr<Err = domain::Error>>(&mut self, text: &Spanned<String>) -> Option<T> {
        text.get_ref()
            .parse()
            .map_err(|error| self.found.push(Diagnostic::at(self.path, self.text, text.span(), format!("{error}"))))
            .ok()
    }

    fn limits(&mut self, table: &LimitsTable) -> TaskLimits {
        let default = TaskLimits::default();
        TaskLimits {
            lifetime_secs: self
                .limit("lifetime_secs", table.lifetime_secs.as_ref(), TASK_LIFETIME_SECS_MAX)
                .unwrap_or(default.lifetime_secs),
            calls: self.limit("calls", table.calls.as_ref(), TASK_CALLS_MAX).unwrap_or(default.calls),
            idle_secs: self.limit("idle_secs", table.idle_secs.as_ref(), TASK_LIFETIME_SECS_MAX),
        }
    }

    pub(crate) fn limit(&mut self, name: &str, given: Option<&Spanned<u64>>, max: u64) -> Option<u64> {
        let given = given?;
        if !(1..=max).contains(given.get_ref()) {
            self.say(given.span(), format!("`{name}` is out of range"), format!("use 1 to {max}"));
        }
        Some(*given.get_ref())
    }

    /// Reads declared parameters; `taken` are names that are not free.
    pub(crate) fn params(&mut self, tables: BTreeMap<Spanned<String>, ParamTable>, taken: &[&str]) -> BTreeMap<String, Param> {
        if tables.len() > PARAMS_MAX {
            self.say(0..0, format!("there are at most {PARAMS_MAX} parameters"), "split it");
        }
        tables.into_iter().filter_map(|(name, table)| Some((name.get_ref().clone(), self.param(&name, table, taken)?))).collect()
    }

    fn param(&mut self, name: &Spanned<String>, table: ParamTable, taken: &[&str]) -> Option<Param> {
        let text = name.get_ref();
        if taken.contains(&text.as_str()) {
            self.say(
                name.span(),
                "`agent` is not free for a parameter",
                "every task has its agent under that name: `principal.agent`",
            );
        } else if !is_identifier(text) || text.len() > domain::limits::NAME_BYTES_MAX {
            let help = "use letters, digits and `_`, starting with a letter, so that policies can write `principal.name`";
            self.say(name.span(), format!("`{}` cannot be the name of a parameter", shown(text)), help);
        }
        const KINDS: [ParamType; 4] = [ParamType::Text, ParamType::Long, ParamType::Bool, ParamType::Texts];
        let Some(kind) = KINDS.into_iter().find(|kind| kind.as_str() == table.r#type.get_ref()) else {
            let words = KINDS.map(ParamType::as_str);
            let help =
                did_you_mean(table.r#type.get_ref(), words).unwrap_or_else(|| format!("use one of `{}`", words.join("`, `")));
            self.say(table.r#type.span(), format!("`{}` is not a type of parameter", shown(table.r#type.get_ref())), help);
            return None;
        };
        let bounds = table.min.is_some() || table.max.is_some();
        if bounds && kind != ParamType::Long {
            self.say(table.r#type.span(), "`min` and `max` are for parameters of type `integer`", "use `one_of` for texts");
        }
        if !table.one_of.is_empty() && !matches!(kind, ParamType::Text | ParamType::Texts) {
            self.say(
                table.r#type.span(),
                "`one_of` is for parameters of type `string` or `strings`",
                "use `min` and `max` for numbers",
            );
        }
        if table.min.zip(table.max).is_some_and(|(min, max)| min > max) {
            self.say(name.span(), format!("no number is from `min` to `max` of `{}`", shown(text)), "swap them");
        }
        let mut param = Param {
            kind,
            description: table.description,
            default: None,
            min: table.min,
            max: table.max,
            one_of: table.one_of,
            sensitive: table.sensitive,
        };
        if let Some(default) = table.default {
            let span = default.span();
            match serde_json::to_value(default.into_inner()).map(|json| param.read(text, &json)) {
                Ok(Ok(value)) => param.default = Some(value),
                Ok(Err(fault)) => {
                    self.say(span, format!("the default does not fit: {fault}"), "a default obeys the parameter's own rules")
                }
                Err(_) => {
                    self.say(span, "the default has no JSON form", "use text, a whole number, a truth value or a list of texts")
                }
            }
        }
        Some(param)
    }
}
