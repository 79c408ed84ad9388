//! A call's arguments as Cedar values, checked against the tool's signature on the way. What comes out has the type
//! that the schema declares *by construction*, so that no second validation is needed at request time. Faults name
//! the argument and what is expected, never a value.

use crate::shape::{Members, Shape};
use crate::spelling::did_you_mean;
use cedar_policy_core::ast::{PartialValue, Value, ValueKind};
use cedar_policy_core::extensions::Extensions;
use domain::json::canonical;
use serde_json::{Map, Value as Json};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most items of all lists in one call: building a set sorts it.
const ITEMS_MAX: usize = 10_000;

/// Why an argument is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The tool has no such argument.
    #[error("has no argument `{name}`")]
    Unknown {
        /// Its path, cut to a printable length.
        name: String,
        /// What it could have meant.
        help: Option<String>,
    },
    /// A required argument is not there.
    #[error("needs the argument `{0}`")]
    Missing(String),
    /// It is not what the schema says.
    #[error("takes {expected} as `{name}`")]
    Type {
        /// Its path.
        name: String,
        /// What is expected.
        expected: &'static str,
    },
    /// What is said about a credential or a request does not fit what its offer declares.
    #[error("was asked for wrongly: {0}")]
    Param(domain::ParamFault),
    /// What a URI names depends on who reads it.
    #[error(
        "takes a URI that everybody reads alike: without dot segments, control characters, blanks around it, or letters, digits, \
         `-`, `.`, `_`, `~` written as `%XX`"
    )]
    Uri,
    /// There is more of it than policy can look at.
    #[error("takes at most {ITEMS_MAX} list items in one call")]
    TooMany,
}

/// The arguments as the record `context.input`.
///
/// # Errors
/// The first fault.
pub(crate) fn read(members: &Members, arguments: &Map<String, Json>) -> Result<Value, Fault> {
    Reader { items: ITEMS_MAX }.record(members, arguments, &Path::Top)
}

/// Where in the arguments we are: spelled out only for a fault.
enum Path<'a> {
    Top,
    Member(&'a Self, &'a str),
    Item(&'a Self),
}

impl Path<'_> {
    fn spell(&self) -> String {
        match self {
            Self::Top => String::new(),
            Self::Member(Self::Top, name) => shown(name),
            Self::Member(parent, name) => format!("{}.{}", parent.spell(), shown(name)),
            Self::Item(parent) => format!("{}[]", parent.spell()),
        }
    }
}

/// Cuts a hostile name to what may stand in a message.
fn shown(name: &str) -> String {
    name.chars().take(64).flat_map(char::escape_debug).collect()
}

struct Reader {
    items: usize,
}

impl Reader {
    /// INVARIANT(nothing-unseen): a member that the signature does not name is refused, at every depth.
    fn record(&mut self, members: &Members, given: &Map<String, Json>, path: &Path<'_>) -> Result<Value, Fault> {
        let mut record = BTreeMap::new();
        for (name, json) in given {
            let Some((key, member)) = members.get_key_value(name.as_str()) else {
                let help = did_you_mean(name, members.keys().map(SmolStr::as_str));
                return Err(Fault::Unknown { name: Path::Member(path, name).spell(), help });
            };
            if json.is_null() && member.nullable {
                continue;
            }
            record.insert(key.clone(), self.value(&member.shape, json, &Path::Member(path, name))?);
        }
        if let Some((name, _)) = members.iter().find(|(name, member)| member.required && !record.contains_key(*name)) {
            return Err(Fault::Missing(Path::Member(path, name).spell()));
        }
        Ok(Value::record_arc(Arc::new(record), None))
    }

    fn value(&mut self, shape: &Shape, json: &Json, path: &Path<'_>) -> Result<Value, Fault> {
        let wrong = |expected| Fault::Type { name: path.spell(), expected };
        match shape {
            Shape::Text => Ok(json.as_str().ok_or_else(|| wrong("text"))?.into()),
            Shape::Long => {
                Ok(json.as_i64().ok_or_else(|| wrong("a whole number of at most 64 bits, without a decimal point"))?.into())
            }
            Shape::Bool => Ok(json.as_bool().ok_or_else(|| wrong("`true` or `false`"))?.into()),
            Shape::Decimal if json.is_number() => {
                decimal(json).ok_or_else(|| wrong("a number of at most four decimals and below 922337203685477.5807"))
            }
            Shape::Decimal => Err(wrong("a number")),
            Shape::NumberText if json.is_number() => Ok(canonical(json).into()),
            Shape::NumberText => Err(wrong("a number")),
            Shape::Set(item) => {
                let items = json.as_array().ok_or_else(|| wrong("a list"))?;
                self.items = self.items.checked_sub(items.len()).ok_or(Fault::TooMany)?;
                let values = items.iter().map(|json| self.value(item, json, &Path::Item(path)));
                Ok(Value::set(values.collect::<Result<Vec<_>, _>>()?, None))
            }
            Shape::Record(members) => self.record(members, json.as_object().ok_or_else(|| wrong("an object"))?, path),
            Shape::Json => Ok(canonical(json).into()),
        }
    }
}

/// A JSON number as a Cedar decimal (four decimals, 64 bits), if it is exactly one.
fn decimal(json: &Json) -> Option<Value> {
    let text = canonical(json);
    let (whole, part) = text.split_once('.').unwrap_or((&text, "0"));
    extension("decimal", &[format!("{whole}.{part}").into()])
}

/// Calls one of Cedar's extension functions.
pub(crate) fn extension(name: &str, arguments: &[Value]) -> Option<Value> {
    let function = Extensions::all_available().func(&name.parse().ok()?).ok()?;
    match function.call(arguments).ok()? {
        PartialValue::Value(value) => Some(value),
        PartialValue::Residual(_) => None,
    }
}

/// The text of a plain value for a message; `None` for what is better not spelled out.
pub(crate) fn plain(value: &Value) -> Option<String> {
    match value.value_kind() {
        ValueKind::Lit(literal) => Some(match literal {
            cedar_policy_core::ast::Literal::Bool(truth) => truth.to_string(),
            cedar_policy_core::ast::Literal::Long(number) => number.to_string(),
            cedar_policy_core::ast::Literal::String(text) => format!("`{}`", shown(text)),
            cedar_policy_core::ast::Literal::EntityUID(uid) => {
                let eid: &str = uid.eid().as_ref();
                format!("`{}`", shown(eid))
            }
        }),
        ValueKind::Set(set) if set.len() <= 8 => {
            let items: Option<Vec<_>> = set.iter().map(plain).collect();
            items.map(|items| items.join(", "))
        }
        _ => None,
    }
}
