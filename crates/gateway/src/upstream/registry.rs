//! What the upstream half asks of the authority: which upstreams there are, which tool definitions were approved,
//! which tasks are open. The port belongs to its user; the authority is its one implementation in the product.

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
    /// The pin that this wire definition has.
    fn pin(&self, upstream: &UpstreamName, definition: &Value) -> Digest;
    /// Why the task is not open, if it is not.
    fn ended(&self, task: TaskId) -> Option<EndReason>;
    /// Every task's end from now on.
    fn ends(&self) -> broadcast::Receiver<(TaskId, EndReason)>;
}
