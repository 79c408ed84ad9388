//! Signed notes (C2SP signed-note): text, signature lines, verifier keys, an Ed25519 signer.
//!
//! Owns the envelope only; what the text says is `checkpoint`'s business. A note is worth nothing until
//! [`Note::verify`] has accepted it for a key that the caller trusts.

use std::fmt;

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{Error, port::NoteSigner};

/// Largest note that is parsed: room for 16 post-quantum signatures and more.
pub const NOTE_LEN_MAX: usize = 128 * 1024;
/// Most signature lines that are parsed (the specification demands at least 16).
pub const SIGNATURES_MAX: usize = 64;

/// A text with signature lines, none of them checked yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// One signature line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Key name on the line.
    pub name: String,
    /// Key id: with the name it tells which key and algorithm this is.
    pub key_id: u32,
    /// The signature itself.
    pub bytes: Vec<u8>,
}

impl Note {
    /// An unsigned note.
    ///
    /// # Errors
    /// [`Error::NoteMalformed`] unless the text is what a note may hold and ends in a newline.
    pub fn new(text: String) -> Result<Self, Error> {
        check_text(&text)?;
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Reads a note.
    ///
    /// # Errors
    /// [`Error::NoteMalformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let malformed = |why| Error::NoteMalformed { why };
        if bytes.len() > NOTE_LEN_MAX {
            return Err(malformed("it is too large"));
        }
        let all = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))?;
        let (text, lines) = all.rsplit_once("\n\n").ok_or_else(|| malformed("it has no signature block"))?;
        let lines = lines.strip_suffix('\n').ok_or_else(|| malformed("it does not end in a newline"))?;
        let text = format!("{text}\n");
        check_text(&text)?;
        if lines.split('\n').count() > SIGNATURES_MAX {
            return Err(malformed("it has too many signatures"));
        }
        let signatures = lines.split('\n').map(Signature::parse).collect::<Result<_, _>>()?;
        Ok(Self { text, signatures })
    }

    /// The note as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = format!("{}\n", self.text);
        for signature in &self.signatures {
            out.push_str(&signature.to_string());
        }
        out.into_bytes()
    }

    /// The signed text, with its final newline.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signature lines, unchecked.
    #[must_use]
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature line.
    pub fn attach(&mut self, signature: Signature) {
        self.signatures.push(signature);
    }

    /// Signs the text and adds the line.
    ///
    /// # Errors
    /// As the signer fails.
    pub fn sign(&mut self, signer: &dyn NoteSigner) -> Result<(), Error> {
        let bytes = signer.sign(self.text.as_bytes())?;
        let key = signer.verifier();
        self.attach(Signature { name: key.name.clone(), key_id: key.key_id, bytes });
        Ok(())
    }

    /// Whether `key` signed. Lines of other keys are ignored; a wrong line of this key is an error.
    ///
    /// # Errors
    /// [`Error::SignatureMissing`] or [`Error::SignatureInvalid`].
    pub fn verify(&self, key: &VerifierKey) -> Result<&Signature, Error> {
        let mut found = None;
        for signature in self.signatures.iter().filter(|s| key.is_of(s)) {
            if key.kind != KeyKind::Ed25519 || !key.verifies(self.text.as_bytes(), &signature.bytes) {
                return Err(Error::SignatureInvalid { name: key.name.clone() });
            }
            found = Some(signature);
        }
        found.ok_or(Error::SignatureMissing)
    }
}

fn check_text(text: &str) -> Result<(), Error> {
    let malformed = |why| Err(Error::NoteMalformed { why });
    if !text.ends_with('\n') {
        return malformed("the text does not end in a newline");
    }
    if text.bytes().any(|b| b < 0x20 && b != b'\n') {
        return malformed("the text holds a control character");
    }
    Ok(())
}

impl Signature {
    /// Reads one line, without its newline.
    ///
    /// # Errors
    /// [`Error::NoteMalformed`].
    pub fn parse(line: &str) -> Result<Self, Error> {
        let malformed = |why| Error::NoteMalformed { why };
        let rest = line.strip_prefix("— ").ok_or_else(|| malformed("a signature line does not begin with `— `"))?;
        let (name, base64) = rest.split_once(' ').ok_or_else(|| malformed("a signature line has no signature"))?;
        if !is_key_name(name) {
            return Err(malformed("a key name is empty or holds a space or plus"));
        }
        let bytes = STANDARD.decode(base64).map_err(|_| malformed("a signature is not base64"))?;
        let (key_id, bytes) = bytes.split_first_chunk::<4>().ok_or_else(|| malformed("a signature is too short"))?;
        if bytes.is_empty() {
            return Err(malformed("a signature is too short"));
        }
        Ok(Self { name: name.to_owned(), key_id: u32::from_be_bytes(*key_id), bytes: bytes.to_vec() })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.key_id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes);
        writeln!(f, "— {} {}", self.name, STANDARD.encode(bytes))
    }
}

/// Whether a name may stand in a signature line or verifier key.
#[must_use]
pub fn is_key_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c == '+' || c.is_control())
}

/// What a key signs (C2SP signed-note, *Signature types*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// `0x01`: Ed25519 over the note text.
    Ed25519,
    /// `0x04`: timestamped Ed25519 cosignature by a witness (C2SP tlog-cosignature).
    Cosignature,
}

impl KeyKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Ed25519 => 1,
            Self::Cosignature => 4,
        }
    }
}

/// A public key with its name: `<name>+<hex key id>+<base64 type and key>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    key_id: u32,
    kind: KeyKind,
    public: [u8; 32],
}

impl VerifierKey {
    /// A key from its parts.
    ///
    /// # Errors
    /// [`Error::KeyMalformed`] if the name may not stand in a note.
    pub fn new(name: &str, kind: KeyKind, public: [u8; 32]) -> Result<Self, Error> {
        if !is_key_name(name) {
            return Err(Error::KeyMalformed { why: "the name is empty or holds a space or plus" });
        }
        Ok(Self { name: name.to_owned(), key_id: key_id(name, kind, &public), kind, public })
    }

    /// Reads the text form.
    ///
    /// # Errors
    /// [`Error::KeyMalformed`], also for key types that this program does not know and for a key id that
    /// does not fit the key.
    pub fn parse(vkey: &str) -> Result<Self, Error> {
        let malformed = |why| Error::KeyMalformed { why };
        let mut parts = vkey.splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed("it has not the form name+id+key"));
        };
        let key = STANDARD.decode(key).map_err(|_| malformed("the key is not base64"))?;
        let (kind, public) = match key.split_first() {
            Some((1, public)) => (KeyKind::Ed25519, public),
            Some((4, public)) => (KeyKind::Cosignature, public),
            _ => return Err(malformed("the key type is neither Ed25519 nor an Ed25519 cosignature")),
        };
        let public = public.try_into().map_err(|_| malformed("an Ed25519 key has 32 bytes"))?;
        let parsed = Self::new(name, kind, public)?;
        if id != format!("{:08x}", parsed.key_id) {
            return Err(malformed("the key id does not fit the key"));
        }
        Ok(parsed)
    }

    /// Key name; for a log it is the origin.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Key id.
    #[must_use]
    pub const fn key_id(&self) -> u32 {
        self.key_id
    }

    /// What it signs.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The Ed25519 public key.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Whether a signature line claims to be by this key.
    #[must_use]
    pub fn is_of(&self, signature: &Signature) -> bool {
        self.key_id == signature.key_id && self.name == signature.name
    }

    /// Whether `signature` is this key's over `message`, outside any note.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public).verify(message, signature).is_ok()
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.kind.byte()];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{:08x}+{}", self.name, self.key_id, STANDARD.encode(key))
    }
}

/// `SHA-256(name ‖ newline ‖ type ‖ key)`, its first four bytes.
fn key_id(name: &str, kind: KeyKind, public: &[u8; 32]) -> u32 {
    let mut input = name.as_bytes().to_vec();
    input.extend_from_slice(&[b'\n', kind.byte()]);
    input.extend_from_slice(public);
    let hash = digest(&SHA256, &input);
    hash.as_ref().first_chunk::<4>().map_or(0, |first| u32::from_be_bytes(*first))
}

/// An Ed25519 note key held in this process.
pub struct Ed25519Signer {
    key: Ed25519KeyPair,
    verifier: VerifierKey,
}

impl Ed25519Signer {
    /// A signer from a 32-byte seed (RFC 8032). The seed is wiped when the caller's value is dropped.
    ///
    /// # Errors
    /// [`Error::KeyMalformed`] if the name may not stand in a note.
    pub fn from_seed(name: &str, seed: &Zeroizing<[u8; 32]>) -> Result<Self, Error> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed.as_slice())
            .map_err(|_| Error::KeyMalformed { why: "the seed is no Ed25519 seed" })?;
        let public = key.public_key().as_ref().try_into();
        let public = public.map_err(|_| Error::KeyMalformed { why: "an Ed25519 key has 32 bytes" })?;
        Ok(Self { key, verifier: VerifierKey::new(name, KeyKind::Ed25519, public)? })
    }
}

impl NoteSigner for Ed25519Signer {
    fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(self.key.sign(text).as_ref().to_vec())
    }
}

impl fmt::Debug for Ed25519Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ed25519Signer").field("verifier", &self.verifier.to_string()).finish_non_exhaustive()
    }
}
