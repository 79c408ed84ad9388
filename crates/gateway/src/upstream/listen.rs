//! Changes that an upstream announces by itself, from where its era says them to where the client's era hears them: the
//! GET stream of a session, `subscriptions/listen` of a stateless upstream, and `subscriptions/listen` of a stateless
//! client in front of a session. MCP 2026-07-28 "Subscriptions"; MCP 2025-11-25 "Listening for Messages".

use super::bridge;
use super::error::UpstreamError;
use super::exchange::{Event, Source};
use super::http_stream::{HttpStream, Patience};
use super::inbox::counted;
use super::link::{Carrier, Link, Prepared, Session, spawn};
use crate::answer;
use crate::mcp::message::{Id, Raw};
use crate::mcp::stream;
use http::HeaderMap;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};

/// The silence that a stream of announcements may keep.
const SILENCE: Duration = Duration::from_secs(24 * 3_600);
/// The first wait before a stream is opened again, and how often it is doubled.
const FAILURES_MAX: u32 = 6;
const BACKOFF: Duration = Duration::from_secs(1);
/// How long a request waits for the stream to be open.
const READY_WAIT: Duration = Duration::from_secs(2);
const ACKNOWLEDGED: &str = "notifications/subscriptions/acknowledged";

/// Makes sure that announcements are fetched while somebody listens.
pub(super) fn pump(link: &Arc<Link>) {
    if !link.inbox.start_pumping() {
        return;
    }
    let link = Arc::clone(link);
    spawn(async move {
        loop {
            let done = tokio::select! {
                biased;
                () = link.closed() => true,
                () = link.inbox.deserted() => false,
                never = fetch(&link) => match never {},
            };
            if link.inbox.stop_pumping(done) {
                return;
            }
        }
    });
}

/// Makes sure that a session's stream for what belongs to no request is open, as a client of the session revisions would,
/// before a stateless client's request is sent: what the upstream asks because of it may come there.
pub(super) async fn ready(link: &Arc<Link>, session: &Arc<Session>) {
    if !matches!(session.carrier, Carrier::Http(Some(_))) {
        return;
    }
    if link.inbox.keep_open() {
        pump(link);
    }
    // An upstream that opens it late may lose a question, no more.
    let _ = timeout(READY_WAIT, link.inbox.opened()).await;
}

/// Fetches as long as somebody listens: whoever does is not told that nothing would come any more.
async fn fetch(link: &Arc<Link>) -> Infallible {
    let mut failures = 0;
    let mut sessions = link.sessions();
    loop {
        sessions.mark_unchanged();
        let fetched = match link.session().await {
            Ok(session) => {
                // A session that took the place of this one announces nothing on the stream of this one.
                let replaced = async { drop(sessions.changed().await) };
                tokio::select! {
                    biased;
                    () = replaced => Ok(Next::Again),
                    fetched = fetch_once(link, &session, &mut failures) => fetched,
                }
            }
            Err(error) => Err(error),
        };
        match fetched {
            Ok(Next::Again) => continue,
            Ok(Next::NotOffered) => {
                link.inbox.set_opened(true);
                // Of another session it may be, or this one was lost and the upstream said so in this way. The sender is
                // the link's.
                let _ = sessions.changed().await;
                continue;
            }
            Err(error) => tracing::debug!(%error, upstream = %link.name(), "a stream of announcements broke off"),
        }
        tokio::time::sleep(BACKOFF * 2_u32.pow(failures)).await;
        failures = FAILURES_MAX.min(failures + 1);
    }
}

enum Next {
    /// Open the stream again at once.
    Again,
    /// The upstream has no such stream, or its announcements come by another way.
    NotOffered,
}

async fn fetch_once(link: &Arc<Link>, session: &Arc<Session>, failures: &mut u32) -> Result<Next, UpstreamError> {
    let patience = Patience { silence: SILENCE, end: None };
    let mut source = match (&session.carrier, session.era.is_modern()) {
        (Carrier::Child(_), false) => return Ok(Next::NotOffered),
        (Carrier::Http(_), false) => {
            let deadline = Instant::now() + link.timeout();
            let opened = link.listen_http(session, None, deadline).await;
            // Open, refused or broken: nobody need wait for it.
            link.inbox.set_opened(true);
            let Some(body) = opened? else { return Ok(Next::NotOffered) };
            Source::Http(Box::new(HttpStream::new(Arc::clone(link), Arc::clone(session), body, None, patience)))
        }
        (_, true) if link.client.era.is_modern() => return Ok(Next::NotOffered),
        (_, true) => subscription(link, session).await?,
    };
    loop {
        let event = tokio::select! {
            biased;
            () = link.inbox.changed.notified(), if session.era.is_modern() => return Ok(Next::Again),
            event = source.next() => event?,
        };
        match event {
            Event::Notification { ref method, .. } if method == ACKNOWLEDGED => {}
            Event::Notification { .. } | Event::Request { .. } => {
                *failures = 0;
                deliver(link, event);
            }
            Event::Result(_) => return Err(UpstreamError::Closed),
            Event::Error(_) => return Ok(Next::NotOffered),
            Event::Cursor { .. } | Event::Paused => {}
        }
    }
}

/// Hands an event to whoever listens on this connection.
pub(super) fn deliver(link: &Arc<Link>, mut event: Event) {
    if let Event::Notification { method, .. } = &event
        && method == "notifications/tools/list_changed"
    {
        link.hub.catalog.outdated();
    }
    if let Event::Request { id, method, .. } = &event
        && let Some(pong) = answer::to_ping(method)
    {
        return reply(link, id.clone(), Ok(pong));
    }
    // The oldest words go first.
    let event = loop {
        match counted(event, &link.room) {
            Ok(event) => break event,
            Err(again) if link.inbox.forget_oldest() => event = again,
            Err(Event::Request { id, .. }) => return reply(link, id, Err(not_now())),
            Err(_) => {
                tracing::debug!(upstream = %link.name(), "an upstream says more by itself than is read; not kept");
                return;
            }
        }
    };
    if let Event::Request { id, .. } = &event {
        if link.client.era.is_modern() {
            // A stateless client can only be asked within a request.
            if let Some(Event::Request { id, .. }) = link.riders.give(event) {
                reply(link, id, Err(not_now()));
            }
            return;
        }
        link.note_asked(id, None);
    }
    link.inbox.push(event);
}

fn not_now() -> Raw {
    Raw::from_value(&json!({ "code": -32601, "message": "the client cannot be asked now" }))
}

/// Answers a question in place of the client.
fn reply(link: &Arc<Link>, id: Id, outcome: Result<Raw, Raw>) {
    let Ok(place) = Arc::clone(&link.replies).try_acquire_owned() else {
        tracing::debug!(upstream = %link.name(), "an upstream asks faster than it takes answers; not answered");
        return;
    };
    let link = Arc::clone(link);
    spawn(async move {
        let _place = place;
        let message = match outcome {
            Ok(result) => stream::result(&id, &result),
            Err(error) => stream::error(Some(&id), &error),
        };
        let sent = match link.session().await {
            Ok(session) => link.send(&session, message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, upstream = %link.name(), "an answer of ours did not reach the upstream");
        }
    });
}

/// A subscription to all that a client with a session would hear of.
async fn subscription(link: &Arc<Link>, session: &Arc<Session>) -> Result<Source, UpstreamError> {
    let mut filter = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
    let resources = link.inbox.resources();
    if let Some(filter) = filter.as_object_mut()
        && !resources.is_empty()
    {
        filter.insert("resourceSubscriptions".into(), json!(resources));
    }
    let params = Raw::from_value(&json!({ "notifications": filter }));
    let params = bridge::outbound(link, session.era, Some(&params))?;
    let method = "subscriptions/listen".to_owned();
    link.open(Prepared { id: link.own_id(), method, params, headers: HeaderMap::new(), warrant: None }).await
}

/// A stateless client's subscription, served from a session.
pub(super) struct Listening {
    link: Arc<Link>,
    events: broadcast::Receiver<Event>,
    first: VecDeque<Event>,
    filter: Map<String, Value>,
    resources: Vec<String>,
}

impl Listening {
    /// Subscribes to what the client asks for, as far as the upstream can.
    pub(super) async fn open(link: &Arc<Link>, session: &Arc<Session>, params: Option<&Raw>) -> Result<Self, UpstreamError> {
        let server = super::era::server(link, session).await?;
        let can = |path: &str| server.capabilities.pointer(path) == Some(&Value::Bool(true));
        let wanted = params.map(Raw::to_value).unwrap_or_default();
        let wanted = wanted.get("notifications").and_then(Value::as_object).cloned().unwrap_or_default();
        let mut listening = Self {
            link: Arc::clone(link),
            events: link.inbox.listen(),
            first: VecDeque::new(),
            filter: Map::new(),
            resources: Vec::new(),
        };
        for (key, capability) in [
            ("toolsListChanged", "/tools/listChanged"),
            ("promptsListChanged", "/prompts/listChanged"),
            ("resourcesListChanged", "/resources/listChanged"),
        ] {
            if wanted.get(key) == Some(&Value::Bool(true)) && can(capability) {
                listening.filter.insert(key.to_owned(), Value::Bool(true));
            }
        }
        if let Some(uris) = wanted.get("resourceSubscriptions").and_then(Value::as_array)
            && can("/resources/subscribe")
        {
            for uri in uris.iter().filter_map(Value::as_str) {
                listening.add_resource(uri).await?;
            }
            listening.filter.insert("resourceSubscriptions".to_owned(), json!(listening.resources));
        }
        let params = Raw::from_value(&json!({ "notifications": listening.filter }));
        listening.first.push_back(Event::Notification { method: ACKNOWLEDGED.to_owned(), params: Some(params) });
        pump(link);
        Ok(listening)
    }

    async fn add_resource(&mut self, uri: &str) -> Result<(), UpstreamError> {
        let first = self.link.inbox.subscribe(uri).ok_or(UpstreamError::Busy("subscriptions"))?;
        self.resources.push(uri.to_owned());
        if first {
            let outcome = self.link.call("resources/subscribe", Some(Raw::from_value(&json!({ "uri": uri })))).await?;
            if outcome.is_err() {
                self.resources.pop();
                self.link.inbox.unsubscribe(uri);
            }
        }
        Ok(())
    }

    /// The next event. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Event, UpstreamError> {
        loop {
            if let Some(event) = self.first.pop_front() {
                return Ok(event);
            }
            match self.events.recv().await {
                // Not all that was asked for is announced any more.
                Ok(event @ Event::Error(_)) => return Ok(event),
                Ok(event) if self.wants(&event) => return Ok(event),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return Err(UpstreamError::Overrun),
                Err(broadcast::error::RecvError::Closed) => return Err(UpstreamError::Closed),
            }
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let Event::Notification { method, params } = event else { return false };
        let key = match method.as_str() {
            "notifications/tools/list_changed" => "toolsListChanged",
            "notifications/prompts/list_changed" => "promptsListChanged",
            "notifications/resources/list_changed" => "resourcesListChanged",
            "notifications/resources/updated" => {
                let uri = params.as_ref().map(Raw::to_value).unwrap_or_default();
                // A server may announce a part of what was subscribed to (MCP 2025-11-25 "Subscriptions").
                return uri
                    .get("uri")
                    .and_then(Value::as_str)
                    .is_some_and(|uri| self.resources.iter().any(|wanted| uri.starts_with(wanted.as_str())));
            }
            _ => return false,
        };
        self.filter.contains_key(key)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let gone: Vec<String> = self.resources.drain(..).filter(|uri| self.link.inbox.unsubscribe(uri)).collect();
        if gone.is_empty() || self.link.is_closed() {
            return;
        }
        let link = Arc::clone(&self.link);
        spawn(async move {
            for uri in gone {
                if let Err(error) = link.call("resources/unsubscribe", Some(Raw::from_value(&json!({ "uri": uri })))).await {
                    tracing::debug!(%error, upstream = %link.name(), "a subscription could not be taken back");
                }
            }
        });
    }
}
