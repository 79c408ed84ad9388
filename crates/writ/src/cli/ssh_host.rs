//! `writ ssh-host`: the helper on a host that trusts an SSH authority of Writ. It fetches the revocation list and ends the
//! sessions of revoked certificates; it reads no configuration of Writ and holds no secret.

use super::Failure;
use super::output::note;
use super::serve::StopSignals;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use targets::ssh::host::{Host, HostSettings};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
#[command(after_help = "\
sshd refuses every key while the file of RevokedKeys is missing: run it with --once before sshd is told of the file.
A list that is cut off, foreign or older than the one in place never replaces it.")]
pub(crate) struct SshHostArgs {
    /// Where the list is: an https URL, or an absolute path.
    #[arg(long, value_name = "URL|PATH")]
    from: String,
    /// The file of sshd's RevokedKeys.
    #[arg(long, value_name = "FILE")]
    krl_file: PathBuf,
    /// The file that sshd logs to, which only root can write (`sshd -E FILE`).
    #[arg(long, value_name = "FILE")]
    auth_log: PathBuf,
    /// Certificates to trust instead of the public roots, in PEM.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Seconds between two rounds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    every: u64,
    /// One round, and exit: 0 if all of it was done.
    #[arg(long)]
    once: bool,
}

pub(crate) async fn run(args: SshHostArgs) -> Result<ExitCode, Failure> {
    let ca_pem = args.ca_file.as_ref().map(std::fs::read).transpose();
    let ca_pem = ca_pem.map_err(|error| Failure::usage("`--ca-file` cannot be read").why(error.to_string()))?;
    let settings = HostSettings { from: args.from, ca_pem, krl_file: args.krl_file, auth_log: args.auth_log };
    let mut host = Host::new(settings).map_err(|error| Failure::usage(error.to_string()))?;
    let stopping = CancellationToken::new();
    if !args.once {
        StopSignals::new()?.cancel(stopping.clone());
    }
    loop {
        match host.round().await {
            Ok(round) if round.sessions > 0 => {
                note(&format!("list {}: ended {} sessions ({} processes)", round.number, round.sessions, round.processes));
            }
            Ok(_) => {}
            Err(error) if args.once => return Err(Failure::new("not all of the round was done").why(error.to_string())),
            Err(error) => note(&format!("not all of the round was done: {error}")),
        }
        if args.once {
            return Ok(ExitCode::SUCCESS);
        }
        tokio::select! {
            () = stopping.cancelled() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(Duration::from_secs(args.every)) => {}
        }
    }
}
