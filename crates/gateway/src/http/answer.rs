//! The answer of an API on its way to the task: searched for the secret, stripped of what is not for the task, counted, cut
//! when the task ends. A small answer is read as a whole and its outcome recorded before it is given; a large one and a
//! stream pass piece by piece and break off visibly if they must. Trailers are read and not passed on.
//! RFC 9110 §7.6, §15.4; RFC 9112 §6.

use super::route::Route;
use super::serve::Api;
use super::usage::Spent;
use crate::room::Room;
use crate::scrub::{Echo, Needles, Scanner};
use crate::slots::Slot;
use crate::tied::Tied;
use authority::{CallOutcome, CallStatus, Caller, Over, Released};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Largest answer that is read as a whole before any of it is given.
const WHOLE_BYTES_MAX: usize = 1_024 * 1_024;

/// The body of an answer.
pub type ApiBody = UnsyncBoxBody<Bytes, Cut>;

/// An answer broke off. The connection to the client is closed then, so that half an answer never looks like a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was cut: {0}")]
pub struct Cut(&'static str);

/// Why an answer ends before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Over(Over),
    TokenExpired,
    Stopping,
    Echo,
    /// It is compressed, so nothing can be looked for in it.
    Encoded,
    TooLarge,
    Overdrawn,
    Timeout,
    Broken,
    /// The task, or all tasks together, hold as many bytes of answers as the gateway keeps.
    NoRoom,
}

impl From<Echo> for Stop {
    fn from(_: Echo) -> Self {
        Self::Echo
    }
}

impl Stop {
    pub(crate) const fn status(self) -> CallStatus {
        match self {
            Self::Over(_) | Self::TokenExpired | Self::Encoded | Self::Overdrawn | Self::NoRoom => CallStatus::Withheld,
            Self::Stopping => CallStatus::Cancelled,
            Self::Echo => CallStatus::SecretEchoed,
            Self::TooLarge | Self::Broken => CallStatus::UpstreamError,
            Self::Timeout => CallStatus::Timeout,
        }
    }

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Over(Over::TaskEnded(_)) => "the task has ended",
            Self::Over(_) => "the access token was revoked",
            Self::TokenExpired => "the access token has expired",
            Self::Stopping => "the gateway is stopping",
            Self::Echo => "it holds the credential of the API",
            Self::Encoded => "it is compressed, so it cannot be searched for the credential of the API",
            Self::TooLarge => "it is too large",
            Self::Overdrawn => "the task has moved all the bytes that it may at this API",
            Self::Timeout => "the API was too slow",
            Self::Broken => "the API broke off",
            Self::NoRoom => "the gateway has no room for it: read the other answers first",
        }
    }
}

/// What an answer hangs on while it is under way.
pub(crate) struct Ties {
    pub(crate) caller: Caller,
    pub(crate) released: Released,
    pub(crate) spent: Arc<Spent>,
    pub(crate) slot: Slot,
    /// The task's, for answers.
    pub(crate) room: Room,
    pub(crate) stopping: CancellationToken,
    /// When the caller's token expires.
    pub(crate) expires: Instant,
    /// When a whole answer must be there.
    pub(crate) deadline: Instant,
    pub(crate) needles: Arc<Needles>,
}

/// An answer under way.
struct Passing {
    ties: Ties,
    body: Incoming,
    scanner: Option<Scanner>,
    /// The first bytes, by which compressed files are known.
    head: Vec<u8>,
    may_be_opaque: bool,
    /// Longest pause between two pieces of a stream; `None` for an answer that has one deadline.
    pause: Option<Duration>,
    bytes: u64,
    bytes_max: u64,
    digest: aws_lc_rs::digest::Context,
    status: CallStatus,
}

/// The answer as the task gets it.
///
/// # Errors
/// Why it gets none; the outcome is recorded.
pub(crate) async fn pass(
    response: Response<Incoming>,
    (api, route, method): (&Api, &Route, &Method),
    ties: Ties,
) -> Result<Response<ApiBody>, Stop> {
    let (mut parts, body) = response.into_parts();
    // A change of protocol that nobody asked for: what followed would be neither read nor searched.
    if parts.status.is_informational() {
        ties.released.record(CallStatus::UpstreamError.into());
        return Err(Stop::Broken);
    }
    let mut status =
        if parts.status.is_client_error() || parts.status.is_server_error() { CallStatus::ToolError } else { CallStatus::Ok };
    let (headers, echoed) = match read_headers(&parts.headers, api, &ties.needles) {
        Ok(read) => read,
        Err(stop) => {
            ties.released.record(stop.status().into());
            return Err(stop);
        }
    };
    if echoed {
        status = CallStatus::SecretEchoed;
    }
    let length = one_length(&parts.headers);
    parts.headers = headers;
    parts.extensions.clear();
    let streams = is_stream(&parts.headers);
    let passing = Passing {
        scanner: Some(Scanner::new(Arc::clone(&ties.needles))),
        body,
        head: Vec::with_capacity(8),
        may_be_opaque: route.opaque_answers,
        pause: streams.then(|| Duration::from_secs(api.target.limits.timeout_secs)),
        bytes: 0,
        bytes_max: api.target.limits.response_bytes,
        digest: aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256),
        status,
        ties,
    };
    let empty = *method == Method::HEAD || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let mut answer = match streams || length.is_some_and(|length| length > WHOLE_BYTES_MAX as u64) {
        true if !empty => Response::new(passing.into_stream(Bytes::new())),
        _ => Response::new(passing.whole().await?),
    };
    *answer.status_mut() = parts.status;
    *answer.headers_mut() = parts.headers;
    if let (true, Some(length)) = (*method == Method::HEAD, length) {
        answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(answer)
}

impl Passing {
    /// The next piece that may leave; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, Stop> {
        loop {
            let limit = self.pause.map_or(self.ties.deadline, |pause| Instant::now() + pause);
            let endless = self.pause.is_some();
            let frame = tokio::select! {
                biased;
                over = self.ties.caller.wait_over() => return Err(Stop::Over(over)),
                () = self.ties.stopping.cancelled(), if endless => return Err(Stop::Stopping),
                () = tokio::time::sleep_until(self.ties.expires), if endless => return Err(Stop::TokenExpired),
                () = tokio::time::sleep_until(limit) => return Err(Stop::Timeout),
                frame = self.body.frame() => frame,
            };
            let piece = match frame {
                None => return self.finish(),
                Some(Err(_)) => return Err(Stop::Broken),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.take(&data)?,
                    // Trailers are not passed on; that they held the secret is worth knowing.
                    Err(frame) => match frame.into_trailers().is_ok_and(|trailers| hold_secret(&trailers, &self.ties.needles)) {
                        true => return Err(Stop::Echo),
                        false => continue,
                    },
                },
            };
            if !piece.is_empty() {
                self.digest.update(&piece);
                return Ok(Some(piece));
            }
        }
    }

    fn take(&mut self, data: &Bytes) -> Result<Bytes, Stop> {
        self.bytes += data.len() as u64;
        if self.bytes > self.bytes_max {
            return Err(Stop::TooLarge);
        }
        self.ties.spent.bytes(data.len()).map_err(|_| Stop::Overdrawn)?;
        if !self.may_be_opaque && self.head.len() < 8 {
            self.head.extend(data.iter().take(8 - self.head.len()));
            if is_compressed(&self.head) {
                return Err(Stop::Encoded);
            }
        }
        match &mut self.scanner {
            Some(scanner) => Ok(scanner.push(data)?),
            None => Ok(Bytes::new()),
        }
    }

    fn finish(&mut self) -> Result<Option<Bytes>, Stop> {
        let rest = self.scanner.take().map_or(Ok(Bytes::new()), Scanner::finish)?;
        self.digest.update(&rest);
        Ok(Some(rest).filter(|rest| !rest.is_empty()))
    }

    /// The whole answer, if it is small.
    async fn whole(mut self) -> Result<ApiBody, Stop> {
        let mut whole = BytesMut::new();
        let mut part = self.ties.room.empty();
        loop {
            match self.next().await {
                Ok(Some(piece)) if part.cover(whole.len() + piece.len()) => whole.extend_from_slice(&piece),
                Ok(Some(_)) => {
                    self.record(Stop::NoRoom.status());
                    return Err(Stop::NoRoom);
                }
                Ok(None) => break,
                Err(stop) => {
                    self.record(stop.status());
                    return Err(stop);
                }
            }
            if whole.len() > WHOLE_BYTES_MAX {
                return Ok(self.into_stream(part.hold(whole.freeze())));
            }
        }
        // The last look: an answer is not given to a task that ended while it was read.
        if let Some(over) = self.ties.caller.over() {
            self.record(CallStatus::Withheld);
            return Err(Stop::Over(over));
        }
        let status = self.status;
        self.record(status);
        Ok(Full::new(part.hold(whole.freeze())).map_err(|never| match never {}).boxed_unsync())
    }

    /// The answer piece by piece, behind what was read of it.
    fn into_stream(self, first: Bytes) -> ApiBody {
        let caller = self.ties.caller.clone();
        let pieces = unfold((Some(self), first), |(passing, first)| async move {
            let mut passing = passing?;
            if !first.is_empty() {
                return Some((Ok(Frame::data(first)), (Some(passing), Bytes::new())));
            }
            match passing.next().await {
                Ok(Some(piece)) => Some((Ok(Frame::data(piece)), (Some(passing), Bytes::new()))),
                Ok(None) => {
                    let status = passing.status;
                    passing.record(status);
                    None
                }
                Err(stop) => {
                    tracing::info!(decision = %passing.ties.released.decision(), why = stop.words(), "the answer of an API was cut");
                    passing.record(stop.status());
                    Some((Err(Cut(stop.words())), (None, Bytes::new())))
                }
            }
        });
        let cut = Err(Cut("its task has ended, or it was not read"));
        BodyExt::boxed_unsync(StreamBody::new(Tied::new(pieces.boxed(), caller, Some(cut))))
    }

    fn record(self, status: CallStatus) {
        let Self { ties: Ties { released, slot, .. }, digest, bytes, .. } = self;
        let result_sha256 = digest.finish().as_ref().try_into().ok();
        released.record(CallOutcome { status, result_sha256, bytes });
        drop(slot);
    }
}

/// Headers that are about one connection (RFC 9110 §7.6.1), that would set something up between the API and the task past
/// the gateway (cookies, challenges and nonces, other addresses), that a proxy in front of us would obey (`x-accel-redirect`), or
/// that are ours to set.
const NOT_PASSED: [&str; 23] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "content-encoding",
    "set-cookie",
    "set-cookie2",
    "www-authenticate",
    "proxy-authenticate",
    "authentication-info",
    "dpop-nonce",
    "proxy-authentication-info",
    "alt-svc",
    "strict-transport-security",
    "clear-site-data",
    "refresh",
    "x-sendfile",
    "nel",
    "report-to",
];

/// The headers of an answer as the task gets them, and whether one was left out because it held the secret.
fn read_headers(from: &HeaderMap, api: &Api, needles: &Arc<Needles>) -> Result<(HeaderMap, bool), Stop> {
    let plain = |name: HeaderName, word: &str| {
        let text = |value: &HeaderValue| value.to_str().map(str::to_ascii_lowercase).unwrap_or_default();
        from.get_all(name)
            .iter()
            .map(text)
            .all(|value| value.split(',').all(|coding| matches!(coding.trim(), "" | "identity") || coding.trim() == word))
    };
    if !plain(CONTENT_ENCODING, "identity") || !plain(TRANSFER_ENCODING, "chunked") {
        return Err(Stop::Encoded);
    }
    let listed: Vec<String> = from
        .get_all(http::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let mut to = HeaderMap::with_capacity(from.len());
    let mut echoed = false;
    for (name, value) in from {
        let holds = needles.occur_in(value.as_bytes()) || needles.occur_in(name.as_str().as_bytes());
        if *name == LOCATION {
            match holds {
                true => echoed = true,
                false => drop(to.append(LOCATION, api.relocated(value))),
            }
            continue;
        }
        if holds {
            return Err(Stop::Echo);
        }
        let private = NOT_PASSED.contains(&name.as_str())
            || ["access-control-", "x-accel-"].iter().any(|begin| name.as_str().starts_with(begin));
        if !private && !listed.iter().any(|listed| listed == name.as_str()) {
            to.append(name.clone(), value.clone());
        }
    }
    Ok((to, echoed))
}

fn hold_secret(trailers: &HeaderMap, needles: &Arc<Needles>) -> bool {
    trailers.iter().any(|(_, value)| needles.occur_in(value.as_bytes()))
}

fn one_length(headers: &HeaderMap) -> Option<u64> {
    crate::admission::one(headers, CONTENT_LENGTH.as_str()).ok().flatten()?.parse().ok()
}

fn is_stream(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    matches!(essence.as_str(), "text/event-stream" | "application/x-ndjson" | "application/jsonl" | "application/stream+json")
}

/// Whether a body begins as compressed files do: gzip, zstd, zlib, zip, xz, bzip2.
pub(super) fn is_compressed(head: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 8] =
        [b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"x\x01", b"x\x9c", b"x\xda", b"PK\x03\x04", b"\xfd7zXZ\x00", b"BZh"];
    BEGINNINGS.iter().any(|beginning| head.starts_with(beginning))
}
