//! The SPIFFE Workload API: trust bundles for the server, JWT-SVIDs for `writ exec`. A thin edge over the `spiffe` crate
//! that answers in the forms that the rest of Writ reads; it verifies nothing itself.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use spiffe::{TrustDomain as Domain, WorkloadApiClient};
use std::time::Duration;
use token::spiffe_id::TrustDomain;

/// Longest time that the Workload API may take: it is on this machine.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The bundle of one trust domain as a SPIFFE bundle document.
///
/// # Errors
/// The Workload API cannot be reached, or has no bundle of this trust domain.
pub(crate) async fn bundle_document(endpoint: &str, domain: &TrustDomain) -> anyhow::Result<Vec<u8>> {
    tokio::time::timeout(ANSWER_MAX, bundle_keys(endpoint, domain)).await.context("the Workload API did not answer in time")?
}

async fn bundle_keys(endpoint: &str, domain: &TrustDomain) -> anyhow::Result<Vec<u8>> {
    let client = connect(endpoint).await?;
    let wanted = Domain::new(domain.as_str())?;
    let mut keys: Vec<Value> = Vec::new();
    let jwt = client.fetch_jwt_bundles().await.context("the Workload API gives no JWT bundles")?;
    for authority in jwt.get(&wanted).iter().flat_map(|bundle| bundle.jwt_authorities()) {
        let mut key: Value = serde_json::from_slice(authority.jwk_json())?;
        if let Some(members) = key.as_object_mut() {
            members.insert("use".to_owned(), json!("jwt-svid"));
            members.insert("kid".to_owned(), json!(authority.key_id()));
        }
        keys.push(key);
    }
    let x509 = client.fetch_x509_bundles().await.context("the Workload API gives no X.509 bundles")?;
    for authority in x509.get(&wanted).iter().flat_map(|bundle| bundle.authorities()) {
        keys.push(json!({ "use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(authority.as_bytes())] }));
    }
    anyhow::ensure!(!keys.is_empty(), "the Workload API has no bundle of trust domain `{}`", domain.as_str());
    Ok(serde_json::to_vec(&json!({ "keys": keys }))?)
}

/// A JWT-SVID of this workload made out to `audience`.
///
/// # Errors
/// The Workload API cannot be reached, or does not know this workload.
pub(crate) async fn jwt_svid(endpoint: Option<&str>, audience: &str) -> anyhow::Result<String> {
    let fetch = async {
        let client = match endpoint {
            Some(endpoint) => connect(endpoint).await?,
            None => WorkloadApiClient::connect_env().await.context("set SPIFFE_ENDPOINT_SOCKET to the Workload API's socket")?,
        };
        client
            .fetch_jwt_token(&[audience], None)
            .await
            .context("the Workload API gives no JWT-SVID: is this workload registered?")
    };
    tokio::time::timeout(ANSWER_MAX, fetch).await.context("the Workload API did not answer in time")?
}

async fn connect(endpoint: &str) -> anyhow::Result<WorkloadApiClient> {
    WorkloadApiClient::connect_to(endpoint).await.with_context(|| format!("the Workload API at `{endpoint}` cannot be reached"))
}
