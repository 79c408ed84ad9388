//! The server that the SDK drives: it gives out the fixture, carries out the tools that talk back to
//! the client while they run, and keeps who listens for changes. Texts and names are in the fixture.
//! MCP 2025-11-25 and 2026-07-28.

#![expect(deprecated, reason = "sampling, roots and logging are deprecated in the newest revision, and still tested")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rmcp::model::*;
use rmcp::service::{RequestContext, SubscriptionContext, SubscriptionSink};
use rmcp::task_manager::TaskManager;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::{Mutex, watch};

use crate::dialogue::{Dialogues, Given, Step};
use crate::fixture::{Fixture, typed};
use crate::jobs;

/// How long clients may keep lists and resources, in milliseconds.
const TTL_MS: u64 = 60_000;
const LOGGER: &str = "fixture";
/// How long a change waits for clients whose subscription was accepted a moment ago.
const LISTENER_COMES_WITHIN: Duration = Duration::from_secs(1);

/// The conformance fixture; clones share everything.
#[derive(Clone)]
pub(crate) struct Server {
    fixture: Arc<Fixture>,
    dialogues: Arc<Dialogues>,
    tasks: TaskManager,
    listeners: Arc<Mutex<HashMap<u64, SubscriptionSink>>>,
    /// How many subscriptions were accepted, and how many of these listen by now or did.
    accepted: Arc<AtomicU64>,
    listening: watch::Sender<u64>,
}

impl Server {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            fixture: Arc::new(Fixture::load()?),
            dialogues: Arc::new(Dialogues::new()?),
            tasks: TaskManager::new(),
            listeners: Arc::default(),
            accepted: Arc::default(),
            listening: watch::Sender::default(),
        })
    }

    /// Goes on with a dialogue: what to ask, or the text of the answer.
    fn step(
        &self,
        name: &str,
        responses: Option<&InputResponses>,
        state: Option<&str>,
        context: &RequestContext<RoleServer>,
    ) -> Result<Step, ErrorData> {
        let dialogue = self.fixture.dialogues.get(name).ok_or_else(|| unknown(name))?;
        let declared = context.client_capabilities().unwrap_or_default();
        self.dialogues.step(&self.fixture, dialogue, &Given { responses, state, declared: &declared })
    }

    /// Puts a form to the user of a client that keeps a session.
    async fn ask_user(
        &self,
        tool: &str,
        message: &str,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let form = json!({ "mode": "form", "message": message, "requestedSchema": self.fixture.forms.get(tool) });
        match context.peer.create_elicitation(typed(form)?).await {
            Ok(answer) => {
                let action = serde_json::to_value(&answer.action).unwrap_or_default();
                let (action, content) = (action.as_str().unwrap_or_default(), answer.content.unwrap_or_default());
                let start = if tool == "test_elicitation" { "User response" } else { "Elicitation completed" };
                text(&format!("{start}: action={action}, content={content}"))
            }
            Err(error) => Ok(CallToolResult::error(vec![ContentBlock::text(error.to_string())])),
        }
    }

    async fn ask_model(&self, prompt: &str, context: &RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let messages = vec![SamplingMessage::user_text(prompt)];
        match context.peer.create_message(CreateMessageRequestParams::new(messages, 100)).await {
            Ok(answer) => {
                let answer = serde_json::to_value(&answer).unwrap_or_default();
                let said = answer.pointer("/content/text").or_else(|| answer.pointer("/content/0/text"));
                text(&format!("LLM response: {}", said.and_then(Value::as_str).unwrap_or_default()))
            }
            Err(error) => Ok(CallToolResult::error(vec![ContentBlock::text(error.to_string())])),
        }
    }

    /// Everybody whose subscription was accepted. A client knows of that before `listen` is called for it
    /// and may ask for a change at once, so those under way are waited for; one that went away in between
    /// never comes, which is why the wait has an end.
    async fn listeners(&self) -> Vec<SubscriptionSink> {
        let due = self.accepted.load(Ordering::SeqCst);
        let mut listening = self.listening.subscribe();
        _ = tokio::time::timeout(LISTENER_COMES_WITHIN, listening.wait_for(|come| *come >= due)).await;
        self.listeners.lock().await.values().cloned().collect()
    }

    /// The tools that do something while they run.
    async fn act(
        &self,
        tool: &str,
        arguments: &JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let argument = |name: &str| arguments.get(name).and_then(Value::as_str).unwrap_or_default();
        match tool {
            "test_tool_with_logging" => {
                for words in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                    log(context, LoggingLevel::Info, words).await;
                }
                text("Logged three messages")
            }
            "test_logging_tool" => {
                if let Some(level) = context.meta.log_level() {
                    log(context, level, "A level was asked for").await;
                }
                text("Logged if asked to")
            }
            "test_tool_with_progress" => {
                report_progress(context).await;
                text("Progress reported")
            }
            "test_sampling" => self.ask_model(argument("prompt"), context).await,
            "test_elicitation" => self.ask_user(tool, argument("message"), context).await,
            "test_elicitation_sep1034_defaults" | "test_elicitation_sep1330_enums" => {
                self.ask_user(tool, "Please fill in the form", context).await
            }
            "test_reconnection" => text("Still here"),
            "test_custom_header" => text(argument("value")),
            "greet" => text(&format!("Hello, {}!", argument("name"))),
            "test_missing_capability" => {
                if context.client_capabilities().is_some_and(|declared| declared.sampling.is_some()) {
                    return text("The client can sample");
                }
                let required = ClientCapabilities::builder().enable_sampling().build();
                Err(ErrorData::missing_required_client_capability(required))
            }
            "test_trigger_tool_change" => {
                for listener in self.listeners().await {
                    _ = listener.notify_tool_list_changed().await;
                }
                text("Told every listener")
            }
            "test_trigger_prompt_change" => {
                for listener in self.listeners().await {
                    _ = listener.notify_prompt_list_changed().await;
                }
                text("Told every listener")
            }
            _ => Err(unknown(tool)),
        }
    }
}

fn text(words: &str) -> Result<CallToolResult, ErrorData> {
    Ok(CallToolResult::success(vec![ContentBlock::text(words)]))
}

fn unknown(name: &str) -> ErrorData {
    ErrorData::invalid_params(format!("nothing is called `{name}` here"), None)
}

async fn log(context: &RequestContext<RoleServer>, level: LoggingLevel, words: &str) {
    let message = LoggingMessageNotificationParam::new(level, json!(words)).with_logger(LOGGER);
    _ = context.peer.notify_logging_message(message).await;
}

async fn report_progress(context: &RequestContext<RoleServer>) {
    let Some(token) = context.meta.get_progress_token() else { return };
    for progress in [0.0, 50.0, 100.0] {
        let report = ProgressNotificationParam::new(token.clone(), progress).with_total(100.0);
        _ = context.peer.notify_progress(report).await;
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_completions()
            .enable_logging()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tasks()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        ServerConfig::new(capabilities).with_server_info(Implementation::new("conformance-fixture", "1"))
    }

    /// The transport looks here for arguments that are mirrored into headers.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        let tools: Vec<Tool> = typed(self.fixture.tools.clone()).ok()?;
        tools.into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tools = typed(self.fixture.tools.clone())?;
        Ok(ListToolsResult { tools, ..Default::default() }.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tool = request.name.as_ref();
        let arguments = request.arguments.clone().unwrap_or_default();
        let declared = context.client_capabilities().unwrap_or_default();
        if let Some(result) = self.fixture.tool_results.get(tool) {
            let mut result: CallToolResult = typed(result.clone())?;
            result.result_type = Some(ResultType::COMPLETE);
            return Ok(result.into());
        }
        if jobs::is_job(tool) {
            return jobs::call(&self.tasks, &self.fixture, tool, &arguments, &declared).await;
        }
        if !self.fixture.dialogues.contains_key(tool) {
            return Ok(self.act(tool, &arguments, &context).await?.into());
        }
        if tool == "test_tool_with_task" && !declared.supports_tasks() {
            let required = ClientCapabilities::builder().enable_tasks().build();
            return Err(ErrorData::missing_required_client_capability(required));
        }
        match self.step(tool, request.input_responses.as_ref(), request.request_state.as_deref(), &context)? {
            Step::Ask(question) => Ok(question.into()),
            Step::Done(words) if tool == "test_tool_with_task" => Ok(jobs::say(&self.tasks, words)),
            Step::Done(words) => Ok(text(&words)?.into()),
        }
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let resources = typed(self.fixture.resources.clone())?;
        let result = ListResourcesResult { resources, ..Default::default() };
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let resource_templates = typed(self.fixture.resource_templates.clone())?;
        let result = ListResourceTemplatesResult { resource_templates, ..Default::default() };
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let Some(contents) = self.fixture.contents(&request.uri) else {
            let data = json!({ "uri": request.uri });
            return Err(ErrorData::resource_not_found("there is no such resource", Some(data)));
        };
        let result = ReadResourceResult::new(vec![typed(contents)?]);
        Ok(result.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public).into())
    }

    async fn list_prompts(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let prompts = typed(self.fixture.prompts.clone())?;
        Ok(ListPromptsResult { prompts, ..Default::default() }.with_ttl_ms(TTL_MS).with_cache_scope(CacheScope::Public))
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        let arguments = request.arguments.clone().unwrap_or_default();
        if let Some(messages) = self.fixture.messages(&request.name, &arguments) {
            return Ok(GetPromptResult::new(typed(messages)?).into());
        }
        match self.step(&request.name, request.input_responses.as_ref(), request.request_state.as_deref(), &context)? {
            Step::Ask(question) => Ok(question.into()),
            Step::Done(words) => Ok(GetPromptResult::new(vec![PromptMessage::new_text(Role::User, words)]).into()),
        }
    }

    async fn complete(&self, _: CompleteRequestParams, _: RequestContext<RoleServer>) -> Result<CompleteResult, ErrorData> {
        let values = vec!["paris".to_owned(), "park".to_owned(), "party".to_owned()];
        let completion = CompletionInfo::new(values).map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(completion))
    }

    async fn set_level(&self, _: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn subscribe(&self, _: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    async fn unsubscribe(&self, _: UnsubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        Ok(())
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        self.accepted.fetch_add(1, Ordering::SeqCst);
        Some(requested.supported_by(&self.get_info().capabilities))
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let mut listeners = self.listeners.lock().await;
        let listener = *self.listening.borrow();
        listeners.insert(listener, context.sink().clone());
        self.listening.send_modify(|come| *come += 1);
        drop(listeners);
        context.cancelled().await;
        self.listeners.lock().await.remove(&listener);
        Ok(())
    }

    async fn get_task(&self, request: GetTaskParams, _: RequestContext<RoleServer>) -> Result<GetTaskResult, ErrorData> {
        Ok(GetTaskResult::new(self.tasks.get_task(&request.task_id)?))
    }

    async fn update_task(&self, request: UpdateTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.tasks.update_task(&request.task_id, request.input_responses)
    }

    async fn cancel_task(&self, request: CancelTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.tasks.cancel_task(&request.task_id)
    }
}
