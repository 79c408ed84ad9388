//! MariaDB: accounts `jit_<grant id>` that get a template role (design.md §9, docs/targets/mysql.md). Our account there
//! can only execute the procedures of `install.sql`; this module calls them. It never sends a password to the server, only
//! hashes, and knows neither tasks nor policy.

mod connect;
mod end;
mod examine;
mod install;
mod scan;

use crate::config::{Config, ConfigFaults};
use async_trait::async_trait;
use authority::ShownPlan;
use authority::target::{
    Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError, Verifier,
};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use connect::{At, Pools, Tls, within};
use domain::{Ending, GrantId, OfferName, SecretOrigin, TargetName, Timestamp};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, Row as _};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of a credential's parameters as JSON: what the server takes.
const PARAMS_BYTES_MAX: usize = 16_384;

/// One template role and its bounds at the server.
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
    offers: BTreeMap<OfferName, Template>,
}

impl Settings {
    fn read(config: &Config<'_>) -> Self {
        let connect = &config.connect;
        let at = At {
            host: connect.text("host", "db.example.internal"),
            port: connect.port("port", 3_306),
            database: connect.text_if("database"),
            user: connect.text("user", "writ_broker"),
            tls: connect.choice(
                "tls",
                &[("verify-full", Tls::VerifyFull), ("verify-ca", Tls::VerifyCa), ("off", Tls::Off)],
                Tls::VerifyFull,
            ),
            ca: connect.file_if("ca_file"),
        };
        if !at.user.is_empty() && !install::is_plain(&at.user) {
            connect.fault("user", format!("`{}` has characters that Writ does not put into SQL", at.user), "");
        }
        let local = at.host == "localhost" || at.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
        if at.tls == Tls::Off && !local {
            connect.fault("tls", "`off` is only for a server on this machine", "use tls = \"verify-full\" and ca_file");
        }
        if at.tls != Tls::Off && at.ca.is_none() && !connect.has("ca_file") {
            connect.fault("ca_file", "`ca_file` is missing", "name the PEM file of who signed the server's certificate");
        }
        let offers = config.offers.iter().map(|(&name, section)| {
            let template = section.own.text("template", "orders_read");
            if !template.is_empty() && !install::is_plain(&template) {
                section.own.fault("template", format!("`{template}` has characters that Writ does not put into SQL"), "");
            }
            let template = Template {
                name: template,
                lifetime_secs: section.offer.lifetime_secs,
                sessions_max: section.own.integer_if("sessions_max", 1..=1_000).unwrap_or(5),
                live_max: section.own.integer_if("live_max", 1..=1_000_000).unwrap_or(1_000),
            };
            (name.clone(), template)
        });
        Self { target: config.name.clone(), offers: offers.collect(), at }
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

/// The target.
struct Mysql {
    settings: Settings,
    pools: Pools,
}

/// What a plan's canonical bytes say.
#[derive(Serialize, Deserialize)]
struct Body {
    kind: String,
    target: String,
    account: String,
    template: String,
    expires: i64,
    params: BTreeMap<String, serde_json::Value>,
    task: String,
    /// What the caller made; absent if Writ makes the secret.
    verifier: Option<String>,
}

/// Opens a configured server. Nothing is connected yet.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let settings = Settings::read(config);
    let password = config.connect.secret("password");
    config.check()?;
    let pools = Pools::new(settings.at.clone(), password);
    Ok(Arc::new(Mysql { settings, pools }))
}

/// What the server's administrator runs.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    let settings = Settings::read(config);
    let _ = config.connect.secret("password");
    config.check()?;
    Ok(install::script(&settings))
}

/// The grant that an account's name says.
fn grant_of(account: &str) -> Option<GrantId> {
    GrantId::from_digits(account.strip_prefix("jit_")?)
}

/// `*` and SHA-1 of SHA-1 of the password: what `mysql_native_password` keeps. Unsalted and fast to guess against, so
/// right only for a password that cannot be guessed.
fn native_hash(password: &SecretString) -> String {
    let once = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, password.expose_secret().as_bytes());
    let twice = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    let hex: String = twice.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
    format!("*{hex}")
}

fn is_native_hash(text: &str) -> bool {
    text.strip_prefix('*').is_some_and(|hex| hex.len() == 40 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F')))
}

#[async_trait]
impl Target for Mysql {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let template = self.settings.offers.get(&asked.offer.name);
        let template =
            template.ok_or_else(|| TargetError::Unacceptable(format!("`{}` is not offered here", asked.offer.name)))?;
        let verifier = match asked.verifier {
            None => None,
            Some(Verifier::MysqlNative(text)) if is_native_hash(text) => Some(text.clone()),
            Some(Verifier::MysqlNative(_)) => {
                return Err(TargetError::Unacceptable("this is not `*` and 40 upper-case hexadecimal digits".to_owned()));
            }
            Some(other) => {
                let text = format!("this target needs a verifier of kind `mysql_native`, not `{}`", other.kind());
                return Err(TargetError::Unacceptable(text));
            }
        };
        let secret = if verifier.is_some() { SecretOrigin::Caller } else { SecretOrigin::Writ };
        let expires_at = Timestamp::from_secs(asked.expires_at.secs());
        let body = Body {
            kind: "mysql".to_owned(),
            target: self.settings.target.to_string(),
            account: format!("jit_{}", asked.grant.digits()),
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
            format!("create account `{}`@`%`", body.account),
            format!("it gets the role `{}` and nothing else; at most {} sessions at once", body.template, template.sessions_max),
            format!("the server removes it after {} seconds since 1970", body.expires),
        ];
        if !params.is_empty() {
            summary.push(format!("views see {}", params.join(", ")));
        }
        Ok(Plan {
            grant: asked.grant,
            offer: asked.offer.name.clone(),
            handle: body.account,
            expires_at,
            secret,
            summary,
            canonical,
            secret_seed: SecretBox::new(Box::new(asked.entropy)),
        })
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        let foreign = |_| TargetError::NotShown("a plan that is not this target's");
        let body: Body = serde_json::from_slice(&plan.canonical).map_err(foreign)?;
        let (verifier, secrets) = match body.verifier {
            Some(verifier) => (verifier, BTreeMap::new()),
            None => {
                let password = SecretString::from(URL_SAFE_NO_PAD.encode(plan.secret_seed.expose_secret()));
                (native_hash(&password), BTreeMap::from([("password".to_owned(), password)]))
            }
        };
        let params = serde_json::to_string(&body.params).map_err(foreign)?;
        let pool = self.pools.issue()?;
        let call = sqlx::query("CALL writ_lease.issue(?, ?, ?, ?, ?, ?)")
            .bind(&body.account)
            .bind(&body.template)
            .bind(body.expires)
            .bind(verifier)
            .bind(params)
            .bind(&body.task)
            .execute(&pool);
        self.pools.call(call).await?;
        let at = &self.settings.at;
        let mut fields = BTreeMap::from([
            ("user".to_owned(), body.account),
            ("host".to_owned(), at.host.clone()),
            ("port".to_owned(), at.port.to_string()),
            ("tls".to_owned(), at.tls.word().to_owned()),
        ]);
        fields.extend(at.database.clone().map(|database| ("database".to_owned(), database)));
        if let Some(pem) = at.ca.as_deref().and_then(|pem| std::str::from_utf8(pem).ok()) {
            fields.insert("ca_pem".to_owned(), pem.to_owned());
        }
        Ok(Minted { fields, secrets, to_revoke: None })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        end::step(&self.pools, step, handle).await
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        let pool = self.pools.end()?;
        let rows = self.pools.call(sqlx::query("CALL writ_lease.list()").fetch_all(&pool)).await?;
        let found = rows.iter().filter_map(|row| {
            let handle: String = row.try_get_unchecked(0).ok()?;
            let expires: Option<i64> = row.try_get_unchecked(1).ok();
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
            let mut connection = MySqlConnection::connect_with(&options).await?;
            sqlx::query("SELECT 1").execute(&mut connection).await?;
            connection.close().await
        };
        match within(limit, login).await? {
            Ok(()) => Ok(Acceptance::Accepted),
            Err(error) if connect::is_login_refused(&error) => Ok(Acceptance::Refused),
            Err(error) => Err(connect::classify(&error)),
        }
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        scan::scan(&self.pools).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_what_the_server_keeps() {
        // SELECT PASSWORD('password') on MariaDB 10.11.
        let hash = native_hash(&SecretString::from("password"));
        assert_eq!(hash, "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19");
        assert!(is_native_hash(&hash));
        for bad in ["password", "2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19", "*2470c0c06dee42fd1618bb99005adca2ec9d1e19", "*24'--"]
        {
            assert!(!is_native_hash(bad), "{bad}");
        }
    }
}
