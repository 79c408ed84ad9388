//! What writer, publisher and readers of one open store share. Locks are held for hash work only, never for
//! database or disk; the notary's own lock over its anchor keeps nobody waiting but who must have it durable, too.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use auditlog::{
    anchor::Anchor,
    checkpoint::{Draft, Head, Notary},
    directory::Directory,
    hash::Hash,
    note::VerifierKey,
    port::HashReader,
    proof::{prove_consistency, prove_inclusion},
    reader::{Committed, Tiles},
    sequence::Appended,
    tree::{Node, Tail},
};
use authority::ports::{Clock, Inclusion};

use crate::{chain::Chain, keeper::Keeper, posted::Posted};

/// Hashes of this many published entries stay in memory below the published size, for proofs against recent
/// heads: 64 bytes each.
const TAIL_KEPT: u64 = 65_536;
/// Most entries that may wait for publication before the ledger refuses more: disk for tiles is missing by then.
pub(crate) const UNPUBLISHED_MAX: u64 = 262_144;

/// Most batches of this process that are remembered until they are published; others are believed by their signature.
const MADE_MAX: usize = 65_536;

/// What a batch's signature says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) first: u64,
    pub(crate) head: Head,
    pub(crate) epoch: u64,
    pub(crate) last: Hash,
}

impl Made {
    /// A batch that leads to this chain.
    pub(crate) fn of(appended: &Appended, chain: &Chain) -> Self {
        Self { first: appended.first, head: appended.head, epoch: chain.epoch, last: chain.last }
    }
}

/// The shared part of an open store.
pub(crate) struct Shared {
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log_key: VerifierKey,
    pub(crate) node_key: VerifierKey,
    pub(crate) tiles: Tiles<Directory>,
    tail: RwLock<Tail>,
    notary: Notary<Anchor>,
    /// What is signed and waits for the anchor.
    pub(crate) keeper: Keeper,
    committed: AtomicU64,
    published: AtomicU64,
    /// What nobody waits for.
    pub(crate) posted: Posted,
    made: Mutex<VecDeque<Made>>,
    /// Why the writer refuses, as long as it does.
    fault: Mutex<Option<String>>,
    /// Whether the last attempt to publish failed.
    unpublishable: AtomicBool,
    /// Whether what was redacted may still stand in the database's own log. Nobody knows after a start.
    to_wipe: AtomicBool,
    /// Whether a search found the index damaged.
    distrusted: AtomicBool,
    /// How often the index was built anew: connections from before read one that is gone.
    index_generation: AtomicU64,
    #[cfg(test)]
    pub(crate) injected: Mutex<Option<crate::writer::faults::Fault>>,
}

impl Shared {
    pub(crate) fn new(place: Place, tail: Tail, notary: Notary<Anchor>, published: u64) -> Self {
        let Place { data_dir, clock, log_key, node_key } = place;
        let tiles = Tiles::new(Directory::new(data_dir.join("log")));
        Self {
            data_dir,
            clock,
            log_key,
            node_key,
            tiles,
            committed: AtomicU64::new(tail.size()),
            published: AtomicU64::new(published),
            tail: RwLock::new(tail),
            notary,
            keeper: Keeper::default(),
            posted: Posted::default(),
            made: Mutex::default(),
            fault: Mutex::new(None),
            unpublishable: AtomicBool::new(false),
            to_wipe: AtomicBool::new(true),
            distrusted: AtomicBool::new(false),
            index_generation: AtomicU64::new(0),
            #[cfg(test)]
            injected: Mutex::default(),
        }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data_dir.join("writ.db")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.data_dir.join("index.db")
    }

    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }

    pub(crate) fn fault(&self) -> Option<String> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn unpublishable(&self) -> bool {
        self.unpublishable.load(Ordering::Relaxed)
    }

    pub(crate) fn set_unpublishable(&self, failing: bool) {
        self.unpublishable.store(failing, Ordering::Relaxed);
    }

    /// Something was redacted: the publisher cuts off the database's own log.
    pub(crate) fn ask_wipe(&self) {
        self.to_wipe.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_wipe(&self) -> bool {
        self.to_wipe.swap(false, Ordering::Relaxed)
    }

    /// A search found the index damaged: the publisher builds it anew.
    pub(crate) fn distrust_index(&self) {
        self.distrusted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_distrust(&self) -> bool {
        self.distrusted.swap(false, Ordering::Relaxed)
    }

    /// The index is another file from now on.
    pub(crate) fn index_renewed(&self) {
        self.index_generation.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn index_generation(&self) -> u64 {
        self.index_generation.load(Ordering::Acquire)
    }

    pub(crate) fn set_fault(&self, fault: Option<String>) {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Takes over what a commit made durable.
    pub(crate) fn extend(&self, nodes: &[(auditlog::tree::Node, auditlog::hash::Hash)], size: u64) {
        self.tail.write().unwrap_or_else(PoisonError::into_inner).extend(nodes);
        self.committed.store(size, Ordering::Release);
    }

    /// Remembers a batch that this process signed and committed.
    pub(crate) fn remember(&self, made: Made) {
        let mut all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MADE_MAX {
            all.push_back(made);
        }
    }

    /// Whether this is a batch of this process, as it was committed: then its signature says nothing that is not known.
    pub(crate) fn is_own(&self, batch: &Made) -> bool {
        let all = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let place = all.partition_point(|made| made.first < batch.first);
        all.get(place) == Some(batch)
    }

    /// Takes over what was published.
    pub(crate) fn advance(&self, published: u64) {
        // Order: who reads the tail's base and this number under the lock finds base <= number.
        self.published.store(published, Ordering::Release);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        while made.front().is_some_and(|made| made.head.size <= published) {
            made.pop_front();
        }
        drop(made);
        let base = published.saturating_sub(TAIL_KEPT);
        self.tail.write().unwrap_or_else(PoisonError::into_inner).advance(base);
    }

    /// Signs a committed head. The checkpoint is anchored when this returns, and may leave the process.
    pub(crate) fn sign(&self, head: Head) -> Result<Vec<u8>, auditlog::Error> {
        let draft = self.draft(head)?;
        // The tail is free again: a commit need not wait for the flush of the anchor.
        self.notary.keep(draft)
    }

    /// Signs a committed head for proofs inside this process. Hand it to the [`Keeper`] when they are answered: nothing that
    /// comes of them leaves before it is anchored. While the anchor fails, this waits for it and fails with it, so that nothing
    /// is begun that could not be handed out.
    pub(crate) fn show(&self, head: Head) -> Result<Draft, auditlog::Error> {
        let draft = self.draft(head)?;
        if self.keeper.fails() {
            self.keep(self.draft(head)?)?;
        }
        Ok(draft)
    }

    /// Anchors a draft, and tells those who wait for it.
    pub(crate) fn keep(&self, draft: Draft) -> Result<(), auditlog::Error> {
        let size = draft.head().size;
        let kept = self.notary.keep(draft).map(drop);
        // Crash here: a head that nobody outside saw, anchored; what was made because of it did not leave.
        tracing::trace!(target: "writ::step", at = "proof.kept");
        self.keeper.tell(size, kept.is_ok());
        kept
    }

    fn draft(&self, head: Head) -> Result<Draft, auditlog::Error> {
        let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner);
        self.notary.draft(head, &Committed::new(&tail, &self.tiles, self.published()))
    }

    /// Proves a committed leaf under a signed checkpoint of `head`, and `head` against a tree of `seen` leaves.
    pub(crate) fn include(&self, leaf: Leaf, seen: u64, head: Head, note: &[u8]) -> Result<Inclusion, auditlog::Error> {
        let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner);
        let reader = Committed::new(&tail, &self.tiles, self.published());
        let proof = prove_inclusion(&reader, leaf.index, head.size)?;
        let consistency = prove_consistency(&reader, seen, head.size)?;
        Ok(Inclusion {
            index: leaf.index,
            leaf: leaf.bytes,
            proof: bytes(&proof),
            checkpoint: String::from_utf8_lossy(note).into_owned(),
            consistency: bytes(&consistency),
        })
    }

    /// The same from memory alone, if that has it.
    pub(crate) fn recent_consistency(&self, old: u64, new: u64) -> Option<Vec<[u8; 32]>> {
        let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner);
        if new > tail.size() {
            return None;
        }
        prove_consistency(&Recent(&tail), old, new).ok().map(|proof| bytes(&proof))
    }

    /// Proves the committed tree of `new` leaves consistent with that of `old` leaves.
    pub(crate) fn consistency(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, auditlog::Error> {
        let tail = self.tail.read().unwrap_or_else(PoisonError::into_inner);
        if new > tail.size() {
            return Err(auditlog::Error::OutsideTree { position: new, size: tail.size() });
        }
        Ok(bytes(&prove_consistency(&Committed::new(&tail, &self.tiles, self.published()), old, new)?))
    }
}

/// What of the tree is in memory.
struct Recent<'a>(&'a Tail);

impl HashReader for Recent<'_> {
    fn hash(&self, node: Node) -> Result<Hash, auditlog::Error> {
        self.0.node(node).ok_or(auditlog::Error::NodeMissing { level: node.level, index: node.index })
    }
}

fn bytes(hashes: &[auditlog::hash::Hash]) -> Vec<[u8; 32]> {
    hashes.iter().map(|hash| *hash.as_bytes()).collect()
}

/// Where a store lives and who it is.
pub(crate) struct Place {
    pub(crate) data_dir: PathBuf,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) log_key: VerifierKey,
    pub(crate) node_key: VerifierKey,
}

/// A committed leaf.
pub(crate) struct Leaf {
    pub(crate) index: u64,
    pub(crate) bytes: Vec<u8>,
}
