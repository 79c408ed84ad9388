//! A target in memory that keeps the promises of the port, and can be told to break them: to fail before or after the deed,
//! to refuse, to hang, to be away, to forget. Also a policy folder with two such targets.

use async_trait::async_trait;
use authority::ShownPlan;
use authority::target::{
    Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError, TargetProfile,
};
use domain::{Ending, GrantId, SecretOrigin, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Where a target breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum At {
    /// Creating a credential.
    Issue,
    /// A step of taking it back.
    End(u8),
    /// Listing.
    Inventory,
    /// Using a credential.
    Use,
}

impl At {
    /// Every place.
    pub const ALL: [Self; 7] = [Self::Issue, Self::End(0), Self::End(1), Self::End(2), Self::End(3), Self::Inventory, Self::Use];

    fn of(step: Ending) -> Self {
        Self::End(match step {
            Ending::CloseAuth => 0,
            Ending::EndSessions => 1,
            Ending::Clean => 2,
            Ending::Verify => 3,
        })
    }
}

/// How it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fails {
    /// Nothing is done, and it says that it cannot be reached.
    Before,
    /// It is done, and it says that it cannot be reached.
    After,
    /// Nothing is done, and it refuses.
    Refuses,
    /// Nothing is done, and it never answers.
    Hangs,
}

#[derive(Debug, Clone)]
struct Account {
    grant: GrantId,
    open: bool,
    sessions: u32,
    expires_at: Timestamp,
}

#[derive(Default)]
struct State {
    accounts: BTreeMap<String, Account>,
    foreign: BTreeSet<String>,
    faults: BTreeMap<At, Fails>,
    away: bool,
    deaf: bool,
    secretive: bool,
    stubborn: bool,
    by_name: bool,
    glued: Option<String>,
    proof_at: Option<Timestamp>,
    revoked_with: Vec<String>,
    calls: u64,
    issued: u64,
}

/// A target in memory.
pub struct FakeTarget {
    state: Mutex<State>,
    /// Issuing takes a turn here; none are free while it is held up.
    turns: Semaphore,
}

impl Default for FakeTarget {
    fn default() -> Self {
        Self { state: Mutex::default(), turns: Semaphore::new(Semaphore::MAX_PERMITS) }
    }
}

impl FakeTarget {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From now on it breaks there like this; `None` heals.
    pub fn break_at(&self, at: At, how: Option<Fails>) {
        match how {
            Some(how) => drop(self.state().faults.insert(at, how)),
            None => drop(self.state().faults.remove(&at)),
        }
    }

    /// It is down, or back.
    pub fn away(&self, away: bool) {
        self.state().away = away;
    }

    /// It takes credentials back in words only.
    pub fn deaf(&self, deaf: bool) {
        self.state().deaf = deaf;
    }

    /// It does not list what is there.
    pub fn secretive(&self, secretive: bool) {
        self.state().secretive = secretive;
    }

    /// It makes every secret itself, whatever the caller made.
    pub fn stubborn(&self, stubborn: bool) {
        self.state().stubborn = stubborn;
    }

    /// What it makes is taken back by its name alone: there is nothing to be kept for it.
    pub fn by_name(&self, by_name: bool) {
        self.state().by_name = by_name;
    }

    /// Something of this name depends on others there, and cannot be removed.
    pub fn glue(&self, handle: &str) {
        self.state().glued = Some(handle.to_owned());
    }

    /// Nothing depends on others any more.
    pub fn unglue(&self) {
        self.state().glued = None;
    }

    /// What it takes away from now on is remembered elsewhere until then.
    pub fn proof_at(&self, at: Timestamp) {
        self.state().proof_at = Some(at);
    }

    /// Holds issuing up until [`FakeTarget::go_on`].
    pub fn hold_up(&self) {
        self.turns.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets everything that is held up go on.
    pub fn go_on(&self) {
        self.turns.add_permits(Semaphore::MAX_PERMITS);
    }

    /// Puts something there that is not ours.
    pub fn put_foreign(&self, name: &str) {
        self.state().foreign.insert(name.to_owned());
    }

    /// What is there that is not ours.
    #[must_use]
    pub fn foreign(&self) -> Vec<String> {
        self.state().foreign.iter().cloned().collect()
    }

    /// Puts something there that bears our mark and that nobody here made.
    pub fn put_stray(&self, grant: GrantId, handle: &str) {
        let account = Account { grant, open: true, sessions: 1, expires_at: Timestamp::from_secs(i64::MAX / 1_000) };
        self.state().accounts.insert(handle.to_owned(), account);
    }

    /// Forgets a credential, as an administrator would delete it.
    pub fn forget(&self, handle: &str) {
        self.state().accounts.remove(handle);
    }

    /// Opens a session with a credential, if it lets its holder in.
    #[must_use]
    pub fn log_in(&self, handle: &str) -> bool {
        let mut state = self.state();
        let found = state.accounts.get_mut(handle).filter(|account| account.open);
        found.is_some_and(|account| {
            account.sessions += 1;
            true
        })
    }

    /// The names that stand there.
    #[must_use]
    pub fn standing(&self) -> Vec<String> {
        self.state().accounts.keys().cloned().collect()
    }

    /// Sessions that are open with any credential.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.state().accounts.values().map(|account| account.sessions).sum()
    }

    /// How often it was asked for anything.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// How many credentials it made.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.state().issued
    }

    /// What it was given to revoke with.
    #[must_use]
    pub fn revoked_with(&self) -> Vec<String> {
        self.state().revoked_with.clone()
    }

    async fn doing<T>(&self, at: At, work: impl FnOnce(&mut State) -> Result<T, TargetError>) -> Result<T, TargetError> {
        let fault = {
            let mut state = self.state();
            state.calls += 1;
            if state.away { Some(Fails::Before) } else { state.faults.get(&at).copied() }
        };
        tokio::task::yield_now().await;
        let unreachable = || TargetError::Unreachable("it was told to break".into());
        match fault {
            Some(Fails::Before) => Err(unreachable()),
            Some(Fails::Refuses) => Err(TargetError::Refused("it was told to break".into())),
            Some(Fails::Hangs) => std::future::pending().await,
            Some(Fails::After) => {
                work(&mut self.state())?;
                Err(unreachable())
            }
            None => work(&mut self.state()),
        }
    }
}

fn saw(name: &'static str, value: impl ToString) -> Evidence {
    Evidence { facts: [(name, value.to_string())].into(), again_at: None }
}

#[async_trait]
impl Target for FakeTarget {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        if asked.offer.name.as_str() == "impossible" {
            return Err(TargetError::Unacceptable("this cannot be expressed here".into()));
        }
        let hex: String = asked.grant.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let handle = format!("jit_{hex}");
        let (offer, until) = (&asked.offer.name, asked.expires_at.millis());
        let params = serde_json::Value::Object(asked.params.to_json());
        Ok(Plan {
            grant: asked.grant,
            offer: offer.clone(),
            canonical: format!("fake\n{handle}\n{offer}\n{until}\n{params}\n").into_bytes(),
            summary: vec![format!("makes the account {handle}")],
            handle,
            expires_at: asked.expires_at,
            secret: if asked.verifier.is_some() && !self.state().stubborn { SecretOrigin::Caller } else { SecretOrigin::Writ },
            secret_seed: Box::new(asked.entropy).into(),
        })
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        self.turns.acquire().await.unwrap().forget();
        self.turns.add_permits(1);
        let account = Account { grant: plan.grant, open: true, sessions: 0, expires_at: plan.expires_at };
        self.doing(At::Issue, |state| {
            assert!(state.accounts.insert(plan.handle.clone(), account).is_none(), "issued twice");
            state.issued += 1;
            Ok(())
        })
        .await?;
        let seed = plan.secret_seed.expose_secret();
        let password: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        let ours = plan.secret == SecretOrigin::Writ;
        Ok(Minted {
            fields: [("user".to_owned(), plan.handle.clone())].into(),
            secrets: ours
                .then(|| ("password".to_owned(), SecretString::from(format!("secret-{password}"))))
                .into_iter()
                .collect(),
            to_revoke: (!self.state().by_name).then(|| SecretString::from(format!("secret-revoker-of-{}", plan.handle))),
        })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        self.doing(At::of(step), |state| {
            if let (Ending::CloseAuth, Some(secret)) = (step, handle.to_revoke) {
                state.revoked_with.push(secret.expose_secret().to_owned());
            }
            if state.deaf {
                return Ok(saw("done", "in words"));
            }
            let Some(account) = state.accounts.get_mut(handle.handle) else { return Ok(saw("not_found", true)) };
            match step {
                Ending::CloseAuth => account.open = false,
                Ending::EndSessions if account.open => {
                    return Err(TargetError::Refused("it still lets its holder in".into()));
                }
                Ending::EndSessions => return Ok(saw("sessions", std::mem::take(&mut account.sessions))),
                Ending::Clean if state.glued.as_deref() == Some(handle.handle) => {
                    return Err(TargetError::Refused("something depends on it".into()));
                }
                Ending::Clean => {
                    state.accounts.remove(handle.handle);
                    return Ok(Evidence { again_at: state.proof_at, ..saw("done", true) });
                }
                Ending::Verify => return Err(TargetError::Refused("it is still there".into())),
            }
            Ok(saw("done", true))
        })
        .await
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        self.doing(At::Inventory, |state| {
            let found = |(handle, account): (&String, &Account)| Found {
                handle: handle.clone(),
                grant: account.grant,
                expires_at: Some(account.expires_at),
            };
            Ok(if state.secretive { Vec::new() } else { state.accounts.iter().map(found).collect() })
        })
        .await
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        Ok(Vec::new())
    }

    async fn try_use(&self, minted: &Minted, _within: Duration) -> Result<Acceptance, TargetError> {
        let user = minted.fields.get("user").cloned().unwrap_or_default();
        self.doing(At::Use, |state| {
            let open = state.accounts.get(&user).is_some_and(|account| account.open);
            Ok(if open { Acceptance::Accepted } else { Acceptance::Refused })
        })
        .await
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        Ok(Vec::new())
    }
}

/// What is known of a fake target of this name.
#[must_use]
pub fn profile(name: &str) -> TargetProfile {
    TargetProfile {
        name: name.parse().unwrap(),
        kind: "postgresql",
        owner: "team-orders".parse().unwrap(),
        issue_connections: 4,
        end_connections: 2,
        live_max: 1_000_000,
        revocation_list: None,
    }
}

/// A target as it is configured, and the fake behind it.
#[must_use]
pub fn configured(name: &str, fake: &Arc<FakeTarget>) -> authority::ConfiguredTarget {
    authority::ConfiguredTarget { profile: profile(name), driver: fake.clone(), revision: String::new() }
}

/// A policy folder with an intent that reaches the targets `orders-db` and `other-db`.
#[must_use]
pub fn credential_files() -> Vec<(&'static str, &'static str)> {
    vec![
        ("intents/fix-orders.toml", INTENT),
        ("targets/orders-db.toml", ORDERS_DB),
        ("targets/other-db.toml", OTHER_DB),
        ("main.cedar", POLICIES),
    ]
}

const INTENT: &str = r#"
name = "fix-orders"
description = "Repair the orders of one region."
owner = "team-orders"
targets = ["orders-db", "other-db"]
[params.region]
type = "string"
description = "The region."
[limits]
lifetime_secs = 7200
calls = 100000
"#;

const ORDERS_DB: &str = r#"
kind = "postgresql"
owner = "team-orders"
[offers.read_orders]
description = "Reads the orders of one region."
lifetime_secs = 600
reading = { untrusted = true, sensitivity = "confidential" }
sink = "none"
clear_arguments = ["region"]
[offers.read_orders.params.region]
type = "string"
description = "The region."
[offers.impossible]
description = "Cannot be expressed."
[offers.hidden]
description = "Nobody may have it."
"#;

const OTHER_DB: &str = r#"
kind = "postgresql"
owner = "team-orders"
[offers.read]
description = "Reads."
lifetime_secs = 600
reading = { untrusted = false, sensitivity = "public" }
sink = "none"
"#;

const POLICIES: &str = r#"
@id("tasks") permit (principal, action in [Writ::Action::"open", Writ::Action::"renew"], resource);
@id("own-region") permit (principal, action == OrdersDb::Action::"read_orders", resource)
when { context.input.region == principal.region };
@id("impossible") permit (principal, action == OrdersDb::Action::"impossible", resource);
@id("other") permit (principal, action == OtherDb::Action::"read", resource);
"#;
