//! Real kills of a broker that issues and takes back credentials: a child process over SQLite and over a target of files
//! is killed with signal 9 at random, again and again; what starts after it leaves nothing of ours at the target.
//!
//! The child is this very test binary, running the ignored test [`child_brokers`], as in `crash`.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use authority::ports::{GrantArchive, GrantQuery};
use authority::target::{Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError};
use authority::{Actor, ConfiguredTarget, CredentialRequest, ShownPlan};
use domain::{EndReason, Ending, GrantState, SecretOrigin};
use serde_json::json;
use tempfile::TempDir;
use testkit::{Backing, FakeTarget, ISSUER, ManualClock, World, agent, configured, credential_files, profile, task_request};

use crate::rig::{check_log, config, keys, log_key};

/// How often the child is killed.
const KILLS: usize = 12;

/// A target whose accounts are files: they survive whoever made them.
struct Files(PathBuf);

impl Files {
    fn names(&self) -> Vec<String> {
        fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn saw(what: &str) -> Evidence {
    Evidence { facts: BTreeMap::from([("saw", what.to_owned())]), again_at: None }
}

#[async_trait]
impl Target for Files {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let handle = asked.grant.to_string().replace("grt_", "jit_");
        Ok(Plan {
            grant: asked.grant,
            offer: asked.offer.name.clone(),
            canonical: format!("{handle} {}", asked.expires_at.millis()).into_bytes(),
            summary: Vec::new(),
            handle,
            expires_at: asked.expires_at,
            secret: SecretOrigin::Writ,
            secret_seed: Box::new(asked.entropy).into(),
        })
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        fs::File::create_new(self.0.join(&plan.handle)).unwrap().write_all(b"open").unwrap();
        tokio::task::yield_now().await;
        Ok(Minted {
            fields: BTreeMap::from([("user".to_owned(), plan.handle.clone())]),
            secrets: BTreeMap::new(),
            to_revoke: Some("hush".into()),
        })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        tokio::task::yield_now().await;
        let path = self.0.join(handle.handle);
        if !path.exists() {
            return Ok(saw("not_found"));
        }
        match step {
            Ending::CloseAuth => fs::write(path, b"closed").unwrap(),
            Ending::EndSessions => assert_eq!(fs::read(path).unwrap(), b"closed"),
            Ending::Clean => fs::remove_file(path).unwrap(),
            Ending::Verify => return Err(TargetError::Refused("it is still there".into())),
        }
        Ok(saw("done"))
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        let names = self.names().into_iter().filter_map(|handle| {
            let grant = format!("grt_{}", handle.strip_prefix("jit_")?).parse().ok()?;
            Some(Found { handle, grant, expires_at: None })
        });
        Ok(names.collect())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        Ok(Vec::new())
    }

    async fn try_use(&self, minted: &Minted, _: Duration) -> Result<Acceptance, TargetError> {
        let content = fs::read(self.0.join(&minted.fields["user"])).unwrap_or_default();
        Ok(if content == b"open" { Acceptance::Accepted } else { Acceptance::Refused })
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        Ok(Vec::new())
    }
}

/// A broker over what is in the directory.
async fn broker(dir: &Path, clock: &Arc<ManualClock>) -> (World, store::Store) {
    let store = store::open(config(dir, Duration::from_millis(20)), keys(), clock.clone()).unwrap();
    let target =
        ConfiguredTarget { profile: profile("orders-db"), driver: Arc::new(Files(dir.join("target"))), revision: String::new() };
    let other = configured("other-db", &Arc::new(FakeTarget::default()));
    let seed = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let store_as = Arc::new(store.clone());
    let backing = Backing { ledger: store_as.clone(), archive: store_as.clone(), published: store_as, log_key: log_key(), seed };
    let agents = vec![agent("bot", &["fix-orders"])];
    let world = World::backed(&credential_files(), agents, vec![target, other], (clock.clone(), backing)).await;
    (world, store)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "started as a child process by the other test of this file"]
async fn child_brokers() {
    let mut dir = String::new();
    std::io::stdin().read_line(&mut dir).unwrap();
    let clock = Arc::new(ManualClock::default());
    // Time goes on between two lives.
    let starts = Path::new(dir.trim()).join("starts");
    let lives = fs::read(&starts).unwrap_or_default().len() as u64;
    clock.advance_secs(100 * lives);
    fs::write(starts, vec![b'.'; lives as usize + 1]).unwrap();
    let (world, _store) = broker(Path::new(dir.trim()), &clock).await;
    world.authority.run_credentials().await;
    for round in 0_u64.. {
        let once = json!({ "jti": format!("{lives}-{round}") });
        let evidence = world.issuer.token_with("workload:bot", ISSUER, world.now(), once);
        let issued = world.issue_with(evidence, task_request("fix-orders", json!({ "region": "eu" }))).await.unwrap();
        let caller = world.present_here(&issued).unwrap();
        let ask = || CredentialRequest {
            target: "orders-db".parse().unwrap(),
            offer: "read_orders".parse().unwrap(),
            params: json!({ "region": "eu" }).as_object().unwrap().clone(),
            lifetime_secs: None,
            verifier: None,
        };
        let (first, second) =
            tokio::join!(world.authority.request_credential(&caller, ask()), world.authority.request_credential(&caller, ask()));
        let (first, _) = (first.unwrap(), second.unwrap());
        match round % 3 {
            0 => world.authority.end_task(caller.task(), &Actor::System, EndReason::Revoked).await.unwrap(),
            1 => world.authority.return_credential(&caller, first.grant).await.unwrap(),
            _ => {}
        }
        world.authority.run_credentials().await;
        std::io::stdout().write_all(b"done\n").unwrap();
    }
}

fn start(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let me = std::env::current_exe().unwrap();
    let arguments = ["--exact", "credential_crash::child_brokers", "--ignored", "--nocapture"];
    let mut command = Command::new(me);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "{}", dir.display()).unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    (child, output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_leaves_no_credential_behind() {
    let dir = TempDir::new().unwrap();
    let target = dir.path().join("target");
    fs::create_dir(&target).unwrap();
    fs::write(target.join("postgres"), "not ours").unwrap();
    let mut stood = 0;
    for kill in 0..KILLS {
        let (mut child, mut output) = start(dir.path());
        let mut line = String::new();
        // It lived for a while; the moment of its death within the next round is whatever it is.
        let mut rounds = 0;
        while rounds <= kill % 4 {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "the child ended by itself");
            // The test runner says something too.
            rounds += usize::from(line.trim_end().ends_with("done"));
        }
        #[expect(clippy::disallowed_methods, reason = "not to wait for anything: the kill shall come at any moment")]
        std::thread::sleep(Duration::from_micros(1_500 * kill as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        stood += Files(target.clone()).names().len() - 1;
    }
    assert!(stood > 0, "nothing ever stood when it was killed");

    let clock = Arc::new(ManualClock::default());
    let (world, store) = broker(dir.path(), &clock).await;
    for _ in 0..10 {
        clock.advance_secs(900);
        let _ = world.authority.sweep().await;
        world.authority.run_credentials().await;
    }
    assert_eq!(Files(target).names(), ["postgres"]);
    let standing = GrantQuery { standing_only: true, limit: 10, ..GrantQuery::default() };
    assert_eq!(store.grants(standing).await.unwrap(), []);
    let all = store.grants(GrantQuery { limit: 1_000, ..GrantQuery::default() }).await.unwrap();
    assert!(
        all.len() > KILLS && all.iter().all(|record| record.grant.state == GrantState::VerifiedDead && record.sealed.is_none())
    );
    drop(world);
    store.close();
    check_log(dir.path());
}
