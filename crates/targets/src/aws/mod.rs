//! AWS: a session of one prepared role (STS `AssumeRole`), cut down by a session policy that is generated from the offer,
//! tagged with task and grant, with the agent as source identity. STS gives no session shorter than fifteen minutes, so
//! the policy itself ends at the deadline (`aws:CurrentTime`). Credentials cannot be revoked: where the role carries the
//! deny policy of `install`, taking back adds the session to it; without one the deadline has to be waited for.

mod deny;
mod install;
mod request;
mod session_policy;

use crate::config::{Config, ConfigFault, ConfigFaults, OfferSection, Surroundings};
use crate::evidence::{dies_by_itself, evidence, fine, warning};
use crate::https::{Https, Place};
use crate::offered;
use authority::ShownPlan;
use authority::target::{Acceptance, Asked, Evidence, Finding, Found, Handle, Minted, Plan, Standing, Target, TargetError};
use domain::{Ending, GrantId, OfferName, Timestamp};
use request::{Broker, Credentials};
use serde::{Deserialize, Serialize};
use session_policy::Scope;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The shortest session that STS gives.
const NATIVE_SECS_MIN: u64 = 900;
/// How long IAM may need until a new version of a policy holds everywhere ("a few minutes" in its documentation).
const DENY_SETTLES_SECS: u64 = 300;

/// One offer, as AWS understands it.
struct Template {
    role_arn: String,
    scope: Scope,
}

struct Aws {
    broker: Broker,
    sts: Https,
    iam: Https,
    external_id: Option<String>,
    deny: Option<deny::DenyPolicy>,
    templates: BTreeMap<OfferName, Template>,
    surroundings: Arc<dyn Surroundings>,
}

/// What a plan carries: exactly this is asked of STS.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    external_id: Option<String>,
    policy: String,
    role_arn: String,
    secs: u64,
    session: String,
    source_identity: String,
    tags: BTreeMap<String, String>,
}

struct Read {
    broker: Broker,
    sts: Option<Https>,
    iam: Option<Https>,
    external_id: Option<String>,
    deny_policy_arn: Option<String>,
    templates: BTreeMap<OfferName, Template>,
}

impl Read {
    fn of(config: &Config<'_>) -> Self {
        let connect = &config.connect;
        let broker = Broker::read(connect);
        let sts = Place::within(connect, "sts", &format!("https://sts.{}.amazonaws.com", broker.region()));
        let deny_policy_arn = connect.text_if("deny_policy_arn");
        if deny_policy_arn.as_ref().is_some_and(|arn| !arn.starts_with("arn:") || !arn.contains(":policy/")) {
            connect.fault("deny_policy_arn", "it is no ARN of a managed policy", "arn:aws:iam::123456789012:policy/WritDenied");
        }
        Self {
            sts,
            iam: Place::within(connect, "iam", "https://iam.amazonaws.com"),
            external_id: connect.text_if("external_id"),
            deny_policy_arn,
            templates: config.offers.iter().map(|(name, offer)| ((*name).clone(), template(offer))).collect(),
            broker,
        }
    }
}

/// Reads the target's own part of its file.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let Read { broker, sts, iam, external_id, deny_policy_arn, templates } = Read::of(config);
    config.check()?;
    let (Some(sts), Some(iam)) = (sts, iam) else { return Err(ConfigFault::new(&["connect"], "cannot be used").into()) };
    let deny = deny_policy_arn.map(deny::DenyPolicy::new);
    Ok(Arc::new(Aws { broker, sts, iam, external_id, deny, templates, surroundings: config.surroundings() }))
}

/// What the account's administrator applies: trust of the roles, the deny policy, and what our own user may do.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    let read = Read::of(config);
    let roles: Vec<_> = read.templates.values().map(|template| template.role_arn.as_str()).collect();
    Ok(install::text(&roles, read.deny_policy_arn.as_deref(), read.external_id.as_deref()))
}

fn template(offer: &OfferSection<'_>) -> Template {
    let own = &offer.own;
    let role_arn = own.text("role_arn", "arn:aws:iam::123456789012:role/jit/reports-reader");
    let is_role = role_arn.starts_with("arn:") && role_arn.contains(":role/");
    if !is_role && !role_arn.is_empty() {
        own.fault("role_arn", format!("`{role_arn}` is no ARN of a role"), "arn:aws:iam::ACCOUNT:role/jit/NAME");
    }
    Template { role_arn, scope: Scope::read(own, &offer.offer.params) }
}

/// The name of the session, by which everything of it is found again: `lease-`, the grant's digits, and when it is over.
fn session_name(grant: GrantId, until: Timestamp) -> String {
    format!("lease-{}-{}", grant.digits(), until.secs())
}

impl Aws {
    /// INVARIANT(ours): only a session that is named after this very grant is ever denied.
    fn session_of(handle: &Handle<'_>) -> Result<String, TargetError> {
        let session = session_name(handle.grant, handle.expires_at);
        if handle.handle.rsplit('/').next() == Some(session.as_str()) {
            Ok(session)
        } else {
            Err(TargetError::Unacceptable("the handle is not one of ours".to_owned()))
        }
    }

    async fn close(&self, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        let session = Self::session_of(handle)?;
        if self.surroundings.now() >= handle.expires_at {
            // Its own policy ended it: a place in the deny policy is for those that live.
            return Ok(evidence([("session", "over"), ("ends_by", "expiry")]));
        }
        let Some(deny) = &self.deny else { return Ok(evidence([("session", "cannot_be_revoked"), ("ends_by", "expiry")])) };
        deny.add(self, &session, self.surroundings.now()).await?;
        Ok(evidence([("session", "denied")]))
    }
}

#[async_trait::async_trait]
impl Target for Aws {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let template = offered::template(&self.templates, asked, "STS makes its credentials")?;
        let session = session_name(asked.grant, asked.expires_at);
        let tags = [
            ("writ:agent", asked.agent.to_string()),
            ("writ:lease", asked.grant.to_string()),
            ("writ:task", asked.task.to_string()),
        ];
        let carried = Carried {
            external_id: self.external_id.clone(),
            policy: template.scope.policy(asked.params, asked.expires_at)?,
            role_arn: template.role_arn.clone(),
            secs: asked.expires_at.secs_since(asked.now).max(NATIVE_SECS_MIN),
            session: session.clone(),
            source_identity: asked.agent.to_string(),
            tags: tags.map(|(name, value)| (name.to_owned(), value)).into(),
        };
        let summary = vec![
            format!("session {session} of {} as {}", carried.role_arn, carried.source_identity),
            format!("session policy {}", carried.policy),
        ];
        offered::plan(asked, &carried, (format!("{}/{session}", template.role_arn), asked.expires_at), summary)
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        let unreadable = |_| TargetError::NotShown("a plan that it cannot read");
        let carried: Carried = serde_json::from_slice(&plan.canonical).map_err(unreadable)?;
        let credentials = self.assume(&carried).await?;
        Ok(credentials.minted(self.broker.region(), &carried.session))
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        let now = self.surroundings.now();
        match step {
            Ending::CloseAuth => self.close(handle).await,
            Ending::EndSessions => Ok(evidence([("sessions", "none"), ("checked", "each_request")])),
            Ending::Clean => Ok(evidence([("residue", "none")])),
            Ending::Verify => {
                let Some(deny) = self.deny.as_ref().filter(|_| now < handle.expires_at) else {
                    return Ok(dies_by_itself(now, handle.expires_at));
                };
                let since = deny.denies_since(self, &Self::session_of(handle)?).await?;
                let undenied = || TargetError::Refused("the deny policy does not name the session".to_owned());
                // Nobody can ask AWS whether it has settled; its documentation bounds it.
                let settled = since.ok_or_else(undenied)?.plus_secs(DENY_SETTLES_SECS);
                Ok(dies_by_itself(now, handle.expires_at.min(settled)))
            }
        }
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        Ok(Vec::new())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        let who = self.who_am_i().await?;
        let mut found = vec![if who.contains(":root") {
            crate::evidence::broken(
                "broker.identity",
                "our account is the root of the AWS account",
                "use a user or role of its own",
            )
        } else {
            fine("broker.identity", format!("we are {who}"))
        }];
        if self.deny.is_none() {
            let text = "there is no deny policy: a session lives until its deadline, whatever happens";
            found.push(warning("revocation.deny_policy", text, "apply `writ target install` and set deny_policy_arn"));
        }
        for (offer, template) in &self.templates {
            if !template.role_arn.contains(":role/jit/") {
                let text = format!("the role of offer `{offer}` is not below `jit/`");
                found.push(warning(
                    "offer.role",
                    text,
                    "keep roles that Writ may assume below one path, and our account to that",
                ));
            }
            if template.scope.is_wide() {
                let text = format!("offer `{offer}` has a wildcard for all actions or all resources");
                found.push(warning("offer.scope", text, "name actions and resources"));
            }
        }
        Ok(found)
    }

    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        let credentials = Credentials::of(minted)?;
        let slow = |_| TargetError::Unreachable("the session could not be tried in time".to_owned());
        tokio::time::timeout(within, self.accepts(&credentials)).await.map_err(slow)?
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        self.access_keys().await
    }
}

#[cfg(test)]
mod tests;
