//! SCRAM-SHA-256 verifiers as PostgreSQL stores them (RFC 5802 §3, RFC 7677): made from a password that Writ drew, or
//! checked when a caller made one. Pure; knows nothing of connections.

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

/// Most iterations of a verifier. The *server* derives the key once for every verifier that it is given, to see that the
/// password is not empty: a caller who could name any number could keep a processor of the database busy for hours.
pub(super) const ITERATIONS_MAX: u32 = 4_096;

/// Iterations of the verifiers that Writ makes. The derivation makes *guessing* expensive; a password of 256 random bits
/// cannot be guessed, so that one round is right for it and for nothing else. It makes issuing several times faster,
/// because the server pays for the derivation as well. Some clients (pgJDBC) refuse fewer than 4,096: see
/// `scram_iterations`.
pub(super) const ITERATIONS_OF_RANDOM: NonZeroU32 = NonZeroU32::MIN;

/// A password of 256 bits and its verifier, from unpredictable bytes.
pub(super) fn made_of(seed: &SecretBox<[u8; 32]>, iterations: NonZeroU32) -> (SecretString, String) {
    let password = SecretString::from(URL_SAFE_NO_PAD.encode(seed.expose_secret()));
    // The salt is told to everybody who begins to log in: it must say nothing of the seed.
    let mut salted = digest::Context::new(&digest::SHA256);
    salted.update(b"writ scram salt\0");
    salted.update(seed.expose_secret());
    let digest = salted.finish();
    let (salt, _) = digest.as_ref().split_at(16);
    let verifier = verifier(&password, salt, iterations);
    (password, verifier)
}

/// The verifier of a password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`. The password must be
/// printable ASCII (which SASLprep leaves as it is).
pub(crate) fn verifier(password: &SecretString, salt: &[u8], iterations: NonZeroU32) -> String {
    let mut salted = Zeroizing::new([0_u8; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, salt, password.expose_secret().as_bytes(), &mut *salted);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &*salted);
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

/// Whether a text is a verifier that the database will take. What is not one would be taken for a password.
pub(super) fn is_verifier(text: &str) -> bool {
    let parts = || {
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, rest) = rest.split_once('$')?;
        let (stored, server) = rest.split_once(':')?;
        Some((iterations, salt, stored, server))
    };
    let Some((iterations, salt, stored, server)) = parts() else { return false };
    let plain = !iterations.is_empty() && iterations.bytes().all(|byte| byte.is_ascii_digit()) && !iterations.starts_with('0');
    plain
        && iterations.parse::<u32>().is_ok_and(|number| (1..=ITERATIONS_MAX).contains(&number))
        && STANDARD.decode(salt).is_ok_and(|salt| (8..=48).contains(&salt.len()))
        && [stored, server].iter().all(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verifier_is_the_one_of_rfc_7677() {
        // RFC 7677 §3: password `pencil`, salt W22ZaJ0SNY7soEsUEjb6gQ==, 4096 rounds. The keys were made with an
        // independent implementation (Python's hashlib); the RFC gives the proofs that follow from them.
        let salt = [0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81];
        let made = verifier(&SecretString::from("pencil"), &salt, NonZeroU32::new(4_096).unwrap_or(NonZeroU32::MIN));
        assert_eq!(
            made,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        assert!(is_verifier(&made));
    }

    #[test]
    fn what_is_no_cheap_verifier_is_refused() {
        let (_, good) = made_of(&SecretBox::new(Box::new([7; 32])), ITERATIONS_OF_RANDOM);
        assert!(is_verifier(&good));
        let bad = [
            "secret".to_owned(),
            String::new(),
            good.replace("$1:", "$0:"),
            good.replace("$1:", "$01:"),
            good.replace("$1:", "$4097:"),
            good.replace("$1:", "$2147483647:"),
            good.replace("$1:", "$+1:"),
            good.replace("SCRAM-SHA-256", "md5"),
            format!("{good}'"),
            format!("{good}\n"),
            good.replacen('=', "", 1),
        ];
        for text in bad {
            assert!(!is_verifier(&text), "{text}");
        }
    }

    #[test]
    fn salt_says_nothing_of_the_password() {
        let (password, verifier) = made_of(&SecretBox::new(Box::new([7; 32])), ITERATIONS_OF_RANDOM);
        assert!(!verifier.contains(password.expose_secret()));
        assert_eq!(password.expose_secret().len(), 43);
    }
}
