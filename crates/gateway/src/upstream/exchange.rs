//! One request to an upstream and everything that comes back for it, in order. Dropping an [`Exchange`] before its
//! outcome cancels the request at the upstream. Knows no transport: a [`Source`] gives the events, and what must be
//! done when nobody wants them any more hangs on a [`Cancel`].

use super::child::ChildStream;
use super::error::UpstreamError;
use super::http_stream::HttpStream;
use super::link::Link;
use super::listen::Listening;
use super::restore::Told;
use super::riders::Rider;
use super::rounds::Rounds;
use crate::mcp::message::{Id, Raw};
use futures_util::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// Most requests of the upstream that wait for the client's answer within one exchange.
const ASKED_MAX: usize = 32;

/// Something that an upstream sent.
#[derive(Debug, Clone)]
pub enum Event {
    /// A notification.
    Notification {
        /// What it says.
        method: String,
        /// About what, as it came.
        params: Option<Raw>,
    },
    /// A request to the client; answer it with [`super::Connection::answer`].
    Request {
        /// Its id, chosen by the upstream (or by the gateway, for a stateless upstream).
        id: Id,
        /// What it asks.
        method: String,
        /// With what, as it came.
        params: Option<Raw>,
    },
    /// A point from which the stream could go on after an interruption: it stands before the event that follows it,
    /// or alone (MCP 2025-11-25 "Resumability").
    Cursor {
        /// The id of the server-sent event.
        id: Option<String>,
        /// How long a client should wait before it comes back, in milliseconds.
        retry_millis: Option<u64>,
    },
    /// The upstream closed the connection but not the stream. [`Exchange::next`] goes on by itself after the wait that
    /// the upstream asked for; a caller may let its own client come back instead.
    Paused,
    /// The result: the end.
    Result(Raw),
    /// The error object: the end.
    Error(Raw),
}

impl Event {
    /// Whether nothing follows.
    #[must_use]
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Result(_) | Self::Error(_))
    }
}

/// Where events come from.
pub(super) enum Source {
    /// They are here already.
    Ready(VecDeque<Event>),
    /// An answer over HTTP that is a stream.
    Http(Box<HttpStream>),
    /// A child process.
    Child(ChildStream),
    /// What a session sends outside requests, as a subscription.
    Listening(Listening),
    /// A request is being sent, or the next round of one. It goes on even if nobody looks, so that it is never sent twice.
    Opening(BoxFuture<'static, Result<Source, UpstreamError>>),
}

impl Source {
    /// A source that has only its end.
    pub(super) fn ended(outcome: Result<Raw, Raw>) -> Self {
        Self::Ready(VecDeque::from([outcome.map_or_else(Event::Error, Event::Result)]))
    }

    pub(super) async fn next(&mut self) -> Result<Event, UpstreamError> {
        loop {
            match self {
                Self::Ready(events) => return events.pop_front().ok_or(UpstreamError::Closed),
                Self::Http(stream) => return stream.next().await,
                Self::Child(stream) => return stream.next().await,
                Self::Listening(listening) => return listening.next().await,
                Self::Opening(opening) => {
                    let opened = opening.await?;
                    *self = opened;
                }
            }
        }
    }
}

/// A request under way.
pub struct Exchange {
    link: Arc<Link>,
    source: Source,
    /// Present if the upstream is stateless and the client is not.
    rounds: Option<Box<Rounds>>,
    asked: Vec<Id>,
    ended: bool,
    quiet: bool,
    /// What the session remembers once this has its result.
    told: Option<Box<Told>>,
    /// The last event was a question that came outside of the request.
    aside: bool,
    /// Where the upstream's questions arrive that came outside the request, if this client can be asked nowhere else.
    rider: Option<Rider>,
    _holder: Arc<()>,
    /// A place among the requests that this upstream may have under way.
    _place: Option<OwnedSemaphorePermit>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("upstream", self.link.name()).field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Exchange {
    pub(super) fn new(link: Arc<Link>, source: Source, rounds: Option<Box<Rounds>>, place: Option<OwnedSemaphorePermit>) -> Self {
        let holder = Arc::clone(&link.holders);
        Self {
            link,
            source,
            rounds,
            asked: Vec::new(),
            ended: false,
            quiet: false,
            told: None,
            aside: false,
            rider: None,
            _holder: holder,
            _place: place,
        }
    }

    /// The same, with the questions that come outside of it.
    pub(super) fn with_rider(mut self, rider: Rider) -> Self {
        self.rider = Some(rider);
        self
    }

    /// The same, by which the session is told something.
    pub(super) fn telling(mut self, told: Option<Told>) -> Self {
        self.told = told.map(Box::new);
        self
    }

    /// The same, without log messages.
    pub(super) fn without_log(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Whether the upstream answers with a stream, even if only one message comes on it.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        matches!(self.source, Source::Http(_))
    }

    /// Whether the last event came outside of the request: it was not said because of it.
    #[must_use]
    pub const fn is_aside(&self) -> bool {
        self.aside
    }

    /// The next event. Safe to cancel. After the end, [`UpstreamError::Closed`].
    ///
    /// # Errors
    /// Why no outcome will come.
    pub async fn next(&mut self) -> Result<Event, UpstreamError> {
        if self.ended {
            return Err(UpstreamError::Closed);
        }
        self.aside = false;
        let outcome = self.next_open().await;
        if outcome.as_ref().map_or(true, Event::is_end) {
            self.ended = true;
        }
        if let (Ok(Event::Result(_)), Some(told)) = (&outcome, self.told.take_if(|_| self.ended)) {
            self.link.inbox.note(*told);
        }
        outcome
    }

    async fn next_open(&mut self) -> Result<Event, UpstreamError> {
        loop {
            if let Some(event) = self.rounds.as_mut().and_then(|rounds| rounds.question()) {
                return self.noted(event);
            }
            let link = Arc::clone(&self.link);
            let waiting = self.rounds.as_mut().is_some_and(|rounds| rounds.is_waiting());
            let event = if waiting {
                let Some(rounds) = self.rounds.as_mut() else { continue };
                let answered = tokio::select! {
                    biased;
                    () = link.closed() => return Err(link.why_closed()),
                    answered = rounds.answered() => answered?,
                };
                match answered {
                    Ok(params) => {
                        self.source = rounds.again(&link, params);
                        continue;
                    }
                    Err(error) => Event::Error(error),
                }
            } else {
                tokio::select! {
                    biased;
                    event = self.source.next() => event?,
                    question = question(&mut self.rider) => {
                        self.aside = true;
                        question
                    }
                    () = link.closed() => return Err(link.why_closed()),
                }
            };
            match (event, self.rounds.as_mut()) {
                (Event::Notification { method, .. }, _) if self.quiet && method == "notifications/message" => {}
                (Event::Result(raw), Some(rounds)) if rounds.wants_input(&raw)? => rounds.ask(&link, &raw)?,
                (event, _) => return self.noted(event),
            }
        }
    }

    /// Remembers a request of the upstream, so that its answer finds the way and an invented one does not.
    fn noted(&mut self, event: Event) -> Result<Event, UpstreamError> {
        if let Event::Request { id, .. } = &event {
            if self.asked.len() >= ASKED_MAX {
                // Those that were answered do not count: a long call may be asked, and pinged, any number of times.
                self.asked.retain(|id| self.link.awaits(id));
            }
            if self.asked.len() >= ASKED_MAX {
                return Err(UpstreamError::Busy("requests to the client"));
            }
            self.asked.push(id.clone());
            let to = self.rounds.as_ref().and_then(|rounds| rounds.answers_to());
            self.link.note_asked(id, to);
        }
        Ok(event)
    }
}

async fn question(rider: &mut Option<Rider>) -> Event {
    match rider {
        Some(rider) => rider.question().await,
        None => std::future::pending().await,
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.link.forget_asked(&self.asked);
    }
}
