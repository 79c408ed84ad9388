//! The gateway as an agent sees it, over the test kit's authority and an upstream that records what reaches it.

mod answers;
mod calls;
mod hearing;
mod leaving;
mod requests;
mod support;
