//! The compact JWS serialisation (RFC 7515 §7.1), read strictly: three parts, strict base64url, a header
//! that cannot steer us. Whether type, algorithm and key are acceptable is for the token kind to say.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::Error;
use crate::algorithm::Algorithm;
use crate::error::excerpt;
use crate::json;

/// Longest `kid` in bytes. It is only ever compared, never used as a path, query or URL.
const KEY_ID_BYTES_MAX: usize = 512;

/// Headers that bring their own key or change what is signed; none is ever followed or ignored.
/// `jwk` is refused here too, and let in by DPoP alone.
const HEADERS_FORBIDDEN: [&str; 8] = ["crit", "jku", "x5u", "x5c", "b64", "zip", "enc", "jwk"];

/// A compact JWS whose header was read. The payload is decoded on demand, the signature unverified.
#[derive(Debug, Clone)]
pub(crate) struct CompactJws<'a> {
    /// What the signature covers: header and payload parts with the dot between them.
    pub(crate) signing_input: &'a str,
    pub(crate) header: Header,
    payload: &'a str,
    pub(crate) signature: Vec<u8>,
}

/// The header's members.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    typ: Option<String>,
    members: Map<String, Value>,
}

/// Whether a `jwk` header is part of the token kind (DPoP) or an attack (everything else).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EmbeddedKey {
    Refuse,
    Allow,
}

impl<'a> CompactJws<'a> {
    /// Reads structure, header and signature bytes. Nothing is decoded beyond `bytes_max`.
    pub(crate) fn parse(token: &'a str, bytes_max: usize, embedded: EmbeddedKey) -> Result<Self, Error> {
        if token.len() > bytes_max {
            return Err(Error::TooLarge { limit: bytes_max });
        }
        let (signing_input, signature) = token.rsplit_once('.').ok_or(Error::NotCompactJws)?;
        let (header, payload) = signing_input.split_once('.').ok_or(Error::NotCompactJws)?;
        if header.contains('.') || payload.contains('.') {
            return Err(Error::NotCompactJws);
        }
        let header = Header::parse(&decode(header, "header")?, embedded)?;
        let signature = decode(signature, "signature")?;
        Ok(Self { signing_input, header, payload, signature })
    }

    /// Decodes and parses the claims.
    pub(crate) fn claims(&self) -> Result<Map<String, Value>, Error> {
        json::parse_object(&decode(self.payload, "payload")?, "payload")
    }
}

impl Header {
    fn parse(bytes: &[u8], embedded: EmbeddedKey) -> Result<Self, Error> {
        let members = json::parse_object(bytes, "header")?;
        let forbidden = HEADERS_FORBIDDEN
            .iter()
            .find(|name| members.contains_key(**name) && !(**name == "jwk" && embedded == EmbeddedKey::Allow));
        if let Some(name) = forbidden {
            return Err(Error::HeaderForbidden { name: (*name).to_owned() });
        }
        let text = |name: &'static str| match members.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Error::JsonMalformed { part: "header" }),
        };
        let algorithm = text("alg")?.ok_or(Error::AlgorithmUnknown { name: String::new() })?;
        let algorithm = Algorithm::parse(&algorithm)?;
        let (key_id, typ) = (text("kid")?, text("typ")?);
        if key_id.as_ref().is_some_and(|kid| kid.len() > KEY_ID_BYTES_MAX) {
            return Err(Error::TooLarge { limit: KEY_ID_BYTES_MAX });
        }
        Ok(Self { algorithm, key_id, typ, members })
    }

    /// The embedded key of a DPoP proof.
    pub(crate) fn jwk(&self) -> Option<&Map<String, Value>> {
        self.members.get("jwk").and_then(Value::as_object)
    }

    /// Refuses members other than `alg`, `kid` and `typ`.
    pub(crate) fn only_plain_members(&self) -> Result<(), Error> {
        match self.members.keys().find(|name| !matches!(name.as_str(), "alg" | "kid" | "typ")) {
            Some(name) => Err(Error::HeaderForbidden { name: excerpt(name) }),
            None => Ok(()),
        }
    }

    /// The media type in `typ`, lower case and without its optional `application/` (RFC 7515 §4.1.9).
    fn media_type(&self) -> Option<String> {
        let typ = self.typ.as_ref()?.to_ascii_lowercase();
        Some(typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ))
    }

    /// Demands exactly this explicit type (RFC 8725 §3.11).
    pub(crate) fn require_type(&self, expected: &'static str) -> Result<(), Error> {
        if self.media_type().as_deref() == Some(expected) {
            return Ok(());
        }
        Err(self.type_wrong(expected))
    }

    /// Demands no explicit type, or the generic ones: a token typed for another purpose (`at+jwt`,
    /// `logout+jwt`, `dpop+jwt` …) is not evidence of a workload.
    pub(crate) fn require_generic_type(&self) -> Result<(), Error> {
        match self.media_type().as_deref() {
            None | Some("jwt" | "jose") => Ok(()),
            Some(_) => Err(self.type_wrong("none, `JWT` or `JOSE`")),
        }
    }

    fn type_wrong(&self, expected: &'static str) -> Error {
        Error::TypeWrong { found: excerpt(self.typ.as_deref().unwrap_or_default()), expected }
    }
}

/// Strict base64url: no padding, no other alphabet, no stray bits, so that one value has one spelling.
pub(crate) fn decode(text: &str, part: &'static str) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Error::Base64Malformed { part })
}

/// Base64url without padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// SHA-256, base64url without padding: thumbprints, `ath`, replay keys.
pub(crate) fn sha256_base64url(bytes: &[u8]) -> String {
    encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    // SHA-256 always yields 32 bytes, so both slices have equal length.
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
