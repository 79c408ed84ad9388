//! Prints the steps of the demo as they happen, for people or as JSON, and remembers whether all went as expected.

use crate::cli::output::{self, Form, Paint, painted, tame};
use serde_json::{Value, json};

/// Longest piece of what happened that is shown, in characters.
const SHOWN_MAX: usize = 260;

/// The steps so far.
pub(crate) struct Report {
    form: Form,
    colour: bool,
    steps: Vec<Value>,
    left_out: Vec<String>,
    differs: usize,
}

impl Report {
    /// Nothing has happened yet.
    pub(crate) fn new(form: Form) -> Self {
        Self { form, colour: output::colour_on_stdout(), steps: Vec::new(), left_out: Vec::new(), differs: 0 }
    }

    /// A line between steps.
    pub(crate) fn chapter(&self, text: &str) {
        if self.form == Form::Human {
            output::line("");
            output::line(&painted(text, Paint::Strong, self.colour));
        }
    }

    /// An aside.
    pub(crate) fn aside(&self, text: &str) {
        if self.form == Form::Human {
            output::line(&painted(&format!("    {text}"), Paint::Faint, self.colour));
        }
    }

    /// A chapter that cannot be told here, and why.
    pub(crate) fn left_out(&mut self, text: &str) {
        let text = tame(text);
        if self.form == Form::Human {
            output::line("");
            output::line(&painted(&format!("Left out: {text}"), Paint::Faint, self.colour));
        }
        self.left_out.push(text);
    }

    /// One step: what was done, what should come of it, what came of it, and whether that is the same.
    pub(crate) fn step(&mut self, what: &str, expected: &str, happened: &str, good: bool) {
        let number = self.steps.len() + 1;
        let happened: String = tame(happened);
        self.steps.push(json!({ "step": number, "what": what, "expected": expected, "happened": happened, "as_expected": good }));
        self.differs += usize::from(!good);
        if self.form == Form::Json {
            return;
        }
        let (mark, paint) = if good { ("✓", Paint::Good) } else { ("✗ DIFFERS", Paint::Bad) };
        let cut: String = happened.chars().take(SHOWN_MAX).collect();
        let rest = if cut.len() < happened.len() { "…" } else { "" };
        output::line(&format!("{number:>3}. {what}"));
        output::line(&painted(&format!("     expected  {expected}"), Paint::Faint, self.colour));
        output::line(&format!("     happened  {cut}{rest} {}", painted(mark, paint, self.colour)));
    }

    /// Whether every step went as expected.
    pub(crate) fn all_as_expected(&self) -> bool {
        self.differs == 0
    }

    /// The last word.
    pub(crate) fn close(&self) {
        match self.form {
            Form::Json => {
                output::json(&json!({ "as_expected": self.all_as_expected(), "left_out": self.left_out, "steps": self.steps }))
            }
            Form::Human => {
                let (count, differs) = (self.steps.len(), self.differs);
                let (text, paint) = if differs == 0 {
                    (format!("{count} steps, each as expected"), Paint::Good)
                } else {
                    (format!("{count} steps, {differs} not as expected"), Paint::Bad)
                };
                output::line("");
                output::line(&painted(&text, paint, self.colour));
            }
        }
    }
}
