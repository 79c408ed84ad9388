//! The one thread that writes: takes what waits, commits it as one transaction, then answers.
//!
//! A batch gets its indices, its leaves and its tree in the transaction of its state changes, so state and log
//! cannot disagree. Nothing of a batch is answered as done unless its commit returned well *and* the files are
//! still there. After a failed commit it is unknown whether the batch was kept: the writer opens the database
//! anew and looks, and adopts exactly what it finds. It recovers by itself when the cause is gone.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

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
    batch::{Position, forget_below, insert_batch, read_position, record_checkpoint, write_position},
    chain::{Chain, sign},
    change::{Prepared, store_progress, sweep},
    connection::{FileIdentity, open_writer},
    error::{Error, sqlite},
    shared::{Leaf, Made, Shared, UNPUBLISHED_MAX},
};

/// Most writes in one batch.
const BATCH_WRITES_MAX: usize = 512;
/// About how many bytes of events one batch takes.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Between two attempts to open a database that failed.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Between two sweeps of expired evidence.
const SWEEP_AFTER: Duration = Duration::from_secs(10);
/// How long the writer sleeps at most when nothing comes.
const IDLE: Duration = Duration::from_secs(1);
/// How long posted entries wait at most for a write that somebody waits for, to share its transaction and flush: the
/// outcome of one call goes with the decision of the next.
const LINGER: Duration = Duration::from_millis(5);

/// A batch with so many waiting writes says that more are on their way. What a batch costs, it costs once (pages, a
/// signature, a flush): then it pays to let them come, for a time that grows with their number.
const GATHER_FROM: u32 = 4;
const GATHER_EACH: Duration = Duration::from_micros(5);
const GATHER_MAX: Duration = Duration::from_micros(150);

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
    queue: Receiver<Job>,
    node: String,
    node_signer: Box<dyn NoteSigner>,
    frontier: Frontier,
    chain: Chain,
    /// What the commit with the unknown result would have led to.
    unknown: Option<Step>,
    retried_at: Duration,
    swept_at: Duration,
    /// How many writes of the last batch somebody waited for.
    awaited: u32,
    /// When there was a batch last.
    busy_at: Duration,
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
    pub(crate) queue: Receiver<Job>,
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
            queue: start.queue,
            node_signer: start.node_signer,
            frontier: start.frontier,
            chain: start.chain,
            unknown: None,
            retried_at: now,
            swept_at: now,
            awaited: 0,
            busy_at: now,
        })
    }

    /// Serves the queue until it is told to stop or nobody can ask any more.
    pub(crate) fn run(mut self) {
        loop {
            let (first, gone) = self.wait();
            if first.is_some() {
                self.gather();
            }
            let (jobs, stop) = self.collect(first, gone);
            let awaited = jobs.iter().filter(|job| matches!(job, Job::Write(_, Reply::Index(_) | Reply::Proof(..)))).count();
            self.awaited = u32::try_from(awaited).unwrap_or(u32::MAX);
            if self.ready(jobs.is_empty()) {
                if !jobs.is_empty() {
                    self.commit(jobs);
                }
            } else {
                let fault = self.shared.fault().unwrap_or_else(|| "the store failed".to_owned());
                jobs.into_iter().for_each(|job| fail(job, &LedgerError::Unavailable(fault.clone())));
            }
            if stop {
                return;
            }
        }
    }

    /// The next job, or none for now, and whether nobody can ask any more. Soon after a batch it looks often, for what is
    /// posted meanwhile; after a while without one it dozes, and is woken.
    fn wait(&mut self) -> (Option<Job>, bool) {
        let now = self.shared.clock.elapsed();
        let dozes = now.saturating_sub(self.busy_at) >= IDLE && self.shared.posted.doze();
        let next = self.queue.recv_timeout(if dozes { IDLE } else { LINGER });
        self.shared.posted.wake();
        match next {
            Ok(job) => (Some(job), false),
            Err(RecvTimeoutError::Timeout) => (None, false),
            Err(RecvTimeoutError::Disconnected) => (None, true),
        }
    }

    /// Lets writes come that are on their way. Asleep, not waiting for them: to wake for each would cost what it saves.
    #[expect(clippy::disallowed_methods, reason = "this thread serves nobody but those who gain by it")]
    fn gather(&self) {
        if self.awaited >= GATHER_FROM {
            std::thread::sleep(GATHER_EACH.saturating_mul(self.awaited).min(GATHER_MAX));
        }
    }

    /// Takes what waits, up to the limits of a batch, and before it what was posted.
    fn collect(&mut self, first: Option<Job>, gone: bool) -> (Vec<Job>, bool) {
        let (mut jobs, mut weight, mut next, mut stop) = (Vec::new(), 0, first, gone);
        while let Some(job) = next {
            stop |= matches!(job, Job::Stop);
            weight += if let Job::Write(write, _) = &job { write.weight() } else { 0 };
            if !matches!(job, Job::Stop | Job::Wake) {
                jobs.push(job);
            }
            if stop || jobs.len() >= BATCH_WRITES_MAX || weight >= BATCH_BYTES_MAX {
                break;
            }
            next = self.queue.try_recv().ok();
        }
        let posted = if stop { self.shared.posted.close() } else { self.shared.posted.take() };
        let mut posted: Vec<Job> = posted.into_iter().map(|(write, reply)| Job::Write(write, reply)).collect();
        if !posted.is_empty() {
            posted.append(&mut jobs);
            jobs = posted;
        }
        if !jobs.is_empty() {
            self.busy_at = self.shared.clock.elapsed();
        }
        (jobs, stop)
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
                let failed = LedgerError::Unavailable(error.brief().to_owned());
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
                    batch.add(db, &self.node, write, now, wants_leaf.then_some(position))?;
                }
                Job::Record(note, _) => record_checkpoint(db, note)?,
                Job::Forget(size) => forget_below(db, *size)?,
                Job::Flush(_) | Job::Wake | Job::Stop => {}
            }
        }
        store_progress(db, &batch.progress)?;
        self.sweep_sometimes(db, now)?;
        let chain = batch.chain;
        let appended = if batch.hashes.is_empty() {
            None
        } else {
            let appended = integrate_hashed(&self.frontier, mem::take(&mut batch.hashes))?;
            let packed = pack(batch.leaves.iter().map(Vec::as_slice))?;
            let signature = sign(self.node_signer.as_ref(), &Made::of(&appended, &chain))?;
            insert_batch(db, &appended.to_stored(packed), &chain, &signature)?;
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
                    let result = results.next().unwrap_or(Err(LedgerError::Unavailable("the store failed".to_owned())));
                    match (reply, result) {
                        (Reply::Nobody, _) => {}
                        (Reply::Index(waiting) | Reply::Followed(waiting), result) => drop(waiting.send(result)),
                        (Reply::Proof(seen, waiting), Ok(index)) => match leaves.remove(&position) {
                            Some(bytes) => proofs.push(Wanted { leaf: Leaf { index, bytes }, seen, waiting }),
                            None => drop(waiting.send(Err(LedgerError::Unavailable("no entry to prove".to_owned())))),
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
            let failed = || LedgerError::Unavailable("the entry was logged, but its proof failed".to_owned());
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
