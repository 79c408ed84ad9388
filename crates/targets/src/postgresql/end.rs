//! Taking a role back: close, end sessions, clean, verify. Each step is one or more committed calls and may be repeated
//! at will: a crash before, between or after them is mended by calling the same step again.

use super::connect::Pools;
use authority::target::{Evidence, Handle, TargetError};
use domain::Ending;
use sqlx::postgres::PgPool;
use sqlx::{Connection as _, Row as _};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often sessions are told to end before the step is given up for now, and how long is waited in between. A session
/// ends at its next safe point, mostly within a millisecond.
const KILL_ROUNDS: u32 = 100;
const KILL_PAUSE: Duration = Duration::from_millis(20);

/// One step.
pub(super) async fn step(pools: &Pools, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
    let ending = Taking { pools, pool: pools.end()?, role: handle.handle, expires: handle.expires_at.secs() };
    let facts = match step {
        Ending::CloseAuth => BTreeMap::from([("auth", ending.close().await?)]),
        Ending::EndSessions => BTreeMap::from([("sessions", ending.kill().await?.to_string())]),
        Ending::Clean => ending.clean().await?,
        Ending::Verify => ending.verify().await?,
    };
    Ok(Evidence { facts, again_at: None })
}

struct Taking<'a> {
    pools: &'a Pools,
    pool: PgPool,
    role: &'a str,
    expires: i64,
}

impl Taking<'_> {
    /// What a crash leaves here: either nothing or a role that nobody can log in as. Repeating finds it so.
    async fn close(&self) -> Result<String, TargetError> {
        let row = sqlx::query("SELECT writ_lease.close($1, $2)").bind(self.role).bind(self.expires).fetch_one(&self.pool).await;
        row.and_then(|row| row.try_get(0)).map_err(|error| self.pools.failed(&error))
    }

    async fn count(&self, statement: &'static str) -> Result<i32, TargetError> {
        let row = sqlx::query(statement).bind(self.role).fetch_one(&self.pool).await;
        match row.and_then(|row| row.try_get(0)) {
            Err(error) if super::connect::code(&error).as_deref() == Some("WL008") => {
                // Somebody let it log in again since it was closed: closed once more, and seen again on the next round.
                self.close().await?;
                Ok(1)
            }
            other => other.map_err(|error| self.pools.failed(&error)),
        }
    }

    /// Tells the sessions to end until none is left, and says how many there were. What a crash leaves: sessions that end
    /// anyway, and no way to open another.
    async fn kill(&self) -> Result<i32, TargetError> {
        self.repeat("SELECT writ_lease.kill($1)").await
    }

    async fn repeat(&self, statement: &'static str) -> Result<i32, TargetError> {
        let mut most = 0;
        for _ in 0..KILL_ROUNDS {
            let seen = self.count(statement).await?;
            if seen <= 0 {
                return Ok(if seen < 0 { seen } else { most });
            }
            most = most.max(seen);
            tokio::time::sleep(KILL_PAUSE).await;
        }
        Err(TargetError::Unreachable(format!("{most} sessions were told to end and have not yet")))
    }

    /// Removes what it owns in every other database that it left something in, then here, then the role. What a crash
    /// leaves: less than before, and the role, by which the rest is found again.
    async fn clean(&self) -> Result<BTreeMap<&'static str, String>, TargetError> {
        let failed = |error: sqlx::Error| self.pools.failed(&error);
        let elsewhere =
            sqlx::query("SELECT writ_lease.elsewhere($1)").bind(self.role).fetch_all(&self.pool).await.map_err(failed)?;
        for row in &elsewhere {
            let database: String = row.try_get(0).map_err(failed)?;
            self.clean_in(&database).await?;
        }
        let row = sqlx::query("SELECT writ_lease.purge($1)").bind(self.role).fetch_one(&self.pool).await.map_err(failed)?;
        let role: String = row.try_get(0).map_err(failed)?;
        Ok(BTreeMap::from([("role", role), ("other_databases", elsewhere.len().to_string())]))
    }

    async fn clean_in(&self, database: &str) -> Result<(), TargetError> {
        let named = |error: TargetError| match error {
            TargetError::Refused(why) => {
                TargetError::Refused(format!("in database `{database}`, where it left something: {why}"))
            }
            other => other,
        };
        let mut connection = self.pools.to(database).await.map_err(named)?;
        let cleaned = sqlx::query("SELECT writ_lease.clean_here($1)").bind(self.role).execute(&mut connection).await;
        cleaned.map_err(|error| named(self.pools.failed(&error)))?;
        // Best effort: it has done its work, and the server closes its side as well.
        let _ = connection.close().await;
        Ok(())
    }

    /// Asks again. A role that came back (an issue that was still on its way when it was closed) is taken back at once; a
    /// session that was just being opened when its role was closed is ended here by the role's number.
    async fn verify(&self) -> Result<BTreeMap<&'static str, String>, TargetError> {
        let mut late = self.repeat("SELECT writ_lease.gone($1)").await?;
        if late < 0 {
            self.close().await?;
            self.kill().await?;
            self.clean().await?;
            late = self.repeat("SELECT writ_lease.gone($1)").await?;
        }
        if late < 0 {
            return Err(TargetError::Unreachable("the role is still there".to_owned()));
        }
        Ok(BTreeMap::from([("role", "not_found".to_owned()), ("late_sessions", late.to_string())]))
    }
}
