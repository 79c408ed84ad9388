//! `application/x-www-form-urlencoded` bodies, strictly: bounded, valid UTF-8, valid escapes, no repeated
//! parameter (RFC 6749 §3.2). It knows no parameter's meaning.

use crate::oauth::error::{ErrorCode, OAuthError};

/// Largest form in bytes.
pub const FORM_BYTES_MAX: usize = 64 * 1024;
/// Most parameters in a form.
const PARAMETERS_MAX: usize = 64;

/// The parameters of one form; reading one takes it out.
pub(super) struct Form {
    parameters: Vec<(String, String)>,
}

impl Form {
    /// Parses a body. Only names in `repeatable` may occur more than once; parameters without a value
    /// count as omitted (RFC 6749 §3.2), but still as occurring.
    pub(super) fn parse(body: &[u8], repeatable: &[&str]) -> Result<Self, OAuthError> {
        if body.len() > FORM_BYTES_MAX {
            return Err(invalid("the request is too large"));
        }
        let text = std::str::from_utf8(body).map_err(|_| invalid("the request is not UTF-8"))?;
        let mut parameters: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if parameters.len() >= PARAMETERS_MAX {
                return Err(invalid("the request has too many parameters"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let malformed = || invalid("the request is not a URL-encoded form");
            let name = decode(name).ok_or_else(malformed)?;
            let value = decode(value).ok_or_else(malformed)?;
            let repeated = parameters.iter().any(|(known, _)| *known == name);
            if repeated && !repeatable.contains(&name.as_str()) {
                return Err(invalid("a parameter is repeated"));
            }
            parameters.push((name, value));
        }
        parameters.retain(|(_, value)| !value.is_empty());
        Ok(Self { parameters })
    }

    /// The parameter's value, if it was sent.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.parameters.iter().position(|(known, _)| known == name)?;
        Some(self.parameters.swap_remove(index).1)
    }

    /// The parameter's value, or `invalid_request`.
    pub(super) fn require(&mut self, name: &'static str) -> Result<String, OAuthError> {
        self.take(name).ok_or_else(|| invalid(&format!("parameter {name} is missing")))
    }

    /// All values of a repeatable parameter, in order.
    pub(super) fn take_all(&mut self, name: &str) -> Vec<String> {
        let (taken, kept) = std::mem::take(&mut self.parameters).into_iter().partition::<Vec<_>, _>(|(known, _)| known == name);
        self.parameters = kept;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// Whether the parameter was sent with a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.parameters.iter().any(|(known, _)| known == name)
    }
}

/// `invalid_request` with a description.
pub(super) fn invalid(description: &str) -> OAuthError {
    OAuthError::new(ErrorCode::InvalidRequest, description)
}

/// Decodes `+` and `%XX`; `None` for a broken escape, a raw control character, or what is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => hex(bytes.next()?)? << 4 | hex(bytes.next()?)?,
            control if control.is_ascii_control() => return None,
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
