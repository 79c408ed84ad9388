//! Handles of long-running work that an upstream gave to a task in place of a result. An upstream sees one client, the
//! gateway, so it cannot tell whose handle comes back: here it is known, and nobody else's handle exists.
//! Kept in memory: after a restart the work goes on at the upstream, but its handles are not known any more.
//! MCP extension `io.modelcontextprotocol/tasks` ("Auth binding"); MCP 2025-11-25 "Tasks".

use crate::answer::Asking;
use domain::{TaskId, UpstreamName};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most handles of one task at one upstream; the oldest is forgotten.
const HANDLES_MAX: usize = 1_024;
/// Longest handle that is kept.
const HANDLE_BYTES_MAX: usize = 512;

/// Largest request of which it is kept how to decide it again.
const ASKING_BYTES_MAX: usize = 16 * 1_024;

type Table = HashMap<TaskId, HashMap<UpstreamName, VecDeque<Handle>>>;

/// One handle, and the call that it was given for.
struct Handle {
    name: Box<str>,
    asking: Option<Asking>,
}

/// All handles.
#[derive(Default)]
pub(crate) struct Handles(Mutex<Table>);

impl Handles {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a handle that was given to a task.
    pub(crate) fn note(&self, task: TaskId, upstream: &UpstreamName, handle: &str, asking: Option<Asking>) {
        if handle.len() > HANDLE_BYTES_MAX {
            return;
        }
        let mut table = self.table();
        let handles = table.entry(task).or_default().entry(upstream.clone()).or_default();
        if handles.len() >= HANDLES_MAX {
            handles.pop_front();
        }
        let asking = asking.filter(|asking| asking.bytes() <= ASKING_BYTES_MAX);
        handles.push_back(Handle { name: handle.into(), asking });
    }

    /// Whether the handle was given to this task by this upstream.
    pub(crate) fn knows(&self, task: TaskId, upstream: &UpstreamName, handle: &str) -> bool {
        let table = self.table();
        table.get(&task).and_then(|of| of.get(upstream)).is_some_and(|handles| handles.iter().any(|known| *known.name == *handle))
    }

    /// The call that the handle was given to this task for, if it can be decided again.
    pub(crate) fn asking(&self, task: TaskId, upstream: &UpstreamName, handle: &str) -> Option<Asking> {
        let table = self.table();
        let known = table.get(&task)?.get(upstream)?.iter().find(|known| *known.name == *handle)?;
        known.asking.clone()
    }

    /// Forgets the handles of tasks that ended.
    pub(crate) fn sweep(&self, over: impl Fn(TaskId) -> bool) {
        self.table().retain(|task, _| !over(*task));
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_handle_belongs_to_one_task_at_one_upstream() {
        let handles = Handles::default();
        let (one, two) = (TaskId::from_bytes([1; 16]), TaskId::from_bytes([2; 16]));
        let (orders, mail) = ("orders".parse().unwrap(), "mail".parse().unwrap());
        handles.note(one, &orders, "h", None);
        assert!(handles.knows(one, &orders, "h"));
        assert!(!handles.knows(two, &orders, "h"));
        assert!(!handles.knows(one, &mail, "h"));
        for number in 0..HANDLES_MAX {
            handles.note(one, &orders, &number.to_string(), None);
        }
        assert!(!handles.knows(one, &orders, "h"), "the oldest goes first");
        handles.sweep(|task| task == one);
        assert!(!handles.knows(one, &orders, "1"));
    }
}
