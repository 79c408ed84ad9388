//! The gate in front of Redis: the only process with the right to change users there. The broker speaks to it and can ask
//! for a user of one of the gate's own templates, for its end, and for what there is; nothing else exists in its language
//! (Redis itself cannot limit `ACL SETUSER`: `docs/decisions/0008-redis-gate.md`). The gate also holds the deadlines, which
//! Redis does not know: it ends users whose time is over, whether the broker lives or not.
//!
//! It owns names, bounds and time; it knows no task and no policy.

mod nodes;
mod settings;

pub(super) use settings::LIFETIME_SECS_MAX;
pub use settings::{GateFault, GateSettings};

use super::name::Name;
use super::resp::{Reply, Stream, Wire};
use super::rules::digest;
use crate::config::Surroundings;
use authority::target::TargetError;
use nodes::Node;
use settings::Listen;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;

/// Most connections at once: the broker has a few.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How often users are ended whose time is over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The gate.
pub struct Gate {
    settings: GateSettings,
    nodes: Vec<Node>,
    surroundings: Arc<dyn Surroundings>,
    /// One change of users at a time: counting and creating are one step.
    changing: tokio::sync::Mutex<()>,
}

impl Gate {
    /// A gate with these settings. The administrator's password is read when a node is spoken to.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn new(settings: GateSettings, surroundings: Arc<dyn Surroundings>) -> Result<Arc<Self>, GateFault> {
        let nodes = settings.nodes.iter().map(|node| Node::new(node, &surroundings)).collect::<Result<_, _>>()?;
        Ok(Arc::new(Self { settings, nodes, surroundings, changing: tokio::sync::Mutex::default() }))
    }

    /// Listens and sweeps until it is dropped.
    ///
    /// # Errors
    /// The address cannot be listened at.
    pub async fn serve(self: Arc<Self>) -> std::io::Result<()> {
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let sweeping = Arc::clone(&self);
        let accept = async {
            match &self.settings.listen {
                Listen::Unix(path) => {
                    // One that was left by a dead gate; a live one is not disturbed by this, and then nobody reaches it.
                    if let Err(error) = std::fs::remove_file(path)
                        && error.kind() != std::io::ErrorKind::NotFound
                    {
                        return Err(error);
                    }
                    let listener = UnixListener::bind(path)?;
                    let owner_and_group = std::os::unix::fs::PermissionsExt::from_mode(0o660);
                    std::fs::set_permissions(path, owner_and_group)?;
                    loop {
                        let (stream, _) = listener.accept().await?;
                        self.talk(stream, &room);
                    }
                }
                Listen::Loopback(address) => {
                    let listener = TcpListener::bind(address).await?;
                    loop {
                        let (stream, _) = listener.accept().await?;
                        self.talk(stream, &room);
                    }
                }
            }
        };
        tokio::select! {
            done = accept => done,
            () = sweeping.sweep() => Ok(()),
        }
    }

    fn talk<S: Stream + 'static>(self: &Arc<Self>, stream: S, room: &Arc<Semaphore>) {
        // Over the bound a connection is closed at once, not queued.
        let Ok(place) = Arc::clone(room).try_acquire_owned() else { return };
        let gate = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = gate.conversation(Wire::new(stream, SILENCE_MAX)).await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(place);
        });
    }

    async fn conversation<S: Stream>(&self, mut wire: Wire<S>) -> Result<(), TargetError> {
        let mut known = false;
        loop {
            let silent = |_| TargetError::Unreachable("silent for too long".to_owned());
            let Some(words) = tokio::time::timeout(SILENCE_MAX, wire.command()).await.map_err(silent)?? else { return Ok(()) };
            let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            let reply = match words.as_slice() {
                [command, secret] if command.eq_ignore_ascii_case(b"AUTH") => {
                    known = self.is_broker(secret);
                    if known {
                        Ok(Reply::Text("OK".to_owned()))
                    } else {
                        Err(TargetError::Refused("not the broker's secret".to_owned()))
                    }
                }
                _ if !known => Err(TargetError::Refused("say AUTH first".to_owned())),
                [command, rest @ ..] => self.answer(&String::from_utf8_lossy(command).to_ascii_uppercase(), rest).await,
                [] => Err(TargetError::Refused("no command".to_owned())),
            };
            let wrong = reply.is_err() && !known;
            let reply = reply.unwrap_or_else(|error| Reply::Error(said(&error)));
            wire.send(&reply).await?;
            if wrong {
                // One guess for each connection.
                return Ok(());
            }
        }
    }

    fn is_broker(&self, secret: &[u8]) -> bool {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, secret);
        hash.as_ref().ct_eq(&self.settings.broker_sha256).into()
    }

    /// INVARIANT(gate-language): these are all the things that can be asked of the gate.
    async fn answer(&self, command: &str, words: &[&[u8]]) -> Result<Reply, TargetError> {
        let words = words.iter().map(|word| std::str::from_utf8(word)).collect::<Result<Vec<_>, _>>();
        let words = words.map_err(|_| TargetError::Refused("a word is not UTF-8".to_owned()))?;
        match (command, words.as_slice()) {
            ("PING", []) => Ok(Reply::Text("PONG".to_owned())),
            ("WRIT.ISSUE", [name, template, secret, rules, params @ ..]) => {
                self.issue([name, template, secret, rules], params).await
            }
            ("WRIT.CLOSE", [name]) => self.close(&ours(name)?).await.map(Reply::Number),
            ("WRIT.SESSIONS", [name]) => self.sum(&ours(name)?, Question::Sessions).await,
            ("WRIT.EXISTS", [name]) => self.sum(&ours(name)?, Question::Exists).await,
            ("WRIT.LIST", []) => self.list().await,
            ("WRIT.STANDING", []) => self.standing().await,
            ("WRIT.DESCRIBE", []) => Ok(self.describe().await),
            _ => Err(TargetError::Refused("the gate does not know this command".to_owned())),
        }
    }

    async fn issue(&self, [name, template, secret, rules]: [&str; 4], params: &[&str]) -> Result<Reply, TargetError> {
        let refused = |text: &str| TargetError::Refused(text.to_owned());
        let name = ours(name)?;
        let now = self.surroundings.now().secs();
        let longest = now.saturating_add(i64::try_from(self.settings.lifetime_secs_max).unwrap_or_default());
        if name.ends_at <= now || name.ends_at > longest {
            return Err(refused("the end is over, or later than `lifetime_secs_max` allows"));
        }
        if secret.len() != 64 || !secret.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Err(refused("the secret must come as its SHA-256 in lower-case hexadecimal"));
        }
        let template = self.settings.templates.get(template).ok_or_else(|| refused("the gate has no such template"))?;
        let (pairs, rest) = params.as_chunks::<2>();
        let given: BTreeMap<String, String> =
            pairs.iter().map(|[name, value]| ((*name).to_owned(), (*value).to_owned())).collect();
        if !rest.is_empty() || given.len() != pairs.len() {
            return Err(refused("parameters come in pairs of different names"));
        }
        let own = template.rules(&given).map_err(TargetError::Refused)?;
        if digest(&own) != rules {
            return Err(refused("the gate's template says other rules than the offer: bring both files to the same words"));
        }
        let _one_at_a_time = self.changing.lock().await;
        self.is_room_for(&name).await?;
        for node in &self.nodes {
            if let Err(error) = node.create(&name, secret, &own).await {
                self.unmake(&name).await;
                return Err(error);
            }
        }
        Ok(Reply::Text("OK".to_owned()))
    }

    /// A user that is there is never changed: what was decided for it stays what it is.
    async fn is_room_for(&self, name: &Name) -> Result<(), TargetError> {
        for node in &self.nodes {
            let users = node.ours().await?;
            if users.contains(name) {
                return Err(TargetError::Refused("this user is there already".to_owned()));
            }
            if users.len() >= self.settings.live_max {
                return Err(TargetError::Refused("as many users live as `live_max` allows".to_owned()));
            }
        }
        Ok(())
    }

    /// Half made is not made. What cannot be removed now is removed by the sweep at its end, or by the broker before.
    async fn unmake(&self, name: &Name) {
        for node in &self.nodes {
            if let Err(error) = node.delete(name).await {
                tracing::warn!(node = %node.place(), user = %name, %error, "a user that was half made is still there");
            }
        }
    }

    /// Deletes at every node that answers; fails if one did not, so that the broker comes again.
    async fn close(&self, name: &Name) -> Result<i64, TargetError> {
        let _one_at_a_time = self.changing.lock().await;
        let (mut deleted, mut failed) = (0, None);
        for node in &self.nodes {
            match node.delete(name).await {
                Ok(was_there) => deleted += i64::from(was_there),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(deleted), Err)
    }

    async fn sum(&self, name: &Name, question: Question) -> Result<Reply, TargetError> {
        let mut sum = 0;
        for node in &self.nodes {
            sum += match question {
                Question::Sessions => node.sessions(name).await?,
                Question::Exists => i64::from(node.ours().await?.contains(name)),
            };
        }
        Ok(Reply::Number(sum))
    }

    async fn list(&self) -> Result<Reply, TargetError> {
        let mut names = std::collections::BTreeSet::new();
        for node in &self.nodes {
            names.extend(node.ours().await?);
        }
        Ok(Reply::List(names.iter().map(|name| Reply::Bytes(name.to_string().into_bytes())).collect()))
    }

    async fn standing(&self) -> Result<Reply, TargetError> {
        let mut found = Vec::new();
        for node in &self.nodes {
            found.extend(node.standing().await?);
        }
        let texts = |texts: Vec<String>| Reply::List(texts.into_iter().map(|text| Reply::Bytes(text.into_bytes())).collect());
        Ok(Reply::List(found.into_iter().map(texts).collect()))
    }

    /// Lines of what the gate would do, for the broker's examination: nothing secret.
    async fn describe(&self) -> Reply {
        let mut lines = vec![format!("limits {} {}", self.settings.lifetime_secs_max, self.settings.live_max)];
        for (name, template) in &self.settings.templates {
            // Each parameter stands for itself, so that two files with the same words have the same digest.
            let params = template.params().into_iter().map(|param| (param.clone(), param)).collect();
            lines.push(format!("template {name} {}", template.rules(&params).map(|rules| digest(&rules)).unwrap_or_default()));
        }
        for node in &self.nodes {
            let state = node.examine().await.unwrap_or_else(|error| vec![format!("unreachable {error}")]);
            lines.extend(state.into_iter().map(|line| format!("node {} {line}", node.place())));
        }
        Reply::List(lines.into_iter().map(|line| Reply::Bytes(line.into_bytes())).collect())
    }

    /// Ends users whose time is over, for ever. A node that is down is asked again in the next round.
    async fn sweep(&self) {
        let mut turn = tokio::time::interval(SWEEP_EVERY);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turn.tick().await;
            for node in &self.nodes {
                if let Err(error) = self.sweep_node(node).await {
                    tracing::warn!(node = %node.place(), %error, "users whose time is over could not be looked for");
                }
            }
        }
    }

    async fn sweep_node(&self, node: &Node) -> Result<(), TargetError> {
        let now = self.surroundings.now().secs();
        for name in node.ours().await?.into_iter().filter(|name| name.ends_at <= now) {
            node.delete(&name).await?;
            tracing::info!(node = %node.place(), user = %name, "its time was over");
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Question {
    Sessions,
    Exists,
}

/// INVARIANT(gate-names): nothing but a name of our shape ever reaches a command that changes users.
fn ours(name: &str) -> Result<Name, TargetError> {
    name.parse().map_err(|()| TargetError::Refused("not a name of ours".to_owned()))
}

/// The first word tells the broker whether to come again.
fn said(error: &TargetError) -> String {
    match error {
        TargetError::Unreachable(text) => format!("UNREACHABLE {text}"),
        other => format!("REFUSED {other}"),
    }
}
