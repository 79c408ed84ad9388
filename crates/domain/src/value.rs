//! Values that parameters of an intent can hold. The set is what a typed policy can compare: text, whole numbers,
//! truth, sets of text. Owns no parsing of JSON beyond these shapes.

use std::collections::{BTreeMap, BTreeSet};

/// One concrete value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text, at most [`crate::limits::PARAM_TEXT_BYTES_MAX`] bytes.
    Text(String),
    /// A whole number.
    Long(i64),
    /// A truth value.
    Bool(bool),
    /// A set of texts.
    Texts(BTreeSet<String>),
}

impl Value {
    /// The value as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Text(text) => text.as_str().into(),
            Self::Long(number) => (*number).into(),
            Self::Bool(truth) => (*truth).into(),
            Self::Texts(set) => set.iter().map(String::as_str).collect(),
        }
    }
}

/// The concrete parameters of a task, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params(pub BTreeMap<String, Value>);

impl Params {
    /// The value of a parameter.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The parameters as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        self.0.iter().map(|(name, value)| (name.clone(), value.to_json())).collect()
    }
}
