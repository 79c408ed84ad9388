//! How much of what an upstream says by itself may wait for somebody to read it: of one connection, and of one upstream over
//! all tasks. Counted by what is alive, wherever it waits, so that an upstream which talks to nobody, or to a client that
//! reads slowly, costs no more memory than this.

use super::exchange::Event;
use crate::mcp::message::Raw;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Room for the words of one connection, and of all connections to one upstream, in bytes.
pub(super) const OF_CONNECTION: usize = 4 * 1_024 * 1_024;
pub(super) const OF_UPSTREAM: usize = 64 * 1_024 * 1_024;

/// See the module.
pub(super) struct Room {
    taken: Arc<AtomicUsize>,
    bytes_max: usize,
}

/// A part of a room; it is free again when this is dropped.
pub(super) struct Part {
    taken: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Room {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { taken: Arc::default(), bytes_max }
    }

    /// A part of so many bytes, if there is room for it.
    pub(super) fn part(&self, bytes: usize) -> Option<Part> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let part = Part { taken: Arc::clone(&self.taken), bytes };
        (before.saturating_add(bytes) <= self.bytes_max).then_some(part)
    }
}

/// Bytes that take their room as long as anybody holds them.
struct Counted {
    bytes: Box<[u8]>,
    _parts: [Part; 2],
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The event with its words counted in both rooms.
///
/// # Errors
/// The event as it was: there is no room.
pub(super) fn counted(event: Event, (one, all): (&Room, &Room)) -> Result<Event, Event> {
    let of = |params: &Option<Raw>| {
        let Some(params) = params else { return Some(None) };
        let text = params.as_bytes();
        let parts = [one.part(text.len())?, all.part(text.len())?];
        // A copy: the text may be a small part of a large piece, which it would keep.
        let bytes = Bytes::from_owner(Counted { bytes: text.into(), _parts: parts });
        Some(Some(Raw::trusted(bytes)))
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
