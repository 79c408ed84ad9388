//! Who has the writer, and when: its thread, which takes what waits, or a caller who is alone and commits for itself.
//! Decides nothing about what is committed, nor how.
//!
//! Handing a write to another thread and back costs two wake-ups, as much as the commit itself where a flush is quick
//! (memory, or a disk with a protected cache). A caller who is alone gains nothing by it; as soon as there are two, they
//! share a batch.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use authority::ports::LedgerError;

use crate::{
    change::Prepared,
    shared::Shared,
    writer::{Job, Reply, Writer},
};

/// Most writes in one batch.
const BATCH_WRITES_MAX: usize = 512;
/// About how many bytes of events one batch takes.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// How long the thread sleeps at most when nothing comes.
const IDLE: Duration = Duration::from_secs(1);
/// How long posted entries wait at most for a write that somebody waits for, to share its transaction and flush: the
/// outcome of one call goes with the decision of the next.
const LINGER: Duration = Duration::from_millis(5);

/// A batch with so many waiting writes says that more are on their way. What a batch costs, it costs once (pages, a
/// signature, a flush): then it pays to let them come, for a time that grows with their number.
const GATHER_FROM: usize = 4;
const GATHER_EACH: Duration = Duration::from_micros(5);
const GATHER_MAX: Duration = Duration::from_micros(150);

/// A caller only commits for itself where the last commit took no longer: it holds up its own worker for as long.
const QUICK_MAX: Duration = Duration::from_micros(200);

/// See the module.
pub(crate) struct Desk {
    /// None once it stopped: nothing is written any more, by nobody.
    writer: Mutex<Option<Writer>>,
    /// Callers who want something committed at this moment.
    callers: AtomicUsize,
    /// How many writes of the thread's last batch somebody waited for.
    awaited: AtomicUsize,
}

/// A caller's visit to the desk, given up when dropped.
pub(crate) struct Visit<'a>(&'a Desk);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Desk {
    pub(crate) fn new(writer: Writer) -> Self {
        Self { writer: Mutex::new(Some(writer)), callers: AtomicUsize::new(0), awaited: AtomicUsize::new(0) }
    }

    /// Announces a caller.
    pub(crate) fn enter(&self) -> Visit<'_> {
        self.callers.fetch_add(1, Ordering::Relaxed);
        Visit(self)
    }

    /// As if the last commit had taken so long.
    #[cfg(test)]
    pub(crate) fn pretend(&self, took: Duration) {
        if let Some(writer) = self.held().as_mut() {
            writer.pretend(took);
        }
    }

    /// The thread of the writer: serves the queue until it is told to stop or nobody can ask any more.
    pub(crate) fn run(&self, queue: &Receiver<Job>, shared: &Shared) {
        loop {
            let (first, gone) = self.wait(queue, shared);
            if first.is_some() {
                gather(self.awaited.load(Ordering::Relaxed));
            }
            let mut held = self.held();
            let Some(writer) = held.as_mut() else { return };
            let (jobs, stop) = collect(queue, shared, first, gone);
            if !jobs.is_empty() {
                self.awaited.store(jobs.iter().filter(|job| is_awaited(job)).count(), Ordering::Relaxed);
            }
            writer.serve(jobs);
            if stop {
                *held = None;
                return;
            }
        }
    }

    /// The next job, or none for now, and whether nobody can ask any more. Soon after a batch it looks often, for what is
    /// posted meanwhile; after a while without one it dozes, and is woken.
    fn wait(&self, queue: &Receiver<Job>, shared: &Shared) -> (Option<Job>, bool) {
        let idle = self.held().as_ref().map_or(Duration::ZERO, Writer::idle_for);
        let dozes = idle >= IDLE && shared.posted.doze();
        let next = queue.recv_timeout(if dozes { IDLE } else { LINGER });
        shared.posted.wake();
        match next {
            Ok(job) => (Some(job), false),
            Err(RecvTimeoutError::Timeout) => (None, false),
            Err(RecvTimeoutError::Disconnected) => (None, true),
        }
    }

    /// The writer, for its thread.
    #[expect(clippy::panic, reason = "ends the thread, and with that the ledger, as if the writer had broken down in it")]
    fn held(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(|_| panic!("the writer broke down while a caller had it"))
    }
}

impl Visit<'_> {
    /// Commits a write right here, after what was posted before it, if that is the quicker way; else gives it back.
    ///
    /// # Errors
    /// The writer broke down.
    pub(crate) fn commit(
        &self,
        write: Prepared,
        reply: Reply,
        shared: &Shared,
    ) -> Result<Option<(Prepared, Reply)>, LedgerError> {
        // Who comes from here on finds two, and goes to the thread, which has its turn next. Right after a batch of many
        // there may be one for a moment: the others come back.
        let alone = self.0.callers.load(Ordering::Relaxed) == 1 && self.0.awaited.load(Ordering::Relaxed) <= 1;
        let Some(mut held) = alone.then(|| self.0.writer.try_lock().ok()).flatten().filter(|held| is_quick(held.as_ref())) else {
            return Ok(Some((write, reply)));
        };
        // A breakdown is not one of this caller alone: it poisons the lock, which ends the thread.
        let served = catch_unwind(AssertUnwindSafe(move || {
            let mut jobs = posted(shared.posted.take());
            jobs.push(Job::Write(write, reply));
            held.as_mut().map(|writer| writer.serve(jobs))
        }));
        served.map(|_| None).map_err(|_| LedgerError::Uncertain("the writer of the ledger broke down".to_owned()))
    }
}

/// Whether a caller may hold up its own worker for it. One that has lost its database first looks for it, which may last.
fn is_quick(writer: Option<&Writer>) -> bool {
    writer.is_some_and(|writer| writer.is_open() && writer.took() <= QUICK_MAX)
}

/// Whether somebody waits until it is durable.
fn is_awaited(job: &Job) -> bool {
    matches!(job, Job::Write(_, Reply::Index(_) | Reply::Proof(..)))
}

fn posted(writes: Vec<(Prepared, Reply)>) -> Vec<Job> {
    writes.into_iter().map(|(write, reply)| Job::Write(write, reply)).collect()
}

/// Lets writes come that are on their way, if so many were awaited in the batch before. Asleep, not waiting for them: to
/// wake for each would cost what it saves.
#[expect(clippy::disallowed_methods, reason = "this thread serves nobody but those who gain by it")]
fn gather(awaited: usize) {
    if awaited >= GATHER_FROM {
        let each = u32::try_from(awaited).unwrap_or(u32::MAX);
        std::thread::sleep(GATHER_EACH.saturating_mul(each).min(GATHER_MAX));
    }
}

/// Takes what waits, up to the limits of a batch, and before it what was posted. Answers too whether to stop after it.
fn collect(queue: &Receiver<Job>, shared: &Shared, first: Option<Job>, gone: bool) -> (Vec<Job>, bool) {
    let (mut waiting, mut weight, mut next, mut stop) = (Vec::new(), 0, first, gone);
    while let Some(job) = next {
        stop |= matches!(job, Job::Stop);
        weight += if let Job::Write(write, _) = &job { write.weight() } else { 0 };
        if !matches!(job, Job::Stop | Job::Wake) {
            waiting.push(job);
        }
        if stop || waiting.len() >= BATCH_WRITES_MAX || weight >= BATCH_BYTES_MAX {
            break;
        }
        next = queue.try_recv().ok();
    }
    let mut jobs = posted(if stop { shared.posted.close() } else { shared.posted.take() });
    jobs.append(&mut waiting);
    (jobs, stop)
}

#[cfg(test)]
mod tests;
