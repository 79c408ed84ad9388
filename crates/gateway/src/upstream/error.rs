//! What can go wrong between the gateway and an upstream, named for the cause. Owns no wording for clients: the
//! responder maps these. No variant carries a secret, nor text that the upstream chose beyond a short excerpt.

use domain::EndReason;

/// Why an upstream gave no answer that can be passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// There is no upstream of this name.
    #[error("there is no such upstream")]
    Unknown,
    /// The registered URL cannot be used.
    #[error("the upstream's URL is not usable: {0}")]
    Url(&'static str),
    /// No connection could be made, or it broke before an answer came.
    #[error("the upstream cannot be reached: {0}")]
    Unreachable(String),
    /// The program of a stdio upstream could not be started.
    #[error("the upstream's program did not start: {0}")]
    NotStarted(String),
    /// The program of a stdio upstream ended while it was needed.
    #[error("the upstream's program ended while it was working on this")]
    Exited,
    /// No answer in time.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The answer is larger than the gateway accepts.
    #[error("the upstream's answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The task, or all tasks together, hold as many bytes of answers as the gateway keeps.
    #[error(
        "the gateway has no room for the upstream's answer, so it is withheld; the request was sent and may have been carried \
         out: do not repeat it blindly, read the other answers first, and ask for less at once"
    )]
    NoRoom,
    /// The answer breaks the protocol.
    #[error("the upstream broke the protocol: {0}")]
    Protocol(&'static str),
    /// The upstream answered with an HTTP status that is no answer to the request.
    #[error("the upstream answered with HTTP status {0}")]
    Status(u16),
    /// The upstream refused the credential that was injected, or wants one.
    #[error("the upstream refused the gateway's credential (HTTP status {0}); check the upstream's `inject` setting")]
    Unauthorized(u16),
    /// The upstream wants to send the request somewhere else; the credential does not go there.
    #[error("the upstream answered with a redirect, which is not followed; register the final URL")]
    Redirected,
    /// The upstream and the gateway have no protocol revision in common.
    #[error("the upstream speaks no protocol revision that the gateway knows")]
    NoCommonVersion,
    /// The credential to inject cannot be read.
    #[error("the upstream's credential cannot be read: {0}")]
    Credential(String),
    /// The answer holds a secret that the upstream was given for itself.
    #[error("the upstream's answer holds the gateway's own credential for it, so it is withheld; tell the upstream's owner")]
    SecretEchoed,
    /// The task has ended, and its connections with it.
    #[error("the task has ended: {}", .0.as_str())]
    TaskEnded(EndReason),
    /// The connection was closed.
    #[error("the connection to the upstream was closed")]
    Closed,
    /// More connections or requests than the gateway keeps.
    #[error("too many {0} to this upstream; try again later")]
    Busy(&'static str),
    /// The client did not read its events as fast as the upstream sent them.
    #[error("more events came from the upstream than the client read")]
    Overrun,
    /// The upstream asked the client for input again and again.
    #[error("the upstream asked for input more than {0} times in one request")]
    TooManyRounds(usize),
    /// A governed method was sent without a released decision: a fault of the gateway, so nothing was sent.
    #[error("this request was not released by a decision")]
    NotReleased,
    /// The policy that allowed it was replaced before it was sent.
    #[error("the policy changed before the request was sent; send it again")]
    PolicyChanged,
    /// The same, before a further round of it: the earlier ones were sent.
    #[error(
        "the policy changed while this waited for input, so it does not go on; what was sent before may have been carried out"
    )]
    PolicyChangedBetween,
    /// What the client asked cannot be carried to an upstream of this era.
    #[error("the upstream's protocol revision has no `{0}`")]
    Unsupported(String),
    /// The client answered a request that the upstream did not make, or answered it twice.
    #[error("there is no request of the upstream with this id that waits for an answer")]
    NoSuchRequest,
}
