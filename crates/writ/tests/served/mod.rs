//! A server of its own for each test, and the commands that talk to it. Not every test file uses all of it.
#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(unreachable_pub, reason = "a module of test files")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server over a fresh folder, whose tasks for tickets may be silent for two seconds only.
pub struct Server {
    /// Its folder.
    pub dir: tempfile::TempDir,
    /// Its process.
    pub process: Child,
}

impl Server {
    /// A server as `init` configures it.
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The same after a change of the folder, with further environment.
    pub fn start_with(change: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        assert!(permissive(dir.path(), &["init", "."]).output().unwrap().status.success());
        // Taken and given back: free at this moment.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        edit(&dir.path().join("writ.toml"), "127.0.0.1:8700", &format!("127.0.0.1:{port}"));
        edit(&dir.path().join("policy/intents/answer-ticket.toml"), "idle_secs = 300", "idle_secs = 2");
        change(dir.path());
        let (process, serving) = serve(dir.path(), |_| {});
        assert!(serving, "the server did not start: {}", fs::read_to_string(dir.path().join("serve.log")).unwrap());
        Self { dir, process }
    }

    /// `writ exec` as support-bot.
    pub fn exec<'a>(&self, intent: &[&'a str], rest: &[&'a str]) -> Command {
        let args = [&["exec", "--dev", "support-bot", "--intent"], intent, rest].concat();
        command(self.dir.path(), &args)
    }

    /// The newest task.
    pub fn task(&self) -> Value {
        let output = writ(self.dir.path(), &["task", "list", "--limit", "1", "--json"]);
        let page: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        page.pointer("/items/0").cloned().unwrap_or_default()
    }

    /// Waits until the newest task is so.
    pub fn until(&self, what: &str, so: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let task = self.task();
            if so(&task) {
                return task;
            }
            assert!(start.elapsed() < PATIENCE, "{what}: {task:#}");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `writ serve` in this folder, changed; what it says is added to `serve.log` there. Also says whether it serves.
pub fn serve(dir: &Path, change: impl FnOnce(&mut Command)) -> (Child, bool) {
    let mut command = permissive(dir, &["serve"]);
    change(command.stderr(Stdio::piped()));
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut log = fs::OpenOptions::new().create(true).append(true).open(dir.join("serve.log")).unwrap();
    let mut keep = move |line: &str| writeln!(log, "{line}").unwrap();
    let serving = lines.by_ref().inspect(|line| keep(line)).any(|line| line.contains("serving"));
    // Keep reading, so that the server never waits for us.
    std::thread::spawn(move || lines.for_each(|line| keep(&line)));
    (process, serving)
}

/// See its name.
pub fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_writ"));
    command.args(args).current_dir(dir).env_remove("WRIT_CONFIG").env_remove("WRIT_SERVER");
    command
}

/// The same under the umask that hides nothing, which must not matter.
pub fn permissive(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"${PROGRAM:-$0}\" \"$@\"", env!("CARGO_BIN_EXE_writ")]).args(args);
    command.current_dir(dir).env_remove("WRIT_CONFIG").env_remove("WRIT_SERVER");
    command
}

/// See its name.
pub fn writ(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().unwrap()
}

/// See its name.
pub fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from));
    fs::write(path, text.replace(from, to)).unwrap();
}

/// See its name.
pub fn text<'a>(task: &'a Value, member: &str) -> &'a str {
    task.get(member).and_then(Value::as_str).unwrap_or_default()
}
