//! What an operator may set about the agent-facing side, and the bounds of everything that a client could make grow.

/// Which names the gateway answers to, and its bounds.
#[derive(Debug, Clone, Default)]
pub struct GatewayConfig {
    /// Values of `Host` that are accepted besides the host of the issuer URL, each with its port if it has one.
    pub hosts: Vec<String>,
    /// Values of `Origin` that are accepted besides our own, for clients that run in browsers.
    pub origins: Vec<String>,
    /// Whether the listener is bound to a loopback address, so that loopback names with any port are ours.
    pub loopback: bool,
    /// Bounds.
    pub limits: Limits,
    /// The `traceparent` (W3C Trace Context) of the current span, if requests are traced: HTTP APIs get it whose target says so.
    pub traceparent: Option<fn() -> Option<String>>,
}

/// Bounds of what clients can make grow. Each can be lowered for a small machine.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest body. At most [`domain::limits::REQUEST_BYTES_MAX`].
    pub body_bytes_max: usize,
    /// Longest time in which a body must arrive: a slow sender holds a place and nothing else.
    pub body_secs_max: u64,
    /// Most requests at once, streams included.
    pub concurrent_max: usize,
    /// Most requests of one task at once, so that one task cannot take all places.
    pub concurrent_per_task_max: usize,
    /// Most sessions of legacy clients.
    pub sessions_max: usize,
    /// Most sessions of one task.
    pub sessions_per_task_max: usize,
    /// A session that is not used for so long is closed.
    pub session_idle_secs: u64,
    /// Most requests that wait for input of a stateless client, for upstreams that hold the request meanwhile.
    pub held_max: usize,
    /// How long they wait, and how long the state that an upstream hands out stays valid.
    pub held_secs: u64,
    /// A quiet stream gets a comment this often.
    pub keep_alive_secs: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: domain::limits::REQUEST_BYTES_MAX,
            body_secs_max: 30,
            concurrent_max: 8_192,
            concurrent_per_task_max: 128,
            sessions_max: 20_000,
            sessions_per_task_max: 16,
            session_idle_secs: 1_800,
            held_max: 1_024,
            held_secs: 600,
            keep_alive_secs: 15,
        }
    }
}
