//! Data plane: MCP and HTTP in, upstream out.
//!
//! This crate owns what happens to a request between the agent's socket and the upstream's: it authenticates through
//! the authority, has each call decided and logged, forwards it with the permit in hand, and answers. It must never
//! know Cedar, SQL, or how tokens are made, and never hands an agent's token on.
//!
//! Start reading at `call.rs`: one governed tool call on one page.

mod admission;
mod answer;
mod call;
mod config;
#[cfg(fuzzing)]
pub mod door;
mod envelope;
mod flight;
mod handles;
mod hear;
mod held;
pub mod http;
mod listen;
pub mod mcp;
mod observe;
mod page;
mod respond;
mod room;
mod scrub;
mod serve;
mod session;
mod shape;
mod slots;
mod template;
mod tied;
pub mod upstream;

pub use config::{GatewayConfig, Limits};
pub use listen::{ConnectionInfo, Gateway};
pub use observe::{Observer, Stage};
pub use respond::Body;
