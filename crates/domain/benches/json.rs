//! What strictness costs: the reader beside `serde_json`'s own, and the canonical form beside its plain one, over a call with
//! small arguments and over a large tool definition. Prints ratios of one run; asserts nothing.
#![expect(clippy::print_stdout, reason = "a benchmark")]

use domain::json::{Limits, canonical, read_text};
use serde_json::{Value, json};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The best of many runs in nanoseconds: the figure that a busy machine disturbs least.
fn best(mut work: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..20_000 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed());
    }
    best.as_secs_f64() * 1e9
}

fn main() {
    let call = json!({
        "name": "refund",
        "arguments": {"order_id": "o-1001", "amount_cents": 500, "note": "the parcel came open", "urgent": false},
        "_meta": {"progressToken": 17, "io.modelcontextprotocol/protocolVersion": "2026-07-28"},
    });
    let member = |n: usize| (format!("member_{n}"), json!({"type": "string", "description": "what it means", "maxLength": n}));
    let definition: serde_json::Map<String, Value> = (0..60).map(member).collect();
    for (name, value) in [("a call", call), ("a definition", json!({"inputSchema": {"properties": definition}}))] {
        let text = value.to_string();
        let plain = best(|| drop(black_box(serde_json::from_str::<Value>(black_box(&text)))));
        let strict = best(|| drop(black_box(read_text(black_box(&text), Limits::MESSAGE))));
        println!("read {name} ({} bytes): serde_json {plain:.0} ns, strict {strict:.0} ns, {:.2}x", text.len(), strict / plain);
        let plain = best(|| drop(black_box(black_box(&value).to_string())));
        let sorted = best(|| drop(black_box(canonical(black_box(&value)))));
        println!("write {name}: serde_json {plain:.0} ns, canonical {sorted:.0} ns, {:.2}x", sorted / plain);
    }
}
