//! Real servers for tests: started in a temporary folder on a free loopback port, databases never as root, stopped again
//! when dropped. Knows nothing of Writ; a test that finds no server program skips loudly, or fails if
//! `WRIT_REQUIRE_SERVICES` is set.

mod kubernetes;
mod redis;
mod ssh;
mod tls;

pub use kubernetes::RealKubernetes;
pub use redis::RealRedis;
pub use ssh::RealSshd;
pub use tls::RealTls;

use std::fs::File;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;

/// A folder that is removed again.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    /// A new one that only `user` can enter.
    fn of(user: &str) -> Self {
        let folder = Self::own();
        if is_root() {
            run(Command::new("chown").arg(user).arg(&folder.0));
        }
        folder
    }

    /// A new one that only we can enter.
    pub(crate) fn own() -> Self {
        let output = Command::new("mktemp").args(["-d", "/tmp/writ-test.XXXXXXXX"]).output().unwrap();
        let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
        assert!(path.is_absolute(), "no temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.starts_with(b"0"))
}

/// Ports that tests take: below those that the system gives to outgoing connections, one of which could have it next.
const PORTS: Range<u16> = 10_000..30_000;

/// A free port that no other test gets, of this process or another, as long as this process lives.
///
/// # Panics
/// There is none.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let user = String::from_utf8(run(Command::new("id").arg("-u")).stdout).unwrap();
    let folder = std::env::temp_dir().join(format!("writ-test-ports-{}", user.trim()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut taken = TAKEN.lock().unwrap();
    // Processes begin at different places, so that they seldom meet.
    let first = usize::try_from(std::process::id()).unwrap() * 97 + taken.len();
    let mut candidates = PORTS.cycle().skip(first % PORTS.len()).take(PORTS.len());
    let (port, lock) = candidates
        .find_map(|port| {
            let lock = File::create(folder.join(port.to_string())).unwrap();
            let free = lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok();
            free.then_some((port, lock))
        })
        .unwrap();
    taken.push(lock);
    port
}

fn run(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The same program, run as `user` if we are root.
fn as_user(user: &str, program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", user, "--regid", user, "--clear-groups", "--"]).arg(program).env("HOME", "/nonexistent");
    command
}

/// Says that a test does not run, or fails if it must.
fn missing(what: &str) {
    #[expect(clippy::disallowed_methods, reason = "whether services must be there is said by whoever runs the tests")]
    let required = std::env::var_os("WRIT_REQUIRE_SERVICES").is_some();
    assert!(!required, "{what} is not installed, and WRIT_REQUIRE_SERVICES is set");
    eprintln!("SKIPPED: {what} is not installed");
}

/// Where a program is: sshd wants its whole path, and its folder is not in everybody's.
fn find(program: &str) -> Option<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "where programs are is the machine's to say")]
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// Waits until a server that was just started listens.
#[expect(clippy::disallowed_methods, reason = "a server of others does not say when it listens")]
fn reachable(what: &str, port: u16) {
    let listens = (0..1_000).any(|_| {
        let open = TcpStream::connect(("127.0.0.1", port)).is_ok();
        if !open {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        open
    });
    assert!(listens, "{what} does not listen");
}

/// All that a program said, errors first.
fn answered(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stderr), text(&output.stdout)).trim().to_owned()
}

/// What a client program said: its output, or its error output.
fn answer(command: &mut Command, input: &str) -> Result<String, String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A client that stops at the first error closes its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// A PostgreSQL cluster. Over TCP it wants SCRAM passwords; its own socket is the administrator's (`postgres`).
pub struct RealPostgresql {
    folder: Folder,
    bin: PathBuf,
    port: u16,
}

impl RealPostgresql {
    /// Starts one, or says that there is no PostgreSQL.
    #[must_use]
    pub fn start() -> Option<Self> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let Some(bin) = versions.map(|entry| entry.path().join("bin")).find(|bin| bin.join("initdb").exists()) else {
            missing("postgresql");
            return None;
        };
        let server = Self { folder: Folder::of("postgres"), bin, port: free_port() };
        let data = server.data();
        let mut initdb = as_user("postgres", &server.bin.join("initdb"));
        run(initdb.args(["--no-sync", "--no-instructions", "-U", "postgres", "-A", "trust", "-D"]).arg(&data));
        let settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\nmax_connections = 200\n",
            server.port,
            server.folder.0.display()
        );
        std::fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.conf"))
            .unwrap()
            .write_all(settings.as_bytes())
            .unwrap();
        let doors = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(data.join("pg_hba.conf"), doors).unwrap();
        server.up();
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.0.join("data")
    }

    /// Starts the server again after [`Self::down`].
    pub fn up(&self) {
        let mut start = as_user("postgres", &self.bin.join("pg_ctl"));
        run(start
            .args(["start", "-w", "-s", "-D"])
            .arg(self.data())
            .arg("-l")
            .arg(self.folder.0.join("log"))
            .stdout(Stdio::null()));
    }

    /// Stops it as a power failure would.
    pub fn down(&self) {
        run(as_user("postgres", &self.bin.join("pg_ctl")).args(["stop", "-w", "-s", "-m", "immediate", "-D"]).arg(self.data()));
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the administrator's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.folder.0
    }

    /// Runs SQL as the administrator with the unmodified `psql`; rows come unaligned, fields separated by `|`.
    ///
    /// # Errors
    /// What psql wrote to its error output.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-U", "postgres", "-d", database, "-h"]);
        answer(psql.arg(self.socket()).arg("-p").arg(self.port.to_string()), sql)
    }

    /// The same as a user with a password over TCP.
    ///
    /// # Errors
    /// What psql wrote to its error output.
    pub fn psql_as(&self, user: &str, password: &str, database: &str, sql: &str) -> Result<String, String> {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-h", "127.0.0.1", "-U", user, "-d", database]);
        answer(psql.arg("-p").arg(self.port.to_string()).env("PGPASSWORD", password), sql)
    }
}

impl Drop for RealPostgresql {
    fn drop(&mut self) {
        let mut stop = as_user("postgres", &self.bin.join("pg_ctl"));
        let _ = stop.args(["stop", "-w", "-s", "-m", "immediate", "-D"]).arg(self.data()).output();
    }
}

/// A MariaDB server. Over TCP it wants passwords; its own socket is the administrator's (`root`, to whoever runs the test).
pub struct RealMariadb {
    folder: Folder,
    port: u16,
    process: std::cell::RefCell<Option<std::process::Child>>,
}

impl RealMariadb {
    /// Starts one, or says that there is no MariaDB.
    #[must_use]
    pub fn start() -> Option<Self> {
        if !Path::new("/usr/sbin/mariadbd").exists() {
            missing("mariadb-server");
            return None;
        }
        let server = Self { folder: Folder::of("mysql"), port: free_port(), process: std::cell::RefCell::default() };
        let mut install = as_user("mysql", Path::new("/usr/bin/mariadb-install-db"));
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        // Servers that share a folder for temporary tables delete each other's.
        install.arg(format!("--tmpdir={}", server.folder.0.display()));
        run(install.arg(format!("--datadir={}", server.folder.0.join("data").display())).stdout(Stdio::null()));
        server.up();
        // The administrator has no password on a fresh server: nobody may log in as such over TCP.
        let close =
            "DROP USER IF EXISTS root@'127.0.0.1', root@'::1'; DELETE FROM mysql.global_priv WHERE User = ''; FLUSH PRIVILEGES;";
        server.sql(close).unwrap();
        Some(server)
    }

    /// Starts the server again after [`Self::down`].
    pub fn up(&self) {
        let path = &self.folder.0;
        let mut command = as_user("mysql", Path::new("/usr/sbin/mariadbd"));
        command.args([
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--event-scheduler=ON",
            "--skip-log-bin",
            "--skip-name-resolve",
        ]);
        command.args(["--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=16M"]);
        command.arg(format!("--tmpdir={}", path.display()));
        command.arg(format!("--datadir={}", path.join("data").display())).arg(format!("--port={}", self.port));
        command.arg(format!("--socket={}", path.join("s").display())).arg(format!("--pid-file={}", path.join("pid").display()));
        let log = std::fs::File::create(path.join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        *self.process.borrow_mut() = Some(child);
        // It says that it listens only in its log; asking is simpler, and each question is a process that takes its time.
        let up = (0..1_000).any(|_| self.sql("SELECT 1").is_ok());
        assert!(up, "{}", std::fs::read_to_string(path.join("log")).unwrap_or_default());
    }

    /// Stops it as a power failure would.
    pub fn down(&self) {
        if let Some(mut child) = self.process.borrow_mut().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL as the administrator with the unmodified `mariadb` client; rows come with tabs between their fields.
    ///
    /// # Errors
    /// What the client wrote to its error output.
    pub fn sql(&self, sql: &str) -> Result<String, String> {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-N", "-B", "-u", "root"]).arg(format!("--socket={}", self.folder.0.join("s").display()));
        answer(&mut client, sql)
    }

    /// The same as a user with a password over TCP.
    ///
    /// # Errors
    /// What the client wrote to its error output.
    pub fn sql_as(&self, user: &str, password: &str, sql: &str) -> Result<String, String> {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-N", "-B", "-h", "127.0.0.1", "-u", user]).arg(format!("--port={}", self.port));
        answer(client.env("MYSQL_PWD", password), sql)
    }
}

impl Drop for RealMariadb {
    fn drop(&mut self) {
        self.down();
    }
}
