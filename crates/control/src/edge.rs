//! What surrounds every request, whatever its endpoint: its id, limits on how many and how long, the refusal of tokens in
//! a query, the rendering of problems, security headers. Knows no endpoint.

use crate::App;
use crate::problem::{Problem, Unrendered};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Requests that may be worked on at once; beyond it the node says so instead of letting all of them wait.
const IN_FLIGHT_MAX: usize = 4_096;
/// Of those who read the log, which is anybody: places of their own, so that no crowd of readers keeps an agent or an
/// operator out.
const LOG_IN_FLIGHT_MAX: usize = 256;
/// How long one request may take: longer than the ledger may, shorter than a client waits.
const HANDLE_MAX: Duration = Duration::from_secs(30);
/// Longest request id that is taken over from the caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The edge's own state.
pub(crate) struct Edge {
    slots: Semaphore,
    log_slots: Semaphore,
    id_key: RandomState,
    id_next: AtomicU64,
    secure: bool,
}

impl Edge {
    /// An edge for this issuer.
    pub(crate) fn new(issuer: &str) -> Self {
        Self {
            slots: Semaphore::new(IN_FLIGHT_MAX),
            log_slots: Semaphore::new(LOG_IN_FLIGHT_MAX),
            id_key: RandomState::new(),
            id_next: AtomicU64::new(0),
            secure: issuer.starts_with("https://"),
        }
    }

    /// A place for a request to this path; `None` if there is none.
    fn place(&self, path: &str) -> Option<SemaphorePermit<'_>> {
        let slots = if path.starts_with("/log/") { &self.log_slots } else { &self.slots };
        slots.try_acquire().ok()
    }

    /// The caller's id for the request if it is fit for a log line, else one of ours (AuthZEN §10.1.3 wants it echoed).
    fn request_id(&self, headers: &HeaderMap) -> HeaderValue {
        let given = headers.get(X_REQUEST_ID).filter(|value| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        given.cloned().unwrap_or_else(|| {
            let number = self.id_next.fetch_add(1, Ordering::Relaxed);
            let text = format!("req_{:016x}", self.id_key.hash_one(number));
            HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("req"))
        })
    }
}

/// The outermost layer.
pub(crate) async fn around(State(app): State<App>, request: Request, next: Next) -> Response {
    let edge = &app.edge;
    let id = edge.request_id(request.headers());
    let mut response = match admitted(edge, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.render(id.to_str().unwrap_or_default()),
    };
    if let Some(Unrendered(problem)) = response.extensions_mut().remove::<Unrendered>() {
        let allow = response.headers_mut().remove(http::header::ALLOW);
        response = problem.render(id.to_str().unwrap_or_default());
        response.headers_mut().extend(allow.map(|allow| (http::header::ALLOW, allow)));
    }
    harden(response.headers_mut(), edge.secure);
    response.headers_mut().insert(X_REQUEST_ID, id);
    response
}

async fn admitted(edge: &Edge, request: Request, next: Next) -> Result<Response, Problem> {
    let overloaded = || {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", "too many requests at once; try again").with(RETRY_AFTER, "1")
    };
    let _place = edge.place(request.uri().path()).ok_or_else(overloaded)?;
    if carries_token(request.uri().query()) {
        // RFC 6750 §2.3, RFC 9700 §2.5: a URI ends up in logs and histories.
        return Err(Problem::invalid(
            "a token never goes into the query; send it in the `authorization` header and end this one",
        ));
    }
    let timeout = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timeout", "the request took too long").with(RETRY_AFTER, "1");
    tokio::time::timeout(HANDLE_MAX, next.run(request)).await.map_err(|_| timeout())
}

fn carries_token(query: Option<&str>) -> bool {
    let tokens = ["access_token", "token", "subject_token", "assertion", "client_assertion", "client_secret"];
    query.is_some_and(|query| url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| tokens.contains(&&*name)))
}

/// Answers are data for programs: no browser shall guess, frame, run or keep them. Public documents say themselves how
/// long they may be kept.
fn harden(headers: &mut HeaderMap, secure: bool) {
    let fixed = [
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "cross-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if secure {
        let name = HeaderName::from_static("strict-transport-security");
        headers.insert(name, HeaderValue::from_static("max-age=31536000"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_log_readers_keeps_nobody_else_out() {
        let edge = Edge::new("https://writ.test");
        let readers: Vec<_> = std::iter::from_fn(|| edge.place("/log/checkpoint")).take(IN_FLIGHT_MAX + 1).collect();
        assert_eq!(readers.len(), LOG_IN_FLIGHT_MAX);
        assert!(edge.place("/log/tile/0/000").is_none());
        assert!(edge.place("/v1/tasks").is_some() && edge.place("/oauth/token").is_some() && edge.place("/logs").is_some());
    }
}
