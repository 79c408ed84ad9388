//! A real `kube-apiserver` with `etcd`, RBAC and nothing else: no controller and no node, so that what it enforces is its
//! own. No package carries the program; `e2e/kubernetes/run` builds it and says where it is.

use super::{Folder, find, free_port, missing};
use crate::peer::kubernetes::ADMIN;
use crate::peer::{Certificates, rsa_pem};
use serde_json::Value;
use std::ffi::OsString;
use std::process::{Child, Command, Stdio};

/// One server on loopback.
pub struct RealKubernetes {
    folder: Folder,
    program: OsString,
    etcd: u16,
    port: u16,
    ca_pem: String,
    processes: Vec<Child>,
}

impl RealKubernetes {
    /// Starts the one that `WRIT_KUBE_APISERVER` names; `None` if it names none.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start() -> Option<Self> {
        #[expect(clippy::disallowed_methods, reason = "where programs are is said by whoever runs the tests")]
        let program = std::env::var_os("WRIT_KUBE_APISERVER")?;
        let Some(etcd) = find("etcd") else {
            missing("etcd-server");
            return None;
        };
        let made = Certificates::make();
        let folder = Folder::own();
        let files = [
            ("ca.pem", made.ca_pem.clone()),
            ("server.pem", made.certificate_pem),
            ("server.key", made.key_pem),
            ("accounts.key", rsa_pem()),
            ("header", format!("authorization: Bearer {ADMIN}\n")),
            ("tokens.csv", format!("{ADMIN},admin,admin,\"system:masters\"\n")),
        ];
        for (name, content) in files {
            std::fs::write(folder.0.join(name), content).unwrap();
        }
        let (clients, peers) = (free_port(), free_port());
        let mut server = Self { folder, program, etcd: clients, port: free_port(), ca_pem: made.ca_pem, processes: Vec::new() };
        server.run(Command::new(etcd).args([
            "--data-dir=etcd".to_owned(),
            "--unsafe-no-fsync".to_owned(),
            format!("--listen-client-urls=http://127.0.0.1:{clients}"),
            format!("--advertise-client-urls=http://127.0.0.1:{clients}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-cluster=default=http://127.0.0.1:{peers}"),
        ]));
        server.serve(server.port);
        Some(server)
    }

    /// Starts another one before the same store, as clusters have several; its URL.
    ///
    /// # Panics
    /// It does not start.
    pub fn another(&mut self) -> String {
        let port = free_port();
        self.serve(port);
        url(port)
    }

    fn serve(&mut self, port: u16) {
        self.run(Command::new(&self.program).args([
            format!("--etcd-servers=http://127.0.0.1:{}", self.etcd),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--cert-dir=.".to_owned(),
            "--tls-cert-file=server.pem".to_owned(),
            "--tls-private-key-file=server.key".to_owned(),
            "--token-auth-file=tokens.csv".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            "--service-account-key-file=accounts.key".to_owned(),
            "--service-account-signing-key-file=accounts.key".to_owned(),
            // Without controllers nothing makes the account `default` that it would give to every pod.
            "--disable-admission-plugins=ServiceAccount".to_owned(),
        ]));
        self.ready(port);
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// The authority that signed its certificate, in PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Paths of all objects in the list at this path.
    ///
    /// # Panics
    /// There is no such list.
    #[must_use]
    pub fn below(&self, path: &str) -> Vec<String> {
        let output = self.curl(self.port, path).output().unwrap();
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let items = list.get("items").and_then(Value::as_array).unwrap();
        let name = |item: &Value| item.pointer("/metadata/name").and_then(Value::as_str).unwrap().to_owned();
        items.iter().map(|item| format!("{path}/{}", name(item))).collect()
    }

    /// A request of the administrator.
    fn curl(&self, port: u16, path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["-sf", "--max-time", "10", "-H"]).arg(format!("@{}", self.folder.0.join("header").display()));
        curl.arg("--cacert").arg(self.folder.0.join("ca.pem")).arg(format!("{}{path}", url(port)));
        curl
    }

    fn run(&mut self, command: &mut Command) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.0.join("log")).unwrap();
        let copy = log.try_clone().unwrap();
        self.processes.push(command.current_dir(&self.folder.0).stdin(Stdio::null()).stdout(log).stderr(copy).spawn().unwrap());
    }

    /// It lists, under `/readyz`, that its own roles are there, too.
    #[expect(clippy::disallowed_methods, reason = "a server of others does not say when it is ready")]
    fn ready(&self, port: u16) {
        let ask = || self.curl(port, "/readyz").output().is_ok_and(|output| output.status.success());
        let ready = (0..1_800).any(|_| {
            let ready = ask();
            if !ready {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            ready
        });
        assert!(ready, "{}", std::fs::read_to_string(self.folder.0.join("log")).unwrap_or_default());
    }
}

fn url(port: u16) -> String {
    format!("https://localhost:{port}")
}

impl Drop for RealKubernetes {
    fn drop(&mut self) {
        // The server first: without its store it would only complain.
        for process in self.processes.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
