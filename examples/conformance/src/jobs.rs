//! Tools that run as tasks: the client asks again until they are done, or gives them inputs meanwhile.
//! MCP extension `io.modelcontextprotocol/tasks`.

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{
    CallToolResponse, CallToolResult, ClientCapabilities, ContentBlock, CreateTaskResult, InputRequest, JsonObject,
};
use rmcp::task_manager::{TaskContext, TaskExit, TaskManager, TaskOptions};
use serde_json::Value;

use crate::fixture::Fixture;

/// What a job does, with everything it needs.
enum Job {
    Wait { seconds: f64, label: String },
    Fail,
    FailInProtocol,
    AskOne(Box<InputRequest>),
    AskTwo(Box<[InputRequest; 2]>),
    Say(String),
}

/// Whether a tool is one of these.
pub(crate) fn is_job(tool: &str) -> bool {
    matches!(tool, "slow_compute" | "failing_job" | "protocol_error_job" | "confirm_delete" | "multi_input")
}

/// Starts a job as a task if the client knows tasks; runs it at once if it can do without.
pub(crate) async fn call(
    tasks: &TaskManager,
    fixture: &Fixture,
    tool: &str,
    arguments: &JsonObject,
    declared: &ClientCapabilities,
) -> Result<CallToolResponse, ErrorData> {
    let job = match tool {
        "slow_compute" => Job::Wait {
            seconds: arguments.get("seconds").and_then(Value::as_f64).unwrap_or(1.0).clamp(0.0, 30.0),
            label: arguments.get("label").and_then(Value::as_str).unwrap_or_default().to_owned(),
        },
        "failing_job" => Job::Fail,
        "protocol_error_job" => Job::FailInProtocol,
        "confirm_delete" => Job::AskOne(Box::new(fixture.input("delete")?)),
        _ => Job::AskTwo(Box::new([fixture.input("first")?, fixture.input("second")?])),
    };
    if declared.supports_tasks() {
        return Ok(start(tasks, job));
    }
    match job {
        Job::Wait { .. } | Job::FailInProtocol => match run_alone(job).await {
            Ok(result) => Ok(result.into()),
            Err(TaskExit::Error(error)) => Err(error),
            Err(TaskExit::Cancelled) => Err(ErrorData::internal_error("cancelled", None)),
        },
        // The others only make sense as tasks.
        _ => {
            let required = ClientCapabilities::builder().enable_tasks().build();
            Err(ErrorData::missing_required_client_capability(required))
        }
    }
}

/// A task that says a text: the second half of a dialogue that goes on as a task.
pub(crate) fn say(tasks: &TaskManager, text: String) -> CallToolResponse {
    start(tasks, Job::Say(text))
}

fn start(tasks: &TaskManager, job: Job) -> CallToolResponse {
    let task = tasks.spawn(TaskOptions::default(), move |context| {
        Box::pin(async move {
            tokio::select! {
                () = context.cancelled() => Err(TaskExit::Cancelled),
                result = run(job, &context) => result,
            }
        })
    });
    CreateTaskResult::new(task).into()
}

async fn run(job: Job, context: &TaskContext) -> Result<CallToolResult, TaskExit> {
    match job {
        Job::AskOne(request) => {
            let given = context.request_input("confirm", *request).await?;
            text(format!("confirmed: {}", given.pointer("/content/confirm").unwrap_or(&Value::Null)))
        }
        Job::AskTwo(requests) => {
            let [first, second] = *requests;
            let (first, second) =
                tokio::try_join!(context.request_input("first", first), context.request_input("second", second))?;
            let value = |given: &Value| given.pointer("/content/value").cloned().unwrap_or_default();
            text(format!("values: {}, {}", value(&first), value(&second)))
        }
        job => run_alone(job).await,
    }
}

async fn run_alone(job: Job) -> Result<CallToolResult, TaskExit> {
    match job {
        Job::Wait { seconds, label } => {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            text(format!("computed {label} for {seconds} s"))
        }
        // The suite wants to see the task working before it fails.
        Job::Fail => {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(CallToolResult::error(vec![ContentBlock::text("the job failed as it should")]))
        }
        Job::Say(words) => text(words),
        _ => Err(TaskExit::Error(ErrorData::internal_error("the job broke as it should", None))),
    }
}

fn text(words: String) -> Result<CallToolResult, TaskExit> {
    Ok(CallToolResult::success(vec![ContentBlock::text(words)]))
}
