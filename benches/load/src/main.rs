//! The load driver. In one run, on one machine, with client and upstream on board, it measures a trivial MCP tool call
//! direct, through a bare reverse proxy that decides nothing, through that proxy with one group-committed synced record a
//! call, and through Writ; the same over TLS with certificate-bound tokens; the latency without the disk's share; token
//! exchanges; decisions, beside Cerbos where it is at hand; memory at many open tasks. Every server is a process of its
//! own. It prints ratios: absolute figures move with the machine.
//!
//! `./dist && target/dist/load [--help]`
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time and reads its arguments")]

mod accept;
mod agentgateway;
mod cerbos;
mod child;
mod client;
mod keeping;
mod ledger;
mod options;
mod proxy;
mod records;
mod report;
mod stand;
mod target;
mod tls;
mod upstream;
mod writ;

use accept::Accepting;
use anyhow::Result;
use child::Server;
use client::{Load, run};
use keeping::Keeping;
use options::{Baseline, Command, Options};
use report::{Row, table};
use stand::{SYNCED, Stand};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use target::Target;
use testkit::Holder;
use tls::Tls;
use writ::{Held, SWAPPERS, Writ};

/// The one that Writ has, so that the baselines are as quick.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Clients of the token endpoint.
const SWAPPING: usize = 32;

#[tokio::main]
async fn main() -> Result<()> {
    match options::read()? {
        Command::Help => {
            println!("{}", options::HELP);
            Ok(())
        }
        Command::Serve(baseline) => serve(baseline).await,
        Command::Measure(options) => measure(&options).await,
    }
}

async fn serve(baseline: Baseline) -> Result<()> {
    let certificate = baseline.certificate.as_ref().map(|(cert, key)| (cert.as_path(), key.as_path()));
    let listener = Accepting::bind(certificate).await?;
    let keeping = Keeping::open(baseline.kept)?;
    match baseline.upstream {
        None => upstream::serve(listener, keeping).await,
        Some(upstream) => proxy::serve(listener, upstream, keeping).await,
    }
}

async fn measure(options: &Options) -> Result<()> {
    let folder = match &options.data {
        Some(data) => tempfile::tempdir_in(data)?,
        None => tempfile::tempdir()?,
    };
    println!("records and logs are in {}", folder.path().display());
    let tls = Tls::new(folder.path())?;
    let plain = Stand::start(&folder.path().join("tcp"), None, options.agentgateway.as_deref()).await?;
    let secured = Stand::start(&folder.path().join("tls"), Some(tls), None).await?;
    for clients in options.clients.iter().copied() {
        let load = Load { clients, time: options.time };
        compare(&format!("tools/call, {clients} clients"), &plain.paths, &load, options).await?;
        compare(&format!("tools/call over TLS, {clients} clients"), &secured.paths, &load, options).await?;
    }
    drop(secured);
    without_flush(options).await?;
    exchanges(&plain.writ, options).await?;
    decisions(&plain.writ, folder.path(), options).await?;
    drop(plain);
    memory(folder.path(), options).await
}

/// All paths in turn, round by round, so that each has its share of what else the machine does.
async fn compare(title: &str, paths: &[(&'static str, Target)], load: &Load, options: &Options) -> Result<()> {
    let paths: Vec<_> = paths.iter().filter(|(name, _)| options.wants(name)).collect();
    let mut rows: Vec<_> = paths.iter().map(|(name, _)| Row::new(name)).collect();
    for _ in 0..options.rounds {
        for (row, (_, target)) in rows.iter_mut().zip(&paths) {
            row.add(run(target, load).await?);
        }
    }
    table(&format!("{title}, {} rounds of {} s", options.rounds, load.time.as_secs()), SYNCED, &rows);
    Ok(())
}

/// One client, with the records in memory, where a flush costs nothing: what is left is the path's own latency.
async fn without_flush(options: &Options) -> Result<()> {
    let memory = Path::new("/dev/shm");
    if !memory.is_dir() || !options.wants("without flush") {
        return Ok(());
    }
    let folder = tempfile::tempdir_in(memory)?;
    let stand = Stand::start(folder.path(), None, options.agentgateway.as_deref()).await?;
    let load = Load { clients: 1, time: options.time };
    compare("tools/call, 1 client, records in memory (no disk flush)", &stand.paths, &load, options).await
}

async fn exchanges(writ: &Writ, options: &Options) -> Result<()> {
    if !options.wants("token exchange") {
        return Ok(());
    }
    let held = Held::Dpop(Arc::new(Holder::default()));
    let mut row = Row::new("token exchange, DPoP");
    for round in 0..options.rounds.min(SWAPPERS) {
        row.add(run(&writ.exchanges(&format!("swap{round}"), &held), &Load { clients: SWAPPING, time: options.time }).await?);
    }
    table(&format!("token exchanges, {SWAPPING} clients"), "", &[row]);
    Ok(())
}

async fn decisions(writ: &Writ, folder: &Path, options: &Options) -> Result<()> {
    if !options.wants("decision") {
        return Ok(());
    }
    const CERBOS: &str = "Cerbos over HTTP";
    // What any service over HTTP costs that keeps a record, or what Writ keeps, and decides nothing: nobody's decisions
    // come faster.
    let mut paths = Vec::new();
    for (name, option) in [("no decision, synced record", "--records"), ("no decision, Writ's ledger", "--ledger")] {
        let place = folder.join(option).display().to_string();
        let bound = Arc::new(Server::baseline(&["upstream", option, &place]).await?);
        paths.push((name, Target::plain(&bound, None)));
    }
    paths.push(("writ, AuthZEN, logged", writ.decisions().await?));
    match &options.cerbos {
        Some(binary) => paths.push((CERBOS, cerbos::start(binary, &folder.join("cerbos")).await?)),
        None => println!("\nCerbos is not measured: give its binary with --cerbos (npm `@cerbos/cerbos-linux-x64`)"),
    }
    for clients in options.clients.iter().copied() {
        let mut rows: Vec<_> = paths.iter().map(|(name, _)| Row::new(name)).collect();
        for _ in 0..options.rounds {
            for (row, (_, target)) in rows.iter_mut().zip(&paths) {
                row.add(run(target, &Load { clients, time: options.time }).await?);
            }
        }
        table(&format!("decisions through the API, {clients} clients"), CERBOS, &rows);
    }
    Ok(())
}

/// Resident memory of a new server with exactly so many open tasks.
async fn memory(folder: &Path, options: &Options) -> Result<()> {
    if options.tasks == 0 {
        return Ok(());
    }
    let folder = folder.join("memory");
    let upstream = child::Server::baseline(&["upstream"]).await?;
    let writ = Writ::start(&folder, upstream.at, None).await?;
    let before = writ.resident();
    let target = writ.exchanges("loose", &Held::Bearer);
    let mut opening = tokio::task::JoinSet::new();
    for client in 0..SWAPPING {
        let (target, tasks) = (target.clone(), options.tasks);
        opening.spawn(async move {
            let mut connection = client::Connection::open(&target).await?;
            for _ in (client..tasks).step_by(SWAPPING) {
                connection.exchange(&target.request()).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(opened) = opening.join_next().await {
        opened??;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mib, tasks) = (|kib: u64| kib / 1_024, options.tasks);
    println!("\nresident: {} MiB at the start, {} MiB with {tasks} open tasks", mib(before), mib(writ.resident()));
    Ok(())
}
