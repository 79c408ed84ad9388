//! What becomes of a result on its way to the client: lists are filtered to what the task could be allowed and marked
//! private, states are sealed, and members that the client's revision demands are added. Nothing else is touched: every
//! other byte goes through. MCP 2026-07-28 "Caching", "Responses", "Multi Round-Trip Requests".

use crate::answer::Asking;
use crate::envelope::State;
use crate::flight::Flight;
use crate::mcp::message::Raw;
use crate::mcp::object::{Members, elements};
use crate::mcp::tags;
use crate::mcp::version::meta;
use crate::upstream::UpstreamError;
use authority::CallStatus;
use domain::{Operation, UpstreamName};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// Longest time for which a stateless client may keep a list: what a task may see can change with the policy.
const TTL_MILLIS_MAX: u64 = 60_000;

/// What may stand beside a list in its result: points to come back to, marks of the protocol.
const BESIDE_LIST: [&str; 5] = ["nextCursor", "resultType", "ttlMs", "cacheScope", "_meta"];

/// Which result it is.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) kind: Kind,
    upstream: UpstreamName,
}

/// The kinds of results that differ in what becomes of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `tools/call`.
    Tool,
    /// `prompts/get`, `completion/complete` and all others.
    Plain,
    /// About long-running work that an allowed call began.
    Work,
    /// A result that has nothing to say.
    Empty,
    /// `resources/read`.
    Resource,
    /// `tools/list`.
    Tools,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
    /// `prompts/list`.
    Prompts,
    /// `tasks/list` (MCP 2025-11-25).
    Handles,
    /// `subscriptions/listen`.
    Subscription,
}

impl Kind {
    /// Of a list, the request that it answers and the member that holds it.
    fn list(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Tools => Some(("tools/list", "tools")),
            Self::Resources => Some(("resources/list", "resources")),
            Self::Templates => Some(("resources/templates/list", "resourceTemplates")),
            Self::Prompts => Some(("prompts/list", "prompts")),
            Self::Handles => Some(("tasks/list", "tasks")),
            Self::Tool | Self::Plain | Self::Work | Self::Empty | Self::Resource | Self::Subscription => None,
        }
    }
}

/// A result as the client gets it.
pub(crate) struct Shaped {
    pub(crate) raw: Raw,
    pub(crate) status: CallStatus,
}

/// The members of a result that we act on.
#[derive(Deserialize, Default)]
struct Peek<'a> {
    #[serde(rename = "isError")]
    is_error: Option<bool>,
    #[serde(rename = "resultType", borrow)]
    result_type: Option<Cow<'a, str>>,
    #[serde(rename = "_meta", borrow)]
    tags: Option<&'a RawValue>,
    /// The handle of long-running work, as the extension has it.
    #[serde(rename = "taskId", borrow)]
    handle: Option<Cow<'a, str>>,
    /// The same as MCP 2025-11-25 has it.
    #[serde(borrow)]
    task: Option<Work<'a>>,
}

/// Long-running work.
#[derive(Deserialize, Default)]
struct Work<'a> {
    #[serde(rename = "taskId", borrow)]
    handle: Option<Cow<'a, str>>,
}

impl Shape {
    pub(crate) fn new(kind: Kind, upstream: &UpstreamName) -> Self {
        Self { kind, upstream: upstream.clone() }
    }

    pub(crate) fn upstream(&self) -> &UpstreamName {
        &self.upstream
    }

    /// Whether the request has no end of its own.
    pub(crate) fn is_endless(&self) -> bool {
        self.kind == Kind::Subscription
    }

    /// The result as this client gets it.
    ///
    /// # Errors
    /// If it is no result of this kind.
    pub(crate) fn result(&self, flight: &Flight, raw: &Raw) -> Result<Shaped, UpstreamError> {
        if self.kind == Kind::Empty {
            return Ok(Shaped { raw: Raw::from_value(&json!({})), status: CallStatus::Ok });
        }
        let peek: Peek<'_> =
            serde_json::from_slice(raw.as_bytes()).map_err(|_| UpstreamError::Protocol("the result is no object"))?;
        let status = if self.kind == Kind::Tool && peek.is_error == Some(true) { CallStatus::ToolError } else { CallStatus::Ok };
        if self.kind == Kind::Tool
            && let Some(handle) = peek.handle.as_deref().or_else(|| peek.task.as_ref().and_then(|work| work.handle.as_deref()))
        {
            let asking = flight.asking.as_ref().and_then(|(method, params)| Asking::of(method, Some(params)));
            flight.gateway.handles.note(flight.caller.task(), &self.upstream, handle, asking);
        }
        let interim = peek.result_type.as_deref() == Some("input_required");
        let strange = peek.tags.is_some_and(|tags| tags::narrowed(tags.get()).is_some());
        let untouched = !strange
            && !self.is_list()
            && (!flight.era.is_modern() || (peek.result_type.is_some() && !interim && self.kind == Kind::Tool));
        if untouched {
            return Ok(Shaped { raw: raw.clone(), status });
        }
        let mut members = Members::of(raw).ok_or(UpstreamError::Protocol("the result has a member twice"))?;
        tags::narrow(&mut members);
        if interim && flight.era.is_modern() {
            seal(flight, &mut members)?;
            return Ok(Shaped { raw: members.to_raw(), status });
        }
        self.filter(flight, &mut members)?;
        if flight.era.is_modern() {
            if peek.result_type.is_none() {
                members.set("resultType", &json!("complete"));
            }
            if self.is_list() || self.kind == Kind::Resource {
                make_private(&mut members);
            }
            if self.kind == Kind::Subscription {
                let mut tags = members.value("_meta").filter(Value::is_object).unwrap_or_else(|| json!({}));
                if let Some(tags) = tags.as_object_mut() {
                    tags.insert(meta::SUBSCRIPTION_ID.into(), flight.id.to_value());
                }
                members.set("_meta", &tags);
            }
        }
        Ok(Shaped { raw: members.to_raw(), status })
    }

    /// Whether the result holds words that nobody approved and that the task may see. Definitions of tools are approved.
    pub(crate) fn has_words(&self, flight: &Flight) -> bool {
        match self.kind {
            Kind::Tools | Kind::Empty => false,
            Kind::Resources | Kind::Templates | Kind::Prompts => {
                let none = Map::new();
                self.listed(&none).is_some_and(|operation| flight.gateway.authority.could_allow(&flight.caller, &operation))
            }
            Kind::Tool | Kind::Plain | Kind::Work | Kind::Resource | Kind::Handles | Kind::Subscription => true,
        }
    }

    /// What stands for all that a list of this kind names, where it is shown as a whole or not at all.
    fn listed<'a>(&'a self, none: &'a Map<String, Value>) -> Option<Operation<'a>> {
        let upstream = &self.upstream;
        match self.kind {
            Kind::Resources | Kind::Templates => Some(Operation::ReadResource { upstream, uri: "" }),
            Kind::Prompts => Some(Operation::GetPrompt { upstream, name: "", arguments: none }),
            _ => None,
        }
    }

    fn is_list(&self) -> bool {
        self.kind.list().is_some()
    }

    /// Leaves in a list what is approved as it stands there and what the task could be allowed. Hiding is not the control: each call is decided.
    fn filter(&self, flight: &Flight, members: &mut Members<'_>) -> Result<(), UpstreamError> {
        let upstream = &self.upstream;
        let none = Map::new();
        let Some((method, name)) = self.kind.list() else { return Ok(()) };
        // What stands beside the list is neither approved nor filtered.
        members.retain(|member| member == name || BESIDE_LIST.contains(&member));
        crate::page::seal(flight, method, members)?;
        tags::silence(members);
        let whole = self.listed(&none);
        let could = |operation: Operation<'_>| flight.gateway.authority.could_allow(&flight.caller, &operation);
        let text = members.get(name).ok_or(UpstreamError::Protocol("the list is missing from its result"))?;
        let kept: Vec<&str> = match whole {
            Some(operation) if could(operation) => return Ok(()),
            Some(_) => Vec::new(),
            None if self.kind == Kind::Handles => {
                let all = elements(text).ok_or(UpstreamError::Protocol("the list is no array"))?;
                let (handles, task) = (&flight.gateway.handles, flight.caller.task());
                let own = |text: &&str| {
                    let work = serde_json::from_str::<Work<'_>>(text).unwrap_or_default();
                    work.handle.is_some_and(|handle| handles.knows(task, upstream, &handle))
                };
                all.into_iter().filter(own).collect()
            }
            None => {
                let all = elements(text).ok_or(UpstreamError::Protocol("the list is no array"))?;
                let allowed = |text: &&str| {
                    let tool = flight.connection.screen(text);
                    tool.is_some_and(|tool| could(Operation::CallTool { upstream, tool: &tool, arguments: &none }))
                };
                all.into_iter().filter(allowed).collect()
            }
        };
        let kept = format!("[{}]", kept.join(","));
        members.set_text(name, kept);
        Ok(())
    }
}

/// What is filtered for one task must not be served to another, nor for long.
fn make_private(members: &mut Members<'_>) {
    let ttl = members.value("ttlMs").and_then(|ttl| ttl.as_u64()).unwrap_or(0).min(TTL_MILLIS_MAX);
    members.set("ttlMs", &json!(ttl));
    members.set("cacheScope", &json!("private"));
}

/// Seals the state of an interim result.
fn seal(flight: &Flight, members: &mut Members<'_>) -> Result<(), UpstreamError> {
    let Some(state) = members.value("requestState") else { return Ok(()) };
    let broken = UpstreamError::Protocol("`requestState` is no string");
    let (Value::String(state), Some(bond)) = (state, flight.bond()) else { return Err(broken) };
    let sealed =
        flight.gateway.seal(&bond, &State::Upstream(state)).ok_or(UpstreamError::Protocol("`requestState` cannot be sealed"))?;
    members.set("requestState", &json!(sealed));
    Ok(())
}
