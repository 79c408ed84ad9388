//! One module for each group of endpoints. A handler reads the request, asks the authority, and shows the answer; it
//! decides nothing.

pub(crate) mod agents;
pub(crate) mod audit;
pub(crate) mod authorize;
pub(crate) mod credentials;
pub(crate) mod form;
pub(crate) mod health;
pub(crate) mod intents;
pub(crate) mod introspect;
pub(crate) mod keys;
pub(crate) mod log;
pub(crate) mod metadata;
pub(crate) mod page;
pub(crate) mod policy;
pub(crate) mod revocation;
pub(crate) mod revoke;
pub(crate) mod targets;
pub(crate) mod tasks;
pub(crate) mod token;
pub(crate) mod upstreams;
