//! Which rule refused a token, proof, certificate or key ([`Error`], for the operator), and the plain
//! cause that its sender may hear ([`Reason`]). Neither ever carries a token, a key or a signature;
//! values that come from outside are cut to a short printable excerpt.

use crate::spiffe_id::SpiffeIdFault;

/// The rule that refused an input. Messages are for the operator's log; callers get [`Error::reason`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger than the cap, refused before parsing.
    #[error("input is larger than {limit} bytes")]
    TooLarge {
        /// The cap in bytes.
        limit: usize,
    },
    /// Not exactly three base64url parts (RFC 7515 §3.1); JWE and JSON serialisations land here.
    #[error("not a compact JWS of three parts")]
    NotCompactJws,
    /// Not strict unpadded base64url (RFC 7515 §2): padding, other alphabet, or stray bits.
    #[error("{part} is not strict base64url without padding")]
    Base64Malformed {
        /// Which part.
        part: &'static str,
    },
    /// Not valid JSON of the expected shape.
    #[error("{part} is not the JSON it should be")]
    JsonMalformed {
        /// Which part.
        part: &'static str,
    },
    /// Nested deeper than the cap.
    #[error("JSON is nested deeper than {limit} levels")]
    JsonTooDeep {
        /// The cap.
        limit: usize,
    },
    /// The same member twice in one object, at any depth: two readers could see two different values.
    #[error("JSON member `{name}` occurs twice in one object")]
    MemberDuplicate {
        /// The repeated name (excerpt).
        name: String,
    },
    /// A header that hands the choice of key or rules to the sender (`jku`, `x5u`, `jwk`, `crit` …).
    #[error("header `{name}` is not allowed")]
    HeaderForbidden {
        /// The header's name (excerpt).
        name: String,
    },
    /// The `typ` header is not the one that this kind of token must carry (RFC 8725 §3.11).
    #[error("header `typ` is `{found}`, expected {expected}")]
    TypeWrong {
        /// What was there (excerpt), empty if absent.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// An algorithm that we never verify: `none`, `HS*`, anything unknown.
    #[error("algorithm `{name}` is unknown or never acceptable")]
    AlgorithmUnknown {
        /// The name (excerpt).
        name: String,
    },
    /// A known algorithm that is not on this issuer's list.
    #[error("algorithm {name} is not allowed here")]
    AlgorithmRefused {
        /// Its JOSE name.
        name: &'static str,
    },
    /// No `kid`, and more than one key would fit.
    #[error("header `kid` is missing and several keys fit")]
    KeyIdMissing,
    /// No key with this `kid` (or, without `kid`, none that fits): the caller may refetch the key set.
    #[error("no key `{kid}` in the key set; refetch it if it may have rotated")]
    KeyUnknown {
        /// The `kid` (excerpt), empty if the token has none.
        kid: String,
    },
    /// The key of this `kid` cannot be used with the token's algorithm.
    #[error("key `{kid}` does not fit algorithm {algorithm}")]
    KeyUnfit {
        /// The `kid` (excerpt).
        kid: String,
        /// The token's algorithm.
        algorithm: &'static str,
    },
    /// A JWK whose members are missing, ill-typed or not a valid point or modulus.
    #[error("key is malformed: {what}")]
    KeyMalformed {
        /// Which rule it broke.
        what: &'static str,
    },
    /// A symmetric key where only public keys may be.
    #[error("key set contains a symmetric key")]
    KeySymmetric,
    /// Private key members where only public keys may be.
    #[error("key carries private members; its owner must rotate it")]
    KeyPrivate,
    /// Two keys of one family share a `kid`: which one signed would be a guess.
    #[error("key set uses `kid` `{kid}` twice for the same kind of key")]
    KeyIdDuplicate {
        /// The `kid` (excerpt).
        kid: String,
    },
    /// More keys than the cap.
    #[error("key set has more than {limit} keys")]
    KeySetTooLong {
        /// The cap.
        limit: usize,
    },
    /// The signature does not verify.
    #[error("signature is not valid")]
    SignatureInvalid,
    /// A claim that must be there is not.
    #[error("claim `{claim}` is missing")]
    ClaimMissing {
        /// Its name.
        claim: &'static str,
    },
    /// A claim has the wrong type or an impossible value.
    #[error("claim `{claim}` is malformed")]
    ClaimMalformed {
        /// Its name.
        claim: &'static str,
    },
    /// `iss` is not, byte for byte, the expected issuer.
    #[error("issuer is `{found}`, not the expected one")]
    IssuerWrong {
        /// What was there (excerpt).
        found: String,
    },
    /// `aud` does not name us.
    #[error("audience is not ours")]
    AudienceWrong,
    /// `aud` names several parties: any of them could replay the token here.
    #[error("audience must be exactly one value, found {count}")]
    AudienceNotSingle {
        /// How many values.
        count: usize,
    },
    /// `exp` has passed.
    #[error("expired {ago_secs} s ago")]
    Expired {
        /// Seconds since `exp`.
        ago_secs: i64,
    },
    /// `nbf` lies in the future, beyond the leeway.
    #[error("not valid for another {in_secs} s")]
    NotYetValid {
        /// Seconds until `nbf`.
        in_secs: i64,
    },
    /// `iat` lies in the future, beyond the leeway.
    #[error("issued {in_secs} s in the future")]
    IssuedInFuture {
        /// Seconds until `iat`.
        in_secs: i64,
    },
    /// Issued longer ago than this issuer's tokens may be.
    #[error("issued {age_secs} s ago, more than the {max_secs} s allowed")]
    TooOld {
        /// Its age in seconds.
        age_secs: i64,
        /// The cap in seconds.
        max_secs: i64,
    },
    /// Lives longer than this issuer's tokens may.
    #[error("lives {lifetime_secs} s, more than the {max_secs} s allowed")]
    LifetimeTooLong {
        /// `exp - iat` (or `exp - now` where there is no `iat`) in seconds.
        lifetime_secs: i64,
        /// The cap in seconds.
        max_secs: i64,
    },
    /// Not a SPIFFE ID or trust domain name.
    #[error("not a SPIFFE ID: {0}")]
    SpiffeId(#[from] SpiffeIdFault),
    /// The SPIFFE ID belongs to another trust domain than the bundle or rule at hand.
    #[error("`{found}` is not in trust domain `{expected}`")]
    TrustDomainWrong {
        /// The trust domain found.
        found: String,
        /// The trust domain whose bundle was given.
        expected: String,
    },
    /// The bundle holds no X.509 authority: it revokes everything.
    #[error("bundle of `{trust_domain}` has no X.509 authority")]
    BundleEmpty {
        /// The trust domain.
        trust_domain: String,
    },
    /// The peer presented no certificate, or more than the cap.
    #[error("certificate chain must have 1 to {limit} certificates")]
    ChainLength {
        /// The cap.
        limit: usize,
    },
    /// A certificate is not DER X.509 v3.
    #[error("certificate is malformed")]
    CertificateMalformed,
    /// The path to the bundle does not validate (RFC 5280 §6).
    #[error("certificate chain is not valid: {fault}")]
    ChainInvalid {
        /// What path validation said.
        fault: ChainFault,
    },
    /// The leaf breaks an X.509-SVID rule (X509-SVID §4, §5).
    #[error("certificate is not an X.509-SVID leaf: {fault}")]
    LeafRefused {
        /// The rule.
        fault: LeafFault,
    },
    /// DPoP `htm` is not the request's method.
    #[error("proof is for another HTTP method")]
    ProofMethodWrong,
    /// DPoP `htu` is not the request's URI.
    #[error("proof is for another URI")]
    ProofUriWrong,
    /// A URI to compare `htu` with is not an absolute http(s) URI.
    #[error("request URI is not an absolute http or https URI")]
    UriMalformed,
    /// DPoP `ath` is not the hash of the access token in the request.
    #[error("proof is for another access token")]
    ProofTokenWrong,
    /// DPoP `ath` came without an access token: the proof was made for another kind of request.
    #[error("proof names an access token where none is presented")]
    ProofTokenUnexpected,
    /// A nonce is demanded and there is none; answer `use_dpop_nonce`.
    #[error("proof has no nonce; answer with a fresh one")]
    NonceMissing,
    /// The nonce is not one of ours or is stale; answer `use_dpop_nonce`.
    #[error("proof has a stale or foreign nonce; answer with a fresh one")]
    NonceRefused,
    /// The token's `cnf` binds it to another key than the one that was proved.
    #[error("token is bound to another key")]
    BindingWrong,
    /// A token without `cnf` where a bound one is demanded, or a binding of another method.
    #[error("token is not bound by the method presented")]
    BindingMissing,
    /// A private key could not be read.
    #[error("signing key is not a P-256 PKCS#8 key")]
    SigningKeyRejected,
    /// The signer failed.
    #[error("signing failed")]
    SigningFailed,
    /// Claims that we ourselves must never sign (empty audience, reversed times …).
    #[error("refusing to sign: {what}")]
    ClaimsUnfit {
        /// Which rule they break.
        what: &'static str,
    },
    /// Bytes offered for signing are not the canonical form of the claims they hold.
    #[error("claims are not in canonical form")]
    ClaimsNotCanonical,
}

/// What path validation against a trust domain's bundle found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// No path to a certificate of the bundle.
    #[error("issuer is not in the trust domain's bundle")]
    UnknownIssuer,
    /// A certificate of the path has expired.
    #[error("a certificate has expired")]
    Expired,
    /// A certificate of the path is not yet valid.
    #[error("a certificate is not yet valid")]
    NotYetValid,
    /// A signature does not verify, or uses an algorithm we refuse.
    #[error("a signature is not valid")]
    Signature,
    /// A name constraint excludes a name (URI constraints are not evaluated but refused).
    #[error("a name constraint excludes a name")]
    NameConstraint,
    /// A CA flag, path length, key usage or extended key usage forbids the path.
    #[error("a certificate may not be used this way")]
    Usage,
    /// Anything else: malformed, critical extension unknown, too much work.
    #[error("a certificate is malformed or has an unknown critical extension")]
    Malformed,
}

/// Which rule for leaf certificates an X.509-SVID breaks (X509-SVID §§2–5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeafFault {
    /// Not exactly one URI subject alternative name.
    #[error("needs exactly one URI SAN")]
    UriSanCount,
    /// `basicConstraints` says CA: a signing certificate never authenticates.
    #[error("is a CA certificate")]
    IsCa,
    /// Key usage is missing or not critical.
    #[error("needs a critical key usage extension")]
    KeyUsageMissing,
    /// Key usage lacks `digitalSignature`.
    #[error("key usage lacks digitalSignature")]
    NoDigitalSignature,
    /// Key usage has `keyCertSign` or `cRLSign`.
    #[error("key usage allows signing certificates or revocation lists")]
    MaySign,
    /// Extended key usage is present but lacks `serverAuth` or `clientAuth`.
    #[error("extended key usage needs both serverAuth and clientAuth")]
    ExtendedKeyUsage,
    /// The SPIFFE ID has no path: it names a trust domain, not a workload.
    #[error("SPIFFE ID has no path")]
    RootPath,
}

/// The plain cause that the sender of a refused input may hear, and the label for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Could not be parsed, or is too large.
    Malformed,
    /// Uses an algorithm, header or type that is not accepted.
    Unsupported,
    /// Signed by a key that we do not know.
    UnknownKey,
    /// The signature does not verify or the chain is not trusted.
    NotTrusted,
    /// Issued by or for somebody else.
    WrongParty,
    /// Expired, not yet valid, too old or too long-lived.
    Time,
    /// A claim is missing or has an impossible value.
    Claims,
    /// The proof of possession does not fit this request or token.
    Proof,
    /// A (fresh) DPoP nonce is needed.
    Nonce,
    /// Our own fault: a key or claim of ours is unusable.
    Internal,
}

impl Reason {
    /// A stable label: lower case, underscores.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::UnknownKey => "unknown_key",
            Self::NotTrusted => "not_trusted",
            Self::WrongParty => "wrong_party",
            Self::Time => "time",
            Self::Claims => "claims",
            Self::Proof => "proof",
            Self::Nonce => "nonce",
            Self::Internal => "internal",
        }
    }

    /// A sentence for the caller that reveals nothing about our configuration.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Malformed => "the token is malformed",
            Self::Unsupported => "the token uses an algorithm, header or type that is not accepted",
            Self::UnknownKey => "the token is signed by an unknown key",
            Self::NotTrusted => "the token is not trusted",
            Self::WrongParty => "the token is from or for another party",
            Self::Time => "the token is expired, not yet valid, too old or too long-lived",
            Self::Claims => "the token lacks a required claim or has an invalid one",
            Self::Proof => "the proof of possession does not fit this request",
            Self::Nonce => "a fresh DPoP nonce is required",
            Self::Internal => "internal error",
        }
    }

    /// What whoever sent evidence that was refused for this cause does next. It names options of our configuration, never
    /// what they are set to.
    #[must_use]
    pub const fn next(self) -> &'static str {
        match self {
            Self::Malformed => "send it whole and unchanged, as its issuer gave it",
            Self::Unsupported => {
                "send an identity token, not an access token, signed with one of the `algorithms` of its [[provider]]"
            }
            Self::UnknownKey => {
                "get a fresh one; if that is refused too, an operator compares the keys of its [[provider]] with its issuer's"
            }
            Self::NotTrusted => "get a fresh one from an issuer that an operator configured as [[provider]]",
            Self::WrongParty => {
                "get one whose only audience is the `audience` of its [[provider]] (if none is set there, the issuer of this server's metadata)"
            }
            Self::Time => {
                "get a fresh one; if that is refused too, compare both clocks, and its life with the limits of its [[provider]]"
            }
            Self::Claims => "get one with `sub`, `aud`, `exp` and `iat` as RFC 7519 has them, and a SPIFFE ID if it is an SVID",
            Self::Proof => "make a proof for this request, with the key that the token is bound to",
            Self::Nonce => "repeat the request with the nonce of the answer",
            Self::Internal => "try again, or tell an operator",
        }
    }
}

impl Error {
    /// The plain cause for the caller. The one map from rules to causes.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::TooLarge { .. }
            | Self::NotCompactJws
            | Self::Base64Malformed { .. }
            | Self::JsonMalformed { .. }
            | Self::JsonTooDeep { .. }
            | Self::MemberDuplicate { .. }
            | Self::CertificateMalformed
            | Self::ChainLength { .. } => Reason::Malformed,
            Self::HeaderForbidden { .. }
            | Self::TypeWrong { .. }
            | Self::AlgorithmUnknown { .. }
            | Self::AlgorithmRefused { .. } => Reason::Unsupported,
            Self::KeyIdMissing | Self::KeyUnknown { .. } | Self::KeyUnfit { .. } => Reason::UnknownKey,
            Self::KeyMalformed { .. }
            | Self::KeySymmetric
            | Self::KeyPrivate
            | Self::KeyIdDuplicate { .. }
            | Self::KeySetTooLong { .. }
            | Self::SignatureInvalid
            | Self::BundleEmpty { .. }
            | Self::ChainInvalid { .. }
            | Self::LeafRefused { .. } => Reason::NotTrusted,
            Self::IssuerWrong { .. } | Self::AudienceWrong | Self::AudienceNotSingle { .. } | Self::TrustDomainWrong { .. } => {
                Reason::WrongParty
            }
            Self::Expired { .. }
            | Self::NotYetValid { .. }
            | Self::IssuedInFuture { .. }
            | Self::TooOld { .. }
            | Self::LifetimeTooLong { .. } => Reason::Time,
            Self::ClaimMissing { .. } | Self::ClaimMalformed { .. } | Self::SpiffeId(_) => Reason::Claims,
            Self::ProofMethodWrong
            | Self::ProofUriWrong
            | Self::ProofTokenWrong
            | Self::ProofTokenUnexpected
            | Self::BindingWrong
            | Self::BindingMissing => Reason::Proof,
            Self::NonceMissing | Self::NonceRefused => Reason::Nonce,
            Self::UriMalformed
            | Self::SigningKeyRejected
            | Self::SigningFailed
            | Self::ClaimsUnfit { .. }
            | Self::ClaimsNotCanonical => Reason::Internal,
        }
    }
}

/// At most this many characters of a foreign value are repeated in an error.
const EXCERPT_CHARS_MAX: usize = 96;

/// A short, printable piece of a value from outside, fit for a log line: control characters and
/// anything outside printable ASCII become `?` (no forged lines, no look-alikes).
pub(crate) fn excerpt(value: &str) -> String {
    value.chars().take(EXCERPT_CHARS_MAX).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}
