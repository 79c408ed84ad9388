//! A small world: one policy, one issuer, some agents, an authority over a ledger in memory.

use crate::{Holder, ManualClock, MemoryLedger, SeededEntropy, TestIssuer};
use async_trait::async_trait;
use auditlog::note::VerifierKey;
use authority::ports::{Archive, Clock, Ledger, PublishedLog};
use authority::{
    Actor, Authority, Caller, Compiled, ConfiguredTarget, EvidenceInput, IssueError, IssueRequest, Issued, KeySource, Parts,
    Policy, Presented, Provider, ProviderKeys, Scheme, SignerConfig, SourceFile, Sources, TaskRequest, TokenKeys,
    Unauthenticated, WrappingKey,
};
use domain::{Agent, AgentState, ClaimPattern, IdentityRule, ProviderName, Upstream};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::sync::Arc;
use token::algorithm::Algorithm;
use token::dpop::TargetUri;
use token::jwks::KeySet;
use token::sign::Es256Signer;
use token::verify::{EvidenceRules, Profile};
use zeroize::Zeroizing;

/// Where Writ is, in tests.
pub const ISSUER: &str = "https://writ.test";

/// How long dead grants are kept, in tests.
pub const GRANTS_KEPT_SECS: u64 = 86_400;

/// Keys that never change.
pub struct StaticKeys(pub Arc<KeySet>);

#[async_trait]
impl KeySource for StaticKeys {
    async fn keys(&self, _provider: &ProviderName) -> Option<ProviderKeys> {
        Some(ProviderKeys::Jwks(Arc::clone(&self.0)))
    }

    async fn refreshed(&self, _provider: &ProviderName) -> Option<ProviderKeys> {
        Some(ProviderKeys::Jwks(Arc::clone(&self.0)))
    }
}

/// What a world stands on.
pub struct Backing {
    /// The write side.
    pub ledger: Arc<dyn Ledger>,
    /// The read side.
    pub archive: Arc<dyn Archive>,
    /// The published log.
    pub published: Arc<dyn PublishedLog>,
    /// The key of its checkpoints.
    pub log_key: VerifierKey,
    /// What its random bytes begin with; another one for each start.
    pub seed: u64,
}

/// Everything that a test needs.
pub struct World {
    /// The authority.
    pub authority: Authority,
    /// Its clock.
    pub clock: Arc<ManualClock>,
    /// Its ledger.
    pub ledger: Arc<MemoryLedger>,
    /// The issuer of provider `ci`.
    pub issuer: TestIssuer,
    /// The agent's key.
    pub holder: Holder,
}

/// An agent of provider `ci` whose subject is `workload:NAME`, owned, reviewed, and allowed these intents.
#[must_use]
pub fn agent(name: &str, intents: &[&str]) -> Agent {
    Agent {
        id: name.parse().unwrap(),
        owner: Some("team-support".parse().unwrap()),
        purpose: "to be tested".into(),
        rules: vec![IdentityRule {
            provider: "ci".parse().unwrap(),
            claims: vec![("sub".into(), ClaimPattern::Exact(format!("workload:{name}").into()))],
        }],
        intents: intents.iter().map(|intent| intent.parse().unwrap()).collect(),
        review_by: domain::Timestamp::from_secs(4_000_000_000),
        state: AgentState::Active,
        allow_bearer: false,
        declared: false,
    }
}

/// A request to open a task.
#[must_use]
pub fn task_request(intent: &str, parameters: Value) -> TaskRequest {
    let Value::Object(parameters) = parameters else { panic!("parameters are an object") };
    TaskRequest::Open { intent: intent.into(), parameters, lifetime_secs: None, replaces: None }
}

impl World {
    /// The world of [`crate::fixture`], with agents `bot` (both intents) and `mailer` (only `mail`).
    pub async fn fixture() -> Self {
        let files = crate::fixture::policy_files();
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let agents = vec![agent("bot", &["refund-order", "mail"]), agent("mailer", &["mail"])];
        Self::new(&files, agents, vec![crate::fixture::orders("http://127.0.0.1:9/mcp")]).await
    }

    /// A world with this policy folder (path and text of each file), these agents and upstreams.
    pub async fn new(files: &[(&str, &str)], agents: Vec<Agent>, upstreams: Vec<Upstream>) -> Self {
        let (clock, ledger) = (Arc::new(ManualClock::default()), Arc::new(MemoryLedger::default()));
        Self::over(files, agents, upstreams, Vec::new(), (clock, ledger)).await
    }

    /// The same with these targets, over what a clock and a ledger already hold: a world that starts again.
    pub async fn over(
        files: &[(&str, &str)],
        agents: Vec<Agent>,
        upstreams: Vec<Upstream>,
        targets: Vec<ConfiguredTarget>,
        (clock, ledger): (Arc<ManualClock>, Arc<MemoryLedger>),
    ) -> Self {
        let backing = Backing {
            ledger: ledger.clone(),
            archive: ledger.clone(),
            published: ledger.clone(),
            log_key: ledger.log_key(),
            // Another start draws other bytes: names that it makes must be new.
            seed: 1 + (ledger.events().len() as u64) * 1_000_000,
        };
        let parts = (upstreams, targets);
        Self { ledger, ..Self::start(files, agents, parts, (clock, backing)).await }
    }

    /// The same over a real store. Its `ledger` is one that nobody uses.
    pub async fn backed(
        files: &[(&str, &str)],
        agents: Vec<Agent>,
        targets: Vec<ConfiguredTarget>,
        (clock, backing): (Arc<ManualClock>, Backing),
    ) -> Self {
        Self::start(files, agents, (Vec::new(), targets), (clock, backing)).await
    }

    async fn start(
        files: &[(&str, &str)],
        agents: Vec<Agent>,
        (upstreams, targets): (Vec<Upstream>, Vec<ConfiguredTarget>),
        (clock, backing): (Arc<ManualClock>, Backing),
    ) -> Self {
        let files = files.iter().map(|(path, text)| SourceFile { path: (*path).into(), text: (*text).into() }).collect();
        let Compiled { policy, .. } = match Policy::compile(&Sources { files }) {
            Ok(compiled) => compiled,
            Err(diagnostics) => panic!("the policy of the test does not compile: {diagnostics:#?}"),
        };
        let issuer = TestIssuer::new("https://ci.test");
        let keys = Arc::new(KeySet::parse(issuer.jwks().as_bytes()).unwrap());
        let signer = Es256Signer::from_pkcs8(&Es256Signer::generate_pkcs8().unwrap()).unwrap();
        let authority = Authority::start(Parts {
            issuer: ISSUER.into(),
            token_lifetime_secs: 300,
            dpop_nonce_required: false,
            providers: vec![provider(&issuer.issuer)],
            keys: Arc::new(StaticKeys(keys)),
            policy,
            upstreams,
            targets,
            grants_kept_secs: GRANTS_KEPT_SECS,
            ledger: backing.ledger,
            archive: backing.archive,
            published: backing.published,
            signer: SignerConfig {
                log_key: backing.log_key,
                keys: TokenKeys { active: Arc::new(signer), published: Vec::new() },
                token_lifetime_secs_max: 3_600,
            },
            wrapping: WrappingKey::new(Zeroizing::new([9; 32])),
            clock: clock.clone(),
            entropy: Arc::new(SeededEntropy::new(backing.seed)),
        })
        .await
        .unwrap();
        authority.put_agents(agents, &Actor::System).await.unwrap();
        Self { authority, clock, ledger: Arc::default(), issuer, holder: Holder::default() }
    }

    /// Unix seconds now.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.clock.now().secs()
    }

    /// Opens (or renews) a task as the agent of that name, bound to the world's DPoP key.
    ///
    /// # Errors
    /// The authority's.
    pub async fn issue(&self, agent: &str, task: TaskRequest) -> Result<Issued, IssueError> {
        let evidence = self.issuer.token(&format!("workload:{agent}"), ISSUER, self.now());
        self.issue_with(evidence, task).await
    }

    /// The same with this evidence.
    ///
    /// # Errors
    /// The authority's.
    pub async fn issue_with(&self, evidence: String, task: TaskRequest) -> Result<Issued, IssueError> {
        let uri = format!("{ISSUER}/oauth/token");
        let nonce = serde_json::json!({ "nonce": self.authority.dpop_nonce() });
        let proof = self.holder.proof_with("POST", &uri, self.now(), None, nonce);
        let target = TargetUri::parse(&uri).unwrap();
        let holder = authority::Holder { dpop: Some((&proof, "POST", &target)), certificate: None };
        let request = IssueRequest { evidence: EvidenceInput::Jwt(evidence.into()), task, resources: Vec::new(), holder };
        self.authority.issue(request).await
    }

    /// Presents an issued token at an upstream's endpoint, with a fresh proof.
    ///
    /// # Errors
    /// The authority's.
    pub fn present(&self, issued: &Issued, upstream: &str) -> Result<Caller, Unauthenticated> {
        let uri = format!("{ISSUER}/mcp/{upstream}");
        self.present_at(issued, &uri, &uri)
    }

    /// Presents an issued token at an endpoint of Writ itself, with a fresh proof.
    ///
    /// # Errors
    /// The authority's.
    pub fn present_here(&self, issued: &Issued) -> Result<Caller, Unauthenticated> {
        self.present_at(issued, &format!("{ISSUER}/v1/credentials"), ISSUER)
    }

    fn present_at(&self, issued: &Issued, uri: &str, audience: &str) -> Result<Caller, Unauthenticated> {
        let token = issued.token.expose_secret();
        let proof = self.holder.proof("POST", uri, self.now(), Some(token));
        self.authority.authenticate(&Presented {
            scheme: Scheme::Dpop,
            token,
            dpop: Some(&proof),
            method: "POST",
            uri: &TargetUri::parse(uri).unwrap(),
            certificate: None,
            audience,
        })
    }
}

fn provider(issuer: &str) -> Provider {
    Provider {
        name: "ci".parse().unwrap(),
        rules: EvidenceRules {
            profile: Profile::Oidc { issuer: issuer.into() },
            audience: ISSUER.into(),
            algorithms: vec![Algorithm::Es256],
            leeway_secs: 30,
            lifetime_secs_max: 3_600,
            age_secs_max: 600,
        },
        single_use: true,
    }
}
