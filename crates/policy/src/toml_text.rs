//! Every TOML file of the folder is parsed here, so that faults look alike: place, what is wrong, what was meant.

use crate::Diagnostic;
use crate::spelling::did_you_mean;
use serde::de::DeserializeOwned;

/// Parses a file; its fault is added to `found`.
pub(crate) fn parse<T: DeserializeOwned>(path: &str, text: &str, found: &mut Vec<Diagnostic>) -> Option<T> {
    match toml::from_str(text) {
        Ok(file) => Some(file),
        Err(error) => {
            let message = error.message().trim().replace('\n', " ");
            let fault = Diagnostic::at(path, text, error.span().unwrap_or(0..0), message.as_str());
            found.push(match meant(&message) {
                Some(help) => fault.help(help),
                None => fault,
            });
            None
        }
    }
}

/// For ``unknown field `x`, expected one of `a`, `b` ``: which of them was probably meant.
fn meant(message: &str) -> Option<String> {
    let mut quoted = message
        .strip_prefix("unknown field ")
        .or_else(|| message.strip_prefix("unknown variant "))?
        .split('`')
        .skip(1)
        .step_by(2);
    did_you_mean(quoted.next()?, quoted)
}
