//! Tables. The median of the rounds, and ratios to the row that each row should be compared with: the first for latency,
//! the bare proxy with synced records for throughput.

use crate::client::Measured;
use std::time::Duration;

/// One path, over all rounds.
pub(crate) struct Row {
    name: String,
    p50: Vec<Duration>,
    p99: Vec<Duration>,
    per_second: Vec<f64>,
}

impl Row {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), p50: Vec::new(), p99: Vec::new(), per_second: Vec::new() }
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        let count = measured.latencies.len();
        let at = |share: f64| measured.latencies.get((count as f64 * share) as usize).copied().unwrap_or_default();
        self.p50.push(at(0.50));
        self.p99.push(at(0.99));
        self.per_second.push(count as f64 / measured.elapsed.as_secs_f64());
    }

    pub(crate) fn rate(&self) -> f64 {
        median(&self.per_second, f64::total_cmp)
    }

    fn p50(&self) -> Duration {
        median(&self.p50, Ord::cmp)
    }
}

fn median<T: Copy + Default>(values: &[T], order: impl Fn(&T, &T) -> std::cmp::Ordering) -> T {
    let mut sorted = values.to_vec();
    sorted.sort_by(order);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Prints rows of one load.
pub(crate) fn table(title: &str, rows: &[Row]) {
    println!("\n{title}");
    println!("{:<28} {:>9} {:>9} {:>9} {:>12} {:>8}", "path", "p50 ms", "p99 ms", "per s", "added p50 µs", "of sync");
    let direct = rows.first().map(Row::p50).unwrap_or_default();
    let synced = rows.get(2).map_or(0.0, Row::rate);
    for row in rows {
        let added = row.p50().saturating_sub(direct).as_micros();
        let ratio = if synced > 0.0 { format!("{:.2}", row.rate() / synced) } else { String::new() };
        let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
        let p99 = median(&row.p99, Ord::cmp);
        println!("{:<28} {:>9.3} {:>9.3} {:>9.0} {added:>12} {ratio:>8}", row.name, millis(row.p50()), millis(p99), row.rate());
    }
}
