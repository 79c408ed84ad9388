//! Sets the demo up: a folder as `writ init` writes it, a few more agents and one too generous intent, the sample
//! upstream with a credential of its own, and the server. Everything is what a user would have.

use super::database::Database;
use super::login;
use super::tamper::Tamper;
use crate::cli::Failure;
use crate::cli::init;
use crate::config::{self, Config};
use crate::dev_issuer::DevIssuer;
use crate::key_file;
use crate::server::Server;
use anyhow::Context;
use helpdesk::Helpdesk;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Agents that only the demo has, file name and text. `support-bot` is from `init`.
const AGENTS: [(&str, &str); 3] = [
    (
        "case-bot",
        "owner = \"support\"\npurpose = \"Handles whole cases.\"\nreview_by = \"2099-01-01\"\nintents = [\"handle-case\"]\n[[identity]]\nprovider = \"dev\"\nclaims = { sub = \"case-bot\" }\n",
    ),
    (
        "old-bot",
        "owner = \"support\"\npurpose = \"Was replaced.\"\nreview_by = \"2099-01-01\"\nsuspended = true\nintents = [\"refund-order\"]\n[[identity]]\nprovider = \"dev\"\nclaims = { sub = \"old-bot\" }\n",
    ),
    (
        "forgotten-bot",
        "owner = \"support\"\npurpose = \"Nobody looked at it for years.\"\nreview_by = \"2020-01-01\"\nintents = [\"refund-order\"]\n[[identity]]\nprovider = \"dev\"\nclaims = { sub = \"forgotten-bot\" }\n",
    ),
];

/// An intent whose permit somebody wrote too generously: the guardrail must hold all the same.
const INTENT: &str = "name = \"handle-case\"\ndescription = \"Handle the case of one ticket from beginning to end.\"\nowner = \"support\"\nreach = [\"helpdesk\"]\n[params.ticket_id]\ntype = \"integer\"\ndescription = \"The ticket, such as 4711.\"\nmin = 1\n[limits]\nlifetime_secs = 900\ncalls = 20\n";
const PERMIT: &str = "// Too generous: everything, for a task that handles a case. What no task may do is in guardrails.cedar.\n@id(\"handle-case-anything\")\npermit (\n  principal is Intent::HandleCase,\n  action in [\n    Helpdesk::Action::\"read_ticket\", Helpdesk::Action::\"reply_ticket\", Helpdesk::Action::\"search_customers\",\n    Helpdesk::Action::\"send_email\"\n  ],\n  resource\n);\n";

/// A stage that is set and running.
pub(crate) struct Stage {
    /// The folder.
    pub(crate) dir: PathBuf,
    /// What it configures.
    pub(crate) config: Config,
    /// The URL of the server.
    pub(crate) url: String,
    /// The sample upstream.
    pub(crate) helpdesk: Helpdesk,
    /// The proxy in front of it.
    pub(crate) tamper: Tamper,
    /// A database, or why there is none.
    pub(super) database: Result<Database, String>,
    stopping: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Stage {
    /// Sets everything up in `dir` and starts it.
    ///
    /// # Errors
    /// What could not be set up.
    pub(crate) async fn set(dir: &Path) -> Result<Self, Failure> {
        init::write(dir)?;
        let port = free_port().await?;
        let proxy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for the sample upstream")?;
        write_additions(dir, port, proxy.local_addr().context("the sample upstream's address")?)?;
        let database = database(dir).await.map_err(|error| format!("{error:#}"));
        let credential = crate::system::random_text::<24>();
        key_file::create(&dir.join("helpdesk.token"), credential.as_bytes()).map_err(anyhow::Error::new)?;
        let helpdesk = Helpdesk::in_memory().map_err(anyhow::Error::new)?.requiring(credential.into());
        let behind = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("a port for the sample upstream")?;
        let tamper = Tamper::start(proxy, behind.local_addr().context("the sample upstream's address")?);
        let stopping = CancellationToken::new();
        let (serving, stopped) = (helpdesk.clone(), stopping.clone());
        tokio::spawn(async move { serving.serve(behind, stopped.cancelled_owned()).await });
        let config = config::load(&dir.join("writ.toml"))?;
        let server = Server::start(config.clone()).await?;
        let url = server.url().to_owned();
        let server = tokio::spawn(server.run(stopping.clone()));
        Ok(Self { dir: dir.to_owned(), config, url, helpdesk, tamper, database, stopping, server })
    }

    /// The development issuer.
    ///
    /// # Errors
    /// Its key cannot be read.
    pub(crate) fn issuer(&self) -> anyhow::Result<DevIssuer> {
        DevIssuer::open("urn:writ:dev", &self.dir.join("dev/issuer.key"))
    }

    /// Stops everything in good order.
    pub(crate) async fn strike(self) {
        self.stopping.cancel();
        let _ = self.server.await;
        if let Ok(database) = self.database {
            database.stop().await;
        }
    }

    /// Resolves when somebody wants it to stop.
    pub(crate) fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }
}

/// A database with a target on it, if PostgreSQL is installed here.
async fn database(dir: &Path) -> anyhow::Result<Database> {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?.local_addr()?.port();
    let database = Database::start(port).await?;
    if let Err(error) = login::prepare(dir, &database).await {
        login::withdraw(dir);
        database.stop().await;
        return Err(error.context("PostgreSQL is installed here, but its target could not be set up"));
    }
    Ok(database)
}

/// A port that is free now.
async fn free_port() -> anyhow::Result<u16> {
    let preferred = TcpListener::bind((Ipv4Addr::LOCALHOST, 8700)).await;
    let listener = match preferred {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
    };
    Ok(listener.local_addr()?.port())
}

fn write_additions(dir: &Path, port: u16, upstream: SocketAddr) -> anyhow::Result<()> {
    let path = dir.join("writ.toml");
    let text = fs::read_to_string(&path)?
        .replace("127.0.0.1:8700", &format!("127.0.0.1:{port}"))
        .replace("http://127.0.0.1:8701/mcp", &format!("http://{upstream}/mcp"))
        .replace("# injection = { env = \"HELPDESK_TOKEN\" }", "injection = { file = \"helpdesk.token\" }");
    fs::write(&path, text)?;
    for (name, text) in AGENTS {
        fs::write(dir.join("agents").join(format!("{name}.toml")), text)?;
    }
    fs::write(dir.join("policy/intents/handle-case.toml"), INTENT)?;
    Ok(fs::write(dir.join("policy/handle-case.cedar"), PERMIT)?)
}
