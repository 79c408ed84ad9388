//! A door for the fuzz targets (`fuzz/`): readers of hostile bytes that no other crate may call, as functions of plain values.
//! Compiled with `--cfg fuzzing` alone and no part of the crate otherwise; holds no rule of its own.

use crate::envelope::{Bond, Envelope, State};
use crate::mcp::message::Raw;
use crate::mcp::{leaving, tags};
use domain::{TaskId, Timestamp};
use serde_json::{Map, Value};

pub use crate::http::door::*;
pub use crate::upstream::door::*;

/// What of the `_meta` of an upstream passes; `None` if all of it does.
#[must_use]
pub fn narrowed(text: &str) -> Option<String> {
    tags::narrowed(text)
}

/// What of the `_meta` of a client leaves; `None` if all of it does.
#[must_use]
pub fn leaving_tags(said: &Value) -> Option<Value> {
    leaving::tags(said, |work| work == "w-1", || Some("ours".to_owned())).map(|tags| tags.value)
}

/// What of the capabilities of a client leaves.
#[must_use]
pub fn leaving_capabilities(said: &Value) -> Value {
    leaving::capabilities(said)
}

/// The answer of a client as it leaves.
#[must_use]
pub fn leaving_answer(result: &Raw) -> Option<Raw> {
    crate::answer::leaving(result, |work| work == "w-1").ok().map(|left| left.raw)
}

/// A header value in clear.
#[must_use]
pub fn decoded(value: &str) -> Option<String> {
    crate::serve::modern::decoded(value).map(std::borrow::Cow::into_owned)
}

/// The URI that a template names, and how many of the values it says in full.
#[must_use]
pub fn expand(template: &str, values: &Map<String, Value>) -> Option<(String, usize)> {
    crate::template::expand(template, values).map(|(uri, said)| (uri, said.len()))
}

/// Seals cursors under a known key.
pub struct Seals(Envelope);

impl Seals {
    /// With this key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        Envelope::with_key(key, 60).map(Self)
    }

    fn bond(task: u8) -> Option<Bond> {
        Some(Bond::new(TaskId::from_bytes([task; 16]), &"orders".parse().ok()?, "tools/list", &Map::new()))
    }

    /// The cursor as a client of this task gets it.
    #[must_use]
    pub fn seal(&self, task: u8, cursor: &str) -> Option<String> {
        self.0.seal(&Self::bond(task)?, &State::Cursor(cursor.to_owned()), [1; 16], Timestamp::from_secs(1))
    }

    /// The cursor that a client of this task brings back.
    #[must_use]
    pub fn open(&self, task: u8, text: &str) -> Option<String> {
        match self.0.open(&Self::bond(task)?, text, Timestamp::from_secs(1)) {
            Ok(State::Cursor(cursor)) => Some(cursor),
            _ => None,
        }
    }
}
