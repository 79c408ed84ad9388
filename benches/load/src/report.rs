//! Tables. The median of the rounds; the latency that a path adds to its table's first row, its calls per second as a share
//! of the row that it should be measured by, and the processor time of the process that answers, which other work on the
//! machine disturbs least.

use crate::client::Measured;
use std::time::Duration;

/// One path, over all rounds.
pub(crate) struct Row {
    name: String,
    p50: Vec<Duration>,
    p99: Vec<Duration>,
    per_second: Vec<f64>,
    processor: Vec<Duration>,
}

impl Row {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.into(), p50: Vec::new(), p99: Vec::new(), per_second: Vec::new(), processor: Vec::new() }
    }

    pub(crate) fn add(&mut self, measured: Measured) {
        let count = measured.latencies.len();
        let at = |share: f64| measured.latencies.get((count as f64 * share) as usize).copied().unwrap_or_default();
        self.p50.push(at(0.50));
        self.p99.push(at(0.99));
        self.per_second.push(count as f64 / measured.elapsed.as_secs_f64());
        self.processor.push(measured.processor.checked_div(u32::try_from(count).unwrap_or(u32::MAX)).unwrap_or_default());
    }

    fn rate(&self) -> f64 {
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

/// Prints rows of one load. `to` is the row that the others' rates are given as a share of.
pub(crate) fn table(title: &str, to: &str, rows: &[Row]) {
    println!("\n{title}");
    let share = format!("of {to}");
    println!(
        "{:<30} {:>9} {:>9} {:>9} {:>13} {:>8} {:>20}",
        "path", "p50 ms", "p99 ms", "per s", "added p50 µs", "cpu µs", share
    );
    let first = rows.first().map(Row::p50).unwrap_or_default();
    let base = rows.iter().find(|row| row.name == to).map_or(0.0, Row::rate);
    for row in rows {
        let added = row.p50().saturating_sub(first).as_micros();
        let ratio = if base > 0.0 { format!("{:.2}", row.rate() / base) } else { String::new() };
        let millis = |time: Duration| time.as_secs_f64() * 1_000.0;
        let (p99, processor) = (median(&row.p99, Ord::cmp), median(&row.processor, Ord::cmp).as_micros());
        println!(
            "{:<30} {:>9.3} {:>9.3} {:>9.0} {added:>13} {processor:>8} {ratio:>20}",
            row.name,
            millis(row.p50()),
            millis(p99),
            row.rate()
        );
    }
}
