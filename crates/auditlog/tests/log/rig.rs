//! A whole log in a temporary directory: real files and anchor, batches in memory, and a switch that makes
//! the n-th durable step fail, before or after it took effect.

use std::{cell::Cell, path::PathBuf, rc::Rc};

use auditlog::{
    Error,
    anchor::Anchor,
    checkpoint::{Head, Notary, sign_empty},
    directory::Directory,
    note::{Ed25519Signer, VerifierKey},
    port::{BatchLedger, HashReader, HeadKeeper, LogFiles, NoteSigner},
    publish::Publisher,
    reader::{Committed, Tiles},
    recover::{Recovered, recover},
    sequence::{StoredBatch, integrate, pack},
    tree::{Frontier, Tail},
    trust::TrustPolicy,
    verify::{Options, Report, Verdict, verify},
};
use tempfile::TempDir;

pub(crate) const ORIGIN: &str = "writ.example/log";

pub(crate) fn signer() -> Ed25519Signer {
    Ed25519Signer::from_seed(ORIGIN, &zeroize::Zeroizing::new([42; 32])).unwrap()
}

pub(crate) fn key() -> VerifierKey {
    signer().verifier().clone()
}

pub(crate) fn entry(i: u64) -> Vec<u8> {
    format!("entry {i} {}", "x".repeat(usize::try_from(i % 90).unwrap())).into_bytes()
}

/// How a step goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It had no effect.
    Failed,
    /// It took effect, but its caller was told that it failed.
    FailedButPersisted,
}

/// Counts durable steps and fails one of them.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    pub(crate) count: Rc<Cell<usize>>,
    pub(crate) at: Rc<Cell<Option<(usize, Fault)>>>,
}

impl Faults {
    pub(crate) fn step<T>(&self, effect: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let number = self.count.replace(self.count.get() + 1);
        let failure = || Error::Ledger { action: "survive", source: "injected".into() };
        match self.at.get() {
            Some((at, Fault::Failed)) if at == number => Err(failure()),
            Some((at, Fault::FailedButPersisted)) if at == number => effect().and_then(|_| Err(failure())),
            _ => effect(),
        }
    }
}

/// A directory whose every file operation is a step.
pub(crate) struct FaultyFiles(pub(crate) Directory, pub(crate) Faults);

impl LogFiles for FaultyFiles {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        self.0.read(path)
    }
    fn write(&self, files: &[(String, Vec<u8>)]) -> Result<(), Error> {
        files.iter().try_for_each(|file| self.1.step(|| self.0.write(std::slice::from_ref(file))))
    }
    fn replace_checkpoint(&self, note: &[u8]) -> Result<(), Error> {
        self.1.step(|| self.0.replace_checkpoint(note))
    }
    fn remove_partials(&self, directory: &str) -> Result<(), Error> {
        self.1.step(|| self.0.remove_partials(directory))
    }
}

/// The database, as far as the log sees it.
#[derive(Clone, Default)]
pub(crate) struct Rows {
    pub(crate) batches: Vec<StoredBatch>,
    pub(crate) recorded: Option<Vec<u8>>,
    pub(crate) faults: Faults,
}

impl BatchLedger for Rows {
    fn batches_from(&mut self, first: u64, _: u64) -> Result<Vec<StoredBatch>, Error> {
        Ok(self.batches.iter().filter(|b| b.end() > first).cloned().collect())
    }
    fn record_checkpoint(&mut self, _: Head, note: &[u8]) -> Result<(), Error> {
        self.faults.step(|| {
            self.recorded = Some(note.to_vec());
            Ok(())
        })
    }
    fn forget_below(&mut self, size: u64) -> Result<(), Error> {
        self.faults.step(|| {
            self.batches.retain(|b| b.end() > size);
            Ok(())
        })
    }
}

pub(crate) struct FaultyAnchor(Anchor, Faults);

impl HeadKeeper for FaultyAnchor {
    fn keep(&mut self, head: Head, note: &[u8]) -> Result<(), Error> {
        self.1.step(|| self.0.keep(head, note))
    }
}

fn sign(notary: &Notary<FaultyAnchor>, head: Head, reader: &impl HashReader) -> Result<Vec<u8>, Error> {
    notary.keep(notary.draft(head, reader)?)
}

/// What survives a crash.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) rows: Rows,
    /// Every checkpoint that ever left the process.
    pub(crate) seen: Vec<Vec<u8>>,
}

/// What a crash destroys.
pub(crate) struct Running {
    pub(crate) frontier: Frontier,
    pub(crate) tail: Tail,
    pub(crate) publisher: Publisher,
    pub(crate) notary: Notary<FaultyAnchor>,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { dir: TempDir::new().unwrap(), rows: Rows::default(), seen: Vec::new() };
        let empty = sign_empty(&signer()).unwrap();
        Anchor::create(&world.anchor_path(), &empty).unwrap();
        world.directory().replace_checkpoint(&empty).unwrap();
        world
    }

    pub(crate) fn anchor_path(&self) -> PathBuf {
        self.dir.path().join("anchor")
    }

    pub(crate) fn directory(&self) -> Directory {
        Directory::new(self.dir.path().join("log"))
    }

    pub(crate) fn files(&self) -> FaultyFiles {
        FaultyFiles(self.directory(), self.rows.faults.clone())
    }

    pub(crate) fn start(&mut self) -> Result<Running, Error> {
        let (anchor, anchored) = Anchor::open(&self.anchor_path(), &key())?.unwrap();
        let recorded = self.rows.recorded.clone();
        let files = self.files();
        let Recovered { edge, frontier, tail, newest } = recover(&files, &mut self.rows, &key(), recorded.as_deref(), anchored)?;
        let keeper = FaultyAnchor(anchor, self.rows.faults.clone());
        let notary = Notary::new(Box::new(signer()), keeper, newest);
        Ok(Running { frontier, tail, publisher: Publisher::new(edge), notary })
    }

    /// Commits a batch; on `Ok` its entries are acknowledged.
    pub(crate) fn append(&mut self, run: &mut Running, entries: &[Vec<u8>]) -> Result<(), Error> {
        let packed = pack(entries.iter().map(Vec::as_slice))?;
        let appended = integrate(&run.frontier, &packed)?;
        let row = appended.to_stored(packed);
        let faults = self.rows.faults.clone();
        faults.step(|| {
            self.rows.batches.push(row);
            Ok(())
        })?;
        run.tail.extend(&appended.nodes);
        run.frontier = appended.frontier;
        Ok(())
    }

    /// Signs the committed head without publishing it, as a token signer asks for.
    pub(crate) fn sign_now(&mut self, run: &mut Running) -> Result<Vec<u8>, Error> {
        let head = Head { size: run.frontier.size(), root: run.frontier.root() };
        let tiles = Tiles::new(self.directory());
        let note = sign(&run.notary, head, &Committed::new(&run.tail, &tiles, run.publisher.size()))?;
        self.seen.push(note.clone());
        Ok(note)
    }

    pub(crate) fn publish(&mut self, run: &mut Running) -> Result<(), Error> {
        let files = self.files();
        let tiles = Tiles::new(self.directory());
        let Running { tail, publisher, notary, .. } = run;
        let published = publisher.size();
        while let Some(round) =
            publisher.publish(&files, &mut self.rows, |head| sign(notary, head, &Committed::new(tail, &tiles, published)))?
        {
            self.seen.push(round.note);
        }
        Ok(())
    }

    /// Starts on what is left, publishes it, verifies everything, and checks that the log begins with
    /// `acknowledged` and extends every checkpoint that anybody saw.
    pub(crate) fn check_log(&mut self, acknowledged: &[Vec<u8>]) -> Report {
        self.rows.faults.at.set(None);
        let mut run = self.start().unwrap();
        self.publish(&mut run).unwrap();
        let (report, entries) = self.verify(None);
        assert!(entries.starts_with(acknowledged), "an acknowledged entry is gone");
        for note in self.seen.clone() {
            self.verify(Some(&note));
        }
        report
    }

    pub(crate) fn verify(&self, older: Option<&[u8]>) -> (Report, Vec<Vec<u8>>) {
        let mut entries = Vec::new();
        match verify_with(&self.directory(), older, &mut |_, entry| entries.push(entry.to_vec())) {
            Verdict::Valid(report) => (report, entries),
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn note_of(directory: &Directory) -> Vec<u8> {
    directory.read("checkpoint").unwrap().unwrap()
}

pub(crate) fn verify_with(files: &Directory, older: Option<&[u8]>, entry: &mut dyn FnMut(u64, &[u8])) -> Verdict {
    let trust = TrustPolicy::of_log(key());
    verify(files, &trust, Options { older, entry, progress: &mut |_, _| {} }).unwrap()
}

/// A published log of `n` entries.
pub(crate) fn published(n: u64) -> World {
    let mut world = World::new();
    let mut run = world.start().unwrap();
    let entries: Vec<_> = (0..n).map(entry).collect();
    for batch in entries.chunks(100) {
        world.append(&mut run, batch).unwrap();
    }
    world.publish(&mut run).unwrap();
    world
}
