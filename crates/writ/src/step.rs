//! Dying exactly at a named step, for the crash scenarios of `e2e`: the product says at each step where it is
//! (`target: "writ::step"`, a trace event that costs nothing when nobody listens), and here is the one that listens.
//! Only in debug builds: a release build that held this file would not compile. It kills the process as `kill -9`
//! does and can do nothing else.

#[cfg(not(debug_assertions))]
compile_error!("no release build may die on demand");

use std::path::PathBuf;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::targets::Targets;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Names the file that names the step; a server with no such variable listens to no step.
const VARIABLE: &str = "WRIT_DIE_AT";

/// Kills the process at the step that the file names when the step is reached. Without the file nothing happens.
struct Mortal {
    file: PathBuf,
}

/// The listener, if the environment asks for it.
pub(crate) fn listener<S>() -> Option<impl Layer<S>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let file = PathBuf::from(crate::system::variable(VARIABLE)?);
    Some(Mortal { file }.with_filter(Targets::new().with_target("writ::step", LevelFilter::TRACE)))
}

impl<S: Subscriber> Layer<S> for Mortal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut step = Step(String::new());
        event.record(&mut step);
        let wanted = std::fs::read_to_string(&self.file).unwrap_or_default();
        if !step.0.is_empty() && wanted.trim() == step.0 {
            // Nothing runs after this: no destructor, no flush, no other thread.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

/// The name of the step that an event tells of.
struct Step(String);

impl Visit for Step {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "at" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
