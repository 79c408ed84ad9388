//! Secrets out of the references that an operator configured. Read each time that one is needed, so that a rotated
//! secret works at once; held only in `secrecy` types; an error names the reference, never what was read.

use super::error::UpstreamError;
use crate::scrub::{Needles, SECRET_BYTES_MIN};
use arc_swap::ArcSwapOption;
use domain::{Injection, SecretRef};
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

/// Largest secret: an access token fits many times over.
const SECRET_BYTES_MAX: usize = 16 * 1_024;

/// The secret behind `reference`, without a line ending at its end.
///
/// # Errors
/// [`UpstreamError::Credential`]: it is missing, empty, too large, or not text.
#[expect(clippy::disallowed_methods, reason = "an operator named this variable as the place of the secret")]
pub fn resolve(reference: &SecretRef) -> Result<SecretString, UpstreamError> {
    let (text, place) = match reference {
        SecretRef::Env(name) => {
            let place = format!("environment variable `{name}`");
            let text = std::env::var_os(name).ok_or_else(|| fault(&place, "is not set"))?;
            (text.into_string().map_err(|_| fault(&place, "is not UTF-8"))?, place)
        }
        SecretRef::File(path) => {
            let place = format!("file `{path}`");
            (read_file(path, &place)?, place)
        }
    };
    if text.len() > SECRET_BYTES_MAX {
        return Err(fault(&place, "is larger than a secret can be"));
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(fault(&place, "is empty"));
    }
    Ok(SecretString::from(secret))
}

fn read_file(path: &str, place: &str) -> Result<String, UpstreamError> {
    // A pipe or device would block the reader or never end.
    let is_file = std::fs::metadata(path).map_err(|error| fault(place, &error.kind().to_string()))?.is_file();
    if !is_file {
        return Err(fault(place, "is not a regular file"));
    }
    let file = File::open(path).map_err(|error| fault(place, &error.kind().to_string()))?;
    // Asked of the open file, not of the path: between two look-ups it could have been exchanged.
    let mode = file.metadata().map_err(|error| fault(place, &error.kind().to_string()))?.permissions().mode();
    if mode & 0o077 != 0 {
        let hint = "can be read by others than its owner: `chmod 600` it, and replace the secret if others may have read it";
        return Err(fault(place, hint));
    }
    let mut text = String::new();
    let limit = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_string(&mut text).map_err(|error| fault(place, &error.kind().to_string()))?;
    Ok(text)
}

fn fault(place: &str, what: &str) -> UpstreamError {
    UpstreamError::Credential(format!("{place} {what}"))
}

/// Headers that carry the protocol or the connection: a credential in one of them would break or redirect requests.
const RESERVED: [&str; 10] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "accept",
    "accept-encoding",
    "last-event-id",
];

/// The header that carries the credential of an upstream, marked so that no log prints it.
///
/// # Errors
/// [`UpstreamError::Credential`]: the secret cannot be read, or does not fit into a header.
pub(super) fn header(injection: &Injection, shown: &Shown) -> Result<(HeaderName, HeaderValue), UpstreamError> {
    let name = HeaderName::from_bytes(injection.header.as_bytes())
        .map_err(|_| UpstreamError::Credential(format!("`{}` is not a header name", injection.header)))?;
    if RESERVED.contains(&name.as_str()) || name.as_str().starts_with("mcp-") {
        return Err(UpstreamError::Credential(format!("header `{name}` belongs to the protocol; use another one")));
    }
    let secret = resolve(&injection.secret)?;
    let whole = SecretString::from(format!("{}{}", injection.prefix, secret.expose_secret()));
    let mut value = HeaderValue::from_str(whole.expose_secret())
        .map_err(|_| UpstreamError::Credential("it has characters that no HTTP header can carry".to_owned()))?;
    value.set_sensitive(true);
    shown.note(secret);
    Ok((name, value))
}

/// Secrets that are remembered after they were replaced: what was sent with one of them may still be under way.
const SHOWN_MAX: usize = 4;

/// The secrets that an upstream was shown. None of them may come back to an agent: a server that repeats what it was sent,
/// in an error or on request, would give away what only the gateway shall hold.
#[derive(Default)]
pub(super) struct Shown(ArcSwapOption<Known>);

struct Known {
    /// The newest is the last.
    secrets: Vec<SecretString>,
    needles: Arc<Needles>,
}

impl Shown {
    /// Remembers one. Shorter ones than [`SECRET_BYTES_MIN`] would be found where they are not.
    pub(super) fn note(&self, secret: SecretString) {
        let text = secret.expose_secret();
        let known = self.0.load();
        let before = known.as_ref().map(|known| known.secrets.as_slice()).unwrap_or_default();
        if text.len() < SECRET_BYTES_MIN || before.iter().any(|other| other.expose_secret() == text) {
            return;
        }
        let kept = before.iter().skip((before.len() + 1).saturating_sub(SHOWN_MAX)).cloned();
        let secrets: Vec<_> = kept.chain([secret.clone()]).collect();
        let needles = Needles::of(secrets.iter().map(ExposeSecret::expose_secret));
        self.0.store(Some(Arc::new(Known { secrets, needles })));
    }

    /// Whether a text holds one of them.
    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        self.0.load().as_ref().is_some_and(|known| known.needles.occur_in(text))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> (tempfile::NamedTempFile, SecretRef) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let reference = SecretRef::File(file.path().to_string_lossy().into_owned());
        (file, reference)
    }

    #[test]
    fn a_rotated_secret_is_used_at_once() {
        let (mut handle, reference) = file(b"one\n");
        assert_eq!(resolve(&reference).unwrap().expose_secret(), "one");
        handle.as_file_mut().set_len(0).unwrap();
        std::fs::write(handle.path(), "two\r\n").unwrap();
        assert_eq!(resolve(&reference).unwrap().expose_secret(), "two");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let (handle, reference) = file(b"hush");
        for (mode, taken) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o644, false), (0o620, false)] {
            std::fs::set_permissions(handle.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            let answer = resolve(&reference).map(|_| ()).map_err(|error| error.to_string());
            assert_eq!(answer.is_ok(), taken, "{mode:o}");
            assert!(taken || answer.is_err_and(|error| error.contains("chmod 600") && !error.contains("hush")), "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_without_showing_it() {
        let large = vec![b'k'; SECRET_BYTES_MAX + 1];
        for content in [b"".as_slice(), b"\n", b"hush\xff", &large] {
            let (_handle, reference) = file(content);
            let error = resolve(&reference).unwrap_err().to_string();
            assert!(error.contains("file `") && !error.contains("hush") && !error.contains("kkk"), "{error}");
        }
        assert!(resolve(&SecretRef::File("/dev/zero".into())).unwrap_err().to_string().contains("not a regular file"));
        assert!(resolve(&SecretRef::Env("WRIT_NO_SUCH_VARIABLE".into())).unwrap_err().to_string().contains("is not set"));
    }

    #[test]
    fn a_credential_cannot_take_over_a_header_of_the_protocol() {
        let (_handle, reference) = file(b"s3cret");
        for name in ["Host", "content-length", "Mcp-Session-Id", "mcp-name", "bad name", ""] {
            let injection = Injection { header: name.into(), prefix: String::new(), secret: reference.clone() };
            assert!(header(&injection, &Shown::default()).is_err(), "{name}");
        }
        let injection = Injection { header: "Authorization".into(), prefix: "Bearer ".into(), secret: reference };
        let (name, value) = header(&injection, &Shown::default()).unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("authorization", "Bearer s3cret"));
        assert!(!format!("{value:?}").contains("s3cret"));
    }

    #[test]
    fn a_secret_that_was_replaced_is_known_for_a_while() {
        let shown = Shown::default();
        assert!(!shown.is_in(b"secret-0"));
        for number in 0..5 {
            shown.note(format!("secret-{number}").into());
            shown.note(format!("secret-{number}").into());
        }
        let known: Vec<_> = (0..5).filter(|number| shown.is_in(format!("x secret-{number} x").as_bytes())).collect();
        assert_eq!(known, [1, 2, 3, 4]);
    }

    #[test]
    fn a_secret_cannot_smuggle_a_header() {
        let (_handle, reference) = file(b"a\r\nx-admin: 1");
        let injection = Injection { header: "x-key".into(), prefix: String::new(), secret: reference };
        let error = header(&injection, &Shown::default()).unwrap_err().to_string();
        assert!(!error.contains("x-admin"), "{error}");
    }
}
