//! The configured targets of this node: drivers, budgets, breakers, health. Owns what is true of a target as a whole;
//! single credentials are in the store and nowhere in memory, so that a hundred thousand of them cost nothing here.

use crate::Authority;
use crate::admin::to_the_end;
use crate::breaker::Breaker;
use crate::end::Actor;
use crate::error::Error;
use crate::event::change;
use crate::ports::{Archive, GrantCounts, GrantQuery, Write};
use crate::target::{Finding, Standing, Target, TargetError, TargetProfile};
use domain::{Grant, GrantId, GrantState, TargetName, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Longest time that one step of taking back, an examination or a listing may take.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest time that a listing of everything at a target may take.
pub(crate) const LISTING_TIMEOUT: Duration = Duration::from_secs(60);

/// Most latencies that are kept until somebody asks for them.
const ENDINGS_MAX: usize = 4_096;
/// Grants that are read at once.
const PAGE: usize = 1_000;

/// A target and how it is reached.
#[derive(Clone)]
pub struct ConfiguredTarget {
    /// What is known of it.
    pub profile: TargetProfile,
    /// What reaches it.
    pub driver: Arc<dyn Target>,
    /// Everything that its configuration says, in any form: a target whose revision is what it was goes on as it is.
    pub revision: String,
}

/// Whether a target may issue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It was not probed yet: nothing is issued.
    Unprobed,
    /// The last probe issued a credential, used it, took it back and proved it dead.
    Healthy {
        /// When.
        at: Timestamp,
        /// What the probe could not show, if anything: `its death is proved later`, `examined only`.
        note: Option<&'static str>,
        /// The target lists what bears our mark: what is not listed is not there.
        lists: bool,
    },
    /// The last probe failed: nothing is issued.
    Broken {
        /// When.
        at: Timestamp,
        /// Why.
        why: String,
    },
}

impl Health {
    /// The word for it: `unprobed`, `healthy`, `broken`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Unprobed => "unprobed",
            Self::Healthy { .. } => "healthy",
            Self::Broken { .. } => "broken",
        }
    }
}

/// How a target stands.
#[derive(Debug, Clone)]
pub struct TargetStatus {
    /// What is known of it.
    pub profile: TargetProfile,
    /// Its last probe.
    pub health: Health,
    /// Until its breaker lets the next attempt through; `None` while it answers.
    pub breaker_open_for: Option<Duration>,
    /// What stands there: held, and revoked but not yet proved dead (logical and physical revocation apart).
    pub counts: GrantCounts,
}

/// One configured target.
pub(crate) struct TargetState {
    pub(crate) profile: TargetProfile,
    pub(crate) driver: Arc<dyn Target>,
    revision: String,
    pub(crate) issue_budget: Semaphore,
    /// A budget of its own, so that a backlog of revocations delays no issuance and the other way round.
    pub(crate) end_budget: Semaphore,
    pub(crate) breaker: Breaker,
    health: Mutex<Health>,
    /// How long those that died since somebody asked took to die, the first ones only.
    endings: Mutex<Vec<Duration>>,
    places: Mutex<Places>,
    /// Whoever probes, takes back or compares holds it: one after the other.
    pub(crate) turn: tokio::sync::Mutex<Turn>,
}

/// The places for live credentials.
#[derive(Default)]
struct Places {
    /// Credentials that are not proved dead, about: exact when the listing was last compared.
    taken: u64,
    /// The target is being taken out: none are given any more.
    closed: bool,
}

/// When something was last done, on the monotonic clock.
#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) probed_at: Option<Duration>,
    pub(crate) reconciled_at: Option<Duration>,
    /// What an earlier process left unconfirmed was taken back.
    pub(crate) looked_back: bool,
    /// Orphans that could not be taken back the last time, by their names at the target.
    pub(crate) stuck: BTreeSet<String>,
}

impl TargetState {
    fn new(configured: ConfiguredTarget, standing: u64) -> Self {
        let ConfiguredTarget { profile, driver, revision } = configured;
        Self {
            issue_budget: Semaphore::new(profile.issue_connections.max(1)),
            end_budget: Semaphore::new(profile.end_connections.max(1)),
            breaker: Breaker::default(),
            health: Mutex::new(Health::Unprobed),
            places: Mutex::new(Places { taken: standing, closed: false }),
            turn: Default::default(),
            profile,
            driver,
            revision,
            endings: Mutex::default(),
        }
    }

    pub(crate) fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_health(&self, health: Health) {
        *self.health.lock().unwrap_or_else(PoisonError::into_inner) = health;
    }

    /// Takes a place among the live credentials; `false` if all are taken.
    pub(crate) fn take_place(&self) -> bool {
        let mut places = self.places();
        let free = !places.closed && places.taken < self.profile.live_max;
        places.taken += u64::from(free);
        free
    }

    /// Gives no places any more, or gives them again. Answers how many are taken: also by what is not in the store yet.
    fn close(&self, closed: bool) -> u64 {
        let mut places = self.places();
        places.closed = closed;
        places.taken
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // No code panics while it holds the lock, and the number is valid at every point: poison carries no news.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A credential is gone, or was not made after all.
    pub(crate) fn give_place(&self) {
        let mut places = self.places();
        places.taken = places.taken.saturating_sub(1);
    }

    /// One more stands, whatever the limit.
    pub(crate) fn set_standing_up(&self) {
        self.places().taken += 1;
    }

    pub(crate) fn set_standing(&self, standing: u64) {
        self.places().taken = standing;
    }

    /// A credential was proved dead so long after it had ended here.
    pub(crate) fn ended_after(&self, time: Duration) {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        if endings.len() < ENDINGS_MAX {
            endings.push(time);
        }
    }

    /// What an answer says about whether the target can be reached. A change is worth a line in the log.
    pub(crate) fn heard<T>(&self, answer: &Result<T, TargetError>, now: Duration) {
        let name = &self.profile.name;
        match answer {
            Err(TargetError::Unreachable(why)) if self.breaker.failed(now) => {
                tracing::warn!(target_name = %name, why, "a target does not answer; what is to be taken back there waits");
            }
            Err(TargetError::Unreachable(_)) => {}
            Ok(_) | Err(_) if self.breaker.succeeded() => tracing::info!(target_name = %name, "a target answers again"),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Grants whose credential is being created or whose record is on its way to the store: what is revoked before it is handed
/// out, is not handed out.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<GrantId, Stage>>);

/// How far a grant is that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Making,
    Revoked,
    HandedOut,
}

impl Flights {
    pub(crate) fn begin(this: &Arc<Self>, grant: GrantId) -> Flight {
        this.all().insert(grant, Stage::Making);
        Flight { all: Arc::clone(this), grant }
    }

    /// Marks a grant that is under way as revoked.
    pub(crate) fn revoke(&self, grant: GrantId) {
        self.all().entry(grant).and_modify(|stage| *stage = Stage::Revoked);
    }

    /// Whether it is under way.
    pub(crate) fn hold(&self, grant: GrantId) -> bool {
        self.all().contains_key(&grant)
    }

    /// What a row says, or will say in a moment: one that was handed out is issued.
    pub(crate) fn seen(&self, mut grant: Grant) -> Grant {
        if grant.state == GrantState::Intended && self.all().get(&grant.id) == Some(&Stage::HandedOut) {
            grant.state = GrantState::Issued;
        }
        grant
    }

    fn all(&self) -> MutexGuard<'_, HashMap<GrantId, Stage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One grant that is under way.
pub(crate) struct Flight {
    all: Arc<Flights>,
    grant: GrantId,
}

impl Flight {
    pub(crate) const fn grant(&self) -> GrantId {
        self.grant
    }

    /// It is handed out, unless it was revoked.
    pub(crate) fn hand_out(&self) -> bool {
        let mut all = self.all.all();
        let stage = all.get_mut(&self.grant).filter(|stage| **stage == Stage::Making);
        stage.map(|stage| *stage = Stage::HandedOut).is_some()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.all.all().remove(&self.grant);
    }
}

/// Everything about credentials that the authority keeps in memory.
pub(crate) struct Credentials {
    pub(crate) targets: arc_swap::ArcSwap<BTreeMap<TargetName, Arc<TargetState>>>,
    pub(crate) gate: crate::gate::LogGate,
    pub(crate) flights: Arc<Flights>,
    pub(crate) pace: crate::pace::Pace,
    pub(crate) doorbell: Notify,
}

impl Credentials {
    pub(crate) fn new(targets: Vec<ConfiguredTarget>, counts: &[(TargetName, GrantCounts)], gate: crate::gate::LogGate) -> Self {
        for (name, counts) in counts {
            if !targets.iter().any(|target| target.profile.name == *name) {
                let standing = counts.held + counts.ending;
                tracing::error!(target_name = %name, standing, "credentials that have expired were never proved dead at a target that is not configured any more: put its file back, so that what is left of them is removed");
            }
        }
        let states = targets.into_iter().map(|target| state(target, counts)).collect();
        let targets = arc_swap::ArcSwap::from_pointee(states);
        Self { targets, gate, flights: Arc::default(), pace: Default::default(), doorbell: Notify::new() }
    }

    pub(crate) fn target(&self, name: &TargetName) -> Option<Arc<TargetState>> {
        self.targets.load().get(name).cloned()
    }
}

fn state(target: ConfiguredTarget, counts: &[(TargetName, GrantCounts)]) -> (TargetName, Arc<TargetState>) {
    let name = target.profile.name.clone();
    let standing = standing_at(counts, &name);
    (name, Arc::new(TargetState::new(target, standing)))
}

/// A target may be missing at the start if nothing that stands there can be used any more.
///
/// # Errors
/// [`Error::TargetLeftOut`], or the archive's.
pub(crate) async fn refuse_left_out(
    archive: &dyn Archive,
    (targets, counts): (&[ConfiguredTarget], &[(TargetName, GrantCounts)]),
    now: Timestamp,
) -> Result<(), Error> {
    for (name, _) in counts.iter().filter(|(name, _)| !targets.iter().any(|target| target.profile.name == *name)) {
        let (mut count, mut before) = (0, None);
        loop {
            let query =
                GrantQuery { target: Some(name.clone()), standing_only: true, before, limit: PAGE, ..GrantQuery::default() };
            let page = archive.grants(query).await?;
            count += page.iter().filter(|record| record.grant.expires_at > now).count() as u64;
            before = page.last().map(|record| record.grant.id);
            if page.len() < PAGE {
                break;
            }
        }
        if count > 0 {
            return Err(Error::TargetLeftOut { target: name.to_string(), count });
        }
    }
    Ok(())
}

pub(crate) fn standing_at(counts: &[(TargetName, GrantCounts)], name: &TargetName) -> u64 {
    counts.iter().filter(|(known, _)| known == name).map(|(_, counts)| counts.held + counts.ending).sum()
}

impl Authority {
    /// Replaces the configured targets. One whose revision did not change goes on as it is; any other is probed anew before
    /// it issues again, and credentials that stand go on being taken back through the new driver of the same name.
    ///
    /// # Errors
    /// [`Error::TargetInUse`] if one that is left out, or becomes one of another kind, still has live credentials (nothing
    /// changes then), or the ledger's or the archive's.
    pub async fn set_targets(&self, targets: Vec<ConfiguredTarget>, by: &Actor) -> Result<(), Error> {
        let (this, by) = (self.clone(), by.clone());
        to_the_end(async move {
            let _one_at_a_time = this.0.admin.lock().await;
            let before = this.0.credentials.targets.load_full();
            let stays = |old: &TargetProfile| {
                targets.iter().any(|target| target.profile.name == old.name && target.profile.kind == old.kind)
            };
            let leaving: Vec<_> = before.values().filter(|state| !stays(&state.profile)).cloned().collect();
            let replaced = this.replace_targets(targets, (&before, &leaving), &by).await;
            if replaced.is_err() {
                leaving.iter().for_each(|state| _ = state.close(false));
            }
            replaced
        })
        .await
    }

    async fn replace_targets(
        &self,
        targets: Vec<ConfiguredTarget>,
        (before, leaving): (&BTreeMap<TargetName, Arc<TargetState>>, &[Arc<TargetState>]),
        by: &Actor,
    ) -> Result<(), Error> {
        // First: what is asked for from here on gets no place, and what got one is counted, though its row may come later.
        let taken: Vec<_> = leaving.iter().map(|state| (&state.profile.name, state.close(true))).collect();
        let now = self.0.clock.now();
        let counts = self.0.archive.grant_counts(now).await?;
        for (name, taken) in taken {
            let count = standing_at(&counts, name).max(taken);
            if count > 0 {
                return Err(Error::TargetInUse { target: name.to_string(), count });
            }
        }
        let names: Vec<_> = targets.iter().map(|target| target.profile.name.as_str().into()).collect();
        let event = change("targets.set", &by.name(), now, [("targets", serde_json::Value::Array(names))])?;
        self.0.ledger.commit(Write { events: vec![event], changes: Vec::new() }).await?;
        let states = targets.into_iter().map(|target| {
            let same = before.get(&target.profile.name).filter(|state| state.revision == target.revision);
            same.map_or_else(|| state(target, &counts), |same| (same.profile.name.clone(), Arc::clone(same)))
        });
        self.0.credentials.targets.store(Arc::new(states.collect()));
        self.0.credentials.doorbell.notify_one();
        Ok(())
    }

    /// How long credentials of each kind of target took from their end here to the proof that they are dead, of those that
    /// died since this was called last.
    #[must_use]
    pub fn take_ending_latencies(&self) -> Vec<(&'static str, Vec<Duration>)> {
        let targets = self.0.credentials.targets.load();
        let taken = targets.values().map(|target| {
            let mut endings = target.endings.lock().unwrap_or_else(PoisonError::into_inner);
            (target.profile.kind, std::mem::take(&mut *endings))
        });
        taken.collect()
    }

    /// The names of the configured targets.
    #[must_use]
    pub fn target_names(&self) -> Vec<TargetName> {
        self.0.credentials.targets.load().keys().cloned().collect()
    }

    /// What is known of a configured target.
    #[must_use]
    pub fn target_profile(&self, name: &TargetName) -> Option<TargetProfile> {
        self.0.credentials.target(name).map(|target| target.profile.clone())
    }

    /// How a target stands.
    ///
    /// # Errors
    /// [`Error::NotFound`] or the archive's.
    pub async fn target_status(&self, name: &TargetName) -> Result<TargetStatus, Error> {
        let target = self.configured(name)?;
        let counts = self.0.archive.grant_counts(self.0.clock.now()).await?;
        let counts = counts.into_iter().find(|(known, _)| known == name).map(|(_, counts)| counts).unwrap_or_default();
        Ok(TargetStatus {
            profile: target.profile.clone(),
            health: target.health(),
            breaker_open_for: target.breaker.shut_for(self.0.clock.elapsed()),
            counts,
        })
    }

    /// Whether our account at a target can do what it must and nothing more.
    ///
    /// # Errors
    /// [`Error::NotFound`], or why the target did not answer.
    pub async fn examine_target(&self, name: &TargetName) -> Result<Vec<Finding>, Error> {
        let target = self.configured(name)?;
        let _place = target.end_budget.acquire().await;
        let answer = in_time(END_TIMEOUT, target.driver.examine()).await;
        target.heard(&answer, self.0.clock.elapsed());
        Ok(answer?)
    }

    /// Credentials that stand at a target without us (R14).
    ///
    /// # Errors
    /// [`Error::NotFound`], or why the target did not answer.
    pub async fn scan_target(&self, name: &TargetName) -> Result<Vec<Standing>, Error> {
        let target = self.configured(name)?;
        let _place = target.end_budget.acquire().await;
        let answer = in_time(LISTING_TIMEOUT, target.driver.scan()).await;
        target.heard(&answer, self.0.clock.elapsed());
        Ok(answer?)
    }

    pub(crate) fn configured(&self, name: &TargetName) -> Result<Arc<TargetState>, Error> {
        self.0.credentials.target(name).ok_or_else(|| Error::NotFound { what: "target", name: name.to_string() })
    }
}

/// The answer of a target, or that it did not come in time.
pub(crate) async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T, TargetError>>) -> Result<T, TargetError> {
    let late = || TargetError::Unreachable(format!("it did not answer within {} seconds", limit.as_secs()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}
