//! The keys that sign tokens, in `keys/` of the data folder, and their rotation without a gap: a new key is published
//! first, signs only once every verifier has had time to fetch it, and stays published after it was replaced until its
//! last token has expired. Owns the names of the files, which say how far each key is; signs nothing itself (R16).
//!
//! `token-<made>.new`: not in the log yet, never used; one that a crash left is logged and published when it is found.
//! `token-<made>.key`: published, waits for its turn.
//! `token-<made>-<since>.key`: signs, or signed, since then. Times are milliseconds since 1970: a copy keeps them.

use crate::key_file;
use anyhow::Context;
use async_trait::async_trait;
use authority::{Actor, Authority, TokenKeys};
use control::{KeyRotation, NextKey, PortError};
use domain::Timestamp;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use token::sign::{Es256Signer, TokenSigner};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Most token keys that are published at once; older ones stay on disk and verify nothing any more.
const TOKEN_KEYS_MAX: usize = 8;
/// How long a key is published before it signs. Our JWKS may be kept for a minute (`max-age=60`), but libraries keep what
/// they fetched for up to ten whatever it says; the rest is for clocks that differ.
const PUBLISHED_FIRST_SECS: u64 = 15 * 60;
/// How much longer than its last token a key is published: verifiers allow for clocks that differ.
const LEEWAY_SECS: u64 = 120;

/// A key's file, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyFile {
    path: PathBuf,
    made: Timestamp,
    /// Since when it signs or signed.
    since: Option<Timestamp>,
}

impl KeyFile {
    /// What a file's name says, if it is a key that counts.
    fn named(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_prefix("token-")?.strip_suffix(".key")?;
        let moment = |text: &str| text.parse().ok().map(Timestamp::from_millis);
        let (made, since) = match name.split_once('-') {
            Some((made, since)) => (moment(made)?, Some(moment(since)?)),
            None => (moment(name)?, None),
        };
        Some(Self { path, made, since })
    }

    fn signs_at(&self) -> Timestamp {
        self.made.plus_secs(PUBLISHED_FIRST_SECS)
    }

    fn signer(&self) -> anyhow::Result<Arc<dyn TokenSigner>> {
        let pkcs8 = key_file::decoded(&self.path)?;
        let signer = Es256Signer::from_pkcs8(&pkcs8).with_context(|| format!("`{}`", self.path.display()))?;
        Ok(Arc::new(signer))
    }
}

/// The keys that count at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ring {
    active: KeyFile,
    /// The one that will sign next, and those whose tokens may still live.
    published: Vec<KeyFile>,
}

impl Ring {
    /// What the files of a folder say at this moment; `None` if no key has ever signed.
    fn read(dir: &Path, now: Timestamp, tokens_live: Duration) -> anyhow::Result<Option<Self>> {
        let files = key_files(dir)?;
        let mut signed: Vec<_> = files.iter().filter(|file| file.since.is_some()).cloned().collect();
        signed.sort_by_key(|file| std::cmp::Reverse(file.since));
        let Some((active, earlier)) = signed.split_first() else { return Ok(None) };
        // A key stopped signing when the one after it began; its last token expired one lifetime later.
        let replaced = signed.iter().filter_map(|file| file.since);
        let lives = tokens_live.as_secs().saturating_add(LEEWAY_SECS);
        let counts = |replaced: Timestamp| now <= replaced.plus_secs(lives);
        let earlier = earlier.iter().zip(replaced).filter(|(_, replaced)| counts(*replaced)).map(|(file, _)| file);
        let next = files.iter().filter(|file| file.since.is_none());
        Ok(Some(Self { active: active.clone(), published: next.chain(earlier).take(TOKEN_KEYS_MAX).cloned().collect() }))
    }

    fn next(&self) -> Option<&KeyFile> {
        self.published.iter().find(|file| file.since.is_none())
    }

    fn keys(&self) -> anyhow::Result<TokenKeys> {
        let published = self.published.iter().map(KeyFile::signer).collect::<Result<_, _>>()?;
        Ok(TokenKeys { active: self.active.signer()?, published })
    }

    /// The same once the next key has taken its turn.
    fn advanced(&self, next: &KeyFile) -> Self {
        let others = self.published.iter().filter(|file| *file != next);
        Self { active: next.clone(), published: std::iter::once(&self.active).chain(others).cloned().collect() }
    }
}

fn key_files(dir: &Path) -> anyhow::Result<Vec<KeyFile>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("`{}`", dir.display()))? {
        found.extend(KeyFile::named(entry?.path()));
    }
    Ok(found)
}

/// Keys that were made and do not count yet, the oldest first: nobody works on them, so a crash left them.
fn left_over(dir: &Path) -> anyhow::Result<Vec<KeyFile>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("`{}`", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let made = name.and_then(|name| name.strip_prefix("token-")?.strip_suffix(".new")?.parse().ok());
        found.extend(made.map(|made| KeyFile { path, made: Timestamp::from_millis(made), since: None }));
    }
    found.sort_by_key(|file| file.made);
    Ok(found)
}

fn remove(file: &KeyFile) {
    if let Err(error) = fs::remove_file(&file.path) {
        tracing::error!(%error, path = %file.path.display(), "a key that was not published could not be removed");
    }
}

/// Writes a new key under a name that does not count yet.
fn create(dir: &Path, made: Timestamp) -> anyhow::Result<KeyFile> {
    use base64::Engine;
    let pkcs8 = Es256Signer::generate_pkcs8()?;
    let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&*pkcs8));
    let path = dir.join(format!("token-{}.new", made.millis()));
    key_file::create(&path, text.as_bytes())?;
    Ok(KeyFile { path, made, since: None })
}

/// Gives a key the name that says how far it is.
fn promote(file: &KeyFile, since: Option<Timestamp>) -> anyhow::Result<KeyFile> {
    let since_text = since.map(|since| format!("-{}", since.millis())).unwrap_or_default();
    let path = file.path.with_file_name(format!("token-{}{since_text}.key", file.made.millis()));
    fs::rename(&file.path, &path).with_context(|| format!("`{}` cannot be renamed", file.path.display()))?;
    Ok(KeyFile { path, made: file.made, since })
}

/// The token keys of the folder, the first one made if there is none.
///
/// # Errors
/// A key cannot be read or made, or others than its owner can read it.
pub(super) fn open(dir: &Path, now: Timestamp, tokens_live: Duration) -> anyhow::Result<TokenKeys> {
    if Ring::read(dir, now, tokens_live)?.is_none() {
        // Nobody has seen a token yet, so nobody has to know the first key before.
        let waiting = key_files(dir)?.into_iter().chain(left_over(dir)?).min_by_key(|file| file.made);
        let first = waiting.map_or_else(|| create(dir, now), Ok)?;
        promote(&first, Some(first.made))?;
    }
    Ring::read(dir, now, tokens_live)?.context("there is no token key")?.keys()
}

/// Rotation of token keys: on an operator's word, and by time.
#[derive(Clone)]
pub(crate) struct RotatingKeys(Arc<Rotating>);

struct Rotating {
    dir: PathBuf,
    authority: Authority,
    tokens_live: Duration,
    /// What is in force. One step at a time: held from the first look at the files until all is done.
    turn: Mutex<Option<Ring>>,
}

impl RotatingKeys {
    /// Over the keys with which the authority was started.
    pub(crate) fn new(dir: PathBuf, authority: Authority, tokens_live: Duration) -> Self {
        let turn = Mutex::new(Ring::read(&dir, authority.now(), tokens_live).ok().flatten());
        Self(Arc::new(Rotating { dir, authority, tokens_live, turn }))
    }

    /// Takes the steps whose time has come: a key that was published long enough begins to sign, one whose last token has
    /// expired is published no more. Call it every few seconds.
    ///
    /// # Errors
    /// The step could not be logged or the files not be read: nothing changed, and the next call tries again.
    pub(crate) async fn advance(&self) -> anyhow::Result<()> {
        let Rotating { dir, authority, tokens_live, turn } = &*self.0;
        let mut in_force = turn.lock().await;
        let now = authority.now();
        let ring = Ring::read(dir, now, *tokens_live)?.context("there is no token key")?;
        // The turn is ours, so nobody else is making one: a rotation ended early, before its key counted.
        for left in left_over(dir)? {
            if ring.next().is_some() {
                remove(&left);
            } else {
                *in_force = Some(self.finish(&ring, left, now).await?);
                return Ok(());
            }
        }
        if let Some(next) = ring.next().filter(|next| now >= next.signs_at()) {
            // CRASH(between the entry and the new name): the old key signs after the start, and this step is taken again.
            authority.rotate_keys(ring.advanced(next).keys()?, &Actor::System).await?;
            // Later than the one before, also when the clock was set back since: the latest is the one that signs.
            let last = ring.active.since.unwrap_or(now);
            promote(next, Some(now.max(Timestamp::from_millis(last.millis().saturating_add(1)))))?;
            *in_force = Ring::read(dir, now, *tokens_live)?;
        } else if in_force.as_ref() != Some(&ring) {
            authority.rotate_keys(ring.keys()?, &Actor::System).await?;
            *in_force = Some(ring);
        }
        Ok(())
    }

    /// Takes a rotation to its end that a crash cut off. It may be in the log already; then it is there once more.
    async fn finish(&self, ring: &Ring, left: KeyFile, now: Timestamp) -> anyhow::Result<Ring> {
        let Rotating { dir, tokens_live, .. } = &*self.0;
        self.publish(ring, &left, &Actor::System).await?;
        // Verifiers see it from now on, whenever it was made.
        promote(&KeyFile { made: now, ..left }, None)?;
        Ring::read(dir, now, *tokens_live)?.context("there is no token key")
    }

    async fn add(&self, by: &str) -> Result<NextKey, PortError> {
        let Rotating { dir, authority, tokens_live, turn } = &*self.0;
        let failed = |error: anyhow::Error| PortError::Failed(format!("{error:#}"));
        let mut in_force = turn.lock().await;
        let now = authority.now();
        let ring = Ring::read(dir, now, *tokens_live).and_then(|ring| ring.context("there is no token key")).map_err(failed)?;
        if ring.next().is_some() {
            return Err(PortError::Conflict("a next key is published already and will sign soon; rotate again then".to_owned()));
        }
        let next = create(dir, now).map_err(failed)?;
        // CRASH(keys.made): a file that no start counts. The next step by time finds it, logs it and publishes it.
        tracing::trace!(target: "writ::step", at = "keys.made");
        let added = self.publish(&ring, &next, &Actor::Operator(by.to_owned())).await;
        if added.is_err() {
            // Nothing happened, so nothing may remain: a key that no entry names must never sign.
            remove(&next);
        }
        let key_id = added.map_err(failed)?;
        // CRASH(before the new name): the key is in the log; it is found, logged once more and published, as above.
        promote(&next, None).map_err(failed)?;
        *in_force = Ring::read(dir, now, *tokens_live).map_err(failed)?;
        Ok(NextKey { key_id, signs_at: next.signs_at() })
    }

    /// Logs and publishes the next key.
    async fn publish(&self, ring: &Ring, next: &KeyFile, by: &Actor) -> anyhow::Result<String> {
        let mut keys = ring.keys()?;
        let signer = next.signer()?;
        let key_id = signer.key_id().to_owned();
        keys.published.insert(0, signer);
        self.0.authority.rotate_keys(keys, by).await?;
        Ok(key_id)
    }
}

#[async_trait]
impl KeyRotation for RotatingKeys {
    async fn rotate(&self, by: &str) -> Result<NextKey, PortError> {
        let (this, by) = (self.clone(), by.to_owned());
        // To its end, also if whoever asked goes away meanwhile.
        let added = tokio::spawn(async move { this.add(&by).await }).await;
        added.map_err(|error| PortError::Failed(error.to_string()))?
    }
}

#[cfg(test)]
mod tests;
