//! Places for requests under way, and for child processes: so many in all and so many for each task. A place is given back when its holder is
//! dropped, however that happens.

use crate::respond::Refusal;
use domain::TaskId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

/// All places.
#[derive(Debug)]
pub(crate) struct Slots {
    all: Arc<Semaphore>,
    all_max: u32,
    by_task: Arc<Mutex<HashMap<TaskId, usize>>>,
    by_task_max: usize,
    freed: Arc<Notify>,
}

/// One place.
#[derive(Debug)]
pub(crate) struct Slot {
    task: TaskId,
    by_task: Arc<Mutex<HashMap<TaskId, usize>>>,
    freed: Arc<Notify>,
    place: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub(crate) fn new(all_max: usize, by_task_max: usize) -> Self {
        let all_max = u32::try_from(all_max).unwrap_or(u32::MAX).min(1 << 28);
        Self {
            all: Arc::new(Semaphore::new(all_max as usize)),
            all_max,
            by_task: Arc::default(),
            by_task_max,
            freed: Arc::default(),
        }
    }

    /// A place for a request of this task, if there is one. Nobody waits: a queue would only hide the overload.
    pub(crate) fn take(&self, task: TaskId) -> Result<Slot, Refusal> {
        let place = Arc::clone(&self.all).try_acquire_owned().map_err(|_| Refusal::Busy("requests"))?;
        let mut by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = by_task.entry(task).or_insert(0);
        if *taken >= self.by_task_max {
            return Err(Refusal::Busy("requests of this task"));
        }
        *taken += 1;
        Ok(Slot { task, by_task: Arc::clone(&self.by_task), freed: Arc::clone(&self.freed), place: Some(place) })
    }

    /// The same for somebody who may wait a while for what others are about to give back.
    pub(crate) async fn take_within(&self, task: TaskId, patience: Duration) -> Result<Slot, Refusal> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let freed = self.freed.notified();
            let refusal = match self.take(task) {
                Ok(slot) => return Ok(slot),
                Err(refusal) => refusal,
            };
            if timeout_at(deadline, freed).await.is_err() {
                return Err(refusal);
            }
        }
    }

    /// Resolves when nobody holds a place.
    pub(crate) async fn idle(&self) {
        // The semaphore is never closed, so this cannot fail.
        let _ = self.all.acquire_many(self.all_max).await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_task = self.by_task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = by_task.get_mut(&self.task) {
            *taken -= 1;
            if *taken == 0 {
                by_task.remove(&self.task);
            }
        }
        drop(by_task);
        // Given back before anybody is told.
        drop(self.place.take());
        self.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn one_task_cannot_take_all_places_and_places_come_back() {
        let slots = Slots::new(3, 2);
        let (one, two) = (TaskId::from_bytes([1; 16]), TaskId::from_bytes([2; 16]));
        let held = [slots.take(one).unwrap(), slots.take(one).unwrap()];
        assert!(matches!(slots.take(one), Err(Refusal::Busy("requests of this task"))));
        let last = slots.take(two).unwrap();
        assert!(matches!(slots.take(two), Err(Refusal::Busy("requests"))));
        drop(held);
        drop(last);
        slots.idle().await;
        assert!(slots.by_task.lock().unwrap().is_empty());
    }
}
