//! The record that a credential exists, from its creation until it is stored. It is not waited for (docs/decisions/0012): a
//! row that nobody confirmed is a credential that may exist. Owns what becomes of a record that was lost; what a start makes
//! of one that a crash took is `ending`'s.

use crate::Authority;
use crate::credential::{Draft, UNCONFIRMED_SECS};
use crate::event::change;
use crate::ports::{Change, Durable, Write};
use crate::target::Minted;
use crate::targets::Flight;
use domain::{GrantId, TaskId};
use std::time::Duration;

/// Time until a record that was lost is made again.
const RECORD_AGAIN: Duration = Duration::from_secs(1);

/// The record that a credential exists.
pub(crate) enum Record {
    /// It is stored.
    Durable,
    /// It is on its way, and how it is made again.
    Posted { durable: Durable, again: Box<dyn Fn() -> Write + Send> },
}

/// A credential that is handed out, until its record is durable.
pub(crate) struct Recording {
    pub(crate) record: Record,
    pub(crate) flight: Flight,
}

impl Authority {
    /// Has it recorded that the credential exists. Not waited for, unless the record holds what alone can take it back: its
    /// loss in a crash could not be made good.
    pub(crate) async fn confirm(
        &self,
        grant: GrantId,
        task: TaskId,
        draft: &Draft,
        minted: &Minted,
    ) -> Result<Record, crate::Error> {
        let at = self.0.clock.now();
        let sealed = minted.to_revoke.as_ref().map(|secret| self.0.wrapping.seal_secret(grant, secret, &*self.0.entropy));
        let sealed = sealed.transpose()?;
        let detail = [
            ("expires_at", draft.plan.expires_at.millis().into()),
            ("grant", grant.to_string().into()),
            ("handle", draft.plan.handle.as_str().into()),
            ("offer", draft.plan.offer.as_str().into()),
            ("target", draft.target.profile.name.as_str().into()),
            ("task", task.to_string().into()),
        ];
        let event = change("credential.issued", "writ", at, detail)?;
        let write = move |event, sealed| Write { events: vec![event], changes: vec![Change::GrantIssued { grant, at, sealed }] };
        if sealed.is_some() {
            self.0.ledger.commit(write(event, sealed)).await?;
            return Ok(Record::Durable);
        }
        let durable = self.0.ledger.follow(write(event.clone(), None))?;
        Ok(Record::Posted { durable, again: Box::new(move || write(event.clone(), None)) })
    }

    /// Stays with a credential that was handed out until its record is durable. A record that was lost while the process goes
    /// on is made again: without it the end of the task would not reach the credential at once.
    pub(crate) async fn finish(&self, Recording { record, flight }: Recording) {
        let Record::Posted { durable, again } = record else { return };
        let mut recorded = durable.await;
        let over = self.0.clock.now().plus_secs(UNCONFIRMED_SECS);
        // After that the row itself is due, as one that nobody confirmed.
        while let Err(error) = recorded.as_ref()
            && self.0.clock.now() < over
        {
            tracing::warn!(%error, grant = %flight.grant(), "the record of a credential was lost; it is made again");
            tokio::time::sleep(RECORD_AGAIN).await;
            recorded = self.0.ledger.commit(again()).await.map(drop);
            // What was revoked meanwhile is due from here on.
            self.0.credentials.doorbell.notify_one();
        }
    }
}
