//! What both eras have in common: a request with its caller and its connection, and which method goes which way. A method
//! that is not listed here goes nowhere: what nobody thought about is not forwarded.

pub(crate) mod legacy;
pub(crate) mod modern;

use crate::answer;
use crate::call::{Governed, call_tool, governed};
use crate::envelope::{Bond, State};
use crate::flight::{Flight, ProgressToken, Reply, method_not_found, status_of, upstream_fault};
use crate::held::INPUT_KEY;
use crate::listen::{Admitted, Inner};
use crate::mcp::leaving::{self, Tags};
use crate::mcp::message::{Id, Params, Raw, Request};
use crate::mcp::object::Members;
use crate::mcp::stream;
use crate::mcp::version::{Era, code};
use crate::observe::Stopwatch;
use crate::respond::{Fault, Refusal};
use crate::session::Underway;
use crate::shape::{Kind, Shape};
use crate::upstream::{Connection, Outgoing, UpstreamError};
use authority::{CallStatus, Over, Released};
use domain::UpstreamName;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::Instrument;
use tracing::field::Empty;

/// The extension for long-running work.
pub(crate) const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// The refusal of a handle that nobody here remembers. A restart forgets them all: which call began the work, with which
/// arguments, is kept nowhere in clear, and without it nothing could be decided.
const UNKNOWN_WORK: &str =
    "Unknown task: since the gateway was started no call of yours began it here; if one did before, call the tool again";

/// A request that was held for an answer, and the answer.
pub(crate) struct Held {
    flight: Box<Flight>,
    asked: Id,
    answer: Raw,
}

/// One request of an authenticated caller.
pub(crate) struct Incoming {
    pub(crate) gateway: Arc<Inner>,
    pub(crate) admitted: Admitted,
    pub(crate) connection: Connection,
    pub(crate) era: Era,
    pub(crate) capabilities: Value,
    pub(crate) request: Request,
    /// Its place in the session of a legacy client.
    pub(crate) underway: Option<Underway>,
}

/// Sends a request its way, in a span of its own.
pub(crate) async fn dispatch(incoming: Incoming) -> Result<Reply, Refusal> {
    let span = span(&incoming);
    routed(incoming).instrument(span).await
}

/// The span of a request, named and attributed as OpenTelemetry's conventions for MCP have it. Arguments are never in it.
fn span(incoming: &Incoming) -> tracing::Span {
    let span = tracing::info_span!(
        "mcp",
        otel.name = Empty,
        otel.kind = "server",
        mcp.method.name = %incoming.request.method,
        mcp.protocol.version = incoming.era.version().as_str(),
        mcp.session.id = Empty,
        jsonrpc.request.id = Empty,
        gen_ai.operation.name = Empty,
        gen_ai.tool.name = Empty,
        traceparent = Empty,
        writ.upstream = %incoming.upstream(),
        writ.task = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    let params = incoming.request.params.as_ref();
    let method = incoming.request.method.as_str();
    match params.and_then(|params| params.text("name")).filter(|_| method == "tools/call") {
        Some(tool) => {
            span.record("otel.name", format!("{method} {tool}"));
            span.record("gen_ai.operation.name", "execute_tool");
            span.record("gen_ai.tool.name", tool);
        }
        None => drop(span.record("otel.name", method)),
    }
    span.record("jsonrpc.request.id", tracing::field::display(&incoming.request.id));
    span.record("writ.task", tracing::field::display(incoming.admitted.caller.task()));
    if let Some(underway) = &incoming.underway {
        span.record("mcp.session.id", &*underway.session.id);
    }
    // W3C trace context: of `_meta` first, which says more of this message than the connection's header does.
    let header = incoming.admitted.headers.get("traceparent").and_then(|value| value.to_str().ok());
    if let Some(parent) = params.and_then(|params| params.meta("traceparent")).and_then(Value::as_str).or(header) {
        span.record("traceparent", parent);
    }
    span
}

async fn routed(incoming: Incoming) -> Result<Reply, Refusal> {
    let modern = incoming.era.is_modern();
    match incoming.request.method.as_str() {
        "tools/call" => call_tool(incoming).await,
        "resources/read" => governed(incoming, Governed::Resource, Kind::Resource).await,
        "resources/subscribe" if !modern => governed(incoming, Governed::Resource, Kind::Plain).await,
        "prompts/get" => governed(incoming, Governed::Prompt, Kind::Plain).await,
        "completion/complete" => governed(incoming, Governed::Completion, Kind::Plain).await,
        "tools/list" => list(incoming, Kind::Tools).await,
        "resources/list" => list(incoming, Kind::Resources).await,
        "resources/templates/list" => list(incoming, Kind::Templates).await,
        "prompts/list" => list(incoming, Kind::Prompts).await,
        "subscriptions/listen" if modern => modern::subscribe(incoming).await,
        "resources/unsubscribe" | "logging/setLevel" if !modern => tune(incoming).await,
        "tasks/get" | "tasks/cancel" => with_handle(incoming).await,
        "tasks/update" if modern => with_handle(incoming).await,
        "tasks/result" if !modern => with_handle(incoming).await,
        "tasks/list" if !modern => list(incoming, Kind::Handles).await,
        _ => Err(method_not_found(Some(&incoming.request.id), incoming.era).into()),
    }
}

/// Lists something. Nothing but where the list goes on is asked for, and only where the upstream itself said.
async fn list(mut incoming: Incoming, kind: Kind) -> Result<Reply, Refusal> {
    incoming.keep_only(&["cursor", "_meta"]);
    incoming.open_cursor()?;
    incoming.fly(None, kind).await
}

/// Lessens or tunes what the task gets anyway, so it is not decided; so it says nothing that was not decided before.
async fn tune(mut incoming: Incoming) -> Result<Reply, Refusal> {
    let member = |name: &str| incoming.request.params.as_ref()?.value().get(name);
    if incoming.request.method == "logging/setLevel" {
        if !member("level").is_some_and(leaving::is_level) {
            return Err(incoming.invalid("`level` must be a severity of RFC 5424"));
        }
        incoming.keep_only(&["level", "_meta"]);
        return incoming.fly(None, Kind::Empty).await;
    }
    let uri = incoming.text("uri")?;
    if !incoming.underway.as_ref().is_some_and(|underway| underway.session.unsubscribe(uri)) {
        // Nothing was subscribed to under this name, so there is nothing to end.
        return Ok(Reply::Message(StatusCode::OK, stream::result(&incoming.request.id, &Raw::from_value(&json!({})))));
    }
    incoming.keep_only(&["uri", "_meta"]);
    incoming.fly(None, Kind::Empty).await
}

/// Asks about long-running work that this task began by a call that was allowed.
async fn with_handle(mut incoming: Incoming) -> Result<Reply, Refusal> {
    let able = incoming.capabilities.get("extensions").and_then(|extensions| extensions.get(TASKS_EXTENSION)).is_some();
    if incoming.era.is_modern() && !able {
        let data = Some(json!({ "requiredCapabilities": { "extensions": { TASKS_EXTENSION: {} } } }));
        let text = "Missing required client capability";
        let fault = Fault::new(StatusCode::BAD_REQUEST, Some(&incoming.request.id), code::MISSING_CAPABILITY, text);
        return Err(Fault { data, ..fault }.into());
    }
    let handle = incoming.text("taskId")?;
    if !incoming.gateway.handles.knows(incoming.admitted.caller.task(), incoming.upstream(), handle) {
        return Err(incoming.invalid(UNKNOWN_WORK));
    }
    if incoming.request.method != "tasks/update" {
        incoming.keep_only(&["taskId", "_meta"]);
        return incoming.fly(None, Kind::Work).await;
    }
    incoming.keep_only(&["taskId", "inputResponses", "_meta"]);
    // An answer to a question of that work: decided like the call that began it.
    let handle = incoming.text("taskId")?;
    let asking = incoming.gateway.handles.asking(incoming.admitted.caller.task(), incoming.upstream(), handle);
    let Some(asking) = asking else { return Err(incoming.invalid("the call that began this work cannot be decided again")) };
    let at = (incoming.upstream(), &incoming.connection);
    let released = asking.decide(&incoming.gateway, &incoming.admitted.caller, at).await?;
    incoming.fly(Some(released), Kind::Work).await
}

impl Inner {
    /// Seals a state for the client.
    pub(crate) fn seal(&self, bond: &Bond, state: &State) -> Option<String> {
        let mut serial = [0; 16];
        self.authority.random(&mut serial);
        self.envelope.seal(bond, state, serial, self.authority.now())
    }
}

impl Incoming {
    pub(crate) fn upstream(&self) -> &UpstreamName {
        &self.admitted.endpoint.upstream
    }

    /// A parameter that must be text.
    pub(crate) fn text(&self, name: &str) -> Result<&str, Refusal> {
        let text = self.request.params.as_ref().and_then(|params| params.text(name));
        text.ok_or_else(|| self.invalid(&format!("`{name}` must be a string")))
    }

    /// The refusal of parameters that are not what the method takes.
    pub(crate) fn invalid(&self, text: &str) -> Refusal {
        Fault::new(StatusCode::OK, Some(&self.request.id), code::INVALID_PARAMS, text).into()
    }

    fn bond(&self) -> Option<Bond> {
        let params = self.request.params.as_ref()?;
        Some(Bond::new(self.admitted.caller.task(), self.upstream(), &self.request.method, params.value()))
    }

    /// Deals with what a client brings back from an interim result: the upstream gets its own state again, or the request
    /// that is held for this answer is taken out, to go on if this one is allowed.
    pub(crate) fn continue_from_state(&mut self) -> Result<Option<Held>, Refusal> {
        let brought = |params: &Params| ["requestState", "inputResponses"].iter().any(|key| params.value().contains_key(*key));
        let Some(params) = self.request.params.take_if(|params| brought(params)) else { return Ok(None) };
        if !self.era.is_modern() {
            // The session revisions have no such members; an upstream that has them must not take a client's word for them.
            self.request.params = Some(rewritten(params, |members| {
                members.remove("requestState");
                members.remove("inputResponses");
            }));
            return Ok(None);
        }
        let state = params.value().get("requestState").cloned();
        let answer = params.value().get("inputResponses").and_then(|answers| answers.get(INPUT_KEY)).map(Raw::from_value);
        self.request.params = Some(params);
        let (Some(state), Some(bond)) = (state, self.bond()) else { return Ok(None) };
        let opened = match &state {
            Value::String(text) => self.gateway.envelope.open(&bond, text, self.gateway.authority.now()),
            _ => return Err(self.invalid("`requestState` must be a string")),
        };
        match opened {
            Err(fault) => Err(self.invalid(&format!("`requestState` was refused: {fault}"))),
            // Cannot happen: the bond of a list is of no request that has a state.
            Ok(State::Cursor(_)) => Err(self.invalid("`requestState` was refused: it is a cursor")),
            Ok(State::Upstream(text)) => {
                let text = Value::from(text);
                self.request.params =
                    self.request.params.take().map(|params| rewritten(params, |members| members.set("requestState", &text)));
                Ok(None)
            }
            Ok(State::Held(number)) => {
                let gone = "the request that waited for this input is over; start again";
                let Some(mut flight) = self.gateway.held.take(number) else { return Err(self.invalid(gone)) };
                let (Some((asked, _)), Some(answer)) = (flight.asked.take(), answer) else {
                    return Err(self.invalid("`inputResponses` lacks the input that was asked for"));
                };
                Ok(Some(Held { flight: Box::new(flight), asked, answer }))
            }
        }
    }

    /// Lets the answer leave that was decided with this round, and goes on with the request that was held for it.
    pub(crate) async fn resume(mut self, held: Held, released: Released) -> Result<Reply, Refusal> {
        let Held { mut flight, asked, answer: said } = held;
        let leaving = answer::leaving(&said, |work| self.knows(work))?;
        let answered = flight.connection.answer(&asked, Ok(&leaving.raw), Some(released.warrant())).await;
        released.record(answered.as_ref().map_or_else(status_of, |()| CallStatus::Ok).into());
        answered.map_err(|error| upstream_fault(&error, Some(&self.request.id), self.era))?;
        flight.id = self.request.id.clone();
        // The token of this round counts from here on: the one before may have expired or been revoked.
        flight.caller = self.admitted.caller.clone();
        let token = self.request.params.as_ref().and_then(|params| params.value().get("_meta")?.get("progressToken").cloned());
        flight.progress = token.map_or(ProgressToken::Unwanted, ProgressToken::Of);
        flight.slot = self.admitted.slot.take();
        flight.weight = Arc::clone(&self.admitted.weight);
        Box::pin(flight.answer()).await
    }

    /// Whether this task began that long-running work.
    fn knows(&self, work: &str) -> bool {
        self.gateway.handles.knows(self.admitted.caller.task(), self.upstream(), work)
    }

    /// Leaves in `_meta` what says nothing: no policy sees it. Under which token the client hears of progress then.
    fn narrow_tags(&mut self) -> ProgressToken {
        let said = self.request.params.as_ref().and_then(|params| params.value().get("_meta"));
        let left = said.and_then(|said| leaving::tags(said, |work| self.knows(work), || Some(self.gateway.progress_token())));
        let Some(Tags { value, token }) = left else { return ProgressToken::AsSent };
        self.request.params = self.request.params.take().map(|params| rewritten(params, |members| members.set("_meta", &value)));
        token.map_or(ProgressToken::AsSent, ProgressToken::Of)
    }

    /// Sends the request and waits for its answer.
    pub(crate) async fn fly(mut self, released: Option<Released>, kind: Kind) -> Result<Reply, Refusal> {
        let watch = Stopwatch::start();
        let progress = self.narrow_tags();
        let stateful =
            self.era.is_modern() && matches!(self.request.method.as_str(), "tools/call" | "resources/read" | "prompts/get");
        let outgoing = Outgoing {
            id: &self.request.id,
            method: &self.request.method,
            params: self.request.params.as_ref().map(Params::raw),
            headers: &self.admitted.headers,
            released: released.as_ref(),
        };
        let caller = self.admitted.caller.clone();
        let sent = tokio::select! {
            biased;
            over = caller.wait_over() => {
                if let Some(released) = released {
                    released.record(CallStatus::Withheld.into());
                }
                return Ok(Reply::withheld(&self.request.id, over));
            }
            // Not answered, as the client wants it; dropping the release records it.
            () = Underway::cancelled(self.underway.as_ref()) => return Ok(Reply::silence()),
            // In boxes, this and the answer: what is around them is moved from hand to hand.
            sent = Box::pin(self.connection.request(outgoing)) => sent,
        };
        let exchange = match sent {
            Ok(exchange) => {
                // CRASH(call.sent): the upstream has it; the decision in the log says that it may have.
                tracing::trace!(target: "writ::step", at = "call.sent");
                exchange
            }
            Err(error) => {
                if let Some(released) = released {
                    released.record(status_of(&error).into());
                }
                tracing::warn!(%error, upstream = %self.upstream(), "a request could not be sent");
                return Err(match error {
                    UpstreamError::TaskEnded(reason) => {
                        return Ok(Reply::withheld(&self.request.id, Over::TaskEnded(reason)));
                    }
                    UpstreamError::PolicyChanged => Refusal::Over(Over::PolicyChanged),
                    error => upstream_fault(&error, Some(&self.request.id), self.era).into(),
                });
            }
        };
        let shape = Shape::new(kind, self.upstream());
        let flight = Flight {
            progress,
            slot: self.admitted.slot.take(),
            weight: Arc::clone(&self.admitted.weight),
            gateway: self.gateway,
            caller: self.admitted.caller,
            connection: self.connection,
            exchange,
            released,
            id: self.request.id,
            era: self.era,
            capabilities: self.capabilities,
            shape,
            asking: self.request.params.filter(|_| stateful).map(|params| (self.request.method, params)),
            underway: self.underway,
            watch,
            cursor: None,
            asked: None,
        };
        Box::pin(flight.answer()).await
    }
}

/// Parameters whose text was changed in members that nothing is decided on.
pub(crate) fn rewritten(params: Params, change: impl FnOnce(&mut Members<'_>)) -> Params {
    let raw = params.raw().clone();
    match Members::of(&raw) {
        Some(mut members) => {
            change(&mut members);
            let raw = members.to_raw();
            params.with_raw(raw)
        }
        // Cannot happen: parameters were parsed as an object without doubled members.
        None => params,
    }
}
