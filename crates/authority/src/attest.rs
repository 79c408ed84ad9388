//! From evidence to a workload identity, and from that to the one registered agent that it is. Owns the order of these
//! checks; the rules of each kind of evidence are `token`'s, the matching of claims is `domain`'s.

use crate::Authority;
use crate::error::IssueError;
use crate::provider::{Provider, ProviderKeys};
use aws_lc_rs::digest;
use domain::{Agent, ProviderName, Timestamp, WorkloadIdentity};
use rustls_pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Map;
use std::sync::Arc;
use token::UnixSeconds;
use token::spiffe_id::SpiffeId;
use token::verify::UnverifiedToken;

/// Seconds that used evidence and a refused token are remembered after they have expired: an hour that a clock may be set back, and then some.
const REMEMBERED_SECS_MORE: i64 = 3_900;

/// What to do about evidence of somebody whom nobody configured.
const UNCONFIGURED: &str = "get evidence from one that is, or ask an operator to add it as [[provider]]";

/// What a workload shows to prove who it is.
#[derive(Debug)]
pub enum EvidenceInput {
    /// A JWT: an OIDC ID token or a JWT-SVID.
    Jwt(SecretString),
    /// The client certificate chain of the connection, leaf first: an X.509-SVID whose key the handshake proved.
    Certificate(Vec<CertificateDer<'static>>),
}

/// Evidence that was verified.
#[derive(Debug)]
pub(crate) struct Attested {
    pub workload: WorkloadIdentity,
    /// Set if this evidence may be used once only: its key, and until when to remember it.
    pub use_once: Option<([u8; 32], Timestamp)>,
}

impl Authority {
    pub(crate) async fn attest(&self, evidence: &EvidenceInput, now: Timestamp) -> Result<Attested, IssueError> {
        match evidence {
            EvidenceInput::Jwt(jwt) => self.attest_jwt(jwt, now).await,
            EvidenceInput::Certificate(chain) => self.attest_certificate(chain, now).await,
        }
    }

    async fn attest_jwt(&self, jwt: &SecretString, now: Timestamp) -> Result<Attested, IssueError> {
        let unverified = UnverifiedToken::parse(jwt.expose_secret()).map_err(refused)?;
        let provider = self.provider_of(&unverified)?;
        let at = UnixSeconds(now.secs());
        let keys = self.keys_of(&provider.name).await?;
        let evidence = match unverified.verify(&provider.rules, keys.jwt_keys(), at) {
            Err(token::Error::KeyUnknown { .. }) => {
                let keys = self.0.keys.refreshed(&provider.name).await.ok_or_else(|| unavailable(&provider.name))?;
                unverified.verify(&provider.rules, keys.jwt_keys(), at)
            }
            verified => verified,
        }
        .map_err(refused)?;
        let until = remembered_until(evidence.expires_at.0, provider.rules.leeway_secs);
        let key = sha256(&[b"jwt", evidence.issuer.as_bytes(), evidence.replay_key.as_bytes()]);
        let workload = WorkloadIdentity {
            provider: provider.name.clone(),
            issuer: evidence.issuer,
            subject: evidence.subject,
            claims: evidence.claims,
        };
        Ok(Attested { workload, use_once: provider.single_use.then_some((key, until)) })
    }

    /// A certificate proves itself anew in each handshake, so it is not used up.
    async fn attest_certificate(&self, chain: &[CertificateDer<'static>], now: Timestamp) -> Result<Attested, IssueError> {
        let leaf = chain.first().ok_or_else(|| {
            IssueError::Evidence("there is no client certificate; connect with the workload's X.509-SVID".into())
        })?;
        let claimed = token::svid::claimed_spiffe_id(leaf).map_err(refused)?;
        let provider = self.provider_for_domain(&claimed)?;
        let keys = self.keys_of(&provider.name).await?;
        let ProviderKeys::Bundle(bundle) = keys else { return Err(unavailable(&provider.name)) };
        let svid = token::svid::verify_x509_svid(chain, &bundle, UnixSeconds(now.secs())).map_err(refused)?;
        let workload = WorkloadIdentity {
            provider: provider.name.clone(),
            issuer: provider.issuer(),
            subject: svid.spiffe_id.to_string(),
            claims: Map::new(),
        };
        Ok(Attested { workload, use_once: None })
    }

    /// The issuer is looked up by exact comparison, never discovered from the token. A `sub` that is a SPIFFE ID of a
    /// configured trust domain chooses that domain, since JWT-SVIDs need no `iss`.
    fn provider_of(&self, unverified: &UnverifiedToken<'_>) -> Result<&Provider, IssueError> {
        let spiffe = unverified.claimed_subject().and_then(|sub| SpiffeId::parse(sub).ok());
        if let Some(id) = &spiffe
            && let Ok(provider) = self.provider_for_domain(id)
        {
            return Ok(provider);
        }
        let issuer = unverified.claimed_issuer();
        let found = self
            .0
            .providers
            .iter()
            .find(|provider| provider.trust_domain().is_none() && Some(provider.issuer().as_str()) == issuer);
        found.ok_or_else(|| IssueError::Evidence(format!("its issuer is not a configured identity provider; {UNCONFIGURED}")))
    }

    fn provider_for_domain(&self, id: &SpiffeId) -> Result<&Provider, IssueError> {
        let found = self.0.providers.iter().find(|provider| provider.trust_domain() == Some(id.trust_domain()));
        found.ok_or_else(|| {
            IssueError::Evidence(format!("its trust domain is not a configured identity provider; {UNCONFIGURED}"))
        })
    }

    async fn keys_of(&self, provider: &ProviderName) -> Result<ProviderKeys, IssueError> {
        self.0.keys.keys(provider).await.ok_or_else(|| unavailable(provider))
    }

    /// The one agent that this workload is.
    pub(crate) fn agent_of(&self, workload: &WorkloadIdentity) -> Result<Arc<Agent>, IssueError> {
        let mut matching =
            self.0.inventory.load().candidates(workload).filter(|agent| agent.is(workload)).cloned().collect::<Vec<_>>();
        matching.dedup_by(|one, two| one.id == two.id);
        match matching.as_slice() {
            [agent] => Ok(Arc::clone(agent)),
            // None, or several: two agents never share an identity (R3), so an ambiguous one is nobody's.
            _ => Err(IssueError::Unregistered),
        }
    }
}

/// Until when used evidence or a refused token is remembered: beyond its own end, because its validity was judged by a clock that stood
/// earlier than the ledger's will (keys were fetched, the ledger was busy), or that somebody sets back later.
pub(crate) fn remembered_until(expires_secs: i64, leeway_secs: i64) -> Timestamp {
    Timestamp::from_secs(expires_secs.saturating_add(leeway_secs.max(0)).saturating_add(REMEMBERED_SECS_MORE))
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

fn refused(error: token::Error) -> IssueError {
    tracing::info!(%error, "identity evidence refused");
    let reason = error.reason();
    IssueError::Evidence(format!("{}; {} (the rule is in the server's log)", reason.message(), reason.next()))
}

fn unavailable(provider: &ProviderName) -> IssueError {
    IssueError::ProviderUnavailable(provider.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_evidence_is_remembered_longer_than_a_clock_is_set_back() {
        let (expires, leeway) = (1_000, 30);
        assert!(remembered_until(expires, leeway) > Timestamp::from_secs(expires + leeway + 3_600));
        assert_eq!(remembered_until(i64::MAX, leeway), Timestamp::from_secs(i64::MAX));
    }
}
