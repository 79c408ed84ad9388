//! One task's line to one upstream, below the public [`super::Connection`]: its ids, its session (found or made when it
//! is needed), what was asked of the client, and its end. A request that is under way takes no lock.

use super::cancel::Cancel;
use super::child::{Child, ChildStream};
use super::error::UpstreamError;
use super::exchange::{Event, Source};
use super::http::{Endpoint, Reply};
use super::http_stream::{HttpStream, Patience};
use super::hub::Hub;
use super::inbox::{self, Inbox};
use super::pool::Place;
use super::profile::{ClientProfile, ServerProfile};
use super::restore;
use super::riders::Riders;
use super::rounds::AnswerTo;
use crate::mcp::message::{Id, Raw};
use crate::mcp::version::{Era, header};
use crate::mcp::{object::Members, stream};
use crate::room::Room;
use arc_swap::ArcSwapOption;
use authority::Warrant;
use bytes::Bytes;
use domain::{TaskId, UpstreamName};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::body::Incoming;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a person may take to answer what an upstream asks during a call.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(600);
/// The longest that a call may take, however much progress it reports, as a multiple of the upstream's timeout, and at
/// least.
const CALL_TIMEOUTS_MAX: u32 = 10;
const CALL_END_MIN: Duration = Duration::from_secs(1_800);
/// How long a subscription may say nothing before it is given up: servers are asked to send keep-alives far more often.
const SUBSCRIPTION_SILENCE: Duration = Duration::from_secs(24 * 3_600);
/// Time for messages that nobody waits for.
pub(super) const FAREWELL: Duration = Duration::from_secs(5);
/// Most requests of an upstream to the client that wait for an answer on one connection.
const ASKED_MAX: usize = 128;
/// Most answers of ours under way on one connection: an upstream that asks and does not listen must not make them pile up.
const REPLIES_MAX: usize = 16;
/// Most sessions or children that one connection starts within [`RESTART_WINDOW`]: an upstream that dies at each request must not keep
/// the gateway busy.
const RESTARTS_MAX: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// How a session reaches its upstream.
pub(super) enum Carrier {
    /// Over HTTP, with the session id that the upstream gave.
    Http(Option<HeaderValue>),
    /// Through a child process.
    Child(Arc<Child>),
}

/// An understanding with the upstream. For a stateless one it is only the knowledge that it is stateless.
pub(super) struct Session {
    pub(super) era: Era,
    pub(super) carrier: Carrier,
    /// What the upstream said of itself; for a stateless one, when somebody first wants to know.
    pub(super) server: OnceCell<Arc<ServerProfile>>,
}

impl Session {
    fn is_over(&self) -> bool {
        matches!(&self.carrier, Carrier::Child(child) if child.is_dead())
    }
}

/// A request as the upstream gets it.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) id: Id,
    pub(super) method: String,
    pub(super) params: Option<Raw>,
    /// Trace context and mirrored parameters.
    pub(super) headers: HeaderMap,
    /// Of a request that was decided: looked at each time that it is sent.
    pub(super) warrant: Option<Warrant>,
}

impl Prepared {
    fn is_subscription(&self) -> bool {
        self.method == "subscriptions/listen"
    }
}

/// See the module.
pub(super) struct Link {
    pub(super) hub: Arc<Hub>,
    pub(super) task: TaskId,
    pub(super) client: ClientProfile,
    pub(super) inbox: Inbox,
    /// For what the upstream says by itself.
    pub(super) room: Room,
    /// The task's, for answers.
    pub(super) bodies: Room,
    /// Answers of ours to questions that no client gets.
    pub(super) replies: Arc<Semaphore>,
    /// Requests under way, for what the upstream asks outside of them: see [`super::riders`].
    pub(super) riders: Riders,
    /// One for each connection and exchange that somebody holds, and one of our own.
    pub(super) holders: Arc<()>,
    session: ArcSwapOption<Session>,
    /// How many sessions there have been.
    sessions: watch::Sender<u64>,
    /// Held while a session is being made; when the last ones were.
    starts: tokio::sync::Mutex<Vec<Instant>>,
    asked: Mutex<HashMap<Id, Option<AnswerTo>>>,
    next_id: AtomicI64,
    shut: CancellationToken,
    /// Its place among all.
    pub(super) place: Place,
}

impl Link {
    pub(super) fn new(hub: Arc<Hub>, task: TaskId, client: ClientProfile, bodies: Room, place: Place) -> Self {
        Self {
            room: hub.room.within(inbox::OF_CONNECTION),
            bodies,
            hub,
            task,
            client,
            inbox: Inbox::default(),
            replies: Arc::new(Semaphore::new(REPLIES_MAX)),
            riders: Riders::default(),
            holders: Arc::new(()),
            session: ArcSwapOption::empty(),
            sessions: watch::Sender::new(0),
            starts: tokio::sync::Mutex::default(),
            asked: Mutex::default(),
            next_id: AtomicI64::new(1),
            shut: CancellationToken::new(),
            place,
        }
    }

    pub(super) fn name(&self) -> &UpstreamName {
        &self.hub.upstream.name
    }

    /// Resolves when the connection is closed.
    pub(super) async fn closed(&self) {
        self.shut.cancelled().await;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.shut.is_cancelled()
    }

    /// Why it was closed.
    pub(super) fn why_closed(&self) -> UpstreamError {
        self.hub.registry.ended(self.task).map_or(UpstreamError::Closed, UpstreamError::TaskEnded)
    }

    /// An id of our own: on HTTP, where the client's ids travel, one that no client would choose; else just a number.
    pub(super) fn own_id(&self) -> Id {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        if self.hub.endpoint.is_some() { Id::Text(format!("writ-{number}").into()) } else { Id::Number(number) }
    }

    /// The id under which a client's request travels: the client's own where nobody else's can meet it and it is no words.
    pub(super) fn wire_id(&self, id: &Id, era: Era) -> Id {
        let alone = self.hub.endpoint.is_some() && (era.is_modern() || self.client.session.is_some());
        if alone && matches!(id, Id::Number(_)) { id.clone() } else { self.own_id() }
    }

    pub(super) fn note_asked(&self, id: &Id, to: Option<AnswerTo>) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() < ASKED_MAX || to.is_some() {
            asked.insert(id.clone(), to);
        }
    }

    pub(super) fn forget_asked(&self, ids: &[Id]) {
        if ids.is_empty() {
            return;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            asked.remove(id);
        }
    }

    /// Whether the answer to `id` is still awaited.
    pub(super) fn awaits(&self, id: &Id) -> bool {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).contains_key(id)
    }

    /// Takes the place where the answer to `id` belongs.
    pub(super) fn take_asked(&self, id: &Id) -> Option<Option<AnswerTo>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
    }

    /// Learns of each session that is made from now on.
    pub(super) fn sessions(&self) -> watch::Receiver<u64> {
        self.sessions.subscribe()
    }

    /// Whether nobody holds it: no client, no request.
    pub(super) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.holders) == 1
    }

    /// The session that there is, or a new one.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Arc<Session>, UpstreamError> {
        if !self.hub.is_current() {
            self.shut();
            return Err(self.why_closed());
        }
        if let Some(session) = self.session.load_full().filter(|session| !session.is_over()) {
            return Ok(session);
        }
        // In a box, as everything rare on the way of a call is: it would make the future of every call larger.
        Box::pin(self.renewed(None)).await
    }

    /// A session other than `lost`.
    pub(super) async fn renewed(self: &Arc<Self>, lost: Option<&Arc<Session>>) -> Result<Arc<Session>, UpstreamError> {
        let mut starts = tokio::select! {
            biased;
            () = self.closed() => return Err(self.why_closed()),
            starts = self.starts.lock() => starts,
        };
        if let Some(session) = self.session.load_full().filter(|session| !session.is_over())
            && lost.is_none_or(|lost| !Arc::ptr_eq(lost, &session))
        {
            return Ok(session);
        }
        let now = Instant::now();
        starts.retain(|at| now.duration_since(*at) < RESTART_WINDOW);
        if starts.len() >= RESTARTS_MAX {
            return Err(UpstreamError::Busy("new sessions"));
        }
        starts.push(now);
        let session = tokio::select! {
            biased;
            () = self.closed() => return Err(self.why_closed()),
            session = super::era::establish(self) => {
                self.hub.note(session.as_ref().map(|_| ()));
                Arc::new(session?)
            }
        };
        if *self.sessions.borrow() > 0 && !session.era.is_modern() {
            restore::restore(self, &session).await;
        }
        self.session.store(Some(Arc::clone(&session)));
        self.sessions.send_modify(|sessions| *sessions += 1);
        if self.is_closed() {
            // It was closed while the session came about, and found none to end.
            self.end_session();
            return Err(self.why_closed());
        }
        Ok(session)
    }

    /// Sends a request and gives what comes back. A session that the upstream has forgotten is made anew, once.
    pub(super) async fn open(self: &Arc<Self>, request: Prepared) -> Result<Source, UpstreamError> {
        let outcome = self.open_or_renew(request).await;
        match &outcome {
            Ok(_) => self.hub.note(Ok(())),
            Err(UpstreamError::TaskEnded(_) | UpstreamError::PolicyChanged | UpstreamError::Closed | UpstreamError::Busy(_)) => {}
            Err(error) => self.hub.note(Err(error)),
        }
        outcome
    }

    async fn open_or_renew(self: &Arc<Self>, request: Prepared) -> Result<Source, UpstreamError> {
        let session = self.session().await?;
        match self.open_on(&session, &request).await {
            Err(UpstreamError::Status(404)) if matches!(session.carrier, Carrier::Http(Some(_))) => {
                let session = Box::pin(self.renewed(Some(&session))).await?;
                self.open_on(&session, &request).await
            }
            Err(UpstreamError::Status(status)) if session.era.is_modern() && (400..500).contains(&status) => {
                // What was known of the upstream may no longer hold: ask again the next time.
                self.hub.eras.forget();
                self.session.store(None);
                Err(UpstreamError::Status(status))
            }
            outcome => outcome,
        }
    }

    /// Sends a request in this session.
    pub(super) async fn open_on(self: &Arc<Self>, session: &Arc<Session>, request: &Prepared) -> Result<Source, UpstreamError> {
        tokio::select! {
            biased;
            opened = self.open_racing(session, request) => opened.map(|(source, _)| source),
            () = self.closed() => Err(self.why_closed()),
        }
    }

    /// Like [`Link::open_on`], with the session id that came with the answer. Every request leaves here: the first time, in
    /// a further round, and told again to another session.
    ///
    /// INVARIANT(policy-stands): whatever was waited for since a request was let go, it does not leave under a policy that
    /// was replaced meanwhile.
    pub(super) async fn open_racing(
        self: &Arc<Self>,
        session: &Arc<Session>,
        request: &Prepared,
    ) -> Result<(Source, Option<HeaderValue>), UpstreamError> {
        if request.warrant.as_ref().is_some_and(|warrant| !warrant.stands()) {
            return Err(UpstreamError::PolicyChanged);
        }
        match &session.carrier {
            Carrier::Http(_) => self.open_http(session, request).await,
            Carrier::Child(child) => {
                let cancel = Cancel::new(self, session, request);
                let patience = self.patience(request);
                let events = child.send_request(request, patience.until()).await?;
                Ok((Source::Child(ChildStream::new(events, patience, Arc::clone(child), cancel)), None))
            }
        }
    }

    async fn open_http(
        self: &Arc<Self>,
        session: &Arc<Session>,
        request: &Prepared,
    ) -> Result<(Source, Option<HeaderValue>), UpstreamError> {
        let endpoint = self.endpoint()?;
        let patience = self.patience(request);
        let deadline = patience.until();
        let headers = http_headers(session, Some(request));
        let body = stream::call(Some(&request.id), &request.method, request.params.as_ref());
        // A stateless request is cancelled by closing its stream.
        let mut cancel = (!session.era.is_modern()).then(|| Cancel::new(self, session, request));
        let mut response = endpoint.post(headers, body, deadline).await?;
        let session_id = response.headers_mut().remove(header::SESSION_ID);
        let reply = Reply::read(endpoint, response, Some(&request.id), (&self.bodies, deadline)).await?;
        let source = match reply {
            Reply::Stream(body) => {
                let id = Some(request.id.clone());
                let stream = HttpStream::new(Arc::clone(self), Arc::clone(session), body, id, patience);
                return Ok((Source::Http(Box::new(stream.with_cancel(cancel))), session_id));
            }
            Reply::Message(outcome) => Ok(Source::ended(outcome)),
            Reply::Refused(StatusCode::NOT_FOUND, _) if matches!(session.carrier, Carrier::Http(Some(_))) => {
                Err(UpstreamError::Status(404))
            }
            Reply::Refused(_, error) => Ok(Source::ended(Err(error))),
            Reply::Status(status) => Err(UpstreamError::Status(status.as_u16())),
            Reply::Accepted => Err(UpstreamError::Protocol("a request was accepted without an answer")),
        };
        if let Some(cancel) = &mut cancel {
            cancel.disarm();
        }
        source.map(|source| (source, session_id))
    }

    /// Sends a request of our own and waits for its outcome.
    pub(super) async fn call(self: &Arc<Self>, method: &str, params: Option<Raw>) -> Result<Result<Raw, Raw>, UpstreamError> {
        let session = self.session().await?;
        let params = super::bridge::outbound(self, session.era, params.as_ref())?;
        let request = Prepared { id: self.own_id(), method: method.to_owned(), params, headers: HeaderMap::new(), warrant: None };
        let source = self.open(request).await?;
        tokio::select! {
            biased;
            outcome = outcome_of(source) => outcome,
            () = self.closed() => Err(self.why_closed()),
        }
    }

    /// Sends a message that is no request.
    pub(super) async fn send(self: &Arc<Self>, session: &Arc<Session>, message: Bytes) -> Result<(), UpstreamError> {
        let deadline = Instant::now() + self.timeout();
        match &session.carrier {
            Carrier::Http(_) => {
                let endpoint = self.endpoint()?;
                let response = endpoint.post(http_headers(session, None), message, deadline).await?;
                match Reply::read(endpoint, response, None, (&self.bodies, deadline)).await? {
                    Reply::Status(status) | Reply::Refused(status, _) => Err(UpstreamError::Status(status.as_u16())),
                    Reply::Accepted | Reply::Message(_) | Reply::Stream(_) => Ok(()),
                }
            }
            Carrier::Child(child) => child.send(message, deadline).await,
        }
    }

    /// Opens the stream for what belongs to no request, or goes on with an interrupted one.
    pub(super) async fn listen_http(
        &self,
        session: &Session,
        from: Option<String>,
        deadline: Instant,
    ) -> Result<Option<Incoming>, UpstreamError> {
        let mut headers = http_headers(session, None);
        if let Some(value) = from.and_then(|id| HeaderValue::from_str(&id).ok()) {
            headers.insert(HeaderName::from_static(header::LAST_EVENT_ID), value);
        }
        self.endpoint()?.get(headers, deadline).await
    }

    pub(super) fn endpoint(&self) -> Result<&Endpoint, UpstreamError> {
        self.hub.endpoint.as_ref().ok_or(UpstreamError::Url("it is not reached over HTTP"))
    }

    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.hub.upstream.timeout_secs.max(1))
    }

    fn patience(&self, request: &Prepared) -> Patience {
        if request.is_subscription() {
            return Patience { silence: SUBSCRIPTION_SILENCE, end: None };
        }
        let silence = self.timeout();
        let end = Instant::now() + silence.saturating_mul(CALL_TIMEOUTS_MAX).max(CALL_END_MIN);
        Patience { silence, end: Some(end) }
    }

    /// Closes the connection: requests under way end, the session with them. Ends what it started in the background.
    pub(super) fn shut(&self) {
        self.shut.cancel();
        self.end_session();
    }

    fn end_session(&self) {
        let Some(session) = self.session.swap(None) else { return };
        let hub = Arc::clone(&self.hub);
        match &session.carrier {
            Carrier::Child(child) => child.stop(),
            Carrier::Http(None) => {}
            Carrier::Http(Some(_)) => {
                let farewells = hub.farewells.clone();
                spawn(farewells.track_future(async move {
                    if let Some(endpoint) = &hub.endpoint {
                        let farewell = endpoint.delete(http_headers(&session, None), Instant::now() + FAREWELL).await;
                        if let Err(error) = farewell {
                            tracing::debug!(%error, upstream = %hub.upstream.name, "a session could not be ended");
                        }
                    }
                }));
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.end_session();
    }
}

/// Runs until done, if there is a runtime.
pub(super) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(work);
    }
}

/// The outcome, when nothing else matters.
pub(super) async fn outcome_of(mut source: Source) -> Result<Result<Raw, Raw>, UpstreamError> {
    loop {
        match source.next().await? {
            Event::Result(raw) => return Ok(Ok(raw)),
            Event::Error(raw) => return Ok(Err(raw)),
            Event::Notification { .. } | Event::Request { .. } | Event::Cursor { .. } | Event::Paused => {}
        }
    }
}

/// The headers that the protocol asks for (MCP 2025-11-25 "Session Management", MCP 2026-07-28 "Request Metadata").
fn http_headers(session: &Session, request: Option<&Prepared>) -> HeaderMap {
    let mut headers = request.map_or_else(HeaderMap::new, |request| request.headers.clone());
    if let Carrier::Http(Some(session_id)) = &session.carrier {
        headers.insert(HeaderName::from_static(header::SESSION_ID), session_id.clone());
    }
    let method = request.map(|request| request.method.as_str());
    if method == Some("initialize") {
        return headers;
    }
    let version = HeaderValue::from_static(session.era.version().as_str());
    headers.insert(HeaderName::from_static(header::PROTOCOL_VERSION), version);
    if !session.era.is_modern() {
        return headers;
    }
    if let Some(value) = method.and_then(|method| HeaderValue::from_str(method).ok()) {
        headers.insert(HeaderName::from_static(header::METHOD), value);
    }
    if let Some(value) = request.and_then(subject).and_then(|subject| super::mirror::encoded(&subject)) {
        headers.insert(HeaderName::from_static(header::NAME), value);
    }
    headers
}

/// What `Mcp-Name` mirrors.
fn subject(request: &Prepared) -> Option<String> {
    let key = match request.method.as_str() {
        "tools/call" | "prompts/get" => "name",
        "resources/read" => "uri",
        "tasks/get" | "tasks/update" | "tasks/cancel" => "taskId",
        _ => return None,
    };
    let members = Members::of(request.params.as_ref()?)?;
    serde_json::from_str(members.get(key)?).ok()
}
