//! An open WebSocket between a task and an API. Each message of the task is decided, logged and released like a request
//! before it leaves; each message of the API is searched for the secret before the task gets it. Both sockets are closed the
//! moment that the task ends, its token is revoked or expires, or its API is described differently; when other policies come
//! into force, the opening is decided again before anything more passes.
//! Pings are answered here and pass to nobody; of a close only the code passes. RFC 6455 §5, §7.

use super::answer::{ApiBody, Stop, Ties, is_compressed};
use super::config::HttpLimits;
use super::handshake::Opening;
use super::route::Route;
use super::serve::Api;
use super::usage::Overdrawn;
use crate::observe::{Observer, Stage, Stopwatch};
use crate::scrub::Scanner;
use authority::{Authority, CallOutcome, CallStatus, Decision, Policy, Released};
use domain::{OfferName, Operation, Outcome, Reason, TargetName};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WireError, Message};
use tokio_util::sync::CancellationToken;

/// Largest message of an API: it is searched as a whole before any of it is given.
const MESSAGE_BYTES_MAX: usize = 1_024 * 1_024;
/// How long a side may take to hear that it is over. Nobody gets anything in this time.
const FAREWELL_MAX: Duration = Duration::from_secs(1);
/// How long the sockets may take to come about after both sides agreed.
const OPEN_MAX: Duration = Duration::from_secs(10);

type Wire = WebSocketStream<TokioIo<Upgraded>>;

/// A WebSocket that both sides agreed on, and everything that it hangs on.
pub(crate) struct Socket {
    pub(crate) authority: Authority,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) ties: Ties,
    /// What the opening was decided on, and each message is.
    pub(crate) arguments: Map<String, Value>,
    pub(crate) reloads: Reloads,
    pub(crate) decided: Decided,
}

/// A description of an API.
pub(crate) struct Reload {
    /// How many came before it.
    pub(crate) number: u64,
    /// The policy that knows its routes.
    pub(crate) policy: Arc<Policy>,
}

/// Under which description the opening was decided, and which is in force.
pub(crate) struct Reloads {
    decided: watch::Sender<u64>,
    now: watch::Receiver<Reload>,
}

impl Reloads {
    /// Those in force now. Taken before the opening is decided, so that none is missed.
    pub(crate) fn of(api: &Api) -> Self {
        let now = api.reloads.subscribe();
        let decided = watch::Sender::new(now.borrow().number);
        Self { decided, now }
    }

    /// Resolves when others are in force than those decided under: how many reloads there were.
    async fn others(&self) -> Option<u64> {
        let decided = *self.decided.borrow();
        self.now.clone().wait_for(|now| now.number != decided).await.map(|now| now.number).ok()
    }

    /// Resolves when those in force are those decided under.
    async fn settled(&self) {
        // It cannot be dropped meanwhile.
        let _ = self.decided.subscribe().wait_for(|decided| *decided == self.now.borrow().number).await;
    }

    /// Resolves when the policy in force is the one that knows the routes: between two steps of a reload it means others by the
    /// same names.
    async fn described(&self, authority: &Authority) {
        // If nobody describes it any more, its end is known elsewhere.
        let _ = self.now.clone().wait_for(|now| Arc::ptr_eq(&now.policy, &authority.policy())).await;
    }

    /// Whether both are so.
    fn stand(&self, authority: &Authority) -> bool {
        let now = self.now.borrow();
        *self.decided.borrow() == now.number && Arc::ptr_eq(&now.policy, &authority.policy())
    }
}

/// The route on which it was decided.
pub(crate) struct Decided {
    target: TargetName,
    offer: OfferName,
    limits: HttpLimits,
    may_be_opaque: bool,
    /// Cancelled when its API is described differently.
    replaced: CancellationToken,
}

impl Decided {
    /// This route of this API.
    pub(crate) fn of(api: &Api, route: &Route) -> Self {
        Self {
            target: api.target.name.clone(),
            offer: route.offer.clone(),
            limits: api.target.limits,
            may_be_opaque: route.opaque_answers,
            replaced: api.replaced.clone(),
        }
    }
}

/// Why it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Stop(Stop),
    /// Its API is described differently.
    Replaced,
    /// A message of the task was refused, or the opening when it was decided again.
    Refused(Reason),
    /// The task sent more messages than it may in a minute.
    TooMany,
    /// The task sent what is no message.
    Garbled,
    /// The task closed it, or went away.
    Client(Option<CloseCode>),
    /// The API closed it.
    Api(Option<CloseCode>),
}

impl End {
    const fn status(self) -> CallStatus {
        match self {
            Self::Stop(stop) => stop.status(),
            Self::Replaced | Self::Refused(_) | Self::TooMany => CallStatus::Withheld,
            Self::Garbled => CallStatus::Cancelled,
            Self::Client(_) | Self::Api(_) => CallStatus::Ok,
        }
    }

    /// What the task is told.
    fn to_client(self) -> Option<CloseFrame> {
        let (code, words) = match self {
            Self::Stop(stop) => (code(stop), stop.words().to_owned()),
            Self::Replaced => (CloseCode::Policy, "other routes are in force: open it again".to_owned()),
            Self::Refused(reason) => (CloseCode::Policy, format!("a message was refused: {}", reason.as_str())),
            Self::TooMany => (CloseCode::Policy, "this task may not send more messages to this API in a minute".to_owned()),
            Self::Garbled => (CloseCode::Protocol, String::new()),
            Self::Client(code) | Self::Api(code) => return code.map(|code| CloseFrame { code, reason: "".into() }),
        };
        Some(CloseFrame { code, reason: words.into() })
    }

    /// What the API is told: never why.
    fn to_api(self) -> Option<CloseFrame> {
        let code = match self {
            Self::Client(code) | Self::Api(code) => code,
            _ => Some(CloseCode::Away),
        };
        code.map(|code| CloseFrame { code, reason: "".into() })
    }
}

const fn code(stop: Stop) -> CloseCode {
    match stop {
        Stop::Stopping | Stop::Timeout => CloseCode::Away,
        Stop::TooLarge => CloseCode::Size,
        Stop::Broken => CloseCode::Error,
        Stop::Over(_) | Stop::TokenExpired | Stop::Echo | Stop::Encoded | Stop::Overdrawn | Stop::NoRoom => CloseCode::Policy,
    }
}

impl From<Overdrawn> for End {
    fn from(overdrawn: Overdrawn) -> Self {
        match overdrawn {
            Overdrawn::Requests(_) => Self::TooMany,
            Overdrawn::Bytes => Self::Stop(Stop::Overdrawn),
        }
    }
}

/// What the task got of the API.
struct Received {
    scanner: Scanner,
    digest: aws_lc_rs::digest::Context,
    bytes: u64,
}

/// When either side was last heard.
struct Heard(Mutex<Instant>);

impl Heard {
    fn now(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Resolves when nobody was heard for so long.
    async fn silence(&self, pause: Duration) -> End {
        loop {
            let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner) + pause;
            if until <= Instant::now() {
                return End::Stop(Stop::Timeout);
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

impl Socket {
    /// The answer to the task's client; what follows is carried in the background.
    ///
    /// # Errors
    /// The API agreed to something that it was not asked; the outcome is recorded.
    pub(crate) fn open(
        self,
        opening: &Opening,
        request: Request<()>,
        response: Response<Incoming>,
    ) -> Result<Response<ApiBody>, Stop> {
        match opening.agree(response.headers()) {
            Ok(answer) => {
                tokio::spawn(self.run(hyper::upgrade::on(request), hyper::upgrade::on(response)));
                Ok(answer)
            }
            Err(stop) => {
                self.ties.released.record(stop.status().into());
                Err(stop)
            }
        }
    }

    /// Carries messages until one side, the task or anything that it stands on ends; then closes both sides.
    pub(crate) async fn run(self, client: OnUpgrade, api: OnUpgrade) {
        let mut received = Received {
            scanner: Scanner::new(Arc::clone(&self.ties.needles)),
            digest: aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256),
            bytes: 0,
        };
        let opened = tokio::select! {
            biased;
            end = self.over() => Err(end),
            () = tokio::time::sleep(OPEN_MAX) => Err(End::Stop(Stop::Timeout)),
            both = async { tokio::try_join!(client, api) } => both.map_err(|_| End::Client(None)),
        };
        let (client, api) = match opened {
            Ok(both) => both,
            Err(end) => return self.record(end, received),
        };
        let (mut to_client, mut from_client) = wire(client, Role::Server, self.decided.limits.request_bytes).await.split();
        let largest = usize::try_from(self.decided.limits.response_bytes).unwrap_or(usize::MAX).min(MESSAGE_BYTES_MAX);
        let (mut to_api, mut from_api) = wire(api, Role::Client, largest).await.split();
        let heard = Heard(Mutex::new(Instant::now()));
        let end = tokio::select! {
            biased;
            end = self.over() => end,
            end = heard.silence(Duration::from_secs(self.decided.limits.timeout_secs)) => end,
            end = self.up(&mut from_client, &mut to_api, &heard) => end,
            end = self.down(&mut from_api, &mut to_client, &heard, &mut received) => end,
        };
        tracing::debug!(target = %self.decided.target, decision = %self.ties.released.decision(), ?end, "a WebSocket ends");
        self.record(end, received);
        let api = async {
            let _ = to_api.send(Message::Close(end.to_api())).await;
            drop((to_api, from_api));
        };
        let client = async {
            let _ = to_client.send(Message::Close(end.to_client())).await;
            // Read to its end and dropped: what still lies there unread would take the close frame away from the client.
            while let Some(Ok(_)) = from_client.next().await {}
        };
        let _ = tokio::time::timeout(FAREWELL_MAX, api).await;
        let _ = tokio::time::timeout(FAREWELL_MAX, client).await;
    }

    /// Resolves when nothing more may pass, whatever the two sides do.
    async fn over(&self) -> End {
        tokio::select! {
            biased;
            over = self.ties.caller.wait_over() => End::Stop(Stop::Over(over)),
            () = self.decided.replaced.cancelled() => End::Replaced,
            () = self.ties.stopping.cancelled() => End::Stop(Stop::Stopping),
            () = tokio::time::sleep_until(self.ties.expires) => End::Stop(Stop::TokenExpired),
            end = self.keep_decided() => end,
        }
    }

    /// Decides the opening again whenever other policies came into force; resolves when they do not allow it.
    async fn keep_decided(&self) -> End {
        loop {
            let Some(reloads) = self.reloads.others().await else { return End::Replaced };
            match self.decide().await {
                Ok(released) => released.record(CallStatus::Ok.into()),
                Err(end) => return end,
            }
            self.reloads.decided.send_replace(reloads);
        }
    }

    /// Decides what the opening was decided on, and lets it go once.
    async fn decide(&self) -> Result<Released, End> {
        let operation =
            Operation::SendHttp { target: &self.decided.target, offer: &self.decided.offer, arguments: &self.arguments };
        let watch = Stopwatch::start();
        let decision = self.authority.decide(&self.ties.caller, operation).await;
        watch.stop(&*self.observer, Stage::Decide);
        let (outcome, denial) = match decision {
            Decision::Allow(permit) => {
                self.observer.decided(Outcome::Allow, None);
                // The last look before it leaves.
                return permit.release().map_err(|over| End::Stop(Stop::Over(over)));
            }
            Decision::Deny(denial) => (Outcome::Deny, denial),
            Decision::Ask(denial) => (Outcome::Ask, denial),
            Decision::Failed(denial) => (Outcome::Failed, denial),
        };
        self.observer.decided(outcome, Some(denial.reason));
        Err(End::Refused(denial.reason))
    }

    /// Messages of the task.
    async fn up(&self, from: &mut SplitStream<Wire>, to: &mut SplitSink<Wire, Message>, heard: &Heard) -> End {
        loop {
            let message = match from.next().await {
                Some(Ok(message)) => message,
                Some(Err(WireError::Capacity(_))) => return End::Stop(Stop::TooLarge),
                Some(Err(WireError::Protocol(_) | WireError::Utf8(_))) => return End::Garbled,
                Some(Err(_)) | None => return End::Client(None),
            };
            heard.now();
            let passed = match self.ties.spent.bytes(message.len()).map_err(End::from) {
                Ok(()) => self.pass_up(message, to).await,
                Err(end) => Err(end),
            };
            if let Err(end) = passed {
                return end;
            }
        }
    }

    async fn pass_up(&self, message: Message, to: &mut SplitSink<Wire, Message>) -> Result<(), End> {
        match message {
            Message::Text(_) | Message::Binary(_) => {}
            Message::Close(frame) => return Err(End::Client(frame.map(|frame| frame.code))),
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return Ok(()),
        }
        self.ties.spent.request(std::time::Instant::now())?;
        let released = loop {
            self.reloads.described(&self.authority).await;
            self.reloads.settled().await;
            let released = self.decide().await?;
            // INVARIANT(policy-stands)
            if self.reloads.stand(&self.authority) {
                break released;
            }
            released.record(CallStatus::NotReleased.into());
        };
        let sent = to.send(message).await;
        released.record(if sent.is_ok() { CallStatus::Ok } else { CallStatus::UpstreamError }.into());
        sent.map_err(|_| End::Stop(Stop::Broken))
    }

    /// Messages of the API.
    async fn down(
        &self,
        from: &mut SplitStream<Wire>,
        to: &mut SplitSink<Wire, Message>,
        heard: &Heard,
        received: &mut Received,
    ) -> End {
        loop {
            let message = match from.next().await {
                Some(Ok(Message::Close(frame))) => return End::Api(frame.map(|frame| frame.code)),
                Some(Ok(message)) => message,
                Some(Err(WireError::Capacity(_))) => return End::Stop(Stop::TooLarge),
                Some(Err(_)) | None => return End::Stop(Stop::Broken),
            };
            heard.now();
            if let Err(stop) = self.check(&message, received) {
                return End::Stop(stop);
            }
            self.reloads.settled().await;
            if matches!(message, Message::Text(_) | Message::Binary(_)) && to.send(message).await.is_err() {
                return End::Client(None);
            }
        }
    }

    /// Whether the task may get this.
    fn check(&self, message: &Message, received: &mut Received) -> Result<(), Stop> {
        received.bytes += message.len() as u64;
        if received.bytes > self.decided.limits.response_bytes {
            return Err(Stop::TooLarge);
        }
        self.ties.spent.bytes(message.len()).map_err(|_| Stop::Overdrawn)?;
        let bytes = match message {
            Message::Text(text) => text.as_bytes(),
            Message::Binary(bytes) => bytes,
            _ => return Ok(()),
        };
        if !self.decided.may_be_opaque && is_compressed(bytes) {
            return Err(Stop::Encoded);
        }
        // One search through all messages: a secret that is cut into several is found with the last of them.
        received.scanner.push(bytes)?;
        received.scanner.border()?;
        received.digest.update(bytes);
        self.ties.caller.over().map_or(Ok(()), |over| Err(Stop::Over(over)))
    }

    fn record(self, end: End, received: Received) {
        let result_sha256 = received.digest.finish().as_ref().try_into().ok();
        self.ties.released.record(CallOutcome { status: end.status(), result_sha256, bytes: received.bytes });
    }
}

async fn wire(upgraded: Upgraded, role: Role, message_bytes_max: usize) -> Wire {
    let config = WebSocketConfig::default()
        .read_buffer_size(8 * 1_024)
        .write_buffer_size(0)
        .max_message_size(Some(message_bytes_max))
        .max_frame_size(Some(message_bytes_max));
    WebSocketStream::from_raw_socket(TokioIo::new(upgraded), role, Some(config)).await
}
