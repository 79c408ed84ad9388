//! Keys of identity providers, as the authority asks for them: from files, URLs, or the SPIFFE Workload API; cached,
//! renewed, and never older than a bound (design §5, R1). One fetch at a time for each provider, so that a flood of
//! evidence with unknown keys cannot become a flood of requests. Verification is the token crate's.

use crate::config::{Keys, Kind, Provider};
use crate::web::Web;
use anyhow::{Context, bail};
use async_trait::async_trait;
use authority::{KeySource, ProviderKeys};
use domain::ProviderName;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use token::jwks::{KEY_DOCUMENT_BYTES_MAX, KeySet, SpiffeBundle};
use token::spiffe_id::TrustDomain;
use tokio::sync::Mutex;

/// Keys are looked at again after this long, so that a withdrawn key stops counting.
const RENEW_AFTER: Duration = Duration::from_secs(300);
/// An unknown key causes at most one fetch in this time; a failed fetch is not repeated sooner either.
const FETCH_FLOOR: Duration = Duration::from_secs(60);
/// As long as there are no keys at all, a fetch may be tried this often.
const FIRST_FLOOR: Duration = Duration::from_secs(5);
/// Keys that could not be renewed for this long no longer count: unsure means no.
const STALE_AFTER: Duration = Duration::from_secs(3_600);

/// The keys of all configured providers.
pub(crate) struct ConfiguredKeys(HashMap<ProviderName, Entry>);

struct Entry {
    origin: Origin,
    cached: Mutex<Cached>,
}

/// Where a provider's keys come from and how they are read.
struct Origin {
    name: ProviderName,
    keys: Keys,
    trust_domain: Option<TrustDomain>,
    web: Web,
}

#[derive(Default)]
struct Cached {
    keys: Option<(ProviderKeys, Instant)>,
    tried_at: Option<Instant>,
}

impl ConfiguredKeys {
    /// Knows where to look; looks when asked.
    pub(crate) fn new(providers: &[Provider]) -> Self {
        let web = Web::new();
        let entry = |provider: &Provider| {
            let (keys, trust_domain) = match &provider.kind {
                Kind::Oidc { keys, .. } => (keys.clone(), None),
                Kind::Spiffe { keys, trust_domain } => (keys.clone(), Some(trust_domain.clone())),
            };
            let origin = Origin { name: provider.name.clone(), keys, trust_domain, web: web.clone() };
            (provider.name.clone(), Entry { origin, cached: Mutex::default() })
        };
        Self(providers.iter().map(entry).collect())
    }

    /// Fetches what is not there yet, and says what could not be had. For the start of a server, which goes on anyway.
    pub(crate) async fn warm(&self) {
        for entry in self.0.values() {
            let _ = entry.current(RENEW_AFTER).await;
        }
    }
}

impl Entry {
    /// The keys, fetched again if they are older than `age_max` and the last try is long enough ago. Holding the lock
    /// over the fetch makes it a single flight: others wait for its result.
    async fn current(&self, age_max: Duration) -> Option<ProviderKeys> {
        let mut cached = self.cached.lock().await;
        let now = Instant::now();
        let age = |at: Instant| now.saturating_duration_since(at);
        let fresh = cached.keys.as_ref().is_some_and(|(_, at)| age(*at) < age_max);
        let floor = if cached.keys.is_some() { self.origin.floor() } else { self.origin.floor().min(FIRST_FLOOR) };
        let tried_lately = cached.tried_at.is_some_and(|at| age(at) < floor);
        if !fresh && !tried_lately {
            cached.tried_at = Some(now);
            match self.origin.fetch().await {
                Ok(keys) => cached.keys = Some((keys, Instant::now())),
                Err(error) => {
                    tracing::warn!(provider = %self.origin.name, error = format!("{error:#}"), "identity provider keys cannot be had");
                }
            }
        }
        cached.keys.as_ref().filter(|(_, at)| at.elapsed() < STALE_AFTER).map(|(keys, _)| keys.clone())
    }
}

impl Origin {
    /// How often a fetch may happen at most. A local file costs nobody anything.
    fn floor(&self) -> Duration {
        match self.keys {
            Keys::File(_) => Duration::from_secs(1),
            Keys::Url(_) | Keys::WorkloadApi(_) => FETCH_FLOOR,
        }
    }

    fn renew_after(&self) -> Duration {
        match self.keys {
            Keys::File(_) => Duration::from_secs(2),
            Keys::Url(_) | Keys::WorkloadApi(_) => RENEW_AFTER,
        }
    }

    async fn fetch(&self) -> anyhow::Result<ProviderKeys> {
        let document = match &self.keys {
            Keys::File(path) => {
                let size = tokio::fs::metadata(path).await.with_context(|| format!("`{}`", path.display()))?.len();
                if size > KEY_DOCUMENT_BYTES_MAX as u64 {
                    bail!("`{}` is larger than a key document may be", path.display());
                }
                tokio::fs::read(path).await.with_context(|| format!("`{}`", path.display()))?
            }
            Keys::Url(url) => self.web.get(url, KEY_DOCUMENT_BYTES_MAX).await.with_context(|| format!("`{url}`"))?.to_vec(),
            Keys::WorkloadApi(endpoint) => self.workload_bundle(endpoint).await?,
        };
        Ok(match &self.trust_domain {
            None => ProviderKeys::Jwks(Arc::new(KeySet::parse(&document)?)),
            Some(domain) => ProviderKeys::Bundle(Arc::new(SpiffeBundle::parse(domain.clone(), &document)?)),
        })
    }

    /// The bundle of the trust domain from the Workload API, as a SPIFFE bundle document: JWT authorities as they are,
    /// X.509 authorities in the form that the same parser reads.
    async fn workload_bundle(&self, endpoint: &str) -> anyhow::Result<Vec<u8>> {
        let domain = self.trust_domain.as_ref().context("a Workload API is for SPIFFE")?;
        crate::workload_api::bundle_document(endpoint, domain).await
    }
}

#[async_trait]
impl KeySource for ConfiguredKeys {
    async fn keys(&self, provider: &ProviderName) -> Option<ProviderKeys> {
        let entry = self.0.get(provider)?;
        entry.current(entry.origin.renew_after()).await
    }

    async fn refreshed(&self, provider: &ProviderName) -> Option<ProviderKeys> {
        self.0.get(provider)?.current(Duration::ZERO).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Keys over HTTP, and how often they were asked for.
    async fn serving() -> (ConfiguredKeys, ProviderName, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let keys = Router::new().route(
            "/keys",
            get(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                async { r#"{"keys":[]}"# }
            }),
        );
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, keys).await });
        let name: ProviderName = "ci".parse().unwrap();
        let provider = Provider {
            name: name.clone(),
            audience: None,
            leeway_secs: 0,
            max_age_secs: 60,
            max_lifetime_secs: 60,
            single_use: true,
            algorithms: Vec::new(),
            kind: Kind::Oidc { issuer: "https://ci.example".to_owned(), keys: Keys::Url(url) },
            dev_key_file: None,
        };
        (ConfiguredKeys::new(&[provider]), name, asked)
    }

    #[tokio::test]
    async fn a_flood_of_unknown_keys_is_one_fetch() {
        let (keys, name, asked) = serving().await;
        let many = (0..50).map(|_| async { keys.keys(&name).await.is_some() && keys.refreshed(&name).await.is_some() });
        assert!(futures_util::future::join_all(many).await.into_iter().all(|known| known));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_provider_that_nobody_configured_has_no_keys() {
        let (keys, _, _) = serving().await;
        assert!(keys.keys(&"other".parse().unwrap()).await.is_none());
    }
}
