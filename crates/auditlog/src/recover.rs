//! What a start does: bring database, files and anchor together, repair what a crash left, refuse what no
//! crash can explain. Reads the right edge of the published tree and the batches behind it, never the log.

use crate::{
    Error,
    checkpoint::{Checkpoint, Head},
    edge::Edge,
    note::VerifierKey,
    port::{BatchLedger, LogFiles},
    proof::root_at,
    reader::{Committed, Tiles},
    sequence::replay,
    tile::CHECKPOINT_PATH,
    tree::{Frontier, Tail},
};

/// Batches are replayed in portions of this many entries.
const PORTION_LEAVES: u64 = 16_384;

/// A log that is ready to go on.
#[derive(Debug)]
pub struct Recovered {
    /// Where the publisher goes on.
    pub edge: Edge,
    /// Where the writer goes on.
    pub frontier: Frontier,
    /// The hashes between the two.
    pub tail: Tail,
    /// The newest head that was ever signed, for the notary.
    pub newest: Head,
}

/// Finds where the log stands.
///
/// `recorded` is the newest checkpoint that the database holds, `anchored` the newest head of the anchor.
///
/// # Errors
/// [`Error::DatabaseBehind`] or [`Error::Fork`] if something newer or different was signed before;
/// [`Error::FileMissing`], [`Error::FileCorrupt`], [`Error::BatchGap`], [`Error::BatchChanged`] for damage.
pub fn recover(
    files: &impl LogFiles,
    ledger: &mut impl BatchLedger,
    key: &VerifierKey,
    recorded: Option<&[u8]>,
    anchored: Head,
) -> Result<Recovered, Error> {
    let published = match recorded {
        Some(note) => Checkpoint::open(note, key)?.head,
        None => Head::empty(),
    };
    let edge = Edge::load(files, published)?;
    repair_checkpoint(files, key, recorded, published)?;

    let mut frontier = edge.frontier()?;
    let mut tail = Tail::new(frontier.clone());
    loop {
        let batches = ledger.batches_from(frontier.size(), PORTION_LEAVES)?;
        if batches.is_empty() {
            break;
        }
        for batch in batches {
            let appended = replay(&frontier, &batch)?;
            tail.extend(&appended.nodes);
            frontier = appended.frontier;
        }
    }
    refuse_older_database(&tail, files, published, anchored)?;
    // A crash may have come between publishing and forgetting.
    ledger.forget_below(published.size)?;
    let newest = if anchored.size > published.size { anchored } else { published };
    Ok(Recovered { edge, frontier, tail, newest })
}

/// The file `checkpoint` may be one step behind the database, never ahead of it.
fn repair_checkpoint(files: &impl LogFiles, key: &VerifierKey, recorded: Option<&[u8]>, published: Head) -> Result<(), Error> {
    let on_disk = match files.read(CHECKPOINT_PATH)? {
        Some(note) => {
            let opened = Checkpoint::open(&note, key);
            Some(opened.map_err(|_| Error::FileCorrupt { path: CHECKPOINT_PATH.to_owned() })?.head)
        }
        None => None,
    };
    match (on_disk, recorded) {
        (Some(found), _) if found.size > published.size => {
            Err(Error::DatabaseBehind { database: published.size, signed: found.size })
        }
        (Some(found), _) if found.size == published.size && found != published => {
            Err(Error::Fork { signed: found, proposed: published })
        }
        (Some(found), _) if found == published => Ok(()),
        (_, Some(note)) => files.replace_checkpoint(note),
        (_, None) => Ok(()),
    }
}

fn refuse_older_database(tail: &Tail, files: &impl LogFiles, published: Head, anchored: Head) -> Result<(), Error> {
    if anchored.size > tail.size() {
        return Err(Error::DatabaseBehind { database: tail.size(), signed: anchored.size });
    }
    let tiles = Tiles::new(files);
    let root = root_at(&Committed::new(tail, &tiles, published.size), anchored.size)?;
    if root == anchored.root {
        Ok(())
    } else {
        Err(Error::Fork { signed: anchored, proposed: Head { size: anchored.size, root } })
    }
}
