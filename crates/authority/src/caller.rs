//! From what came with a request to the caller behind it: token, proof of possession, open task, eligible agent. The hot
//! half of authentication: synchronous, and a token's signature is checked once and then remembered until it expires.
//! Knows no HTTP beyond the words it was given.

use crate::Authority;
use crate::attest::sha256;
use crate::live::{LiveTask, Over};
use crate::replay::Seen;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::{Agent, Binding, EndReason, TaskId, Timestamp};
use std::sync::Arc;
use token::UnixSeconds;
use token::access::{Expected, SignedAccess, token_hash};
use token::claims::{AccessClaims, Confirmation};
use token::dpop::{Proof, ProofRequest, ProofRules, TargetUri, verify_proof};

/// Seconds that a DPoP proof may be old. Short, because each one must be remembered for as long.
pub(crate) const PROOF_AGE_SECS_MAX: i64 = 60;
/// Seconds that a DPoP proof may come from the future: clocks of callers.
pub(crate) const PROOF_AHEAD_SECS_MAX: i64 = 10;

/// The authentication scheme of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `Authorization: Bearer` (RFC 6750; also carries certificate-bound tokens, RFC 8705 §3).
    Bearer,
    /// `Authorization: DPoP` (RFC 9449 §7.1).
    Dpop,
}

/// What came with a request, taken apart but not trusted.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// The scheme.
    pub scheme: Scheme,
    /// The token.
    pub token: &'a str,
    /// The one `DPoP` header, if there was one.
    pub dpop: Option<&'a str>,
    /// The request's method.
    pub method: &'a str,
    /// The request's URI as the client sees it; made once for each endpoint.
    pub uri: &'a TargetUri,
    /// SHA-256 of the client certificate of the connection.
    pub certificate: Option<[u8; 32]>,
    /// The canonical resource URI of the endpoint.
    pub audience: &'a str,
}

/// Why a request has no caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// The token is not one of ours, is malformed, revoked, or of an unknown task.
    #[error("the access token is not valid")]
    Invalid,
    /// The token has expired.
    #[error("the access token has expired; renew it")]
    Expired,
    /// The token is for another resource.
    #[error("the access token is for another resource")]
    WrongAudience,
    /// The token's task has ended.
    #[error("the task has ended ({}); open a new one", .0.as_str())]
    TaskEnded(EndReason),
    /// The agent may not act any more.
    #[error("{0}")]
    AgentNotEligible(domain::NotEligible),
    /// The token is bound to a key, and its possession was not proved.
    #[error("the access token is bound to a key: {0}")]
    NotProved(&'static str),
    /// The proof was refused. The text names the rule.
    #[error("the DPoP proof was refused: {0}")]
    Proof(String),
    /// The proof needs this nonce.
    #[error("use the nonce of the DPoP-Nonce header")]
    UseNonce(String),
}

/// Somebody who proved to act for an open task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(crate) live: Arc<LiveTask>,
    pub(crate) agent: Arc<Agent>,
    pub(crate) binding: Binding,
    pub(crate) signed: Arc<SignedToken>,
}

/// A token whose signature was verified.
#[derive(Debug)]
pub(crate) struct SignedToken {
    access: SignedAccess,
    claims: AccessClaims,
    task: TaskId,
}

impl SignedToken {
    pub(crate) fn access(&self) -> &SignedAccess {
        &self.access
    }

    pub(crate) fn claims(&self) -> &AccessClaims {
        &self.claims
    }
}

impl Caller {
    /// The task.
    #[must_use]
    pub fn live(&self) -> &Arc<LiveTask> {
        &self.live
    }

    /// The task's identifier.
    #[must_use]
    pub fn task(&self) -> TaskId {
        self.live.task().id
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// How the token is bound.
    #[must_use]
    pub fn binding(&self) -> Binding {
        self.binding
    }

    /// What the token says.
    #[must_use]
    pub fn claims(&self) -> &AccessClaims {
        &self.signed.claims
    }

    /// Why nothing more is given to this caller, if so.
    #[must_use]
    pub fn over(&self) -> Option<Over> {
        self.live.over(Some(&self.signed.claims.token_id))
    }

    /// Resolves when nothing more is given to this caller: its task ended, or its token was revoked. At once if so.
    pub async fn wait_over(&self) -> Over {
        self.live.wait_over(&self.signed.claims.token_id).await
    }
}

impl Authority {
    /// Finds the caller behind a request.
    ///
    /// # Errors
    /// Why there is none. Nothing is revealed that the token itself does not say.
    pub fn authenticate(&self, presented: &Presented<'_>) -> Result<Caller, Unauthenticated> {
        let now = self.0.clock.now();
        let signed = self.signed_token(presented.token, now)?;
        let expected = Expected { issuer: &self.0.issuer, audience: presented.audience, leeway_secs: 0 };
        signed.access.check(&expected, UnixSeconds(now.secs())).map_err(|error| match error {
            token::Error::Expired { .. } => Unauthenticated::Expired,
            token::Error::AudienceWrong => Unauthenticated::WrongAudience,
            _ => Unauthenticated::Invalid,
        })?;
        let binding = self.check_binding(presented, &signed.claims, now)?;
        let (live, agent) = self.standing(&signed, now)?;
        if binding == Binding::Bearer && !agent.allow_bearer {
            return Err(Unauthenticated::NotProved("this agent may not use unbound tokens"));
        }
        // A token that is revoked from here on cuts what it began; one that was before is refused.
        if self.0.revoked_tokens.contains(&signed.claims.token_id, now) {
            return Err(Unauthenticated::Invalid);
        }
        live.touch(now, self.0.clock.elapsed());
        Ok(Caller { live, agent, binding, signed })
    }

    /// The token, its signature verified now or earlier. The cache is keyed by the token's hash and emptied when keys are
    /// rotated; a revoked token is refused before it is looked up.
    pub(crate) fn signed_token(&self, token: &str, now: Timestamp) -> Result<Arc<SignedToken>, Unauthenticated> {
        let signed = self.verified_token(token)?;
        if self.0.revoked_tokens.contains(&signed.claims.token_id, now) {
            return Err(Unauthenticated::Invalid);
        }
        Ok(signed)
    }

    /// The same, revoked or not.
    pub(crate) fn verified_token(&self, token: &str) -> Result<Arc<SignedToken>, Unauthenticated> {
        let hash = token_hash(token);
        if let Some(signed) = self.0.verified.get(&hash) {
            return Ok(signed);
        }
        let access = SignedAccess::verify(token, &self.0.signer.key_set()).map_err(|_| Unauthenticated::Invalid)?;
        let claims = access.claims().clone();
        let task = claims.task.parse().map_err(|_| Unauthenticated::Invalid)?;
        let signed = Arc::new(SignedToken { access, claims, task });
        self.0.verified.insert(hash, Arc::clone(&signed));
        Ok(signed)
    }

    /// The open task and the eligible agent of a verified token.
    pub(crate) fn standing(&self, signed: &SignedToken, now: Timestamp) -> Result<(Arc<LiveTask>, Arc<Agent>), Unauthenticated> {
        if self.0.wall.outlived(&signed.claims, self.0.clock.elapsed()) {
            return Err(Unauthenticated::Expired);
        }
        self.standing_of(signed.task, now)
    }

    /// The same of a task.
    pub(crate) fn standing_of(&self, task: TaskId, now: Timestamp) -> Result<(Arc<LiveTask>, Arc<Agent>), Unauthenticated> {
        let Some(live) = self.0.tasks.get(task) else {
            return Err(self.0.tasks.lately_ended(task).map_or(Unauthenticated::Invalid, Unauthenticated::TaskEnded));
        };
        if let Some(reason) = live.ended().or_else(|| live.overdue(&*self.0.clock)) {
            return Err(Unauthenticated::TaskEnded(reason));
        }
        let agent = self.0.inventory.load().get(&live.task().agent).cloned().ok_or(Unauthenticated::Invalid)?;
        agent.eligible(now).map_err(Unauthenticated::AgentNotEligible)?;
        // INVARIANT(ceiling): an intent that the agent may not declare any more is no longer pursued either.
        if !agent.may_declare(&live.task().intent) {
            return Err(Unauthenticated::TaskEnded(EndReason::Agent));
        }
        Ok((live, agent))
    }

    fn check_binding(
        &self,
        presented: &Presented<'_>,
        claims: &AccessClaims,
        now: Timestamp,
    ) -> Result<Binding, Unauthenticated> {
        match &claims.confirmation {
            Some(Confirmation::Jkt(jkt)) => {
                if presented.scheme != Scheme::Dpop {
                    return Err(Unauthenticated::NotProved("send it with the DPoP scheme"));
                }
                let header = presented.dpop.ok_or(Unauthenticated::NotProved("a DPoP proof is missing"))?;
                let proof = (header, presented.method, presented.uri);
                self.check_proof(&claims.subject, proof, Some((presented.token, jkt)), now)?;
                Ok(Binding::Dpop)
            }
            Some(Confirmation::X5tS256(thumbprint)) => {
                let presented = presented.certificate.map(|digest| URL_SAFE_NO_PAD.encode(digest));
                if presented.as_ref() != Some(thumbprint) {
                    return Err(Unauthenticated::NotProved("connect with its client certificate"));
                }
                Ok(Binding::Mtls)
            }
            None if presented.scheme == Scheme::Bearer => Ok(Binding::Bearer),
            None => Err(Unauthenticated::NotProved("an unbound token goes with the Bearer scheme")),
        }
    }

    /// Checks a DPoP proof, its key if it goes with a token, its freshness and that it was not seen before (RFC 9449
    /// §4.3, §11.1). It is remembered as one of `agent`, which has proved itself.
    pub(crate) fn check_proof(
        &self,
        agent: &str,
        (proof, method, uri): (&str, &str, &TargetUri),
        token: Option<(&str, &str)>,
        now: Timestamp,
    ) -> Result<Proof, Unauthenticated> {
        let known = token.and_then(|(_, jkt)| self.0.proof_keys.get(jkt));
        let request = ProofRequest { method, uri, access_token: token.map(|(token, _)| token), known_key: known.as_ref() };
        // INVARIANT(no-second-hour): while the wall clock lies behind where it was, proofs of then look fresh again and are
        // not remembered any more. A nonce of the other clock tells them apart.
        let needed = self.0.nonces_required || self.0.wall.is_behind(now);
        let nonce_at = self.nonce_time();
        let nonce = needed.then_some(&self.0.nonces);
        let rules = ProofRules { age_secs_max: PROOF_AGE_SECS_MAX, ahead_secs_max: PROOF_AHEAD_SECS_MAX, nonce, nonce_at };
        let checked = verify_proof(proof, &request, &rules, UnixSeconds(now.secs())).map_err(|error| match error {
            token::Error::NonceMissing | token::Error::NonceRefused => Unauthenticated::UseNonce(self.0.nonces.issue(nonce_at)),
            error => Unauthenticated::Proof(error.to_string()),
        })?;
        // Before it is remembered: whoever stole a token but not its key must not fill the memory.
        if token.is_some_and(|(_, jkt)| jkt != checked.jkt) {
            return Err(Unauthenticated::NotProved("the proof is of another key"));
        }
        let key = sha256(&[checked.jkt.as_bytes(), checked.jti.as_bytes()]);
        match self.0.proofs_seen.note(agent, key, self.0.clock.elapsed()) {
            Seen::New => {}
            Seen::Before => return Err(Unauthenticated::Proof("it was used before".into())),
            Seen::Full => {
                return Err(Unauthenticated::Proof("this agent sent too many proofs within a minute; slow down".into()));
            }
        }
        // Only keys that a token was bound to are remembered, so a stranger cannot fill the cache.
        if known.is_none() && token.is_some() {
            self.0.proof_keys.insert(checked.jkt.clone(), checked.key.clone());
        }
        Ok(checked)
    }

    /// A fresh DPoP nonce to send along (RFC 9449 §8.2).
    #[must_use]
    pub fn dpop_nonce(&self) -> String {
        self.0.nonces.issue(self.nonce_time())
    }

    /// The time of nonces: monotonic, because they are what tells proofs of a repeated hour apart. They are only good in
    /// the process that made them anyway.
    fn nonce_time(&self) -> UnixSeconds {
        UnixSeconds(i64::try_from(self.0.clock.elapsed().as_secs()).unwrap_or(i64::MAX))
    }
}
