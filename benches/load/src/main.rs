//! The load driver. In one run, on one machine, with client and upstream on board, it measures a trivial MCP tool call
//! direct, through a bare reverse proxy that decides nothing, through that proxy with one group-committed synced record a
//! call, and through Writ; then token exchanges, memory at many open tasks, and start-up. It prints ratios: absolute
//! figures move with the machine.
//!
//! `cargo build --release && cargo run --release -p load [-- --secs 3 --rounds 3 --tasks 10000]`
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and reads its arguments")]

mod client;
mod proxy;
mod report;
mod target;
mod upstream;
mod writ;

use anyhow::Result;
use client::{Load, run};
use report::{Row, table};
use std::time::Duration;
use target::Target;

struct Options {
    secs: u64,
    rounds: usize,
    tasks: usize,
    clients: Vec<usize>,
}

fn options() -> Result<Options> {
    let mut options = Options { secs: 3, rounds: 3, tasks: 10_000, clients: vec![1, 16, 64] };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| anyhow::anyhow!("{word} needs a value"));
        match word.as_str() {
            "--secs" => options.secs = value()?.parse()?,
            "--rounds" => options.rounds = value()?.parse()?,
            "--tasks" => options.tasks = value()?.parse()?,
            "--clients" => options.clients = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
            _ => anyhow::bail!("unknown option {word}; known: --secs N --rounds N --tasks N --clients 1,16,64"),
        }
    }
    Ok(options)
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = options()?;
    let folder = tempfile::tempdir()?;
    let upstream = upstream::serve().await?;
    let bare = proxy::serve(upstream, None).await?;
    let synced = proxy::serve(upstream, Some(folder.path().join("records"))).await?;
    let writ = writ::Server::start(folder.path(), upstream).await?;
    let bearer = writ.bearer().await?;
    let dpop = writ.dpop().await?;
    let direct = |at| Target::plain(at, "/mcp");
    let paths = [
        ("direct", direct(upstream)),
        ("bare proxy", direct(bare)),
        ("bare proxy, synced record", direct(synced)),
        ("writ, bearer", bearer),
        ("writ, DPoP", dpop),
    ];
    for clients in &options.clients {
        let mut rows: Vec<_> = paths.iter().map(|(name, _)| Row::new(name)).collect();
        for _ in 0..options.rounds {
            for (row, (_, target)) in rows.iter_mut().zip(&paths) {
                row.add(run(target, &Load { clients: *clients, time: Duration::from_secs(options.secs) }).await?);
            }
        }
        table(&format!("tools/call, {clients} clients, {} rounds of {} s", options.rounds, options.secs), &rows);
    }
    writ.measure_exchanges(&options.clients, Duration::from_secs(options.secs)).await?;
    writ.measure_decisions(&options.clients, Duration::from_secs(options.secs)).await?;
    writ.measure_memory(options.tasks).await?;
    writ.stop().await
}
