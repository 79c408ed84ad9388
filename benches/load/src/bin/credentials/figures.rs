//! Latencies of one kind of work, and the closed loops that make them. Knows nothing of what is measured.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// Latencies of one kind.
#[derive(Default)]
pub(crate) struct Figures {
    each: Vec<Duration>,
    spent: Duration,
}

impl Figures {
    /// In milliseconds.
    pub(crate) fn quantile(&self, of_hundred: usize) -> f64 {
        let mut sorted = self.each.clone();
        sorted.sort_unstable();
        let place = sorted.len().saturating_sub(1) * of_hundred / 100;
        sorted.get(place).copied().unwrap_or_default().as_secs_f64() * 1_000.0
    }

    pub(crate) fn count(&self) -> usize {
        self.each.len()
    }

    pub(crate) fn rate(&self) -> f64 {
        self.each.len() as f64 / self.spent.as_secs_f64()
    }

    pub(crate) fn say(&self, what: &str) {
        let (p50, p99) = (self.quantile(50), self.quantile(99));
        println!("{what:52} p50 {p50:7.2} ms   p99 {p99:7.2} ms   {:7.0}/s", self.rate());
    }
}

/// Runs `work` on so many clients, each one after the other, as long as `more` says of the number that a client has done.
pub(crate) async fn run<F, W>(
    clients: u64,
    into: &mut Figures,
    more: impl Fn(u64) -> bool + Send + Sync + Copy + 'static,
    work: F,
) where
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send,
{
    let work = Arc::new(work);
    let began = Instant::now();
    let running: Vec<_> = (0..clients)
        .map(|_| {
            let work = Arc::clone(&work);
            tokio::spawn(async move {
                let mut each = Vec::new();
                for done in 0.. {
                    if !more(done) {
                        break;
                    }
                    let one = Instant::now();
                    work().await;
                    each.push(one.elapsed());
                }
                each
            })
        })
        .collect();
    for client in running {
        into.each.extend(client.await.unwrap());
    }
    into.spent += began.elapsed();
}
