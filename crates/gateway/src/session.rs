//! Sessions of legacy clients. Each belongs to one task and one upstream: for anybody else it does not exist. Ends when
//! its client says so, when it is idle, and at once when its task ends.
//! MCP 2025-11-25 "Session Management", "Listening for Messages", "Resumability".

use crate::answer::Asking;
use crate::config::Limits;
use crate::flight::Flight;
use crate::listen::Inner;
use crate::mcp::message::{Id, Raw, Request};
use crate::mcp::version::Version;
use crate::respond::Refusal;
use crate::upstream::{Connection, Event};
use domain::{EndReason, TaskId, UpstreamName};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// How often idle sessions and requests that nobody came back for are looked for.
const SWEEP_SECS: u64 = 5;
/// How long an interrupted stream waits for its client.
const PARKED_SECS: u64 = 60;
/// Most questions of one session that wait for an answer.
const QUESTIONS_MAX: usize = 64;
/// Most resources of one session that changes are announced of.
const SUBSCRIBED_MAX: usize = 1_024;
/// Most interrupted streams of one session.
const PARKED_MAX: usize = 16;

/// One session.
pub(crate) struct Session {
    pub(crate) id: Arc<str>,
    pub(crate) task: TaskId,
    pub(crate) upstream: UpstreamName,
    pub(crate) version: Version,
    pub(crate) capabilities: Value,
    pub(crate) connection: Connection,
    state: Mutex<State>,
}

struct State {
    used: Instant,
    in_flight: HashMap<Id, InFlight>,
    /// How many requests there have been: the newest has the highest number.
    started: u64,
    /// Questions that the client was asked.
    questions: HashMap<Id, Question>,
    /// Resources that changes are announced of.
    subscribed: HashSet<Box<str>>,
    /// What the upstream says outside of requests; kept here while no stream listens.
    unsolicited: Option<broadcast::Receiver<Event>>,
    /// Ends the stream that listens, when another takes its place.
    listener: CancellationToken,
    parked: HashMap<String, (Flight, Instant)>,
}

/// A request of the upstream that the client is to answer.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) id: &'a Id,
    pub(crate) method: &'a str,
    pub(crate) params: Option<&'a Raw>,
}

/// What the client was asked.
struct Question {
    /// The method of the upstream's request.
    method: Box<str>,
    /// Under which token the upstream hears of progress.
    token: Option<Value>,
    /// The request that stands behind it, if one does.
    behind: Option<Id>,
}

/// A request that the client may cancel and that the upstream may ask something for.
struct InFlight {
    cancel: CancellationToken,
    number: u64,
    asking: Option<Asking>,
}

impl Session {
    pub(crate) fn new(
        id: Arc<str>,
        owner: (TaskId, UpstreamName),
        version: Version,
        capabilities: Value,
        connection: Connection,
    ) -> Arc<Self> {
        let state = State {
            used: Instant::now(),
            in_flight: HashMap::new(),
            started: 0,
            questions: HashMap::new(),
            subscribed: HashSet::new(),
            unsolicited: Some(connection.unsolicited()),
            listener: CancellationToken::new(),
            parked: HashMap::new(),
        };
        let (task, upstream) = owner;
        Arc::new(Self { id, task, upstream, version, capabilities, connection, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request that the client may cancel, until the value is dropped. `None`: one with its id is under way (MCP
    /// "Requests": an id is used once). What was asked for the one must not be answered under the decision of the other.
    pub(crate) fn start(self: &Arc<Self>, request: &Request) -> Option<Underway> {
        let cancel = CancellationToken::new();
        let asking = Asking::of(&request.method, request.params.as_ref());
        let mut state = self.state();
        state.used = Instant::now();
        if state.in_flight.contains_key(&request.id) {
            return None;
        }
        state.started += 1;
        let in_flight = InFlight { cancel: cancel.clone(), number: state.started, asking };
        state.in_flight.insert(request.id.clone(), in_flight);
        Some(Underway { session: Arc::clone(self), id: request.id.clone(), cancel })
    }

    /// Remembers that the client is asked something: because of this request, or else of the newest that is decided.
    /// `false`: it is asked too much at once.
    pub(crate) fn ask(&self, asked: Asked<'_>, request: Option<&Id>) -> bool {
        let token = asked.params.and_then(|params| params.to_value().pointer("/_meta/progressToken").cloned());
        let (question, method) = (asked.id, asked.method.into());
        let mut state = self.state();
        let newest = || state.in_flight.iter().filter(|(_, one)| one.asking.is_some()).max_by_key(|(_, one)| one.number);
        let behind = request.cloned().or_else(|| newest().map(|(id, _)| id.clone()));
        if state.questions.len() >= QUESTIONS_MAX && !state.questions.contains_key(question) {
            return false;
        }
        state.questions.insert(question.clone(), Question { method, token, behind });
        true
    }

    /// Takes a question that the client answers, with what its answer is decided on; `None` if nothing was asked.
    pub(crate) fn answered(&self, question: &Id) -> Option<Behind> {
        let mut state = self.state();
        let Question { method, behind, .. } = state.questions.remove(question)?;
        let Some(request) = behind else { return Some(Behind::Nothing(method)) };
        Some(match state.in_flight.get(&request).filter(|in_flight| !in_flight.cancel.is_cancelled()) {
            Some(in_flight) => in_flight.asking.clone().map_or(Behind::Nothing(method), Behind::Request),
            None => Behind::Over,
        })
    }

    /// Whether the upstream wants to hear of progress under this token.
    pub(crate) fn wants_progress(&self, token: &Value) -> bool {
        self.state().questions.values().any(|question| question.token.as_ref() == Some(token))
    }

    /// Remembers a resource that was decided on; `false`: there are too many.
    pub(crate) fn subscribe(&self, uri: &str) -> bool {
        let mut state = self.state();
        let room = state.subscribed.len() < SUBSCRIBED_MAX || state.subscribed.contains(uri);
        if room {
            state.subscribed.insert(uri.into());
        }
        room
    }

    /// Forgets a resource. Whether it was subscribed to.
    pub(crate) fn unsubscribe(&self, uri: &str) -> bool {
        self.state().subscribed.remove(uri)
    }

    /// The client cancels a request of its own. Unknown ones are ignored (MCP "Cancellation"). Its id is free once nothing of
    /// it is left.
    pub(crate) fn cancel(&self, id: &Id) {
        let mut state = self.state();
        if let Some(in_flight) = state.in_flight.get(id) {
            in_flight.cancel.cancel();
        }
        let parked: Vec<_> = state.parked.extract_if(|_, (flight, _)| flight.id == *id).collect();
        drop(state);
        drop(parked);
    }

    /// Lets a new stream listen to what the upstream says outside of requests. One at a time: a message goes to one
    /// stream only (MCP 2025-11-25 "Multiple Connections").
    pub(crate) fn listen(&self) -> (broadcast::Receiver<Event>, CancellationToken) {
        let mut state = self.state();
        state.used = Instant::now();
        state.listener.cancel();
        state.listener = CancellationToken::new();
        let receiver = state.unsolicited.take().unwrap_or_else(|| self.connection.unsolicited());
        (receiver, state.listener.clone())
    }

    /// Keeps what a stream did not read for the next one.
    pub(crate) fn unlisten(&self, receiver: broadcast::Receiver<Event>, listener: &CancellationToken) {
        let mut state = self.state();
        state.used = Instant::now();
        if !listener.is_cancelled() {
            state.unsolicited = Some(receiver);
        }
    }

    /// Keeps an interrupted stream.
    pub(crate) fn park(&self, cursor: String, flight: Flight) {
        let mut state = self.state();
        state.used = Instant::now();
        let replaced = if state.parked.len() < PARKED_MAX {
            state.parked.insert(cursor, (flight, Instant::now())).map(|(flight, _)| flight)
        } else {
            Some(flight)
        };
        drop(state);
        drop(replaced);
    }

    /// The interrupted stream that was left at this point.
    pub(crate) fn unpark(&self, cursor: &str) -> Option<Flight> {
        let mut state = self.state();
        state.used = Instant::now();
        state.parked.remove(cursor).map(|(flight, _)| flight)
    }

    fn sweep(&self) {
        let patience = Duration::from_secs(PARKED_SECS);
        let late: Vec<_> = self.state().parked.extract_if(|_, (_, since)| since.elapsed() > patience).collect();
        drop(late);
    }

    /// Ends it: cancels what is under way and closes the connection to the upstream.
    pub(crate) async fn close(&self) {
        let parked = {
            let mut state = self.state();
            state.listener.cancel();
            state.in_flight.drain().for_each(|(_, in_flight)| in_flight.cancel.cancel());
            std::mem::take(&mut state.parked)
        };
        drop(parked);
        self.connection.close().await;
    }
}

/// What stands behind a question.
pub(crate) enum Behind {
    /// This request.
    Request(Asking),
    /// A request that is over.
    Over,
    /// Nothing that was decided. What was asked.
    Nothing(Box<str>),
}

/// A request of a session that is under way.
pub(crate) struct Underway {
    pub(crate) session: Arc<Session>,
    id: Id,
    cancel: CancellationToken,
}

impl Underway {
    /// Remembers that the client is asked something because of this request; `false`: it is asked too much at once.
    pub(crate) fn ask(&self, asked: Asked<'_>) -> bool {
        self.session.ask(asked, Some(&self.id))
    }

    /// Resolves when the client cancelled the request.
    pub(crate) async fn cancelled(underway: Option<&Self>) {
        match underway {
            Some(underway) => underway.cancel.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        let mut state = self.session.state();
        state.in_flight.remove(&self.id);
        if !state.questions.is_empty() {
            state.questions.retain(|_, question| question.behind.as_ref() != Some(&self.id));
        }
    }
}

/// All sessions.
pub(crate) struct Sessions {
    open: Mutex<HashMap<Arc<str>, Arc<Session>>>,
    max: usize,
    by_task_max: usize,
    idle: Duration,
}

impl Sessions {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            open: Mutex::default(),
            max: limits.sessions_max,
            by_task_max: limits.sessions_per_task_max,
            idle: Duration::from_secs(limits.session_idle_secs),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Session>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task may have one more. Asked before the upstream is, and again under the lock when one is added.
    ///
    /// # Errors
    /// What there are too many of.
    pub(crate) fn check_room(&self, task: TaskId) -> Result<(), Refusal> {
        self.room(&self.open(), task)
    }

    fn room(&self, open: &HashMap<Arc<str>, Arc<Session>>, task: TaskId) -> Result<(), Refusal> {
        if open.len() >= self.max {
            return Err(Refusal::Busy("sessions"));
        }
        let mine = open.values().filter(|session| session.task == task).count();
        if mine >= self.by_task_max { Err(Refusal::Busy("sessions of this task")) } else { Ok(()) }
    }

    /// Adds a session; how many there are now.
    ///
    /// # Errors
    /// What there are too many of.
    pub(crate) fn add(&self, session: Arc<Session>) -> Result<usize, Refusal> {
        let mut open = self.open();
        self.room(&open, session.task)?;
        open.insert(Arc::clone(&session.id), session);
        Ok(open.len())
    }

    /// The session of this id, if it belongs to this task and upstream.
    pub(crate) fn get(&self, id: &str, task: TaskId, upstream: &UpstreamName) -> Option<Arc<Session>> {
        self.open().get(id).filter(|session| session.task == task && session.upstream == *upstream).cloned()
    }

    /// Takes a session out; how many remain.
    pub(crate) fn remove(&self, id: &str) -> usize {
        let mut open = self.open();
        open.remove(id);
        open.len()
    }

    /// Takes out what is over: sessions of tasks that ended and sessions that nobody uses.
    fn take_over(&self, over: impl Fn(TaskId) -> bool) -> Vec<Arc<Session>> {
        // Whoever uses a session holds it, too.
        let idle = |session: &Arc<Session>| Arc::strong_count(session) == 1 && session.state().used.elapsed() > self.idle;
        self.open().extract_if(|_, session| over(session.task) || idle(session)).map(|(_, session)| session).collect()
    }
}

/// Closes sessions and drops held requests as their tasks end, and from time to time what is idle.
pub(crate) async fn keep(gateway: Weak<Inner>, mut ends: broadcast::Receiver<(TaskId, EndReason)>) {
    let mut tick = tokio::time::interval(Duration::from_secs(SWEEP_SECS));
    loop {
        let ended = tokio::select! {
            end = ends.recv() => match end {
                Ok((task, _)) => Some(task),
                // Some ends were missed: look at every task.
                Err(broadcast::error::RecvError::Lagged(_)) => None,
                Err(broadcast::error::RecvError::Closed) => return,
            },
            _ = tick.tick() => None,
        };
        let Some(gateway) = gateway.upgrade() else { return };
        let over = |task: TaskId| match ended {
            Some(ended) => task == ended,
            None => gateway.authority.live_task(task).is_none_or(|live| live.ended().is_some()),
        };
        gateway.held.sweep(over);
        gateway.handles.sweep(over);
        gateway.envelope.sweep(over);
        let closed = gateway.sessions.take_over(over);
        if !closed.is_empty() {
            gateway.observer.sessions(gateway.sessions.open().len());
        }
        for session in closed {
            // On its own: an upstream that is slow to close must not delay the others.
            tokio::spawn(async move { session.close().await });
        }
        if ended.is_none() {
            let open: Vec<_> = gateway.sessions.open().values().cloned().collect();
            open.iter().for_each(|session| session.sweep());
        }
    }
}
