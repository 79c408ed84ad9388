//! Secrets in files: written once, whole or not at all, for their owner only; refused when others could read them.
//! Owns permissions and atomicity; what a key is for is the caller's business. Contents are wiped from memory after use.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest secret that is read, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1_024;

/// Why a secret could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyFileError {
    /// The file system failed.
    #[error("`{}` cannot be {verb}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        verb: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner could read it.
    #[error("`{0}` can be read by others than its owner: run `chmod 600 {0}`, and replace the secret if others may have read it")]
    Exposed(String),
    /// Others than its owner could put something into it.
    #[error(
        "the folder `{0}` can be changed by others than its owner: run `chmod 700 {0}`, and replace what they may have exchanged"
    )]
    Open(String),
    /// It is not what it should be.
    #[error("`{}` does not hold {expected}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
}

fn io_error(path: &Path, verb: &'static str) -> impl FnOnce(io::Error) -> KeyFileError {
    let path = path.to_owned();
    move |source| KeyFileError::Io { path, verb, source }
}

/// Creates a folder (and those above it) that only its owner may enter.
pub(crate) fn create_private_dir(path: &Path) -> Result<(), KeyFileError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error(path, "created"))
}

/// The same for a folder that may be there already: refused if others than its owner can change what is in it, because they
/// could exchange a key or the database; warned of if they can look into it.
pub(crate) fn claim_private_dir(path: &Path) -> Result<(), KeyFileError> {
    create_private_dir(path)?;
    let mode = fs::metadata(path).map_err(io_error(path, "read"))?.permissions().mode();
    if mode & 0o022 != 0 {
        return Err(KeyFileError::Open(path.display().to_string()));
    }
    if mode & 0o055 != 0 {
        tracing::warn!(folder = %path.display(), "others than its owner can look into the folder; run `chmod 700` on it");
    }
    Ok(())
}

/// Writes a file that others may read and only its owner may change, whatever the umask.
pub(crate) fn put_public(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(path)?.write_all(bytes)
}

/// The secret in a file, a newline at its end cut off.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let file = fs::File::open(path).map_err(io_error(path, "read"))?;
    // Asked of the open file, not of the path: between two look-ups it could have been exchanged.
    let meta = file.metadata().map_err(io_error(path, "read"))?;
    if !meta.is_file() || meta.size() > SECRET_BYTES_MAX {
        return Err(KeyFileError::Malformed { path: path.to_owned(), expected: "a secret" });
    }
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(KeyFileError::Exposed(path.display().to_string()));
    }
    let mut secret = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.size()).unwrap_or(0) + 1));
    file.take(SECRET_BYTES_MAX).read_to_end(&mut secret).map_err(io_error(path, "read"))?;
    while secret.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        secret.pop();
    }
    Ok(secret)
}

/// Writes a new secret. Never overwrites: fails with [`io::ErrorKind::AlreadyExists`] if there is one.
///
/// A crash at any step leaves either nothing under `path` or the whole secret: it is linked to its name only once it is
/// on stable storage. A left-over temporary file is harmless and unreadable to others.
pub(crate) fn create(path: &Path, secret: &[u8]) -> Result<(), KeyFileError> {
    let failed = |source| KeyFileError::Io { path: path.to_owned(), verb: "written", source };
    let temporary = path.with_extension(format!("new-{}", crate::system::random_text::<9>()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    let written = file.write_all(secret).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&temporary, path));
    let removed = fs::remove_file(&temporary);
    written.map_err(failed)?;
    removed.map_err(failed)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// The secret in a file, made first if there is none.
pub(crate) fn read_or_create(
    path: &Path,
    make: impl FnOnce() -> anyhow::Result<Zeroizing<Vec<u8>>>,
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    if !path.exists() {
        let encoded = Zeroizing::new(format!("{}\n", *Zeroizing::new(STANDARD.encode(&*make()?))));
        create(path, encoded.as_bytes())?;
    }
    decoded(path)
}

/// The secret of a file that holds it in base64.
pub(crate) fn decoded(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let malformed = || KeyFileError::Malformed { path: path.to_owned(), expected: "a key in base64" };
    Ok(Zeroizing::new(STANDARD.decode(&*read(path)?).map_err(|_| malformed())?))
}

/// 32 secret bytes of a file, made from the system's entropy first if there is none.
pub(crate) fn seed(path: &Path) -> anyhow::Result<Zeroizing<[u8; 32]>> {
    let bytes = read_or_create(path, || {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        crate::system::fill(&mut bytes);
        Ok(bytes)
    })?;
    let seed: [u8; 32] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| KeyFileError::Malformed { path: path.to_owned(), expected: "32 bytes in base64" })?;
    Ok(Zeroizing::new(seed))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, b"hush\n").unwrap();
        assert_eq!(&**read(&path).unwrap(), b"hush");
        for mode in [0o640, 0o604, 0o644, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path), Err(KeyFileError::Exposed(_))), "{mode:o}");
        }
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        claim_private_dir(&path).unwrap();
        for (mode, refused) in [(0o700, false), (0o755, false), (0o750, false), (0o770, true), (0o702, true), (0o1777, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(matches!(claim_private_dir(&path), Err(KeyFileError::Open(_))), refused, "{mode:o}");
        }
    }

    #[test]
    fn a_secret_is_never_overwritten_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        create(&path, b"first").unwrap();
        let again = create(&path, b"second").unwrap_err();
        assert!(matches!(again, KeyFileError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(&**read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_seed_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wrapping.key");
        let first = seed(&path).unwrap();
        assert_eq!(*seed(&path).unwrap(), *first);
        fs::remove_file(&path).unwrap();
        create(&path, b"c2hvcnQ=").unwrap();
        assert!(seed(&path).is_err());
    }
}
