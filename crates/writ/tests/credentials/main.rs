//! Claims about just-in-time credentials in the whole product: `writ exec`, the server, the real systems, their unmodified
//! clients. Skips loudly what is not installed (fails if WRIT_REQUIRE_SERVICES is set).
#![expect(clippy::unwrap_used, reason = "tests")]

mod aws;
mod azure;
mod crash;
mod gcp;
mod github;
mod kubernetes;
mod lab;
mod mysql;
mod outage;
mod platform;
mod postgresql;
mod redis;
mod secrets;
#[path = "../served/mod.rs"]
mod served;
mod ssh;
mod x509;
