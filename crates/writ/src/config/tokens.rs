//! `[tokens]`: the access tokens that Writ issues. Reads their limits; never a key.

use super::option::{Opt, Section, opt};
use super::read::Table;

/// `[tokens]`.
pub(crate) static TOKENS: Section = Section {
    header: "[tokens]",
    doc: "The access tokens that Writ issues. Each is bound to one task and one key.",
    options: OPTIONS,
};

const OPTIONS: &[Opt] = &[
    opt(
        "lifetime_secs",
        "30 to 3600",
        "300",
        "How long a token lasts. A task renews it by proving itself again; there are no refresh tokens.",
    ),
    opt(
        "dpop_nonce",
        "`optional` or `required`",
        "`optional`",
        "`required`: proofs of possession must carry a nonce of the server (RFC 9449 §8), which costs clients one more round trip now and then and stops proofs made in advance.",
    ),
];

/// `[tokens]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tokens {
    /// How long a token lasts.
    pub(crate) lifetime_secs: u64,
    /// Whether DPoP proofs must carry a nonce.
    pub(crate) nonce_required: bool,
}

/// Reads `[tokens]`.
pub(crate) fn read(table: &Table<'_>) -> Tokens {
    Tokens {
        lifetime_secs: table.number("lifetime_secs", 30..=3_600).unwrap_or(300),
        nonce_required: table.word("dpop_nonce", &[("optional", false), ("required", true)]).unwrap_or(false),
    }
}
