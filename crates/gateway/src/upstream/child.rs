//! A stdio upstream: one child process, its lines and its end. Owns framing, routing of lines to requests, and the
//! certainty that nothing of the process group survives the connection. Knows nothing of eras.
//! MCP 2025-11-25 and 2026-07-28 "stdio".

use super::cancel::Cancel;
use super::credential::{self, Shown};
use super::error::UpstreamError;
use super::exchange::Event;
use super::http::ANSWER_BYTES_MAX;
use super::http_stream::Patience;
use super::link::{ANSWER_WAIT, Link, Prepared};
use super::listen::deliver;
use super::pool::Place;
use super::waiting::{Delivered, Waiting};
use crate::mcp::message::{Id, Message};
use crate::mcp::stream;
use crate::room::Part;
use crate::slots::Slot;
use bytes::{Bytes, BytesMut};
use domain::Transport;
use secrecy::ExposeSecret;
use std::process::Stdio;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

/// Lines that wait to be written.
const OUTGOING_MAX: usize = 64;
/// How long a child may take to end after each hint: its input closed, then TERM.
const GRACE: Duration = Duration::from_millis(1_500);
/// How long a new one waits for the place of one that is ending.
const PLACE_WAIT: Duration = Duration::from_secs(4);
/// How much of a line of its standard error is kept, and how many lines of one child.
const ERROR_LINE_BYTES_MAX: usize = 500;
const ERROR_LINES_MAX: usize = 1_000;

/// A child process that speaks MCP on its standard streams.
pub(super) struct Child {
    outgoing: mpsc::Sender<Bytes>,
    waiting: Waiting,
    /// What it must not repeat: the secrets of its environment.
    shown: Shown,
    /// It has ended, or nobody can speak with it any more.
    dead: CancellationToken,
    /// It shall end.
    stop: CancellationToken,
}

impl Child {
    /// Starts the upstream's program: with `PATH`, what was configured, and nothing else of our environment.
    pub(super) async fn start(link: &Arc<Link>) -> Result<Arc<Self>, UpstreamError> {
        let place = match &link.place {
            Place::Children(places) => {
                let place = places.take_within(link.task, PLACE_WAIT).await;
                Some(place.map_err(|_| UpstreamError::Busy("programs"))?)
            }
            Place::Connection(_) | Place::Free => None,
        };
        let shown = Shown::default();
        let mut command = command(&link.hub.upstream.transport, &shown)?;
        let mut process = command.spawn().map_err(|error| UpstreamError::NotStarted(error.kind().to_string()))?;
        let no_stream = || UpstreamError::NotStarted("its standard streams are missing".to_owned());
        let stdin = process.stdin.take().ok_or_else(no_stream)?;
        let stdout = process.stdout.take().ok_or_else(no_stream)?;
        let stderr = process.stderr.take().ok_or_else(no_stream)?;
        let (outgoing, lines) = mpsc::channel(OUTGOING_MAX);
        let child = Arc::new(Self {
            outgoing,
            waiting: Waiting::new(&link.bodies),
            shown,
            dead: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        let name = link.name().to_string();
        tokio::spawn(write_lines(stdin, lines, child.stop.clone()));
        let room = link.bodies.empty();
        tokio::spawn(Self::read_lines(Arc::clone(&child), Arc::downgrade(link), stdout, room));
        tokio::spawn(log_errors(stderr, name.clone()));
        link.hub.farewells.spawn(supervise(process, Arc::clone(&child), name, place));
        Ok(child)
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    /// Ends the process, in the background.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Writes one message.
    pub(super) async fn send(&self, message: Bytes, deadline: Instant) -> Result<(), UpstreamError> {
        tokio::select! {
            biased;
            () = self.dead.cancelled() => Err(UpstreamError::Exited),
            sent = timeout_at(deadline, self.outgoing.send(message)) => {
                sent.map_err(|_| UpstreamError::Timeout)?.map_err(|_| UpstreamError::Exited)
            }
        }
    }

    /// Writes a request; its events come on the channel.
    pub(super) async fn send_request(
        &self,
        request: &Prepared,
        deadline: Instant,
    ) -> Result<mpsc::Receiver<Delivered>, UpstreamError> {
        let (events, params) = self.waiting.enter(&request.id, &request.method, request.params.as_ref())?;
        let message = stream::call(Some(&request.id), &request.method, params.as_ref());
        let sent = self.send(message, deadline).await;
        if sent.is_err() {
            self.waiting.leave(&request.id);
        }
        sent.map(|()| events)
    }

    /// Nobody waits for this request any more.
    pub(super) fn abandon(&self, id: &Id, message: Option<Bytes>) {
        if self.waiting.leave(id)
            && let Some(message) = message
        {
            // A child that does not read has more to worry about than this one.
            let _ = self.outgoing.try_send(message);
        }
    }

    async fn read_lines(self: Arc<Self>, link: Weak<Link>, mut stdout: impl AsyncRead + Unpin, mut room: Part) {
        let mut buffer = BytesMut::with_capacity(8 * 1_024);
        let mut seen = 0;
        loop {
            match stdout.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            while let Some(at) = buffer.iter().skip(seen).position(|byte| *byte == b'\n') {
                let line = buffer.split_to(seen + at + 1);
                // A short line does not keep the long piece that it came in.
                let whole = line.len() + buffer.capacity();
                let line = if line.len() * 4 < whole { Bytes::copy_from_slice(&line) } else { line.freeze() };
                seen = 0;
                let Some(link) = link.upgrade() else { return self.stop() };
                self.take_line(&link, &line);
            }
            seen = buffer.len();
            let fault = match seen > ANSWER_BYTES_MAX {
                true => UpstreamError::TooLarge(ANSWER_BYTES_MAX),
                false if room.cover(seen) => continue,
                false => UpstreamError::NoRoom,
            };
            tracing::warn!(error = %fault, "a line of a stdio upstream is too long; it is stopped");
            self.waiting.fail_all(&fault);
            break;
        }
        // Without its output nobody can speak with it.
        self.dead.cancel();
        self.waiting.fail_all(&UpstreamError::Exited);
        self.stop();
    }

    fn take_line(&self, link: &Arc<Link>, line: &Bytes) {
        if line.trim_ascii().is_empty() {
            return;
        }
        let Ok(message) = Message::parse(line) else {
            tracing::debug!(upstream = %link.name(), "a line that is no JSON-RPC message; ignored");
            return;
        };
        let bytes = line.len();
        let echoes = self.shown.is_in(line);
        match message {
            Message::Response(answer) => {
                let event = match echoes {
                    true => Err(UpstreamError::SecretEchoed),
                    false => Ok(answer.outcome.map_or_else(Event::Error, Event::Result)),
                };
                if !answer.id.is_some_and(|id| self.waiting.finish(&id, event, bytes)) {
                    tracing::debug!(upstream = %link.name(), "an answer to a request that nobody made; ignored");
                }
            }
            Message::Notification(_) | Message::Request(_) if echoes => {
                tracing::warn!(upstream = %link.name(), "a line of a stdio upstream holds a secret of its environment; withheld");
            }
            Message::Notification(said) => {
                let params = said.params.map(|params| params.raw().clone());
                if let Some(event) = self.waiting.notification(said.method, params, bytes) {
                    deliver(link, event);
                }
            }
            Message::Request(asked) => {
                let params = asked.params.map(|params| params.raw().clone());
                let event = Event::Request { id: asked.id, method: asked.method, params };
                if let Some(event) = self.waiting.to_newest(event, bytes) {
                    deliver(link, event);
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "programs are found by the gateway's own PATH")]
fn command(transport: &Transport, shown: &Shown) -> Result<Command, UpstreamError> {
    let Transport::Stdio { command, args, env, vars } = transport else {
        return Err(UpstreamError::NotStarted("it is not a program".to_owned()));
    };
    let mut out = Command::new(command);
    out.args(args).env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        out.env("PATH", path);
    }
    for (name, value) in vars {
        out.env(name, value);
    }
    for (name, reference) in env {
        let secret = credential::resolve(reference)?;
        out.env(name, secret.expose_secret());
        shown.note(secret);
    }
    out.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own, so that its children end with it; and an end even if the gateway's runtime just stops.
    out.process_group(0).kill_on_drop(true);
    Ok(out)
}

async fn write_lines(mut stdin: impl AsyncWrite + Unpin, mut lines: mpsc::Receiver<Bytes>, stop: CancellationToken) {
    loop {
        // The end first: what still waits belongs to a task that may have ended.
        let line = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            line = lines.recv() => line,
        };
        let Some(line) = line else { return };
        let mut framed = BytesMut::with_capacity(line.len() + 1);
        // Line breaks in JSON text only stand between tokens, where a space says the same.
        framed.extend(line.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
        framed.extend_from_slice(b"\n");
        let written = tokio::select! {
            biased;
            written = stdin.write_all(&framed) => written,
            () = stop.cancelled() => return,
        };
        if written.is_err() {
            return;
        }
    }
}

async fn log_errors(mut stderr: impl AsyncRead + Unpin, upstream: String) {
    let mut chunk = [0_u8; 4_096];
    let mut line: Vec<u8> = Vec::new();
    let mut lines = 0;
    loop {
        let read = match stderr.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        // Read on even when nothing is logged any more: a full pipe would stop the child.
        for byte in chunk.iter().take(read) {
            if *byte != b'\n' {
                if line.len() < ERROR_LINE_BYTES_MAX {
                    line.push(*byte);
                }
                continue;
            }
            if lines < ERROR_LINES_MAX {
                tracing::debug!(%upstream, line = %String::from_utf8_lossy(&line).escape_debug(), "standard error");
            }
            lines += 1;
            line.clear();
        }
    }
}

/// Waits for the end of the process, hastens it when asked to, and leaves nothing of its group. Its place is taken until then.
async fn supervise(mut process: tokio::process::Child, child: Arc<Child>, upstream: String, place: Option<Slot>) {
    let group = process.id();
    let ended = tokio::select! {
        biased;
        status = process.wait() => Some(status),
        () = child.stop.cancelled() => None,
    };
    let status = match ended {
        Some(status) => Ok(status),
        // Its input is closed by now: it may end by itself.
        None => match timeout(GRACE, process.wait()).await {
            Ok(status) => Ok(status),
            Err(waited_long_enough) => {
                signal(group, rustix::process::Signal::TERM);
                timeout(GRACE, process.wait()).await.map_err(|_| waited_long_enough)
            }
        },
    };
    signal(group, rustix::process::Signal::KILL);
    let status = match status {
        Ok(status) => status,
        Err(_) => process.wait().await,
    };
    tracing::debug!(%upstream, ?status, "the program of an upstream ended");
    drop(place);
    child.dead.cancel();
    child.waiting.fail_all(&UpstreamError::Exited);
    child.stop();
}

fn signal(group: Option<u32>, signal: rustix::process::Signal) {
    let group = group.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        // Nobody left to be told is what we want.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

/// The events of one request to a child.
pub(super) struct ChildStream {
    events: mpsc::Receiver<Delivered>,
    patience: Patience,
    deadline: Instant,
    child: Arc<Child>,
    cancel: Cancel,
}

impl ChildStream {
    pub(super) fn new(events: mpsc::Receiver<Delivered>, patience: Patience, child: Arc<Child>, cancel: Cancel) -> Self {
        Self { events, patience, deadline: patience.until(), child, cancel }
    }

    /// The next event. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<Event, UpstreamError> {
        let delivered = timeout_at(self.deadline, self.events.recv()).await.map_err(|_| UpstreamError::Timeout)?;
        let Some(delivered) = delivered else {
            let gone = self.child.is_dead();
            return Err(if gone { UpstreamError::Exited } else { UpstreamError::Overrun });
        };
        self.deadline = self.patience.until();
        let event = delivered.take()?;
        match &event {
            Event::Request { .. } => self.deadline = self.deadline.max(Instant::now() + ANSWER_WAIT),
            event if event.is_end() => self.cancel.disarm(),
            _ => {}
        }
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn what_still_waits_when_a_connection_ends_is_not_written() {
        let (ours, mut childs) = tokio::io::duplex(1_024);
        let (outgoing, lines) = mpsc::channel(4);
        outgoing.send(Bytes::from_static(b"{}")).await.unwrap();
        let stop = CancellationToken::new();
        stop.cancel();
        write_lines(ours, lines, stop).await;
        let mut written = Vec::new();
        childs.read_to_end(&mut written).await.unwrap();
        assert!(written.is_empty(), "{written:?}");
    }
}
