//! The closed list of JWS algorithms (RFC 7518, RFC 8037) and which of them each kind of token may use.
//! `none` and the HMAC family have no variant, so no code path can ever select them.

use crate::Error;

/// A signature algorithm that we can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSA PKCS#1 v1.5 with SHA-256, modulus of at least 2048 bits.
    Rs256,
    /// RSA PKCS#1 v1.5 with SHA-384.
    Rs384,
    /// RSA PKCS#1 v1.5 with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// RSA-PSS with SHA-384.
    Ps384,
    /// RSA-PSS with SHA-512.
    Ps512,
    /// Ed25519 (RFC 8037). Never allowed for JWT-SVIDs.
    EdDsa,
}

/// The kind of key that an algorithm needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KeyFamily {
    P256,
    P384,
    Rsa,
    Ed25519,
}

impl Algorithm {
    /// Everything we can verify, for an OIDC issuer whose configuration names nothing narrower.
    pub const ALL: [Self; 9] =
        [Self::Es256, Self::Es384, Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256, Self::Ps384, Self::Ps512, Self::EdDsa];

    /// What a JWT-SVID may be signed with (JWT-SVID §2.1: ES, RS and PS families only).
    pub const JWT_SVID: [Self; 8] =
        [Self::Es256, Self::Es384, Self::Rs256, Self::Rs384, Self::Rs512, Self::Ps256, Self::Ps384, Self::Ps512];

    /// The JOSE name, e.g. `ES256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of a JOSE name; case matters (RFC 7515 §4.1.1). RFC 9864's `Ed25519` is the same
    /// algorithm as `EdDSA` here, because Ed25519 is the only Edwards curve that we verify.
    ///
    /// # Errors
    /// [`Error::AlgorithmUnknown`] for everything else, `none` and `HS*` included.
    pub fn parse(name: &str) -> Result<Self, Error> {
        if name == "Ed25519" {
            return Ok(Self::EdDsa);
        }
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
            .ok_or_else(|| Error::AlgorithmUnknown { name: crate::error::excerpt(name) })
    }

    pub(crate) const fn family(self) -> KeyFamily {
        match self {
            Self::Es256 => KeyFamily::P256,
            Self::Es384 => KeyFamily::P384,
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => KeyFamily::Rsa,
            Self::EdDsa => KeyFamily::Ed25519,
        }
    }
}
