//! From committed batches to published files, in the order that makes every crash harmless.
//!
//! Entries are never at risk here: until the last step they are in the database, before it in durable files. Knows
//! neither SQL nor who holds the key; ports do.

use crate::{
    Error,
    checkpoint::Head,
    edge::{Edge, read_or_full},
    port::{BatchLedger, LogFiles},
    sequence::replay,
    tile::{Entries, Resource},
};

/// Most entries that one round publishes; it bounds memory, not the log.
const ROUND_LEAVES_MAX: u64 = 16_384;

/// Publishes the log behind the writer.
#[derive(Debug)]
pub struct Publisher {
    edge: Edge,
}

/// What a round published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// The published tree.
    pub head: Head,
    /// The signed checkpoint.
    pub note: Vec<u8>,
}

/// The edge after some batches, and the files that getting there takes, by path.
struct Staged {
    edge: Edge,
    files: Vec<(String, Vec<u8>)>,
}

impl Publisher {
    /// A publisher that goes on from what is published, as recovery found it.
    #[must_use]
    pub const fn new(edge: Edge) -> Self {
        Self { edge }
    }

    /// Size of the published tree.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Publishes what was committed since, up to a bound; `None` if there was nothing. `sign` is the notary.
    ///
    /// 1. Read committed batches, replay them, check that they are what was committed.
    /// 2. Look whether what was published so far is still there. Write bundles and tiles, full and partial, durably.
    /// 3. Sign the checkpoint: the notary refuses forks and anchors it outside the database.
    /// 4. Record the checkpoint in the database.
    /// 5. Replace the file `checkpoint`.
    /// 6. Forget the batches, remove partial files that a full one supersedes.
    ///
    /// # Errors
    /// As a step fails. Nothing is lost or published by half; calling again repeats what is missing.
    pub fn publish(
        &mut self,
        files: &impl LogFiles,
        ledger: &mut impl BatchLedger,
        mut sign: impl FnMut(Head) -> Result<Vec<u8>, Error>,
    ) -> Result<Option<Round>, Error> {
        let Staged { edge, files: written } = self.stage(ledger)?;
        if edge.size() == self.edge.size() {
            return Ok(None);
        }
        self.check_place(files)?;
        // Crash in or after this: files beyond the checkpoint, or part of them. Nobody looks there yet; the
        // next start replays the same batches and finds the same bytes.
        files.write(&written)?;
        let head = edge.head()?;
        // Crash after this: a signed head that nobody saw, anchored; its batches are still in the database.
        let note = sign(head)?;
        // Crash after this: the database knows the checkpoint, the file is older. Recovery replaces the file.
        ledger.record_checkpoint(head, &note)?;
        // Crash after this: published, and batches that durable files cover. Recovery forgets them.
        files.replace_checkpoint(&note)?;
        self.edge = edge;
        ledger.forget_below(head.size)?;
        // Crash in here: some partial files are left over beside a full one. They are true and harmless.
        for (path, _) in &written {
            let resource = Resource::parse(path)?;
            if resource == resource.full() {
                files.remove_partials(&resource.partials_path())?;
            }
        }
        Ok(Some(Round { head, note }))
    }

    /// Whether the files are those that were published to. A directory that was taken away would be made anew, and one that
    /// was put back from a copy would be gone on with, both with a hole that only a verifier finds.
    fn check_place(&self, files: &impl LogFiles) -> Result<(), Error> {
        let size = self.edge.size();
        let newest = size.checked_sub(1).and_then(|last| Resource::bundle_of(last, size));
        newest.map_or(Ok(()), |bundle| read_or_full(files, bundle).map(drop))
    }

    fn stage(&self, ledger: &mut impl BatchLedger) -> Result<Staged, Error> {
        let mut edge = self.edge.clone();
        let mut frontier = edge.frontier()?;
        let mut files = Vec::new();
        for batch in ledger.batches_from(edge.size(), ROUND_LEAVES_MAX)? {
            let appended = replay(&frontier, &batch)?;
            for (entry, leaf) in Entries::new(&batch.packed).zip(&appended.leaves) {
                edge.push(entry?, *leaf, |resource, bytes| {
                    files.push((resource.path(), bytes.to_vec()));
                    Ok(())
                })?;
            }
            frontier = appended.frontier;
        }
        files.extend(edge.partials().into_iter().map(|(resource, bytes)| (resource.path(), bytes)));
        Ok(Staged { edge, files })
    }
}
