//! An upstream as an operator registered it: where it is, how it is reached, and by which reference its credential is
//! found. Never holds a secret itself, only where to read it.

use crate::name::{OwnerId, UpstreamName};

/// Where a secret is read from, each time that it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable of the gateway.
    Env(String),
    /// A file that the gateway can read.
    File(String),
}

/// How the gateway speaks to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// MCP Streamable HTTP at this URL.
    Http {
        /// The endpoint.
        url: String,
    },
    /// An MCP server started as a child process, one for each task. Only from configuration files: a registration
    /// over the network must not be able to start programs.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Environment variables given to it by reference; nothing else of the gateway's environment reaches it but `PATH`.
        env: Vec<(String, SecretRef)>,
        /// Environment variables given to it in clear.
        vars: Vec<(String, String)>,
    },
}

/// A credential that the gateway adds to every request to the upstream; the agent never sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injection {
    /// The header that carries it, for example `authorization`.
    pub header: String,
    /// What stands before the secret, for example `Bearer `.
    pub prefix: String,
    /// Where the secret is.
    pub secret: SecretRef,
}

impl Injection {
    /// Whether a header (in lower case) can carry a credential: it is the name of one (RFC 9110 §5.1) and none that the
    /// transport writes itself.
    #[must_use]
    pub fn may_be_in(header: &str) -> bool {
        const OWN: [&str; 9] =
            ["host", "content-length", "connection", "transfer-encoding", "te", "trailer", "upgrade", "content-type", "accept"];
        let of_a_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !header.is_empty() && header.bytes().all(of_a_name) && !OWN.contains(&header) && !header.starts_with("mcp-")
    }
}

/// A registered upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name, as policies and paths use it.
    pub name: UpstreamName,
    /// Who answers for it.
    pub owner: OwnerId,
    /// How it is reached.
    pub transport: Transport,
    /// What is added to requests.
    pub injection: Option<Injection>,
    /// How long one request may take, in seconds.
    pub timeout_secs: u64,
}
