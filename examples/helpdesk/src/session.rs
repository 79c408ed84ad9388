//! Sessions of the older protocol revisions: an identifier handed out at `initialize`, presented on
//! every later request, forgotten at `DELETE`. The stateless revision never comes here.
//! MCP 2025-11-25, basic/transports, "Session Management".

use std::collections::VecDeque;
use std::sync::Mutex;

use crate::held;

/// Sessions kept at once; the oldest goes first. A client that lost its session initializes again.
const SESSIONS_MAX: usize = 1_000;

/// The open sessions with the revision that each agreed on.
#[derive(Default)]
pub(crate) struct Sessions {
    open: Mutex<VecDeque<(String, &'static str)>>,
}

impl Sessions {
    /// Opens a session for an agreed revision and names it.
    pub(crate) fn open(&self, revision: &'static str) -> String {
        let id = uuid::Uuid::now_v7().simple().to_string();
        let mut open = held(&self.open);
        if open.len() >= SESSIONS_MAX {
            open.pop_front();
        }
        open.push_back((id.clone(), revision));
        id
    }

    /// The revision that a session agreed on, if it is open.
    pub(crate) fn revision(&self, id: &str) -> Option<&'static str> {
        held(&self.open).iter().find(|(known, _)| known == id).map(|(_, revision)| *revision)
    }

    /// Ends a session; false if it was not open.
    pub(crate) fn end(&self, id: &str) -> bool {
        let mut open = held(&self.open);
        let before = open.len();
        open.retain(|(known, _)| known != id);
        open.len() < before
    }
}
