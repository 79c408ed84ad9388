//! Secrets that the caller makes itself (design §9): what it keeps, and the verifier that it hands over. Neither Writ nor
//! its database ever sees the former. Owns the formats; what is done with either is the caller's business.

use anyhow::Context;
use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use data_encoding::{HEXLOWER, HEXUPPER};
use secrecy::SecretString;
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// Iterations of a SCRAM verifier. Key stretching makes guessing a *guessable* password dear; ours has 256 random bits and
/// cannot be guessed at any price, so that one iteration is as safe as a million. The server derives the key anew each
/// time it is given a verifier (to see that the password is not empty) and the client at each login, so that more of them
/// only cost. This holds for random secrets of full strength and for nothing else.
pub(crate) const SCRAM_ITERATIONS: NonZeroU32 = NonZeroU32::MIN;

/// Random bytes of a password.
const PASSWORD_BYTES: usize = 32;
/// Random bytes of a salt (as PostgreSQL's own).
const SALT_BYTES: usize = 16;
const SHA256_BYTES: usize = 32;

/// A secret and what checks it.
pub(crate) struct Made {
    /// The name of the secret among those of a credential: `password` or `private_key`.
    pub(crate) name: &'static str,
    /// The secret.
    pub(crate) secret: SecretString,
    /// What is handed over.
    pub(crate) verifier: String,
}

/// Makes a secret of which the target wants a verifier of this kind; `None` if the kind is not known here, so that the
/// target has to make it.
///
/// # Errors
/// A key could not be made or written.
pub(crate) fn make(kind: &str, scram_iterations: NonZeroU32) -> anyhow::Result<Option<Made>> {
    Ok(Some(match kind {
        "scram_sha_256" => {
            let mut salt = [0; SALT_BYTES];
            crate::system::fill(&mut salt);
            with_password(|password| scram_sha_256(password, &salt, scram_iterations))
        }
        "mysql_native" => with_password(mysql_native),
        "sha256" => with_password(|password| HEXLOWER.encode(digest::digest(&digest::SHA256, password.as_bytes()).as_ref())),
        "ssh_public_key" => ssh_key()?,
        "certificate_request" => certificate_request()?,
        _ => return Ok(None),
    }))
}

fn with_password(verifier: impl FnOnce(&str) -> String) -> Made {
    let mut bytes = Zeroizing::new([0; PASSWORD_BYTES]);
    crate::system::fill(&mut bytes[..]);
    // Letters, digits, `-` and `_`: nothing that an option file, a URL or a shell could read as something else.
    let password = Zeroizing::new(URL_SAFE_NO_PAD.encode(&bytes[..]));
    Made { name: "password", verifier: verifier(&password), secret: SecretString::from(password.as_str()) }
}

/// A verifier as PostgreSQL stores it (RFC 5803, RFC 7677). The password is plain ASCII, so that SASLprep changes nothing.
fn scram_sha_256(password: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    let mut salted = Zeroizing::new([0; SHA256_BYTES]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.as_bytes(), &mut salted[..]);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &salted[..]);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    format!(
        "SCRAM-SHA-256${iterations}:{}${}:{}",
        STANDARD.encode(salt),
        STANDARD.encode(stored_key.as_ref()),
        STANDARD.encode(server_key.as_ref())
    )
}

/// `mysql_native_password`: SHA-1 twice. Weak for what people think of; of 256 random bits there is nothing to guess.
fn mysql_native(password: &str) -> String {
    let once = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let twice = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    format!("*{}", HEXUPPER.encode(twice.as_ref()))
}

fn ssh_key() -> anyhow::Result<Made> {
    let mut seed = Zeroizing::new([0; 32]);
    crate::system::fill(&mut seed[..]);
    let pair = ssh_key::private::Ed25519Keypair::from_seed(&seed);
    let key = ssh_key::PrivateKey::new(pair.into(), "").context("an SSH key")?;
    let secret = key.to_openssh(ssh_key::LineEnding::LF).context("an SSH key")?;
    let verifier = key.public_key().to_openssh().context("an SSH key")?;
    Ok(Made { name: "private_key", secret: SecretString::from(secret.as_str()), verifier })
}

fn certificate_request() -> anyhow::Result<Made> {
    let key = rcgen::KeyPair::generate().context("a key")?;
    let mut params = rcgen::CertificateParams::default();
    // The target alone decides what the certificate says.
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(&key).and_then(|request| request.pem()).context("a certificate request")?;
    let secret = Zeroizing::new(key.serialize_pem());
    Ok(Made { name: "private_key", secret: SecretString::from(secret.as_str()), verifier: request })
}

impl Made {
    /// The length of the secret, for tests of its strength without showing it.
    #[cfg(test)]
    fn len(&self) -> usize {
        use secrecy::ExposeSecret;
        self.secret.expose_secret().len()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use secrecy::ExposeSecret;

    /// Vectors: RFC 7677 §3 (salt, iterations and password of its exchange; the keys derive from them), `PASSWORD('secret')`
    /// of MariaDB, `printf secret | sha256sum`.
    #[test]
    fn verifiers_are_as_servers_store_them() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        assert_eq!(
            scram_sha_256("pencil", &salt, NonZeroU32::new(4096).unwrap()),
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        assert_eq!(mysql_native("secret"), "*14E65567ABDB5135D0CFD9A70B3032C179A49EE7");
        assert_eq!(
            HEXLOWER.encode(digest::digest(&digest::SHA256, b"secret").as_ref()),
            "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
        );
    }

    #[test]
    fn every_kind_makes_another_secret_each_time_and_hands_over_only_its_verifier() {
        for kind in ["scram_sha_256", "mysql_native", "sha256", "ssh_public_key", "certificate_request"] {
            let (one, two) = (make(kind, SCRAM_ITERATIONS).unwrap().unwrap(), make(kind, SCRAM_ITERATIONS).unwrap().unwrap());
            assert_ne!(one.verifier, two.verifier, "{kind}");
            assert_ne!(one.secret.expose_secret(), two.secret.expose_secret(), "{kind}");
            assert!(one.len() >= 43, "{kind}: 256 bits in base64url");
            assert!(!one.verifier.contains(one.secret.expose_secret()), "{kind}");
        }
        assert!(make("of_another_age", SCRAM_ITERATIONS).unwrap().is_none());
    }

    #[test]
    fn a_key_belongs_to_its_verifier() {
        let made = make("ssh_public_key", SCRAM_ITERATIONS).unwrap().unwrap();
        let key = ssh_key::PrivateKey::from_openssh(made.secret.expose_secret()).unwrap();
        assert_eq!(key.public_key().to_openssh().unwrap(), made.verifier);
        assert!(made.verifier.starts_with("ssh-ed25519 AAAA"));
        let made = make("certificate_request", SCRAM_ITERATIONS).unwrap().unwrap();
        assert!(made.verifier.starts_with("-----BEGIN CERTIFICATE REQUEST-----"));
        assert!(made.secret.expose_secret().starts_with("-----BEGIN PRIVATE KEY-----"));
    }
}
