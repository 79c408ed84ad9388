//! Writes that nobody waits for, on their way to the writer: they go with the next batch, and do not wake the writer for
//! themselves while it is about to look anyway. A wake-up costs more than the write.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use crate::{change::Prepared, writer::Reply};

/// Most that may wait: what a second of a busy node posts.
const POSTED_MAX: usize = 8192;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Posted {
    waiting: Mutex<Waiting>,
    /// The writer will not look for long.
    dozing: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    writes: Vec<(Prepared, Reply)>,
    /// Nobody takes them any more.
    closed: bool,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// It goes with the next batch.
    Soon,
    /// The same, but the writer must be woken.
    Wake,
    /// There are too many.
    Full,
    /// The writer has stopped.
    Closed,
}

impl Posted {
    /// Adds a write, and who wants to hear of it if anybody does.
    pub(crate) fn add(&self, write: Prepared, reply: Reply) -> Added {
        let mut waiting = self.waiting();
        if waiting.closed {
            return Added::Closed;
        }
        if waiting.writes.len() >= POSTED_MAX {
            return Added::Full;
        }
        waiting.writes.push((write, reply));
        drop(waiting);
        // INVARIANT(post-is-seen): the writer says that it dozes before it looks for the last time, and here is looked
        // after the write was added: one of the two sees the other.
        if self.dozing.swap(false, Ordering::SeqCst) { Added::Wake } else { Added::Soon }
    }

    /// Takes all of them, in their order. Take jobs first: what was posted before a job is then committed before it.
    pub(crate) fn take(&self) -> Vec<(Prepared, Reply)> {
        std::mem::take(&mut self.waiting().writes)
    }

    /// The same, for good: nothing is added any more.
    pub(crate) fn close(&self) -> Vec<(Prepared, Reply)> {
        let mut waiting = self.waiting();
        waiting.closed = true;
        std::mem::take(&mut waiting.writes)
    }

    /// The writer wants to sleep for long. Answers whether it may.
    pub(crate) fn doze(&self) -> bool {
        self.dozing.store(true, Ordering::SeqCst);
        let nothing = self.waiting().writes.is_empty();
        if !nothing {
            self.wake();
        }
        nothing
    }

    /// The writer is awake.
    pub(crate) fn wake(&self) {
        self.dozing.store(false, Ordering::SeqCst);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write() -> Prepared {
        Prepared { events: Vec::new(), rows: Vec::new() }
    }

    #[test]
    fn a_dozing_writer_is_woken_once_and_never_dozes_over_something() {
        let posted = Posted::default();
        assert_eq!(posted.add(write(), Reply::Nobody), Added::Soon);
        assert!(!posted.doze(), "something waits");
        assert_eq!(posted.take().len(), 1);
        assert!(posted.doze());
        assert_eq!([posted.add(write(), Reply::Nobody), posted.add(write(), Reply::Nobody)], [Added::Wake, Added::Soon]);
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        let posted = Posted::default();
        for _ in 0..POSTED_MAX {
            assert_eq!(posted.add(write(), Reply::Nobody), Added::Soon);
        }
        assert_eq!(posted.add(write(), Reply::Nobody), Added::Full);
        assert_eq!(posted.close().len(), POSTED_MAX);
        assert_eq!(posted.add(write(), Reply::Nobody), Added::Closed);
    }
}
