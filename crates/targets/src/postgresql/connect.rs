//! Connections to the server, and what its errors mean for us. Owns the two pools, so that issuing and taking back
//! cannot starve each other; knows no statement. No text that the server wrote leaves this module: it could hold what we
//! sent.

use crate::config::Secret;
use authority::target::TargetError;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Most connections for issuing. How many are used at once is bounded by the target's own budget (`[limits]`).
pub(super) const ISSUE_POOL: u32 = 16;
/// Most connections for taking back.
pub(super) const END_POOL: u32 = 8;
/// How long a connection may take to come up, or to become free.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is taken to be whole after it was used.
const TRUSTED_FOR: Duration = Duration::from_secs(1);
/// How long the server may work on one statement, in milliseconds.
const STATEMENT_TIMEOUT_MS: &str = "15000";

/// Where the server is, who we are there, and how the way is protected.
#[derive(Clone)]
pub(super) struct At {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) database: String,
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
    /// The word that libpq has for it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::VerifyFull => "verify-full",
            Self::VerifyCa => "verify-ca",
            Self::Off => "disable",
        }
    }
}

impl At {
    /// Options for one login. Nothing is taken from the environment (`PGPASSWORD`, `PGOPTIONS`, `~/.pgpass`).
    pub(super) fn login(&self, user: &str, password: Option<&SecretString>) -> PgConnectOptions {
        let mode = match self.tls {
            Tls::VerifyFull => PgSslMode::VerifyFull,
            Tls::VerifyCa => PgSslMode::VerifyCa,
            Tls::Off => PgSslMode::Disable,
        };
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(user)
            .password(password.map_or("", |password| password.expose_secret()))
            .database(&self.database)
            .application_name("writ")
            .ssl_mode(mode)
            .options([("statement_timeout", STATEMENT_TIMEOUT_MS)])
            .disable_statement_logging();
        match &self.ca {
            Some(pem) => options.ssl_root_cert_from_pem(pem.clone()),
            None => options,
        }
    }
}

/// The pools of our account.
pub(super) struct Pools {
    at: At,
    password: Secret,
    issue: Mutex<Option<PgPool>>,
    end: Mutex<Option<PgPool>>,
}

impl Pools {
    /// None is connected yet.
    pub(super) const fn new(at: At, password: Secret) -> Self {
        Self { at, password, issue: Mutex::new(None), end: Mutex::new(None) }
    }

    /// Connections for issuing.
    pub(super) fn issue(&self) -> Result<PgPool, TargetError> {
        // A round trip for each acquisition would be a third of what issuing costs: a connection that worked a moment ago is
        // taken as it is, one that lay idle is tried first.
        let trusting = |options: PgPoolOptions| {
            options.test_before_acquire(false).before_acquire(|connection, about| {
                Box::pin(async move { Ok(about.idle_for < TRUSTED_FOR || connection.ping().await.is_ok()) })
            })
        };
        self.pool(&self.issue, |options| trusting(options.max_connections(ISSUE_POOL)))
    }

    /// Connections for everything else.
    pub(super) fn end(&self) -> Result<PgPool, TargetError> {
        self.pool(&self.end, |options| options.max_connections(END_POOL))
    }

    fn pool(
        &self,
        slot: &Mutex<Option<PgPool>>,
        settled: impl FnOnce(PgPoolOptions) -> PgPoolOptions,
    ) -> Result<PgPool, TargetError> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = slot.as_ref() {
            return Ok(pool.clone());
        }
        let password = self.password.read()?;
        let options = PgPoolOptions::new()
            .acquire_timeout(CONNECT_TIMEOUT)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(1_800));
        let pool = settled(options).connect_lazy_with(self.at.login(&self.at.user, Some(&password)));
        *slot = Some(pool.clone());
        drop(slot);
        Ok(pool)
    }

    /// One connection to another database of the same server.
    pub(super) async fn to(&self, database: &str) -> Result<PgConnection, TargetError> {
        let password = self.password.read()?;
        let options = self.at.login(&self.at.user, Some(&password)).database(database);
        within(CONNECT_TIMEOUT, PgConnection::connect_with(&options)).await?.map_err(|error| self.failed(&error))
    }

    /// What an error means. A login that was refused makes the next call read the password anew: it may have been changed.
    pub(super) fn failed(&self, error: &sqlx::Error) -> TargetError {
        let failed = classify(error);
        if matches!(code(error).as_deref(), Some("28P01" | "28000")) {
            for slot in [&self.issue, &self.end] {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
        }
        failed
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

/// What an error means: whether it may work later, and what to do. Only the SQLSTATE is read.
pub(super) fn classify(error: &sqlx::Error) -> TargetError {
    let Some(code) = code(error) else {
        return TargetError::Unreachable(match error {
            sqlx::Error::Io(io) => format!("no connection to the server: {}", io.kind()),
            sqlx::Error::Tls(_) => "the server's TLS certificate was not accepted, or it speaks no TLS".to_owned(),
            sqlx::Error::PoolTimedOut => "no connection became free or came up in time".to_owned(),
            _ => "the connection broke or the server spoke another protocol".to_owned(),
        });
    };
    let refused = |text: &str| TargetError::Refused(text.to_owned());
    match code.as_str() {
        "WL001" | "WL007" => refused("this role was not issued by this account; nothing was touched"),
        "WL002" => refused("the database knows no such template: run the install script again"),
        "WL003" => refused("the lifetime is outside what the template's row allows, or the clocks differ by more than a minute"),
        "WL004" => TargetError::Unacceptable("a SCRAM-SHA-256 verifier of at most 4096 iterations is needed".to_owned()),
        "WL005" => refused("as many live credentials as the template's row allows (`max_live`)"),
        "WL006" | "42710" | "23505" => refused("this name was used before: every credential needs a new grant"),
        "WL008" => TargetError::Unreachable("the role can log in again: it is closed once more".to_owned()),
        "WL009" => TargetError::Unreachable("sessions of the role have not ended yet".to_owned()),
        "WL010" => TargetError::Unacceptable("the parameters are longer than the database takes".to_owned()),
        "28P01" | "28000" => refused("our account cannot log in: check its password"),
        "3D000" => refused("the database does not exist"),
        "42883" | "3F000" | "42P01" => refused("Writ's functions are not installed: run the install script"),
        "42501" => refused("our account lacks a right: run the install script, and `writ target doctor`"),
        "2BP01" => refused(
            "somebody granted the role something, or depends on what it owns: an administrator runs DROP OWNED BY its name \
             (nobody can log in with it meanwhile)",
        ),
        "55P03" => TargetError::Unreachable("somebody holds a lock on what the role owns".to_owned()),
        code if ["08", "53", "57", "58", "40", "XX"].iter().any(|class| code.starts_with(class)) => {
            TargetError::Unreachable(format!("the server cannot do it now (SQLSTATE {code})"))
        }
        code => TargetError::Refused(format!("SQLSTATE {code}")),
    }
}
