//! The anchor: the newest signed checkpoint, in a small file outside the database.
//!
//! A database that is restored from a backup looks healthy and would make the log sign a second history; the
//! anchor still knows what was signed. Two slots of fixed place are written in turn, so that a torn write
//! spoils one of them at most and costs one flush. Slots hold signed notes: a slot that does not verify does
//! not count. Keep the file on another volume, and out of the backup that holds the database.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    Error,
    checkpoint::{Checkpoint, Head},
    directory::{create_dirs, create_private, io, read_capped, sync_dirs},
    note::VerifierKey,
    port::HeadKeeper,
};

/// Bytes of a slot: big-endian u16 length, the note, zeroes.
const SLOT_LEN: usize = 4096;

/// An open anchor file.
#[derive(Debug)]
pub struct Anchor {
    file: File,
    path: PathBuf,
    /// Which slot holds the newest head.
    newest: u8,
}

impl Anchor {
    /// Makes the anchor of a new log, holding `note`.
    ///
    /// # Errors
    /// As the disk fails, or if there is a file already.
    pub fn create(path: &Path, note: &[u8]) -> Result<Self, Error> {
        let mut dirty = BTreeSet::new();
        if let Some(parent) = path.parent() {
            create_dirs(parent, &mut dirty)?;
            dirty.insert(parent.to_owned());
        }
        let mut bytes = slot(note)?;
        bytes.resize(2 * SLOT_LEN, 0);
        // Complete before it has its name: an anchor that exists always holds a valid slot.
        let temporary = path.with_extension("new");
        let file = create_private(&temporary)?;
        file.write_all_at(&bytes, 0).map_err(io("write", &temporary))?;
        file.sync_all().map_err(io("sync", &temporary))?;
        std::fs::hard_link(&temporary, path).map_err(io("create", path))?;
        std::fs::remove_file(&temporary).map_err(io("remove", &temporary))?;
        sync_dirs(&dirty)?;
        Self::open_file(path, 0)
    }

    /// Opens an anchor and gives the newest head that it holds under `key`; `None` if there is no file.
    ///
    /// # Errors
    /// [`Error::AnchorUnreadable`] if neither slot verifies, or as the disk fails.
    pub fn open(path: &Path, key: &VerifierKey) -> Result<Option<(Self, Head)>, Error> {
        let Some(bytes) = read_capped(path, 2 * SLOT_LEN as u64)? else { return Ok(None) };
        let heads = bytes.chunks(SLOT_LEN).zip(0_u8..).filter_map(|(slot, number)| {
            let (len, rest) = slot.split_first_chunk::<2>()?;
            let note = rest.get(..usize::from(u16::from_be_bytes(*len)))?;
            let checkpoint = Checkpoint::open(note, key).ok()?;
            Some((checkpoint.head, number))
        });
        match heads.max_by_key(|(head, _)| head.size) {
            Some((head, number)) => Ok(Some((Self::open_file(path, number)?, head))),
            None => Err(Error::AnchorUnreadable { path: path.to_owned() }),
        }
    }

    fn open_file(path: &Path, newest: u8) -> Result<Self, Error> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(io("open", path))?;
        Ok(Self { file, path: path.to_owned(), newest })
    }
}

impl HeadKeeper for Anchor {
    fn keep(&mut self, _: Head, note: &[u8]) -> Result<(), Error> {
        let other = 1 - self.newest.min(1);
        let offset = u64::from(other) * SLOT_LEN as u64;
        // Crash in here: this slot may be torn and then does not verify; the other one holds the head before.
        // The new signature has not left the process yet.
        self.file.write_all_at(&slot(note)?, offset).map_err(io("write", &self.path))?;
        self.file.sync_data().map_err(io("sync", &self.path))?;
        self.newest = other;
        Ok(())
    }
}

fn slot(note: &[u8]) -> Result<Vec<u8>, Error> {
    let too_small = || Error::AnchorTooSmall { len: note.len() };
    let mut bytes = u16::try_from(note.len()).map_err(|_| too_small())?.to_be_bytes().to_vec();
    bytes.extend_from_slice(note);
    if bytes.len() > SLOT_LEN {
        return Err(too_small());
    }
    bytes.resize(SLOT_LEN, 0);
    Ok(bytes)
}
