//! Which of a child's lines belongs to which request. All requests share one pair of streams, so answers are matched by
//! id, progress by token, announcements by subscription, and the rest goes to the newest request: whoever asked last is
//! the likeliest cause. MCP "Progress", "Subscriptions"; MCP 2026-07-28 "stdio".

use super::error::UpstreamError;
use super::exchange::Event;
use crate::mcp::message::{Id, Raw};
use crate::mcp::object::Members;
use crate::mcp::version::meta;
use crate::room::{Part, Room};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc;

/// Most requests under way at one child.
const REQUESTS_MAX: usize = 256;
/// Most events, and most bytes, that may wait for a client which reads slowly; and most bytes for all requests of a child.
const EVENTS_MAX: usize = 256;
const REQUEST_BYTES_MAX: usize = 24 * 1_024 * 1_024;
const BYTES_MAX: usize = 48 * 1_024 * 1_024;

/// An event on its way to the exchange, with the room that it takes.
pub(super) struct Delivered {
    event: Result<Event, UpstreamError>,
    _part: Part,
}

impl Delivered {
    /// Takes it out and gives its room back.
    pub(super) fn take(self) -> Result<Event, UpstreamError> {
        self.event
    }
}

struct Entry {
    events: mpsc::Sender<Delivered>,
    room: Room,
    is_subscription: bool,
    /// The progress token on the wire and, if that is not the client's own, the client's.
    token: Option<(Value, Option<Value>)>,
}

impl Entry {
    /// `false`: the client does not read, so the request is given up.
    fn deliver(&self, event: Result<Event, UpstreamError>, bytes: usize) -> bool {
        self.room.part(bytes).is_some_and(|part| self.events.try_send(Delivered { event, _part: part }).is_ok())
    }
}

/// All requests under way at one child, by their number: the newest is the last.
pub(super) struct Waiting {
    entries: Mutex<BTreeMap<i64, Entry>>,
    /// For the events of all of them.
    room: Room,
}

/// Where a request's events arrive, and the parameters as they must be sent.
pub(super) type Entered = (mpsc::Receiver<Delivered>, Option<Raw>);

impl Waiting {
    /// Nobody waits yet. What waits later takes the room of this task.
    pub(super) fn new(task: &Room) -> Self {
        Self { entries: Mutex::default(), room: task.within(BYTES_MAX) }
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<i64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is about to be sent. Its progress token changes if another request uses the same one.
    pub(super) fn enter(&self, id: &Id, method: &str, params: Option<&Raw>) -> Result<Entered, UpstreamError> {
        let Id::Number(number) = *id else { return Err(UpstreamError::Protocol("ids to a child are numbers")) };
        let own = params.and_then(progress_token);
        let mut entries = self.entries();
        if entries.len() >= REQUESTS_MAX {
            return Err(UpstreamError::Busy("requests"));
        }
        let taken = |token: &Value| entries.values().any(|entry| entry.token.as_ref().is_some_and(|(used, _)| used == token));
        let (token, params) = match (own, params) {
            (Some(own), Some(params)) if taken(&own) => {
                let other = json!(format!("writ-{number}"));
                let params = with_token(params, &other)?;
                (Some((other, Some(own))), Some(params))
            }
            (own, params) => (own.map(|own| (own, None)), params.cloned()),
        };
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let is_subscription = method == "subscriptions/listen";
        entries.insert(number, Entry { events: sender, room: self.room.within(REQUEST_BYTES_MAX), is_subscription, token });
        Ok((events, params))
    }

    /// A request is no longer waited for. Whether it was.
    pub(super) fn leave(&self, id: &Id) -> bool {
        let Id::Number(number) = id else { return false };
        self.entries().remove(number).is_some()
    }

    /// The outcome of a request. Whether anybody waited for it.
    pub(super) fn finish(&self, id: &Id, event: Result<Event, UpstreamError>, bytes: usize) -> bool {
        let Id::Number(number) = id else { return false };
        let entry = self.entries().remove(number);
        entry.is_some_and(|entry| entry.deliver(event, bytes) || entry.deliver(Err(UpstreamError::NoRoom), 0))
    }

    /// Every request fails.
    pub(super) fn fail_all(&self, error: &UpstreamError) {
        let entries = std::mem::take(&mut *self.entries());
        for entry in entries.into_values() {
            entry.deliver(Err(error.clone()), 0);
        }
    }

    /// A notification finds its request, or comes back.
    pub(super) fn notification(&self, method: String, params: Option<Raw>, bytes: usize) -> Option<Event> {
        match method.as_str() {
            "notifications/progress" => self.progress(method, params, bytes),
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed"
            | "notifications/resources/updated"
            | "notifications/subscriptions/acknowledged" => {
                let number = params.as_ref().and_then(subscription);
                let event = Event::Notification { method, params };
                match number {
                    Some(number) => self.to(number, event, bytes),
                    None => Some(event),
                }
            }
            "notifications/cancelled" => {
                let number = params.as_ref().and_then(|params| params.to_value().get("requestId").and_then(Value::as_i64));
                let mut entries = self.entries();
                match number.filter(|number| entries.get(number).is_some_and(|entry| entry.is_subscription)) {
                    Some(number) => {
                        if let Some(entry) = entries.remove(&number) {
                            entry.deliver(Err(UpstreamError::Closed), 0);
                        }
                        None
                    }
                    None => {
                        drop(entries);
                        self.to_newest(Event::Notification { method, params }, bytes)
                    }
                }
            }
            _ => self.to_newest(Event::Notification { method, params }, bytes),
        }
    }

    fn progress(&self, method: String, params: Option<Raw>, bytes: usize) -> Option<Event> {
        let token = params.as_ref().and_then(|params| params.to_value().get("progressToken").cloned())?;
        let entries = self.entries();
        let (number, own) = entries.iter().find_map(|(number, entry)| match &entry.token {
            Some((used, own)) if *used == token => Some((*number, own.clone())),
            _ => None,
        })?;
        drop(entries);
        let params = match (own, params) {
            (Some(own), Some(params)) => Members::of(&params).map(|mut members| {
                members.set("progressToken", &own);
                members.to_raw()
            }),
            (_, params) => params,
        };
        // Progress of a request that has ended is nobody's business.
        let _ = self.to(number, Event::Notification { method, params }, bytes);
        None
    }

    fn to(&self, number: i64, event: Event, bytes: usize) -> Option<Event> {
        let mut entries = self.entries();
        let Some(entry) = entries.get(&number) else { return Some(event) };
        if !entry.deliver(Ok(event), bytes) {
            entries.remove(&number);
        }
        None
    }

    /// An event goes to the newest request that is no subscription, or comes back.
    pub(super) fn to_newest(&self, event: Event, bytes: usize) -> Option<Event> {
        let newest = self.entries().iter().rev().find(|(_, entry)| !entry.is_subscription).map(|(number, _)| *number);
        match newest {
            Some(number) => self.to(number, event, bytes),
            None => Some(event),
        }
    }
}

fn progress_token(params: &Raw) -> Option<Value> {
    Members::of(params)?.value("_meta")?.get("progressToken").cloned()
}

fn with_token(params: &Raw, token: &Value) -> Result<Raw, UpstreamError> {
    const NOT_AN_OBJECT: UpstreamError = UpstreamError::Protocol("parameters are not an object");
    let mut members = Members::of(params).ok_or(NOT_AN_OBJECT)?;
    let mut tags = members.value("_meta").ok_or(NOT_AN_OBJECT)?;
    if let Some(tags) = tags.as_object_mut() {
        tags.insert("progressToken".to_owned(), token.clone());
    }
    members.set("_meta", &tags);
    Ok(members.to_raw())
}

fn subscription(params: &Raw) -> Option<i64> {
    Members::of(params)?.value("_meta")?.get(meta::SUBSCRIPTION_ID).and_then(Value::as_i64)
}
