//! Requests that an upstream with sessions holds open while a stateless client is asked for input. Bounded in number and
//! time; they end with their task. MCP 2026-07-28 "Multi Round-Trip Requests" in front, elicitation, sampling and roots of
//! the session revisions behind.

use crate::config::Limits;
use crate::flight::Flight;
use domain::TaskId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most held requests of one task, so that one task cannot take all places.
const HELD_PER_TASK_MAX: usize = 16;

/// The key under which the one question of a held request stands in `inputRequests`.
pub(crate) const INPUT_KEY: &str = "input";

/// All held requests.
pub(crate) struct HeldRequests {
    held: Mutex<Table>,
    max: usize,
    patience: Duration,
}

#[derive(Default)]
struct Table {
    next: u64,
    flights: HashMap<u64, (Flight, Instant)>,
}

impl HeldRequests {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { held: Mutex::default(), max: limits.held_max, patience: Duration::from_secs(limits.held_secs) }
    }

    /// Keeps a request; its number, or `None` if there is no room.
    pub(crate) fn keep(&self, flight: Flight) -> Option<u64> {
        let mut table = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let task = flight.caller.task();
        let mine = table.flights.values().filter(|(held, _)| held.caller.task() == task).count();
        if table.flights.len() >= self.max || mine >= HELD_PER_TASK_MAX {
            // The flight is dropped after the lock: cancelling may take other locks.
            drop(table);
            return None;
        }
        let number = table.next;
        table.next += 1;
        table.flights.insert(number, (flight, Instant::now()));
        Some(number)
    }

    /// Takes a request out.
    pub(crate) fn take(&self, number: u64) -> Option<Flight> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).flights.remove(&number).map(|(flight, _)| flight)
    }

    /// Drops, and thereby cancels, what has waited too long or belongs to a task that ended.
    pub(crate) fn sweep(&self, over: impl Fn(TaskId) -> bool) {
        let mut table = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<_> = table
            .flights
            .extract_if(|_, (flight, since)| since.elapsed() > self.patience || over(flight.caller.task()))
            .collect();
        // Dropped after the lock: cancelling may take other locks.
        drop(table);
        drop(gone);
    }
}
