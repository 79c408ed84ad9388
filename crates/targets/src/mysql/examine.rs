//! Whether our account can do what it must and nothing more, whether the procedures are the ones that the install script
//! prints, and whether the template roles are as narrow as they look. MariaDB hides its grant tables from our account:
//! what it cannot see itself it asks the procedure `inspect`, which runs as the procedures' owner.

use super::Settings;
use super::connect::{Pools, code, within};
use super::install::{self, CLOCK_DIFFERENCE_SECS, INNER, OURS, PARAM};
use authority::target::{Finding, Gravity, TargetError};
use secrecy::SecretString;
use sqlx::mysql::{MySqlConnection, MySqlPool};
use sqlx::{Connection as _, Row as _};
use std::time::Duration;

/// What to do about nearly everything here.
const REINSTALL: &str = "run the script of `writ target install --print` again";

/// One row of `inspect`.
struct Fact {
    kind: String,
    name: String,
    detail: String,
}

/// What was found so far.
struct Examination<'a> {
    settings: &'a Settings,
    facts: Vec<Fact>,
    findings: Vec<Finding>,
}

/// Looks at everything.
pub(super) async fn examine(settings: &Settings, pools: &Pools) -> Result<Vec<Finding>, TargetError> {
    let pool = pools.end()?;
    let grants = match pools.call(own_grants(&pool)).await {
        Ok(grants) => grants,
        Err(TargetError::Refused(why)) => {
            let remedy = "see docs/targets/mysql.md".to_owned();
            return Ok(vec![Finding { gravity: Gravity::Broken, check: "broker.login", found: why, remedy }]);
        }
        Err(other) => return Err(other),
    };
    let mut examination = Examination { settings, facts: Vec::new(), findings: Vec::new() };
    examination.grants(&grants);
    match inspect(&pool).await {
        Ok(facts) => {
            examination.facts = facts;
            examination.routines();
            examination.around();
            examination.templates();
        }
        Err(error) if code(&error).as_deref() == Some("42000") => {
            examination.add(Gravity::Broken, "lease.routines", "the procedures are missing or not ours to call", REINSTALL);
        }
        Err(error) => return Err(pools.failed(&error)),
    }
    examination.login().await;
    Ok(examination.findings)
}

async fn own_grants(pool: &MySqlPool) -> Result<Vec<String>, sqlx::Error> {
    let mut grants = Vec::new();
    for statement in ["SHOW GRANTS", "SHOW GRANTS FOR PUBLIC"] {
        let rows = sqlx::query(statement).fetch_all(pool).await?;
        for row in rows {
            grants.push(row.try_get_unchecked(0)?);
        }
    }
    Ok(grants)
}

async fn inspect(pool: &MySqlPool) -> Result<Vec<Fact>, sqlx::Error> {
    let rows = sqlx::query("CALL writ_lease.inspect()").fetch_all(pool).await?;
    let fact = |row: &sqlx::mysql::MySqlRow| {
        Ok(Fact {
            kind: row.try_get_unchecked(0)?,
            name: row.try_get_unchecked(1)?,
            detail: row.try_get_unchecked::<Option<String>, _>(2)?.unwrap_or_default(),
        })
    };
    rows.iter().map(fact).collect()
}

impl Examination<'_> {
    fn add(&mut self, gravity: Gravity, check: &'static str, found: impl Into<String>, remedy: &str) {
        self.findings.push(Finding { gravity, check, found: found.into(), remedy: remedy.to_owned() });
    }

    /// Adds `gravity` with the names if there are any, and what is fine otherwise.
    fn none_of(&mut self, check: &'static str, names: &[String], (gravity, what, remedy): (Gravity, &str, &str), fine: &str) {
        if names.is_empty() {
            self.add(Gravity::Fine, check, fine, "");
        } else {
            let more = if names.len() > 8 { ", …" } else { "" };
            let shown: Vec<_> = names.iter().take(8).map(|name| format!("`{name}`")).collect();
            self.add(gravity, check, format!("{what}: {}{more}", shown.join(", ")), remedy);
        }
    }

    /// The names of the facts of a kind for which `wrong` says something.
    fn wrong(&self, kind: &str, wrong: impl Fn(&Fact) -> Option<String>) -> Vec<String> {
        self.facts.iter().filter(|fact| fact.kind == kind).filter_map(wrong).collect()
    }

    /// Exactly the right to call our procedures, and no right to hand that on.
    fn grants(&mut self, grants: &[String]) {
        let ours: Vec<_> = OURS.iter().map(|name| format!("GRANT EXECUTE ON PROCEDURE `writ_lease`.`{name}` TO ")).collect();
        let wide = |grant: &&String| {
            let expected =
                grant.starts_with("GRANT USAGE ON *.* TO ") || ours.iter().any(|known| grant.starts_with(known.as_str()));
            !expected || grant.ends_with("WITH GRANT OPTION")
        };
        // What stands after TO can hold a password hash.
        let shown = |grant: &String| grant.split(" TO ").next().unwrap_or_default().replace('`', "");
        let wider: Vec<_> = grants.iter().filter(wide).map(shown).collect();
        let what = (Gravity::Broken, "our account (or everybody, as PUBLIC) has", "REVOKE these from it and from PUBLIC");
        self.none_of("broker.grants", &wider, what, "our account can call Writ's procedures and nothing else");
        if !grants.iter().any(|grant| grant.contains("MAX_USER_CONNECTIONS")) {
            let text = "our account may open any number of connections, so that the count of live accounts is held less exactly";
            self.add(Gravity::Warning, "broker.connection_limit", text, REINSTALL);
        }
    }

    /// Whether each routine is ours, word for word, and only ours to call.
    fn routines(&mut self) {
        let mut wrong = Vec::new();
        for name in OURS.iter().chain(INNER).chain([&PARAM]) {
            let expected = install::body_sha256(name).map(|body| format!("{body} writ_lease_owner@localhost DEFINER"));
            match self.facts.iter().find(|fact| fact.kind == "routine" && fact.name == *name) {
                None => wrong.push(format!("{name}: missing")),
                Some(fact) if Some(&fact.detail) != expected.as_ref() => {
                    wrong.push(format!("{name}: another text, owner or security"))
                }
                Some(_) => {}
            }
        }
        let broker = format!("{}@%", self.settings.at.user);
        wrong.extend(self.wrong("executes", |fact| {
            let expected = if fact.name == PARAM {
                fact.detail.ends_with('@')
            } else {
                OURS.contains(&fact.name.as_str()) && fact.detail == broker
            };
            (!expected).then(|| format!("{}: {} may call it", fact.name, fact.detail))
        }));
        let what = (Gravity::Broken, "procedures differ from the install script", REINSTALL);
        self.none_of("lease.routines", &wrong, what, "every procedure is the install script's, word for word");
    }

    /// The owner, the event and other accounts.
    fn around(&mut self) {
        let open = self.wrong("owner", |fact| (fact.detail != "locked").then(|| fact.name.clone()));
        let what = (Gravity::Broken, "the procedures' owner can log in", "ALTER USER writ_lease_owner@localhost ACCOUNT LOCK");
        self.none_of("lease_owner.locked", &open, what, "nobody can log in as the procedures' owner");
        let enabled = self
            .facts
            .iter()
            .any(|fact| fact.kind == "event" && fact.name == "sweep" && fact.detail == "ENABLED writ_lease_owner@localhost");
        let running = self.facts.iter().any(|fact| fact.kind == "scheduler" && fact.detail == "ON");
        if enabled && running {
            self.add(Gravity::Fine, "lease.sweep", "expired accounts are removed by the server itself", "");
        } else {
            let text = "the event that removes expired accounts does not run: nothing ends a credential if Writ is gone";
            self.add(Gravity::Broken, "lease.sweep", text, "set event_scheduler = ON, and run the install script again");
        }
        if self.facts.iter().any(|fact| fact.kind == "flush" && fact.detail != "1") {
            let text = "a crash of the machine can lose the row of an account that stays: it would not be known as ours any more";
            self.add(Gravity::Warning, "server.durability", text, "set innodb_flush_log_at_trx_commit = 1");
        }
        let anonymous = self.wrong("anonymous", |fact| Some(fact.name.clone()));
        let what = (Gravity::Broken, "accounts without a name stand before ours for the same host", "DROP these users");
        self.none_of("server.anonymous", &anonymous, what, "there is no account without a name");
    }

    fn templates(&mut self) {
        let wanted = self.settings.templates();
        let known: Vec<String> = self.wrong("template", |fact| Some(fact.name.clone()));
        let missing: Vec<_> = wanted.iter().map(|template| template.name.clone()).filter(|name| !known.contains(name)).collect();
        let what = (Gravity::Broken, "offers name templates that the server does not know", REINSTALL);
        self.none_of("template.known", &missing, what, "every offer's template is known");
        let bounds = self.wrong("template", |fact| {
            let (ttl, role) = fact.detail.split_once(' ')?;
            let ttl: u64 = ttl.parse().ok()?;
            let Some(template) = wanted.iter().find(|template| template.name == fact.name) else {
                return Some(format!("{}: no offer uses it", fact.name));
            };
            if ttl < template.lifetime_secs || ttl > template.lifetime_secs.saturating_add(CLOCK_DIFFERENCE_SECS) {
                return Some(format!("{}: lives {ttl} s, and its offers want {} s", fact.name, template.lifetime_secs));
            }
            (role != fact.name).then(|| format!("{}: joins the role {role}", fact.name))
        });
        let what = (Gravity::Warning, "templates are not as the offers say", REINSTALL);
        self.none_of("template.bounds", &bounds, what, "every template has its offers' bounds");
        let roles = self.wrong("role_missing", |fact| Some(fact.name.clone()));
        let what = (Gravity::Broken, "template roles do not exist", REINSTALL);
        self.none_of("template.roles", &roles, what, "every template role exists");
        let mut wide = self.wrong("role_global", |fact| Some(format!("{}: privileges on *.*", fact.name)));
        wide.extend(self.wrong("role_db", |fact| {
            Some(format!("{}: rights in {} that outlive a credential or reach the grants", fact.name, fact.detail))
        }));
        wide.extend(self.wrong("role_role", |fact| Some(format!("{}: is granted the role {}", fact.name, fact.detail))));
        let remedy =
            "REVOKE them: a template has SELECT, INSERT, UPDATE, DELETE, EXECUTE on what the task needs, and nothing global";
        self.none_of(
            "template.reach",
            &wide,
            (Gravity::Broken, "template roles are too wide", remedy),
            "template roles have no global rights",
        );
    }

    /// Whether the server looks at passwords at all.
    async fn login(&mut self) {
        let wrong = SecretString::from("not the password of anybody");
        let options = self.settings.at.login(&self.settings.at.user, Some(&wrong));
        if let Ok(Ok(connection)) = within(Duration::from_secs(5), MySqlConnection::connect_with(&options)).await {
            // Best effort: what matters is known.
            let _ = connection.close().await;
            let text = "the server lets our account in with a wrong password";
            self.add(
                Gravity::Broken,
                "server.authentication",
                text,
                "start it without skip-grant-tables, and give the account a password",
            );
        } else {
            self.add(Gravity::Fine, "server.authentication", "the server refuses a wrong password", "");
        }
    }
}
