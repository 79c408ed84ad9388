//! What operators do besides registering agents: reload, rotate, revoke, redact. Every change is in the log in the transaction
//! that makes it so. No agent reaches any of this (R18): the edge admits operators only.

use crate::Authority;
use crate::attest::remembered_until;
use crate::caller::Unauthenticated;
use crate::end::Actor;
use crate::error::Error;
use crate::event::change;
use crate::inventory::UpstreamTable;
use crate::opening::Openings;
use crate::ports::{Change, LedgerError, LogEntry, LogQuery, Write};
use crate::sign::TokenKeys;
use domain::{EndReason, Operation, Task, TaskId, Transport, Upstream, UpstreamName};
use policy::{Explanation, Policy, Request};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use token::UnixSeconds;
use token::access::Expected;
use token::claims::AccessClaims;

/// Most decisions of a task that are looked at for the one that opened it: those of its first millisecond.
const OPENED_WITH_MAX: usize = 64;

/// What introspection says (RFC 7662 §2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Introspection {
    /// The token is good now; this is what it says.
    Active(Box<AccessClaims>),
    /// It is not, for whatever reason.
    Inactive,
}

impl Authority {
    /// All upstreams, from files and registered.
    #[must_use]
    pub fn upstreams(&self) -> Arc<std::collections::HashMap<UpstreamName, Arc<Upstream>>> {
        Arc::clone(&self.0.upstreams.load().all)
    }

    /// Registers an upstream over the API. Only such that start no program, and none that a file names.
    ///
    /// # Errors
    /// [`Error::Unacceptable`] or the ledger's.
    pub async fn put_upstream(&self, upstream: Upstream, by: &Actor) -> Result<(), Error> {
        let (this, by) = (self.clone(), by.clone());
        to_the_end(async move { this.replace_upstream(upstream, &by).await }).await
    }

    async fn replace_upstream(&self, upstream: Upstream, by: &Actor) -> Result<(), Error> {
        let _one_at_a_time = self.0.admin.lock().await;
        if !matches!(upstream.transport, Transport::Http { .. }) {
            return Err(Error::Unacceptable(
                "an upstream that starts a program can only be configured in a file on the gateway's host",
            ));
        }
        let table = self.0.upstreams.load_full();
        if table.from_files.iter().any(|configured| configured.name == upstream.name) {
            return Err(Error::Unacceptable("an upstream of this name is configured in a file; change it there"));
        }
        let detail = [
            ("name", upstream.name.as_str().into()),
            ("owner", upstream.owner.as_str().into()),
            ("transport", transport(&upstream)),
        ];
        let event = change("upstream.put", &by.name(), self.0.clock.now(), detail)?;
        self.0
            .ledger
            .commit(Write { events: vec![event], changes: vec![Change::PutUpstream(Box::new(upstream.clone()))] })
            .await?;
        let registered = table.registered.values().cloned().chain([upstream]);
        self.0.upstreams.store(Arc::new(UpstreamTable::new(table.from_files.clone(), registered)));
        Ok(())
    }

    /// Removes an upstream that was registered over the API.
    ///
    /// # Errors
    /// [`Error::NotFound`] or the ledger's.
    pub async fn remove_upstream(&self, name: &UpstreamName, by: &Actor) -> Result<(), Error> {
        let (this, name, by) = (self.clone(), name.clone(), by.clone());
        to_the_end(async move { this.forget_upstream(&name, &by).await }).await
    }

    async fn forget_upstream(&self, name: &UpstreamName, by: &Actor) -> Result<(), Error> {
        let _one_at_a_time = self.0.admin.lock().await;
        let table = self.0.upstreams.load_full();
        if !table.registered.contains_key(name) {
            return Err(Error::NotFound { what: "registered upstream", name: name.to_string() });
        }
        let event = change("upstream.remove", &by.name(), self.0.clock.now(), [("name", name.as_str().into())])?;
        self.0.ledger.commit(Write { events: vec![event], changes: vec![Change::RemoveUpstream(name.clone())] }).await?;
        let rest = table.registered.values().filter(|upstream| upstream.name != *name).cloned();
        self.0.upstreams.store(Arc::new(UpstreamTable::new(table.from_files.clone(), rest)));
        Ok(())
    }

    /// Puts another policy in force, for the next decision on. Tasks whose intent is gone end.
    ///
    /// # Errors
    /// The ledger's; then the old policy stays in force.
    pub async fn reload_policy(&self, policy: Policy, by: &Actor) -> Result<(), Error> {
        let (this, by) = (self.clone(), by.clone());
        to_the_end(async move { this.replace_policy(policy, &by).await }).await
    }

    async fn replace_policy(&self, policy: Policy, by: &Actor) -> Result<(), Error> {
        let _one_at_a_time = self.0.admin.lock().await;
        if policy.version() == self.policy().version() {
            return Ok(());
        }
        let detail = [("from", self.policy().version().to_string().into()), ("to", policy.version().to_string().into())];
        let event = change("policy.reload", &by.name(), self.0.clock.now(), detail)?;
        self.0.ledger.commit(Write { events: vec![event], changes: Vec::new() }).await?;
        // CRASH(policy.logged, policy.effective): the start reads the folder, and every decision names its version.
        tracing::trace!(target: "writ::step", at = "policy.logged");
        let policy = Arc::new(policy);
        self.0.policy.store(Arc::clone(&policy));
        tracing::trace!(target: "writ::step", at = "policy.effective");
        let orphaned = self.0.tasks.select(|live| policy.intent(&live.task().intent).is_none());
        self.end_all(orphaned, EndReason::Policy, &by.name()).await
    }

    /// What policy says of a hypothetical request of an open task, and why. Not a decision: nothing follows from it.
    #[must_use]
    pub fn explain(&self, live: &crate::LiveTask, operation: Operation<'_>, approved: bool) -> Option<Explanation> {
        let agent = self.agent(&live.task().agent)?;
        let mut facts = crate::decide::facts(live, &live.progress(), domain::Binding::Dpop, &*self.0.clock);
        facts.approved = approved;
        Some(self.policy().explain(&Request {
            task: live.task(),
            agent: &agent,
            workload: &live.workload(),
            operation,
            facts: &facts,
        }))
    }

    /// Puts other signing keys in force. A key that becomes active must have been published before for as long as verifiers
    /// may keep what they fetched; one that is left out must have no living token.
    ///
    /// # Errors
    /// The ledger's.
    pub async fn rotate_keys(&self, keys: TokenKeys, by: &Actor) -> Result<(), Error> {
        let (this, by) = (self.clone(), by.clone());
        to_the_end(async move { this.replace_keys(keys, &by).await }).await
    }

    async fn replace_keys(&self, keys: TokenKeys, by: &Actor) -> Result<(), Error> {
        let _one_at_a_time = self.0.admin.lock().await;
        let published: Vec<_> = keys.published.iter().map(|key| key.key_id()).collect();
        let detail = [("active", keys.active.key_id().into()), ("published", json!(published))];
        let event = change("keys.rotate", &by.name(), self.0.clock.now(), detail)?;
        self.0.ledger.commit(Write { events: vec![event], changes: Vec::new() }).await?;
        // CRASH(keys.logged, keys.effective): the key is in its folder; the start takes the newest.
        tracing::trace!(target: "writ::step", at = "keys.logged");
        self.0.signer.rotate(keys)?;
        tracing::trace!(target: "writ::step", at = "keys.effective");
        // Cached verdicts of tokens whose key is gone must not outlive it.
        self.0.verified.invalidate_all();
        Ok(())
    }

    /// Our public keys (RFC 7517).
    #[must_use]
    pub fn jwks(&self) -> Value {
        self.0.signer.key_set().to_json()
    }

    /// What a token is worth now (RFC 7662). Everything that is not good looks the same.
    #[must_use]
    pub fn introspect(&self, token: &str) -> Introspection {
        let now = self.0.clock.now();
        let active = self.signed_token(token, now).and_then(|signed| {
            let expected = Expected { issuer: &self.0.issuer, audience: &self.0.issuer, leeway_secs: 0 };
            let claims = signed.access().check(&expected, UnixSeconds(now.secs())).map_err(|_| Unauthenticated::Invalid)?;
            let (_, agent) = self.standing(&signed, now)?;
            // The same answer as a request with the token would get.
            if claims.confirmation.is_none() && !agent.allow_bearer {
                return Err(Unauthenticated::Invalid);
            }
            Ok(claims.clone())
        });
        active.map_or(Introspection::Inactive, |claims| Introspection::Active(Box::new(claims)))
    }

    /// Refuses one token from now on (RFC 7009). A token that is not one of ours, or that has expired, is no error.
    ///
    /// # Errors
    /// The ledger's; the token is refused on this node all the same, and asking again makes it durable.
    pub async fn revoke_token(&self, token: &str, by: &Actor) -> Result<(), Error> {
        let now = self.0.clock.now();
        let Ok(signed) = self.verified_token(token) else { return Ok(()) };
        let claims = signed.claims();
        // One entry for each token, or whoever holds an old one could fill the log. That it has expired by a clock that somebody
        // set ahead does not count: when the clock is right again, so would be the token.
        let expires = remembered_until(claims.expires_at.0, 0);
        if expires < now || self.0.wall.outlived(claims, self.0.clock.elapsed()) {
            return Ok(());
        }
        if self.0.revoked_tokens.refuse(&claims.token_id, expires) {
            return Ok(());
        }
        if let Some(live) = claims.task.parse().ok().and_then(|task| self.0.tasks.get(task)) {
            live.revoke(&claims.token_id, expires, now);
        }
        let detail = [
            ("jti", claims.token_id.as_str().into()),
            ("task", claims.task.as_str().into()),
            ("agent", claims.subject.as_str().into()),
        ];
        let event = change("token.revoked", &by.name(), now, detail)?;
        let change = Change::RevokeToken { jti: claims.token_id.clone(), expires };
        // CRASH(revoke.effective): nobody was told; the token counts after the start until it is revoked again.
        tracing::trace!(target: "writ::step", at = "revoke.effective");
        self.0.ledger.commit(Write { events: vec![event], changes: vec![change] }).await?;
        // CRASH(revoke.logged): revoked, for good.
        tracing::trace!(target: "writ::step", at = "revoke.logged");
        self.0.revoked_tokens.kept(&claims.token_id);
        Ok(())
    }

    /// The sensitive values of an entry that can still be opened, by name. That somebody was shown them is an entry of its
    /// own, durable before they are given; where there is nothing to show there is none.
    ///
    /// # Errors
    /// [`Error::OpeningDamaged`], the archive's, or the ledger's: then nothing is shown.
    pub async fn opened(&self, entry: &LogEntry, by: &Actor) -> Result<BTreeMap<String, Value>, Error> {
        let Some((openings, committed, sealing)) = self.openings(entry).await? else { return Ok(BTreeMap::new()) };
        let opened = openings.opened(&committed);
        if !opened.is_empty() {
            let names: Vec<_> = opened.keys().collect();
            let detail = [("index", entry.index.into()), ("names", json!(names)), ("task", sealing.task.to_string().into())];
            let event = change("opening.read", &by.name(), self.0.clock.now(), detail)?;
            self.0.ledger.commit(Write { events: vec![event], changes: Vec::new() }).await?;
        }
        Ok(opened)
    }

    /// The entry that opened a task, by its index, and its commitments to the sensitive parameters, by name.
    ///
    /// # Errors
    /// The archive's.
    pub async fn committed_params(&self, task: &Task) -> Result<Option<(u64, BTreeMap<String, String>)>, Error> {
        let terms = vec![("task".to_owned(), task.id.to_string()), ("type".to_owned(), "decision".to_owned())];
        // It was decided in the very millisecond in which the task begins.
        let (since, until) = (Some(task.opened_at), Some(task.opened_at));
        let found =
            self.0.archive.search(LogQuery { terms, since, until, limit: OPENED_WITH_MAX, ..LogQuery::default() }).await?;
        let committed = |entry: LogEntry| {
            let leaf: Value = serde_json::from_slice(&entry.leaf).ok()?;
            let event = leaf
                .get("event")
                .filter(|event| event.get("operation").is_some_and(|kind| kind == Operation::OpenTask.kind()))?;
            let committed = event.pointer("/params/committed").and_then(Value::as_object).into_iter().flatten();
            let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
            Some((entry.index, committed.filter_map(text).collect()))
        };
        Ok(found.entries.into_iter().rev().find_map(committed))
    }

    /// Records that somebody is about to be shown these sensitive parameters of a task. They may be shown once this
    /// resolves: as with [`Authority::opened`], that somebody read them is durable before they do.
    ///
    /// # Errors
    /// The archive's or the ledger's: then nothing may be shown.
    pub async fn read_params(&self, task: &Task, names: &[String], by: &Actor) -> Result<(), Error> {
        let index = self.committed_params(task).await?.map(|(index, _)| index);
        let detail = [("index", json!(index)), ("names", json!(names)), ("task", task.id.to_string().into())];
        let event = change("opening.read", &by.name(), self.0.clock.now(), detail)?;
        self.0.ledger.commit(Write { events: vec![event], changes: Vec::new() }).await?;
        Ok(())
    }

    /// Deletes the opening of one sensitive value of an entry. The entry and every proof of it stay as they are; that it was
    /// redacted, by whom and why, is an entry of its own.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is nothing to redact, or the ledger's.
    pub async fn redact(&self, entry: &LogEntry, name: &str, why: &str, by: &Actor) -> Result<(), Error> {
        let (this, entry, by) = (self.clone(), entry.clone(), by.clone());
        let (name, why) = (name.to_owned(), why.to_owned());
        to_the_end(async move { this.close_opening(&entry, &name, &why, &by).await }).await
    }

    async fn close_opening(&self, entry: &LogEntry, name: &str, why: &str, by: &Actor) -> Result<(), Error> {
        // What remains is written anew: two at a time would each put back what the other took out.
        let _one_at_a_time = self.0.admin.lock().await;
        let nothing = || Error::NotFound { what: "opening", name: format!("{} of entry {}", name.escape_debug(), entry.index) };
        let (mut openings, _, sealing) = self.openings(entry).await?.ok_or_else(nothing)?;
        if !openings.redact(name) {
            return Err(nothing());
        }
        let remaining =
            if openings.is_empty() { None } else { Some(sealing.key.seal(&sealing.event, &openings, &*self.0.entropy)?) };
        let detail =
            [("index", entry.index.into()), ("name", name.into()), ("why", why.chars().take(500).collect::<String>().into())];
        let event = change("redaction", &by.name(), self.0.clock.now(), detail)?;
        let mut changes = vec![Change::RedactOpening { index: entry.index, remaining }];
        if sealing.of_params {
            changes.push(Change::RedactParam { task: sealing.task, name: name.to_owned() });
        }
        self.0.ledger.commit(Write { events: vec![event], changes }).await?;
        Ok(())
    }

    async fn openings(&self, entry: &LogEntry) -> Result<Option<(Openings, Map<String, Value>, Sealing)>, Error> {
        let Some((sealed, wrapped)) = self.0.archive.opening(entry.index).await? else { return Ok(None) };
        let leaf: Value = serde_json::from_slice(&entry.leaf).map_err(|_| Error::OpeningDamaged)?;
        let event = leaf.get("event").ok_or(Error::OpeningDamaged)?;
        let text = |name: &str| event.get(name).and_then(Value::as_str).ok_or(Error::OpeningDamaged);
        let task: TaskId = text("task")?.parse().map_err(|_| Error::OpeningDamaged)?;
        let decision: domain::DecisionId = text("decision")?.parse().map_err(|_| Error::OpeningDamaged)?;
        let key = self.0.wrapping.unwrap_key(task, &wrapped)?;
        let openings = key.open(decision.as_bytes(), &sealed)?;
        let committed =
            ["arguments", "params"].iter().find_map(|member| event.get(*member)?.get("committed")?.as_object().cloned());
        let sealing = Sealing { task, key, event: decision.as_bytes().to_vec(), of_params: event.get("params").is_some() };
        Ok(Some((openings, committed.unwrap_or_default(), sealing)))
    }
}

/// Goes on to the end of a change even if whoever asked goes away meanwhile (a connection that broke, a patience that
/// ended): a suspension that is in the log but not in effect would be worse than none.
pub(crate) async fn to_the_end(change: impl Future<Output = Result<(), Error>> + Send + 'static) -> Result<(), Error> {
    let broken = |_| Error::from(LedgerError::Unavailable("the change broke off".to_owned()));
    tokio::spawn(change).await.map_err(broken)?
}

struct Sealing {
    task: TaskId,
    key: crate::opening::TaskKey,
    event: Vec<u8>,
    /// Whether the entry is about the parameters of a task: their values stand in the task's record as well.
    of_params: bool,
}

fn transport(upstream: &Upstream) -> Value {
    match &upstream.transport {
        Transport::Http { url } => json!({ "url": url }),
        Transport::Stdio { command, .. } => json!({ "command": command }),
    }
}
