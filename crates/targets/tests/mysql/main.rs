//! The MariaDB target against a real server: the life of a credential, attacks with the broker's real account, what a
//! credential can and cannot do, crashes, the examination and the scan.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod attacks;
mod examination;
mod life;

use authority::target::{Asked, Evidence, Handle, Minted, Plan, Target, TargetError, Verifier};
use domain::{Ending, GrantId, Offer, OfferName, Params, Reading, SecretRef, Sensitivity, Sink, Timestamp, ToolTraits, Value};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlSslMode};
use sqlx::{ConnectOptions as _, Row as _};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use targets::config::{OfferConfig, Surroundings, TargetConfig};
use testkit::{RealMariadb, shown};

/// How often a step that cannot be done yet is done again.
const STEP_TRIES_MAX: usize = 20;
const BROKER: &str = "writ_broker";
const BROKER_PASSWORD: &str = "broker-password-of-the-test";

struct TestSurroundings;

impl Surroundings for TestSurroundings {
    fn read(&self, _: &SecretRef) -> Result<SecretString, String> {
        Ok(SecretString::from(BROKER_PASSWORD))
    }

    fn locate(&self, path: &str) -> PathBuf {
        PathBuf::from(path)
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

/// The real clock: the server has it too.
fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "a real server has the real time")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_secs(i64::try_from(since.as_secs()).unwrap())
}

/// A server with an application's tables, Writ's functions, and the target on it.
struct Lab {
    server: RealMariadb,
    target: Arc<dyn Target>,
    config: TargetConfig,
    drawn: AtomicU8,
}

/// What the application's administrator has made before Writ comes.
const APPLICATION: &str = "
CREATE DATABASE shop CHARACTER SET utf8mb4;
USE shop;
CREATE TABLE orders (id int PRIMARY KEY, region varchar(8) NOT NULL, total int NOT NULL);
INSERT INTO orders VALUES (1, 'eu', 10), (2, 'us', 20), (3, 'eu', 30);
CREATE TABLE integration_tokens (token text);
INSERT INTO integration_tokens VALUES ('sk-live-secret');
CREATE TABLE messages (body text);
CREATE USER alice@'%' IDENTIFIED BY 'alice-password';
";

/// What the administrator does after the install script: rows by the credential's parameter, through a view.
const RULES: &str = "
CREATE SQL SECURITY DEFINER VIEW shop.my_orders AS SELECT id, region, total FROM shop.orders WHERE region = writ_lease.param('region');
GRANT SELECT ON shop.my_orders TO orders_read;
";

impl Lab {
    /// `None` if there is no PostgreSQL here.
    fn start() -> Option<Self> {
        let server = RealMariadb::start()?;
        server.sql(APPLICATION).unwrap();
        let config = config(server.port());
        let surroundings: Arc<dyn Surroundings> = Arc::new(TestSurroundings);
        let script = targets::install_script(&config, &surroundings).unwrap();
        // Twice: it may be run again at any time.
        server.sql(&script).unwrap();
        server.sql(&script).unwrap();
        server.sql(&format!("ALTER USER {BROKER}@'%' IDENTIFIED BY '{BROKER_PASSWORD}'")).unwrap();
        server.sql(RULES).unwrap();
        let target = targets::open(&config, &surroundings).unwrap();
        Some(Self { server, target, config, drawn: AtomicU8::new(1) })
    }

    fn grant(&self) -> GrantId {
        GrantId::from_bytes([self.drawn.fetch_add(1, Ordering::SeqCst); 16])
    }

    fn plan_for(&self, grant: GrantId, verifier: Option<&Verifier>, secs: u64) -> Result<Plan, TargetError> {
        let offer = &self.config.offers[&offer_name()].offer;
        self.target.plan(&Asked {
            grant,
            task: domain::TaskId::from_bytes([9; 16]),
            agent: &"support-bot".parse().unwrap(),
            intent: &"refund".parse().unwrap(),
            offer,
            params: &Params(BTreeMap::from([("region".to_owned(), Value::Text("eu".to_owned()))])),
            verifier,
            now: now(),
            expires_at: now().plus_secs(secs),
            entropy: [self.drawn.fetch_add(1, Ordering::SeqCst); 32],
        })
    }

    /// A credential for orders of the region `eu`.
    async fn mint(&self, secs: u64) -> (Plan, Minted) {
        let plan = self.plan_for(self.grant(), None, secs).unwrap();
        let minted = self.target.issue(&plan, &shown(&plan).await).await.unwrap();
        (plan, minted)
    }

    async fn end(&self, step: Ending, plan: &Plan) -> Result<Evidence, TargetError> {
        let handle =
            Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke: None };
        self.target.end(step, &handle).await
    }

    /// Every step, as the worker walks them: what cannot be done yet is done again.
    async fn take_back(&self, plan: &Plan) {
        for step in [Ending::CloseAuth, Ending::EndSessions, Ending::Clean, Ending::Verify] {
            let mut tries = 0;
            while let Err(error) = self.end(step, plan).await {
                tries += 1;
                assert!(matches!(error, TargetError::Unreachable(_)) && tries < STEP_TRIES_MAX, "{step:?}: {error}");
            }
        }
    }

    async fn login(&self, user: &str, password: &str) -> Result<MySqlConnection, sqlx::Error> {
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(self.server.port()).username(user).password(password);
        options.ssl_mode(MySqlSslMode::Disabled).connect().await
    }

    /// A session with a credential.
    async fn session(&self, minted: &Minted) -> Result<MySqlConnection, sqlx::Error> {
        self.login(&minted.fields["user"], minted.secrets["password"].expose_secret()).await
    }

    /// A session of our account, as somebody who stole its password has it.
    async fn broker(&self) -> MySqlConnection {
        self.login(BROKER, BROKER_PASSWORD).await.unwrap()
    }

    fn accounts(&self) -> String {
        self.server.sql("SELECT User FROM mysql.global_priv WHERE User LIKE 'jit%' ORDER BY 1").unwrap()
    }
}

fn offer_name() -> OfferName {
    "read_orders".parse().unwrap()
}

fn config(port: u16) -> TargetConfig {
    let offer = Offer {
        name: offer_name(),
        description: "Reads the orders of one region.".to_owned(),
        params: BTreeMap::new(),
        traits: ToolTraits {
            reading: Reading { untrusted: true, sensitivity: Sensitivity::Confidential },
            sink: Sink::None,
            clear_arguments: Vec::new(),
        },
        lifetime_secs: 600,
    };
    let connect = format!("host = '127.0.0.1'\nport = {port}\nuser = '{BROKER}'\npassword = {{ env = 'X' }}\ntls = 'off'");
    TargetConfig {
        kind: "mysql".to_owned(),
        name: "shop-db".parse().unwrap(),
        connect: connect.parse().unwrap(),
        offers: BTreeMap::from([(
            offer_name(),
            OfferConfig { offer, own: "template = 'orders_read'\nlive_max = 100".parse().unwrap() },
        )]),
    }
}

/// What went wrong: the SQLSTATE if it is one of Writ's, otherwise the server's number.
async fn state(connection: &mut MySqlConnection, sql: &str) -> String {
    let Err(error) = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(connection).await else { return "ok".to_owned() };
    let Some(error) = error.as_database_error() else { return error.to_string() };
    let code = error.code().map(std::borrow::Cow::into_owned).unwrap_or_default();
    if code.starts_with("WL") { code } else { error.downcast_ref::<MySqlDatabaseError>().number().to_string() }
}

/// The first field of the first row.
async fn ask(connection: &mut MySqlConnection, sql: &str) -> Result<String, sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).fetch_one(connection).await?.try_get_unchecked(0)
}
