//! The small helper on a host: fetches the revocation list, puts it in place whole, and ends the sessions of revoked
//! certificates. Owns those two duties and holds no secret: it can only take access away. It runs as root, because it ends
//! sessions of others; it never opens a port and never changes sshd's configuration.

mod sessions;

pub use sessions::{Login, Logins};

use super::krl::{KRL_BYTES_MAX, Krl, NotAKrl};
use crate::https::{Https, Place};
use crate::publish::replace;
use http::{HeaderMap, Method, StatusCode};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the helper is told.
#[derive(Debug, Clone)]
pub struct HostSettings {
    /// Where the list is: `https://…`, `http://` on loopback, or an absolute path.
    pub from: String,
    /// Certificates to trust instead of the public roots, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// The file of sshd's `RevokedKeys`.
    pub krl_file: PathBuf,
    /// The file that sshd logs to (`sshd -E FILE`, or the file of a syslog that only root writes).
    pub auth_log: PathBuf,
}

/// Why a round was not done as a whole.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The list could not be fetched; the old one stays.
    #[error("the list cannot be fetched: {0}")]
    Fetch(String),
    /// What was fetched is no list; the old one stays, because a broken one locks everybody out.
    #[error("what was fetched is refused: {0}")]
    NotAKrl(#[from] NotAKrl),
    /// It is older than the one in place.
    #[error("the list has number {got}, and number {have} is in place: refused as a replay")]
    Older {
        /// Of the one that was fetched.
        got: u64,
        /// Of the one in place.
        have: u64,
    },
    /// A file or a process could not be read or changed.
    #[error("`{0}`: {1}")]
    System(PathBuf, std::io::Error),
    /// A setting is wrong.
    #[error("{0}")]
    Setting(String),
}

/// What one round did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// The number of the list in place.
    pub number: u64,
    /// How many certificates it revokes.
    pub revoked: usize,
    /// How many sessions were ended.
    pub sessions: usize,
    /// How many processes were killed for that.
    pub processes: usize,
}

enum From {
    Server(Box<Https>),
    File(PathBuf),
}

/// The helper.
pub struct Host {
    from: From,
    krl_file: PathBuf,
    logins: Logins,
}

impl Host {
    /// The helper with these settings.
    ///
    /// # Errors
    /// [`HostError::Setting`].
    pub fn new(settings: HostSettings) -> Result<Self, HostError> {
        let from = if settings.from.starts_with('/') {
            From::File(PathBuf::from(settings.from))
        } else {
            let place =
                Place { url: settings.from, ca_pem: settings.ca_pem, allow_http: false, timeout: Duration::from_secs(10) };
            From::Server(Box::new(Https::new(&place).map_err(|(key, message)| HostError::Setting(format!("{key}: {message}")))?))
        };
        Ok(Self { from, krl_file: settings.krl_file, logins: Logins::new(settings.auth_log) })
    }

    /// Fetches, installs, and ends what is revoked. Sessions are also ended by the list in place when fetching failed.
    ///
    /// # Errors
    /// The first thing that failed, after everything that could be done was done.
    pub async fn round(&mut self) -> Result<Round, HostError> {
        let fetched = match self.fetch().await {
            Ok(bytes) => self.install(&bytes),
            Err(error) => Err(error),
        };
        let krl = match &fetched {
            Ok(krl) => krl.clone(),
            Err(_) => Krl::decode(&read(&self.krl_file)?)?,
        };
        // What was read of it before is known still.
        let mut done = self.logins.follow();
        let (mut sessions, mut processes) = (0, 0);
        for login in self.logins.of(&krl.serials) {
            match sessions::end(&login) {
                Ok(ended) => {
                    sessions += usize::from(ended > 0);
                    processes += ended;
                }
                Err(error) => done = done.and(Err(error)),
            }
        }
        let krl = fetched?;
        done.map(|()| Round { number: krl.number, revoked: krl.serials.len(), sessions, processes })
    }

    async fn fetch(&self) -> Result<Vec<u8>, HostError> {
        let server = match &self.from {
            From::File(path) => return read(path),
            From::Server(server) => server,
        };
        let answer = server.send(Method::GET, "", HeaderMap::new(), Vec::new()).await;
        let answer = answer.map_err(|error| HostError::Fetch(error.to_string()))?;
        if answer.status == StatusCode::OK {
            Ok(answer.body.to_vec())
        } else {
            Err(HostError::Fetch(format!("status {}", answer.status)))
        }
    }

    /// INVARIANT(krl-forward): a list in place is replaced only by a whole one that is not older.
    fn install(&self, bytes: &[u8]) -> Result<Krl, HostError> {
        let fetched = Krl::decode(bytes)?;
        match read(&self.krl_file) {
            Ok(current) if current == bytes => return Ok(fetched),
            // One that sshd cannot use is replaced by any that it can.
            Ok(current) => {
                if let Some(current) = Krl::decode(&current).ok().filter(|current| current.number > fetched.number) {
                    return Err(HostError::Older { got: fetched.number, have: current.number });
                }
            }
            Err(HostError::System(_, error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        replace(&self.krl_file, bytes).map_err(|error| HostError::System(self.krl_file.clone(), error))?;
        Ok(fetched)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, HostError> {
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that the reader of the list sees that it is too large.
    let most = u64::try_from(KRL_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let read = std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| HostError::System(path.to_owned(), error))
}
