//! What tests of a target need from the rest of Writ: a decision in a log that a plan can be shown with.

use crate::MemoryLedger;
use authority::ports::{Ledger, Write};
use authority::target::Plan;
use authority::{Consistency, LogGate, ShownPlan};
use serde_json::json;

/// Logs the decision that allows `plan` and goes through the real gate with it.
pub async fn shown(plan: &Plan) -> ShownPlan {
    let ledger = MemoryLedger::default();
    let digest: String = plan.digest().iter().map(|byte| format!("{byte:02x}")).collect();
    let event = json!({ "outcome": "allow", "plan_sha256": digest, "type": "decision" });
    let write = Write { events: vec![event.to_string().into_bytes()], changes: Vec::new() };
    let inclusion = ledger.include(write, 0).await.unwrap();
    LogGate::new(ledger.log_key()).show_plan(plan, &inclusion, &Consistency { old: 0, new: 1, proof: &[] }).unwrap()
}
