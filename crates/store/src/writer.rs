//! The one that writes: commits what it is given as one transaction, then answers. Who gives it what, and when, is the
//! business of [`desk`](crate::desk).
//!
//! A batch gets its indices, its leaves and its tree in the transaction of its state changes, so state and log
//! cannot disagree. Nothing of a batch is answered as done unless its commit returned well *and* the files are
//! still there. After a failed commit it is unknown whether the batch was kept: the writer opens the database
//! anew and looks, and adopts exactly what it finds. It recovers by itself when the cause is gone.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use auditlog::{
    checkpoint::Head,
    port::NoteSigner,
    sequence::{Appended, integrate_hashed, pack},
    tree::Frontier,
};
use authority::ports::{Inclusion, LedgerError};
use domain::Timestamp;
use rusqlite::Connection;
use tokio::sync::oneshot;

use assembly::Batch;

use crate::{
    batch::{Position, Sealed, forget_below, insert_batch, read_position, record_checkpoint, write_position},
    chain::{Chain, sign},
    change::{Prepared, sweep},
    connection::{FileIdentity, open_writer},
    error::{Error, sqlite},
    progress::{store, store_ends},
    shared::{Leaf, Made, Shared, UNPUBLISHED_MAX},
};

/// Between two attempts to open a database that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Between two sweeps of expired evidence.
const SWEEP_AFTER: Duration = Duration::from_secs(10);
/// What the writer is asked to do.
pub(crate) enum Job {
    /// Append and apply.
    Write(Prepared, Reply),
    /// Record a checkpoint that is about to be published; answered when durable.
    Record(Vec<u8>, std::sync::mpsc::SyncSender<Result<(), LedgerError>>),
    /// Drop batches below this size; nobody waits.
    Forget(u64),
    /// Something was posted while the writer dozed.
    Wake,
    /// Answered when everything before this is durable, or has failed.
    Flush(std::sync::mpsc::SyncSender<()>),
    /// Stop when everything before this is done.
    Stop,
}

/// Who waits for a write, and for what.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Nobody.
    Nobody,
    /// Somebody who wants the index.
    Index(oneshot::Sender<Result<u64, LedgerError>>),
    /// Somebody who wants to hear of it, and holds nothing up until then.
    Followed(oneshot::Sender<Result<u64, LedgerError>>),
    /// Somebody who wants a proof, consistent with a tree of this size.
    Proof(u64, oneshot::Sender<Result<Inclusion, LedgerError>>),
}

impl Reply {
    fn fail(self, error: LedgerError) {
        // A receiver that is gone has stopped waiting: nothing to tell it.
        match self {
            Self::Nobody => {}
            Self::Index(waiting) | Self::Followed(waiting) => drop(waiting.send(Err(error))),
            Self::Proof(_, waiting) => drop(waiting.send(Err(error))),
        }
    }
}

/// An open database with the identity of its files.
struct Database {
    connection: Connection,
    files: FileIdentity,
}

/// The writer's own state.
pub(crate) struct Writer {
    database: Option<Database>,
    shared: Arc<Shared>,
    node: String,
    node_signer: Box<dyn NoteSigner>,
    frontier: Frontier,
    chain: Chain,
    /// What the commit with the unknown result would have led to.
    unknown: Option<Step>,
    retried_at: Duration,
    swept_at: Duration,
    /// When there was a batch last, and how long it took.
    busy_at: Duration,
    took: Duration,
}

/// Where a transaction leads once it is committed.
struct Step {
    appended: Option<Appended>,
    chain: Chain,
}

/// The result of applying a batch, before its commit.
struct Applied {
    step: Step,
    /// For each write the index of its first entry, or why it alone was refused.
    results: Vec<Result<u64, LedgerError>>,
    /// The leaf of each write that wants a proof, by position.
    leaves: HashMap<usize, Vec<u8>>,
}

/// What the writer begins with.
pub(crate) struct Start {
    pub(crate) connection: Connection,
    pub(crate) node_signer: Box<dyn NoteSigner>,
    pub(crate) frontier: Frontier,
    pub(crate) chain: Chain,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, start: Start) -> Result<Self, Error> {
        let files = FileIdentity::of(&shared.database())?;
        let now = shared.clock.elapsed();
        Ok(Self {
            database: Some(Database { connection: start.connection, files }),
            node: start.node_signer.verifier().name().to_owned(),
            shared,
            node_signer: start.node_signer,
            frontier: start.frontier,
            chain: start.chain,
            unknown: None,
            retried_at: now,
            swept_at: now,
            busy_at: now,
            took: Duration::MAX,
        })
    }

    /// Commits these together and answers them, or says to each why not.
    pub(crate) fn serve(&mut self, jobs: Vec<Job>) {
        if !self.ready(jobs.is_empty()) {
            let fault = self.shared.fault().unwrap_or_else(|| "the store failed".to_owned());
            return jobs.into_iter().for_each(|job| fail(job, &LedgerError::Unavailable(fault.clone())));
        }
        if jobs.is_empty() {
            return;
        }
        let began = self.shared.clock.elapsed();
        self.commit(jobs);
        self.busy_at = self.shared.clock.elapsed();
        self.took = self.busy_at.saturating_sub(began);
    }

    /// Whether it has a database, as far as it knows.
    pub(crate) fn is_open(&self) -> bool {
        self.database.is_some()
    }

    /// How long it has had nothing to do.
    pub(crate) fn idle_for(&self) -> Duration {
        self.shared.clock.elapsed().saturating_sub(self.busy_at)
    }

    /// How long the last batch took.
    pub(crate) fn took(&self) -> Duration {
        self.took
    }

    #[cfg(test)]
    pub(crate) fn pretend(&mut self, took: Duration) {
        self.took = took;
    }

    /// Whether there is a database to write to; tries to get it back if not. Its files are looked at here when there is
    /// nothing to write; else after the commit, before anybody is answered.
    fn ready(&mut self, idle: bool) -> bool {
        if let Some(database) = &self.database {
            if !idle {
                return true;
            }
            return match database.files.check() {
                Ok(()) => true,
                Err(error) => {
                    self.fail_with(&error);
                    false
                }
            };
        }
        let now = self.shared.clock.elapsed();
        if now.saturating_sub(self.retried_at) < RETRY_AFTER {
            return false;
        }
        self.retried_at = now;
        match self.reopen() {
            Ok(()) => {
                tracing::info!("the ledger can be written again");
                self.shared.set_fault(None);
                true
            }
            Err(error) => {
                self.shared.set_fault(Some(error.brief().to_owned()));
                tracing::debug!(%error, "the ledger still cannot be written");
                false
            }
        }
    }

    fn commit(&mut self, jobs: Vec<Job>) {
        let mut jobs = jobs;
        match self.transact(&mut jobs) {
            Ok(applied) => self.answer(jobs, applied),
            Err(error) => {
                self.fail_with(&error);
                let why = error.brief().to_owned();
                let failed = if self.unknown.is_some() { LedgerError::Uncertain(why) } else { LedgerError::Unavailable(why) };
                jobs.into_iter().for_each(|job| fail(job, &failed));
            }
        }
    }

    /// One transaction for all jobs. On `Ok` it is durable, and nothing can take it back.
    fn transact(&mut self, jobs: &mut [Job]) -> Result<Applied, Error> {
        let Some(database) = self.database.take() else { return Err(Error::Damaged { what: "it is not open" }) };
        let connection = &database.connection;
        // Crash before the commit: nothing happened, nobody was answered.
        run(connection, "BEGIN IMMEDIATE").map_err(sqlite("begin"))?;
        let applied = self.apply(connection, jobs)?;
        // Crash during the commit: SQLite keeps all of it or nothing. Nobody was answered; who asks again is
        // told by the log what was kept.
        self.unknown = Some(Step { appended: applied.step.appended.clone(), chain: applied.step.chain });
        self.finish(connection)?;
        // The commit went to the files that are open. If their names were taken away, nobody will find it again.
        database.files.check()?;
        self.unknown = None;
        self.database = Some(database);
        Ok(applied)
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "the test build fails commits on demand")]
    fn finish(&self, connection: &Connection) -> Result<(), Error> {
        run(connection, "COMMIT").map_err(sqlite("commit"))
    }

    fn apply(&mut self, db: &Connection, jobs: &mut [Job]) -> Result<Applied, Error> {
        let now = self.shared.clock.now();
        let mut batch = Batch::new(self.frontier.size(), self.chain);
        for (position, job) in jobs.iter_mut().enumerate() {
            match job {
                Job::Write(write, reply) => {
                    let wants_leaf = matches!(reply, Reply::Proof(..));
                    let write = mem::replace(write, Prepared { events: Vec::new(), rows: Vec::new() });
                    if write.redacts() {
                        // Not too early: as long as this transaction is open, nobody can cut off the database's own log.
                        self.shared.ask_wipe();
                    }
                    batch.add(db, &self.node, write, now, wants_leaf.then_some(position))?;
                }
                Job::Record(note, _) => record_checkpoint(db, note)?,
                Job::Forget(size) => forget_below(db, *size)?,
                Job::Flush(_) | Job::Wake | Job::Stop => {}
            }
        }
        self.sweep_sometimes(db, now)?;
        let chain = batch.chain;
        let progress = mem::take(&mut batch.progress);
        let appended = if batch.hashes.is_empty() {
            store(db, &progress)?;
            None
        } else {
            let appended = integrate_hashed(&self.frontier, mem::take(&mut batch.hashes))?;
            let packed = pack(batch.leaves.iter().map(Vec::as_slice))?;
            let signature = sign(self.node_signer.as_ref(), &Made::of(&appended, &chain))?;
            let sealed = Sealed { signature, progress: store_ends(db, progress)? };
            insert_batch(db, &appended.to_stored(packed), &chain, &sealed)?;
            write_position(db, appended.head, &chain)?;
            tracing::trace!(target: "writ::step", at = "commit.applied");
            Some(appended)
        };
        let leaf = |(write, leaf): (usize, usize)| Some((write, batch.leaves.get(leaf)?.clone()));
        let leaves = batch.wanted.iter().copied().filter_map(leaf).collect();
        Ok(Applied { step: Step { appended, chain }, results: batch.results, leaves })
    }

    fn sweep_sometimes(&mut self, db: &Connection, now: Timestamp) -> Result<(), Error> {
        let elapsed = self.shared.clock.elapsed();
        if elapsed.saturating_sub(self.swept_at) < SWEEP_AFTER {
            return Ok(());
        }
        self.swept_at = elapsed;
        sweep(db, now)
    }

    /// Takes over what was committed.
    fn adopt(&mut self, step: Step) {
        self.chain = step.chain;
        if let Some(appended) = step.appended {
            // Crash after the commit: all of it is there, and nobody was answered.
            tracing::trace!(target: "writ::step", at = "commit.durable");
            self.shared.remember(Made::of(&appended, &self.chain));
            self.shared.extend(&appended.nodes, appended.head.size);
            self.frontier = appended.frontier;
        }
    }

    fn answer(&mut self, jobs: Vec<Job>, applied: Applied) {
        self.adopt(applied.step);
        let (mut results, mut leaves) = (applied.results.into_iter(), applied.leaves);
        let mut proofs = Vec::new();
        for (position, job) in jobs.into_iter().enumerate() {
            match job {
                Job::Write(_, reply) => {
                    let result = results.next().unwrap_or(Err(LedgerError::Uncertain("the store failed".to_owned())));
                    match (reply, result) {
                        (Reply::Nobody, _) => {}
                        (Reply::Index(waiting) | Reply::Followed(waiting), result) => drop(waiting.send(result)),
                        (Reply::Proof(seen, waiting), Ok(index)) => match leaves.remove(&position) {
                            Some(bytes) => proofs.push(Wanted { leaf: Leaf { index, bytes }, seen, waiting }),
                            None => drop(waiting.send(Err(LedgerError::Uncertain("no entry to prove".to_owned())))),
                        },
                        (Reply::Proof(_, waiting), Err(error)) => drop(waiting.send(Err(error))),
                    }
                }
                Job::Record(_, waiting) => drop(waiting.send(Ok(()))),
                Job::Flush(waiting) => drop(waiting.send(())),
                Job::Forget(_) | Job::Wake | Job::Stop => {}
            }
        }
        // Those who only wait for durability have their answer by now.
        if !proofs.is_empty() {
            self.prove(proofs);
        }
    }

    fn prove(&self, proofs: Vec<Wanted>) {
        let head = Head { size: self.frontier.size(), root: self.frontier.root() };
        let shown = self.shared.show(head);
        // Crash here: a signed head that nobody outside saw, anchored or not; its entries are committed.
        tracing::trace!(target: "writ::step", at = "proof.signed");
        if let Err(error) = &shown {
            tracing::error!(%error, "no checkpoint could be signed");
        }
        for Wanted { leaf, seen, waiting } in proofs {
            let included = shown.as_ref().ok().and_then(|draft| {
                let included = self.shared.include(leaf, seen, head, draft.note());
                included.inspect_err(|error| tracing::error!(%error, "an entry could not be proved")).ok()
            });
            let failed = || LedgerError::Uncertain("the entry was logged, but its proof failed".to_owned());
            drop(waiting.send(included.ok_or_else(failed)));
        }
        if let Ok(draft) = shown {
            self.shared.keeper.put(draft);
        }
    }

    /// Gives up the connection: what it thinks it knows is not to be trusted after an error.
    fn fail_with(&mut self, error: &Error) {
        tracing::error!(error = error as &dyn std::error::Error, "the ledger cannot be written");
        self.shared.set_fault(Some(error.brief().to_owned()));
        self.database = None;
        self.retried_at = self.shared.clock.elapsed();
    }

    /// Opens the database again and finds out how the last commit ended.
    fn reopen(&mut self) -> Result<(), Error> {
        let path = self.shared.database();
        // Opening would create an empty database in place of one that was deleted.
        if !path.exists() {
            return Err(Error::FileReplaced { path });
        }
        let connection = open_writer(&path)?;
        // After a failed flush the WAL may be in memory only, though it reads well: write everything into the
        // database file and flush that, before anything is built upon it.
        let busy: i64 = connection
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
            .map_err(sqlite("write back its log"))?;
        if busy != 0 {
            return Err(Error::Busy);
        }
        let Position { head, chain, .. } = read_position(&connection)?.ok_or(Error::FileReplaced { path: path.clone() })?;
        let known = Head { size: self.frontier.size(), root: self.frontier.root() };
        if (head, chain) != (known, self.chain) {
            let led_here = |step: &Step| step.chain == chain && step.appended.as_ref().is_some_and(|a| a.head == head);
            match self.unknown.take().filter(led_here) {
                // The commit that was reported as failed was kept: its entries are in the log, unanswered.
                Some(step) => self.adopt(step),
                None => return Err(Error::FileReplaced { path }),
            }
        }
        self.unknown = None;
        // The WAL exists once something was written: the position as it is.
        let head = Head { size: self.frontier.size(), root: self.frontier.root() };
        write_position(&connection, head, &self.chain)?;
        let files = FileIdentity::of(&path)?;
        self.database = Some(Database { connection, files });
        Ok(())
    }

    /// Refuses before anything is queued that could not be published any more.
    pub(crate) fn overloaded(shared: &Shared) -> bool {
        shared.committed().saturating_sub(shared.published()) >= UNPUBLISHED_MAX
    }
}

/// Runs a statement that is prepared once for all batches.
fn run(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// A committed leaf whose proof somebody waits for.
struct Wanted {
    leaf: Leaf,
    seen: u64,
    waiting: oneshot::Sender<Result<Inclusion, LedgerError>>,
}

fn fail(job: Job, error: &LedgerError) {
    match job {
        Job::Write(write, Reply::Nobody) => tracing::warn!(entries = write.events.len(), %error, "posted entries were lost"),
        Job::Write(_, reply) => reply.fail(error.clone()),
        Job::Record(_, waiting) => drop(waiting.send(Err(error.clone()))),
        Job::Flush(waiting) => drop(waiting.send(())),
        Job::Forget(_) | Job::Wake | Job::Stop => {}
    }
}

mod assembly;
#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
mod tests;
