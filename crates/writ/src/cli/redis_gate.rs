//! `writ redis-gate`: the process between the broker and Redis, under another user than Writ's. It reads its own file and
//! no configuration of Writ, and knows nothing of tasks or policy.

use super::Failure;
use super::serve::StopSignals;
use clap::Args;
use domain::{SecretRef, Timestamp};
use secrecy::SecretString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use targets::config::Surroundings;
use targets::redis::gate::{Gate, GateSettings};
use tokio_util::sync::CancellationToken;

/// Largest file that the gate reads, in bytes.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

#[derive(Debug, Args)]
#[command(after_help = "\
Run it as a user of its own: it alone may change users at Redis, and Writ may only ask it for users of its templates.
`writ target install NAME --print` prints its file and its service. docs/targets/redis.md says the rest.")]
pub(crate) struct RedisGateArgs {
    /// The gate's own file (TOML).
    file: PathBuf,
    /// Check the file and exit.
    #[arg(long)]
    check: bool,
}

/// What the gate needs of this machine: files beside its own, and the time.
struct Beside(PathBuf);

impl Surroundings for Beside {
    fn read(&self, reference: &SecretRef) -> Result<SecretString, String> {
        match reference {
            SecretRef::File(path) => read(Path::new(path)).map(|text| text.trim_end().to_owned().into()),
            SecretRef::Env(name) => Err(format!("`{name}`: the gate reads secrets from files only")),
        }
    }

    fn locate(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn now(&self) -> Timestamp {
        crate::system::now()
    }
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text));
    read.map(|_| text).map_err(|error| format!("`{}`: {error}", path.display()))
}

pub(crate) async fn run(args: RedisGateArgs) -> Result<ExitCode, Failure> {
    crate::system::seal_memory();
    let text = read(&args.file).map_err(|error| Failure::usage("the gate's file cannot be read").why(error))?;
    let settings = GateSettings::parse(&text).map_err(|fault| Failure::usage(fault.to_string()))?;
    let folder = args.file.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let gate = Gate::new(settings, Arc::new(Beside(folder))).map_err(|fault| Failure::usage(fault.to_string()))?;
    if args.check {
        return Ok(ExitCode::SUCCESS);
    }
    let stopping = CancellationToken::new();
    StopSignals::new()?.cancel(stopping.clone());
    tokio::select! {
        () = stopping.cancelled() => Ok(ExitCode::SUCCESS),
        done = gate.serve() => match done {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(Failure::new("the gate cannot listen").why(error.to_string())),
        },
    }
}
