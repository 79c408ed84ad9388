//! How an upstream speaks: found out by asking, remembered for a while, and the handshake of the session revisions.
//! The client's own era is tried first, so that an upstream of both eras is spoken to without translation.
//! MCP 2026-07-28 "Backward Compatibility"; MCP 2025-11-25 "Lifecycle".

use super::bridge;
use super::child::Child;
use super::error::UpstreamError;
use super::link::{Carrier, Link, Prepared, Session, outcome_of};
use super::profile::ServerProfile;
use crate::mcp::leaving;
use crate::mcp::message::Raw;
use crate::mcp::stream;
use crate::mcp::version::{Era, Version, code};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

/// How long it is remembered which eras an upstream speaks.
const REMEMBERED: Duration = Duration::from_secs(600);
/// How long a child may take to answer whether it is stateless: one of the session revisions may stay silent.
const PROBE_WAIT: Duration = Duration::from_secs(3);
/// Longest session id.
const SESSION_ID_BYTES_MAX: usize = 1_024;

/// Which eras an upstream is known to speak.
#[derive(Debug, Default)]
pub(super) struct Eras(Mutex<[Option<(bool, Instant)>; 2]>);

impl Eras {
    fn known(&self, modern: bool) -> Option<bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [legacy_known, modern_known] = *known;
        let (speaks, at) = if modern { modern_known } else { legacy_known }?;
        (at.elapsed() < REMEMBERED).then_some(speaks)
    }

    fn remember(&self, modern: bool, speaks: bool) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [legacy_known, modern_known] = &mut *known;
        *(if modern { modern_known } else { legacy_known }) = Some((speaks, Instant::now()));
    }

    /// What was known may be wrong.
    pub(super) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = [None, None];
    }

    /// What is known, for people.
    pub(super) fn describe(&self) -> Option<&'static str> {
        match (self.known(false), self.known(true)) {
            (Some(true), Some(true)) => Some("both"),
            (Some(true), _) => Some("sessions"),
            (_, Some(true)) => Some("stateless"),
            _ => None,
        }
    }
}

/// Comes to an understanding with the upstream.
pub(super) async fn establish(link: &Arc<Link>) -> Result<Session, UpstreamError> {
    let first = link.client.era.is_modern();
    let eras = &link.hub.eras;
    let mut child: Option<Arc<Child>> = None;
    let mut rejected = None;
    let mut reason = UpstreamError::NoCommonVersion;
    for modern in [first, !first] {
        if eras.known(modern) == Some(false) {
            continue;
        }
        let carrier = match &link.hub.endpoint {
            Some(_) => Carrier::Http(None),
            None => {
                let running = child.take().filter(|child| !child.is_dead());
                let running = match running {
                    Some(running) => running,
                    None => Child::start(link).await?,
                };
                child = Some(Arc::clone(&running));
                Carrier::Child(running)
            }
        };
        let attempt = if modern { probe(link, carrier).await } else { initialize(link, carrier).await };
        match attempt {
            Ok(session) => {
                eras.remember(modern, true);
                if let Some(other) = rejected {
                    eras.remember(other, false);
                }
                return Ok(session);
            }
            Err(error) if speaks_otherwise(&error) => {
                tracing::debug!(upstream = %link.name(), modern, %error, "the upstream does not speak this era");
                if rejected.is_none() {
                    reason = error;
                }
                rejected = Some(modern);
            }
            Err(error) => {
                stop(child);
                return Err(error);
            }
        }
    }
    stop(child);
    eras.forget();
    Err(reason)
}

fn stop(child: Option<Arc<Child>>) {
    if let Some(child) = child {
        child.stop();
    }
}

/// Whether an error can mean that the upstream speaks the other era.
fn speaks_otherwise(error: &UpstreamError) -> bool {
    match error {
        UpstreamError::Status(_) | UpstreamError::Protocol(_) | UpstreamError::NoCommonVersion | UpstreamError::Exited => true,
        UpstreamError::Unknown
        | UpstreamError::Url(_)
        | UpstreamError::Unreachable(_)
        | UpstreamError::NotStarted(_)
        | UpstreamError::Timeout
        | UpstreamError::TooLarge(_)
        | UpstreamError::NoRoom
        | UpstreamError::Unauthorized(_)
        | UpstreamError::Redirected
        | UpstreamError::Credential(_)
        | UpstreamError::SecretEchoed
        | UpstreamError::TaskEnded(_)
        | UpstreamError::Closed
        | UpstreamError::Busy(_)
        | UpstreamError::Overrun
        | UpstreamError::TooManyRounds(_)
        | UpstreamError::NotReleased
        | UpstreamError::PolicyChanged
        | UpstreamError::PolicyChangedBetween
        | UpstreamError::Unsupported(_)
        | UpstreamError::NoSuchRequest => false,
    }
}

fn session(era: Era, carrier: Carrier) -> Arc<Session> {
    Arc::new(Session { era, carrier, server: OnceCell::new() })
}

/// Asks whether the upstream is stateless.
async fn probe(link: &Arc<Link>, carrier: Carrier) -> Result<Session, UpstreamError> {
    let era = Era::Modern(Version::NEWEST_MODERN);
    let is_child = matches!(carrier, Carrier::Child(_));
    let session = session(era, carrier);
    if link.hub.eras.known(true) == Some(true) {
        return unshared(session);
    }
    let mut outcome = ask(link, &session, is_child).await?;
    // It refused the version and names it as one that it speaks: it is asked once more (MCP 2026-07-28 "Versioning").
    if outcome.as_ref().is_err_and(|error| still_supports(error, era)) {
        outcome = ask(link, &session, is_child).await?;
    }
    match outcome {
        Ok(described) => {
            let value = described.to_value();
            let supported = value.get("supportedVersions").and_then(Value::as_array);
            let supported = supported.ok_or(UpstreamError::Protocol("`server/discover` named no versions"))?;
            if !supported.iter().any(|version| version == era.version().as_str()) {
                return Err(UpstreamError::NoCommonVersion);
            }
            // Nobody else can have set it: the session is ours alone.
            let _ = session.server.set(Arc::new(profile(era, described, &value)));
            unshared(session)
        }
        Err(error) => {
            let value = error.to_value();
            match value.get("code").and_then(Value::as_i64) {
                Some(code::HEADER_MISMATCH | code::MISSING_CAPABILITY) => unshared(session),
                Some(code::UNSUPPORTED_VERSION) => Err(UpstreamError::NoCommonVersion),
                _ => Err(UpstreamError::Protocol("the upstream knows no `server/discover`")),
            }
        }
    }
}

/// Asks the upstream to describe itself. A child that says nothing may not know the question.
async fn ask(link: &Arc<Link>, session: &Arc<Session>, is_child: bool) -> Result<Result<Raw, Raw>, UpstreamError> {
    const SILENT: UpstreamError = UpstreamError::Protocol("no answer to `server/discover`");
    let asked = discover(link, session);
    if !is_child {
        return asked.await;
    }
    match timeout(PROBE_WAIT, asked).await {
        Err(_) | Ok(Err(UpstreamError::Timeout)) => Err(SILENT),
        Ok(outcome) => outcome,
    }
}

/// Whether a refusal of the version lists that very version.
fn still_supports(error: &Raw, era: Era) -> bool {
    let value = error.to_value();
    let unsupported = value.get("code").and_then(Value::as_i64) == Some(code::UNSUPPORTED_VERSION);
    let listed = value.pointer("/data/supported").and_then(Value::as_array);
    unsupported && listed.is_some_and(|versions| versions.iter().any(|version| version == era.version().as_str()))
}

fn unshared(session: Arc<Session>) -> Result<Session, UpstreamError> {
    Arc::into_inner(session).ok_or(UpstreamError::Closed)
}

async fn discover(link: &Arc<Link>, session: &Arc<Session>) -> Result<Result<Raw, Raw>, UpstreamError> {
    let params = bridge::outbound(link, session.era, None)?;
    let request =
        Prepared { id: link.own_id(), method: "server/discover".to_owned(), params, headers: HeaderMap::new(), warrant: None };
    outcome_of(link.open_racing(session, &request).await?.0).await
}

/// What the upstream says of itself in this session.
pub(super) async fn server(link: &Arc<Link>, session: &Arc<Session>) -> Result<Arc<ServerProfile>, UpstreamError> {
    let found = session.server.get_or_try_init(|| async {
        let described = discover(link, session).await?.map_err(|_| UpstreamError::Protocol("`server/discover` was refused"))?;
        let value = described.to_value();
        Ok(Arc::new(profile(session.era, described, &value)))
    });
    found.await.map(Arc::clone)
}

fn profile(era: Era, described: Raw, value: &Value) -> ServerProfile {
    let member = |name: &str| value.get(name).cloned().unwrap_or(Value::Null);
    let info = match value.pointer("/_meta/io.modelcontextprotocol~1serverInfo") {
        Some(info) => info.clone(),
        None => member("serverInfo"),
    };
    ServerProfile {
        era,
        capabilities: member("capabilities"),
        info,
        instructions: value.get("instructions").and_then(Value::as_str).map(str::to_owned),
        described,
    }
}

/// Starts a session (MCP 2025-11-25 "Initialization").
async fn initialize(link: &Arc<Link>, carrier: Carrier) -> Result<Session, UpstreamError> {
    let client = &link.client;
    let version = match client.era {
        Era::Legacy(version) => version,
        Era::Modern(_) => Version::NEWEST_LEGACY,
    };
    let capabilities = if client.capabilities.is_object() { client.capabilities.clone() } else { json!({}) };
    let params = Raw::from_value(&json!({
        "protocolVersion": version.as_str(),
        "capabilities": capabilities,
        "clientInfo": leaving::name(),
    }));
    let request = Prepared {
        id: link.own_id(),
        method: "initialize".to_owned(),
        params: Some(params),
        headers: HeaderMap::new(),
        warrant: None,
    };
    let attempt = session(Era::Legacy(version), carrier);
    let (source, session_id) = link.open_racing(&attempt, &request).await?;
    let outcome = outcome_of(source).await?;
    let described = outcome.map_err(|_| UpstreamError::Protocol("the upstream refused to start a session"))?;
    let value = described.to_value();
    let version = value.get("protocolVersion").and_then(Value::as_str).and_then(Version::from_wire);
    let version = version.filter(|version| !version.is_modern()).ok_or(UpstreamError::NoCommonVersion)?;
    let era = Era::Legacy(version);
    let carrier = match unshared(attempt)?.carrier {
        Carrier::Http(_) => Carrier::Http(session_id.map(checked_session_id).transpose()?),
        child @ Carrier::Child(_) => child,
    };
    let session = session(era, carrier);
    let _ = session.server.set(Arc::new(profile(era, described, &value)));
    link.send(&session, stream::call(None, "notifications/initialized", None)).await?;
    unshared(session)
}

/// A session id may only have visible ASCII characters (MCP 2025-11-25 "Session Management").
fn checked_session_id(mut id: HeaderValue) -> Result<HeaderValue, UpstreamError> {
    let fits = !id.is_empty() && id.len() <= SESSION_ID_BYTES_MAX && id.as_bytes().iter().all(|byte| matches!(byte, 0x21..=0x7e));
    id.set_sensitive(true);
    fits.then_some(id).ok_or(UpstreamError::Protocol("the session id has characters that it must not have"))
}
