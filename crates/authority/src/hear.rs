//! What a task hears of an upstream without a decided request: instructions, listings, messages, questions. Owns that its
//! labels rise, durably, before any of it is given to the agent (R22); decides nothing, knows no message.

use crate::Authority;
use crate::caller::Caller;
use crate::event::{HeardEvent, encode};
use crate::live::Over;
use crate::ports::{Change, Write};
use domain::UpstreamName;
use tracing::Instrument;

/// What is about to be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// What an upstream says to models when it is connected to.
    Instructions,
    /// A list that nothing was approved of, or the error in its place.
    Listing,
    /// A notification or a log message outside of a decided request.
    Notice,
    /// A question outside of a decided request.
    Question,
}

impl Heard {
    /// The word for the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Instructions => "instructions",
            Self::Listing => "listing",
            Self::Notice => "notice",
            Self::Question => "question",
        }
    }
}

/// Why it must not be given to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// Nobody declared what it brings, and the agent asked for nothing.
    #[error("nobody declared what this upstream says unasked; write `[unasked]` into its file in `tools/`")]
    Undeclared,
    /// The caller gets nothing more.
    #[error("the task has ended, or its token was revoked")]
    Over(Over),
    /// The labels could not be made durable.
    #[error("what it brings into the task could not be logged; try again later")]
    Unlogged,
}

impl Authority {
    /// Raises the labels of the caller's task by what an upstream says without a decided request. When this resolves to
    /// `Ok`, the task is stored with them. Costs one load where they were before.
    ///
    /// INVARIANT(labels-before-ears): nothing that a decision did not bring in is given to an agent before the labels of it
    /// are durable, so that neither a crash nor a race leaves a task that has heard something looking as if it had not.
    ///
    /// # Errors
    /// Why it must be withheld. Labels may have risen all the same: they only refuse more.
    pub async fn hear(&self, caller: &Caller, upstream: &UpstreamName, what: Heard) -> Result<(), Unheard> {
        if let Some(over) = caller.over() {
            return Err(Unheard::Over(over));
        }
        let policy = self.0.policy.load();
        let unasked = policy.unasked(upstream);
        let live = &caller.live;
        if live.has_kept(unasked.reading) {
            return Ok(());
        }
        if what == Heard::Instructions && !unasked.declared {
            return Err(Unheard::Undeclared);
        }
        let progress = live.hear(unasked.reading).map_err(|end| Unheard::Over(Over::TaskEnded(end)))?;
        let task = live.task();
        let event = encode(&HeardEvent {
            agent: task.agent.as_str(),
            at: self.0.clock.now().millis(),
            intent: task.intent.as_str(),
            policy: self.policy_version_text(&policy).as_str(),
            read_sensitivity: progress.labels.read_sensitivity.level(),
            read_untrusted: progress.labels.read_untrusted,
            task: &task.id.to_string(),
            r#type: "heard",
            upstream: upstream.as_str(),
            what: what.as_str(),
        });
        let changes = vec![Change::Progress(task.id, progress)];
        let logged = match event {
            Ok(event) => {
                let committed = self.0.ledger.commit(Write { events: vec![event], changes });
                committed.instrument(tracing::debug_span!("log")).await.map_err(crate::Error::from)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = logged {
            tracing::error!(%error, %upstream, "labels could not be raised, so what an upstream says is withheld");
            return Err(Unheard::Unlogged);
        }
        // CRASH(heard.logged): the labels are durable, and nothing was given to the agent.
        tracing::trace!(target: "writ::step", at = "heard.logged");
        live.keep(progress.labels);
        Ok(())
    }
}
