//! What the log asks of its surroundings: hashes, files, batches, a signer and a memory of heads.
//!
//! Each trait states its durability promise; the log's crash safety rests on exactly these words.

use crate::{Error, checkpoint::Head, hash::Hash, note::VerifierKey, sequence::StoredBatch, tree::Node};

/// Gives the hashes of complete subtrees.
pub trait HashReader {
    /// The hash of `node`.
    ///
    /// # Errors
    /// [`Error::NodeMissing`] or a storage error; never a guess.
    fn hash(&self, node: Node) -> Result<Hash, Error>;
}

/// A log directory: immutable resources and one mutable checkpoint.
pub trait LogFiles {
    /// The whole file at `path`, or `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than any resource of a log can be.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error>;

    /// Writes immutable files. When it returns, all of them and their names survive a power loss. A file that
    /// exists with the same bytes is left alone, so that repeating an interrupted call is safe.
    ///
    /// # Errors
    /// [`Error::FileCorrupt`] if a file exists with other bytes; otherwise as the disk fails. On error any
    /// subset may have been written, but no file is ever visible in part.
    fn write(&self, files: &[(String, Vec<u8>)]) -> Result<(), Error>;

    /// Replaces the mutable checkpoint atomically; durable when it returns.
    ///
    /// # Errors
    /// As the disk fails; then either the old or the new one is in place.
    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), Error>;

    /// Removes the directory that holds the partial forms of a resource that is now full. Best effort by
    /// nature: what is left over is harmless.
    ///
    /// # Errors
    /// As the disk fails; absence is success.
    fn remove_partials(&self, directory: &str) -> Result<(), Error>;
}

/// Signs notes under one key. The key may live in another process or device.
pub trait NoteSigner: Send + Sync {
    /// The public half, with the name that stands on the signature line.
    fn verifier(&self) -> &VerifierKey;

    /// The signature bytes over `text`, without the key id.
    ///
    /// # Errors
    /// [`Error::SigningFailed`].
    fn sign(&self, text: &[u8]) -> Result<Vec<u8>, Error>;
}

/// Remembers the newest head that was signed, outside the database.
pub trait HeadKeeper {
    /// Keeps a signed checkpoint. When it returns, the memory survives a power loss.
    ///
    /// # Errors
    /// As the disk fails. Then the checkpoint must not leave the process.
    fn keep(&mut self, head: Head, note: &[u8]) -> Result<(), Error>;
}

/// The owner of committed batches that no published tile covers yet.
pub trait BatchLedger {
    /// Committed batches from entry `first` on, contiguous and in order, at least one if there is any,
    /// no more than about `leaves_max` leaves.
    ///
    /// # Errors
    /// If they cannot be read, or were changed since they were committed.
    fn batches_from(&mut self, first: u64, leaves_max: u64) -> Result<Vec<StoredBatch>, Error>;

    /// Records that a checkpoint is about to be published. Durable when it returns.
    ///
    /// # Errors
    /// As the database fails; then the checkpoint is not published.
    fn record_checkpoint(&mut self, head: Head, note: &[u8]) -> Result<(), Error>;

    /// Drops the batches that lie wholly below `size`: durable tiles and a published checkpoint cover them.
    ///
    /// # Errors
    /// As the database fails; the batches then stay, which is harmless.
    fn forget_below(&mut self, size: u64) -> Result<(), Error>;
}

impl<F: LogFiles> LogFiles for &F {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        (**self).read(path)
    }

    fn write(&self, files: &[(String, Vec<u8>)]) -> Result<(), Error> {
        (**self).write(files)
    }

    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), Error> {
        (**self).replace_checkpoint(note)
    }

    fn remove_partials(&self, directory: &str) -> Result<(), Error> {
        (**self).remove_partials(directory)
    }
}
