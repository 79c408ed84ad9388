//! Everything between the gateway and MCP upstreams: connections, sessions, children, credentials, and the catalog of
//! live tools. Hides from the rest of the crate which transport and which era an upstream speaks. Must never see the
//! agent's token, decide anything, or know what stands in a policy.
//!
//! One [`Connection`] belongs to one task and, where the client has sessions, to one client session: nothing of one
//! task's conversation with an upstream is ever shared with another (R20). A request through it gives an [`Exchange`]:
//! events in the order in which the upstream sent them, the last of them the outcome.

mod connection;
mod error;
mod exchange;
mod pool;
mod profile;
mod registry;

pub use connection::{Connection, Outgoing};
pub use error::UpstreamError;
pub use exchange::{Event, Exchange};
pub use pool::{Settings, Upstreams};
pub use profile::{ClientProfile, ServerProfile, SessionKey};
pub use registry::Registry;
