//! What upstreams offer, for operators: live definitions beside approved ones, and approval of exactly what was looked
//! at (R21). The gateway asks the upstreams, the policy folder keeps what was approved; this only lays the two side by side.

use super::policy_source::PolicyFolder;
use async_trait::async_trait;
use authority::{Actor, Authority};
use control::{PortError, ToolState, ToolView, UpstreamCatalog, UpstreamStatus};
use domain::{Digest, ToolName, UpstreamName};
use gateway::upstream::Upstreams;
use serde_json::Value;
use std::collections::BTreeMap;

/// The upstreams' live side.
pub(crate) struct Catalog {
    /// What was approved.
    pub(crate) authority: Authority,
    /// Asks the upstreams.
    pub(crate) upstreams: Upstreams,
    /// Keeps what is approved.
    pub(crate) policy: PolicyFolder,
}

impl Catalog {
    /// What an upstream offers now, by name.
    async fn live(&self, upstream: &UpstreamName) -> Result<BTreeMap<ToolName, (Value, Digest)>, PortError> {
        let offered = self.upstreams.survey(upstream).await.map_err(|error| PortError::Upstream(error.to_string()))?;
        let named = |definition: Value| {
            // A tool without a well-formed name cannot be called through the gateway, so there is nothing to approve.
            let name = definition.get("name")?.as_str()?.parse().ok()?;
            let pin = Authority::pin(upstream, &definition);
            Some((name, (definition, pin)))
        };
        Ok(offered.into_iter().filter_map(named).collect())
    }

    fn approved(&self, upstream: &UpstreamName) -> BTreeMap<ToolName, authority::ApprovedTool> {
        self.authority.policy().approved_tools(upstream).map(|tool| (tool.name.clone(), tool.clone())).collect()
    }
}

#[async_trait]
impl UpstreamCatalog for Catalog {
    fn status(&self, upstream: &UpstreamName) -> UpstreamStatus {
        let known = self.upstreams.status().into_iter().find(|status| status.name == *upstream);
        known.map_or(UpstreamStatus { reachable: None, last_error: None }, |status| UpstreamStatus {
            reachable: status.reachable,
            last_error: status.fault,
        })
    }

    async fn tools(&self, upstream: &UpstreamName) -> Result<Vec<ToolView>, PortError> {
        let mut live = self.live(upstream).await?;
        let mut views = Vec::new();
        for (name, approved) in self.approved(upstream) {
            let live = live.remove(&name);
            let state = match &live {
                None => ToolState::Gone,
                Some((_, pin)) if *pin == approved.pin => ToolState::Approved,
                Some(_) => ToolState::Changed,
            };
            let traits = approved.traits.clone();
            views.push(ToolView { name, state, approved: Some((approved.definition, approved.pin)), live, traits });
        }
        for (name, offered) in live {
            let traits = domain::ToolTraits::default();
            views.push(ToolView { name, state: ToolState::New, approved: None, live: Some(offered), traits });
        }
        views.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(views)
    }

    async fn accept(&self, upstream: &UpstreamName, tools: &[(ToolName, Digest)], by: &str) -> Result<(), PortError> {
        let mut live = self.live(upstream).await?;
        let mut accepted = Vec::new();
        for (name, pin) in tools {
            match live.remove(name) {
                Some((definition, now)) if now == *pin => accepted.push((name.clone(), definition)),
                Some(_) => {
                    return Err(PortError::Conflict(format!(
                        "the definition of `{name}` changed since it was shown: look again"
                    )));
                }
                None => return Err(PortError::Conflict(format!("the upstream does not offer `{name}` any more"))),
            }
        }
        self.policy.approve(upstream, accepted, &Actor::Operator(by.to_owned())).await
    }
}
