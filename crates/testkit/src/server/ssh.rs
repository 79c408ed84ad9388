//! An SSH host that trusts one authority, with the files that Writ's helper works with.

use super::{Folder, find, free_port, missing, reachable, run};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A real sshd on a free loopback port. Everybody who has a certificate of the authority `ca` with the principal `role-web`
/// or `role-shell` may log in as the user who runs the test.
pub struct RealSshd {
    folder: Folder,
    port: u16,
    user: String,
    process: Child,
}

impl RealSshd {
    /// Starts one, or says that there is no OpenSSH. Its list of revoked keys (`host.krl`) is empty.
    #[must_use]
    pub fn start() -> Option<Self> {
        let programs = ["sshd", "ssh", "ssh-keygen"].map(find);
        let [Some(sshd), Some(_), Some(_)] = programs else {
            missing("openssh-server");
            return None;
        };
        let (folder, port) = (Folder::own(), free_port());
        let at = |name: &str| folder.0.join(name);
        let user = String::from_utf8(run(&mut Command::new("whoami")).stdout).unwrap().trim().to_owned();
        if user == "root" {
            // sshd as root wants it; the system's own service makes it at boot.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        Self::keygen(&at("ca"));
        Self::keygen(&at("host"));
        run(Command::new("ssh-keygen").args(["-q", "-k", "-f"]).arg(at("host.krl")));
        std::fs::write(at("principals"), "role-web\nrole-shell\n").unwrap();
        let public = std::fs::read_to_string(at("host.pub")).unwrap();
        std::fs::write(at("known_hosts"), format!("[127.0.0.1]:{port} {public}")).unwrap();
        let d = folder.0.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {d}/host\nTrustedUserCAKeys {d}/ca.pub\nRevokedKeys {d}/host.krl\n\
             AuthorizedPrincipalsFile {d}/principals\nAuthorizedKeysFile none\nExposeAuthInfo yes\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\nLogLevel INFO\n"
        );
        std::fs::write(at("sshd_config"), config).unwrap();
        let mut command = Command::new(sshd);
        command.args(["-D", "-f"]).arg(at("sshd_config")).arg("-E").arg(at("sshd.log"));
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        reachable("sshd", port);
        Some(Self { folder, port, user, process })
    }

    /// Makes a key without a passphrase.
    ///
    /// # Panics
    /// If `ssh-keygen` refuses.
    pub fn keygen(path: &std::path::Path) {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path));
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whom certificates log in as.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Its live sessions, a process each; empty if there is none.
    #[must_use]
    pub fn sessions(&self) -> String {
        let id = self.process.id();
        std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default().trim().to_owned()
    }

    /// A file of it: `ca`, `ca.pub`, `host.krl`, `known_hosts`, `principals`, `sshd.log`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }
}

impl Drop for RealSshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
