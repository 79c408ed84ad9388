//! Data plane: MCP and HTTP in, upstream out.
//!
//! This crate owns what happens to a request between the agent's socket and the upstream's: it authenticates through
//! the authority, has each call decided and logged, forwards it with the permit in hand, and answers. It must never
//! know Cedar, SQL, or how tokens are made, and never hands an agent's token on.

pub mod mcp;
