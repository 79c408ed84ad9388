//! `writ serve`: starts the server of a configuration and stops it in good order.

use super::{Common, Exit, Failure};
use crate::cli::output::note;
use crate::server::Server;
use clap::Args;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
#[command(after_help = "\
Serves /mcp/{upstream}, /oauth/*, /.well-known/*, /access/v1/*, /v1/*, /log/*, /healthz, /readyz, /metrics.

Signals:
  SIGTERM, SIGINT  stop: no new requests; calls in flight finish and are logged
  SIGHUP           read policy and agent files again (they are also looked at every 2 seconds)")]
pub(crate) struct ServeArgs {
    /// Check configuration, policy and keys, and exit.
    #[arg(long)]
    check: bool,
}

pub(crate) async fn run(common: &Common, args: ServeArgs) -> Result<ExitCode, Failure> {
    crate::system::seal_memory();
    let config = common.load()?;
    // Before anything is opened: a signal from here on stops it in good order.
    let signals = StopSignals::new()?;
    let telemetry = crate::telemetry::start(&config.telemetry)?;
    let server = Server::start(config).await.map_err(|error| Failure::from(error).exit(Exit::Failed))?;
    if args.check {
        note("configuration, policy and keys are in order");
        return Ok(ExitCode::SUCCESS);
    }
    tracing::info!(listen = %server.address(), url = server.url(), "serving");
    let stopping = CancellationToken::new();
    signals.cancel(stopping.clone());
    server.run(stopping).await;
    tracing::info!("stopped");
    telemetry.finish().await;
    Ok(ExitCode::SUCCESS)
}

/// The signals that stop this process. From when it exists they no longer end it by themselves.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes them over.
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Cancels `stopping` on the first signal, in the background; a second one ends the process at once.
    #[expect(clippy::disallowed_methods, reason = "who signals twice does not want to wait for anything")]
    pub(crate) fn cancel(mut self, stopping: CancellationToken) {
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = self.terminate.recv() => {}
                    _ = self.interrupt.recv() => {}
                }
                if stopping.is_cancelled() {
                    std::process::exit(130);
                }
                stopping.cancel();
            }
        });
    }
}
