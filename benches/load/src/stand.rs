//! One set of servers to compare: the upstream itself, the lower bounds before it, and Writ before it; over TCP or TLS, with
//! their records in one folder. TLS goes up to whoever answers the client; the upstream is always reached over TCP.

use crate::agentgateway;
use crate::child::Server;
use crate::target::Target;
use crate::tls::Tls;
use crate::writ::{Held, Writ};
use anyhow::Result;
use std::path::Path;
use std::sync::Arc;
use testkit::Holder;

/// The row that rates are a share of.
pub(crate) const SYNCED: &str = "bare proxy, synced record";

/// Tasks where each client has one of its own.
const OWN: usize = 64;

pub(crate) struct Stand {
    pub(crate) writ: Writ,
    pub(crate) paths: Vec<(&'static str, Target)>,
    /// Behind all but the first path.
    _upstream: Server,
}

impl Stand {
    /// Starts them; agentgateway too if its binary is given.
    pub(crate) async fn start(folder: &Path, tls: Option<Tls>, agentgateway: Option<&Path>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let upstream = Server::baseline(&["upstream"]).await?;
        let at = upstream.at.to_string();
        let records = folder.join("records").display().to_string();
        let ledger = folder.join("ledger").display().to_string();
        let mut certificate = Vec::new();
        if let Some(tls) = &tls {
            certificate =
                vec!["--cert".to_owned(), tls.cert.display().to_string(), "--key".to_owned(), tls.key.display().to_string()];
        }
        let mut paths = Vec::new();
        for (name, words) in [
            ("direct", &["upstream"][..]),
            ("bare proxy", &["proxy", "--upstream", &at]),
            (SYNCED, &["proxy", "--upstream", &at, "--records", &records]),
            ("bare proxy, Writ's ledger", &["proxy", "--upstream", &at, "--ledger", &ledger]),
        ] {
            let words: Vec<&str> = words.iter().copied().chain(certificate.iter().map(String::as_str)).collect();
            let server = Arc::new(Server::baseline(&words).await?);
            paths.push((name, Target::plain(&server, tls.as_ref().map(|tls| tls.connector.clone()))));
        }
        let writ = Writ::start(&folder.join("writ"), upstream.at, tls.clone()).await?;
        if tls.is_some() {
            paths.push(("writ, certificate-bound", writ.calls(Held::Certificate).await?));
        } else {
            paths.push(("writ, bearer", writ.calls(Held::Bearer).await?));
            let mut own = Vec::new();
            for _ in 0..OWN {
                own.push(writ.calls(Held::Bearer).await?);
            }
            paths.extend(Target::each(own).map(|each| ("writ, bearer, a task each", each)));
            paths.push(("writ, DPoP", writ.calls(Held::Dpop(Arc::new(Holder::default()))).await?));
        }
        if let Some(binary) = agentgateway {
            paths.extend(agentgateway::start(binary, &folder.join("agentgateway"), upstream.at).await?);
        }
        Ok(Self { writ, paths, _upstream: upstream })
    }
}
