//! Tries a certificate at a real host with the system's `ssh`, as its holder would. Owns the temporary folder in which the
//! key lies for the length of one attempt, readable by us alone.

use crate::config::Section;
use authority::target::{Acceptance, Minted, TargetError};
use secrecy::ExposeSecret;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

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
            .args(["-p", &self.port.to_string(), "-l", field("user"), "--", &self.host, "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let output = tokio::time::timeout(within, command.output()).await;
        let output =
            output.map_err(|_| unreachable("no answer in time"))?.map_err(|error| unreachable(&format!("`ssh`: {error}")))?;
        // 255 is ssh's own; anything else is what the command on the host said, so that we were let in.
        if output.status.code().is_some_and(|code| code != 255) {
            return Ok(Acceptance::Accepted);
        }
        if String::from_utf8_lossy(&output.stderr).contains("Permission denied") {
            return Ok(Acceptance::Refused);
        }
        Err(unreachable("`ssh` could not connect or does not know the host's key"))
    }
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
