//! The one error of this crate: a word that is not well formed. Owns no policy and no protocol code.

/// Why a value could not be made from text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name is empty, too long, or has a character outside its alphabet.
    #[error("`{given}` is not a valid {what}: {rule}")]
    Name {
        /// Which kind of name was expected.
        what: &'static str,
        /// What was given, cut to a printable length.
        given: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// An identifier does not have its prefix and 32 hexadecimal digits.
    #[error("`{given}` is not a valid {what}: expected `{prefix}` and 32 hexadecimal digits")]
    Id {
        /// Which kind of identifier was expected.
        what: &'static str,
        /// The prefix that this kind carries.
        prefix: &'static str,
        /// What was given, cut to a printable length.
        given: String,
    },
    /// A word that is not one of a closed list.
    #[error("`{given}` is not a {what}: expected one of {expected}")]
    Word {
        /// Which list was meant.
        what: &'static str,
        /// The words that it has.
        expected: &'static str,
        /// What was given, cut to a printable length.
        given: String,
    },
}

/// Cuts hostile text to what may stand in a message.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}
