//! An HTTPS server that lets in holders of client certificates and checks revocation lists, and the root of its authorities.

use super::{Folder, find, free_port, is_root, missing, reachable, run};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A root authority, and a real nginx in front of which everybody is refused until [`Self::open_doors`].
pub struct RealTls {
    folder: Folder,
    port: u16,
    process: Option<Child>,
}

impl RealTls {
    /// Makes the root (`root.key`, `root.pem`) and a server certificate for `localhost` (`server.pem`), or says what is missing.
    #[must_use]
    pub fn prepare() -> Option<Self> {
        let Some(openssl) = find("openssl").filter(|_| find("nginx").is_some()) else {
            missing("openssl or nginx");
            return None;
        };
        let server = Self { folder: Folder::own(), port: free_port(), process: None };
        let new_key = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1";
        let names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE";
        std::fs::write(server.path("index.txt"), "").unwrap();
        std::fs::write(server.path("number"), "01\n").unwrap();
        let config = "[ca]\ndefault_ca = root\n[root]\ndatabase = index.txt\ncrlnumber = number\ndefault_md = sha256\n";
        std::fs::write(server.path("ca.cnf"), config).unwrap();
        for arguments in [
            format!("{new_key} -keyout root.key -out root.pem -subj /CN=root"),
            format!("{new_key} -keyout server.key -out server.pem {names}"),
            // A server that checks lists wants one of every authority of the chain.
            "ca -gencrl -config ca.cnf -keyfile root.key -cert root.pem -crldays 2 -out root.crl".to_owned(),
        ] {
            run(Command::new(&openssl).current_dir(&server.folder.0).args(arguments.split(' ')));
        }
        Some(server)
    }

    /// Starts nginx: it trusts the root and its `intermediate`, and reads the list `crl`.
    ///
    /// # Panics
    /// If nginx does not start.
    pub fn open_doors(&mut self, intermediate: &Path, crl: &Path) {
        let [root, ours] = [self.path("root.pem"), intermediate.to_owned()].map(|path| std::fs::read(path).unwrap());
        std::fs::write(self.path("chain.pem"), [root, ours].concat()).unwrap();
        self.copy_list(crl);
        let (d, port) = (self.folder.0.display(), self.port);
        let user = if is_root() { "user root;" } else { "" };
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {d}/{name};\n"))
            .collect();
        let config = format!(
            "{user} worker_processes 1; daemon off; pid {d}/pid; error_log {d}/error.log;\nevents {{}}\nhttp {{\n{temporary}\
             access_log off; keepalive_timeout 600;\nserver {{\nlisten 127.0.0.1:{port} ssl;\n\
             ssl_certificate {d}/server.pem; ssl_certificate_key {d}/server.key;\n\
             ssl_client_certificate {d}/chain.pem; ssl_verify_client on; ssl_verify_depth 2; ssl_crl {d}/list.crl;\n\
             location / {{ return 200 \"come in\\n\"; }}\n}} }}\n"
        );
        std::fs::write(self.path("nginx.conf"), config).unwrap();
        self.process = Some(self.nginx().stdin(Stdio::null()).spawn().unwrap());
        reachable("nginx", port);
    }

    /// What its operator does when a new list is there: nginx reads it, and its old workers close what is idle and end.
    pub fn reload(&self, crl: &Path) {
        self.copy_list(crl);
        run(self.nginx().args(["-s", "reload"]));
    }

    fn nginx(&self) -> Command {
        let mut command = Command::new(find("nginx").unwrap());
        command.arg("-p").arg(&self.folder.0).arg("-c").arg(self.path("nginx.conf")).arg("-e").arg(self.path("error.log"));
        command
    }

    fn copy_list(&self, crl: &Path) {
        let [root, ours] = [self.path("root.crl"), crl.to_owned()].map(|path| std::fs::read(path).unwrap_or_default());
        std::fs::write(self.path("list.crl"), [root, ours].concat()).unwrap();
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its folder, which has the root's key and certificate.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder.0
    }

    /// A file in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }
}

impl Drop for RealTls {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // Its workers end with it only if it is told so in good order.
        let _ = self.nginx().args(["-s", "stop"]).stderr(Stdio::null()).status();
        let _ = process.wait();
    }
}
