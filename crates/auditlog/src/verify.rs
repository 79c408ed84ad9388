//! Checks a whole log directory offline: each bundle, each tile, the root, the signatures, and on request that
//! it extends an older checkpoint. Needs a trust policy; no network, no database, no word from the log itself.

use crate::{
    Error,
    checkpoint::{Checkpoint, Head},
    edge::{Edge, read_or_full},
    hash::Hash,
    port::LogFiles,
    tile::{CHECKPOINT_PATH, Entries, Resource, TILE_WIDTH},
    trust::TrustPolicy,
};

/// What the verifier found.
#[derive(Debug)]
pub enum Verdict {
    /// Everything holds, and the quorum of witnesses saw it.
    Valid(Report),
    /// Everything holds, but too few witnesses cosigned.
    Unwitnessed(Report),
    /// Something does not hold.
    Invalid(Finding),
}

/// A log that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The log.
    pub origin: String,
    /// Its size and root.
    pub head: Head,
    /// Trusted witnesses that cosigned, with the time in seconds since 1970.
    pub cosignatures: Vec<(String, u64)>,
    /// The older checkpoint that this log was shown to extend.
    pub extends: Option<Head>,
}

/// The first thing that does not hold.
#[derive(Debug)]
pub struct Finding {
    /// Path inside the log directory.
    pub file: String,
    /// Entry at which it shows.
    pub index: Option<u64>,
    /// What is wrong.
    pub why: Flaw,
}

/// What is wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Flaw {
    /// The file is not there.
    #[error("the file is missing")]
    Missing,
    /// The file does not parse or its signatures do not hold.
    #[error(transparent)]
    Unsound(Error),
    /// A bundle has more or fewer entries than the tree.
    #[error("the bundle has a wrong number of entries")]
    EntryCount,
    /// An entry does not hash to what the tile says.
    #[error("the entry does not hash to what `{tile}` says")]
    EntryDiffers {
        /// The tile.
        tile: String,
    },
    /// A tile is not what the tiles below it give.
    #[error("the tile differs from what the entries give")]
    TileDiffers,
    /// The entries do not give the signed root.
    #[error("the entries give the root {computed}, the checkpoint is signed for {signed}")]
    RootDiffers {
        /// Root over the entries.
        computed: Hash,
        /// Root in the checkpoint.
        signed: Hash,
    },
    /// The log is smaller than it was.
    #[error("the log has {size} entries, but an earlier checkpoint was signed for {old}")]
    Shrunk {
        /// Size now.
        size: u64,
        /// Size before.
        old: u64,
    },
    /// The log does not extend the older checkpoint.
    #[error("the first {old} entries are not those of the earlier checkpoint: history was rewritten")]
    Rewritten {
        /// Size before.
        old: u64,
    },
}

/// What else the verifier shall do.
pub struct Options<'a> {
    /// A signed checkpoint from before that the log must extend.
    pub older: Option<&'a [u8]>,
    /// Called with each entry in order, before the verdict on the whole is known.
    pub entry: &'a mut dyn FnMut(u64, &[u8]),
    /// Called now and then with entries done and entries in all.
    pub progress: &'a mut dyn FnMut(u64, u64),
}

/// Verifies a log directory.
///
/// # Errors
/// Only if the files cannot be read; whatever is wrong with them is a [`Verdict::Invalid`].
pub fn verify(files: &impl LogFiles, trust: &TrustPolicy, options: Options<'_>) -> Result<Verdict, Error> {
    match walk(files, trust, options) {
        Ok((report, true)) => Ok(Verdict::Valid(report)),
        Ok((report, false)) => Ok(Verdict::Unwitnessed(report)),
        Err(Stop::Found(finding)) => Ok(Verdict::Invalid(*finding)),
        Err(Stop::Environment(error)) => Err(error),
    }
}

enum Stop {
    Found(Box<Finding>),
    Environment(Error),
}

fn found(file: impl Into<String>, index: Option<u64>, why: Flaw) -> Stop {
    Stop::Found(Box::new(Finding { file: file.into(), index, why }))
}

/// Tells damage of the log from trouble of the machine.
fn classify(file: &str, error: Error) -> Stop {
    match error {
        Error::Io { .. } => Stop::Environment(error),
        Error::FileMissing { path } => found(path, None, Flaw::Missing),
        other => found(file, None, Flaw::Unsound(other)),
    }
}

fn walk(files: &impl LogFiles, trust: &TrustPolicy, options: Options<'_>) -> Result<(Report, bool), Stop> {
    let note = files.read(CHECKPOINT_PATH).map_err(|e| classify(CHECKPOINT_PATH, e))?;
    let note = note.ok_or_else(|| found(CHECKPOINT_PATH, None, Flaw::Missing))?;
    let trusted = trust.check(&note).map_err(|e| classify(CHECKPOINT_PATH, e))?;
    let head = trusted.checkpoint.head;
    let older = match options.older {
        Some(note) => Some(older_head(trust, note, &trusted.checkpoint)?),
        None => None,
    };

    let mut edge = Edge::empty();
    let mut at_older = None;
    for n in 0..head.size.div_ceil(TILE_WIDTH) {
        let end = head.size.min((n + 1) * TILE_WIDTH);
        let bundle = Resource::bundle_of(end - 1, head.size);
        let bundle = bundle.ok_or_else(|| found(CHECKPOINT_PATH, None, Flaw::EntryCount))?;
        let (path, bytes) = read_or_full(files, bundle).map_err(|e| classify(&bundle.path(), e))?;
        let partial_of_full = path != bundle.path();
        let mut entries = Entries::new(&bytes);
        for (index, entry) in (n * TILE_WIDTH..end).zip(entries.by_ref()) {
            if older.is_some_and(|old| old.size == index) {
                at_older = Some(edge.head().map_err(|e| classify(&path, e))?);
            }
            let entry = entry.map_err(|e| found(&path, Some(index), Flaw::Unsound(e)))?;
            push_and_compare(files, &mut edge, entry, &path)?;
            (options.entry)(index, entry);
        }
        let surplus = entries.next().is_some() && !partial_of_full;
        if edge.size() != end || surplus {
            return Err(found(&path, Some(edge.size()), Flaw::EntryCount));
        }
        (options.progress)(end, head.size);
    }
    for (resource, expected) in edge.partials() {
        compare(files, resource, &expected)?;
    }
    let computed = edge.head().map_err(|e| classify(CHECKPOINT_PATH, e))?;
    if computed != head {
        let why = Flaw::RootDiffers { computed: computed.root, signed: head.root };
        return Err(found(CHECKPOINT_PATH, None, why));
    }
    if let Some(old) = older
        && at_older.unwrap_or(computed) != old
    {
        return Err(found(CHECKPOINT_PATH, None, Flaw::Rewritten { old: old.size }));
    }
    let origin = trusted.checkpoint.origin;
    Ok((Report { origin, head, cosignatures: trusted.cosignatures, extends: older }, trusted.witnessed))
}

fn older_head(trust: &TrustPolicy, note: &[u8], now: &Checkpoint) -> Result<Head, Stop> {
    let old = trust.check(note).map_err(|e| classify("the earlier checkpoint", e))?.checkpoint;
    if old.origin != now.origin {
        let error = Error::OriginDiffers { found: old.origin, expected: now.origin.clone() };
        return Err(found("the earlier checkpoint", None, Flaw::Unsound(error)));
    }
    if old.head.size > now.head.size {
        let why = Flaw::Shrunk { size: now.head.size, old: old.head.size };
        return Err(found(CHECKPOINT_PATH, None, why));
    }
    Ok(old.head)
}

fn push_and_compare(files: &impl LogFiles, edge: &mut Edge, entry: &[u8], bundle: &str) -> Result<(), Stop> {
    let mut stop = None;
    let pushed = edge.push(entry, Hash::of_leaf(entry), |resource, expected| {
        if stop.is_none() {
            stop = compare(files, resource, expected).err();
        }
        Ok(())
    });
    match stop {
        Some(stop) => Err(stop),
        None => pushed.map_err(|e| classify(bundle, e)),
    }
}

/// Compares a tile file with the hashes that the entries give. Bundles are the source: nothing to compare.
fn compare(files: &impl LogFiles, resource: Resource, expected: &[u8]) -> Result<(), Stop> {
    let Resource::Tile { level, n, .. } = resource else { return Ok(()) };
    let (path, bytes) = read_or_full(files, resource).map_err(|e| classify(&resource.path(), e))?;
    // A full tile may answer for a partial one that was removed; then its beginning must agree.
    let cut = if path == resource.path() { bytes.as_slice() } else { bytes.get(..expected.len()).unwrap_or(&[]) };
    if cut == expected {
        return Ok(());
    }
    if level > 0 || cut.len() != expected.len() {
        return Err(found(path, None, Flaw::TileDiffers));
    }
    let differs = cut.chunks(32).zip(expected.chunks(32)).position(|(a, b)| a != b).unwrap_or(0);
    let index = n * TILE_WIDTH + differs as u64;
    let bundle = Resource::Bundle { n, width: resource.width() };
    Err(found(bundle.path(), Some(index), Flaw::EntryDiffers { tile: path }))
}
