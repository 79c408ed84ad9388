//! One request under way at an upstream, from the moment it was let go until its answer left: events are passed on in
//! order, the task's end cuts it, the client's going away cancels it, and its outcome is recorded once, before the answer
//! is given. Knows the two forms of answer; knows neither policy nor tokens.
//! MCP "Streamable HTTP" (sending messages, cancellation, resumability), "Multi Round-Trip Requests".

use crate::answer;
use crate::envelope::{Bond, State};
use crate::hear;
use crate::listen::Inner;
use crate::mcp::message::{Id, Params, Raw};
use crate::mcp::object::Members;
use crate::mcp::stream;
use crate::mcp::tags;
use crate::mcp::version::{Era, code, meta};
use crate::observe::{Stage, Stopwatch};
use crate::respond::{Body, Fault, Refusal, error_object, events, message, own_code};
use crate::room::{Part, Room};
use crate::session::{Asked, Underway};
use crate::shape::{Kind, Shape, Shaped};
use crate::slots::Slot;
use crate::upstream::{Connection, Event, Exchange, UpstreamError};
use authority::{CallOutcome, CallStatus, Caller, Heard, Over, Released, Unheard};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream as streams};
use http::{Response, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// What a client gets, in the order in which it gets it.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// One JSON-RPC message.
    Message(Bytes),
    /// A point to come back to.
    Cursor { id: Option<String>, retry_millis: Option<u64> },
    /// Nothing, to show that the stream lives.
    KeepAlive,
}

impl Piece {
    /// The piece as server-sent events have it.
    pub(crate) fn to_event(&self) -> Bytes {
        match self {
            Self::Message(frame) => stream::event(None, frame),
            Self::Cursor { id, retry_millis } => stream::cursor(id.as_deref(), *retry_millis),
            Self::KeepAlive => stream::KEEP_ALIVE,
        }
    }
}

/// The answer to one request.
pub(crate) enum Reply {
    /// One message.
    Message(StatusCode, Bytes),
    /// A stream of them.
    Stream(streams::BoxStream<'static, Piece>),
}

impl Reply {
    /// The reply as an HTTP response.
    pub(crate) fn into_response(self) -> Response<Body> {
        match self {
            Self::Message(status, frame) => message(status, frame),
            Self::Stream(pieces) => events(pieces.map(|piece| piece.to_event())),
        }
    }

    /// The answer to a request that left before its task ended or its token was revoked. No 401: clients would prove
    /// themselves anew, in a task of their own even, and do again what may have been done.
    pub(crate) fn withheld(id: &Id, over: Over) -> Self {
        Self::Message(StatusCode::OK, withheld(id, over))
    }

    /// A stream that ends at once: a cancelled request is not answered.
    pub(crate) fn silence() -> Self {
        Self::Stream(streams::empty().boxed())
    }

    /// The reply as a stream, for a batch.
    pub(crate) fn into_pieces(self) -> streams::BoxStream<'static, Piece> {
        match self {
            Self::Message(_, frame) => streams::once(async { Piece::Message(frame) }).boxed(),
            Self::Stream(pieces) => pieces,
        }
    }
}

/// A request under way.
pub(crate) struct Flight {
    pub(crate) gateway: Arc<Inner>,
    pub(crate) caller: Caller,
    pub(crate) connection: Connection,
    pub(crate) exchange: Exchange,
    /// The decision under which it was let go; `None` for requests that need none.
    pub(crate) released: Option<Released>,
    /// The client's id for it.
    pub(crate) id: Id,
    pub(crate) era: Era,
    /// What the client said it can do.
    pub(crate) capabilities: Value,
    pub(crate) shape: Shape,
    /// What was asked, where a state that goes to the client is bound to it.
    pub(crate) asking: Option<(String, Params)>,
    /// Its place in the session of a legacy client.
    pub(crate) underway: Option<Underway>,
    pub(crate) slot: Option<Slot>,
    /// The room that its request takes.
    pub(crate) weight: Arc<Part>,
    pub(crate) watch: Stopwatch,
    /// Where a legacy client could come back to.
    pub(crate) cursor: Option<String>,
    /// The upstream's request that a stateless client was asked to answer.
    pub(crate) asked: Option<(Id, Value)>,
    /// Under which token the client hears of progress.
    pub(crate) progress: ProgressToken,
}

/// Under which token a client hears of progress: each round of a stateless client brings its own, while the upstream keeps
/// to that of the first (MCP "Progress").
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ProgressToken {
    /// As the upstream says it: the round that started the call.
    AsSent,
    /// This one: of the round that goes on with the call.
    Of(Value),
    /// The round that goes on with the call wants to hear nothing.
    Unwanted,
}

/// What comes next.
enum Step {
    Piece(Piece),
    /// The last message.
    Last(StatusCode, Bytes),
    /// Nothing comes: the client cancelled it.
    Silence,
    /// The task ended, or the caller's token was revoked.
    Cut(Over),
    /// The upstream asks something that a stateless client must be asked by a result.
    Ask,
    /// The client shall come back for the rest.
    Park,
    /// Nothing for the client; look again.
    Again,
}

impl Step {
    /// The same, with what goes to the client counted until nobody holds it any more.
    fn counted(self, room: &Room) -> Self {
        match self {
            Self::Last(status, frame) => Self::Last(status, room.carry(frame)),
            Self::Piece(Piece::Message(frame)) => Self::Piece(Piece::Message(room.carry(frame))),
            other => other,
        }
    }
}

/// How a stream waits for its next piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Whole,
    Streaming,
}

impl Flight {
    /// The answer: one message if nothing else comes first, a stream otherwise.
    pub(crate) async fn answer(mut self) -> Result<Reply, Refusal> {
        loop {
            return match self.step(Mode::Whole).await {
                Step::Again => continue,
                // A client gets the form of answer that the upstream chose.
                Step::Last(StatusCode::OK, frame) if self.exchange.is_stream() => {
                    Ok(Reply::Stream(streams::once(async { Piece::Message(frame) }).boxed()))
                }
                Step::Last(status, frame) => Ok(Reply::Message(status, frame)),
                Step::Cut(over) => Ok(Reply::withheld(&self.id, over)),
                Step::Silence => Ok(Reply::silence()),
                Step::Ask => self.hold().map(|frame| Reply::Message(StatusCode::OK, frame)),
                Step::Park => {
                    self.park();
                    Ok(Reply::silence())
                }
                Step::Piece(first) => Ok(Reply::Stream(streams::once(async { first }).chain(self.into_stream()).boxed())),
            };
        }
    }

    /// The rest of it as a stream.
    pub(crate) fn into_stream(self) -> impl Stream<Item = Piece> + Send + 'static {
        streams::unfold(Riding(Some(self)), |mut riding| async move {
            loop {
                let step = riding.0.as_mut()?.step(Mode::Streaming).await;
                let piece = match step {
                    Step::Again => continue,
                    Step::Piece(piece) => return Some((piece, riding)),
                    Step::Last(_, frame) => Some(frame),
                    Step::Silence => None,
                    Step::Cut(over) => riding.0.take().map(|flight| withheld(&flight.id, over)),
                    Step::Ask => riding.0.take().and_then(|flight| flight.hold().ok()),
                    Step::Park => {
                        riding.0.take()?.park();
                        None
                    }
                };
                // Taken out first: what is over must not be kept for a client that comes back.
                drop(riding.0.take());
                return piece.map(|frame| (Piece::Message(frame), Riding(None)));
            }
        })
    }

    async fn step(&mut self, mode: Mode) -> Step {
        let caller = self.caller.clone();
        let quiet = Duration::from_secs(self.gateway.limits.keep_alive_secs);
        let event = tokio::select! {
            biased;
            over = caller.wait_over() => return self.cut(over),
            () = Underway::cancelled(self.underway.as_ref()) => return self.cancelled(),
            () = self.gateway.stopping.cancelled(), if self.shape.is_endless() => return self.graceful_end(),
            () = self.gateway.expiry(&self.caller), if self.shape.is_endless() => return self.graceful_end(),
            event = self.exchange.next() => event,
            () = tokio::time::sleep(quiet), if mode == Mode::Streaming => return Step::Piece(Piece::KeepAlive),
        };
        if let Ok(Event::Notification { method, .. }) = &event
            && hear::hides(&self.gateway, (&self.caller, self.shape.upstream()), method)
        {
            return Step::Again;
        }
        if let Ok(event) = &event
            && let Some(what) = self.unasked(event)
            && let Err(unheard) = Box::pin(self.gateway.authority.hear(&self.caller, self.shape.upstream(), what)).await
        {
            return Box::pin(self.withheld(event, unheard)).await;
        }
        let step = match event {
            Ok(Event::Result(raw)) => self.result(&raw),
            Ok(Event::Error(raw)) => self.error(raw),
            Ok(Event::Notification { method, params }) => self.notification(&method, params),
            Ok(Event::Request { id, method, params }) => Box::pin(self.asked(id, &method, params)).await,
            Ok(Event::Cursor { id, retry_millis }) => self.point(id, retry_millis),
            Ok(Event::Paused) if !self.era.is_modern() && self.cursor.is_some() => Step::Park,
            Ok(Event::Paused) => Step::Again,
            Err(error) => self.failed(&error),
        };
        step.counted(self.connection.bodies())
    }

    /// What an event is that no decided request stands behind, if so: it raises labels before it is passed on. What comes on
    /// behalf of a decided request raised its labels when that was decided.
    fn unasked(&self, event: &Event) -> Option<Heard> {
        if self.exchange.is_aside() && !matches!(event, Event::Request { method, .. } if answer::to_ping(method).is_some()) {
            return Some(Heard::Question);
        }
        if self.released.is_some() || matches!(self.shape.kind, Kind::Work | Kind::Handles) {
            return None;
        }
        match event {
            Event::Cursor { .. } | Event::Paused => None,
            Event::Notification { method, params } => hear::silent(method, params.as_ref()).is_none().then_some(Heard::Notice),
            Event::Request { method, .. } => answer::to_ping(method).is_none().then_some(Heard::Question),
            Event::Result(_) => self.shape.has_words(self).then_some(Heard::Listing),
            Event::Error(raw) => (!says_no_such_method(raw)).then_some(Heard::Listing),
        }
    }

    /// What comes in place of an event that must not be passed on.
    async fn withheld(&mut self, event: &Event, unheard: Unheard) -> Step {
        if let Unheard::Over(over) = unheard {
            return self.cut(over);
        }
        match event {
            Event::Request { id, .. } => self.answered(id, Err(&hear::unasked(unheard))).await,
            Event::Result(_) | Event::Error(_) => {
                let fault = Fault::new(StatusCode::OK, Some(&self.id), own_code::DENIED, unheard.to_string());
                Step::Last(fault.status, fault.frame())
            }
            Event::Notification { .. } | Event::Cursor { .. } | Event::Paused => Step::Again,
        }
    }

    fn result(&mut self, raw: &Raw) -> Step {
        // Results that arrive after the end of the task are withheld, however close it was.
        if let Some(over) = self.caller.over() {
            return self.cut(over);
        }
        let Shaped { raw, status } = match self.shape.result(self, raw) {
            Ok(shaped) => shaped,
            Err(error) => return self.failed(&error),
        };
        let frame = stream::result(&self.id, &raw);
        // CRASH(call.answered): the upstream did it; the decision in the log says so, the outcome is missing.
        tracing::trace!(target: "writ::step", at = "call.answered");
        self.record(status, Some(raw.as_bytes()));
        // CRASH(call.recorded): the same; the outcome may or may not have been kept.
        tracing::trace!(target: "writ::step", at = "call.recorded");
        Step::Last(StatusCode::OK, frame)
    }

    fn error(&mut self, raw: Raw) -> Step {
        if let Some(over) = self.caller.over() {
            return self.cut(over);
        }
        let raw = match self.released.is_none() && says_no_such_method(&raw) {
            true => Raw::from_value(&error_object(code::METHOD_NOT_FOUND, "Method not found", None)),
            false => raw,
        };
        let (raw, status) = if self.era.is_modern() { modern_error(raw) } else { (raw, StatusCode::OK) };
        let frame = stream::error(Some(&self.id), &raw);
        self.record(CallStatus::UpstreamError, Some(raw.as_bytes()));
        Step::Last(status, frame)
    }

    fn notification(&self, method: &str, params: Option<Raw>) -> Step {
        let params = hear::silent(method, params.as_ref()).or_else(|| params.map(tags::narrowed_raw));
        let params = if self.shape.is_endless() { Some(self.tagged(params)) } else { params };
        let params = match (&self.progress, method) {
            (ProgressToken::Unwanted, "notifications/progress") => return Step::Again,
            (ProgressToken::Of(token), "notifications/progress") => params.map(|params| with_progress_token(&params, token)),
            _ => params,
        };
        Step::Piece(Piece::Message(stream::call(None, method, params.as_ref())))
    }

    /// Parameters with the id of the subscription that they belong to (MCP 2026-07-28 "Subscriptions").
    fn tagged(&self, params: Option<Raw>) -> Raw {
        let params = params.unwrap_or_else(|| Raw::from_value(&json!({})));
        let Some(mut members) = Members::of(&params) else { return params };
        let mut tags = members.value("_meta").filter(Value::is_object).unwrap_or_else(|| json!({}));
        if let Some(tags) = tags.as_object_mut() {
            tags.insert(meta::SUBSCRIPTION_ID.into(), self.id.to_value());
        }
        members.set("_meta", &tags);
        members.to_raw()
    }

    /// A request of the upstream: a legacy client gets it as it is, a stateless one is asked by a result.
    async fn asked(&mut self, id: Id, method: &str, params: Option<Raw>) -> Step {
        if let Some(pong) = answer::to_ping(method) {
            return self.answered(&id, Ok(&pong)).await;
        }
        if !self.era.is_modern() {
            if self.underway.as_ref().is_some_and(|underway| underway.ask(Asked { id: &id, method, params: params.as_ref() })) {
                return Step::Piece(Piece::Message(stream::call(Some(&id), method, params.as_ref())));
            }
            return self.answered(&id, Err(&answer::kept_back())).await;
        }
        let needs = match method {
            "elicitation/create" => "elicitation",
            "sampling/createMessage" => "sampling",
            "roots/list" => "roots",
            _ => "",
        };
        if self.asking.is_none() || self.capabilities.get(needs).is_none() {
            let refusal = Raw::from_value(&error_object(code::METHOD_NOT_FOUND, "the client cannot do this", None));
            return self.answered(&id, Err(&refusal)).await;
        }
        let params = params.map_or_else(|| json!({}), |params| params.to_value());
        self.asked = Some((id, json!({ "method": method, "params": params })));
        Step::Ask
    }

    /// Answers a question in place of the client.
    async fn answered(&mut self, id: &Id, outcome: Result<&Raw, &Raw>) -> Step {
        match self.connection.answer(id, outcome, None).await {
            Ok(()) => Step::Again,
            Err(error) => self.failed(&error),
        }
    }

    fn point(&mut self, id: Option<String>, retry_millis: Option<u64>) -> Step {
        if self.era.is_modern() {
            return Step::Again;
        }
        if id.is_some() {
            self.cursor.clone_from(&id);
        }
        Step::Piece(Piece::Cursor { id, retry_millis })
    }

    fn cut(&mut self, over: Over) -> Step {
        self.record(CallStatus::Withheld, None);
        Step::Cut(over)
    }

    fn cancelled(&mut self) -> Step {
        self.record(CallStatus::Cancelled, None);
        Step::Silence
    }

    fn graceful_end(&mut self) -> Step {
        let params = self.tagged(None);
        let mut result = params.to_value();
        if let Some(result) = result.as_object_mut() {
            result.insert("resultType".into(), "complete".into());
        }
        Step::Last(StatusCode::OK, stream::result(&self.id, &Raw::from_value(&result)))
    }

    fn failed(&mut self, error: &UpstreamError) -> Step {
        if let UpstreamError::TaskEnded(reason) = error {
            return self.cut(Over::TaskEnded(*reason));
        }
        tracing::warn!(%error, upstream = %self.shape.upstream(), "a request to an upstream failed");
        self.record(status_of(error), None);
        let fault = upstream_fault(error, Some(&self.id), self.era);
        Step::Last(fault.status, fault.frame())
    }

    /// Records how it ended. The first record counts.
    fn record(&mut self, status: CallStatus, given: Option<&[u8]>) {
        if let Some(released) = self.released.take() {
            let result_sha256 =
                given.and_then(|bytes| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref().try_into().ok());
            released.record(CallOutcome { status, result_sha256, bytes: given.map_or(0, |bytes| bytes.len() as u64) });
            self.watch.stop(&*self.gateway.observer, Stage::Upstream);
        }
    }

    /// What a state that goes to the client is bound to. Made only when there is one.
    pub(crate) fn bond(&self) -> Option<Bond> {
        let (method, params) = self.asking.as_ref()?;
        Some(Bond::new(self.caller.task(), self.shape.upstream(), method, params.value()))
    }

    /// Keeps the request for the client's retry and asks for the input by a result.
    fn hold(mut self) -> Result<Bytes, Refusal> {
        self.slot = None;
        let gateway = Arc::clone(&self.gateway);
        let (id, bond) = (self.id.clone(), self.bond());
        let asked = self.asked.as_ref().map(|(_, request)| request.clone());
        let number = gateway.held.keep(self).ok_or(Refusal::Busy("requests that wait for input"))?;
        let sealed = bond.and_then(|bond| gateway.seal(&bond, &State::Held(number)));
        let (Some(asked), Some(sealed)) = (asked, sealed) else {
            drop(gateway.held.take(number));
            return Err(Fault::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                Some(&id),
                code::INTERNAL_ERROR,
                "the request cannot be continued",
            )
            .into());
        };
        let result = json!({
            "resultType": "input_required",
            "inputRequests": { crate::held::INPUT_KEY: asked },
            "requestState": sealed,
        });
        Ok(stream::result(&id, &Raw::from_value(&result)))
    }

    /// Keeps the rest of the stream for a legacy client that comes back.
    fn park(mut self) {
        self.slot = None;
        let session = self.underway.as_ref().map(|underway| Arc::clone(&underway.session));
        if let (Some(session), Some(cursor)) = (session, self.cursor.clone()) {
            session.park(cursor, self);
        }
    }
}

/// A flight inside a response that is being read. If the client goes away, a legacy stream with a point to come back to
/// is kept for a while (going away is not cancelling: MCP 2025-11-25 "Sending Messages" §6); any other is cancelled.
struct Riding(Option<Flight>);

impl Drop for Riding {
    fn drop(&mut self) {
        if let Some(flight) = self.0.take()
            && flight.cursor.is_some()
            && !flight.era.is_modern()
            && flight.caller.over().is_none()
        {
            flight.park();
        }
    }
}

fn withheld(id: &Id, over: Over) -> Bytes {
    let why = match over {
        Over::TaskEnded(reason) => format!("the task has ended ({})", reason.as_str()),
        Over::TokenRevoked | Over::PolicyChanged => "the access token was revoked".to_owned(),
    };
    let text =
        format!("{why}; the answer is withheld. The request was sent and may have been carried out: do not repeat it blindly");
    stream::error(Some(id), &Raw::from_value(&error_object(own_code::TASK_ENDED, &text, None)))
}

/// Whether an error says just that there is no such method: then its words are not needed.
fn says_no_such_method(error: &Raw) -> bool {
    /// The one member that counts here: the rest may be anything, and much of it.
    #[derive(serde::Deserialize)]
    struct Code {
        code: Option<i64>,
    }
    serde_json::from_slice::<Code>(error.as_bytes()).is_ok_and(|error| error.code == Some(code::METHOD_NOT_FOUND))
}

/// The HTTP status and the error object that a stateless client gets for an upstream's error object.
fn modern_error(raw: Raw) -> (Raw, StatusCode) {
    let error = raw.to_value();
    match error.get("code").and_then(Value::as_i64).unwrap_or_default() {
        code::METHOD_NOT_FOUND => (raw, StatusCode::NOT_FOUND),
        code::HEADER_MISMATCH | code::MISSING_CAPABILITY | code::UNSUPPORTED_VERSION => (raw, StatusCode::BAD_REQUEST),
        // This code is of the session revisions and must not be sent any more.
        code::RESOURCE_NOT_FOUND => {
            let text = error.get("message").and_then(Value::as_str).unwrap_or("resource not found");
            (Raw::from_value(&error_object(code::INVALID_PARAMS, text, error.get("data").cloned())), StatusCode::OK)
        }
        _ => (raw, StatusCode::OK),
    }
}

/// How the outcome of a failed request reads in the log.
pub(crate) fn status_of(error: &UpstreamError) -> CallStatus {
    match error {
        UpstreamError::Timeout => CallStatus::Timeout,
        UpstreamError::TaskEnded(_) | UpstreamError::NoRoom | UpstreamError::PolicyChangedBetween => CallStatus::Withheld,
        UpstreamError::SecretEchoed => CallStatus::SecretEchoed,
        UpstreamError::PolicyChanged => CallStatus::NotReleased,
        _ => CallStatus::UpstreamError,
    }
}

/// What a client is told of a failing upstream.
pub(crate) fn upstream_fault(error: &UpstreamError, id: Option<&Id>, era: Era) -> Fault {
    match error {
        UpstreamError::Unsupported(_) => method_not_found(id, era),
        error => Fault::new(StatusCode::OK, id, own_code::UPSTREAM, error.to_string()),
    }
}

/// The answer to a method that is not offered.
pub(crate) fn method_not_found(id: Option<&Id>, era: Era) -> Fault {
    let status = if era.is_modern() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    Fault::new(status, id, code::METHOD_NOT_FOUND, "Method not found")
}

fn with_progress_token(params: &Raw, token: &Value) -> Raw {
    let Some(mut members) = Members::of(params) else { return params.clone() };
    members.set("progressToken", token);
    members.to_raw()
}
