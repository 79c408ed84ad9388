//! The words and rules of Writ as plain values.
//!
//! This crate owns what an agent, an intent, a task and a verdict *are* and when they may change. It must never
//! read a clock, draw a random number, perform I/O, or know HTTP, SQL, Cedar or JSON-RPC: time and identifiers
//! arrive as arguments. Types here do not derive `Serialize`; wire and storage twins live at the borders.

mod agent;
mod error;
mod facts;
mod grant;
mod identity;
mod intent;
pub mod json;
mod label;
pub mod limits;
mod name;
mod offer;
mod operation;
mod task;
mod time;
mod tool;
mod upstream;
mod value;
mod verdict;

pub use agent::{Agent, AgentState, NotEligible};
pub use error::Error;
pub use facts::{Binding, Facts};
pub use grant::{Ending, Grant, GrantState, RevokeReason};
pub use identity::{ClaimPattern, IdentityRule, WorkloadIdentity};
pub use intent::{Intent, Param, ParamFault, ParamType, TaskLimits};
pub use label::{Labels, Reading, Sensitivity, Sink};
pub use name::{
    AgentId, DecisionId, GrantId, IntentName, OfferName, OwnerId, ProviderName, TargetName, TaskId, ToolName, UpstreamName,
};
pub use offer::{Offer, SecretOrigin};
pub use operation::Operation;
pub use task::{EndReason, Progress, Task, TaskState};
pub use time::Timestamp;
pub use tool::{Digest, ToolTraits};
pub use upstream::{Injection, SecretRef, Transport, Upstream};
pub use value::{Params, Value};
pub use verdict::{Determining, Effect, Outcome, Reason, Verdict};
