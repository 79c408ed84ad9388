//! OpenBao's database engine, the peer: started as a process of its own, spoken to over kept HTTP/1.1 connections. Twice:
//! as it is in production, with its storage and its audit log on a disk, and in development mode, with neither.

use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An OpenBao.
pub(crate) struct Bao {
    process: Child,
    port: u16,
    token: String,
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Bao {
    /// In development mode: everything in memory, no audit. `None` if there is no such program.
    pub(crate) async fn in_memory(binary: &Path, database: u16) -> Option<Self> {
        let port = free_port();
        let mut command = Command::new(binary);
        command
            .args(["server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        let bao = Self { process: spawn(command)?, port, token: "root".to_owned() };
        bao.configured(database).await
    }

    /// With Raft storage and an audit file in this folder, as its documentation wants it in production. `None` likewise.
    pub(crate) async fn on_disk(binary: &Path, database: u16, folder: &Path) -> Option<Self> {
        let (port, cluster) = (free_port(), free_port());
        std::fs::create_dir_all(folder.join("raft")).ok()?;
        let config = json!({
            "storage": { "raft": { "path": folder.join("raft"), "node_id": "one" } },
            "listener": { "tcp": { "address": format!("127.0.0.1:{port}"), "tls_disable": true } },
            "api_addr": format!("http://127.0.0.1:{port}"),
            "cluster_addr": format!("http://127.0.0.1:{cluster}"),
            "audit": [{ "type": "file", "path": "file", "options": { "file_path": folder.join("audit.log") } }],
        });
        let file = folder.join("bao.json");
        std::fs::write(&file, config.to_string()).ok()?;
        let mut command = Command::new(binary);
        command.arg("server").arg("-config").arg(&file);
        let mut bao = Self { process: spawn(command)?, port, token: String::new() };
        let keys = loop {
            let shares = r#"{"secret_shares":1,"secret_threshold":1}"#;
            match bao.call(None, "PUT", "/v1/sys/init", shares).await {
                Some(keys) => break keys,
                None => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        let unseal = json!({ "key": keys.pointer("/keys_base64/0") }).to_string();
        bao.call(None, "PUT", "/v1/sys/unseal", &unseal).await.unwrap();
        bao.token = keys.get("root_token").and_then(Value::as_str).unwrap().to_owned();
        bao.configured(database).await
    }

    async fn configured(self, database: u16) -> Option<Self> {
        let bao = self;
        while bao.call(None, "GET", "/v1/sys/health", "").await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bao.call(None, "POST", "/v1/sys/mounts/database", r#"{"type":"database"}"#).await.unwrap();
        let config = format!(
            r#"{{"plugin_name":"postgresql-database-plugin","allowed_roles":"r","username":"bao_admin","password":"bao-password","max_open_connections":16,"connection_url":"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{database}/orders?sslmode=disable"}}"#
        );
        bao.call(None, "POST", "/v1/database/config/pg", &config).await.unwrap();
        let role = r#"{"db_name":"pg","default_ttl":"1h","max_ttl":"1h","creation_statements":["CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT orders_read TO \"{{name}}\";"]}"#;
        bao.call(None, "POST", "/v1/database/roles/r", role).await.unwrap();
        Some(bao)
    }

    /// A connection to keep.
    pub(crate) async fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    }

    /// One HTTP/1.1 exchange: the answer, `Null` if it is empty; `None` if there is none or it is no success.
    pub(crate) async fn call(&self, kept: Option<&mut TcpStream>, method: &str, path: &str, body: &str) -> Option<Value> {
        let mut own = None;
        let stream = match kept {
            Some(stream) => stream,
            None => own.insert(self.connect().await?),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bao\r\nX-Vault-Token: {}\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        let mut part = [0; 4_096];
        loop {
            let read = stream.read(&mut part).await.ok()?;
            answer.extend_from_slice(part.get(..read)?);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length =
                    head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    return text.starts_with("HTTP/1.1 2").then(|| serde_json::from_str(body).unwrap_or_default());
                }
            }
            if read == 0 {
                return None;
            }
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(mut command: Command) -> Option<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}
