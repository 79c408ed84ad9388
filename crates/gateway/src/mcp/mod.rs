//! The Model Context Protocol as both halves of the gateway see it: messages and revisions. Pure: bytes in, values
//! out; knows no socket, no task, no policy. Follows MCP 2026-07-28 and the session revisions 2024-11-05 to 2025-11-25.

pub(crate) mod leaving;
pub mod message;
pub mod object;
pub mod stream;
pub(crate) mod tags;
pub mod version;
