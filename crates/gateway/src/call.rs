//! One governed tool call, top to bottom, on one page; every branch is here. What is decided is what was parsed; what is
//! forwarded is what was parsed; nothing is forwarded without the permit that only a logged decision yields.
//! The other governed requests (resources, prompts, completion) go the same way in [`governed`].
//! MCP "Tools", "Resources", "Prompts", "Completion".

use crate::flight::{Reply, upstream_fault};
use crate::mcp::message::{Id, Params, Raw};
use crate::mcp::stream;
use crate::mcp::version::{Era, code};
use crate::observe::{Stage, Stopwatch};
use crate::respond::{DENIAL_META, Fault, Refusal, denial_data, denial_text, own_code};
use crate::serve::modern::check_mirrored;
use crate::serve::{Incoming, rewritten};
use crate::shape::Kind;
use crate::template::expand;
use authority::{Decision, Denial};
use domain::{Operation, Outcome, Reason, ToolName};
use http::StatusCode;
use serde_json::{Map, Value, json};
use tracing::Instrument;

/// Calls a tool.
pub(crate) async fn call_tool(mut incoming: Incoming) -> Result<Reply, Refusal> {
    // 1. What is asked, from the one parse of the body.
    let tool: ToolName = match incoming.text("name")?.parse() {
        Ok(tool) => tool,
        Err(_) => return Err(unknown_tool(incoming.text("name")?, &incoming.request.id).into()),
    };
    incoming.keep_only(&["name", "arguments", "_meta", "task", "inputResponses", "requestState"]);
    incoming.narrow_work();
    // 2. A state that the client brings back is opened. A call that waits for its input goes on if this one is allowed.
    let held = incoming.continue_from_state()?;
    let none = Map::new();
    let arguments = incoming.arguments()?.unwrap_or(&none);
    // 3. The catalog: is what the upstream offers under this name now what an operator approved?
    let approved = match incoming.connection.tool_is_approved(&tool).await {
        Ok(approved) => approved,
        Err(error) => return Err(upstream_fault(&error, Some(&incoming.request.id), incoming.era).into()),
    };
    let operation = Operation::CallTool { upstream: incoming.upstream(), tool: &tool, arguments };
    // A tool that the task cannot reach must not show itself by what it expects of headers.
    if approved && incoming.era.is_modern() && incoming.gateway.authority.could_allow(&incoming.admitted.caller, &operation) {
        check_mirrored(&incoming, &tool, arguments)?;
    }
    // CRASH(call.parsed): nothing happened.
    tracing::trace!(target: "writ::step", at = "call.parsed");
    // 4. The decision, with these arguments, durable in the log before it is known here.
    let decision = if approved { incoming.decide(operation).await } else { incoming.refuse_unavailable(operation).await };
    let permit = match decision {
        Decision::Allow(permit) => permit,
        Decision::Deny(denial) | Decision::Ask(denial) | Decision::Failed(denial) => {
            return match incoming.gateway.authority.hides(&incoming.admitted.caller, &denial, &operation) {
                // 4a. Unknown, changed, unapproved and out of reach look the same from outside.
                true => Err(unknown_tool(tool.as_str(), &incoming.request.id).into()),
                // 4b. A refusal that a person and a model can act on.
                false => Ok(denied_call(&denial, &incoming.request.id, incoming.era)),
            };
        }
    };
    // 5. The last look before it leaves: the task may have ended while the decision was written, the policy may have been
    //    replaced, and with it what is approved.
    if !incoming.connection.tool_still_approved(&tool) {
        return Err(unknown_tool(tool.as_str(), &incoming.request.id).into());
    }
    let released = permit.release().map_err(Refusal::Over)?;
    // CRASH(call.released): in the log, not sent; a missing outcome reads as "unknown".
    tracing::trace!(target: "writ::step", at = "call.released");
    // 6. Forwarded with the permit consumed. The flight passes events on, withholds the answer if the task ends first,
    //    records the outcome before the answer leaves, and cancels the call if the client goes away.
    match held {
        Some(held) => incoming.resume(held, released).await,
        None => incoming.fly(Some(released), Kind::Tool).await,
    }
}

/// What a governed request besides a tool call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Governed {
    /// `resources/read`, `resources/subscribe`.
    Resource,
    /// `prompts/get`.
    Prompt,
    /// `completion/complete`: as the prompt or resource that it completes.
    Completion,
}

/// The same way for a request that reads a resource or gets a prompt.
pub(crate) async fn governed(mut incoming: Incoming, about: Governed, kind: Kind) -> Result<Reply, Refusal> {
    let (subject, is_prompt) = match about {
        Governed::Resource => (incoming.text("uri")?.to_owned(), false),
        Governed::Prompt => (incoming.text("name")?.to_owned(), true),
        Governed::Completion => incoming.completion()?,
    };
    let arguments = match about {
        Governed::Prompt => incoming.arguments()?.cloned().unwrap_or_default(),
        Governed::Completion => incoming.completing(),
        Governed::Resource => Map::new(),
    };
    incoming.keep_only(match about {
        Governed::Resource => &["uri", "_meta", "inputResponses", "requestState"],
        Governed::Prompt => &["name", "arguments", "_meta", "inputResponses", "requestState"],
        Governed::Completion => &["ref", "argument", "context", "_meta"],
    });
    let held = incoming.continue_from_state()?;
    let upstream = incoming.upstream();
    let operation = match is_prompt {
        true => Operation::GetPrompt { upstream, name: &subject, arguments: &arguments },
        false => Operation::ReadResource { upstream, uri: &subject },
    };
    let permit = match incoming.decide(operation).await {
        Decision::Allow(permit) => permit,
        Decision::Deny(denial) | Decision::Ask(denial) | Decision::Failed(denial) => {
            return Err(denied(&denial, &incoming.request.id).into());
        }
    };
    let released = permit.release().map_err(Refusal::Over)?;
    if incoming.request.method == "resources/subscribe"
        && incoming.underway.as_ref().is_some_and(|underway| !underway.session.subscribe(&subject))
    {
        return Err(Refusal::Busy("subscriptions"));
    }
    match held {
        Some(held) => incoming.resume(held, released).await,
        None => incoming.fly(Some(released), kind).await,
    }
}

impl Incoming {
    /// Asks the authority.
    pub(crate) async fn decide(&self, operation: Operation<'_>) -> Decision {
        let watch = Stopwatch::start();
        let decision = self.gateway.authority.decide(&self.admitted.caller, operation);
        let decision = decision.instrument(tracing::debug_span!("decide")).await;
        watch.stop(&*self.gateway.observer, Stage::Decide);
        let (outcome, reason) = match &decision {
            Decision::Allow(_) => (Outcome::Allow, None),
            Decision::Deny(denial) => (Outcome::Deny, Some(denial.reason)),
            Decision::Ask(denial) => (Outcome::Ask, Some(denial.reason)),
            Decision::Failed(denial) => (Outcome::Failed, Some(denial.reason)),
        };
        self.gateway.observer.decided(outcome, reason);
        decision
    }

    /// Refuses a tool whose live definition is not the approved one, in the log as well.
    async fn refuse_unavailable(&self, operation: Operation<'_>) -> Decision {
        self.gateway.observer.decided(Outcome::Deny, Some(Reason::ToolUnavailable));
        let text = "there is no such tool, or its definition is not the one that was approved";
        self.gateway.authority.refuse(&self.admitted.caller, operation, Reason::ToolUnavailable, text).await
    }

    /// `arguments` as an object, in which each number is one that all readers hold alike.
    fn arguments(&self) -> Result<Option<&Map<String, Value>>, Refusal> {
        let arguments = self.request.params.as_ref().and_then(|params| params.value().get("arguments"));
        match arguments {
            None => Ok(None),
            Some(value @ Value::Object(members)) if domain::json::is_exact(value) => Ok(Some(members)),
            Some(Value::Object(_)) => Err(self.invalid("a number in `arguments` is too large to be read alike by everybody")),
            Some(_) => Err(self.invalid("`arguments` must be an object")),
        }
    }

    /// Takes out what no policy sees: an upstream could read it as anything.
    pub(crate) fn keep_only(&mut self, known: &[&str]) {
        let strange = |params: &Params| params.value().keys().any(|key| !known.contains(&key.as_str()));
        if let Some(params) = self.request.params.take_if(|params| strange(params)) {
            let gone: Vec<String> = params.value().keys().filter(|key| !known.contains(&key.as_str())).cloned().collect();
            self.request.params = Some(rewritten(params, |members| gone.iter().for_each(|key| members.remove(key))));
        }
    }

    /// Leaves of what a client says about long-running work how long it shall be kept (MCP 2025-11-25 "Tasks").
    fn narrow_work(&mut self) {
        let said = |params: &Params| params.value().get("task").map(|task| task.get("ttl").filter(|ttl| ttl.is_u64()).cloned());
        let Some(ttl) = self.request.params.as_ref().and_then(said) else { return };
        let left = ttl.map_or_else(|| json!({}), |ttl| json!({ "ttl": ttl }));
        if let Some(params) = self.request.params.take_if(|params| params.value().get("task") != Some(&left)) {
            self.request.params = Some(rewritten(params, |members| members.set("task", &left)));
        }
    }

    /// What a client that wants a completion has of the arguments so far, the one in hand among them.
    fn completing(&self) -> Map<String, Value> {
        let member = |name: &str| self.request.params.as_ref()?.value().get(name);
        let argument = |name: &str| member("argument")?.get(name);
        let mut arguments = match member("context").and_then(|context| context.get("arguments")) {
            Some(Value::Object(arguments)) => arguments.clone(),
            _ => Map::new(),
        };
        if let (Some(Value::String(name)), Some(value)) = (argument("name"), argument("value")) {
            arguments.insert(name.clone(), value.clone());
        }
        arguments
    }

    /// What a completion is about, and whether that is a prompt. A template is the resource that it names with the arguments
    /// so far. What is sent on is only what this was decided on.
    fn completion(&mut self) -> Result<(String, bool), Refusal> {
        let member = |outer: &str, name: &str| self.request.params.as_ref()?.value().get(outer)?.get(name);
        let text = |outer: &str, name: &str| member(outer, name).and_then(Value::as_str);
        let (Some(name), Some(value)) = (text("argument", "name"), text("argument", "value")) else {
            return Err(self.invalid("`argument` must have a name and a value that are strings"));
        };
        let mut context = match member("context", "arguments") {
            None => None,
            Some(Value::Object(arguments)) => Some(arguments.clone()),
            Some(_) => return Err(self.invalid("`arguments` of `context` must be an object")),
        };
        // The argument in hand is decided on as it is now.
        context.iter_mut().for_each(|context| drop(context.remove(name)));
        let arguments = self.completing();
        let (reference, subject, is_prompt) = match (text("ref", "type"), text("ref", "name"), text("ref", "uri")) {
            (Some(kind @ "ref/prompt"), Some(name), _) => (json!({ "type": kind, "name": name }), name.to_owned(), true),
            (Some(kind @ "ref/resource"), _, Some(uri)) => {
                let (named, said) =
                    expand(uri, &arguments).ok_or_else(|| self.invalid("`ref` holds no template that can be expanded"))?;
                if !said.contains(name) {
                    return Err(self.invalid("the template of `ref` does not hold `argument` in full"));
                }
                context.iter_mut().for_each(|context| context.retain(|name, _| said.contains(name.as_str())));
                (json!({ "type": kind, "uri": uri }), named, false)
            }
            _ => return Err(self.invalid("`ref` must name a prompt or a resource")),
        };
        let mut params =
            Map::from_iter([("ref".to_owned(), reference), ("argument".to_owned(), json!({ "name": name, "value": value }))]);
        params.extend(context.map(|context| ("context".to_owned(), json!({ "arguments": context }))));
        let tags = self.request.params.as_ref().and_then(|params| params.value().get("_meta"));
        params.extend(tags.map(|tags| ("_meta".to_owned(), tags.clone())));
        self.request.params = Some(Params::from_value(params));
        Ok((subject, is_prompt))
    }
}

/// What an honest upstream answers for a tool that it does not have (MCP "Tools", error handling).
fn unknown_tool(name: &str, id: &Id) -> Fault {
    let shown: String = name.chars().take(domain::limits::TOOL_NAME_BYTES_MAX).collect();
    Fault::new(StatusCode::OK, Some(id), code::INVALID_PARAMS, format!("Unknown tool: {shown}"))
}

/// A denial as a tool's answer, which models read and act on.
fn denied_call(denial: &Denial, id: &Id, era: Era) -> Reply {
    let mut result = json!({
        "content": [{ "type": "text", "text": denial_text(denial) }],
        "isError": true,
        "_meta": { DENIAL_META: denial_data(denial) },
    });
    if let (true, Some(members)) = (era.is_modern(), result.as_object_mut()) {
        members.insert("resultType".into(), "complete".into());
    }
    Reply::Message(StatusCode::OK, stream::result(id, &Raw::from_value(&result)))
}

/// A denial where the answer has no place for words.
pub(crate) fn denied(denial: &Denial, id: &Id) -> Fault {
    let data = Some(json!({ DENIAL_META: denial_data(denial) }));
    Fault { data, ..Fault::new(StatusCode::OK, Some(id), own_code::DENIED, denial_text(denial)) }
}
