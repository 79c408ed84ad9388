//! What a target offers: one typed thing that a task may ask a credential for. Owns the words that policy and the log
//! use for it; how it is expressed at the target (a template role, a key pattern, a role to assume) is the target's own.

use crate::intent::{Param, ParamFault};
use crate::name::OfferName;
use crate::tool::ToolTraits;
use crate::value::Params;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// Who makes the secret of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SecretOrigin {
    /// The caller made it and handed over only what the target needs to check it: Writ never holds a usable secret.
    Caller,
    /// Writ, or the target, makes it, and Writ hands it out once.
    Writ,
}

impl SecretOrigin {
    /// The word that policies compare with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Writ => "writ",
        }
    }
}

/// One thing that a target offers: an action of the policy schema, with typed parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name, unique at its target.
    pub name: OfferName,
    /// What a holder can do with it, for people and for models.
    pub description: String,
    /// What may be said about it when it is asked for.
    pub params: BTreeMap<String, Param>,
    /// What a holder can read and where it can send: a credential raises the labels of its task when it is issued,
    /// because what is done with it is not seen here.
    pub traits: ToolTraits,
    /// Longest life of a credential, in seconds.
    pub lifetime_secs: u64,
}

impl Offer {
    /// Checks what is said and fills in defaults.
    ///
    /// # Errors
    /// Every fault, so that they can be mended at once.
    pub fn bind(&self, said: &Map<String, Json>) -> Result<Params, Vec<ParamFault>> {
        crate::intent::bind(&self.params, said)
    }
}
