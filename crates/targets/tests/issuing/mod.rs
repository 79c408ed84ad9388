//! What the tests of several kinds of target share: a target file, a request, the decision that a plan needs, and servers
//! that are stopped again. It owns no server of its own kind.

use authority::target::{Asked, Handle, Minted, Plan, Target, TargetError, Verifier};
use domain::{
    AgentId, GrantId, IntentName, Offer, OfferName, Param, ParamType, Params, SecretRef, TaskId, Timestamp, ToolTraits, Value,
};
use secrecy::SecretString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use targets::config::{OfferConfig, Surroundings, TargetConfig};

/// Secrets from files beneath one folder.
pub(crate) struct Files(pub(crate) PathBuf);

impl Surroundings for Files {
    fn read(&self, reference: &SecretRef) -> Result<SecretString, String> {
        match reference {
            SecretRef::File(path) => {
                std::fs::read_to_string(path).map(|text| text.trim().to_owned().into()).map_err(|e| e.to_string())
            }
            SecretRef::Env(name) => Err(format!("no variable `{name}` in tests")),
        }
    }

    fn locate(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn now(&self) -> Timestamp {
        now()
    }
}

/// A target file of `kind`: its `[connect]` and its offers with the names of their text parameters.
pub(crate) fn target_config(kind: &str, text: &str, params: &[&str]) -> TargetConfig {
    let table: toml::Table = text.parse().unwrap();
    let offers = table["offers"].as_table().unwrap().iter().map(|(name, own)| {
        let name: OfferName = name.parse().unwrap();
        (name.clone(), OfferConfig { offer: offer(name, params), own: own.as_table().unwrap().clone() })
    });
    TargetConfig {
        kind: kind.to_owned(),
        name: "place".parse().unwrap(),
        connect: table["connect"].as_table().unwrap().clone(),
        offers: offers.collect(),
    }
}

pub(crate) fn open(config: &TargetConfig, folder: &Path) -> Arc<dyn Target> {
    let surroundings: Arc<dyn Surroundings> = Arc::new(Files(folder.to_owned()));
    targets::open(config, &surroundings).unwrap()
}

pub(crate) fn offer(name: OfferName, params: &[&str]) -> Offer {
    let param = |_: &&str| Param {
        kind: ParamType::Text,
        description: String::new(),
        default: None,
        min: None,
        max: None,
        one_of: Vec::new(),
        sensitive: false,
    };
    Offer {
        name,
        description: "for a test".to_owned(),
        params: params.iter().map(|name| ((*name).to_owned(), param(name))).collect(),
        traits: ToolTraits::default(),
        lifetime_secs: 600,
    }
}

/// What is asked for, and what the caller made.
pub(crate) struct Request {
    pub(crate) offer: Offer,
    pub(crate) params: Params,
    pub(crate) verifier: Option<Verifier>,
    pub(crate) grant: GrantId,
    pub(crate) lifetime_secs: u64,
    pub(crate) now: Timestamp,
    pub(crate) entropy: [u8; 32],
}

impl Request {
    pub(crate) fn new(offer_name: &str, params: &[(&str, &str)], verifier: Option<Verifier>) -> Self {
        let names: Vec<&str> = params.iter().map(|(name, _)| *name).collect();
        let values = params.iter().map(|(name, value)| ((*name).to_owned(), Value::Text((*value).to_owned())));
        Self {
            offer: offer(offer_name.parse().unwrap(), &names),
            params: Params(values.collect()),
            verifier,
            grant: GrantId::from_bytes(random()),
            lifetime_secs: 300,
            now: now(),
            entropy: random(),
        }
    }

    pub(crate) fn plan(&self, target: &dyn Target) -> Result<Plan, TargetError> {
        let agent: AgentId = "robot".parse().unwrap();
        let intent: IntentName = "mend".parse().unwrap();
        target.plan(&Asked {
            grant: self.grant,
            task: TaskId::from_bytes([7; 16]),
            agent: &agent,
            intent: &intent,
            offer: &self.offer,
            params: &self.params,
            verifier: self.verifier.as_ref(),
            now: self.now,
            expires_at: self.now.plus_secs(self.lifetime_secs),
            entropy: self.entropy,
        })
    }

    /// Planned, decided, logged, shown and issued.
    pub(crate) async fn issue(&self, target: &dyn Target) -> Result<(Plan, Minted), TargetError> {
        let plan = self.plan(target)?;
        let shown = testkit::shown(&plan).await;
        let minted = target.issue(&plan, &shown).await?;
        Ok((plan, minted))
    }
}

pub(crate) fn handle(plan: &Plan) -> Handle<'_> {
    Handle { grant: plan.grant, offer: &plan.offer, handle: &plan.handle, expires_at: plan.expires_at, to_revoke: None }
}

pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_secs(i64::try_from(since.as_secs()).unwrap())
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    bytes
}

/// Whether a program is there. Without it the test is skipped, loudly, unless it was demanded.
pub(crate) fn has(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return true;
    }
    assert!(std::env::var_os("WRIT_REQUIRE_SERVICES").is_none(), "missing: {missing:?}");
    eprintln!("SKIPPED: {missing:?} is not installed");
    false
}

/// Where a program is: sshd wants its whole path, and its folder is not in everybody's.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(["/usr/sbin", "/sbin"]).map(|folder| Path::new(folder).join(program)).find(|path| path.is_file())
}

/// A server that is killed when the test ends, however it ends.
pub(crate) struct Server(pub(crate) Child);

impl Server {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Asks again until it is so, for at most ten seconds.
pub(crate) async fn until<F: FnMut() -> bool>(what: &str, mut so: F) {
    for _ in 0..1_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(so(), "not so in time: {what}");
}

/// Runs a program to its end; its output, or its error text.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr) + &text(&output.stdout)) }
}
