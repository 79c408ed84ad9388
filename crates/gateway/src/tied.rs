//! An answer that is given piece by piece holds a place, a connection to its upstream and a decision without an outcome for
//! as long as its reader takes. A reader that stops to read is never asked for anything again, so nothing within the answer
//! could notice that its task ended: this does, from outside, and drops what is left. Knows no protocol.

use authority::Caller;
use futures_util::Stream;
use futures_util::stream::BoxStream;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a reader may leave what it was given lying there.
const UNREAD_MAX: Duration = Duration::from_secs(120);
/// How often that is looked for in this time.
const LOOKS: u32 = 8;
/// How long one who still reads has for the last words of an answer whose task has ended.
const FAREWELL: Duration = Duration::from_secs(1);

/// The rest of an answer.
pub(crate) struct Tied<T: 'static> {
    rest: Arc<Rest<T>>,
    /// What comes when it was cut off.
    cut: Option<T>,
    _read: oneshot::Sender<()>,
}

struct Rest<T: 'static>(Mutex<Left<T>>);

struct Left<T: 'static> {
    pieces: Option<BoxStream<'static, T>>,
    /// When the last piece was given, if none was asked for since.
    given: Option<Instant>,
    cut: bool,
}

impl<T: Send + 'static> Tied<T> {
    /// These pieces, for as long as somebody reads them and `caller` may have them; `cut` tells the reader that they ended
    /// early.
    pub(crate) fn new(pieces: BoxStream<'static, T>, caller: Caller, cut: Option<T>) -> Self {
        let over = async move {
            let _ = caller.wait_over().await;
        };
        Self::until(pieces, over, cut, UNREAD_MAX)
    }

    fn until(
        pieces: BoxStream<'static, T>,
        over: impl Future<Output = ()> + Send + 'static,
        cut: Option<T>,
        unread_max: Duration,
    ) -> Self {
        let rest = Arc::new(Rest(Mutex::new(Left { pieces: Some(pieces), given: None, cut: false })));
        let (read, gone) = oneshot::channel();
        tokio::spawn(watch(Arc::clone(&rest), over, unread_max, gone));
        Self { rest, cut, _read: read }
    }
}

async fn watch<T: Send + 'static>(
    rest: Arc<Rest<T>>,
    over: impl Future<Output = ()>,
    unread_max: Duration,
    mut gone: oneshot::Receiver<()>,
) {
    let over = async {
        over.await;
        tokio::time::sleep(FAREWELL).await;
    };
    tokio::pin!(over);
    loop {
        tokio::select! {
            biased;
            _ = &mut gone => return,
            () = &mut over => break,
            () = tokio::time::sleep(unread_max / LOOKS) => {
                if rest.lies_unread(unread_max) {
                    break;
                }
            }
        }
    }
    rest.take(true);
}

impl<T> Rest<T> {
    fn left(&self) -> std::sync::MutexGuard<'_, Left<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lies_unread(&self, unread_max: Duration) -> bool {
        self.left().given.is_some_and(|given| given.elapsed() > unread_max)
    }

    fn take(&self, cut: bool) {
        let mut left = self.left();
        let pieces = left.pieces.take();
        left.cut = cut && pieces.is_some();
        // Dropped after the lock: it may hold anything.
        drop(left);
        drop(pieces);
    }
}

impl<T: Unpin> Stream for Tied<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        let mut left = this.rest.left();
        let Some(pieces) = &mut left.pieces else {
            return Poll::Ready(if left.cut { this.cut.take() } else { None });
        };
        let polled = pieces.as_mut().poll_next(context);
        left.given = matches!(polled, Poll::Ready(Some(_))).then(Instant::now);
        if matches!(polled, Poll::Ready(None)) {
            drop(left);
            this.rest.take(false);
        }
        polled
    }
}

impl<T> Drop for Tied<T> {
    fn drop(&mut self) {
        self.rest.take(false);
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use futures_util::{FutureExt, StreamExt, stream};

    /// Pieces without end that tell when they are dropped, and how they do.
    fn pieces() -> (BoxStream<'static, u32>, oneshot::Receiver<()>) {
        let (held, dropped) = oneshot::channel::<()>();
        let pieces = stream::iter(0..).map(move |number| {
            let _held = &held;
            number
        });
        (pieces.boxed(), dropped)
    }

    #[tokio::test]
    async fn what_nobody_reads_is_dropped() {
        let (given, dropped) = pieces();
        let mut tied = Tied::until(given, std::future::pending(), Some(u32::MAX), Duration::from_millis(100));
        assert_eq!(tied.next().await, Some(0));
        assert!(tokio::time::timeout(Duration::from_secs(20), dropped).await.unwrap().is_err());
        assert_eq!((tied.next().await, tied.next().await), (Some(u32::MAX), None));
    }

    #[tokio::test]
    async fn one_who_waits_for_the_next_piece_reads() {
        let (held, mut dropped) = oneshot::channel::<()>();
        let later = stream::pending().map(move |number| {
            let _held = &held;
            number
        });
        let slow = stream::iter([0]).chain(later).boxed();
        let mut tied = Tied::until(slow, std::future::pending(), None, Duration::from_millis(20));
        assert_eq!(tied.next().await, Some(0));
        assert!(tokio::time::timeout(Duration::from_millis(200), tied.next()).await.is_err());
        assert!((&mut dropped).now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_end_of_a_task_drops_what_a_reader_left_lying() {
        let (given, dropped) = pieces();
        let (end, ended) = oneshot::channel::<()>();
        let mut tied = Tied::until(given, ended.map(drop), None, UNREAD_MAX);
        assert_eq!(tied.next().await, Some(0));
        end.send(()).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(20), dropped).await.unwrap().is_err());
        assert_eq!(tied.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_drops_everything_at_once() {
        let (given, dropped) = pieces();
        drop(Tied::until(given, std::future::pending(), None, UNREAD_MAX));
        assert!(dropped.now_or_never().unwrap().is_err());
    }

    #[tokio::test]
    async fn what_ends_by_itself_ends_plainly() {
        let tied = Tied::until(stream::iter([1, 2]).boxed(), std::future::pending(), Some(9), UNREAD_MAX);
        assert_eq!(tied.collect::<Vec<_>>().await, [1, 2]);
    }
}
