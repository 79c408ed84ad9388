//! What an upstream says outside any request, kept until somebody listens. Bounded: an upstream that talks to nobody
//! loses its oldest words first. Also what a session of the client remembers where a stateless upstream does not.

use super::exchange::Event;
use super::restore::Told;
use crate::mcp::message::Raw;
use crate::room::Room;
use authority::Warrant;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use tokio::sync::{Notify, broadcast, watch};

/// Room for the words of one connection, and of all connections to one upstream, in bytes.
pub(super) const OF_CONNECTION: usize = 4 * 1_024 * 1_024;
pub(super) const OF_UPSTREAM: usize = 64 * 1_024 * 1_024;
/// Events that a slow listener may fall behind.
const BEHIND_MAX: usize = 256;
/// Events kept while nobody listens.
const KEPT_MAX: usize = 64;
/// Most resources that one session may subscribe to.
const RESOURCES_MAX: usize = 1_024;

/// A resource whose changes somebody wants to hear of.
#[derive(Default)]
struct Wanted {
    /// How many do.
    count: usize,
    /// The decision that let it be asked for, if it was one of its own.
    warrant: Option<Warrant>,
}

/// See the module.
pub(super) struct Inbox {
    events: broadcast::Sender<Event>,
    kept: Mutex<VecDeque<Event>>,
    log_level: Mutex<Option<String>>,
    /// Resources with the number of those who want to hear of them.
    resources: Mutex<BTreeMap<String, Wanted>>,
    /// The set of resources changed.
    pub(super) changed: Notify,
    /// Whether somebody fetches events from the upstream.
    pumping: Mutex<bool>,
    /// Whether the stream of announcements is open, or it is known that there is none.
    opened: watch::Sender<bool>,
    /// A listener that keeps the stream open for a client which has none of its own.
    kept_open: Mutex<Option<broadcast::Receiver<Event>>>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            events: broadcast::Sender::new(BEHIND_MAX),
            kept: Mutex::default(),
            log_level: Mutex::default(),
            resources: Mutex::default(),
            changed: Notify::new(),
            pumping: Mutex::default(),
            opened: watch::Sender::new(false),
            kept_open: Mutex::default(),
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// Takes an event in.
    pub(super) fn push(&self, event: Event) {
        let mut kept = locked(&self.kept);
        if let Err(broadcast::error::SendError(event)) = self.events.send(event) {
            if kept.len() >= KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back(event);
        }
    }

    /// Forgets the oldest of what nobody has heard yet; `false`: there is nothing.
    pub(super) fn forget_oldest(&self) -> bool {
        locked(&self.kept).pop_front().is_some()
    }

    /// Listens from now on, and to what nobody has heard yet.
    pub(super) fn listen(&self) -> broadcast::Receiver<Event> {
        let mut kept = locked(&self.kept);
        let receiver = self.events.subscribe();
        for event in kept.drain(..) {
            // There is a receiver: the one above.
            let _ = self.events.send(event);
        }
        receiver
    }

    /// Resolves when nobody listens any more.
    pub(super) async fn deserted(&self) {
        self.events.closed().await;
    }

    /// Whether the caller shall start to fetch events: nobody else does.
    pub(super) fn start_pumping(&self) -> bool {
        !std::mem::replace(&mut *locked(&self.pumping), true)
    }

    /// The caller stops to fetch events. `false`: somebody has begun to listen meanwhile, so it must go on.
    pub(super) fn stop_pumping(&self, anyway: bool) -> bool {
        let mut pumping = locked(&self.pumping);
        let stops = anyway || self.events.receiver_count() == 0;
        if stops {
            *pumping = false;
        }
        stops
    }

    /// From now on there is always a listener. Whether there was none of this kind before.
    pub(super) fn keep_open(&self) -> bool {
        let mut kept_open = locked(&self.kept_open);
        let first = kept_open.is_none();
        if first {
            *kept_open = Some(self.events.subscribe());
        }
        first
    }

    /// The stream of announcements is open, or there is none.
    pub(super) fn set_opened(&self, opened: bool) {
        self.opened.send_replace(opened);
    }

    /// Resolves when that is so.
    pub(super) async fn opened(&self) {
        // The sender lives in `self`.
        let _ = self.opened.subscribe().wait_for(|opened| *opened).await;
    }

    /// The log level that the client set for its session.
    pub(super) fn log_level(&self) -> Option<String> {
        locked(&self.log_level).clone()
    }

    /// Remembers it; `false` if it was the same before.
    pub(super) fn set_log_level(&self, level: String) -> bool {
        let old = locked(&self.log_level).replace(level.clone());
        old != Some(level)
    }

    /// One more wants to hear of this resource. `None`: there are too many; else whether it is the first.
    pub(super) fn subscribe(&self, uri: &str) -> Option<bool> {
        let mut resources = locked(&self.resources);
        if resources.len() >= RESOURCES_MAX && !resources.contains_key(uri) {
            return None;
        }
        let wanted = resources.entry(uri.to_owned()).or_default();
        wanted.count += 1;
        Some(wanted.count == 1)
    }

    /// One fewer. Whether it was the last.
    pub(super) fn unsubscribe(&self, uri: &str) -> bool {
        let mut resources = locked(&self.resources);
        let Some(wanted) = resources.get_mut(uri) else { return false };
        wanted.count -= 1;
        let last = wanted.count == 0;
        if last {
            resources.remove(uri);
        }
        last
    }

    /// Remembers what a session was told.
    pub(super) fn note(&self, told: Told) {
        match told {
            Told::Level(level) => drop(self.set_log_level(level)),
            Told::Subscribed(uri, warrant) => {
                let mut resources = locked(&self.resources);
                if resources.len() < RESOURCES_MAX || resources.contains_key(&uri) {
                    resources.insert(uri, Wanted { count: 1, warrant });
                }
            }
            Told::Unsubscribed(uri) => drop(locked(&self.resources).remove(&uri)),
        }
    }

    /// What another session must be told.
    pub(super) fn told(&self) -> Vec<Told> {
        let level = self.log_level().map(Told::Level);
        let resources = locked(&self.resources);
        let resources = resources.iter().map(|(uri, wanted)| Told::Subscribed(uri.clone(), wanted.warrant.clone()));
        level.into_iter().chain(resources).collect()
    }

    /// Forgets what another session was not told.
    pub(super) fn forget(&self, told: &Told) {
        match told {
            Told::Level(_) => *locked(&self.log_level) = None,
            Told::Subscribed(uri, _) | Told::Unsubscribed(uri) => drop(locked(&self.resources).remove(uri)),
        }
    }

    /// All of them.
    pub(super) fn resources(&self) -> Vec<String> {
        locked(&self.resources).keys().cloned().collect()
    }
}

/// The event with its words counted in this room.
///
/// # Errors
/// The event as it was: there is no room.
pub(super) fn counted(event: Event, room: &Room) -> Result<Event, Event> {
    let of = |params: &Option<Raw>| {
        let Some(params) = params else { return Some(None) };
        let part = room.part(params.as_bytes().len())?;
        // A copy: the text may be a small part of a large piece, which it would keep.
        Some(Some(Raw::trusted(part.hold(Bytes::copy_from_slice(params.as_bytes())))))
    };
    match event {
        Event::Notification { method, params } => match of(&params) {
            Some(params) => Ok(Event::Notification { method, params }),
            None => Err(Event::Notification { method, params }),
        },
        Event::Request { id, method, params } => match of(&params) {
            Some(params) => Ok(Event::Request { id, method, params }),
            None => Err(Event::Request { id, method, params }),
        },
        other => Ok(other),
    }
}
