//! Policy as typed Cedar: a schema generated from intents and real tool definitions, decisions with reasons.
//!
//! The only crate that names Cedar. It is pure: the text of the policy folder, the moment of a decision and every
//! fact are arguments; it reads no file, no clock, and performs no I/O. The folder's format is `docs/policy.md`.
//! Its verdict is advice: only the authority turns an allowing verdict, once logged, into a permit.

mod arguments;
mod cases;
mod catalog;
mod check;
mod decide;
mod diagnostic;
#[cfg(fuzzing)]
pub mod door;
mod explain;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod fixture;
mod index;
mod intents;
mod labels;
mod lock;
mod nesting;
#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]
mod oracle;
mod pin;
mod policy;
mod possible;
mod request;
mod rules;
mod schema;
mod shape;
mod situation;
mod source;
mod spelling;
mod targets;
mod toml_text;
mod uri;

pub use cases::{CaseResult, TestReport, run_tests};
pub use diagnostic::{Diagnostic, Severity};
pub use labels::Unasked;
pub use lock::{ApprovedTool, render_lock};
pub use pin::pin;
pub use policy::{Compiled, Policy};
pub use request::{Considered, Explanation, Request, RuleInfo, Standing};
pub use source::{MalformedVersion, PolicyVersion, SourceFile, Sources};
pub use targets::TargetOffers;
