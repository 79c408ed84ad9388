//! HTTP APIs as a task sees them, over the test kit's authority and a TLS server that records every byte that reaches it and
//! answers with any bytes that a test wants.

mod answers;
mod places;
mod requests;
mod sockets;
mod support;
