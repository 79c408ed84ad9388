//! A log directory on a file system: what [`LogFiles`] promises, kept with fsync and rename.
//!
//! The only module besides `anchor` that touches files. It opens nothing but the paths of tlog-tiles, so a
//! path from the network cannot lead it elsewhere.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::{
    Error,
    port::LogFiles,
    tile::{CHECKPOINT_PATH, ENTRY_LEN_MAX, Resource},
};

/// No resource of a log is larger: a full bundle of the longest entries.
const FILE_LEN_MAX: u64 = 256 * (ENTRY_LEN_MAX as u64 + 2);

/// A directory that holds one log.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// Names a directory; it is made when first written to.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn locate(&self, path: &str) -> Result<PathBuf, Error> {
        if path != CHECKPOINT_PATH {
            Resource::parse(path)?;
        }
        Ok(self.root.join(path))
    }

    /// Writes a file under another name, syncs it, renames it into place. Adds the directories whose entries
    /// changed to `dirty`; the caller syncs those.
    fn put(&self, path: &Path, bytes: &[u8], dirty: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::PathMalformed { path: path.display().to_string() });
        };
        create_dirs(parent, dirty)?;
        // Crash before the rename: this leftover is overwritten when the same file is written again.
        let mut temporary = std::ffi::OsString::from(".new-");
        temporary.push(name);
        let temporary = parent.join(temporary);
        let mut file = create_private(&temporary)?;
        file.write_all(bytes).map_err(io("write", &temporary))?;
        file.sync_all().map_err(io("sync", &temporary))?;
        // Crash after the rename and before the directory's sync: the file may be gone. Nothing relies on it
        // before the sync, and the batches that it was made from are still in the database.
        fs::rename(&temporary, path).map_err(io("rename into place", path))?;
        dirty.insert(parent.to_owned());
        Ok(())
    }
}

impl LogFiles for Directory {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        read_capped(&self.locate(path)?, FILE_LEN_MAX)
    }

    fn write(&self, files: &[(String, Vec<u8>)]) -> Result<(), Error> {
        let mut dirty = BTreeSet::new();
        for (path, bytes) in files {
            let target = self.locate(path)?;
            match read_capped(&target, FILE_LEN_MAX)? {
                None => self.put(&target, bytes, &mut dirty)?,
                Some(found) if found == *bytes => {}
                Some(_) => return Err(Error::FileCorrupt { path: path.clone() }),
            }
        }
        sync_dirs(&dirty)
    }

    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), Error> {
        let mut dirty = BTreeSet::new();
        self.put(&self.root.join(CHECKPOINT_PATH), note, &mut dirty)?;
        sync_dirs(&dirty)
    }

    fn remove_partials(&self, directory: &str) -> Result<(), Error> {
        // `<resource>.p` is a directory exactly if `<resource>.p/1` is a path of the log.
        Resource::parse(&format!("{directory}/1"))?;
        let path = self.root.join(directory);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

/// Reads a whole file, refusing one that is larger than it can honestly be.
pub(crate) fn read_capped(path: &Path, len_max: u64) -> Result<Option<Vec<u8>>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(len_max + 1).read_to_end(&mut bytes).map_err(io("read", path))?;
    if bytes.len() as u64 > len_max {
        return Err(Error::FileCorrupt { path: path.display().to_string() });
    }
    Ok(Some(bytes))
}

/// Makes a file anew that its owner alone may read and write, whatever the umask: what is public of a log is public through
/// whoever serves it.
pub(crate) fn create_private(path: &Path) -> Result<File, Error> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(io("create", path))
}

/// Makes missing directories, for their owner alone, and marks the parents whose entries changed.
pub(crate) fn create_dirs(path: &Path, dirty: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    let missing: Vec<_> = path.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).collect();
    for directory in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(io("create", directory)(error)),
            _ => {}
        }
        if let Some(parent) = directory.parent() {
            dirty.insert(parent.to_owned());
        }
    }
    Ok(())
}

/// Makes the names in these directories durable.
pub(crate) fn sync_dirs(dirty: &BTreeSet<PathBuf>) -> Result<(), Error> {
    for directory in dirty {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        File::open(directory).and_then(|d| d.sync_all()).map_err(io("sync", directory))?;
    }
    Ok(())
}

pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}
