//! JWT, JWKS, DPoP, SPIFFE, X.509 and OAuth messages: hostile bytes become checked values, checked values
//! become signed bytes. It reads no clock, does no I/O and holds no cache: `now` is always an argument, key
//! sets are handed in, and a replay key is handed out for the caller to remember. JOSE and X.509 crates are
//! named only here. It must never know what a token *allows*: that is decided elsewhere.
//!
//! The one place that draws randomness is [`sign::Es256Signer`]: ECDSA needs a nonce per signature, and
//! aws-lc-rs takes it from its own generator only.

pub mod access;
pub mod algorithm;
pub mod claims;
pub mod dpop;
pub mod error;
#[cfg(test)]
#[path = "tests/forge.rs"]
mod forge;
pub mod instant;
mod json;
pub mod jwk;
pub mod jwks;
mod jws;
pub mod oauth;
pub mod sign;
pub mod spiffe_id;
pub mod svid;
pub mod verify;

pub use error::{Error, Reason};
pub use instant::UnixSeconds;
