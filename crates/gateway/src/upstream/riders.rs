//! Requests of stateless clients under way in a session, as places where the client can be asked something. A session may
//! ask outside any request; a stateless client can only be asked within one. The newest is the likeliest cause.

use super::exchange::Event;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Questions that wait for one request.
const QUESTIONS_MAX: usize = 16;

type Places = BTreeMap<u64, mpsc::Sender<Event>>;

/// See the module.
#[derive(Default)]
pub(super) struct Riders(Arc<Mutex<Places>>);

/// A request's place; it goes when the request does.
pub(super) struct Rider {
    number: u64,
    places: Arc<Mutex<Places>>,
    questions: mpsc::Receiver<Event>,
}

impl Riders {
    /// A place for one more request.
    pub(super) fn enter(&self) -> Rider {
        let (sender, questions) = mpsc::channel(QUESTIONS_MAX);
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = places.last_key_value().map_or(0, |(last, _)| last + 1);
        places.insert(number, sender);
        Rider { number, places: Arc::clone(&self.0), questions }
    }

    /// Gives an event to the newest request, or back.
    pub(super) fn give(&self, event: Event) -> Option<Event> {
        let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match places.last_key_value() {
            Some((_, newest)) => newest.try_send(event).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(event),
        }
    }
}

impl Rider {
    /// The next question. Safe to cancel.
    pub(super) async fn question(&mut self) -> Event {
        match self.questions.recv().await {
            Some(event) => event,
            // The sender goes only with this.
            None => std::future::pending().await,
        }
    }
}

impl Drop for Rider {
    fn drop(&mut self) {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}
