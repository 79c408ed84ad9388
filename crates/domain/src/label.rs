//! What a task has read and where a tool sends. Labels only rise: a task never forgets that it saw untrusted text.
//! Owns the join; policy decides what a label forbids.

use crate::error::{Error, shown};
use std::str::FromStr;

/// How much harm the disclosure of some data does. Policies see the number (0 to 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Sensitivity {
    /// 0: may be read by anybody.
    #[default]
    Public,
    /// 1: for the organisation.
    Internal,
    /// 2: for those who need it; personal data starts here.
    Confidential,
    /// 3: secrets, credentials, special categories of personal data.
    Restricted,
}

impl Sensitivity {
    /// The level as policies see it.
    #[must_use]
    pub const fn level(self) -> i64 {
        self as i64
    }

    /// The level of this number.
    #[must_use]
    pub fn from_level(level: i64) -> Option<Self> {
        [Self::Public, Self::Internal, Self::Confidential, Self::Restricted].into_iter().find(|known| known.level() == level)
    }

    /// The level's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Confidential => "confidential",
            Self::Restricted => "restricted",
        }
    }
}

impl FromStr for Sensitivity {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Public, Self::Internal, Self::Confidential, Self::Restricted]
            .into_iter()
            .find(|level| level.as_str() == text)
            .ok_or_else(|| Error::Word {
                what: "sensitivity",
                expected: "`public`, `internal`, `confidential`, `restricted`",
                given: shown(text),
            })
    }
}

/// How far away the effect of a tool is felt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sink {
    /// It only reads.
    None,
    /// It changes something inside the organisation.
    Internal,
    /// It can carry data to somebody outside. The default: a tool that nobody labelled is assumed to.
    #[default]
    External,
}

impl Sink {
    /// The word that policies compare with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Internal => "internal",
            Self::External => "external",
        }
    }
}

impl FromStr for Sink {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::None, Self::Internal, Self::External].into_iter().find(|sink| sink.as_str() == text).ok_or_else(|| Error::Word {
            what: "sink",
            expected: "`none`, `internal`, `external`",
            given: shown(text),
        })
    }
}

/// What one tool's answer brings into a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reading {
    /// The answer can hold text that a stranger wrote.
    pub untrusted: bool,
    /// How sensitive the answer is.
    pub sensitivity: Sensitivity,
}

impl Default for Reading {
    /// What a tool that nobody labelled is assumed to bring.
    fn default() -> Self {
        Self { untrusted: true, sensitivity: Sensitivity::Confidential }
    }
}

/// What a task has read so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Labels {
    /// It has seen text that a stranger could have written.
    pub read_untrusted: bool,
    /// The most sensitive thing that it has seen.
    pub read_sensitivity: Sensitivity,
}

impl Labels {
    /// These labels after reading something. INVARIANT(labels-rise): the result is never below `self`.
    #[must_use]
    pub fn joined(self, reading: Reading) -> Self {
        Self {
            read_untrusted: self.read_untrusted || reading.untrusted,
            read_sensitivity: self.read_sensitivity.max(reading.sensitivity),
        }
    }
}
