//! Login roles that stand without Writ, what is wrong with each, and the offer that would replace it (R14, R15).

use super::connect::Pools;
use authority::target::{Standing, TargetError};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use std::collections::BTreeMap;

/// A login used from so many addresses at once is shared.
const SHARED_ADDRESSES: i64 = 2;

/// Every login role that is neither ours nor our account.
pub(super) async fn scan(pools: &Pools) -> Result<Vec<Standing>, TargetError> {
    let statement = "SELECT role, is_super, is_admin, valid_until, sessions, addresses, dependencies, groups, comment \
                     FROM writ_lease.standing()";
    let rows = sqlx::query(statement).fetch_all(&pools.end()?).await;
    let rows = rows.and_then(|rows| rows.iter().map(standing).collect::<Result<Vec<_>, _>>());
    rows.map_err(|error| pools.failed(&error))
}

fn standing(row: &PgRow) -> Result<Standing, sqlx::Error> {
    let name: String = row.try_get("role")?;
    let (is_super, is_admin): (bool, bool) = (row.try_get("is_super")?, row.try_get("is_admin")?);
    let valid_until: Option<i64> = row.try_get("valid_until")?;
    let (sessions, addresses): (i64, i64) = (row.try_get("sessions")?, row.try_get("addresses")?);
    let dependencies: i64 = row.try_get("dependencies")?;
    let groups: Vec<String> = row.try_get("groups")?;
    let comment: Option<String> = row.try_get("comment")?;

    let owner_unknown = comment.as_deref().is_none_or(|comment| comment.trim().is_empty());
    let flagged = [
        ("no_expiry", valid_until.is_none()),
        ("superuser", is_super || is_admin),
        ("shared", addresses >= SHARED_ADDRESSES),
        // PostgreSQL keeps no last login: only what nobody uses now and nothing depends on is called unused.
        ("unused", sessions == 0 && dependencies == 0 && groups.is_empty() && !is_super),
        ("owner_unknown", owner_unknown),
    ];
    let mut details = BTreeMap::from([
        ("sessions_now", sessions.to_string()),
        ("addresses_now", addresses.to_string()),
        ("depends_on_it", dependencies.to_string()),
        ("groups", groups.join(", ")),
        ("last_login", "PostgreSQL keeps none".to_owned()),
    ]);
    details.extend(valid_until.map(|until| ("valid_until_secs", until.to_string())));
    details.extend(comment.map(|comment| ("comment", comment)));
    Ok(Standing {
        flags: flagged.into_iter().filter_map(|(flag, holds)| holds.then_some(flag)).collect(),
        proposal: proposal(&name, &groups, is_super),
        name,
        kind: "role",
        details,
    })
}

/// The offer that would replace a login role.
fn proposal(role: &str, groups: &[String], is_super: bool) -> String {
    let word: String = role.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let (template, how) = match groups {
        [only] if !is_super => (only.clone(), "the group that it is in already".to_owned()),
        _ => (format!("{word}_task"), format!("make it: CREATE ROLE {word}_task NOLOGIN; then grant it what the task needs")),
    };
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    format!(
        "[offers.{word}]\ndescription = {}\ntemplate = {}   # {how}\nlifetime_secs = 900\n\
         reading = {{ untrusted = true, sensitivity = \"confidential\" }}\nsink = \"none\"\n",
        quoted(&format!("What the login role {role} was used for.")),
        quoted(&template)
    )
}
