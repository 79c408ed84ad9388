//! Keys of identity providers, as the authority asks for them: from files, URLs, or the SPIFFE Workload API; cached,
//! renewed, and never older than a bound (design §5, R1). One fetch at a time for each provider, so that a flood of
//! evidence with unknown keys cannot become a flood of requests. Verification is the token crate's.

use crate::config::{Keys, Kind, Provider};
use crate::web::Web;
use anyhow::{Context, bail};
use arc_swap::ArcSwapOption;
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
/// How long those whose keys still count wait for younger ones.
const RENEWAL_WAIT: Duration = Duration::from_secs(2);
/// Keys that could not be renewed for this long no longer count: unsure means no.
const STALE_AFTER: Duration = Duration::from_secs(3_600);

/// The keys of all configured providers.
pub(crate) struct ConfiguredKeys(HashMap<ProviderName, Entry>);

struct Entry {
    origin: Arc<Origin>,
    /// What was fetched last. Keys that are young enough are read without waiting for anybody's fetch.
    cached: Arc<ArcSwapOption<Fetched>>,
    /// When a fetch was tried last. Held while one is under way: others wait for its result.
    tried: Arc<Mutex<Option<Instant>>>,
}

struct Fetched {
    keys: ProviderKeys,
    at: Instant,
}

/// Where a provider's keys come from and how they are read.
struct Origin {
    name: ProviderName,
    keys: Keys,
    trust_domain: Option<TrustDomain>,
    web: Web,
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
            (provider.name.clone(), Entry { origin: Arc::new(origin), cached: Arc::default(), tried: Arc::default() })
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
    /// The keys, fetched again if they are older than `age_max` and the last try is long enough ago.
    async fn current(&self, age_max: Duration) -> Option<ProviderKeys> {
        if self.known(age_max).is_none() {
            self.renew(age_max).await;
        }
        self.known(STALE_AFTER)
    }

    /// The same, but keys that still count are not kept waiting for an issuer that answers slowly: what is fetched counts
    /// from the next time on.
    async fn current_soon(&self, age_max: Duration) -> Option<ProviderKeys> {
        match tokio::time::timeout(RENEWAL_WAIT, self.current(age_max)).await {
            Ok(keys) => keys,
            Err(_) if self.known(STALE_AFTER).is_some() => self.known(STALE_AFTER),
            Err(_) => self.current(age_max).await,
        }
    }

    /// The keys that are there, if they are younger than `age_max`.
    fn known(&self, age_max: Duration) -> Option<ProviderKeys> {
        self.cached.load().as_ref().filter(|fetched| fetched.at.elapsed() < age_max).map(|fetched| fetched.keys.clone())
    }

    /// Fetches, unless somebody just did.
    ///
    /// INVARIANT(fetch-to-its-end): whoever needs the keys may go away. A fetch that ended with its asker, and counted as
    /// tried, would let anybody who closes a connection early keep the keys away from everybody else.
    async fn renew(&self, age_max: Duration) {
        let mut tried = Arc::clone(&self.tried).lock_owned().await;
        let floor = if self.cached.load().is_some() { self.origin.floor() } else { self.origin.floor().min(FIRST_FLOOR) };
        if self.known(age_max).is_some() || tried.is_some_and(|at| at.elapsed() < floor) {
            return;
        }
        *tried = Some(Instant::now());
        let (origin, cached) = (Arc::clone(&self.origin), Arc::clone(&self.cached));
        let fetching = tokio::spawn(async move {
            let _one_at_a_time = tried;
            match origin.fetch().await {
                Ok(keys) => cached.store(Some(Arc::new(Fetched { keys, at: Instant::now() }))),
                Err(error) => {
                    tracing::warn!(provider = %origin.name, error = format!("{error:#}"), "identity provider keys cannot be had");
                }
            }
        });
        // An error here is a fetch that broke off: then the keys are those of before.
        let _ = fetching.await;
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
        entry.current_soon(entry.origin.renew_after()).await
    }

    async fn refreshed(&self, provider: &ProviderName) -> Option<ProviderKeys> {
        self.0.get(provider)?.current(Duration::ZERO).await
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use axum::Router;
    use axum::routing::get;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;

    /// Keys over HTTP, how often they were asked for, and what lets each answer but the first `free` ones go.
    async fn serving(free: usize) -> (ConfiguredKeys, ProviderName, Arc<AtomicUsize>, Arc<Semaphore>) {
        let (asked, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(free)));
        let (counted, gone) = (Arc::clone(&asked), Arc::clone(&go));
        let answer = async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            gone.acquire().await.unwrap().forget();
            r#"{"keys":[]}"#
        };
        let keys = Router::new().route("/keys", get(answer));
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
        (ConfiguredKeys::new(&[provider]), name, asked, go)
    }

    impl Entry {
        /// As if the last fetch were longer ago than the floor.
        async fn tried_long_ago(&self) {
            *self.tried.lock().await = None;
        }
    }

    /// Resolves when the keys were asked for that often.
    async fn until_asked(asked: &AtomicUsize, times: usize) {
        while asked.load(Ordering::SeqCst) < times {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_fetch_goes_on_although_whoever_needed_it_went_away() {
        let (keys, name, asked, go) = serving(0).await;
        tokio::select! {
            _ = keys.keys(&name) => panic!("nothing was answered yet"),
            () = until_asked(&asked, 1) => {}
        }
        go.add_permits(1);
        assert!(keys.keys(&name).await.is_some(), "closing a connection must not keep keys away from everybody else");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn keys_that_are_known_do_not_wait_for_those_that_somebody_makes_up() {
        let (keys, name, asked, _held) = serving(1).await;
        assert!(keys.keys(&name).await.is_some());
        keys.0[&name].tried_long_ago().await;
        let mut made_up = std::pin::pin!(keys.refreshed(&name));
        tokio::select! {
            _ = &mut made_up => panic!("nothing was answered yet"),
            () = until_asked(&asked, 2) => {}
        }
        let known = tokio::time::timeout(Duration::from_secs(10), keys.keys(&name)).await;
        assert!(known.is_ok_and(|keys| keys.is_some()));
    }

    #[tokio::test]
    async fn a_flood_of_unknown_keys_is_one_fetch() {
        let (keys, name, asked, _) = serving(1).await;
        let many = (0..50).map(|_| async { keys.keys(&name).await.is_some() && keys.refreshed(&name).await.is_some() });
        assert!(futures_util::future::join_all(many).await.into_iter().all(|known| known));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_provider_that_nobody_configured_has_no_keys() {
        let (keys, ..) = serving(0).await;
        assert!(keys.keys(&"other".parse().unwrap()).await.is_none());
    }
}
