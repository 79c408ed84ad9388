//! OAuth 2 messages as values: requests parsed, documents and challenges built. Pure text in, text out:
//! it knows no HTTP server, no task and no policy.

pub mod challenge;
pub mod error;
mod form;
pub mod metadata;
pub mod request;
pub mod response;

/// The only type of `authorization_details` that we know.
pub const WRIT_TASK_TYPE: &str = "writ_task";
