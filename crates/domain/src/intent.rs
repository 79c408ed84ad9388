//! A kind of task: its typed parameters, its reach and its limits. Owns the check of declared parameters; the file
//! format is the policy crate's, and what an intent may do is decided by policies.

use crate::limits::{PARAM_TEXT_BYTES_MAX, PARAMS_MAX, TASK_CALLS_MAX, TASK_LIFETIME_SECS_MAX};
use crate::name::{IntentName, OwnerId, TargetName, UpstreamName};
use crate::value::{Params, Value};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamType {
    /// Text.
    Text,
    /// A whole number.
    Long,
    /// A truth value.
    Bool,
    /// A set of texts.
    Texts,
}

impl ParamType {
    /// The word that intent files use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "string",
            Self::Long => "integer",
            Self::Bool => "boolean",
            Self::Texts => "strings",
        }
    }
}

/// One parameter of an intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its type.
    pub kind: ParamType,
    /// What it means, for people and for models.
    pub description: String,
    /// The value if none is declared; a parameter without one must be declared.
    pub default: Option<Value>,
    /// Smallest number allowed.
    pub min: Option<i64>,
    /// Largest number allowed.
    pub max: Option<i64>,
    /// The only texts allowed (for a set: the only members); empty means any.
    pub one_of: Vec<String>,
    /// Whether the log holds its value only as a commitment.
    pub sensitive: bool,
}

/// Bounds of a task of this intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLimits {
    /// Longest life, in seconds.
    pub lifetime_secs: u64,
    /// Most calls.
    pub calls: u64,
    /// The task ends when nothing was heard of it for so long, in seconds; `None` means until its deadline.
    pub idle_secs: Option<u64>,
}

impl Default for TaskLimits {
    fn default() -> Self {
        Self { lifetime_secs: 3_600, calls: 1_000, idle_secs: None }
    }
}

impl TaskLimits {
    /// These limits, cut to what no configuration may exceed.
    #[must_use]
    pub fn capped(self) -> Self {
        Self {
            lifetime_secs: self.lifetime_secs.clamp(1, TASK_LIFETIME_SECS_MAX),
            calls: self.calls.min(TASK_CALLS_MAX),
            idle_secs: self.idle_secs.map(|secs| secs.max(1)),
        }
    }
}

/// A kind of task that may be declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Its name.
    pub name: IntentName,
    /// What a task of it is for.
    pub description: String,
    /// Who answers for it.
    pub owner: OwnerId,
    /// Its parameters by name.
    pub params: BTreeMap<String, Param>,
    /// The upstreams that a task of it may ever use.
    pub reach: BTreeSet<UpstreamName>,
    /// The targets that a task of it may ever ask for credentials at.
    pub targets: BTreeSet<TargetName>,
    /// Its bounds.
    pub limits: TaskLimits,
}

/// What is wrong with a declared parameter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParamFault {
    /// The intent has no such parameter.
    #[error("unknown parameter `{0}`")]
    Unknown(String),
    /// It must be declared.
    #[error("parameter `{0}` is missing")]
    Missing(String),
    /// It has another type.
    #[error("parameter `{name}` must be of type {expected}")]
    Type {
        /// The parameter.
        name: String,
        /// Its declared type.
        expected: &'static str,
    },
    /// It is outside the values that the intent allows.
    #[error("parameter `{name}` is out of range: {rule}")]
    Range {
        /// The parameter.
        name: String,
        /// What would be allowed.
        rule: String,
    },
}

impl Intent {
    /// Checks declared parameters and fills in defaults.
    ///
    /// # Errors
    /// Every fault, so that they can be mended at once.
    pub fn bind(&self, declared: &Map<String, Json>) -> Result<Params, Vec<ParamFault>> {
        bind(&self.params, declared)
    }

    /// Whether parameters that were bound under an earlier version of this intent still fit it.
    ///
    /// # Errors
    /// The first fault.
    pub fn still_binds(&self, params: &Params) -> Result<(), ParamFault> {
        if let Some(name) = params.0.keys().find(|name| !self.params.contains_key(*name)) {
            return Err(ParamFault::Unknown(name.clone()));
        }
        self.params.iter().try_for_each(|(name, param)| match params.get(name) {
            Some(value) => param.admits(name, value),
            None => Err(ParamFault::Missing(name.clone())),
        })
    }
}

/// Checks what is said against what is declared, and fills in defaults.
pub(crate) fn bind(params: &BTreeMap<String, Param>, declared: &Map<String, Json>) -> Result<Params, Vec<ParamFault>> {
    let mut faults: Vec<_> = declared
        .keys()
        .filter(|name| !params.contains_key(*name))
        .take(PARAMS_MAX)
        .map(|name| ParamFault::Unknown(name.chars().take(64).collect()))
        .collect();
    let mut bound = BTreeMap::new();
    for (name, param) in params {
        let value = match (declared.get(name), &param.default) {
            (Some(json), _) => param.read(name, json),
            (None, Some(default)) => Ok(default.clone()),
            (None, None) => Err(ParamFault::Missing(name.clone())),
        };
        match value {
            Ok(value) => drop(bound.insert(name.clone(), value)),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(Params(bound)) } else { Err(faults) }
}

impl Param {
    /// Reads a declared value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(&self, name: &str, json: &Json) -> Result<Value, ParamFault> {
        let wrong = || ParamFault::Type { name: name.to_owned(), expected: self.kind.as_str() };
        match self.kind {
            ParamType::Text => self.text(name, json.as_str().ok_or_else(wrong)?).map(Value::Text),
            ParamType::Long => self.long(name, json.as_i64().ok_or_else(wrong)?).map(Value::Long),
            ParamType::Bool => json.as_bool().map(Value::Bool).ok_or_else(wrong),
            ParamType::Texts => {
                let items = json.as_array().ok_or_else(wrong)?;
                if items.len() > PARAMS_MAX {
                    return Err(range(name, format!("at most {PARAMS_MAX} items")));
                }
                let texts = items.iter().map(|item| self.text(name, item.as_str().ok_or_else(wrong)?));
                texts.collect::<Result<_, _>>().map(Value::Texts)
            }
        }
    }

    /// Whether a value is one that this parameter may hold.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn admits(&self, name: &str, value: &Value) -> Result<(), ParamFault> {
        match (self.kind, value) {
            (ParamType::Text, Value::Text(text)) => self.check_text(name, text),
            (ParamType::Long, Value::Long(number)) => self.long(name, *number).map(|_| ()),
            (ParamType::Bool, Value::Bool(_)) => Ok(()),
            (ParamType::Texts, Value::Texts(texts)) => texts.iter().try_for_each(|text| self.check_text(name, text)),
            _ => Err(ParamFault::Type { name: name.to_owned(), expected: self.kind.as_str() }),
        }
    }

    fn text(&self, name: &str, text: &str) -> Result<String, ParamFault> {
        self.check_text(name, text).map(|()| text.to_owned())
    }

    fn check_text(&self, name: &str, text: &str) -> Result<(), ParamFault> {
        if text.len() > PARAM_TEXT_BYTES_MAX {
            return Err(range(name, format!("at most {PARAM_TEXT_BYTES_MAX} bytes")));
        }
        if !self.one_of.is_empty() && !self.one_of.iter().any(|allowed| allowed == text) {
            return Err(range(name, format!("one of `{}`", self.one_of.join("`, `"))));
        }
        Ok(())
    }

    fn long(&self, name: &str, number: i64) -> Result<i64, ParamFault> {
        if self.min.is_some_and(|min| number < min) || self.max.is_some_and(|max| number > max) {
            let bound = |bound: Option<i64>| bound.map_or_else(|| "any".to_owned(), |n| n.to_string());
            return Err(range(name, format!("from {} to {}", bound(self.min), bound(self.max))));
        }
        Ok(number)
    }
}

fn range(name: &str, rule: String) -> ParamFault {
    ParamFault::Range { name: name.to_owned(), rule }
}
