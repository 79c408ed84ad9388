//! A development identity issuer: one key in a file that can say "I am AGENT" to a server that trusts it. For trying Writ
//! on one machine, never for production: a secret that merely is held proves nothing (R1).

use crate::key_file;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::path::Path;
use token::jwks::KeySet;
use token::sign::{Es256Signer, TokenSigner};
use zeroize::Zeroizing;

/// How long an identity token of the issuer lasts, in seconds.
const LIFETIME_SECS: i64 = 120;

/// The issuer.
pub(crate) struct DevIssuer {
    issuer: String,
    signer: Es256Signer,
}

impl DevIssuer {
    /// The issuer over the key in a file.
    pub(crate) fn open(issuer: &str, key_file: &Path) -> anyhow::Result<Self> {
        Ok(Self { issuer: issuer.to_owned(), signer: Es256Signer::from_pkcs8(&key_file::decoded(key_file)?)? })
    }

    /// Makes a key and writes it, and its JWKS beside it.
    pub(crate) fn create(key_file: &Path, jwks_file: &Path) -> anyhow::Result<()> {
        let pkcs8 = Es256Signer::generate_pkcs8()?;
        let text = Zeroizing::new(format!("{}\n", *Zeroizing::new(STANDARD.encode(&*pkcs8))));
        crate::key_file::create(key_file, text.as_bytes())?;
        let signer = Es256Signer::from_pkcs8(&pkcs8)?;
        let keys = KeySet::of_signers([&signer as &dyn TokenSigner])?;
        Ok(crate::key_file::put_public(jwks_file, format!("{:#}\n", keys.to_json()).as_bytes())?)
    }

    /// An identity token that says who the workload is, made out to `audience`, good for once.
    pub(crate) fn identity_token(&self, subject: &str, audience: &str) -> anyhow::Result<String> {
        let now = crate::system::now().secs();
        sign(
            &self.signer,
            json!({ "alg": "ES256", "typ": "JWT", "kid": self.signer.key_id() }),
            &json!({
                "iss": self.issuer, "sub": subject, "aud": audience, "iat": now, "exp": now + LIFETIME_SECS,
                "jti": crate::system::random_text::<16>(),
            }),
        )
    }
}

/// A compact JWS (RFC 7515 §7.1) over these claims.
pub(crate) fn sign(signer: &dyn TokenSigner, header: Value, claims: &Value) -> anyhow::Result<String> {
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", encode(&header), encode(claims));
    let signature = signer.sign(message.as_bytes())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
