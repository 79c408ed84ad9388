//! A Redis node with the one user that the gate of Writ has there.

use super::{Folder, answered, find, free_port, missing, reachable, run};
use std::cell::RefCell;
use std::process::{Child, Command, Stdio};

/// A Redis server on a free loopback port. Its default user is the administrator; `writ_gate` may change users.
pub struct RealRedis {
    _folder: Folder,
    port: u16,
    process: RefCell<Child>,
}

impl RealRedis {
    /// The password of `writ_gate`.
    pub const GATE_PASSWORD: &'static str = "the administrator's own password";

    /// Starts one, or says that there is no Redis.
    #[must_use]
    pub fn start() -> Option<Self> {
        let Some(program) = find("redis-server").filter(|_| find("redis-cli").is_some()) else {
            missing("redis-server");
            return None;
        };
        let (folder, port) = (Folder::own(), free_port());
        let rights = "-@all +acl|setuser +acl|deluser +acl|users +acl|getuser +client|list";
        let config = format!(
            "port {port}\nbind 127.0.0.1\nsave \"\"\nappendonly no\nprotected-mode no\nuser writ_gate on #{} {rights}\n",
            Self::sha256(Self::GATE_PASSWORD)
        );
        let file = folder.0.join("redis.conf");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(program);
        let process = command.arg(file).arg("--dir").arg(&folder.0).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let server = Self { _folder: folder, port, process: RefCell::new(process) };
        reachable("redis-server", port);
        Some(server)
    }

    /// What Redis and the gate know of a password.
    #[must_use]
    pub fn sha256(text: &str) -> String {
        let output = run(Command::new("sh").args(["-c", "printf %s \"$1\" | sha256sum | cut -d' ' -f1", "sh", text]));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its process: to be stopped and continued.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.borrow().id()
    }

    /// What the unmodified `redis-cli` says to a command of the administrator; errors too.
    #[must_use]
    pub fn cli(&self, words: &[&str]) -> String {
        self.cli_as("", "", words)
    }

    /// The same as a user.
    #[must_use]
    pub fn cli_as(&self, user: &str, password: &str, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--no-auth-warning", "-2"]);
        if !user.is_empty() {
            command.args(["--user", user]).env("REDISCLI_AUTH", password);
        }
        // After a refused login redis-cli says so, and goes on as nobody: what it says is all that counts.
        answered(command.args(words))
    }
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        let mut process = self.process.borrow_mut();
        let _ = process.kill();
        let _ = process.wait();
    }
}
