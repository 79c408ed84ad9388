//! Users of Redis and Valkey, made through the gate ([`gate`]): the broker itself has no right there. Owns how an offer
//! becomes exactly one user's rules, and its end: deleting a user closes its connections, where switching it off does not
//! (`docs/targets/redis.md`).

pub mod gate;
mod name;
mod resp;
mod rules;

pub use rules::Template;

use crate::config::{Config, ConfigFaults, OfferSection, Secret, Section};
use async_trait::async_trait;
use authority::ShownPlan;
use authority::target::{
    Acceptance, Asked, Evidence, Finding, Found, Gravity, Handle, Minted, Plan, Standing, Target, TargetError, Verifier,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;
use domain::{Ending, OfferName, Params, SecretOrigin, Timestamp, Value};
use name::Name;
use resp::{Address, Reply, tls};
use rules::digest;
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest time for one exchange with the gate, which speaks to every node in it.
const WITHIN: Duration = Duration::from_secs(10);

/// How much longer the gate lets a user live than the offers say, in seconds: its clock and ours differ.
const CLOCK_DIFFERENCE_SECS: u64 = 60;

struct RedisOffer {
    /// Its name at the gate.
    template: String,
    lifetime_secs: u64,
    rules: Template,
}

struct Redis {
    gate: Address,
    gate_secret: Secret,
    nodes: Vec<Address>,
    /// Whether the nodes are reached over TLS, and who signed their certificates if it is no public authority.
    tls: bool,
    ca_pem: Option<String>,
    offers: BTreeMap<OfferName, RedisOffer>,
}

/// What is decided and then done, in the plan's canonical bytes.
#[derive(Serialize, Deserialize)]
struct Decided {
    user: String,
    template: String,
    params: BTreeMap<String, String>,
    rules: Vec<String>,
    secret_sha256: String,
}

/// Opens the target of a target file of kind `redis`.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let connect = &config.connect;
    let (gate, gate_secret) = (connect.text("gate", "unix:/run/writ/redis-gate.sock"), connect.secret("gate_secret"));
    let gate = Address::parse(&gate, None).map_err(|error| connect.fault("gate", error, "")).ok();
    let pem = connect.file_if("ca_file");
    let over_tls = connect.flag("tls", false);
    let encrypted = if over_tls { tls(pem.as_deref()).map_err(|error| connect.fault("ca_file", error, "")).ok() } else { None };
    let nodes = nodes(connect, encrypted.as_ref()).into_iter().map(|(_, address)| address).collect();
    let offers = config.offers.iter().map(|(name, section)| ((*name).clone(), offer(section))).collect();
    config.check()?;
    let Some(gate) = gate else { return Err(ConfigFaults(Vec::new())) };
    let ca_pem = pem.filter(|_| over_tls).and_then(|pem| String::from_utf8(pem).ok());
    Ok(Arc::new(Redis { gate, gate_secret, nodes, tls: over_tls, ca_pem, offers }))
}

/// Each node, as it is written and as an address.
fn nodes(connect: &Section<'_>, tls: Option<&Arc<ClientConfig>>) -> Vec<(String, Address)> {
    let nodes = connect.texts("nodes");
    if nodes.is_empty() {
        connect.fault("nodes", "no node", "list every node, also replicas: nodes = [\"redis-1.internal:6379\"]");
    }
    let address = |node: String| match Address::parse(&node, tls.cloned()) {
        Ok(address) => Some((node, address)),
        Err(error) => {
            connect.fault("nodes", error, "");
            None
        }
    };
    nodes.into_iter().filter_map(address).collect()
}

fn offer(section: &OfferSection<'_>) -> RedisOffer {
    let own = &section.own;
    let rules = Template {
        commands: own.texts("commands"),
        keys: own.texts("keys"),
        keys_read: own.texts("keys_read"),
        keys_write: own.texts("keys_write"),
        channels: own.texts("channels"),
    };
    match rules.check() {
        Err(error) => own.fault("commands", error, ""),
        Ok(()) => {
            for name in rules.params().iter().filter(|name| !section.offer.params.contains_key(*name)) {
                own.fault("keys", format!("`{{{name}}}` is no parameter of this offer"), "");
            }
        }
    }
    RedisOffer { template: own.word("template", "read_order"), lifetime_secs: section.offer.lifetime_secs, rules }
}

/// What the administrator of the Redis runs once.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    for key in ["gate", "gate_secret"] {
        let _theirs = config.connect.raw(key);
    }
    // Without it the administrator's password would cross the wire in clear.
    let mut way = if config.connect.flag("tls", false) { "tls = true\n".to_owned() } else { String::new() };
    if config.connect.text_if("ca_file").is_some() && !way.is_empty() {
        way.push_str("ca_file = \"/etc/writ-gate/ca.pem\"   # put `ca_file` of the target file there\n");
    }
    let mut templates = String::new();
    let mut longest = 0;
    for section in config.offers.values() {
        let offer = offer(section);
        longest = offer.lifetime_secs.max(longest);
        let text = toml::to_string(&offer.rules).unwrap_or_default();
        templates.push_str(&format!("[templates.{}]\n{text}\n", offer.template));
    }
    let nodes: String = nodes(&config.connect, None)
        .into_iter()
        .map(|(node, _)| {
            let address = toml::Value::String(node);
            format!("[[nodes]]\naddress = {address}\nuser = \"writ_gate\"\npassword_file = \"/etc/writ-gate/password\"\n{way}")
        })
        .collect();
    let longest = longest.saturating_add(CLOCK_DIFFERENCE_SECS).min(gate::LIFETIME_SECS_MAX);
    let script = include_str!("redis/install.sh").replace("@LIFETIME@", &longest.to_string());
    Ok(script.replace("@NODES@", nodes.trim_end()).replace("@TEMPLATES@", templates.trim_end()))
}

fn sha256(bytes: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    HEXLOWER.encode(hash.as_ref())
}

/// The password that we make, if the caller made none: 256 unpredictable bits.
fn own_password(seed: &[u8; 32]) -> SecretString {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, seed);
    URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, b"redis password")).into()
}

fn evidence<const N: usize>(facts: [(&'static str, String); N]) -> Evidence {
    Evidence { facts: facts.into_iter().collect(), again_at: None }
}

fn placeable(rules: &Template, params: &Params) -> Result<BTreeMap<String, String>, TargetError> {
    let text = |name: &String| match params.get(name) {
        Some(Value::Text(text)) => Ok((name.clone(), text.clone())),
        Some(Value::Long(number)) => Ok((name.clone(), number.to_string())),
        _ => Err(TargetError::Unacceptable(format!("parameter `{name}` cannot be placed into a key pattern"))),
    };
    rules.params().iter().map(text).collect()
}

impl Redis {
    async fn ask(&self, words: &[&str]) -> Result<Reply, TargetError> {
        let secret = self.gate_secret.read()?;
        let mut gate = self.gate.connect(WITHIN).await?;
        for words in [&["AUTH", secret.expose_secret()], words] {
            let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let reply = gate.ask(&words).await?;
            if let Reply::Error(text) = &reply {
                return Err(match text.split_once(' ') {
                    Some(("UNREACHABLE", text)) => TargetError::Unreachable(text.to_owned()),
                    Some(("REFUSED", text)) => TargetError::Refused(format!("the gate: {text}")),
                    _ => TargetError::Refused("the gate answered with an error".to_owned()),
                });
            }
            if words.first() != Some(&b"AUTH".as_slice()) {
                return Ok(reply);
            }
        }
        Err(TargetError::Unreachable("the gate did not answer".to_owned()))
    }

    async fn number(&self, command: &str, name: &str) -> Result<i64, TargetError> {
        name.parse::<Name>().map_err(|()| TargetError::Refused(format!("`{name}` is no user of ours")))?;
        match self.ask(&[command, name]).await? {
            Reply::Number(number) => Ok(number),
            _ => Err(TargetError::Refused("the gate's answer is no number".to_owned())),
        }
    }

    async fn accepts(&self, node: &Address, user: &str, password: &SecretString, within: Duration) -> Result<bool, TargetError> {
        let mut wire = node.connect(within).await?;
        match wire.ask(&[b"AUTH", user.as_bytes(), password.expose_secret().as_bytes()]).await? {
            Reply::Text(text) if text == "OK" => Ok(true),
            Reply::Error(text) if text.starts_with("WRONGPASS") => Ok(false),
            _ => Err(TargetError::Unreachable(format!("`{node}` answered neither yes nor no"))),
        }
    }

    /// What the gate says of itself first is how long it lets a user live.
    fn lifetime_finding(&self, lines: &[String]) -> Option<Finding> {
        let longest = lines.iter().find_map(|line| line.strip_prefix("limits ")?.split(' ').next()?.parse::<u64>().ok())?;
        let (name, offer) = self.offers.iter().max_by_key(|(_, offer)| offer.lifetime_secs)?;
        let secs = offer.lifetime_secs;
        (secs > longest).then(|| Finding {
            gravity: Gravity::Broken,
            check: "gate.lifetime",
            found: format!("`{name}` may live {secs} s, and the gate lets no user live longer than {longest} s"),
            remedy: "raise `lifetime_secs_max` in the gate's file, a minute above it for its clock, or lower `lifetime_secs`"
                .to_owned(),
        })
    }

    fn template_findings(&self, lines: &[String]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (name, offer) in &self.offers {
            let params = offer.rules.params().into_iter().map(|param| (param.clone(), param)).collect();
            let expected = offer.rules.rules(&params).map(|rules| digest(&rules)).unwrap_or_default();
            let same = lines.contains(&format!("template {} {expected}", offer.template));
            findings.push(Finding {
                gravity: if same { Gravity::Fine } else { Gravity::Broken },
                check: "gate.template",
                found: format!("`{name}` and template `{}` of the gate say the same: {same}", offer.template),
                remedy: if same {
                    String::new()
                } else {
                    "bring the target file and the gate's file to the same words".to_owned()
                },
            });
        }
        findings
    }
}

#[async_trait]
impl Target for Redis {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let name = &asked.offer.name;
        let offer = self.offers.get(name).ok_or_else(|| TargetError::Unacceptable(format!("`{name}` is not offered here")))?;
        let (secret, secret_sha256) = match asked.verifier {
            Some(Verifier::Sha256(hash)) => (SecretOrigin::Caller, hash.clone()),
            Some(other) => return Err(TargetError::Unacceptable(format!("send `sha256`, not `{}`", other.kind()))),
            None => (SecretOrigin::Writ, sha256(own_password(&asked.entropy).expose_secret().as_bytes())),
        };
        if secret_sha256.len() != 64 || !secret_sha256.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        {
            return Err(TargetError::Unacceptable("`sha256` must be 64 lower-case hexadecimal digits".to_owned()));
        }
        let params = placeable(&offer.rules, asked.params)?;
        let rules = offer.rules.rules(&params).map_err(TargetError::Unacceptable)?;
        let user = Name { grant: asked.grant, ends_at: asked.expires_at.secs() };
        let summary = vec![format!("make the user `{user}`"), format!("rules: {}", rules.join(" "))];
        let decided = Decided { user: user.to_string(), template: offer.template.clone(), params, rules, secret_sha256 };
        Ok(Plan {
            grant: asked.grant,
            offer: name.clone(),
            handle: user.to_string(),
            expires_at: Timestamp::from_secs(user.ends_at),
            secret,
            summary,
            canonical: serde_json::to_vec(&decided).map_err(|error| TargetError::Refused(error.to_string()))?,
            secret_seed: SecretBox::new(Box::new(asked.entropy)),
        })
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        shown.covers(plan)?;
        // Done is what was decided: read back from the bytes that the leaf commits to.
        let decided: Decided =
            serde_json::from_slice(&plan.canonical).map_err(|error| TargetError::Refused(error.to_string()))?;
        let rules = digest(&decided.rules);
        let mut words = vec!["WRIT.ISSUE", &decided.user, &decided.template, &decided.secret_sha256, &rules];
        words.extend(decided.params.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
        self.ask(&words).await?;
        let mut secrets = BTreeMap::new();
        if plan.secret == SecretOrigin::Writ {
            secrets.insert("password".to_owned(), own_password(plan.secret_seed.expose_secret()));
        }
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        let (host, port) = nodes.first().and_then(|node| node.rsplit_once(':')).unwrap_or_default();
        let tls = if self.tls { "on" } else { "off" };
        let fields = [("user", decided.user.as_str()), ("host", host), ("port", port), ("nodes", &nodes.join(",")), ("tls", tls)];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let fields = fields.chain(self.ca_pem.clone().map(|pem| ("ca_pem".to_owned(), pem))).collect();
        Ok(Minted { fields, secrets, to_revoke: None })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        match step {
            // Deleting is both: nobody logs in any more, and the connections are closed.
            Ending::CloseAuth => Ok(evidence([("nodes", self.number("WRIT.CLOSE", handle.handle).await?.to_string())])),
            Ending::EndSessions => match self.number("WRIT.SESSIONS", handle.handle).await? {
                0 => Ok(evidence([("sessions", "0".to_owned())])),
                // A node closes the connections of a deleted user in its next turn: asked again, it is none.
                left => Err(TargetError::Unreachable(format!("{left} connections are still being closed"))),
            },
            Ending::Clean => Ok(evidence([("residue", "none".to_owned())])),
            Ending::Verify => match self.number("WRIT.EXISTS", handle.handle).await? {
                0 => Ok(evidence([("nodes_with_user", "0".to_owned())])),
                left => {
                    Err(TargetError::Refused(format!("the user is there again at {left} nodes: did somebody load a saved ACL?")))
                }
            },
        }
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        let names = self.ask(&["WRIT.LIST"]).await?.texts();
        let found = names.iter().filter_map(|name| {
            let parsed: Name = name.parse().ok()?;
            Some(Found { handle: name.clone(), grant: parsed.grant, expires_at: Some(Timestamp::from_secs(parsed.ends_at)) })
        });
        Ok(found.collect())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        let lines = self.ask(&["WRIT.DESCRIBE"]).await?.texts();
        let mut findings = self.template_findings(&lines);
        findings.extend(self.lifetime_finding(&lines));
        let nodes: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("node ")).collect();
        for line in &nodes {
            let (gravity, remedy) = match line.split(' ').nth(1) {
                Some("fine") => (Gravity::Fine, ""),
                Some("default_open") => (Gravity::Warning, "switch the user `default` off, or give it a password"),
                _ => (Gravity::Broken, "see that the gate reaches the node and may change users there"),
            };
            findings.push(Finding { gravity, check: "node", found: (*line).to_owned(), remedy: remedy.to_owned() });
        }
        if let Some(node) = self.nodes.iter().find(|node| !self.tls && !node.is_local()) {
            let text = format!("names and passwords cross the wire to `{node}` in clear");
            let remedy = "let Redis listen with TLS, and set `tls = true` here and in the gate's file".to_owned();
            findings.push(Finding { gravity: Gravity::Warning, check: "node.tls", found: text, remedy });
        }
        let same = nodes.len() == self.nodes.len();
        findings.push(Finding {
            gravity: if same { Gravity::Fine } else { Gravity::Broken },
            check: "gate.nodes",
            found: format!("the gate changes users at {} nodes, the target file names {}", nodes.len(), self.nodes.len()),
            remedy: if same { String::new() } else { "name every node, also replicas, in both files".to_owned() },
        });
        Ok(findings)
    }

    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        let user = minted.fields.get("user").map_or("", String::as_str);
        let password = minted.secrets.get("password");
        let password =
            password.ok_or_else(|| TargetError::Unacceptable("only a password that Writ made can be tried".to_owned()))?;
        let (mut refused, mut failed) = (false, None);
        for node in &self.nodes {
            match self.accepts(node, user, password, within).await {
                Ok(true) => return Ok(Acceptance::Accepted),
                Ok(false) => refused = true,
                Err(error) => failed = Some(error),
            }
        }
        // One node that does not say no is not a no.
        match failed {
            None if refused => Ok(Acceptance::Refused),
            failed => Err(failed.unwrap_or_else(|| TargetError::Unreachable("no node".to_owned()))),
        }
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        let Reply::List(lines) = self.ask(&["WRIT.STANDING"]).await? else { return Ok(Vec::new()) };
        Ok(lines.iter().filter_map(|line| standing(&line.texts())).collect())
    }
}

/// A user that stands without us: name, node, then what Redis says of it.
fn standing(line: &[String]) -> Option<Standing> {
    let [name, node, about @ ..] = line else { return None };
    let has = |word: &str| about.iter().any(|flag| flag == word);
    let value = |name: &str| about.iter().find_map(|part| part.strip_prefix(name)).unwrap_or_default().to_owned();
    let (commands, keys) = (value("commands="), value("keys="));
    let mut flags = vec!["no_expiry", "owner_unknown"];
    for (flag, raised) in [
        ("superuser", commands.starts_with("+@all")),
        ("no_password", has("nopass")),
        ("all_keys", keys.contains("~*")),
        ("unused", !has("on")),
    ] {
        if raised {
            flags.push(flag);
        }
    }
    Some(Standing {
        name: name.clone(),
        kind: "acl_user",
        flags,
        proposal: format!(
            "[offers.NAME]\ndescription = \"replaces the user {name}\"\ntemplate = \"NAME\"\ncommands = [\"get\"]\nkeys = [\"PREFIX:{{id}}:*\"]\nlifetime_secs = 300\n"
        ),
        details: BTreeMap::from([("node", node.clone()), ("commands", commands), ("keys", keys)]),
    })
}
