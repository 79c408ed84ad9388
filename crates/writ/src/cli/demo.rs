//! `writ demo`: the whole story on this machine, or only its sample upstream.

use super::output::{self, Form, line, note};
use super::serve::StopSignals;
use super::{Common, Failure};
use crate::demo::{Report, Stage, tell};
use clap::Args;
use helpdesk::Helpdesk;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  writ demo                                tell the story, and leave the server up to try things
  writ demo --once                         tell it, and exit with 1 if anything differs
  writ demo --helpdesk 127.0.0.1:8701      only the sample MCP server that `writ init` names")]
pub(crate) struct DemoArgs {
    /// Exit when the story is told: 0 if each step went as expected, else 1.
    #[arg(long)]
    once: bool,
    /// The folder to use, which must be empty or not there; if absent, a temporary one.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Only run the sample upstream (orders and helpdesk) at this address.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["once", "dir"])]
    helpdesk: Option<SocketAddr>,
}

pub(crate) async fn run(common: &Common, args: DemoArgs) -> Result<ExitCode, Failure> {
    if let Some(address) = args.helpdesk {
        return sample_upstream(address).await;
    }
    let form = common.form();
    let temporary = args.dir.is_none();
    let dir = args.dir.unwrap_or_else(|| std::env::temp_dir().join(format!("writ-demo-{}", crate::system::random_text::<9>())));
    // Signals from here on strike the stage in good order.
    let signals = StopSignals::new()?;
    let stage = Stage::set(&dir).await?;
    signals.cancel(stage.stopping());
    let mut report = Report::new(form);
    if form == Form::Human {
        line(&format!("Writ at {}, everything in {}", stage.url, dir.display()));
    }
    let told = tell(&stage, &mut report).await;
    report.close();
    let good = told.is_ok() && report.all_as_expected();
    if !args.once && told.is_ok() {
        invite(form, &stage, &dir);
        stage.stopping().cancelled().await;
    }
    stage.strike().await;
    if temporary {
        let _ = std::fs::remove_dir_all(&dir);
    }
    told?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What to try while everything is up.
fn invite(form: Form, stage: &Stage, dir: &Path) {
    if form == Form::Json {
        return;
    }
    let config = dir.join("writ.toml");
    let config = config.display();
    line("");
    line(&output::painted("Everything stays up. In another terminal:", output::Paint::Strong, output::colour_on_stdout()));
    for command in [
        format!("writ agent list --config {config}"),
        format!("writ task list --config {config}"),
        format!("writ audit search --outcome deny --config {config}"),
        format!("writ policy test {}/policy", dir.display()),
        format!("writ audit verify --data {}/data", dir.display()),
        format!(
            "writ exec --config {config} --intent refund-order --param order_id=A-1003 --param max_amount_cents=500 --dev support-bot -- env"
        ),
        format!("curl {}/metrics", stage.url),
    ] {
        line(&format!("  {command}"));
    }
    line("");
    line("Edit the policy and watch it take effect. Ctrl-C ends it.");
}

async fn sample_upstream(address: SocketAddr) -> Result<ExitCode, Failure> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|error| Failure::usage(format!("`{address}` cannot be listened on")).why(error.to_string()))?;
    let helpdesk = Helpdesk::in_memory().map_err(anyhow::Error::new)?;
    note(&format!("the sample upstream serves MCP at http://{address}/mcp"));
    let stopping = CancellationToken::new();
    StopSignals::new()?.cancel(stopping.clone());
    helpdesk.serve(listener, stopping.cancelled_owned()).await.map_err(anyhow::Error::new)?;
    Ok(ExitCode::SUCCESS)
}
