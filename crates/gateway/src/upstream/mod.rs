//! Everything between the gateway and MCP upstreams: connections, sessions, children, credentials, and the catalog of
//! live tools. Hides from the rest of the crate which transport and which era an upstream speaks. Must never see the
//! agent's token, decide anything, or know what stands in a policy.
//!
//! One [`Connection`] belongs to one task and, where the client has sessions, to one client session: nothing of one
//! task's conversation with an upstream is ever shared with another (R20). A request through it gives an [`Exchange`]:
//! events in the order in which the upstream sent them, the last of them the outcome.

mod bridge;
mod cancel;
mod catalog;
mod child;
mod connection;
pub mod credential;
#[cfg(fuzzing)]
pub(crate) mod door;
mod era;
mod error;
mod exchange;
mod http;
mod http_stream;
mod hub;
mod inbox;
mod link;
mod listen;
mod mirror;
mod pool;
mod profile;
mod registry;
mod restore;
mod riders;
mod rounds;
mod sse;
mod waiting;

pub use catalog::{ToolStanding, ToolStatus};
pub use connection::{Connection, Outgoing};
pub use error::UpstreamError;
pub use exchange::{Event, Exchange};
pub use mirror::{MirroredParameter, encoded, mirrored};
pub use pool::{Settings, UpstreamStatus, Upstreams};
pub use profile::{ClientProfile, ServerProfile, SessionKey};
pub use registry::Registry;

#[cfg(test)]
mod tests;
