//! PostgreSQL: login roles `jit_<grant id>` that join a template role (design.md §9, docs/targets/postgresql.md). Our
//! account there can only execute the functions of `install.sql`; this module calls them. It never sends a password to
//! the server, only SCRAM verifiers, and knows neither tasks nor policy.

mod connect;
mod end;
mod examine;
mod install;
mod scan;
mod scram;

use crate::config::{Config, ConfigFaults};
use async_trait::async_trait;
use authority::ShownPlan;
use authority::target::{
    Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError, Verifier,
};
use connect::{At, Pools, Tls, within};
use domain::{Ending, GrantId, OfferName, SecretOrigin, TargetName, Timestamp};
use secrecy::SecretBox;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Row as _};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of a credential's parameters as JSON: what the database takes.
const PARAMS_BYTES_MAX: usize = 16_384;

/// One template role and its bounds in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    name: String,
    lifetime_secs: u64,
    sessions_max: i64,
    live_max: i64,
}

/// What a target file says.
struct Settings {
    target: TargetName,
    at: At,
    iterations: NonZeroU32,
    offers: BTreeMap<OfferName, Template>,
}

impl Settings {
    fn read(config: &Config<'_>) -> Self {
        let connect = &config.connect;
        let named = |key: &str, example: &str| {
            let name = connect.text(key, example);
            if !name.is_empty() && !install::is_plain(&name) {
                connect.fault(key, format!("`{name}` has characters that Writ does not put into SQL"), "");
            }
            name
        };
        let at = At {
            host: connect.text("host", "db.example.internal"),
            port: connect.port("port", 5_432),
            database: named("database", "orders"),
            user: named("user", "writ_broker"),
            tls: connect.choice(
                "tls",
                &[("verify-full", Tls::VerifyFull), ("verify-ca", Tls::VerifyCa), ("off", Tls::Off)],
                Tls::VerifyFull,
            ),
            ca: connect.file_if("ca_file"),
        };
        if at.tls == Tls::Off && !is_local(&at.host) {
            connect.fault("tls", "`off` is only for a server on this machine", "use tls = \"verify-full\" and ca_file");
        }
        if at.tls != Tls::Off && at.ca.is_none() && !connect.has("ca_file") {
            connect.fault("ca_file", "`ca_file` is missing", "name the PEM file of who signed the server's certificate");
        }
        let iterations = connect.integer_if("scram_iterations", 1..=i64::from(scram::ITERATIONS_MAX));
        let iterations = iterations.and_then(|number| u32::try_from(number).ok()).and_then(NonZeroU32::new);
        let offers = config.offers.iter().map(|(&name, section)| {
            let template = section.own.text("template", "orders_read");
            if !template.is_empty() && !install::is_plain(&template) {
                section.own.fault("template", format!("`{template}` has characters that Writ does not put into SQL"), "");
            }
            let template = Template {
                name: template,
                lifetime_secs: section.offer.lifetime_secs,
                sessions_max: section.own.integer_if("sessions_max", 1..=1_000).unwrap_or(install::SESSIONS_DEFAULT),
                live_max: section.own.integer_if("live_max", 1..=1_000_000).unwrap_or(1_000),
            };
            (name.clone(), template)
        });
        Self {
            target: config.name.clone(),
            offers: offers.collect(),
            at,
            iterations: iterations.unwrap_or(scram::ITERATIONS_OF_RANDOM),
        }
    }

    /// The templates, each once with the widest bounds that an offer asks for.
    fn templates(&self) -> Vec<Template> {
        let mut out: BTreeMap<&str, Template> = BTreeMap::new();
        for template in self.offers.values() {
            let widest = out.entry(&template.name).or_insert_with(|| template.clone());
            widest.lifetime_secs = widest.lifetime_secs.max(template.lifetime_secs);
            widest.sessions_max = widest.sessions_max.max(template.sessions_max);
            widest.live_max = widest.live_max.max(template.live_max);
        }
        out.into_values().collect()
    }
}

/// Whether a connection to this host stays on this machine.
fn is_local(host: &str) -> bool {
    host.starts_with('/') || host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The target.
struct Postgresql {
    settings: Settings,
    pools: Pools,
}

/// What a plan's canonical bytes say.
#[derive(Serialize, Deserialize)]
struct Body {
    kind: String,
    target: String,
    database: String,
    role: String,
    template: String,
    expires: i64,
    params: BTreeMap<String, serde_json::Value>,
    task: String,
    /// What the caller made; absent if Writ makes the secret.
    verifier: Option<String>,
}

/// Opens a configured database. Nothing is connected yet.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let settings = Settings::read(config);
    let password = config.connect.secret("password");
    config.check()?;
    let pools = Pools::new(settings.at.clone(), password);
    Ok(Arc::new(Postgresql { settings, pools }))
}

/// What the database's administrator runs.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    let settings = Settings::read(config);
    let _ = config.connect.secret("password");
    config.check()?;
    Ok(install::script(&settings))
}

/// The grant that a role's name says.
fn grant_of(role: &str) -> Option<GrantId> {
    GrantId::from_digits(role.strip_prefix("jit_")?)
}

/// The role's name for a grant.
fn role_of(grant: GrantId) -> String {
    format!("jit_{}", grant.digits())
}

#[async_trait]
impl Target for Postgresql {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let template = self.settings.offers.get(&asked.offer.name);
        let template =
            template.ok_or_else(|| TargetError::Unacceptable(format!("`{}` is not offered here", asked.offer.name)))?;
        let verifier = match asked.verifier {
            None => None,
            Some(Verifier::ScramSha256(text)) if scram::is_verifier(text) => Some(text.clone()),
            Some(Verifier::ScramSha256(_)) => {
                let text = "this is no SCRAM-SHA-256 verifier of at most 4096 iterations";
                return Err(TargetError::Unacceptable(text.to_owned()));
            }
            Some(other) => {
                let text = format!("this target needs a verifier of kind `scram_sha_256`, not `{}`", other.kind());
                return Err(TargetError::Unacceptable(text));
            }
        };
        let secret = if verifier.is_some() { SecretOrigin::Caller } else { SecretOrigin::Writ };
        let expires_at = Timestamp::from_secs(asked.expires_at.secs());
        let body = Body {
            kind: "postgresql".to_owned(),
            target: self.settings.target.to_string(),
            database: self.settings.at.database.clone(),
            role: role_of(asked.grant),
            template: template.name.clone(),
            expires: expires_at.secs(),
            params: asked.params.0.iter().map(|(name, value)| (name.clone(), value.to_json())).collect(),
            task: asked.task.to_string(),
            verifier,
        };
        let canonical =
            serde_json::to_vec(&body).map_err(|_| TargetError::Unacceptable("the parameters cannot be written".to_owned()))?;
        if canonical.len() > PARAMS_BYTES_MAX {
            return Err(TargetError::Unacceptable(format!("the parameters are longer than {PARAMS_BYTES_MAX} bytes")));
        }
        let params: Vec<_> = body.params.keys().map(|name| format!("`{name}`")).collect();
        let mut summary = vec![
            format!("create login role `{}` in the cluster of database `{}`", body.role, body.database),
            format!("it joins `{}` and nothing else; at most {} sessions at once", body.template, template.sessions_max),
            format!("nobody can log in with it after {} seconds since 1970", body.expires),
        ];
        if !params.is_empty() {
            summary.push(format!("row-level security sees {}", params.join(", ")));
        }
        Ok(Plan {
            grant: asked.grant,
            offer: asked.offer.name.clone(),
            handle: body.role,
            expires_at,
            secret,
            summary,
            canonical,
            secret_seed: SecretBox::new(Box::new(asked.entropy)),
        })
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        let body: Body =
            serde_json::from_slice(&plan.canonical).map_err(|_| TargetError::NotShown("a plan that is not this target's"))?;
        let (verifier, secrets) = match body.verifier {
            Some(verifier) => (verifier, BTreeMap::new()),
            None => {
                let (password, verifier) = scram::made_of(&plan.secret_seed, self.settings.iterations);
                (verifier, BTreeMap::from([("password".to_owned(), password)]))
            }
        };
        let params =
            serde_json::to_string(&body.params).map_err(|_| TargetError::NotShown("a plan that is not this target's"))?;
        sqlx::query("SELECT writ_lease.issue($1, $2, $3, $4, $5, $6)")
            .bind(&body.role)
            .bind(&body.template)
            .bind(body.expires)
            .bind(verifier)
            .bind(params)
            .bind(&body.task)
            .execute(&self.pools.issue()?)
            .await
            .map_err(|error| self.pools.failed(&error))?;
        let at = &self.settings.at;
        let mut fields = BTreeMap::from([
            ("user".to_owned(), body.role),
            ("host".to_owned(), at.host.clone()),
            ("port".to_owned(), at.port.to_string()),
            ("database".to_owned(), at.database.clone()),
            ("sslmode".to_owned(), at.tls.word().to_owned()),
        ]);
        if let Some(pem) = at.ca.as_deref().and_then(|pem| std::str::from_utf8(pem).ok()) {
            fields.insert("ca_pem".to_owned(), pem.to_owned());
        }
        Ok(Minted { fields, secrets, to_revoke: None })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        end::step(&self.pools, step, handle).await
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        let rows = sqlx::query("SELECT role, expires FROM writ_lease.list()").fetch_all(&self.pools.end()?).await;
        let rows = rows.map_err(|error| self.pools.failed(&error))?;
        let found = rows.iter().filter_map(|row| {
            let handle: String = row.try_get(0).ok()?;
            let expires: Option<i64> = row.try_get(1).ok();
            Some(Found { grant: grant_of(&handle)?, handle, expires_at: expires.map(Timestamp::from_secs) })
        });
        Ok(found.collect())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        examine::examine(&self.settings, &self.pools).await
    }

    async fn try_use(&self, minted: &Minted, limit: Duration) -> Result<Acceptance, TargetError> {
        let user = minted.fields.get("user").map_or("", String::as_str);
        let options = self.settings.at.login(user, minted.secrets.get("password"));
        let login = async {
            let mut connection = PgConnection::connect_with(&options).await?;
            sqlx::query("SELECT 1").execute(&mut connection).await?;
            connection.close().await
        };
        match within(limit, login).await? {
            Ok(()) => Ok(Acceptance::Accepted),
            // Wrong password, no such role, past its time, may not log in, may not connect to this database.
            Err(error) if matches!(connect::code(&error).as_deref(), Some("28P01" | "28000" | "42501")) => {
                Ok(Acceptance::Refused)
            }
            Err(error) => Err(connect::classify(&error)),
        }
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        scan::scan(&self.pools).await
    }
}
