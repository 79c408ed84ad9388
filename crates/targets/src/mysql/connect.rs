//! Connections to a MariaDB server, and what its errors mean for us. Owns the two pools, so that issuing and taking back
//! cannot starve each other; knows no statement. No text that the server wrote leaves this module.

use crate::config::Secret;
use authority::target::TargetError;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::ConnectOptions as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most connections for issuing. How many are used at once is bounded by the target's own budget (`[limits]`).
pub(super) const ISSUE_POOL: u32 = 16;
/// Most connections for taking back.
pub(super) const END_POOL: u32 = 8;
/// How long a connection may take to come up, or to become free.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take. Not told to the server: account statements are no transactions, and a call that is cut in
/// the middle leaves more to mend than one that is merely not waited for.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// "Access denied, this account is locked".
const ER_ACCOUNT_HAS_BEEN_LOCKED: u16 = 4_151;

/// Where the server is, who we are there, and how the way is protected.
#[derive(Clone)]
pub(super) struct At {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: Option<String>,
    pub(super) user: String,
    pub(super) tls: Tls,
    /// PEM of who may sign the server's certificate. No public authority is ever trusted beside it.
    pub(super) ca: Option<Vec<u8>>,
}

/// How the connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tls {
    /// Certificate and name are checked.
    VerifyFull,
    /// The certificate is checked, the name is not.
    VerifyCa,
    /// Not at all: only on this machine.
    Off,
}

impl Tls {
    /// What a client has to do, as it is told.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::VerifyFull => "verify",
            Self::VerifyCa => "verify-ca",
            Self::Off => "off",
        }
    }
}

impl At {
    /// Options for one login.
    pub(super) fn login(&self, user: &str, password: Option<&SecretString>) -> MySqlConnectOptions {
        let mode = match self.tls {
            Tls::VerifyFull => MySqlSslMode::VerifyIdentity,
            Tls::VerifyCa => MySqlSslMode::VerifyCa,
            Tls::Off => MySqlSslMode::Disabled,
        };
        let mut options = MySqlConnectOptions::new().host(&self.host).port(self.port).username(user).ssl_mode(mode);
        if let Some(password) = password {
            options = options.password(password.expose_secret());
        }
        if let Some(pem) = &self.ca {
            options = options.ssl_ca_from_pem(pem.clone());
        }
        options.disable_statement_logging()
    }
}

/// The pools of our account.
pub(super) struct Pools {
    at: At,
    password: Secret,
    issue: Mutex<Option<MySqlPool>>,
    end: Mutex<Option<MySqlPool>>,
}

impl Pools {
    /// None is connected yet.
    pub(super) const fn new(at: At, password: Secret) -> Self {
        Self { at, password, issue: Mutex::new(None), end: Mutex::new(None) }
    }

    /// Connections for issuing.
    pub(super) fn issue(&self) -> Result<MySqlPool, TargetError> {
        self.pool(&self.issue, ISSUE_POOL)
    }

    /// Connections for everything else.
    pub(super) fn end(&self) -> Result<MySqlPool, TargetError> {
        self.pool(&self.end, END_POOL)
    }

    fn pool(&self, slot: &Mutex<Option<MySqlPool>>, size: u32) -> Result<MySqlPool, TargetError> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = slot.as_ref() {
            return Ok(pool.clone());
        }
        let password = self.password.read()?;
        let options = MySqlPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(1_800));
        let pool = options.connect_lazy_with(self.at.login(&self.at.user, Some(&password)));
        *slot = Some(pool.clone());
        drop(slot);
        Ok(pool)
    }

    /// What an error means. A login that was refused makes the next call read the password anew: it may have been changed.
    pub(super) fn failed(&self, error: &sqlx::Error) -> TargetError {
        if is_login_refused(error) {
            for slot in [&self.issue, &self.end] {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        classify(error)
    }

    /// Waits for a call, and says what its error means.
    pub(super) async fn call<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, TargetError> {
        within(CALL_TIMEOUT, work).await?.map_err(|error| self.failed(&error))
    }
}

/// Waits so long and no longer.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, TargetError> {
    let waited = tokio::time::timeout(limit, work).await;
    waited.map_err(|_| TargetError::Unreachable("the server did not answer in time".to_owned()))
}

/// The SQLSTATE, if the server gave one.
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(std::borrow::Cow::into_owned)
}

fn number(error: &sqlx::Error) -> Option<u16> {
    error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number)
}

/// Whether the server did not let somebody in: wrong password, no such account, locked.
pub(super) fn is_login_refused(error: &sqlx::Error) -> bool {
    code(error).as_deref() == Some("28000") || number(error) == Some(ER_ACCOUNT_HAS_BEEN_LOCKED)
}

/// What an error means: whether it may work later, and what to do. Only the SQLSTATE and the number are read.
pub(super) fn classify(error: &sqlx::Error) -> TargetError {
    let refused = |text: &str| TargetError::Refused(text.to_owned());
    let (Some(code), Some(number)) = (code(error), number(error)) else {
        return TargetError::Unreachable(match error {
            sqlx::Error::Io(io) => format!("no connection to the server: {}", io.kind()),
            sqlx::Error::Tls(_) => "the server's TLS certificate was not accepted, or it speaks no TLS".to_owned(),
            sqlx::Error::PoolTimedOut => "no connection became free or came up in time".to_owned(),
            _ => "the connection broke or the server spoke another protocol".to_owned(),
        });
    };
    match (code.as_str(), number) {
        ("WL001" | "WL007", _) => refused("this account was not issued by ours; nothing was touched"),
        ("WL002", _) => refused("the server knows no such template: run the install script again"),
        ("WL003", _) => {
            refused("the lifetime is outside what the template's row allows, or the clocks differ by more than a minute")
        }
        ("WL004", _) => {
            TargetError::Unacceptable("a mysql_native_password hash (`*` and 40 hexadecimal digits) is needed".to_owned())
        }
        ("WL005", _) => refused("as many live credentials as the template's row allows (`max_live`)"),
        ("WL006", _) | (_, 1_062 | 1_396) => refused("this name was used before: every credential needs a new grant"),
        ("WL008", _) => TargetError::Unreachable("the account can log in again: it is closed once more".to_owned()),
        ("WL009", _) => TargetError::Unreachable("sessions of the account have not ended yet".to_owned()),
        ("WL010", _) => TargetError::Unacceptable("the parameters are longer than the server takes".to_owned()),
        ("28000", _) | (_, ER_ACCOUNT_HAS_BEEN_LOCKED) => refused("our account cannot log in: check its password"),
        (_, 1_305 | 1_049) => refused("Writ's procedures are not installed: run the install script"),
        (_, 1_044 | 1_142 | 1_227 | 1_370) => {
            refused("our account or the procedures' owner lacks a right: run the install script, and `writ target doctor`")
        }
        // Too many connections, shutting down, killed, lock waits, deadlocks, out of memory or disk.
        (_, 1_021 | 1_037..=1_041 | 1_053 | 1_105 | 1_180 | 1_205 | 1_213 | 1_226 | 1_290 | 1_317 | 1_927) => {
            TargetError::Unreachable(format!("the server cannot do it now (error {number})"))
        }
        _ => TargetError::Refused(format!("error {number}, SQLSTATE {code}")),
    }
}
