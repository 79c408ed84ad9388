//! What the gate does at one Redis, with the administrator's right. Owns the exact commands: a user is made from nothing,
//! deleted, and looked for; nothing is saved (`ACL SAVE` would bring dead users back after a restart).

use super::super::name::Name;
use super::super::resp::{Address, Reply, Stream, Wire, tls};
use super::settings::{GateFault, NodeSettings};
use crate::config::Surroundings;
use authority::target::TargetError;
use domain::SecretRef;
use secrecy::ExposeSecret;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Longest time for one exchange with a node.
const WITHIN: Duration = Duration::from_secs(3);

/// One Redis.
pub(super) struct Node {
    address: Address,
    user: String,
    password: SecretRef,
    surroundings: Arc<dyn Surroundings>,
}

impl Node {
    pub(super) fn new(settings: &NodeSettings, surroundings: &Arc<dyn Surroundings>) -> Result<Self, GateFault> {
        let pem = settings.ca_file.as_ref().map(|path| std::fs::read(surroundings.locate(&path.to_string_lossy()))).transpose();
        let pem = pem.map_err(|error| GateFault(format!("`ca_file`: {error}")))?;
        let config = if settings.tls { Some(tls(pem.as_deref()).map_err(GateFault)?) } else { None };
        let password = SecretRef::File(surroundings.locate(&settings.password_file).to_string_lossy().into_owned());
        let address = Address::parse(&settings.address, config).map_err(GateFault)?;
        Ok(Self { address, user: settings.user.clone(), password, surroundings: Arc::clone(surroundings) })
    }

    pub(super) fn place(&self) -> String {
        self.address.to_string()
    }

    async fn open(&self) -> Result<Wire<Box<dyn Stream>>, TargetError> {
        let password = self.surroundings.read(&self.password).map_err(TargetError::Unreachable)?;
        let mut wire = self.address.connect(WITHIN).await?;
        let reply = wire.ask(&[b"AUTH", self.user.as_bytes(), password.expose_secret().as_bytes()]).await?;
        self.good(reply)?;
        Ok(wire)
    }

    fn good(&self, reply: Reply) -> Result<Reply, TargetError> {
        match reply {
            // Only its first word: the rest of a message can quote what was sent.
            Reply::Error(text) => {
                let word = text.split(' ').next().unwrap_or_default();
                Err(TargetError::Refused(format!("`{}` answered {word}", self.address)))
            }
            reply => Ok(reply),
        }
    }

    async fn ask(&self, words: &[&[u8]]) -> Result<Reply, TargetError> {
        let mut wire = self.open().await?;
        let reply = wire.ask(words).await?;
        self.good(reply)
    }

    /// The users of ours that are there.
    pub(super) async fn ours(&self) -> Result<BTreeSet<Name>, TargetError> {
        let users = self.ask(&[b"ACL", b"USERS"]).await?;
        Ok(users.texts().iter().filter_map(|user| user.parse().ok()).collect())
    }

    pub(super) async fn create(&self, name: &Name, secret: &str, rules: &[String]) -> Result<(), TargetError> {
        let (name, secret) = (name.to_string(), format!("#{secret}"));
        let mut words: Vec<&[u8]> = vec![b"ACL", b"SETUSER", name.as_bytes()];
        words.extend(rules.iter().map(String::as_bytes));
        words.push(secret.as_bytes());
        self.ask(&words).await.map(drop)
    }

    /// Deletes a user, which also closes its connections; whether it was there.
    pub(super) async fn delete(&self, name: &Name) -> Result<bool, TargetError> {
        let name = name.to_string();
        Ok(self.ask(&[b"ACL", b"DELUSER", name.as_bytes()]).await? != Reply::Number(0))
    }

    /// How many connections are there as this user.
    pub(super) async fn sessions(&self, name: &Name) -> Result<i64, TargetError> {
        let list = self.ask(&[b"CLIENT", b"LIST"]).await?.text().unwrap_or_default();
        let mark = format!("user={name}");
        let sessions = list.lines().filter(|line| line.split(' ').any(|word| word == mark)).count();
        Ok(i64::try_from(sessions).unwrap_or(i64::MAX))
    }

    /// The users that are not ours: name, then flags. Passwords and their hashes are never read.
    pub(super) async fn standing(&self) -> Result<Vec<Vec<String>>, TargetError> {
        let mut wire = self.open().await?;
        let users = self.good(wire.ask(&[b"ACL", b"USERS"]).await?)?.texts();
        let mut found = Vec::new();
        for user in users.iter().filter(|user| user.parse::<Name>().is_err()) {
            let about = self.good(wire.ask(&[b"ACL", b"GETUSER", user.as_bytes()]).await?)?;
            let Reply::List(about) = about else { continue };
            let (pairs, _) = about.as_chunks::<2>();
            let part = |name: &str| pairs.iter().find(|[key, _]| key.text().as_deref() == Some(name)).map(|[_, value]| value);
            let mut line = vec![user.clone(), self.place()];
            line.extend(part("flags").map(Reply::texts).unwrap_or_default());
            let text = |name: &str| part(name).and_then(Reply::text).unwrap_or_default();
            line.extend([format!("commands={}", text("commands")), format!("keys={}", text("keys"))]);
            found.push(line);
        }
        Ok(found)
    }

    /// What is too wide at this node.
    pub(super) async fn examine(&self) -> Result<Vec<String>, TargetError> {
        let standing = self.standing().await?;
        let default = standing.iter().find(|line| line.first().is_some_and(|name| name == "default"));
        let open = default.is_some_and(|line| line.iter().any(|flag| flag == "on") && line.iter().any(|flag| flag == "nopass"));
        Ok(vec![if open { "default_open".to_owned() } else { "fine".to_owned() }])
    }
}
