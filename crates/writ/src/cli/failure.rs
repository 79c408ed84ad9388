//! How a command fails: what, why, what next, and an exit code that scripts can rely on. The only place where errors
//! become text on standard error.

use super::output::{Form, Paint, colour_on_stderr, note, painted};
use crate::config::{Fault, Refused};
use serde_json::json;
use std::process::ExitCode;

/// Exit codes. `writ audit verify` has its own meaning for 1, 3 and 4; `writ exec` exits with the code of its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It failed, or what was checked is not so.
    Failed = 1,
    /// The command line or a file that it names is wrong. Nothing was done.
    Usage = 2,
    /// A log that is valid but not witnessed by whom it should.
    Unwitnessed = 3,
    /// A log that is valid but older than it should be.
    Stale = 4,
}

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    what: String,
    why: Vec<String>,
    next: Option<String>,
    faults: Vec<Fault>,
}

impl Failure {
    /// Something failed.
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { exit: Exit::Failed, what: what.into(), why: Vec::new(), next: None, faults: Vec::new() }
    }

    /// The command was not used as it can be.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new(what) }
    }

    /// The same with another exit code.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The same with a cause.
    pub(crate) fn why(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// The same with what to do now.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Shows it and gives the exit code.
    pub(crate) fn report(&self, form: Form) -> ExitCode {
        match form {
            Form::Json => {
                let faults: Vec<_> = self.faults.iter().map(Fault::to_json).collect();
                note(&json!({ "error": self.what, "why": self.why, "next": self.next, "faults": faults }).to_string());
            }
            Form::Human => self.tell(colour_on_stderr()),
        }
        ExitCode::from(self.exit as u8)
    }

    fn tell(&self, colour: bool) {
        for fault in &self.faults {
            note(&fault.render(colour));
        }
        note(&format!("{} {}", painted("error:", Paint::Bad, colour), self.what));
        for why in &self.why {
            note(&format!("  {} {why}", painted("why:", Paint::Faint, colour)));
        }
        if let Some(next) = &self.next {
            note(&format!("  {} {next}", painted("next:", Paint::Good, colour)));
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what)?;
        self.why.iter().try_for_each(|why| write!(f, ": {why}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let error = match error.downcast::<Refused>() {
            Ok(refused) => return refused.into(),
            Err(error) => error,
        };
        let mut told: Vec<String> = Vec::new();
        for cause in error.chain().map(ToString::to_string) {
            // Some errors end with their cause: once is enough.
            if told.last().is_none_or(|before| !before.ends_with(&cause)) {
                told.push(cause);
            }
        }
        let mut told = told.into_iter();
        let mut failure = Self::new(told.next().unwrap_or_default());
        failure.why.extend(told);
        failure
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self { faults: refused.0.clone(), ..Self::usage(refused.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_file::KeyFileError;

    #[test]
    fn a_cause_is_told_once() {
        let source = std::io::Error::from(std::io::ErrorKind::NotFound);
        let told = KeyFileError::Io { path: "k".into(), verb: "read", source };
        let failure = Failure::from(anyhow::Error::new(told).context("the keys"));
        assert_eq!((failure.what.as_str(), failure.why.len()), ("the keys", 1), "{failure}");
    }
}
