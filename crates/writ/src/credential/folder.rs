//! A folder for files that a command needs and nobody else may read. It goes when its value goes, and when this process
//! dies in any other way: a small guard waits for that. Owns places and permissions; never looks at what is in a file.

use crate::key_file::{self, KeyFileError};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the guard runs: it reads until nobody holds the other end, which is this process alone, and clears up.
const GUARD: &str = "trap '' HUP INT TERM QUIT; cat >/dev/null; rm -rf -- \"$1\"";

/// See the module.
pub(crate) struct Folder {
    path: PathBuf,
    guard: Option<Child>,
}

impl Folder {
    /// A new, empty one: in memory where the system has such a place, so that no secret reaches a disk.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn create() -> anyhow::Result<Self> {
        let path = place().join(format!("writ-{}", crate::system::random_text::<12>()));
        key_file::create_private_dir(&path)?;
        let mut folder = Self { path, guard: None };
        // Its own process group: what a terminal sends to this command does not reach it.
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", GUARD, "writ-guard"]).arg(&folder.path).env_clear().env("PATH", "/usr/bin:/bin").process_group(0);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        match guard.spawn() {
            Ok(guard) => folder.guard = Some(guard),
            Err(error) => {
                tracing::warn!(%error, "no guard: if this process is killed, its folder stays until it is removed by hand")
            }
        }
        Ok(folder)
    }

    /// Where it is.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that its owner alone may read; gives its path.
    ///
    /// # Errors
    /// It cannot be written, or is there already.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf, KeyFileError> {
        let path = self.path.join(name);
        if let Some(parent) = path.parent() {
            key_file::create_private_dir(parent)?;
        }
        let failed = |source| KeyFileError::Io { path: path.clone(), verb: "written", source };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(%error, folder = %self.path.display(), "a private folder could not be removed");
        }
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            let _ = guard.wait();
        }
    }
}

/// A place in memory that only this user can enter, or in which only the owner can list, or the usual one.
fn place() -> PathBuf {
    let runtime = crate::system::variable("XDG_RUNTIME_DIR").map(PathBuf::from);
    let memory = [runtime, Some(PathBuf::from("/dev/shm"))];
    memory.into_iter().flatten().find(|dir| dir.is_absolute() && writable(dir)).unwrap_or_else(std::env::temp_dir)
}

fn writable(dir: &Path) -> bool {
    let name = dir.join(format!(".writ-{}", crate::system::random_text::<12>()));
    fs::create_dir(&name).is_ok() && fs::remove_dir(&name).is_ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_is_in_it_is_for_its_owner_alone_and_goes_with_it() {
        let folder = Folder::create().unwrap();
        let file = folder.write("ssh/key", b"hush").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(folder.path()), mode(&folder.path().join("ssh")), mode(&file)), (0o700, 0o700, 0o600));
        assert!(folder.write("ssh/key", b"other").is_err(), "nothing is overwritten");
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn it_goes_when_its_process_dies_without_a_word() {
        let mut folder = Folder::create().unwrap();
        folder.write("key", b"hush").unwrap();
        let (path, mut guard) = (folder.path().to_owned(), folder.guard.take().unwrap());
        // As if killed: no destructor runs, and the system closes our end.
        drop(guard.stdin.take());
        std::mem::forget(folder);
        assert!(guard.wait().unwrap().success());
        assert!(!path.exists());
    }
}
