//! Files that servers fetch from us: revocation lists, and the record that they are made of. Owns that such a file is
//! always whole: a reader sees the old or the new one and never half of either, whenever we are killed. It knows nothing
//! of what stands in them.

use authority::target::TargetError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Most entries of one record. A certificate lives for minutes and leaves the record when it is dead, so that this is
/// never reached in use; a list that would grow beyond it is a fault, not a file that nobody can load.
const ENTRIES_MAX: usize = 200_000;

/// Largest record that is read back, in bytes.
const RECORD_BYTES_MAX: u64 = 32 * 1_024 * 1_024;

/// How long an entry stays after its certificate has died by itself, in seconds: for verifiers whose clock is behind.
const KEPT_SECS: i64 = 600;

/// Puts `bytes` at `path`: written beside it, flushed to the disk, renamed over it.
///
/// # Errors
/// What the file system said. The old file is then still there.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let mut file = File::create(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    // The rename itself must survive a crash of the machine.
    path.parent().map_or(Ok(()), |folder| File::open(folder).and_then(|folder| folder.sync_all()))
}

/// When one certificate was revoked, and when it dies by itself. Seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Revoked {
    pub(crate) at: i64,
    pub(crate) until: i64,
}

/// The revoked certificates of one authority that have not died by themselves, by the name of their grant or serial.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Rises with every list: a reader refuses a lower one.
    pub(crate) number: u64,
    pub(crate) revoked: BTreeMap<String, Revoked>,
}

/// One published list and its record (`<list>.record.json`), shared by all nodes that share the folder.
#[derive(Debug)]
pub(crate) struct Published {
    list: PathBuf,
    record: PathBuf,
    lock: PathBuf,
}

impl Published {
    pub(crate) fn new(list: &Path) -> Self {
        let with = |suffix: &str| {
            let mut path = list.as_os_str().to_owned();
            path.push(suffix);
            PathBuf::from(path)
        };
        Self { list: list.to_owned(), record: with(".record.json"), lock: with(".lock") }
    }

    /// The record as it is; empty if there was never one.
    pub(crate) fn read(&self) -> Result<Record, TargetError> {
        let length = match std::fs::metadata(&self.record) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Record::default()),
            Err(error) => return Err(failed(&self.record, &error)),
        };
        if length > RECORD_BYTES_MAX {
            return Err(TargetError::Refused(format!("`{}` is too large to be a record of ours", self.record.display())));
        }
        let text = std::fs::read(&self.record).map_err(|error| failed(&self.record, &error))?;
        serde_json::from_slice(&text)
            .map_err(|error| TargetError::Refused(format!("`{}` is not a record of ours: {error}", self.record.display())))
    }

    /// Whether the list itself is there.
    pub(crate) fn exists(&self) -> bool {
        self.list.is_file()
    }

    /// The list as servers fetch it.
    pub(crate) fn list(&self) -> Result<Vec<u8>, TargetError> {
        std::fs::read(&self.list).map_err(|error| failed(&self.list, &error))
    }

    /// Adds `entry` if there is one, drops what died by itself, and publishes the list that `make` makes of the record.
    ///
    /// Crash points: before the record is replaced nothing happened; between record and list the list is one step behind,
    /// and the caller, which has no answer, does the same again; after both it is done, and doing it again is harmless.
    pub(crate) fn publish<F>(&self, entry: Option<(String, Revoked)>, now: i64, make: F) -> Result<Record, TargetError>
    where
        F: FnOnce(&Record) -> Result<Vec<u8>, TargetError>,
    {
        let lock = File::create(&self.lock).map_err(|error| failed(&self.lock, &error))?;
        lock.lock().map_err(|error| failed(&self.lock, &error))?;
        let mut record = self.read()?;
        record.revoked.retain(|_, revoked| revoked.until.saturating_add(KEPT_SECS) > now);
        if let Some((name, revoked)) = entry {
            // The first time counts: how long a host had to fetch it is measured from there.
            record.revoked.entry(name).or_insert(revoked);
        }
        if record.revoked.len() > ENTRIES_MAX {
            return Err(TargetError::Refused(format!("more than {ENTRIES_MAX} certificates are revoked and alive")));
        }
        record.number = record.number.saturating_add(1);
        let list = make(&record)?;
        let text = serde_json::to_vec(&record).map_err(|error| TargetError::Refused(error.to_string()))?;
        replace(&self.record, &text).map_err(|error| failed(&self.record, &error))?;
        replace(&self.list, &list).map_err(|error| failed(&self.list, &error))?;
        Ok(record)
    }
}

fn failed(path: &Path, error: &std::io::Error) -> TargetError {
    TargetError::Unreachable(format!("`{}`: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn list(record: &Record) -> Result<Vec<u8>, TargetError> {
        Ok(record.revoked.keys().map(String::as_str).collect::<Vec<_>>().join(",").into_bytes())
    }

    fn entry(name: &str, until: i64) -> Option<(String, Revoked)> {
        Some((name.to_owned(), Revoked { at: 0, until }))
    }

    #[test]
    fn what_died_by_itself_leaves_the_list_only_after_clocks_that_are_behind() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new(&folder.path().join("list"));
        published.publish(entry("a", 1_000), 900, list).unwrap();
        published.publish(entry("b", 5_000), 1_000 + KEPT_SECS - 1, list).unwrap();
        assert_eq!(published.list().unwrap(), b"a,b");
        let record = published.publish(None, 1_000 + KEPT_SECS, list).unwrap();
        assert_eq!((published.list().unwrap().as_slice(), record.number), (b"b".as_slice(), 3));
    }

    #[test]
    fn a_crash_between_record_and_list_is_mended_by_doing_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new(&folder.path().join("list"));
        published.publish(entry("a", 1_000), 0, list).unwrap();
        std::fs::write(folder.path().join("list"), b"").unwrap();
        published.publish(entry("a", 1_000), 1, list).unwrap();
        assert_eq!(published.list().unwrap(), b"a");
    }

    #[test]
    fn a_list_that_cannot_be_made_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let published = Published::new(&folder.path().join("list"));
        published.publish(entry("a", 1_000), 0, list).unwrap();
        let failed = published.publish(entry("b", 1_000), 0, |_| Err(TargetError::NotShown("a reason")));
        assert!(failed.is_err());
        assert_eq!((published.list().unwrap().as_slice(), published.read().unwrap().number), (b"a".as_slice(), 1));
    }

    #[test]
    fn nodes_that_share_the_folder_lose_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::thread::scope(|scope| {
            for node in 0..4 {
                let path = &path;
                scope.spawn(move || {
                    for turn in 0..10 {
                        Published::new(path).publish(entry(&format!("{node}-{turn}"), 1_000), 0, list).unwrap();
                    }
                });
            }
        });
        let record = Published::new(&path).read().unwrap();
        assert_eq!((record.revoked.len(), record.number), (40, 40));
    }
}
