//! Configured sources of identity evidence and the port through which their keys arrive. Owns the rules; fetching and
//! caching keys is the binary's.

use async_trait::async_trait;
use domain::ProviderName;
use std::sync::Arc;
use token::jwks::{KeySet, SpiffeBundle};
use token::spiffe_id::TrustDomain;
use token::verify::{EvidenceRules, Profile};

/// One configured source of evidence.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its name, as identity rules use it.
    pub name: ProviderName,
    /// Issuer, audience, algorithms, ages.
    pub rules: EvidenceRules,
    /// Whether one piece of evidence opens one task only. Off only where the issuer itself hands out the same token
    /// again (a SPIFFE Workload API caches JWT-SVIDs); flagged then.
    pub single_use: bool,
}

impl Provider {
    /// The issuer as it stands in identities: an OIDC issuer, or `spiffe://` and the trust domain.
    #[must_use]
    pub fn issuer(&self) -> String {
        match &self.rules.profile {
            Profile::Oidc { issuer } => issuer.clone(),
            Profile::JwtSvid { trust_domain } => trust_domain.id_string(),
        }
    }

    /// The trust domain, if it is a SPIFFE one.
    #[must_use]
    pub fn trust_domain(&self) -> Option<&TrustDomain> {
        match &self.rules.profile {
            Profile::Oidc { .. } => None,
            Profile::JwtSvid { trust_domain } => Some(trust_domain),
        }
    }
}

/// Keys of a provider.
#[derive(Debug, Clone)]
pub enum ProviderKeys {
    /// Of an OIDC issuer.
    Jwks(Arc<KeySet>),
    /// Of a SPIFFE trust domain.
    Bundle(Arc<SpiffeBundle>),
}

impl ProviderKeys {
    pub(crate) fn jwt_keys(&self) -> &KeySet {
        match self {
            Self::Jwks(keys) => keys,
            Self::Bundle(bundle) => bundle.jwt_keys(),
        }
    }
}

/// Where the keys of providers come from.
#[async_trait]
pub trait KeySource: Send + Sync + 'static {
    /// The keys as last fetched; fetches them if there are none yet. `None` if they cannot be had or are too old.
    async fn keys(&self, provider: &ProviderName) -> Option<ProviderKeys>;
    /// Fetches again because a key was unknown, unless that was done a short while ago. `None` as above.
    async fn refreshed(&self, provider: &ProviderName) -> Option<ProviderKeys>;
}
