//! HTTP APIs behind the gateway: an agent holds only its task token and calls `/http/{target}/…`; the credential of the API is
//! added here, to requests that match a route, were decided with their arguments and are in the log. Owns the way of such a
//! request in both directions. Must never know SQL, Cedar or MCP, and never lets the credential out.
//! Start reading at `serve.rs`. Design §6, §9.

mod address;
mod answer;
mod config;
mod connect;
#[cfg(fuzzing)]
pub(crate) mod door;
mod handshake;
mod inject;
mod oauth;
mod path;
mod refuse;
mod request;
mod route;
mod serve;
mod sigv4;
mod socket;
mod usage;

pub use address::{Network, NetworkFault};
pub use answer::{ApiBody, Cut};
pub use config::{Auth, ClientAuth, ConfigFault, ConnectTable, HttpLimits, HttpTarget, Origin, SignatureIn};
pub use connect::{Lookup, SystemLookup};
pub use path::{Template, TemplateFault};
pub use route::{Route, RouteTable};
pub use serve::HttpApis;
