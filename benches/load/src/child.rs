//! Servers as processes of their own, as they are in life: a path within one process would be spared the switches between
//! processes that the others pay. A process ends when its handle is dropped, and says what processor time it used.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Ticks of the processor clock a second: fixed by Linux for `/proc`.
const TICKS: u64 = 100;

/// How long a server may take to end by itself.
const END_MAX: Duration = Duration::from_secs(20);

/// A server under load.
pub(crate) struct Server {
    process: Child,
    pub(crate) at: SocketAddr,
}

impl Server {
    /// Starts this program again as one of the baselines; it says on its first line where it listens.
    pub(crate) async fn baseline(words: &[&str]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.args(words).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let said = process.stdout.take().context("a child without output")?;
        let line = BufReader::new(said).lines().next_line().await?.context("a baseline did not start")?;
        Ok(Self { process, at: line.trim().parse()? })
    }

    /// Writ, with this configuration, once it listens.
    pub(crate) async fn writ(config: &Path, at: SocketAddr) -> Result<Self> {
        let binary = std::env::current_exe()?.with_file_name("writ");
        let process = Command::new(&binary)
            .args(["serve", "--config"])
            .arg(config)
            .env("WRIT_LOG", "warn")
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started; build it first", binary.display()))?;
        let server = Self { process, at };
        server.ready().await?;
        Ok(server)
    }

    /// Any other program.
    pub(crate) async fn other(mut command: Command, at: SocketAddr) -> Result<Self> {
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()?;
        let server = Self { process, at };
        server.ready().await?;
        Ok(server)
    }

    async fn ready(&self) -> Result<()> {
        for _ in 0..4_000 {
            if tokio::net::TcpStream::connect(self.at).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::bail!("nothing listens on {}", self.at)
    }

    /// Processor time that it used so far, in user and system.
    pub(crate) fn processor(&self) -> Duration {
        let stat = self.file("stat").unwrap_or_default();
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1_000 / TICKS)
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = self.file("status").unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
    }

    fn file(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(format!("/proc/{}/{name}", self.process.id()?)).ok()
    }
}

impl Drop for Server {
    /// Asks it to end, and waits for that: a build that counts where it spends its time writes it down at its end (`./dist`).
    fn drop(&mut self) {
        let Some(id) = self.process.id() else { return };
        let asked = std::process::Command::new("kill").args(["-TERM", &id.to_string()]).status();
        let until = Instant::now() + END_MAX;
        while asked.is_ok() && Instant::now() < until && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A free port of this machine.
pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
