//! Policy as typed Cedar: a schema generated from intents and real tool definitions, decisions with reasons.
//!
//! The only crate that names Cedar. It is pure: the text of the policy folder, the moment of a decision and every
//! fact are arguments; it reads no file, no clock, and performs no I/O. The folder's format is `docs/policy.md`.
//! Its verdict is advice: only the authority turns an allowing verdict, once logged, into a permit.

mod canonical;
mod diagnostic;
mod lock;
mod pin;
mod policy;
mod request;
mod source;
mod cases;

pub use canonical::to_canonical_json;
pub use cases::{CaseResult, TestReport, run_tests};
pub use diagnostic::{Diagnostic, Severity};
pub use lock::{ApprovedTool, render_lock};
pub use pin::pin;
pub use policy::{Compiled, Policy};
pub use request::{Considered, Explanation, Offer, Request, RuleInfo, Standing};
pub use source::{PolicyVersion, SourceFile, Sources};
