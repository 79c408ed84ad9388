//! Accounts that stand without Writ, what is wrong with each, and the offer that would replace it (R14, R15).

use super::connect::Pools;
use authority::target::{Standing, TargetError};
use sqlx::Row as _;
use sqlx::mysql::MySqlRow;
use std::collections::BTreeMap;

/// A login used from so many addresses at once is shared.
const SHARED_ADDRESSES: i64 = 2;
/// A password that was not changed for so long is old, in seconds.
const OLD_SECS: i64 = 90 * 86_400;
/// Privileges that make an administrator: everything but SELECT, INSERT, UPDATE, DELETE, and the like on data.
/// Bits of `mysql.global_priv.access`: RELOAD, SHUTDOWN, PROCESS, FILE, GRANT, SUPER, CREATE USER.
const ADMIN_BITS: u64 = 1 << 6 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 15 | 1 << 25;

/// Every account that can log in and is neither ours nor our account.
pub(super) async fn scan(pools: &Pools) -> Result<Vec<Standing>, TargetError> {
    let pool = pools.end()?;
    pools
        .call(async {
            let rows = sqlx::query("CALL writ_lease.standing()").fetch_all(&pool).await?;
            rows.iter().map(standing).collect()
        })
        .await
}

fn standing(row: &MySqlRow) -> Result<Standing, sqlx::Error> {
    let text = |name: &str| row.try_get_unchecked::<String, _>(name);
    let number = |name: &str| row.try_get_unchecked::<i64, _>(name);
    let (user, host, roles) = (text("name")?, text("host")?, text("roles")?);
    let access: u64 = row.try_get_unchecked("access")?;
    let (sessions, addresses, grants) = (number("sessions")?, number("addresses")?, number("grants")?);
    let changed: i64 = text("changed")?.parse().unwrap_or_default();
    let clock = number("clock")?;
    let flagged = [
        ("no_expiry", text("lifetime")?.is_empty()),
        ("superuser", access & ADMIN_BITS != 0),
        ("shared", addresses >= SHARED_ADDRESSES),
        // MariaDB keeps no last login: only what nobody uses now and has no grant is called unused.
        ("unused", sessions == 0 && grants == 0 && access == 0 && roles.is_empty()),
        ("old", changed > 0 && clock.saturating_sub(changed) > OLD_SECS),
        // Accounts carry no owner and no comment.
        ("owner_unknown", true),
    ];
    let details = BTreeMap::from([
        ("sessions_now", sessions.to_string()),
        ("addresses_now", addresses.to_string()),
        ("grants", grants.to_string()),
        ("roles", roles.clone()),
        ("password_changed_secs", changed.to_string()),
        ("last_login", "MariaDB keeps none".to_owned()),
    ]);
    let word: String = user.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let (template, how) = if roles.is_empty() || roles.contains(',') {
        (format!("{word}_task"), format!("make it: CREATE ROLE {word}_task; then grant it what the task needs"))
    } else {
        (roles, "the role that it has already".to_owned())
    };
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let proposal = format!(
        "[offers.{word}]\ndescription = {}\ntemplate = {}   # {how}\nlifetime_secs = 900\n\
         reading = {{ untrusted = true, sensitivity = \"confidential\" }}\nsink = \"none\"\n",
        quoted(&format!("What the account {user} was used for.")),
        quoted(&template)
    );
    Ok(Standing {
        name: format!("{user}@{host}"),
        kind: "user",
        flags: flagged.into_iter().filter_map(|(flag, holds)| holds.then_some(flag)).collect(),
        details,
        proposal,
    })
}
