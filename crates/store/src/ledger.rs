//! The write port: hands writes to the writer and waits as long as the caller must.
//! Encodes on the caller's thread; never touches the database itself.

use std::sync::mpsc::TrySendError;

use async_trait::async_trait;
use authority::ports::{Durable, Inclusion, Ledger, LedgerError, Write};
use tokio::sync::oneshot;

use crate::{
    Store,
    change::Prepared,
    posted::Added,
    writer::{Job, Reply, Writer},
};

#[async_trait]
impl Ledger for Store {
    async fn commit(&self, write: Write) -> Result<u64, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let write = Prepared::new(write)?;
        self.check_room()?;
        let visit = self.desk().enter();
        if let Some((write, reply)) = visit.commit(write, Reply::Index(answer), self.shared())? {
            self.ask(Job::Write(write, reply))?;
        }
        answered.await.unwrap_or_else(|_| Err(broke_off()))
    }

    fn post(&self, write: Write) -> Result<(), LedgerError> {
        self.put(write, Reply::Nobody)
    }

    fn post_behind(&self, write: Write) -> Result<(), LedgerError> {
        self.check_fault()?;
        // What is posted goes before what waits in the queue.
        self.enqueue(Prepared::new(write)?, Reply::Nobody)
    }

    fn follow(&self, write: Write) -> Result<Durable, LedgerError> {
        let (answer, answered) = oneshot::channel();
        self.put(write, Reply::Followed(answer))?;
        Ok(Box::pin(async move { answered.await.unwrap_or_else(|_| Err(broke_off())).map(drop) }))
    }

    async fn include(&self, write: Write, seen: u64) -> Result<Inclusion, LedgerError> {
        if write.events.is_empty() {
            return Err(LedgerError::Unavailable("inclusion is proved of an event".to_owned()));
        }
        let (answer, answered) = oneshot::channel();
        self.enqueue(Prepared::new(write)?, Reply::Proof(seen, answer))?;
        answered.await.unwrap_or_else(|_| Err(broke_off()))
    }

    async fn anchored(&self, size: u64) -> Result<(), LedgerError> {
        self.shared().keeper.kept(size).await
    }

    async fn consistency(&self, old: u64, new: u64) -> Result<Vec<[u8; 32]>, LedgerError> {
        // Proofs between recent sizes come from memory; older ones read a few tiles, which may block.
        if let Some(proof) = self.shared().recent_consistency(old, new) {
            return Ok(proof);
        }
        let shared = self.shared_owned();
        let proof = tokio::task::spawn_blocking(move || shared.consistency(old, new));
        match proof.await {
            Ok(Ok(proof)) => Ok(proof),
            Ok(Err(error)) => Err(LedgerError::Unavailable(error.to_string())),
            Err(_) => Err(stopped()),
        }
    }
}

impl Store {
    fn put(&self, write: Write, reply: Reply) -> Result<(), LedgerError> {
        self.check_fault()?;
        let write = Prepared::new(write)?;
        self.check_room()?;
        match self.shared().posted.add(write, reply) {
            Added::Soon => Ok(()),
            Added::Wake => self.ask(Job::Wake),
            Added::Full => Err(LedgerError::Overloaded),
            Added::Closed => Err(stopped()),
        }
    }

    fn enqueue(&self, write: Prepared, reply: Reply) -> Result<(), LedgerError> {
        self.check_room()?;
        self.ask(Job::Write(write, reply))
    }

    fn check_fault(&self) -> Result<(), LedgerError> {
        self.shared().fault().map_or(Ok(()), |fault| Err(LedgerError::Unavailable(fault)))
    }

    fn check_room(&self) -> Result<(), LedgerError> {
        if Writer::overloaded(self.shared()) {
            return Err(LedgerError::Unavailable("the log cannot be published, and too much waits for it".to_owned()));
        }
        Ok(())
    }

    fn ask(&self, job: Job) -> Result<(), LedgerError> {
        self.queue().try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => LedgerError::Overloaded,
            TrySendError::Disconnected(_) => stopped(),
        })
    }
}

/// Nobody will say any more how a write ended.
fn broke_off() -> LedgerError {
    LedgerError::Uncertain("the ledger stopped meanwhile".to_owned())
}

fn stopped() -> LedgerError {
    LedgerError::Unavailable("the ledger has stopped".to_owned())
}
