//! Names that people choose and identifiers that Writ makes. Each has its own type, so that an agent and its owner
//! cannot swap places. Owns the alphabets; never draws the random bytes of an identifier.

use crate::error::{Error, shown};
use crate::limits::{NAME_BYTES_MAX, TOOL_NAME_BYTES_MAX};
use data_encoding::HEXLOWER;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

const NAME_RULE: &str = "use 1 to 64 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit";
const TOOL_RULE: &str = "use 1 to 128 of A-Z, a-z, 0-9, `_`, `-`, `.` and `/`";

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'))
}

fn is_tool_name(text: &str) -> bool {
    (1..=TOOL_NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'))
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $check:ident, $rule:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                if $check(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(Error::Name { what: $what, given: shown(text), rule: $rule })
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::borrow::Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A registered agent, by the name that its operator chose.
    AgentId, "agent name", is_name, NAME_RULE
);
name!(
    /// The accountable team or person.
    OwnerId, "owner name", is_name, NAME_RULE
);
name!(
    /// A kind of task that may be declared.
    IntentName, "intent name", is_name, NAME_RULE
);
name!(
    /// A configured source of identity evidence.
    ProviderName, "identity provider name", is_name, NAME_RULE
);
name!(
    /// An MCP server or HTTP API behind the gateway.
    UpstreamName, "upstream name", is_name, NAME_RULE
);
name!(
    /// A tool of an upstream, as the upstream spells it (MCP 2025-11-25, "Tool Names").
    ToolName, "tool name", is_tool_name, TOOL_RULE
);

name!(
    /// A system in which credentials are minted, as its operator named it.
    TargetName, "target name", is_name, NAME_RULE
);
name!(
    /// What may be asked for at a target: one action of the policy schema.
    OfferName, "offer name", is_name, NAME_RULE
);

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $what:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type([u8; 16]);

        impl $type {
            /// The identifier over these 16 bytes (a UUIDv7, made by the caller).
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes of the identifier.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                fmt::Display::fmt(&HEXLOWER.encode_display(&self.0), f)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $type {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                text.strip_prefix($prefix)
                    .and_then(parse_hex)
                    .map(Self)
                    .ok_or_else(|| Error::Id { what: $what, prefix: $prefix, given: shown(text) })
            }
        }
    };
}

id!(
    /// One task of one agent.
    TaskId, "task id", "tsk_"
);
id!(
    /// One decision about one request.
    DecisionId, "decision id", "dec_"
);

id!(
    /// One grant: the right of one task to hold one credential. The credential's name at its target is made of it.
    GrantId, "grant id", "grt_"
);

impl GrantId {
    /// Its 32 lower-case hexadecimal digits: what names at targets are made of.
    #[must_use]
    pub fn digits(&self) -> String {
        HEXLOWER.encode(&self.0)
    }

    /// The grant that a name at a target says.
    #[must_use]
    pub fn from_digits(digits: &str) -> Option<Self> {
        parse_hex(digits).map(Self)
    }
}

/// Lower-case hexadecimal only, so that an identifier has one spelling.
fn parse_hex(text: &str) -> Option<[u8; 16]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_outside_the_alphabet_are_refused() {
        for text in ["", "A", "-a", "a b", "a/b", "ä", "a\n", "..", &"a".repeat(65)] {
            assert!(text.parse::<AgentId>().is_err(), "{text:?}");
        }
        assert!("support-bot.v2".parse::<AgentId>().is_ok());
        for text in ["", "a b", "mcp:read", "ä", &"a".repeat(129)] {
            assert!(text.parse::<ToolName>().is_err(), "{text:?}");
        }
        assert!("files/Read_it.now-1".parse::<ToolName>().is_ok());
    }

    #[test]
    fn an_identifier_has_one_spelling() {
        let id = TaskId::from_bytes([0xab; 16]);
        assert_eq!(id.to_string().parse::<TaskId>().unwrap(), id);
        for text in
            ["", "tsk_", "tsk_AB", &id.to_string().to_uppercase(), &format!("{id}0"), &id.to_string().replace("tsk", "dec")]
        {
            assert!(text.parse::<TaskId>().is_err(), "{text:?}");
        }
    }
}
