//! The era with sessions: `initialize` opens one, its id goes with each request, a GET stream carries what the upstream
//! says on its own, DELETE ends it. MCP 2025-11-25 "Transports" and "Lifecycle"; batches as in 2025-03-26.

use crate::admission::{accepts, one};
use crate::answer;
use crate::flight::{Piece, Reply, status_of, upstream_fault};
use crate::hear;
use crate::listen::{Admitted, Inner};
use crate::mcp::leaving;
use crate::mcp::message::{Id, Malformed, Message, Notification, Payload, Raw, Request, Response as Answer};
use crate::mcp::object::Members;
use crate::mcp::stream;
use crate::mcp::tags;
use crate::mcp::version::{Era, Version, code, header, meta};
use crate::respond::{Body, Fault, Refusal, bare, events, message, with};
use crate::serve::{Incoming, dispatch};
use crate::session::{Asked, Behind, Session};
use crate::slots::Slot;
use crate::upstream::{ClientProfile, Event, SessionKey, UpstreamError};
use authority::{CallStatus, Caller, Heard, Over, Released, Unheard};
use data_encoding::HEXLOWER;
use futures_util::{StreamExt, future, stream as streams};
use http::header::HeaderName;
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// Serves a POST.
pub(crate) async fn serve(gateway: &Arc<Inner>, admitted: Admitted, payload: Payload) -> Result<Response<Body>, Refusal> {
    let message = match payload {
        Payload::Single(Message::Request(request)) if request.method == "initialize" => {
            return initialize(gateway, &admitted, &request).await;
        }
        Payload::Single(message) => message,
        Payload::Batch(messages) => {
            let session = session(gateway, &admitted)?;
            return batch(gateway, admitted, &session, messages).await;
        }
    };
    let session = session(gateway, &admitted)?;
    match message {
        Message::Request(request) => Ok(request_of(gateway, admitted, &session, request).await?.into_response()),
        Message::Notification(notification) => {
            notified(&session, &notification).await;
            Ok(bare(StatusCode::ACCEPTED))
        }
        Message::Response(answer) => {
            answered(gateway, &admitted.caller, &session, &answer).await?;
            Ok(bare(StatusCode::ACCEPTED))
        }
    }
}

/// The session of a request: the caller's own, at this upstream.
fn session(gateway: &Inner, admitted: &Admitted) -> Result<Arc<Session>, Refusal> {
    let named = one(&admitted.headers, header::PROTOCOL_VERSION).map_err(|()| Refusal::SessionMissing)?;
    if named.is_some_and(|named| Version::from_wire(named).is_none_or(Version::is_modern)) {
        let text = "this revision has no sessions, or it is not spoken here";
        return Err(Fault::new(StatusCode::BAD_REQUEST, None, code::INVALID_REQUEST, text).into());
    }
    let id = one(&admitted.headers, header::SESSION_ID).map_err(|()| Refusal::SessionUnknown)?.ok_or(Refusal::SessionMissing)?;
    let found = gateway.sessions.get(id, admitted.caller.task(), &admitted.endpoint.upstream).ok_or(Refusal::SessionUnknown)?;
    if !found.connection.is_current() {
        // The upstream was removed or registered differently: nothing more goes to where it was.
        gateway.sessions.remove(id);
        return Err(Refusal::SessionUnknown);
    }
    Ok(found)
}

async fn initialize(gateway: &Arc<Inner>, admitted: &Admitted, request: &Request) -> Result<Response<Body>, Refusal> {
    let params = request.params.as_ref();
    let invalid = |text: &str| Refusal::from(Fault::new(StatusCode::OK, Some(&request.id), code::INVALID_PARAMS, text));
    let wanted =
        params.and_then(|params| params.text("protocolVersion")).ok_or_else(|| invalid("`protocolVersion` must be a string"))?;
    // A client that wants what we do not speak is offered the newest that has sessions (MCP "Version Negotiation").
    let version = Version::from_wire(wanted).filter(|version| !version.is_modern()).unwrap_or(Version::NEWEST_LEGACY);
    let member = |name: &str| params.and_then(|params| params.value().get(name));
    let capabilities = leaving::capabilities(member("capabilities").unwrap_or(&Value::Null));
    let (task, upstream) = (admitted.caller.task(), &admitted.endpoint.upstream);
    gateway.sessions.check_room(task)?;

    let id: Arc<str> = new_session_id(gateway).into();
    let client = ClientProfile {
        era: Era::Legacy(version),
        capabilities: capabilities.clone(),
        session: Some(SessionKey(Arc::clone(&id))),
    };
    let fault = |error| Refusal::from(upstream_fault(&error, Some(&request.id), client.era));
    let connection = gateway.upstreams.connect(upstream, task, &client).await.map_err(fault)?;
    let server = connection.server().await.map_err(fault)?;
    // An upstream may speak only an older revision; what goes through unchanged must then be read as that one.
    let version = if server.era.is_modern() { version } else { version.min(server.era.version()) };
    let described = hear::introduction(gateway, &admitted.caller, upstream, &server.described).await;
    let result = initialized(&described, server.era, version);
    let session = Session::new(Arc::clone(&id), (task, upstream.clone()), version, capabilities, connection);
    match gateway.sessions.add(Arc::clone(&session)) {
        Ok(open) => gateway.observer.sessions(open),
        Err(refusal) => {
            session.close().await;
            return Err(refusal);
        }
    }
    if admitted.caller.live().ended().is_some() {
        // It ended meanwhile, and the news may have come before the session was in the table.
        gateway.sessions.remove(&id);
    }
    let response = message(StatusCode::OK, stream::result(&request.id, &result));
    Ok(with(response, HeaderName::from_static(header::SESSION_ID), &id))
}

fn new_session_id(gateway: &Inner) -> String {
    let mut random = [0; 16];
    gateway.authority.random(&mut random);
    HEXLOWER.encode(&random)
}

/// What the upstream says of itself, as a client with a session is told.
fn initialized(described: &Raw, era: Era, version: Version) -> Raw {
    if let (false, Some(mut members)) = (era.is_modern(), Members::of(described)) {
        members.set("protocolVersion", &json!(version.as_str()));
        return members.to_raw();
    }
    let said = described.to_value();
    let info = said.get("serverInfo").or_else(|| said.get("_meta")?.get(meta::SERVER_INFO));
    let mut result = json!({
        "protocolVersion": version.as_str(),
        "capabilities": said.get("capabilities").unwrap_or(&json!({})),
        "serverInfo": info.unwrap_or(&Value::Null),
    });
    if let (Some(instructions @ Value::String(_)), Some(members)) = (said.get("instructions"), result.as_object_mut()) {
        members.insert("instructions".into(), instructions.clone());
    }
    Raw::from_value(&result)
}

async fn request_of(
    gateway: &Arc<Inner>,
    admitted: Admitted,
    session: &Arc<Session>,
    request: Request,
) -> Result<Reply, Refusal> {
    if request.method == "ping" {
        return Ok(Reply::Message(StatusCode::OK, stream::result(&request.id, &Raw::from_value(&json!({})))));
    }
    let Some(underway) = session.start(&request) else {
        // Not an answer to this id: the client would take it for that of the other request.
        let text = "a request with this id is under way; use each id once";
        return Err(Fault::new(StatusCode::BAD_REQUEST, None, code::INVALID_REQUEST, text).into());
    };
    let incoming = Incoming {
        gateway: Arc::clone(gateway),
        connection: session.connection.clone(),
        era: Era::Legacy(session.version),
        capabilities: session.capabilities.clone(),
        underway: Some(underway),
        admitted,
        request,
    };
    dispatch(incoming).await
}

/// Each message of a batch is governed on its own; the answers come as a stream, in the order in which they are ready.
async fn batch(
    gateway: &Arc<Inner>,
    mut admitted: Admitted,
    session: &Arc<Session>,
    messages: Vec<Message>,
) -> Result<Response<Body>, Refusal> {
    if session.version != Version::V2025_03_26 {
        return Err(Refusal::Malformed(Malformed::NotJsonRpc));
    }
    let mut requests = Vec::new();
    for message in messages {
        match message {
            Message::Request(request) => requests.push(request),
            Message::Notification(notification) => notified(session, &notification).await,
            Message::Response(answer) => answered(gateway, &admitted.caller, session, &answer).await?,
        }
    }
    if requests.is_empty() {
        return Ok(bare(StatusCode::ACCEPTED));
    }
    let mut waiting = Vec::with_capacity(requests.len());
    for request in requests {
        let slot = match admitted.slot.take() {
            Some(slot) => slot,
            None => gateway.slots.take(admitted.caller.task())?,
        };
        let own = Admitted {
            caller: admitted.caller.clone(),
            endpoint: Arc::clone(&admitted.endpoint),
            headers: admitted.headers.clone(),
            slot: Some(slot),
            weight: Arc::clone(&admitted.weight),
        };
        waiting.push(one_of_batch(gateway, own, session, request));
    }
    let replies = future::join_all(waiting).await.into_iter().map(Reply::into_pieces);
    Ok(events(streams::select_all(replies).map(|piece| piece.to_event())))
}

async fn one_of_batch(gateway: &Arc<Inner>, admitted: Admitted, session: &Arc<Session>, request: Request) -> Reply {
    let id = request.id.clone();
    if request.method == "initialize" {
        let text = "`initialize` must not be part of a batch";
        return Reply::Message(StatusCode::OK, Fault::new(StatusCode::OK, Some(&id), code::INVALID_REQUEST, text).frame());
    }
    match request_of(gateway, admitted, session, request).await {
        Ok(reply) => reply,
        Err(Refusal::Fault(fault)) => Reply::Message(StatusCode::OK, fault.frame()),
        Err(refusal) => {
            let text = match refusal {
                Refusal::Over(Over::TaskEnded(reason)) => format!("the task has ended ({})", reason.as_str()),
                _ => "the request was refused".to_owned(),
            };
            Reply::Message(StatusCode::OK, Fault::new(StatusCode::OK, Some(&id), code::INVALID_REQUEST, text).frame())
        }
    }
}

/// What a client tells. Notifications that nobody thought about are taken and go nowhere, as an honest server does with
/// those that it does not know.
async fn notified(session: &Session, notification: &Notification) {
    let params = notification.params.as_ref();
    match notification.method.as_str() {
        // The connection to the upstream did this by itself.
        "notifications/initialized" => {}
        "notifications/cancelled" => {
            if let Some(id) = params.and_then(|params| params.value().get("requestId")).and_then(Id::from_value) {
                session.cancel(&id);
            }
        }
        method @ ("notifications/progress" | "notifications/roots/list_changed") => {
            // Numbers, and a token of the upstream's own: words to it are decided, or do not leave.
            let token = params.and_then(|params| params.value().get("progressToken"));
            if method == "notifications/progress" && !token.is_some_and(|token| session.wants_progress(token)) {
                return;
            }
            let counted = |name: &str| Some((name.to_owned(), params?.value().get(name)?.clone()));
            let counts = ["progressToken", "progress", "total"].into_iter().filter_map(counted);
            let params = Raw::from_value(&Value::Object(
                counts
                    .filter(|(name, value)| method == "notifications/progress" && (name == "progressToken" || value.is_number()))
                    .collect(),
            ));
            if let Err(error) = session.connection.notify(method, Some(&params)).await {
                tracing::warn!(%error, method, "a notification did not reach the upstream");
            }
        }
        method => tracing::debug!(method, "a notification that goes nowhere"),
    }
}

/// What a client answers to a request of the upstream. Answers that nobody waits for are ignored. One that says something
/// leaves only with a decision of its own: like the request that it belongs to, or as one that no request stands behind.
async fn answered(gateway: &Inner, caller: &Caller, session: &Session, answer: &Answer) -> Result<(), Refusal> {
    let Some((id, behind)) = answer.id.as_ref().and_then(|id| Some((id, session.answered(id)?))) else { return Ok(()) };
    let (outcome, released) = match (answer::refusal(&answer.outcome), &answer.outcome) {
        (Some(refusal), _) => (refusal, Ok(None)),
        (None, Ok(result)) => match decide_answer(gateway, caller, session, (behind, result)).await {
            Ok((leaving, released)) => (Ok(leaving), Ok(Some(released))),
            Err(kept) => (Err(answer::kept_back()), Err(kept)),
        },
        // Cannot happen: an error is a refusal.
        (None, Err(_)) => return Ok(()),
    };
    let warrant = released.as_ref().ok().and_then(|released| Some(released.as_ref()?.warrant()));
    let sent = session.connection.answer(id, outcome.as_ref(), warrant).await;
    if let Err(error) = &sent {
        tracing::debug!(%error, "an answer of the client was not passed on");
    }
    if let Some(released) = released? {
        released.record(sent.as_ref().map_or_else(status_of, |()| CallStatus::Ok).into());
    }
    match sent {
        Err(UpstreamError::PolicyChanged) => {
            Err(answer::Kept::Refused("the policy changed before it was sent".to_owned()).into())
        }
        _ => Ok(()),
    }
}

async fn decide_answer(
    gateway: &Inner,
    caller: &Caller,
    session: &Session,
    (behind, result): (Behind, &Raw),
) -> Result<(Raw, Released), answer::Kept> {
    let upstream = &session.upstream;
    let leaving = answer::leaving(result, |work| gateway.handles.knows(caller.task(), upstream, work))?;
    let released = match behind {
        Behind::Request(asking) => asking.decide(gateway, caller, (upstream, &session.connection)).await,
        Behind::Over => Err(answer::Kept::Refused("the request that this answers is over".to_owned())),
        Behind::Nothing(question) => answer::decide_alone(gateway, caller, (upstream, &question), &leaving).await,
    };
    Ok((leaving.raw, released?))
}

/// Opens the stream of what the upstream says on its own, or goes on with an interrupted one.
pub(crate) fn listen(gateway: &Arc<Inner>, admitted: Admitted) -> Result<Response<Body>, Refusal> {
    if !admitted.headers.contains_key(header::SESSION_ID) {
        // Without a session there is nothing to listen to; the stateless era has no such stream at all.
        return Err(Refusal::Method);
    }
    if !accepts(&admitted.headers, "text/event-stream") {
        return Err(Refusal::NotAcceptable);
    }
    let session = session(gateway, &admitted)?;
    let cursor = one(&admitted.headers, header::LAST_EVENT_ID).ok().flatten();
    if let Some(mut flight) = cursor.and_then(|cursor| session.unpark(cursor)) {
        flight.slot = admitted.slot;
        flight.caller = admitted.caller;
        return Ok(Reply::Stream(flight.into_stream().boxed()).into_response());
    }
    let (receiver, listener) = session.listen();
    let listening = Listening {
        gateway: Arc::clone(gateway),
        caller: admitted.caller,
        quiet: Duration::from_secs(gateway.limits.keep_alive_secs),
        _slot: admitted.slot,
        receiver: Some(receiver),
        listener,
        session,
    };
    let pieces = streams::unfold(listening, |mut listening| async move { Some((listening.next().await?, listening)) });
    Ok(events(pieces.map(|piece| piece.to_event())))
}

/// A stream that listens. What it did not read is kept for the next one.
struct Listening {
    gateway: Arc<Inner>,
    caller: Caller,
    session: Arc<Session>,
    receiver: Option<broadcast::Receiver<Event>>,
    listener: CancellationToken,
    quiet: Duration,
    _slot: Option<Slot>,
}

impl Listening {
    async fn next(&mut self) -> Option<Piece> {
        loop {
            let receiver = self.receiver.as_mut()?;
            let event = tokio::select! {
                biased;
                _ = self.caller.wait_over() => return None,
                () = self.listener.cancelled() => return None,
                () = self.gateway.stopping.cancelled() => return None,
                () = self.gateway.expiry(&self.caller) => return None,
                event = receiver.recv() => event,
                () = tokio::time::sleep(self.quiet) => return Some(Piece::KeepAlive),
            };
            match event {
                Ok(Event::Notification { method, .. })
                    if hear::hides(&self.gateway, (&self.caller, &self.session.upstream), &method) => {}
                Ok(Event::Notification { method, params }) => {
                    let silent = hear::silent(&method, params.as_ref());
                    if silent.is_none() && self.hear(Heard::Notice).await.is_err() {
                        continue;
                    }
                    let params = silent.or_else(|| params.map(tags::narrowed_raw));
                    return Some(Piece::Message(stream::call(None, &method, params.as_ref())));
                }
                Ok(Event::Request { id, method, params }) => {
                    if let Err(unheard) = self.hear(Heard::Question).await {
                        self.refuse(&id, &hear::unasked(unheard)).await;
                        continue;
                    }
                    if !self.session.ask(Asked { id: &id, method: &method, params: params.as_ref() }, None) {
                        self.refuse(&id, &answer::kept_back()).await;
                        continue;
                    }
                    return Some(Piece::Message(stream::call(Some(&id), &method, params.as_ref())));
                }
                Ok(Event::Cursor { .. } | Event::Paused | Event::Result(_) | Event::Error(_)) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    tracing::warn!(missed, "a client did not read its events as fast as the upstream sent them");
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Listening {
    /// Raises the labels of what comes outside of any request, before it is passed on.
    async fn hear(&self, what: Heard) -> Result<(), Unheard> {
        self.gateway.authority.hear(&self.caller, &self.session.upstream, what).await
    }

    async fn refuse(&self, id: &Id, refusal: &Raw) {
        if let Err(error) = self.session.connection.answer(id, Err(refusal), None).await {
            tracing::debug!(%error, "a refusal did not reach the upstream");
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            self.session.unlisten(receiver, &self.listener);
        }
    }
}

/// Ends a session at its client's wish.
pub(crate) async fn end(gateway: &Arc<Inner>, admitted: &Admitted) -> Result<Response<Body>, Refusal> {
    if !admitted.headers.contains_key(header::SESSION_ID) {
        return Err(Refusal::Method);
    }
    let session = session(gateway, admitted)?;
    gateway.observer.sessions(gateway.sessions.remove(&session.id));
    session.close().await;
    Ok(bare(StatusCode::OK))
}
