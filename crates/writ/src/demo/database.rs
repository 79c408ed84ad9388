//! A throwaway PostgreSQL for the demo, where its programs are installed: a folder of its own, a port on loopback, gone with
//! its value. It knows how such a server is started and asked; what it is for is `login`'s.

use anyhow::{Context, bail, ensure};
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

/// Where distributions put the programs that are in nobody's `PATH`.
const PLACE: &str = "/usr/lib/postgresql";
/// The programs that are needed.
const PROGRAMS: [&str; 3] = ["initdb", "postgres", "psql"];
/// How long a start may take, in tenths of a second.
const START_TENTHS_MAX: u32 = 300;
/// Who runs it if we are root, whom PostgreSQL does not serve: the first that there is.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A server that runs.
pub(crate) struct Database {
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    process: Option<Child>,
}

impl Database {
    /// Starts one on this port.
    ///
    /// # Errors
    /// Why there is none, as one sentence for people.
    pub(super) async fn start(port: u16) -> anyhow::Result<Self> {
        let Some(bin) = programs() else {
            bail!("no PostgreSQL is installed here (initdb, postgres and psql, in PATH or in {PLACE}/*/bin)");
        };
        let folder = std::env::temp_dir().join(format!("writ-demo-database-{}", crate::system::random_text::<9>()));
        let mut database = Self { bin, folder, port, process: None };
        database.set_up().await.context("PostgreSQL is installed here, but one could not be started")?;
        Ok(database)
    }

    async fn set_up(&mut self) -> anyhow::Result<()> {
        crate::key_file::create_private_dir(&self.folder)?;
        let other = other_user()?;
        if let Some((uid, gid)) = other {
            chown(&self.folder, Some(uid), Some(gid))?;
        }
        let (data, port) = (self.folder.join("data"), self.port.to_string());
        let program = |name: &str| {
            let mut command = Command::new(self.bin.join(name));
            if let Some((uid, gid)) = other {
                command.uid(uid).gid(gid);
            }
            command.current_dir("/").env_clear().env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
            command
        };
        let mut initdb = program("initdb");
        initdb.args(["--no-sync", "--no-instructions", "--auth=trust", "--username=postgres", "--encoding=UTF8", "-D"]);
        let made = initdb.arg(&data).stderr(Stdio::piped()).output().await.context("initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr).trim());
        // Its own socket is the administrator's: nobody else can enter the folder. Over TCP there are passwords.
        fs::write(data.join("pg_hba.conf"), "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")?;
        let mut postgres = program("postgres");
        postgres.arg("-D").arg(&data).args(["-p", &port, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k"]);
        postgres.arg(&self.folder).stderr(Stdio::null()).kill_on_drop(true);
        self.process = Some(postgres.spawn().context("postgres")?);
        for _ in 0..START_TENTHS_MAX {
            if self.sql("postgres", "SELECT 1").await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("postgres did not answer in time")
    }

    /// The port on loopback.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// The client.
    pub(super) fn psql(&self) -> PathBuf {
        self.bin.join("psql")
    }

    /// Runs SQL as the administrator, and gives what psql printed.
    ///
    /// # Errors
    /// What psql said.
    pub(super) async fn sql(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(self.psql());
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", name, "-p", &self.port.to_string(), "-h"]);
        psql.arg(&self.folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = psql.spawn().context("psql")?;
        if let Some(mut input) = child.stdin.take() {
            // A client that stops at the first error closes its input: what it says counts.
            let _ = input.write_all(text.as_bytes()).await;
        }
        let output = child.wait_with_output().await.context("psql")?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Stops it and removes its folder.
    pub(super) async fn stop(mut self) {
        if let Some(mut process) = self.process.take() {
            let pid = process.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // At once and in good order: it tells its sessions (`immediate` in its own words).
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            }
            let _ = process.wait().await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The folder that has them all: of `PATH`, or the newest version's.
fn programs() -> Option<PathBuf> {
    let all = |folder: &PathBuf| PROGRAMS.iter().all(|name| folder.join(name).is_file());
    let path = crate::system::variable("PATH").unwrap_or_default();
    let of_path = std::env::split_paths(&path).find(all);
    of_path.or_else(|| {
        let versions = fs::read_dir(PLACE).into_iter().flatten().flatten();
        let number = |entry: &fs::DirEntry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        let mut found: Vec<_> = versions.filter_map(|entry| Some((number(&entry)?, entry.path().join("bin")))).collect();
        found.sort();
        found.into_iter().rev().map(|(_, bin)| bin).find(all)
    })
}

/// User and group to run it as; `None` if we are not root, and it is ours.
fn other_user() -> anyhow::Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = fs::read_to_string(Path::new("/etc/passwd")).context("/etc/passwd")?;
    let id = |name: &str| {
        let mut fields = users.lines().find(|line| line.split(':').next() == Some(name))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    let found = USERS.iter().find_map(|name| id(name));
    Ok(Some(found.context("PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`")?))
}
