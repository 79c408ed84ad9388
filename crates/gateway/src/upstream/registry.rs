//! What the upstream half asks of the authority: which upstreams there are, which tool definitions were approved,
//! which tasks are open. The port belongs to its user; the authority is its one implementation in the product.

use authority::Authority;
use domain::{Digest, EndReason, TaskId, ToolName, Upstream, UpstreamName};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::broadcast;

/// The operator's side of upstreams. All methods answer from memory and are called on the path of requests.
pub trait Registry: Send + Sync + 'static {
    /// The upstream of this name, as it is registered now.
    fn upstream(&self, name: &UpstreamName) -> Option<Arc<Upstream>>;
    /// The pin of the tool definition that an operator approved, if one was.
    fn approved(&self, upstream: &UpstreamName, tool: &ToolName) -> Option<Digest>;
    /// That definition itself. Only for operators who want to see what changed.
    fn approved_definition(&self, upstream: &UpstreamName, tool: &ToolName) -> Option<Value>;
    /// The pin that this wire definition has.
    fn pin(&self, upstream: &UpstreamName, definition: &Value) -> Digest;
    /// Why the task is not open, if it is not.
    fn ended(&self, task: TaskId) -> Option<EndReason>;
    /// Every task's end from now on.
    fn ends(&self) -> broadcast::Receiver<(TaskId, EndReason)>;
}

impl Registry for Authority {
    fn upstream(&self, name: &UpstreamName) -> Option<Arc<Upstream>> {
        self.upstreams().get(name).cloned()
    }

    fn approved(&self, upstream: &UpstreamName, tool: &ToolName) -> Option<Digest> {
        self.policy().approved(upstream, tool).map(|approved| approved.pin)
    }

    fn approved_definition(&self, upstream: &UpstreamName, tool: &ToolName) -> Option<Value> {
        self.policy().approved(upstream, tool).map(|approved| approved.definition.clone())
    }

    fn pin(&self, upstream: &UpstreamName, definition: &Value) -> Digest {
        Self::pin(upstream, definition)
    }

    fn ended(&self, task: TaskId) -> Option<EndReason> {
        // A task that is not known any more ended some time ago; how is in the log.
        self.live_task(task).map_or(Some(EndReason::Completed), |live| live.ended())
    }

    fn ends(&self) -> broadcast::Receiver<(TaskId, EndReason)> {
        self.subscribe_ends()
    }
}
