//! The inventory in memory: agents and upstreams, found by name and by identity. Owns the rule that two agents never
//! share an identity (R3). A new inventory replaces the old one as a whole; readers never wait.

use domain::{Agent, AgentId, ClaimPattern, ProviderName, Upstream, UpstreamName, WorkloadIdentity};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Agents by the text of a claim's value.
type ByValue = HashMap<String, Vec<Arc<Agent>>>;

/// All agents, with an index by identity, so that finding one does not cost more the more there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Inventory {
    agents: BTreeMap<AgentId, Arc<Agent>>,
    /// For each provider the claim paths that rules are indexed by, and for each value of them the agents.
    by_claim: HashMap<ProviderName, BTreeMap<String, ByValue>>,
    /// Agents with a rule that has no exact claim: tried one by one.
    wide: Vec<Arc<Agent>>,
}

impl Inventory {
    pub(crate) fn new(agents: impl IntoIterator<Item = Agent>) -> Self {
        let mut inventory = Self::default();
        for agent in agents {
            inventory.agents.insert(agent.id.clone(), Arc::new(agent));
        }
        inventory.index();
        inventory
    }

    pub(crate) fn with(&self, agents: impl IntoIterator<Item = Arc<Agent>>) -> Self {
        let mut next = Self { agents: self.agents.clone(), ..Self::default() };
        next.agents.extend(agents.into_iter().map(|agent| (agent.id.clone(), agent)));
        next.index();
        next
    }

    fn index(&mut self) {
        for agent in self.agents.values() {
            for rule in &agent.rules {
                let exact = rule.claims.iter().find_map(|(path, pattern)| match pattern {
                    ClaimPattern::Exact(value) => Some((path, value)),
                    ClaimPattern::Prefix(_) => None,
                });
                match exact {
                    Some((path, value)) => {
                        let paths = self.by_claim.entry(rule.provider.clone()).or_default();
                        paths.entry(path.clone()).or_default().entry(key(value)).or_default().push(Arc::clone(agent));
                    }
                    None => self.wide.push(Arc::clone(agent)),
                }
            }
        }
    }

    pub(crate) fn get(&self, id: &AgentId) -> Option<&Arc<Agent>> {
        self.agents.get(id)
    }

    pub(crate) fn agents(&self) -> impl Iterator<Item = &Arc<Agent>> {
        self.agents.values()
    }

    /// Agents that may match; each still has to be asked. In the order of their names, repeats next to each other.
    pub(crate) fn candidates(&self, workload: &WorkloadIdentity) -> std::vec::IntoIter<&Arc<Agent>> {
        let mut found: Vec<_> = self.wide.iter().collect();
        if let Some(paths) = self.by_claim.get(&workload.provider) {
            for (path, values) in paths {
                let claim = workload.claim(path);
                found.extend(claim.and_then(|claim| values.get(&key(&claim))).into_iter().flatten());
            }
        }
        found.sort_by(|one, two| one.id.cmp(&two.id));
        found.into_iter()
    }

    /// Two agents with one and the same rule, if there are such. Rules that merely overlap show when a workload matches
    /// both: then it is nobody.
    pub(crate) fn shared_identity(&self) -> Option<(&AgentId, &AgentId)> {
        let mut seen: HashMap<String, &AgentId> = HashMap::new();
        let rules = self.agents.values().flat_map(|agent| agent.rules.iter().map(move |rule| (format!("{rule:?}"), &agent.id)));
        for (rule, agent) in rules {
            match seen.insert(rule, agent) {
                Some(other) if other != agent => return Some((other, agent)),
                _ => {}
            }
        }
        None
    }
}

fn key(value: &Value) -> String {
    value.to_string()
}

/// All upstreams: those of the configuration files, and those registered over the API.
#[derive(Debug, Clone, Default)]
pub(crate) struct UpstreamTable {
    pub(crate) from_files: Vec<Upstream>,
    pub(crate) registered: BTreeMap<UpstreamName, Upstream>,
    pub(crate) all: Arc<HashMap<UpstreamName, Arc<Upstream>>>,
}

impl UpstreamTable {
    pub(crate) fn new(from_files: Vec<Upstream>, registered: impl IntoIterator<Item = Upstream>) -> Self {
        let registered: BTreeMap<_, _> = registered.into_iter().map(|upstream| (upstream.name.clone(), upstream)).collect();
        // A file wins over a registration of the same name: what is under version control is what is so.
        let all =
            registered.values().chain(&from_files).map(|upstream| (upstream.name.clone(), Arc::new(upstream.clone()))).collect();
        Self { from_files, registered, all: Arc::new(all) }
    }
}
