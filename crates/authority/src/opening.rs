//! Sensitive values as salted commitments in the log, and their openings apart: encrypted, deletable, so that
//! redaction never breaks a proof (design §7). Owns the commitment and the sealing; never decides what is sensitive.
//!
//! commitment = SHA-256("writ-opening-v1" ‖ u32be(len(name)) ‖ name ‖ salt[32] ‖ canonical JSON of the value).
//! Openings of one event are one JSON object `{name: {"salt": base64, "value": …}}`, sealed with AES-256-GCM under a key
//! of the task; that key is stored wrapped under the node's key. Deleting the row redacts a value, deleting the wrapped
//! key redacts the task.

use crate::error::Error;
use crate::ports::Entropy;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use domain::{GrantId, TaskId};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use zeroize::Zeroizing;

const DOMAIN: &[u8] = b"writ-opening-v1";

/// A 256-bit AES-GCM key. Wiped when dropped, never printed.
pub struct TaskKey(Zeroizing<[u8; 32]>);

/// The key under which task keys are wrapped. Wiped when dropped, never printed.
pub struct WrappingKey(Zeroizing<[u8; 32]>);

impl WrappingKey {
    /// The wrapping key over these bytes.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(bytes)
    }

    pub(crate) fn wrap(&self, task: TaskId, key: &TaskKey, entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
        seal(&self.0, &key.0[..], task.as_bytes(), entropy)
    }

    /// Seals what takes a credential back, for its grant alone.
    pub(crate) fn seal_secret(&self, grant: GrantId, secret: &SecretString, entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
        seal(&self.0, secret.expose_secret().as_bytes(), &bound_to(grant), entropy)
    }

    /// What was sealed for this grant.
    pub(crate) fn open_secret(&self, grant: GrantId, sealed: &[u8]) -> Result<SecretString, Error> {
        let text = open(&self.0, sealed, &bound_to(grant))?;
        let text = std::str::from_utf8(&text).map_err(|_| Error::OpeningDamaged)?;
        Ok(SecretString::from(text))
    }

    /// The task key that was wrapped.
    ///
    /// # Errors
    /// [`Error::OpeningDamaged`] if it was wrapped for another task, under another key, or was changed.
    pub fn unwrap_key(&self, task: TaskId, wrapped: &[u8]) -> Result<TaskKey, Error> {
        let bytes = open(&self.0, wrapped, task.as_bytes())?;
        let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| Error::OpeningDamaged)?;
        Ok(TaskKey(Zeroizing::new(key)))
    }
}

/// A grant's id and a task's are both 16 bytes: what was sealed for the one must not open for the other.
fn bound_to(grant: GrantId) -> Vec<u8> {
    [b"writ-grant-v1".as_slice(), grant.as_bytes()].concat()
}

impl TaskKey {
    pub(crate) fn generate(entropy: &dyn Entropy) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        entropy.fill(&mut key[..]);
        Self(key)
    }

    /// The openings of one event.
    ///
    /// # Errors
    /// [`Error::OpeningDamaged`] if they were sealed for another event, under another key, or were changed.
    pub fn open(&self, event: &[u8], sealed: &[u8]) -> Result<Openings, Error> {
        let text = open(&self.0, sealed, event)?;
        serde_json::from_slice(&text).map(Openings).map_err(|_| Error::OpeningDamaged)
    }

    pub(crate) fn seal(&self, event: &[u8], openings: &Openings, entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
        let text = Zeroizing::new(serde_json::to_vec(&openings.0).map_err(|_| Error::OpeningDamaged)?);
        seal(&self.0, &text, event, entropy)
    }
}

/// What opens the commitments of one event: for each name its salt and value.
#[derive(Clone, PartialEq, Default)]
pub struct Openings(BTreeMap<String, Value>);

impl Openings {
    /// Commits to a value, keeps its opening, and gives the commitment in base64.
    pub(crate) fn commit(&mut self, name: &str, value: &Value, entropy: &dyn Entropy) -> String {
        let mut salt = [0; 32];
        entropy.fill(&mut salt);
        let mut opening = Map::new();
        opening.insert("salt".into(), STANDARD.encode(salt).into());
        opening.insert("value".into(), value.clone());
        self.0.insert(name.to_owned(), Value::Object(opening));
        STANDARD.encode(commitment(name, &salt, value))
    }

    /// Whether there is nothing to open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets one value. Answers whether it was there.
    pub fn redact(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// The values whose commitments stand in the event, by name; a value that does not open its commitment is left out.
    #[must_use]
    pub fn opened(&self, committed: &Map<String, Value>) -> BTreeMap<String, Value> {
        let opens = |name: &str, opening: &Value| {
            let salt = STANDARD.decode(opening.get("salt")?.as_str()?).ok()?;
            let value = opening.get("value")?;
            let digest = STANDARD.encode(commitment(name, &salt, value));
            (committed.get(name)?.as_str()? == digest).then(|| value.clone())
        };
        self.0.iter().filter_map(|(name, opening)| Some((name.clone(), opens(name, opening)?))).collect()
    }
}

fn commitment(name: &str, salt: &[u8], value: &Value) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(DOMAIN);
    hash.update(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
    hash.update(name.as_bytes());
    hash.update(salt);
    hash.update(domain::json::canonical(value).as_bytes());
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

fn seal(key: &[u8; 32], text: &[u8], bound_to: &[u8], entropy: &dyn Entropy) -> Result<Vec<u8>, Error> {
    let mut nonce = [0; NONCE_LEN];
    entropy.fill(&mut nonce);
    let mut sealed = text.to_vec();
    cipher(key)?
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(bound_to), &mut sealed)
        .map_err(|_| Error::OpeningDamaged)?;
    sealed.splice(0..0, nonce);
    Ok(sealed)
}

fn open(key: &[u8; 32], sealed: &[u8], bound_to: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Error::OpeningDamaged)?;
    let mut text = Zeroizing::new(rest.to_vec());
    let plain = cipher(key)?
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound_to), &mut text)
        .map_err(|_| Error::OpeningDamaged)?
        .len();
    text.truncate(plain);
    Ok(text)
}

fn cipher(key: &[u8; 32]) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|_| Error::OpeningDamaged)
}
