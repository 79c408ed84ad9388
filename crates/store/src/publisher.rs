//! The background thread that publishes what was committed: tiles, checkpoint, search index. It is never on the
//! path of an answer; what it cannot do now it does later, and the log's lag shows it.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use auditlog::{checkpoint::Head, port::BatchLedger, publish::Publisher, sequence::StoredBatch};
use rusqlite::Connection;

use crate::{
    batch::{ledger, read_batches},
    connection::BUSY_TIMEOUT,
    error::{Error, sqlite},
    index::{Index, is_damage},
    shared::Shared,
    writer::Job,
};

/// Bundles that are indexed between two looks at the clock and the doorbell.
const INDEX_PORTION: u64 = 64;
/// How long the publisher waits for the writer to record a checkpoint.
const RECORD_TIMEOUT: Duration = Duration::from_secs(30);

/// How long cutting off the database's own log waits for those who read in it.
const WIPE_WAIT: Duration = Duration::from_millis(50);

/// What the publisher works with.
pub(crate) struct Background {
    pub(crate) shared: Arc<Shared>,
    pub(crate) publisher: Publisher,
    /// Reads committed batches.
    pub(crate) reader: Connection,
    pub(crate) index: Index,
    /// The writer.
    pub(crate) writer: SyncSender<Job>,
    /// Between two rounds.
    pub(crate) every: Duration,
    /// A value, or the end of it, tells the publisher to finish.
    pub(crate) stop: Receiver<()>,
}

impl Background {
    /// Publishes at the given pace until it is told to stop; then once more.
    pub(crate) fn run(mut self) {
        let (mut failing, mut lagging) = (false, false);
        loop {
            let stop = !matches!(self.stop.recv_timeout(self.every), Err(RecvTimeoutError::Timeout));
            let round = self.round();
            self.shared.set_unpublishable(round.is_err());
            match round {
                Ok(()) if failing => {
                    failing = false;
                    tracing::info!("the log is published again");
                }
                Ok(()) => {}
                Err(error) if failing => tracing::debug!(error = &error as &dyn std::error::Error, "publishing still fails"),
                Err(error) => {
                    failing = true;
                    tracing::error!(error = &error as &dyn std::error::Error, "the log cannot be published");
                }
            }
            // Of no matter for whether the log is published, nor for whether anybody is served.
            match self.wipe().and_then(|()| self.index()) {
                Ok(()) => lagging = false,
                Err(error) if lagging => tracing::debug!(error = &error as &dyn std::error::Error, "still not done"),
                Err(error) => {
                    lagging = true;
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the search index is not extended, or what was redacted not wiped; it is tried again"
                    );
                }
            }
            if stop {
                return;
            }
        }
    }

    /// Publishes all that was committed when it began.
    fn round(&mut self) -> Result<(), Error> {
        let goal = self.shared.committed();
        while self.publisher.size() < goal {
            let mut behind = Behind { shared: &self.shared, reader: &self.reader, writer: &self.writer };
            let shared = &self.shared;
            let published = self.publisher.publish(shared.tiles.files(), &mut behind, |head| {
                // What a crash at each of these steps leaves is said where they follow each other: `auditlog::publish`.
                tracing::trace!(target: "writ::step", at = "publish.written");
                let note = shared.sign(head);
                tracing::trace!(target: "writ::step", at = "publish.signed");
                note
            })?;
            match published {
                Some(_) => tracing::trace!(target: "writ::step", at = "publish.forgotten"),
                None => break,
            }
        }
        Ok(())
    }

    /// After a redaction writes the database's own log back and cuts it off: what was taken out stands in there still, as it
    /// was before.
    fn wipe(&self) -> Result<(), Error> {
        // Taken before: a redaction that is committed meanwhile asks anew.
        if !self.shared.take_wipe() {
            return Ok(());
        }
        let whole = self.cut_off();
        if !matches!(whole, Ok(true)) {
            self.shared.ask_wipe();
        }
        whole.map(drop)
    }

    /// Whether all of it could be cut off; a reader may be in the way.
    fn cut_off(&self) -> Result<bool, Error> {
        // It holds up the writer while it waits for readers, so it does not wait for long.
        let failed = || sqlite("write back its log after a redaction");
        self.reader.busy_timeout(WIPE_WAIT).map_err(failed())?;
        let busy = self.reader.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        self.reader.busy_timeout(BUSY_TIMEOUT).map_err(failed())?;
        busy.map(|busy| busy == 0).map_err(failed())
    }

    /// Indexes what is published. An index that turns out to be damaged, here or in a search, is built anew.
    fn index(&mut self) -> Result<(), Error> {
        if self.shared.take_distrust() {
            tracing::warn!("the search index is damaged and will be built anew");
            self.renew()?;
        }
        loop {
            match self.index.catch_up(self.shared.tiles.files(), self.publisher.size(), INDEX_PORTION) {
                Ok(INDEX_PORTION) => {}
                Ok(_) => return Ok(()),
                Err(error) => {
                    if is_damage(&error) {
                        self.renew()?;
                    }
                    return Err(error);
                }
            }
        }
    }

    fn renew(&mut self) -> Result<(), Error> {
        self.index.renew()?;
        self.shared.index_renewed();
        Ok(())
    }
}

/// The batches behind the writer: read here, changed only by it.
struct Behind<'a> {
    shared: &'a Shared,
    reader: &'a Connection,
    writer: &'a SyncSender<Job>,
}

impl BatchLedger for Behind<'_> {
    fn batches_from(&mut self, first: u64, leaves_max: u64) -> Result<Vec<StoredBatch>, auditlog::Error> {
        let mut batches = read_batches(self.reader, self.shared, first, leaves_max).map_err(ledger("read batches"))?;
        // A batch can be read a moment before its writer has taken it over; until then its hashes are not known here.
        let committed = self.shared.committed();
        batches.retain(|batch| batch.head.size <= committed);
        Ok(batches)
    }

    fn record_checkpoint(&mut self, _: Head, note: &[u8]) -> Result<(), auditlog::Error> {
        let action = "record a checkpoint";
        let failed = |source| auditlog::Error::Ledger { action, source };
        let (answer, answered) = sync_channel(1);
        self.writer.send(Job::Record(note.to_vec(), answer)).map_err(|_| failed("the writer has stopped".into()))?;
        match answered.recv_timeout(RECORD_TIMEOUT) {
            Ok(result) => {
                tracing::trace!(target: "writ::step", at = "publish.recorded");
                result.map_err(|error| failed(Box::new(error)))
            }
            Err(_) => Err(failed("the writer does not answer".into())),
        }
    }

    fn forget_below(&mut self, size: u64) -> Result<(), auditlog::Error> {
        tracing::trace!(target: "writ::step", at = "publish.replaced");
        // INVARIANT(published-then-forgotten): who reads finds an entry in the batches or in the published files. If the batches
        // went first, one who still goes by the size before would find it in neither.
        self.shared.advance(size);
        // Nobody waits: a batch that is forgotten later does no harm.
        self.writer
            .send(Job::Forget(size))
            .map_err(|_| auditlog::Error::Ledger { action: "forget batches", source: "the writer has stopped".into() })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use authority::ports::Ledger;

    use super::*;
    use crate::{connection::open_reader, rig};

    #[tokio::test]
    async fn a_batch_that_its_writer_has_not_taken_over_yet_is_not_published() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = rig::try_open_idle(dir.path()).unwrap();
        for number in 0..2 {
            store.commit(rig::event(number)).await.unwrap();
        }
        let (writer, _jobs) = sync_channel(1);
        let reader = open_reader(&store.shared().database()).unwrap();
        let read = || Behind { shared: store.shared(), reader: &reader, writer: &writer }.batches_from(0, 100).unwrap().len();
        store.shared().extend(&[], 1);
        assert_eq!(read(), 1, "the second one is committed, and not known yet");
        store.shared().extend(&[], 2);
        assert_eq!(read(), 2);
    }

    #[tokio::test]
    async fn what_is_forgotten_is_known_as_published_before() {
        let dir = tempfile::TempDir::new().unwrap();
        let store = rig::try_open_idle(dir.path()).unwrap();
        store.commit(rig::event(0)).await.unwrap();
        let (writer, jobs) = sync_channel(1);
        let reader = open_reader(&store.shared().database()).unwrap();
        Behind { shared: store.shared(), reader: &reader, writer: &writer }.forget_below(1).unwrap();
        let Ok(Job::Forget(1)) = jobs.recv() else { panic!("nothing is forgotten") };
        assert_eq!(store.shared().published(), 1);
    }
}
