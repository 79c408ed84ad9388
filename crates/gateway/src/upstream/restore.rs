//! What a session was told, told again to the one that takes its place: the level of its log and the resources whose changes it
//! announces. The client does not know that its session was lost, so it would wait for ever; what cannot be told again is
//! said to it. Decides nothing: what was decided is sent again only if that still stands.
//! MCP 2025-11-25 "Session Management", "Subscriptions", "Setting Log Level".

use super::bridge;
use super::connection::Outgoing;
use super::error::UpstreamError;
use super::exchange::Event;
use super::link::{Link, Prepared, Session, outcome_of};
use super::listen::deliver;
use crate::mcp::message::Raw;
use authority::{Released, Warrant};
use http::HeaderMap;
use serde_json::{Value, json};
use std::sync::Arc;

/// Something that a session remembers because its client said so.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// How important a log message must be.
    Level(String),
    /// A resource whose changes are announced, and the decision that let it be asked for.
    Subscribed(String, Option<Warrant>),
    /// One whose changes are not announced any more.
    Unsubscribed(String),
}

impl Told {
    /// What a session will remember once it has answered this request.
    pub(super) fn by(outgoing: &Outgoing<'_>) -> Option<Self> {
        if !matches!(outgoing.method, "logging/setLevel" | "resources/subscribe" | "resources/unsubscribe") {
            return None;
        }
        let params = outgoing.params?.to_value();
        let text = |name: &str| params.get(name).and_then(Value::as_str).map(str::to_owned);
        match outgoing.method {
            "logging/setLevel" => text("level").map(Self::Level),
            "resources/subscribe" => Some(Self::Subscribed(text("uri")?, outgoing.released.map(Released::warrant))),
            _ => text("uri").map(Self::Unsubscribed),
        }
    }

    fn request(&self) -> Option<(&'static str, Value, Option<Warrant>)> {
        match self {
            Self::Level(level) => Some(("logging/setLevel", json!({ "level": level }), None)),
            Self::Subscribed(uri, warrant) => Some(("resources/subscribe", json!({ "uri": uri }), warrant.clone())),
            Self::Unsubscribed(_) => None,
        }
    }
}

/// Tells a session what the one before it was told. What fails is forgotten, and said.
pub(super) async fn restore(link: &Arc<Link>, session: &Arc<Session>) {
    let mut lost = 0_usize;
    let mut fault = None;
    for told in link.inbox.told() {
        // Who does not answer one will not answer the others.
        if fault.is_none() {
            match tell(link, session, &told).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => fault = Some(error),
            }
        }
        link.inbox.forget(&told);
        lost += 1;
    }
    if lost > 0 {
        tracing::warn!(lost, ?fault, upstream = %link.name(), "an upstream forgot its session and was not told all of it again");
        say(link);
    }
}

/// Whether it took it.
async fn tell(link: &Arc<Link>, session: &Arc<Session>, told: &Told) -> Result<bool, UpstreamError> {
    let Some((method, params, warrant)) = told.request() else { return Ok(true) };
    let params = bridge::outbound(link, session.era, Some(&Raw::from_value(&params)))?;
    let request = Prepared { id: link.own_id(), method: method.to_owned(), params, headers: HeaderMap::new(), warrant };
    match link.open_on(session, &request).await {
        Err(UpstreamError::PolicyChanged) => Ok(false),
        opened => Ok(outcome_of(opened?).await?.is_ok()),
    }
}

/// Says to the client that not all is as it was.
fn say(link: &Arc<Link>) {
    const LOST: &str =
        "the upstream forgot its session, and not all that it was asked to announce could be asked for again: subscribe again";
    if link.client.era.is_modern() {
        // Ends its subscriptions.
        let error = json!({ "code": crate::respond::own_code::UPSTREAM, "message": LOST });
        link.inbox.push(Event::Error(Raw::from_value(&error)));
        return;
    }
    let params = json!({ "level": "warning", "logger": "writ", "data": LOST });
    let method = "notifications/message".to_owned();
    deliver(link, Event::Notification { method, params: Some(Raw::from_value(&params)) });
}
