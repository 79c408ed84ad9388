//! How long a connection is waited for: for its first request, for its next one, and for its client to take the bytes that
//! wait for it. Owns the three limits and what they are measured by; knows no request and no TLS.
//! RFC 9113 §5.2 (flow control) is why the socket alone does not tell: a client of HTTP/2 may read it, and yet let answers
//! wait by granting them no window.

use bytes::Bytes;
use http::Version;
use hyper::body::{Body, Frame, SizeHint};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Largest part of an answer that is handed to HTTP/2 at once: within the limit a client must take one of them.
const PART_BYTES_MAX: usize = 16 * 1_024;

/// For how long is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For the first request of a connection.
    pub(super) first: Duration,
    /// For the next stream of an HTTP/2 connection that has none. HTTP/1 has its limit of the head of a request for this.
    pub(super) idle: Duration,
    /// For any progress, while bytes wait to be taken.
    pub(super) stalled: Duration,
}

/// Why a connection is not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// It asked for nothing.
    Silent,
    /// It has no stream.
    Idle,
    /// Its client takes nothing of what waits for it.
    Stalled,
}

/// What one connection is doing.
#[derive(Debug)]
pub(super) struct Patience {
    limits: Limits,
    doing: Mutex<Doing>,
}

#[derive(Debug)]
struct Doing {
    /// Whether there was a request.
    begun: bool,
    /// Whether it speaks HTTP/1, where its own limits hold from the first request on.
    plain: bool,
    /// Streams whose request is being answered.
    open: usize,
    /// Those of them of which a part waits for its client.
    waiting: usize,
    /// The last change of these.
    since: Instant,
}

impl Patience {
    /// With a connection that begins now.
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let doing = Doing { begun: false, plain: false, open: 0, waiting: 0, since: Instant::now() };
        Arc::new(Self { limits, doing: Mutex::new(doing) })
    }

    /// A request came. What is given must live as long as its answer; there is nothing to keep for HTTP/1.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Option<Open> {
        let mut doing = self.doing();
        doing.begun = true;
        if version != Version::HTTP_2 {
            doing.plain = true;
            return None;
        }
        doing.open += 1;
        doing.since = Instant::now();
        drop(doing);
        Some(Open { of: Arc::clone(self), waiting: false })
    }

    /// Begins anew to wait for the next stream.
    pub(super) fn renew(&self) {
        self.doing().since = Instant::now();
    }

    /// Resolves when the connection is not waited for any longer. What it does may change while this sleeps, so that it may be
    /// late by the smallest limit.
    pub(super) async fn over(&self) -> Over {
        let Limits { first, idle, stalled } = self.limits;
        loop {
            let next = Instant::now() + first.min(idle).min(stalled);
            let again = match self.judge() {
                Waiting::For(why, until) if until <= Instant::now() => return why,
                Waiting::For(_, until) => until.min(next),
                Waiting::ForNothing => next,
                Waiting::Elsewhere => std::future::pending().await,
            };
            tokio::time::sleep_until(again).await;
        }
    }

    fn judge(&self) -> Waiting {
        let (doing, limits) = (self.doing(), self.limits);
        match *doing {
            Doing { begun: false, since, .. } => Waiting::For(Over::Silent, since + limits.first),
            Doing { plain: true, .. } => Waiting::Elsewhere,
            Doing { open: 0, since, .. } => Waiting::For(Over::Idle, since + limits.idle),
            Doing { waiting: 1.., since, .. } => Waiting::For(Over::Stalled, since + limits.stalled),
            _ => Waiting::ForNothing,
        }
    }

    fn doing(&self) -> MutexGuard<'_, Doing> {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a connection is waited for.
enum Waiting {
    /// For the end of this, until then.
    For(Over, Instant),
    /// For nothing that it must do.
    ForNothing,
    /// For what HTTP/1 has limits of its own.
    Elsewhere,
}

/// A stream of HTTP/2 whose request is being answered.
#[derive(Debug)]
pub(super) struct Open {
    of: Arc<Patience>,
    waiting: bool,
}

impl Open {
    /// Whether a part of it waits for its client, from now on.
    fn waits(&mut self, waiting: bool) {
        if self.waiting == waiting {
            return;
        }
        self.waiting = waiting;
        let mut doing = self.of.doing();
        if waiting {
            doing.waiting += 1
        } else {
            doing.waiting -= 1
        }
        doing.since = Instant::now();
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.waits(false);
        let mut doing = self.of.doing();
        doing.open -= 1;
        doing.since = Instant::now();
    }
}

/// An answer over HTTP/2, in parts. The next part is asked for when the client's window had room for the one before, so
/// that one which waits is seen here. The last byte is a part of its own: it is sent when all before it could be, and
/// nothing is left behind in the connection, where nobody sees it, when the answer ends.
pub(super) struct Answer<B> {
    body: B,
    rest: Bytes,
    open: Open,
}

impl<B> Answer<B> {
    /// The answer of an open stream.
    pub(super) fn new(body: B, open: Open) -> Self {
        Self { body, rest: Bytes::new(), open }
    }

    fn part(&mut self) -> Bytes {
        let most = self.rest.len().saturating_sub(1).clamp(1, PART_BYTES_MAX);
        self.rest.split_to(most.min(self.rest.len()))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.open.waits(false);
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let part = self.part();
        self.open.waits(true);
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        // Of one that had nothing from the beginning; any other is asked once more, after its last part.
        !self.open.waiting && self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(inner.lower().saturating_add(rest));
        hint
    }
}

/// A socket whose writing fails once its peer has taken nothing for too long. Only bytes that are there to be written
/// count: a stream that has no news is not stalled.
#[derive(Debug)]
pub(super) struct Taken<I> {
    io: I,
    limit: Duration,
    /// Since bytes wait.
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<I> Taken<I> {
    /// Over this socket.
    pub(super) fn new(io: I, limit: Duration) -> Self {
        Self { io, limit, waiting: None }
    }

    fn judge(&mut self, cx: &mut Context<'_>, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if wrote.is_ready() {
            self.waiting = None;
            return wrote;
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.limit)));
        ready!(waiting.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "its peer takes nothing of what waits for it")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Taken<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Taken<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.judge(cx, wrote)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.judge(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
