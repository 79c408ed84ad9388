//! An answer over HTTP that is a stream of events: messages in order, interruptions bridged where the upstream offers
//! that, and an end in any case: a stream that says nothing, or never ends, runs into its deadline.
//! MCP 2025-11-25 "Resumability and Redelivery"; MCP 2026-07-28 "Receiving Messages".

use super::cancel::Cancel;
use super::error::UpstreamError;
use super::exchange::Event;
use super::http::{ANSWER_BYTES_MAX, next_chunk};
use super::link::{Link, Session};
use super::sse::{SseEvent, SseParser};
use crate::mcp::message::{Id, Message};
use crate::room::Part;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often an interrupted stream is taken up again without a message in between.
const RESUMES_MAX: u32 = 5;
/// The wait before that, if the upstream names none, and the longest that it may name.
const RETRY_MILLIS: u64 = 1_000;
const RETRY_MILLIS_MAX: u64 = 30_000;
/// The shortest that it may name: it must not have the gateway come back at the speed of the network.
const RETRY_MILLIS_MIN: u64 = 500;

/// How long a stream may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The longest silence. Only messages count, not comments.
    pub(super) silence: Duration,
    /// The end in any case; `None` for subscriptions, which are meant to last.
    pub(super) end: Option<Instant>,
}

impl Patience {
    pub(super) fn until(&self) -> Instant {
        let silence = Instant::now() + self.silence;
        self.end.map_or(silence, |end| end.min(silence))
    }
}

type Reopened = Result<Option<Incoming>, UpstreamError>;

enum State {
    Open(Box<Incoming>),
    /// The connection was closed; it will be opened again at this time.
    Closed(Instant),
    Reopening(BoxFuture<'static, Reopened>),
}

/// The events of one stream.
pub(super) struct HttpStream {
    link: Arc<Link>,
    session: Arc<Session>,
    state: State,
    parser: SseParser,
    /// Covers what the parser holds of an event that is not finished.
    held: Part,
    queue: VecDeque<Event>,
    /// The request whose answer ends the stream; `None` for a stream that answers nothing.
    id: Option<Id>,
    patience: Patience,
    deadline: Instant,
    last_event_id: Option<String>,
    retry_millis: u64,
    resumes: u32,
    failed: Option<UpstreamError>,
    cancel: Option<Cancel>,
}

impl HttpStream {
    pub(super) fn new(link: Arc<Link>, session: Arc<Session>, body: Incoming, id: Option<Id>, patience: Patience) -> Self {
        Self {
            held: link.bodies.empty(),
            link,
            session,
            state: State::Open(Box::new(body)),
            parser: SseParser::new(ANSWER_BYTES_MAX),
            queue: VecDeque::new(),
            id,
            patience,
            deadline: patience.until(),
            last_event_id: None,
            retry_millis: RETRY_MILLIS,
            resumes: 0,
            failed: None,
            cancel: None,
        }
    }

    /// What happens when this is dropped before its end.
    pub(super) fn with_cancel(mut self, cancel: Option<Cancel>) -> Self {
        self.cancel = cancel;
        self
    }

    /// The next event. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Event, UpstreamError> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                if event.is_end()
                    && let Some(cancel) = &mut self.cancel
                {
                    cancel.disarm();
                }
                return Ok(event);
            }
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            match &mut self.state {
                State::Open(body) => match next_chunk(body, self.deadline).await {
                    Ok(Some(chunk)) => self.take(&chunk),
                    Err(error @ UpstreamError::Timeout) => return Err(error),
                    Ok(None) | Err(_) => return self.interrupted(),
                },
                State::Closed(at) => {
                    tokio::time::sleep_until(*at).await;
                    let (link, session) = (Arc::clone(&self.link), Arc::clone(&self.session));
                    let (from, deadline) = (self.last_event_id.clone(), self.deadline);
                    self.state = State::Reopening(Box::pin(async move { link.listen_http(&session, from, deadline).await }));
                }
                State::Reopening(opening) => match opening.await {
                    Ok(Some(body)) => {
                        self.parser = SseParser::new(ANSWER_BYTES_MAX);
                        self.held = self.link.bodies.empty();
                        self.state = State::Open(Box::new(body));
                    }
                    Ok(None) => return Err(UpstreamError::Protocol("the stream ended without an answer")),
                    Err(_) => return self.interrupted(),
                },
            }
        }
    }

    /// The connection is gone. Only a stream with a point to go on from goes on.
    fn interrupted(&mut self) -> Result<Event, UpstreamError> {
        self.resumes += 1;
        let resumable = self.last_event_id.is_some() && !self.session.era.is_modern();
        if !resumable || self.resumes > RESUMES_MAX || Instant::now() >= self.deadline {
            return Err(UpstreamError::Unreachable("the stream ended without an answer".to_owned()));
        }
        self.state = State::Closed(Instant::now() + wait(self.retry_millis, self.resumes));
        Ok(Event::Paused)
    }

    fn take(&mut self, chunk: &[u8]) {
        if !self.held.cover(self.parser.held() + chunk.len()) {
            self.failed.get_or_insert(UpstreamError::NoRoom);
            return;
        }
        let mut found = Vec::new();
        let outcome = self.parser.push(chunk, |event| found.push(event));
        for event in found {
            if let Err(error) = self.take_event(event) {
                self.failed.get_or_insert(error);
                return;
            }
        }
        // No more than before: what is finished has taken room of its own.
        self.held.cover(self.parser.held());
        if let Err(error) = outcome {
            self.failed.get_or_insert(error);
        }
    }

    fn take_event(&mut self, event: SseEvent) -> Result<(), UpstreamError> {
        if let Some(millis) = event.retry_millis {
            self.retry_millis = millis;
        }
        if event.id.is_some() {
            self.last_event_id.clone_from(&event.id);
        }
        if let Some(endpoint) = &self.link.hub.endpoint {
            endpoint.check(&event.data)?;
            event.id.as_ref().map_or(Ok(()), |id| endpoint.check(id.as_bytes()))?;
        }
        if event.id.is_some() || event.retry_millis.is_some() {
            self.queue.push_back(Event::Cursor { id: event.id, retry_millis: event.retry_millis });
        }
        if event.data.is_empty() {
            return Ok(());
        }
        let message = Message::parse(&self.link.bodies.carry(Bytes::from(event.data)))
            .map_err(|_| UpstreamError::Protocol("an event is not a valid JSON-RPC message"))?;
        self.deadline = self.patience.until();
        self.resumes = 0;
        match message {
            Message::Notification(said) => {
                let params = said.params.map(|params| params.raw().clone());
                self.queue.push_back(Event::Notification { method: said.method, params });
            }
            Message::Request(asked) if self.session.era.is_modern() => {
                // MCP 2026-07-28: "The server MUST NOT send independent JSON-RPC requests on this stream."
                tracing::debug!(upstream = %self.link.name(), method = %asked.method.escape_debug(), "a stateless upstream sent a request; ignored");
            }
            Message::Request(asked) => {
                let params = asked.params.map(|params| params.raw().clone());
                self.queue.push_back(Event::Request { id: asked.id, method: asked.method, params });
                // A person may have to think.
                self.deadline = self.deadline.max(Instant::now() + super::link::ANSWER_WAIT);
            }
            Message::Response(answer) => {
                let ours = self.id.is_some() && (answer.id == self.id || (answer.id.is_none() && answer.outcome.is_err()));
                if ours {
                    self.queue.push_back(answer.outcome.map_or_else(Event::Error, Event::Result));
                } else {
                    tracing::debug!(upstream = %self.link.name(), "an answer to another request; ignored");
                }
            }
        }
        Ok(())
    }
}

/// How long to wait before a stream is taken up again: what the upstream names, within bounds, and twice as long each time that
/// no message came in between.
fn wait(retry_millis: u64, resumes: u32) -> Duration {
    let first = retry_millis.clamp(RETRY_MILLIS_MIN, RETRY_MILLIS_MAX);
    let grown = first.saturating_mul(1 << resumes.saturating_sub(1).min(16));
    Duration::from_millis(grown.min(RETRY_MILLIS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_names_the_wait_within_bounds_and_it_grows_while_nothing_comes() {
        for (retry, resumes, millis) in [
            (0, 1, 500),
            (0, 2, 1_000),
            (1, 5, 8_000),
            (2_000, 1, 2_000),
            (2_000, 3, 8_000),
            (u64::MAX, 1, 30_000),
            (20_000, 2, 30_000),
            (0, u32::MAX, 30_000),
        ] {
            assert_eq!(wait(retry, resumes), Duration::from_millis(millis), "{retry} after {resumes}");
        }
    }
}
