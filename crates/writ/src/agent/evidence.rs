//! Where a workload's proof of identity comes from on this machine. Each source can be asked again, because renewal
//! means proving oneself again; what it gives is never written anywhere.

use crate::cli::Failure;
use crate::dev_issuer::DevIssuer;
use crate::web::Web;
use http::{Request, header};
use http_body_util::Full;
use secrecy::SecretString;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// Largest evidence that is read, in bytes.
const EVIDENCE_BYTES_MAX: usize = 64 * 1024;

/// Longest time that an evidence command may take: a call to a cloud's identity service.
const COMMAND_MAX: Duration = Duration::from_secs(30);

/// A source of evidence.
pub(crate) enum Evidence {
    /// A file that something else keeps fresh (Kubernetes projects one).
    File(PathBuf),
    /// An environment variable. Good once, since nobody renews it.
    Variable(String),
    /// A command whose standard output it is.
    Command(String),
    /// The SPIFFE Workload API at this socket, or where `SPIFFE_ENDPOINT_SOCKET` says.
    Spiffe {
        /// The socket.
        socket: Option<String>,
        /// To whom it is made out.
        audience: String,
    },
    /// The identity token of a GitHub Actions job.
    GitHub {
        /// To whom it is made out.
        audience: String,
    },
    /// A development issuer's key.
    Development {
        /// The issuer.
        issuer: Box<DevIssuer>,
        /// The agent that it names.
        subject: String,
        /// To whom it is made out.
        audience: String,
    },
}

impl Evidence {
    /// Fresh evidence.
    ///
    /// # Errors
    /// The source has none.
    pub(crate) async fn fresh(&self, web: &Web) -> Result<SecretString, Failure> {
        let text = match self {
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                text.map_err(|error| missing(&format!("`{}` cannot be read", path.display())).why(error.to_string()))?
            }
            Self::Variable(name) => {
                crate::system::variable(name).ok_or_else(|| missing(&format!("the variable `{name}` is not set")))?
            }
            Self::Command(command) => of_command(command, COMMAND_MAX).await?,
            Self::Spiffe { socket, audience } => crate::workload_api::jwt_svid(socket.as_deref(), audience).await?,
            Self::GitHub { audience } => of_github(web, audience).await?,
            Self::Development { issuer, subject, audience } => issuer.identity_token(subject, audience)?,
        };
        let text = text.trim();
        if text.is_empty() || text.len() > EVIDENCE_BYTES_MAX {
            return Err(missing("what it gave is empty or too large"));
        }
        Ok(text.to_owned().into())
    }
}

fn missing(why: &str) -> Failure {
    Failure::new("there is no evidence of this workload's identity").why(why)
}

/// Renewal and the end of a task wait for evidence, so a command that hangs must not keep them for ever.
async fn of_command(command: &str, patience: Duration) -> Result<String, Failure> {
    let mut shell = tokio::process::Command::new("sh");
    let shell = shell.arg("-c").arg(command).stderr(std::process::Stdio::inherit()).kill_on_drop(true);
    let slow = |_| missing("the evidence command takes too long").why(format!("it was stopped after {} s", patience.as_secs()));
    let output = tokio::time::timeout(patience, shell.output()).await.map_err(slow)?;
    let output = output.map_err(|error| missing("the evidence command cannot be run").why(error.to_string()))?;
    if !output.status.success() {
        return Err(missing(&format!("the evidence command failed ({})", output.status)));
    }
    String::from_utf8(output.stdout).map_err(|_| missing("the evidence command gave something else than text"))
}

/// GitHub Actions gives a job a URL and a token for asking (`permissions: id-token: write`).
async fn of_github(web: &Web, audience: &str) -> Result<String, Failure> {
    let variable = |name: &str| {
        let unset = || missing(&format!("`{name}` is not set")).next("give the job `permissions: id-token: write`");
        crate::system::variable(name).ok_or_else(unset)
    };
    let url = variable("ACTIONS_ID_TOKEN_REQUEST_URL")?;
    let bearer = SecretString::from(variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN")?);
    let mut url = url::Url::parse(&url).map_err(|_| missing("ACTIONS_ID_TOKEN_REQUEST_URL is not a URL"))?;
    if !crate::web::is_secure(&url) {
        return Err(missing("ACTIONS_ID_TOKEN_REQUEST_URL is not https"));
    }
    url.query_pairs_mut().append_pair("audience", audience);
    let authorization = format!("Bearer {}", secrecy::ExposeSecret::expose_secret(&bearer));
    let request = Request::get(url.as_str()).header(header::AUTHORIZATION, authorization).body(Full::default());
    let request = request.map_err(|error| missing(&error.to_string()))?;
    let answer = web.send(request, EVIDENCE_BYTES_MAX).await.map_err(|error| missing(&error.to_string()))?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let token = body.get("value").and_then(Value::as_str).map(str::to_owned);
    token.ok_or_else(|| missing(&format!("GitHub answered {}", answer.status)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn a_command_that_does_not_end_is_not_waited_for() {
        let waited = of_command("exec sleep 600", Duration::from_millis(50));
        let failure = tokio::time::timeout(Duration::from_secs(20), waited).await.unwrap().unwrap_err();
        assert!(failure.to_string().contains("no evidence"), "{failure}");
        assert_eq!(of_command("echo token", Duration::from_secs(20)).await.unwrap(), "token\n");
    }
}
