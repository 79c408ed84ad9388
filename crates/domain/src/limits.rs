//! Everything that could grow without bound has its limit here, with the reason. Configuration may lower these
//! where it offers to, never raise them.

/// Longest name of an agent, owner, intent, provider or upstream: fits a log line and a table column.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest tool name. MCP 2025-11-25 recommends 1 to 128 characters.
pub const TOOL_NAME_BYTES_MAX: usize = 128;
/// Longest text parameter of an intent: a parameter names a thing, it is not a document.
pub const PARAM_TEXT_BYTES_MAX: usize = 1_024;
/// Most parameters that an intent may declare, and most items in a set-valued one.
pub const PARAMS_MAX: usize = 64;
/// Longest life of a task unless its intent says less, in seconds.
pub const TASK_LIFETIME_SECS_MAX: u64 = 24 * 3_600;
/// Most calls that one task may make unless its intent says less.
pub const TASK_CALLS_MAX: u64 = 1_000_000;
/// Largest request body that the gateway parses, in bytes.
pub const REQUEST_BYTES_MAX: usize = 4 * 1_024 * 1_024;
/// Deepest nesting of JSON that is accepted from outside.
pub const JSON_DEPTH_MAX: usize = 64;
/// Most open tasks of one agent: a runaway agent must not fill the table.
pub const OPEN_TASKS_PER_AGENT_MAX: usize = 20_000;
