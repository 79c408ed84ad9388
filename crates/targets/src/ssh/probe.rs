//! Tries a certificate at a real host with the system's `ssh`, as its holder would, up to the point at which it is let in. It asks
//! for no session, so that the certificate's command does not run: nobody decided that it should. Owns the temporary folder in
//! which the key lies for the length of one attempt, readable by us alone.

use crate::config::Section;
use authority::target::{Acceptance, Minted, TargetError};
use secrecy::ExposeSecret;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Most bytes that are read of what the client says.
const SAID_BYTES_MAX: u64 = 64 * 1_024;

/// Where certificates are tried.
#[derive(Debug)]
pub(super) struct Probe {
    host: String,
    port: u16,
    known_hosts: PathBuf,
    folder: PathBuf,
}

impl Probe {
    pub(super) fn read(connect: &Section<'_>) -> Option<Self> {
        let section = connect.section("probe")?;
        let host = section.text("host", "web-1.internal");
        if host.starts_with('-') {
            section.fault("host", "a host name does not begin with `-`", "");
        }
        let known_hosts = section.path_if("known_hosts").unwrap_or_else(|| {
            section.fault(
                "known_hosts",
                "`known_hosts` is missing",
                "a file with the host's key: ssh-keyscan HOST > known_hosts",
            );
            PathBuf::new()
        });
        let folder = section.path_if("folder").unwrap_or_else(|| PathBuf::from("/tmp"));
        Some(Self { host, port: section.port("port", 22), known_hosts, folder })
    }

    pub(super) async fn run(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        let field = |name: &str| minted.fields.get(name).map(String::as_str).unwrap_or_default();
        let Some(key) = minted.secrets.get("private_key") else {
            return Err(TargetError::Unacceptable("only a certificate whose key Writ made can be tried".to_owned()));
        };
        let folder = Folder::make(&self.folder, field("serial"))?;
        let (key_file, certificate_file) = (folder.0.join("key"), folder.0.join("key-cert.pub"));
        write(&key_file, key.expose_secret())?;
        write(&certificate_file, &format!("{}\n", field("certificate")))?;
        let option = |name: &str, value: &Path| format!("-o{name}={}", value.display());
        let mut command = tokio::process::Command::new("ssh");
        command
            .args([
                "-F",
                "/dev/null",
                "-oBatchMode=yes",
                "-oIdentitiesOnly=yes",
                "-oStrictHostKeyChecking=yes",
                "-oIdentityAgent=none",
            ])
            .args([option("UserKnownHostsFile", &self.known_hosts), option("IdentityFile", &key_file)])
            .arg(option("CertificateFile", &certificate_file))
            .arg(format!("-oConnectTimeout={}", within.as_secs().max(1)))
            .args(["-oLogLevel=VERBOSE", "-N", "-p", &self.port.to_string(), "-l", field("user"), "--", &self.host])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut ssh = command.spawn().map_err(|error| unreachable(&format!("`ssh`: {error}")))?;
        let answer = match ssh.stderr.take() {
            Some(said) => tokio::time::timeout(within, heard(said)).await,
            None => Ok(None),
        };
        // It stays for as long as nobody ends it. Gone already is as good.
        let _gone = ssh.start_kill();
        let _status = ssh.wait().await;
        let unclear = || unreachable("`ssh` could not connect or does not know the host's key");
        answer.map_err(|_| unreachable("no answer in time"))?.ok_or_else(unclear)
    }
}

/// What the client says of its attempt; `None` if it was neither let in nor refused.
async fn heard(said: impl AsyncRead + Unpin) -> Option<Acceptance> {
    let mut lines = BufReader::new(said.take(SAID_BYTES_MAX)).split(b'\n');
    let mut refused = false;
    // What cannot be read says nothing.
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        if line.starts_with("Authenticated to ") {
            return Some(Acceptance::Accepted);
        }
        refused |= line.contains("Permission denied");
    }
    refused.then_some(Acceptance::Refused)
}

fn unreachable(text: &str) -> TargetError {
    TargetError::Unreachable(text.to_owned())
}

/// A folder of our own, gone with the attempt.
struct Folder(PathBuf);

impl Folder {
    fn make(within: &Path, serial: &str) -> Result<Self, TargetError> {
        let path = within.join(format!("writ-probe-{}-{serial}", std::process::id()));
        // Fails if somebody made it before us.
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map(|()| Self(path)).map_err(|error| unreachable(&format!("a folder for the probe: {error}")))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, "the folder of a probe is still there");
        }
    }
}

fn write(path: &Path, text: &str) -> Result<(), TargetError> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| unreachable(&format!("the probe's files: {error}")))
}
