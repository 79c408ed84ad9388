//! A task's connection to one upstream, as the agent-facing half uses it. The same calls whatever the upstream speaks:
//! what one era has and the other has not is answered or translated here.
//! MCP 2026-07-28 "Versioning"; MCP 2025-11-25 "Lifecycle".

use super::bridge;
use super::error::UpstreamError;
use super::exchange::{Event, Exchange, Source};
use super::link::{Link, Prepared, Session};
use super::listen::{self, Listening};
use super::mirror::{MirroredParameter, encoded};
use super::profile::ServerProfile;
use super::restore::Told;
use super::rounds::{Answered, Rounds};
use super::{era, http};
use crate::answer;
use crate::mcp::message::{Id, Raw};
use crate::mcp::stream;
use crate::room::Room;
use ::http::HeaderMap;
use authority::{Released, Warrant};
use domain::ToolName;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::sync::broadcast;
use tracing::Instrument;

/// A request of the client on its way to the upstream.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// The client's id for it.
    pub id: &'a Id,
    /// What it asks.
    pub method: &'a str,
    /// With what: the text that was decided on.
    pub params: Option<&'a Raw>,
    /// The client's HTTP headers. Only trace context is passed on.
    pub headers: &'a HeaderMap,
    /// The decision that let it go. Governed methods are not sent without one.
    pub released: Option<&'a Released>,
}

/// A connection; cheap to clone.
#[derive(Clone)]
pub struct Connection(pub(super) Arc<Link>, #[expect(dead_code, reason = "held, so that the connection is not idle")] Arc<()>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("upstream", self.0.name()).field("task", &self.0.task).finish_non_exhaustive()
    }
}

/// Whether a method reaches something that policy governs.
fn is_governed(method: &str) -> bool {
    matches!(method, "tools/call" | "resources/read" | "resources/subscribe" | "prompts/get" | "completion/complete")
}

impl Connection {
    pub(super) fn new(link: Arc<Link>) -> Self {
        let holder = Arc::clone(&link.holders);
        Self(link, holder)
    }

    /// The room for the answers of this task.
    pub(crate) fn bodies(&self) -> &Room {
        &self.0.bodies
    }

    /// Whether the upstream is still registered as it was when the connection was made. If not, the connection sends
    /// nothing more.
    #[must_use]
    pub fn is_current(&self) -> bool {
        !self.0.is_closed() && self.0.hub.is_current()
    }

    /// What the upstream says of itself.
    ///
    /// # Errors
    /// Why it could not be asked.
    pub async fn server(&self) -> Result<Arc<ServerProfile>, UpstreamError> {
        let session = self.0.session().await?;
        tokio::select! {
            biased;
            server = era::server(&self.0, &session) => server,
            () = self.0.closed() => Err(self.0.why_closed()),
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Why it could not be sent, or was answered with something that is no answer.
    pub async fn request(&self, outgoing: Outgoing<'_>) -> Result<Exchange, UpstreamError> {
        if is_governed(outgoing.method) && outgoing.released.is_none() {
            return Err(UpstreamError::NotReleased);
        }
        self.forward(outgoing).await
    }

    /// In a span of its own: from here until the upstream began to answer (`docs/operation.md`, "Traces").
    pub(super) async fn forward(&self, outgoing: Outgoing<'_>) -> Result<Exchange, UpstreamError> {
        let span = tracing::debug_span!(
            "forward",
            otel.kind = "client",
            mcp.method.name = outgoing.method,
            writ.upstream = %self.0.hub.upstream.name,
        );
        self.pass_on(outgoing).instrument(span).await
    }

    async fn pass_on(&self, outgoing: Outgoing<'_>) -> Result<Exchange, UpstreamError> {
        let link = &self.0;
        let place = Arc::clone(&link.hub.places).try_acquire_owned().map_err(|_| UpstreamError::Busy("requests"))?;
        let session = link.session().await?;
        if let Some(source) = self.translated(&session, &outgoing).await? {
            return Ok(Exchange::new(Arc::clone(link), source, None, Some(place)));
        }
        let client_is_modern = link.client.era.is_modern();
        let params = if client_is_modern && session.era.is_modern() {
            // The common case, and nothing to translate: the request carries everything itself.
            outgoing.params.cloned()
        } else {
            bridge::outbound(link, session.era, outgoing.params)?
        };
        let mut headers = http::forwarded(outgoing.headers, link.hub.traceparent.and_then(|current| current()));
        if session.era.is_modern() && outgoing.method == "tools/call" {
            self.mirror(&mut headers, outgoing.params);
        }
        // Before the request, so that what the upstream asks because of it finds the client.
        let asks_aside = client_is_modern && !session.era.is_modern() && link.hub.endpoint.is_some();
        let rider = asks_aside.then(|| link.riders.enter());
        if asks_aside {
            Box::pin(listen::ready(link, &session)).await;
        }
        let id = link.wire_id(outgoing.id, session.era);
        let request = Prepared {
            id,
            method: outgoing.method.to_owned(),
            params,
            headers,
            warrant: outgoing.released.map(Released::warrant),
        };
        let in_rounds = !client_is_modern && session.era.is_modern();
        let rounds = in_rounds.then(|| Box::new(Rounds::new(request.clone())));
        let source = if asks_aside {
            // It may be asked something before the first byte of the answer, so it goes on inside the exchange.
            let link = Arc::clone(link);
            Source::Opening(Box::pin(async move { link.open(request).await }))
        } else {
            link.open(request).await?
        };
        // What is translated is remembered there.
        let told = if session.era.is_modern() { None } else { Told::by(&outgoing) };
        let exchange = Exchange::new(Arc::clone(link), source, rounds, Some(place)).telling(told);
        // A stateless request that names no level wants no log messages; a session does not know that.
        let quiet = client_is_modern && !session.era.is_modern() && bridge::log_level(outgoing.params).is_none();
        let exchange = if quiet { exchange.without_log() } else { exchange };
        Ok(match rider {
            Some(rider) => exchange.with_rider(rider),
            None => exchange,
        })
    }

    /// What the upstream's era has no words for, or says in others.
    async fn translated(&self, session: &Arc<Session>, outgoing: &Outgoing<'_>) -> Result<Option<Source>, UpstreamError> {
        let link = &self.0;
        let done = || Ok(Some(Source::ended(Ok(Raw::from_value(&json!({}))))));
        let text = |name: &str| {
            let params = outgoing.params.map(Raw::to_value).unwrap_or_default();
            params.get(name).and_then(Value::as_str).map(str::to_owned)
        };
        match (outgoing.method, link.client.era.is_modern(), session.era.is_modern()) {
            ("ping", false, true) => done(),
            ("logging/setLevel", false, true) => {
                link.inbox.set_log_level(text("level").unwrap_or_default());
                done()
            }
            ("resources/subscribe", false, true) => {
                let uri = text("uri").unwrap_or_default();
                link.inbox.subscribe(&uri).ok_or(UpstreamError::Busy("subscriptions"))?;
                link.inbox.changed.notify_one();
                listen::pump(link);
                done()
            }
            ("resources/unsubscribe", false, true) => {
                link.inbox.unsubscribe(&text("uri").unwrap_or_default());
                link.inbox.changed.notify_one();
                done()
            }
            ("subscriptions/listen", true, false) => {
                let listening = Box::pin(Listening::open(link, session, outgoing.params)).await?;
                Ok(Some(Source::Listening(listening)))
            }
            ("server/discover", true, false) => Err(UpstreamError::Unsupported(outgoing.method.to_owned())),
            (_, true, false) => {
                Box::pin(self.set_log_level(session, outgoing.params)).await?;
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    /// A session has one log level for all requests: the one that was asked for last.
    async fn set_log_level(&self, session: &Arc<Session>, params: Option<&Raw>) -> Result<(), UpstreamError> {
        let Some(level) = bridge::log_level(params) else { return Ok(()) };
        let server = era::server(&self.0, session).await?;
        if server.capabilities.get("logging").is_some() && self.0.inbox.set_log_level(level.clone()) {
            // If the upstream refuses the level, its messages just stay as they are.
            let _ = self.0.call("logging/setLevel", Some(Raw::from_value(&json!({ "level": level })))).await?;
        }
        Ok(())
    }

    /// Repeats parameters in headers, as the tool's definition wants.
    fn mirror(&self, headers: &mut HeaderMap, params: Option<&Raw>) {
        let Some(params) = params else { return };
        if !self.0.hub.catalog.mirrors() {
            return;
        }
        let params = params.to_value();
        let name = params.get("name").and_then(Value::as_str).and_then(|name| name.parse().ok());
        let arguments = params.get("arguments").and_then(Value::as_object);
        let (Some(name), Some(arguments)) = (name, arguments) else { return };
        for parameter in self.mirrored(&name) {
            if let Some(value) = parameter.text(arguments).and_then(|text| encoded(&text)) {
                headers.insert(parameter.header, value);
            }
        }
    }

    /// Which parameters of a tool a stateless client must repeat in headers. The upstream gets headers that were made
    /// from the arguments in any case; this is for checking what a client sent.
    #[must_use]
    pub fn mirrored(&self, tool: &ToolName) -> Vec<MirroredParameter> {
        self.0.hub.catalog.mirrored(tool)
    }

    /// Sends a notification of the client. `notifications/initialized` and `notifications/cancelled` are not needed:
    /// the connection does the first by itself, and dropping the [`Exchange`] does the second.
    ///
    /// # Errors
    /// Why it could not be sent.
    pub async fn notify(&self, method: &str, params: Option<&Raw>) -> Result<(), UpstreamError> {
        if matches!(method, "notifications/initialized" | "notifications/cancelled") {
            return Ok(());
        }
        let session = self.0.session().await?;
        // A stateless upstream knows no notifications of clients (MCP 2026-07-28 "Sending Messages").
        if session.era.is_modern() && !self.0.client.era.is_modern() {
            return Ok(());
        }
        self.send(&session, stream::call(None, method, params)).await
    }

    async fn send(&self, session: &Arc<Session>, message: bytes::Bytes) -> Result<(), UpstreamError> {
        tokio::select! {
            biased;
            sent = self.0.send(session, message) => sent,
            () = self.0.closed() => Err(self.0.why_closed()),
        }
    }

    /// Hands the client's answer to a request of the upstream on, by the decision that let it go if it needed one.
    ///
    /// # Errors
    /// [`UpstreamError::NoSuchRequest`] if nothing waits for it; [`UpstreamError::PolicyChanged`] if a refusal was sent in its
    /// place; else why it could not be sent.
    pub async fn answer(&self, id: &Id, outcome: Result<&Raw, &Raw>, warrant: Option<Warrant>) -> Result<(), UpstreamError> {
        let Some(to) = self.0.take_asked(id).ok_or(UpstreamError::NoSuchRequest)? else {
            let session = self.0.session().await?;
            // INVARIANT(policy-stands)
            if warrant.is_some_and(|warrant| !warrant.stands()) {
                self.send(&session, stream::error(Some(id), &answer::kept_back())).await?;
                return Err(UpstreamError::PolicyChanged);
            }
            let message = match outcome {
                Ok(result) => stream::result(id, result),
                Err(error) => stream::error(Some(id), error),
            };
            return self.send(&session, message).await;
        };
        let outcome = outcome.cloned().map_err(Raw::clone);
        to.send(Answered { id: id.clone(), outcome, warrant }).await.map_err(|_| UpstreamError::NoSuchRequest)
    }

    /// What comes from the upstream outside any exchange: changes of lists, updates of resources, log messages,
    /// requests to the client. What came before anybody listened comes first.
    #[must_use]
    pub fn unsolicited(&self) -> broadcast::Receiver<Event> {
        let events = self.0.inbox.listen();
        listen::pump(&self.0);
        events
    }

    /// Whether the live definition of the tool is the approved one. Lists the upstream's tools if it was not seen
    /// lately.
    ///
    /// # Errors
    /// Why the upstream's tools could not be listed.
    pub async fn tool_is_approved(&self, tool: &ToolName) -> Result<bool, UpstreamError> {
        tokio::select! {
            biased;
            approved = self.0.hub.catalog.approved(&self.0, tool) => approved,
            () = self.0.closed() => Err(self.0.why_closed()),
        }
    }

    /// Whether what was seen live of a tool last is what is approved now. For the moment before a call leaves: an approval may
    /// have been taken back since it was asked for.
    #[must_use]
    pub fn tool_still_approved(&self, tool: &ToolName) -> bool {
        self.0.hub.catalog.still_approved(tool)
    }

    /// Reads one definition out of a `tools/list` result, as it came: the tool's name if it is the approved one, `None`
    /// if it must not be shown. What was seen counts for later calls, too.
    #[must_use]
    pub fn screen(&self, definition: &str) -> Option<ToolName> {
        self.0.hub.catalog.screen(definition)
    }

    /// Closes the connection and everything under way on it. The upstream's session ends in the background.
    #[expect(clippy::unused_async, reason = "callers should not care whether the end of a session is waited for")]
    pub async fn close(&self) {
        self.0.shut();
    }
}
