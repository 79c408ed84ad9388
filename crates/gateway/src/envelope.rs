//! The envelope around `requestState` and cursors: what an upstream hands to the client to bring back is sealed, so that only
//! the same task can bring it back, for the same request, in time, once (a cursor: as often as it likes). Owns the key, which lives as long as the process:
//! a state from before a restart is refused, and the client starts its request again.
//! MCP 2026-07-28 "Multi Round-Trip Requests", server requirements 4 and 5.

use authority::Authority;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{TaskId, Timestamp, UpstreamName};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Most envelopes that are remembered as opened, of all tasks and of one: none may take the room of the others.
const OPENED_MAX: usize = 100_000;
const OPENED_PER_TASK_MAX: usize = 1_024;
/// Longest state that is looked at, sealed.
const STATE_BYTES_MAX: usize = 256 * 1_024;
/// How long a list may be gone on with.
const CURSOR_SECS: u64 = 24 * 3_600;
const LABEL: &[u8] = b"writ requestState v1";
const SERIAL_BYTES: usize = 16;

/// What an envelope carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// A state that the upstream handed out.
    Upstream(String),
    /// A request that the gateway holds for an upstream with sessions.
    Held(u64),
    /// Where a list of the upstream goes on. May come back more than once.
    Cursor(String),
}

/// Why a state was refused. All the same from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StateFault {
    /// Not ours, changed, of another task or of another request.
    #[error("it is not a state that was handed out for this request")]
    Foreign,
    /// Too late.
    #[error("it has expired")]
    Expired,
    /// Opened before.
    #[error("it was used before")]
    Used,
}

/// Seals and opens.
pub(crate) struct Envelope {
    key: Option<RandomizedNonceKey>,
    secs: u64,
    opened: Mutex<Opened>,
}

/// What was opened, by task.
#[derive(Default)]
struct Opened {
    all: usize,
    by_task: HashMap<TaskId, HashMap<[u8; SERIAL_BYTES], Timestamp>>,
}

impl Opened {
    fn is_full(&self, task: TaskId) -> bool {
        self.all >= OPENED_MAX || self.by_task.get(&task).is_some_and(|own| own.len() >= OPENED_PER_TASK_MAX)
    }

    /// Forgets what has expired.
    fn expire(&mut self, now: Timestamp) {
        self.by_task.retain(|_, own| {
            own.retain(|_, until| *until >= now);
            !own.is_empty()
        });
        self.all = self.by_task.values().map(HashMap::len).sum();
    }
}

/// What a state is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bond {
    task: TaskId,
    request: [u8; 32],
}

impl Bond {
    /// The bond of a request of a task: its upstream, method and all parameters but those that belong to one attempt.
    pub(crate) fn new(task: TaskId, upstream: &UpstreamName, method: &str, params: &Map<String, Value>) -> Self {
        let attempt = ["_meta", "inputResponses", "requestState"];
        let mut salient: Map<String, Value> = params
            .iter()
            .filter(|(key, _)| !attempt.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        salient = Map::from_iter([
            ("method".to_owned(), method.into()),
            ("params".to_owned(), Value::Object(salient)),
            ("upstream".to_owned(), upstream.as_str().into()),
        ]);
        Self { task, request: authority::arguments_digest(&salient) }
    }

    fn aad(&self) -> Aad<Vec<u8>> {
        Aad::from([LABEL, self.task.as_bytes(), &self.request].concat())
    }
}

impl Envelope {
    pub(crate) fn new(authority: &Authority, secs: u64) -> Self {
        let mut key = [0; 32];
        authority.random(&mut key);
        // A key of the right length is always taken; without one every state is refused.
        Self { key: RandomizedNonceKey::new(&AES_256_GCM, &key).ok(), secs, opened: Mutex::default() }
    }

    #[cfg(fuzzing)]
    pub(crate) fn with_key(key: &[u8; 32], secs: u64) -> Option<Self> {
        Some(Self { key: RandomizedNonceKey::new(&AES_256_GCM, key).ok(), secs, opened: Mutex::default() })
    }

    /// Seals a state. `None` only if the generator of random numbers fails.
    pub(crate) fn seal(&self, bond: &Bond, state: &State, serial: [u8; SERIAL_BYTES], now: Timestamp) -> Option<String> {
        let (kind, secs, payload) = match state {
            State::Upstream(text) => (0, self.secs, text.as_bytes().to_vec()),
            State::Held(number) => (1, self.secs, number.to_be_bytes().to_vec()),
            State::Cursor(text) => (2, CURSOR_SECS, text.as_bytes().to_vec()),
        };
        let expires = now.plus_secs(secs).millis().to_be_bytes();
        let mut sealed = [&expires[..], &serial, &[kind], &payload].concat();
        let nonce = self.key.as_ref()?.seal_in_place_append_tag(bond.aad(), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([&nonce.as_ref()[..], &sealed].concat()))
    }

    /// Opens a state, once; a cursor as often as it comes.
    pub(crate) fn open(&self, bond: &Bond, text: &str, now: Timestamp) -> Result<State, StateFault> {
        if text.len() > STATE_BYTES_MAX {
            return Err(StateFault::Foreign);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| StateFault::Foreign)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(StateFault::Foreign)?;
        let key = self.key.as_ref().ok_or(StateFault::Foreign)?;
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::from(nonce);
        let open = key.open_in_place(nonce, bond.aad(), &mut sealed).map_err(|_| StateFault::Foreign)?;
        let (expires, rest) = open.split_first_chunk::<8>().ok_or(StateFault::Foreign)?;
        let (serial, rest) = rest.split_first_chunk::<SERIAL_BYTES>().ok_or(StateFault::Foreign)?;
        let (kind, payload) = rest.split_first().ok_or(StateFault::Foreign)?;
        let expires = Timestamp::from_millis(i64::from_be_bytes(*expires));
        if now > expires {
            return Err(StateFault::Expired);
        }
        let text = || String::from_utf8(payload.to_vec()).map_err(|_| StateFault::Foreign);
        let state = match kind {
            0 => State::Upstream(text()?),
            2 => return Ok(State::Cursor(text()?)),
            _ => State::Held(u64::from_be_bytes(payload.try_into().map_err(|_| StateFault::Foreign)?)),
        };
        self.once(bond.task, *serial, (expires, now))?;
        Ok(state)
    }

    fn once(&self, task: TaskId, serial: [u8; SERIAL_BYTES], (expires, now): (Timestamp, Timestamp)) -> Result<(), StateFault> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.is_full(task) {
            opened.expire(now);
        }
        // Full of states that are still valid: refuse rather than forget one of them.
        if opened.is_full(task) {
            return Err(StateFault::Used);
        }
        if opened.by_task.entry(task).or_default().insert(serial, expires).is_some() {
            return Err(StateFault::Used);
        }
        opened.all += 1;
        Ok(())
    }

    /// Forgets what tasks opened that ended: nothing of them is opened any more.
    pub(crate) fn sweep(&self, over: impl Fn(TaskId) -> bool) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let gone: usize = opened.by_task.extract_if(|task, _| over(*task)).map(|(_, own)| own.len()).sum();
        opened.all -= gone;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn envelope() -> Envelope {
        Envelope { key: RandomizedNonceKey::new(&AES_256_GCM, &[7; 32]).ok(), secs: 60, opened: Mutex::default() }
    }

    fn bond(task: u8, upstream: &str, method: &str, params: Value) -> Bond {
        let Value::Object(params) = params else { return bond(task, upstream, method, json!({})) };
        Bond::new(TaskId::from_bytes([task; 16]), &upstream.parse().unwrap(), method, &params)
    }

    fn refund(task: u8) -> Bond {
        bond(task, "orders", "tools/call", json!({"name": "refund", "arguments": {"id": 1}}))
    }

    #[test]
    fn a_state_comes_back_to_the_same_request_once() {
        let envelope = envelope();
        for (serial, state) in [(1, State::Upstream("säte".into())), (2, State::Upstream(String::new())), (3, State::Held(9))] {
            let text = envelope.seal(&refund(1), &state, [serial; 16], NOW).unwrap();
            let again = bond(
                1,
                "orders",
                "tools/call",
                json!({"arguments": {"id": 1}, "name": "refund", "_meta": {"x": 1}, "inputResponses": {}, "requestState": text}),
            );
            assert_eq!(envelope.open(&again, &text, NOW.plus_secs(60)).unwrap(), state);
            assert_eq!(envelope.open(&again, &text, NOW.plus_secs(60)).unwrap_err(), StateFault::Used);
        }
    }

    #[test]
    fn one_task_cannot_take_the_room_of_the_others() {
        let envelope = envelope();
        let open = |task: u8, number: usize| {
            let mut serial = [0; SERIAL_BYTES];
            serial[..8].copy_from_slice(&number.to_be_bytes());
            let text = envelope.seal(&refund(task), &State::Upstream("s".into()), serial, NOW).unwrap();
            envelope.open(&refund(task), &text, NOW)
        };
        let opened = (0..OPENED_MAX).filter(|number| open(1, *number).is_ok()).count();
        assert!(opened >= 1_000, "{opened}");
        assert!(open(2, 0).is_ok(), "another task is refused");
        envelope.sweep(|task| task == TaskId::from_bytes([1; 16]));
        assert!(open(1, 0).is_ok());
        assert_eq!(open(2, 0).unwrap_err(), StateFault::Used);
    }

    #[test]
    fn a_cursor_comes_back_to_the_same_list_as_often_as_it_likes_for_a_day() {
        let envelope = envelope();
        let list = |task, upstream| bond(task, upstream, "tools/list", json!({}));
        let text = envelope.seal(&list(1, "orders"), &State::Cursor("page 2".into()), [1; 16], NOW).unwrap();
        for _ in 0..2 {
            assert_eq!(envelope.open(&list(1, "orders"), &text, NOW.plus_secs(3_600)).unwrap(), State::Cursor("page 2".into()));
        }
        for other in [list(2, "orders"), list(1, "mail"), bond(1, "orders", "prompts/list", json!({})), refund(1)] {
            assert_eq!(envelope.open(&other, &text, NOW).unwrap_err(), StateFault::Foreign);
        }
        assert_eq!(envelope.open(&list(1, "orders"), &text, NOW.plus_secs(86_401)).unwrap_err(), StateFault::Expired);
    }

    #[test]
    fn a_state_of_another_task_request_or_time_is_refused() {
        let envelope = envelope();
        let text = envelope.seal(&refund(1), &State::Upstream("s".into()), [1; 16], NOW).unwrap();
        for other in [
            refund(2),
            bond(1, "other", "tools/call", json!({"name": "refund", "arguments": {"id": 1}})),
            bond(1, "orders", "prompts/get", json!({"name": "refund", "arguments": {"id": 1}})),
            bond(1, "orders", "tools/call", json!({"name": "refund_all", "arguments": {"id": 1}})),
            bond(1, "orders", "tools/call", json!({"name": "refund", "arguments": {"id": 2}})),
            bond(1, "orders", "tools/call", json!({"name": "refund", "arguments": {"id": 1}, "extra": 1})),
        ] {
            assert_eq!(envelope.open(&other, &text, NOW).unwrap_err(), StateFault::Foreign);
        }
        assert_eq!(envelope.open(&refund(1), &text, NOW.plus_secs(61)).unwrap_err(), StateFault::Expired);
        for index in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            let byte = changed.get_mut(index).unwrap();
            *byte = if *byte == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(envelope.open(&refund(1), &changed, NOW).unwrap_err(), StateFault::Foreign, "{index}");
        }
        for text in ["", "AAAA", "{}", &"A".repeat(STATE_BYTES_MAX + 1)] {
            assert_eq!(envelope.open(&refund(1), text, NOW).unwrap_err(), StateFault::Foreign);
        }
        assert!(envelope.open(&refund(1), &text, NOW).is_ok());
    }
}
