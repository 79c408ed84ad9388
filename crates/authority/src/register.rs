//! The inventory of agents: registering, suspending, and what the agent files declare (R3). Every change is made under one
//! lock from what is registered then, and is in the log in the transaction that makes it so. Reads no file and knows no
//! operator's rights: the edge admits operators only (R18).

use crate::Authority;
use crate::admin::to_the_end;
use crate::end::Actor;
use crate::error::Error;
use crate::event::{change, hex};
use crate::inventory::Inventory;
use crate::ports::{Change, Write};
use domain::{Agent, AgentId, AgentState, EndReason};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A change of the inventory, made out of what is registered when its turn has come.
type Plan = Box<dyn FnOnce(&Inventory) -> Result<Vec<Agent>, Error> + Send>;

impl Authority {
    /// All agents, by name.
    #[must_use]
    pub fn agents(&self) -> Vec<Arc<Agent>> {
        self.0.inventory.load().agents().cloned().collect()
    }

    /// One agent.
    #[must_use]
    pub fn agent(&self, id: &AgentId) -> Option<Arc<Agent>> {
        self.0.inventory.load().get(id).cloned()
    }

    /// Registers agents or replaces their records, all or none. Whoever was suspended stays so, whatever the new record says:
    /// only [`Authority::set_agent_state`] lifts a suspension. Those of them that may not act any more, or whose identity
    /// changed, lose their tasks; those that may declare less lose the tasks of what they may not declare any more. Records
    /// that are the same already are left alone. Those that a file declares are changed there: what was said here would be
    /// undone, without a word, the next time that the files are read.
    ///
    /// # Errors
    /// [`Error::SharedIdentity`], [`Error::Unacceptable`], or the ledger's.
    pub async fn put_agents(&self, agents: Vec<Agent>, by: &Actor) -> Result<(), Error> {
        let plan = move |known: &Inventory| {
            if agents.iter().any(|agent| known.get(&agent.id).is_some_and(|known| known.declared)) {
                return Err(Error::Unacceptable("an agent of this name is declared in a file; change it there"));
            }
            Ok(agents.into_iter().map(|agent| Agent { declared: false, ..kept(agent, known) }).collect())
        };
        self.change_agents(Box::new(plan), by).await
    }

    /// Registers the agents of the agent files, like [`Authority::put_agents`]. An agent that the files declared before and
    /// do not declare any more is suspended; one that was registered in another way is not touched.
    ///
    /// # Errors
    /// [`Error::SharedIdentity`], [`Error::Unacceptable`], or the ledger's.
    pub async fn declare_agents(&self, agents: Vec<Agent>, by: &Actor) -> Result<(), Error> {
        let named: BTreeSet<_> = agents.iter().map(|agent| agent.id.clone()).collect();
        let gone = move |known: &Inventory| {
            let gone = known.agents().filter(|agent| agent.declared && !named.contains(&agent.id));
            Ok(gone.map(|agent| Agent { state: AgentState::Suspended, declared: false, ..(**agent).clone() }).collect())
        };
        let declared =
            move |known: &Inventory| Ok(agents.into_iter().map(|agent| Agent { declared: true, ..kept(agent, known) }).collect());
        // Apart: a file that is not acceptable must not keep one alive whose file is gone.
        self.change_agents(Box::new(gone), by).await?;
        self.change_agents(Box::new(declared), by).await
    }

    /// Suspends an agent: its tasks end now. Resumes it with `AgentState::Active`.
    ///
    /// # Errors
    /// [`Error::NotFound`] or the ledger's.
    pub async fn set_agent_state(&self, id: &AgentId, state: AgentState, by: &Actor) -> Result<(), Error> {
        let id = id.clone();
        let plan = move |known: &Inventory| {
            let agent = known.get(&id).ok_or_else(|| Error::NotFound { what: "agent", name: id.to_string() })?;
            Ok(vec![Agent { state, ..(**agent).clone() }])
        };
        self.change_agents(Box::new(plan), by).await
    }

    async fn change_agents(&self, plan: Plan, by: &Actor) -> Result<(), Error> {
        let (this, by) = (self.clone(), by.clone());
        to_the_end(async move { this.replace_agents(plan, &by).await }).await
    }

    async fn replace_agents(&self, plan: Plan, by: &Actor) -> Result<(), Error> {
        let _one_at_a_time = self.0.admin.lock().await;
        let now = self.0.clock.now();
        let before = self.0.inventory.load_full();
        let agents = plan(&before)?;
        let changed: Vec<_> =
            agents.into_iter().filter(|agent| before.get(&agent.id).map(|known| &**known) != Some(agent)).map(Arc::new).collect();
        changed.iter().try_for_each(|agent| acceptable(agent))?;
        let after = before.with(changed.iter().cloned());
        if let Some((one, other)) = after.shared_identity() {
            return Err(Error::SharedIdentity { one: one.to_string(), other: other.to_string() });
        }
        let events =
            changed.iter().map(|agent| change("agent.put", &by.name(), now, agent_detail(agent))).collect::<Result<_, _>>()?;
        let changes = changed.iter().map(|agent| Change::PutAgent(Box::new((**agent).clone()))).collect();
        if changed.is_empty() {
            return Ok(());
        }
        self.0.ledger.commit(Write { events, changes }).await?;
        // CRASH(agents.logged, agents.effective): the records are in force after the start; the sweep ends what they end.
        tracing::trace!(target: "writ::step", at = "agents.logged");
        self.0.inventory.store(Arc::new(after));
        tracing::trace!(target: "writ::step", at = "agents.effective");
        let lost = |agent: &Arc<Agent>| {
            let all = agent.eligible(now).is_err() || before.get(&agent.id).is_some_and(|known| known.rules != agent.rules);
            let tasks = self.0.tasks.of_agent(&agent.id).into_iter();
            tasks.filter(|live| all || !agent.may_declare(&live.task().intent)).collect::<Vec<_>>()
        };
        self.end_all(changed.iter().flat_map(lost).collect(), EndReason::Agent, &by.name()).await
    }
}

/// The agent as it is registered: a suspension outlasts the record that it was pronounced on.
fn kept(agent: Agent, known: &Inventory) -> Agent {
    let suspended = known.get(&agent.id).is_some_and(|known| known.state == AgentState::Suspended);
    if suspended { Agent { state: AgentState::Suspended, ..agent } } else { agent }
}

fn acceptable(agent: &Agent) -> Result<(), Error> {
    if agent.purpose.trim().is_empty() {
        return Err(Error::Unacceptable("an agent needs a purpose"));
    }
    if agent.rules.is_empty() || agent.rules.iter().any(|rule| rule.claims.is_empty()) {
        return Err(Error::Unacceptable("an agent needs at least one identity rule, and each rule at least one claim"));
    }
    if agent.state == AgentState::Active && agent.owner.is_none() {
        return Err(Error::Unacceptable("an agent needs an owner who answers for it"));
    }
    Ok(())
}

fn agent_detail(agent: &Agent) -> [(&'static str, Value); 9] {
    let intents: Vec<_> = agent.intents.iter().map(|name| name.as_str()).collect();
    [
        ("agent", agent.id.as_str().into()),
        ("allow_bearer", agent.allow_bearer.into()),
        ("declared", agent.declared.into()),
        ("intents", json!(intents)),
        ("owner", json!(agent.owner.as_ref().map(domain::OwnerId::as_str))),
        ("purpose", agent.purpose.chars().take(500).collect::<String>().into()),
        ("review_by", agent.review_by.secs().into()),
        ("rules_sha256", hex(&crate::attest::sha256(&[format!("{:?}", agent.rules).as_bytes()])).into()),
        ("state", if agent.state == AgentState::Active { "active" } else { "suspended" }.into()),
    ]
}
