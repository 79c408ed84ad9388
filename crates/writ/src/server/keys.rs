//! The keys of a server, in `keys/` of its data folder: the log's, the node's, the one that wraps openings; those of tokens
//! are beside. Owns names and creation; each key is used by the crate that it is handed to (design §5, §7, R16).

use super::token_keys;
use crate::key_file;
use anyhow::Context;
use auditlog::note::{Ed25519Signer, VerifierKey};
use auditlog::port::NoteSigner;
use authority::{TokenKeys, WrappingKey};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
/// A key cannot be read or made, or others than its owner can read it; or one is gone that what is stored needs.
pub(crate) fn open(data_dir: &Path, origin: &str, node: &str, tokens_live: Duration) -> anyhow::Result<ServerKeys> {
    let dir = folder(data_dir);
    key_file::claim_private_dir(&dir)?;
    if store::is_in_use(data_dir) {
        still_there(&dir)?;
    }
    let log = log_key(&dir, origin)?;
    let node = Ed25519Signer::from_seed(node, &key_file::seed(&dir.join("node.key"))?)?;
    let wrapping = WrappingKey::new(key_file::seed(&dir.join("wrapping.key"))?);
    Ok(ServerKeys { log, node, tokens: token_keys::open(&dir, crate::system::now(), tokens_live)?, wrapping })
}

/// Refuses to make keys anew that what is stored needs: a new one would look well and open nothing.
fn still_there(dir: &Path) -> anyhow::Result<()> {
    for (name, loss) in [
        (
            "log.key",
            "no checkpoint of this log can be signed any more; without it only a new log can be begun, with a new data folder and anchor",
        ),
        (
            "wrapping.key",
            "no sensitive value of the log so far can be opened any more, nor a credential taken back that only a stored secret \
             takes back; to go on without, put 32 random bytes in base64 there, for its owner alone",
        ),
    ] {
        let path = dir.join(name);
        let found = path.try_exists().with_context(|| format!("`{}` cannot be looked for", path.display()))?;
        anyhow::ensure!(found, "`{}` is gone: restore it from a backup. Otherwise {loss}", path.display());
    }
    Ok(())
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
        None => key_file::put_public(&path, format!("{}\n", signer.verifier()).as_bytes())
            .with_context(|| format!("`{}` cannot be written", path.display()))?,
    }
    Ok(signer)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_key_that_is_gone_from_a_folder_in_use_is_not_made_anew() {
        let live = Duration::from_secs(300);
        for name in ["log.key", "wrapping.key"] {
            let dir = tempfile::tempdir().unwrap();
            open(dir.path(), "writ.example/log", "n", live).unwrap();
            fs::write(dir.path().join("writ.db"), "in use").unwrap();
            open(dir.path(), "writ.example/log", "n", live).unwrap();
            let path = folder(dir.path()).join(name);
            fs::remove_file(&path).unwrap();
            let error = open(dir.path(), "writ.example/log", "n", live).err().unwrap().to_string();
            assert!(error.contains(name) && error.contains("restore it from a backup"), "{error}");
            assert!(!path.exists(), "the next start must say the same");
        }
    }

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
}
