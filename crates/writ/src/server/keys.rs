//! The keys of a server, in `keys/` of its data folder: the log's, the tokens', the one that wraps openings. Owns names,
//! creation and rotation; each key is used by the crate that it is handed to (design §5, §7, R16).

use crate::key_file;
use anyhow::Context;
use async_trait::async_trait;
use auditlog::note::{Ed25519Signer, VerifierKey};
use auditlog::port::NoteSigner;
use authority::{Actor, Authority, TokenKeys, WrappingKey};
use control::{KeyRotation, PortError};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use token::sign::{Es256Signer, TokenSigner};
use zeroize::Zeroizing;

/// Most token keys that are published at once; older ones stay on disk and verify nothing any more.
const TOKEN_KEYS_MAX: usize = 8;

/// Everything that is read from `keys/` at start.
pub(crate) struct ServerKeys {
    /// Signs checkpoints.
    pub(crate) log: Ed25519Signer,
    /// Signs this node's batches.
    pub(crate) node: Ed25519Signer,
    /// Sign tokens.
    pub(crate) tokens: TokenKeys,
    /// Wraps the keys of openings.
    pub(crate) wrapping: WrappingKey,
}

/// The folder of the keys.
pub(crate) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

/// Reads the keys, making those that are missing. `origin` names a new log; an existing one keeps its name for good.
///
/// # Errors
/// A key cannot be read or made, or others than its owner can read it.
pub(crate) fn open(data_dir: &Path, origin: &str, node: &str, tokens_live: Duration) -> anyhow::Result<ServerKeys> {
    let dir = folder(data_dir);
    key_file::create_private_dir(&dir)?;
    let log = log_key(&dir, origin)?;
    let node = Ed25519Signer::from_seed(node, &key_file::seed(&dir.join("node.key"))?)?;
    let wrapping = WrappingKey::new(key_file::seed(&dir.join("wrapping.key"))?);
    Ok(ServerKeys { log, node, tokens: token_keys(&dir, tokens_live)?, wrapping })
}

/// The log's key. Its public half stands beside it in `log.vkey`, for those who verify the log, and holds the name.
fn log_key(dir: &Path, origin: &str) -> anyhow::Result<Ed25519Signer> {
    let path = dir.join("log.vkey");
    let seed = key_file::seed(&dir.join("log.key"))?;
    let known = match fs::read_to_string(&path) {
        Ok(line) => Some(VerifierKey::parse(line.trim()).with_context(|| format!("`{}`", path.display()))?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("`{}` cannot be read", path.display())),
    };
    let signer = Ed25519Signer::from_seed(known.as_ref().map_or(origin, VerifierKey::name), &seed)?;
    match known {
        Some(known) if known == *signer.verifier() => {}
        Some(_) => {
            anyhow::bail!("`{}` is not the public half of `log.key`: restore the key that belongs to this log", path.display())
        }
        None => fs::write(&path, format!("{}\n", signer.verifier()))
            .with_context(|| format!("`{}` cannot be written", path.display()))?,
    }
    Ok(signer)
}

/// The token keys of the folder: the newest signs, earlier ones are published until their tokens have expired.
fn token_keys(dir: &Path, tokens_live: Duration) -> anyhow::Result<TokenKeys> {
    let mut files = token_files(dir)?;
    if files.is_empty() {
        create_token_key(dir)?;
        files = token_files(dir)?;
    }
    let mut signers = files.iter().map(|(path, _)| signer(path));
    let active = signers.next().context("there is no token key")??;
    // A key stopped signing when the one after it was made; its last tokens expired one lifetime later.
    let replaced_at = files.iter().map(|(_, made)| *made);
    // A clock that was set back since then says nothing about how long ago that was.
    let still_counts = |at: SystemTime| at.elapsed().unwrap_or_default() <= tokens_live + Duration::from_secs(120);
    let published = signers.zip(replaced_at).filter(|(_, at)| still_counts(*at)).map(|(signer, _)| signer);
    Ok(TokenKeys { active, published: published.take(TOKEN_KEYS_MAX).collect::<Result<_, _>>()? })
}

fn signer(path: &Path) -> anyhow::Result<Arc<dyn TokenSigner>> {
    let pkcs8 = key_file::decoded(path)?;
    let signer = Es256Signer::from_pkcs8(&pkcs8).with_context(|| format!("`{}`", path.display()))?;
    Ok(Arc::new(signer))
}

/// `token-<milliseconds>.key` files, newest first, and when each was made (by its name: a copy keeps it).
fn token_files(dir: &Path) -> anyhow::Result<Vec<(PathBuf, SystemTime)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let millis = name.strip_prefix("token-").and_then(|rest| rest.strip_suffix(".key")).and_then(|at| at.parse::<u64>().ok());
        if let Some(millis) = millis {
            found.push((path, SystemTime::UNIX_EPOCH + Duration::from_millis(millis)));
        }
    }
    found.sort_by_key(|(_, made)| std::cmp::Reverse(*made));
    Ok(found)
}

fn create_token_key(dir: &Path) -> anyhow::Result<()> {
    use base64::Engine;
    let pkcs8 = Es256Signer::generate_pkcs8()?;
    let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&*pkcs8));
    // The newest name is what signs, also when the clock was set back since the last one was made.
    let newest = token_files(dir)?.first().map_or(0, |(_, made)| millis_of(*made));
    let path = dir.join(format!("token-{}.key", crate::system::now().millis().max(newest.saturating_add(1))));
    Ok(key_file::create(&path, text.as_bytes())?)
}

fn millis_of(made: SystemTime) -> i64 {
    made.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX - 1))
}

/// Rotation of token keys on an operator's word.
pub(crate) struct RotatingKeys {
    /// The data folder.
    pub(crate) data_dir: PathBuf,
    /// The authority that uses them.
    pub(crate) authority: Authority,
    /// How long tokens live.
    pub(crate) tokens_live: Duration,
}

#[async_trait]
impl KeyRotation for RotatingKeys {
    async fn rotate(&self, by: &str) -> Result<String, PortError> {
        let failed = |error: anyhow::Error| PortError::Failed(format!("{error:#}"));
        let dir = folder(&self.data_dir);
        create_token_key(&dir).map_err(failed)?;
        // CRASH(keys.made): the start takes the newest key. Nothing was signed with it that the log did not decide.
        tracing::trace!(target: "writ::step", at = "keys.made");
        let keys = token_keys(&dir, self.tokens_live).map_err(failed)?;
        let key_id = keys.active.key_id().to_owned();
        let rotated = self.authority.rotate_keys(keys, &Actor::Operator(by.to_owned())).await;
        rotated.map_err(|error| PortError::Failed(error.to_string()))?;
        Ok(key_id)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;

    #[test]
    fn keys_are_made_once_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let live = Duration::from_secs(300);
        let first = open(dir.path(), "writ.example/log", "n", live).unwrap();
        let again = open(dir.path(), "writ.example/log", "n", live).unwrap();
        assert_eq!(first.log.verifier(), again.log.verifier());
        assert_eq!(first.tokens.active.key_id(), again.tokens.active.key_id());
        let renamed = open(dir.path(), "other.example/log", "n", live).unwrap();
        assert_eq!(renamed.log.verifier().name(), "writ.example/log", "a log keeps its name");
        fs::remove_file(folder(dir.path()).join("log.key")).unwrap();
        assert!(open(dir.path(), "writ.example/log", "n", live).is_err(), "another key is another log");
    }

    #[test]
    fn a_new_token_key_signs_and_the_one_before_stays_published() {
        let dir = tempfile::tempdir().unwrap();
        let live = Duration::from_secs(300);
        let first = open(dir.path(), "o", "n", live).unwrap();
        // Made in another millisecond than the next.
        let (made, _) = token_files(&folder(dir.path())).unwrap()[0].clone();
        fs::rename(made, folder(dir.path()).join(format!("token-{}.key", crate::system::now().millis() - 1_000))).unwrap();
        create_token_key(&folder(dir.path())).unwrap();
        let second = open(dir.path(), "o", "n", live).unwrap();
        assert_ne!(first.tokens.active.key_id(), second.tokens.active.key_id());
        assert_eq!(second.tokens.published[0].key_id(), first.tokens.active.key_id());
    }

    #[test]
    fn a_key_whose_tokens_have_expired_is_published_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let keys = folder(dir.path());
        open(dir.path(), "o", "n", Duration::from_secs(300)).unwrap();
        let made = token_files(&keys).unwrap()[0].0.clone();
        let hour_ago = crate::system::now().millis() - 3_600_000;
        fs::rename(made, keys.join(format!("token-{}.key", hour_ago - 1_000))).unwrap();
        create_token_key(&keys).unwrap();
        let (newest, _) = token_files(&keys).unwrap()[0].clone();
        fs::rename(newest, keys.join(format!("token-{hour_ago}.key"))).unwrap();
        assert!(open(dir.path(), "o", "n", Duration::from_secs(300)).unwrap().tokens.published.is_empty());
        assert_eq!(open(dir.path(), "o", "n", Duration::from_secs(4_000)).unwrap().tokens.published.len(), 1);
    }
}
