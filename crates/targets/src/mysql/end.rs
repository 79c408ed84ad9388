//! Taking an account back: close, end sessions, clean, verify. Each step is one or more calls that commit by themselves
//! and may be repeated at will: a crash before, between or after them is mended by calling the same step again.

use super::connect::{Pools, code};
use authority::target::{Evidence, Handle, TargetError};
use domain::Ending;
use sqlx::Row as _;
use sqlx::mysql::MySqlPool;
use std::collections::BTreeMap;
use std::time::Duration;

/// How often sessions are told to end before the step is given up for now, and how long is waited in between.
const KILL_ROUNDS: u32 = 100;
const KILL_PAUSE: Duration = Duration::from_millis(20);

/// One step.
pub(super) async fn step(pools: &Pools, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
    let ending = Taking { pools, pool: pools.end()?, user: handle.handle, expires: handle.expires_at.secs() };
    let facts = match step {
        Ending::CloseAuth => BTreeMap::from([("auth", ending.close().await?)]),
        Ending::EndSessions => BTreeMap::from([("sessions", ending.repeat("CALL writ_lease.`kill`(?)").await?.to_string())]),
        Ending::Clean => ending.clean().await?,
        Ending::Verify => ending.verify().await?,
    };
    Ok(Evidence { facts, again_at: None })
}

struct Taking<'a> {
    pools: &'a Pools,
    pool: MySqlPool,
    user: &'a str,
    expires: i64,
}

impl Taking<'_> {
    /// What a crash leaves here: either nothing or an account that nobody can log in with. Repeating finds it so.
    async fn close(&self) -> Result<String, TargetError> {
        let call = sqlx::query("CALL writ_lease.close(?, ?)").bind(self.user).bind(self.expires).fetch_one(&self.pool);
        self.pools.call(async { call.await?.try_get_unchecked(0) }).await
    }

    /// Calls until no session is left, and says how many there were; less than none if the account is still there.
    async fn repeat(&self, statement: &'static str) -> Result<i64, TargetError> {
        let mut most = 0;
        for _ in 0..KILL_ROUNDS {
            let call =
                async { sqlx::query(statement).bind(self.user).fetch_one(&self.pool).await?.try_get_unchecked::<i64, _>(0) };
            let seen = match call.await {
                Err(error) if code(&error).as_deref() == Some("WL008") => {
                    // Somebody unlocked it since it was closed: closed once more, and seen again on the next round.
                    self.close().await?;
                    1
                }
                other => other.map_err(|error| self.pools.failed(&error))?,
            };
            if seen <= 0 {
                return Ok(if seen < 0 { seen } else { most });
            }
            most = most.max(seen);
            tokio::time::sleep(KILL_PAUSE).await;
        }
        Err(TargetError::Unreachable(format!("{most} sessions were told to end and have not yet")))
    }

    async fn clean(&self) -> Result<BTreeMap<&'static str, String>, TargetError> {
        let call = async {
            let row = sqlx::query("CALL writ_lease.purge(?)").bind(self.user).fetch_one(&self.pool).await?;
            Ok((row.try_get_unchecked::<String, _>(0)?, row.try_get_unchecked::<i64, _>(1)?))
        };
        let (account, left_behind) = self.pools.call(call).await?;
        // Routines and events that it made. Without their definer they cannot run.
        Ok(BTreeMap::from([("account", account), ("definer_objects", left_behind.to_string())]))
    }

    /// Asks again. An account that came back (an issue that was still on its way when it was closed) is taken back at once.
    async fn verify(&self) -> Result<BTreeMap<&'static str, String>, TargetError> {
        let mut late = self.repeat("CALL writ_lease.gone(?)").await?;
        if late < 0 {
            self.close().await?;
            self.repeat("CALL writ_lease.`kill`(?)").await?;
            self.clean().await?;
            late = self.repeat("CALL writ_lease.gone(?)").await?;
        }
        if late < 0 {
            return Err(TargetError::Unreachable("the account is still there".to_owned()));
        }
        Ok(BTreeMap::from([("account", "not_found".to_owned()), ("late_sessions", late.to_string())]))
    }
}
