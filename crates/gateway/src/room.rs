//! How many bytes may be held: of answers on their way to a task and of its requests, of what an upstream says by itself, of
//! the lines of a child. A room counts what is alive, wherever it waits, so that somebody who reads slowly, or never, costs no
//! more memory than this. Rooms lie within each other (a task's within that of all), and none may hold more than it leaves to
//! the others beside it: whatever one takes, there is something left. No I/O, no clock.

use bytes::Bytes;
use domain::TaskId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Room for the requests and answers of all tasks, and of one: a few of the largest answers. Each half of the data plane has it.
const OF_ALL: usize = 512 * 1_024 * 1_024;
pub(crate) const OF_TASK: usize = 64 * 1_024 * 1_024;
/// Bodies up to this are not counted: they cost little beside the place of their request and their connection, which are.
const SMALL: usize = 16 * 1_024;
/// What a member or element of JSON that was read may take in memory, beside its text.
const ELEMENT_BYTES: usize = 80;

/// See the module. Cheap to clone: all clones are one.
#[derive(Clone)]
pub(crate) struct Room(Arc<Walls>);

struct Walls {
    taken: AtomicUsize,
    bytes_max: usize,
    outer: Option<Room>,
    /// Of a task: where it is found.
    listed: Option<(TaskId, Listed)>,
}

type Listed = Arc<Mutex<HashMap<TaskId, Weak<Walls>>>>;

impl Drop for Walls {
    fn drop(&mut self) {
        let Some((task, listed)) = &self.listed else { return };
        let mut rooms = found(listed);
        // Another may have taken its place meanwhile.
        if rooms.get(task).is_some_and(|room| room.strong_count() == 0) {
            rooms.remove(task);
        }
    }
}

fn found(listed: &Listed) -> MutexGuard<'_, HashMap<TaskId, Weak<Walls>>> {
    listed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Walls { taken: AtomicUsize::new(0), bytes_max, outer: None, listed: None }))
    }

    /// A room within this one.
    pub(crate) fn within(&self, bytes_max: usize) -> Self {
        Self(Arc::new(Walls { taken: AtomicUsize::new(0), bytes_max, outer: Some(self.clone()), listed: None }))
    }

    /// A part of so many bytes, if there is room for it.
    pub(crate) fn part(&self, bytes: usize) -> Option<Part> {
        self.take(bytes).then(|| Part { room: self.clone(), bytes })
    }

    /// A part that covers nothing yet.
    pub(crate) fn empty(&self) -> Part {
        Part { room: self.clone(), bytes: 0 }
    }

    /// The same bytes, which take their room as long as anybody holds them. They were made of bytes that there was room for, so
    /// they are not refused: what an upstream did must not be lost at the last step.
    pub(crate) fn carry(&self, bytes: Bytes) -> Bytes {
        if bytes.len() <= SMALL {
            return bytes;
        }
        self.add(bytes.len());
        let part = Part { room: self.clone(), bytes: bytes.len() };
        part.hold(bytes)
    }

    fn add(&self, bytes: usize) {
        self.0.taken.fetch_add(bytes, Ordering::Relaxed);
        if let Some(outer) = &self.0.outer {
            outer.add(bytes);
        }
    }

    fn give(&self, bytes: usize) {
        self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(outer) = &self.0.outer {
            outer.give(bytes);
        }
    }

    fn take(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let mine = self.0.taken.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let fits = mine <= self.0.bytes_max && self.0.outer.as_ref().is_none_or(|outer| outer.take_for(bytes, mine));
        if !fits {
            self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }

    /// Takes for a room within, which then holds `theirs`: no more than is left.
    fn take_for(&self, bytes: usize, theirs: usize) -> bool {
        if !self.take(bytes) {
            return false;
        }
        let left = self.0.bytes_max.saturating_sub(self.0.taken.load(Ordering::Relaxed));
        let fits = theirs <= left;
        if !fits {
            self.give(bytes);
        }
        fits
    }
}

/// A part of a room; it is free again when this is dropped.
pub(crate) struct Part {
    room: Room,
    bytes: usize,
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.room.give(self.bytes);
        }
    }
}

impl Part {
    /// Makes it a part for a body of so many bytes in all, more or fewer than before; `false`: there is no room, and it stays as
    /// it was.
    pub(crate) fn cover(&mut self, bytes: usize) -> bool {
        let bytes = if bytes <= SMALL { 0 } else { bytes };
        match bytes.checked_sub(self.bytes) {
            Some(0) => {}
            Some(more) if !self.room.take(more) => return false,
            Some(_) => {}
            None => self.room.give(self.bytes - bytes),
        }
        self.bytes = bytes;
        true
    }

    /// Bytes that take this part as long as anybody holds them.
    pub(crate) fn hold(self, bytes: Bytes) -> Bytes {
        if self.bytes == 0 { bytes } else { Bytes::from_owner(Counted { bytes, _part: self }) }
    }
}

/// Bytes that take their room as long as anybody holds them.
struct Counted {
    bytes: Bytes,
    _part: Part,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The rooms of all tasks, within one.
#[derive(Clone)]
pub(crate) struct Rooms {
    all: Room,
    tasks: Listed,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { all: Room::new(OF_ALL), tasks: Arc::default() }
    }
}

impl Rooms {
    /// The room of a task. It is the same as long as anything is in it.
    pub(crate) fn of(&self, task: TaskId) -> Room {
        let mut tasks = found(&self.tasks);
        if let Some(walls) = tasks.get(&task).and_then(Weak::upgrade) {
            return Room(walls);
        }
        let listed = Some((task, Arc::clone(&self.tasks)));
        let walls = Walls { taken: AtomicUsize::new(0), bytes_max: OF_TASK, outer: Some(self.all.clone()), listed };
        let walls = Arc::new(walls);
        tasks.insert(task, Arc::downgrade(&walls));
        Room(walls)
    }
}

/// What JSON takes that is read as a whole: short texts can mean a lot of it.
pub(crate) fn weight(text: &[u8]) -> usize {
    let elements = text.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count();
    text.len().saturating_add(elements.saturating_mul(ELEMENT_BYTES))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const MIB: usize = 1_024 * 1_024;

    fn taken(room: &Room) -> usize {
        room.0.taken.load(Ordering::Relaxed)
    }

    #[test]
    fn a_task_has_its_share_and_gets_it_back_when_nobody_holds_the_bytes() {
        let rooms = Rooms::default();
        let room = rooms.of(TaskId::from_bytes([1; 16]));
        let body = || {
            let mut part = room.empty();
            part.cover(16 * MIB).then(|| part.hold(Bytes::from(vec![0; 16 * MIB])))
        };
        let held: Vec<Bytes> = std::iter::from_fn(body).collect();
        assert_eq!(held.len(), OF_TASK / (16 * MIB));
        let slice = held.first().unwrap().slice(5..9);
        drop(held);
        assert_eq!((taken(&room), taken(&rooms.all)), (16 * MIB, 16 * MIB), "a slice keeps all of it");
        drop(slice);
        assert_eq!((taken(&room), taken(&rooms.all)), (0, 0));
    }

    #[test]
    fn a_dozen_tasks_that_take_what_they_can_leave_room_for_one_more() {
        let rooms = Rooms::default();
        let mut held = Vec::new();
        for task in 0..13 {
            let room = rooms.of(TaskId::from_bytes([task; 16]));
            let mut parts = 0;
            while let Some(part) = room.part(64 * 1_024) {
                held.push(part);
                parts += 1;
            }
            assert!(parts > 0, "task {task} gets nothing");
        }
        assert!(taken(&rooms.all) <= OF_ALL);
    }

    #[test]
    fn the_room_of_a_task_is_one_as_long_as_anything_is_in_it_and_then_forgotten() {
        let rooms = Rooms::default();
        let task = TaskId::from_bytes([1; 16]);
        let kept = rooms.of(task).carry(Bytes::from(vec![0; MIB]));
        assert_eq!(taken(&rooms.of(task)), MIB);
        assert_eq!(found(&rooms.tasks).len(), 1);
        drop(kept);
        assert!(found(&rooms.tasks).is_empty());
    }

    #[test]
    fn what_is_refused_takes_nothing_and_what_shrinks_gives_back() {
        let all = Room::new(100 * SMALL);
        let one = all.within(100 * SMALL);
        let mut part = one.empty();
        assert!(part.cover(40 * SMALL) && !part.cover(60 * SMALL), "no more than it leaves to others");
        assert_eq!((taken(&one), taken(&all)), (40 * SMALL, 40 * SMALL));
        assert!(part.cover(20 * SMALL));
        assert_eq!((taken(&one), taken(&all)), (20 * SMALL, 20 * SMALL));
        assert!(part.cover(SMALL) && taken(&all) == 0, "small bodies are not counted");
    }

    #[test]
    fn json_weighs_what_its_reader_makes_of_it() {
        assert_eq!(weight(br#"{"text":"abc"}"#), 14 + ELEMENT_BYTES);
        assert!(weight("[1,".repeat(1_000).as_bytes()) > 100_000);
    }
}
