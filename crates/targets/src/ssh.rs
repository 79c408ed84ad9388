//! SSH user certificates from an authority of one group of hosts. Owns how an offer becomes exactly one certificate, and
//! how it is taken back: its serial is published in a revocation list that the hosts fetch. It never speaks to a host
//! except for the probe; sessions are ended there by [`host`] (design.md §9, `docs/targets/ssh.md`).

mod certificate;
pub mod host;
mod krl;
mod offer;
mod probe;
mod signer;
mod standing;

pub use krl::{KRL_BYTES_MAX, Krl, NotAKrl};

use crate::config::{Config, ConfigFaults, Section, Surroundings};
use crate::publish::{Published, Record, Revoked};
use async_trait::async_trait;
use authority::ShownPlan;
use authority::target::{
    Acceptance, Asked, Evidence, Finding, Found, Gravity, Handle, Minted, Plan, Standing, Target, TargetError, Verifier,
};
use certificate::Unsigned;
use domain::{Ending, GrantId, OfferName, SecretOrigin, Timestamp};
use offer::SshOffer;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use signer::{BACKDATED_SECS, Ceilings, LIFETIME_SECS_MAX, Signer};
use ssh_key::private::Ed25519Keypair;
use ssh_key::{LineEnding, PrivateKey, PublicKey};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// One group of hosts that trust one authority of ours.
struct Ssh {
    surroundings: Arc<dyn Surroundings>,
    signer: Signer,
    published: Published,
    group: String,
    hosts: Vec<String>,
    /// The hosts' own keys, for callers; empty if they must know them from elsewhere.
    known_hosts: String,
    fetch_secs: i64,
    offers: BTreeMap<OfferName, SshOffer>,
    probe: Option<probe::Probe>,
    authorized_keys: Option<PathBuf>,
}

/// Opens the target of a target file of kind `ssh`.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let connect = &config.connect;
    let public = authority_key(connect);
    if !connect.has("ca_public") {
        connect.fault("ca_public", "`ca_public` is missing", "for example: ca_public = \"ssh-ca.pub\"");
    }
    let longest = connect.integer_if("lifetime_secs_max", 30..=900).and_then(|secs| u64::try_from(secs).ok());
    let ceilings = Ceilings {
        principals: connect.texts("principals").into_iter().collect(),
        extensions: connect.texts("extensions").into_iter().collect(),
        lifetime_secs: longest.unwrap_or(LIFETIME_SECS_MAX),
        source_address: connect.flag("source_address_required", false),
        force_command: connect.flag("force_command_required", true),
    };
    if ceilings.principals.is_empty() {
        connect.fault(
            "principals",
            "no principal may be signed",
            "list those of this group of hosts: principals = [\"restart-web\"]",
        );
    }
    let key = connect.secret("ca_key");
    let krl = connect.path_if("krl_file").unwrap_or_else(|| {
        connect.fault("krl_file", "`krl_file` is missing", "for example: krl_file = \"published/ssh.krl\"");
        PathBuf::new()
    });
    let offers = config.offers.iter().map(|(name, section)| ((*name).clone(), SshOffer::read(section, &ceilings))).collect();
    let fetch = connect.seconds("hosts_fetch_secs", 1..=3_600, 10);
    let group = connect.word("host_group", "web");
    let hosts = connect.texts("hosts");
    let authorized_keys = connect.path_if("authorized_keys");
    let known_hosts = connect.file_if("known_hosts").map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let probe = probe::Probe::read(connect);
    config.check()?;
    let Some(authority) = public else { return Err(ConfigFaults(Vec::new())) };
    Ok(Arc::new(Ssh {
        surroundings: config.surroundings(),
        signer: Signer { authority, key, ceilings },
        published: Published::new(&krl),
        group,
        hosts,
        known_hosts: known_hosts.unwrap_or_default(),
        fetch_secs: i64::try_from(fetch.as_secs()).unwrap_or(i64::MAX),
        offers,
        probe,
        authorized_keys,
    }))
}

/// The public key of the authority, if there is a file of it.
fn authority_key(connect: &Section<'_>) -> Option<PublicKey> {
    let key = String::from_utf8(connect.file_if("ca_public")?).ok().and_then(|text| PublicKey::from_openssh(text.trim()).ok());
    let key = key.filter(|key| key.key_data().is_ed25519());
    if key.is_none() {
        connect.fault("ca_public", "it is no `ssh-ed25519` public key", "make one with ssh-keygen -t ed25519 -N '' -f ssh-ca");
    }
    key
}

/// What the administrator of the hosts runs once, as root: nothing gets into it but words and a key.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    const OTHERS: [&str; 12] = [
        "ca_key",
        "krl_file",
        "hosts",
        "principals",
        "extensions",
        "lifetime_secs_max",
        "source_address_required",
        "force_command_required",
        "hosts_fetch_secs",
        "authorized_keys",
        "known_hosts",
        "probe",
    ];
    for key in OTHERS {
        let _theirs = config.connect.raw(key);
    }
    let group = config.connect.word("host_group", "web");
    let public = authority_key(&config.connect).and_then(|key| key.to_openssh().ok());
    let public = public.unwrap_or_else(|| "PUBLIC KEY OF THE AUTHORITY".to_owned());
    let mut users: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for section in config.offers.values() {
        users.entry(section.own.word("user", "deploy")).or_default().extend(section.own.words("principals"));
        for key in ["extensions", "force_command", "source_address"] {
            let _theirs = section.own.raw(key);
        }
    }
    let principals: Vec<_> = users.iter().map(|(user, names)| principals(user, names)).collect();
    let users: Vec<_> = users.keys().map(String::as_str).collect();
    Ok(include_str!("ssh/install.sh")
        .replace("@GROUP@", &group)
        .replace("@TARGET@", config.name.as_str())
        .replace("@CA@", &public)
        .replace("@USERS@", &users.join(","))
        .replace("@PRINCIPALS@", &principals.join("\n")))
}

/// The part of the script that says which roles may become one user.
fn principals(user: &str, names: &BTreeSet<String>) -> String {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    format!("cat > /etc/ssh/writ-principals/{user} <<'=END='\n{}\n=END=", names.join("\n"))
}

/// The serial of a grant's certificate: sshd knows 64 bits, so it is the first eight bytes of a hash of the grant's id.
fn serial(grant: GrantId) -> u64 {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[b"writ ssh serial".as_slice(), grant.as_bytes()].concat());
    let first = hash.as_ref().first_chunk::<8>().copied().unwrap_or_default();
    // Zero is what a certificate without a serial has.
    u64::from_be_bytes(first).max(1)
}

/// `length` bytes for one purpose, made of the plan's unpredictable bytes.
fn derived(seed: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, seed);
    aws_lc_rs::hmac::sign(&key, purpose).as_ref().first_chunk::<32>().copied().unwrap_or_default()
}

fn own_key(seed: &[u8; 32]) -> Result<PrivateKey, TargetError> {
    let pair = Ed25519Keypair::from_seed(&derived(seed, b"ssh key"));
    PrivateKey::new(pair.into(), "").map_err(|error| TargetError::Refused(error.to_string()))
}

fn evidence<const N: usize>(facts: [(&'static str, String); N], again_at: Option<i64>) -> Evidence {
    Evidence { facts: facts.into_iter().collect(), again_at: again_at.map(Timestamp::from_secs) }
}

impl Ssh {
    fn now(&self) -> i64 {
        self.surroundings.now().secs()
    }

    fn offer(&self, name: &OfferName) -> Result<&SshOffer, TargetError> {
        self.offers.get(name).ok_or_else(|| TargetError::Unacceptable(format!("`{name}` is not offered here")))
    }

    fn krl(&self, record: &Record, now: i64) -> Result<Vec<u8>, TargetError> {
        let authority = self.signer.authority.to_bytes().map_err(|error| TargetError::Refused(error.to_string()))?;
        let serials: Option<_> = record.revoked.keys().map(|serial| serial.parse().ok()).collect();
        let serials = serials.ok_or_else(|| TargetError::Refused("the record of revoked serials is damaged".to_owned()))?;
        let krl = Krl { number: record.number, generated: u64::try_from(now).unwrap_or_default(), authority, serials };
        let bytes = krl.encode();
        // A list that sshd cannot read locks everybody out of every host: it is read back before it is published.
        match Krl::decode(&bytes) {
            Ok(read) if read.serials == krl.serials && read.number == krl.number => Ok(bytes),
            _ => Err(TargetError::Refused("the revocation list would not read back; the old one stays".to_owned())),
        }
    }

    /// Publishes the list with `entry`, off the threads that serve others.
    fn publish(&self, entry: Option<(String, Revoked)>) -> Result<Record, TargetError> {
        let now = self.now();
        self.published.publish(entry, now, |record| self.krl(record, now))
    }

    fn listed(&self, serial: &str) -> Result<Option<Revoked>, TargetError> {
        let listed = Krl::decode(&self.published.list()?).map_err(|error| TargetError::Refused(error.to_string()))?;
        let number: u64 = serial.parse().map_err(|_| TargetError::Refused(format!("`{serial}` is no serial of ours")))?;
        let record = self.published.read()?;
        Ok(record.revoked.get(serial).copied().filter(|_| listed.serials.contains(&number)))
    }

    fn verified(&self, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        let now = self.now();
        let expires = handle.expires_at.secs();
        if expires <= now {
            return Ok(evidence([("ends_by", "expiry".to_owned())], None));
        }
        let Some(revoked) = self.listed(handle.handle)? else {
            return Err(TargetError::Refused(format!("serial {} is not in the published list", handle.handle)));
        };
        let fetched = revoked.at.saturating_add(self.fetch_secs);
        let facts = [("ends_by", "krl".to_owned()), ("hosts_fetch_secs", self.fetch_secs.to_string())];
        // The hosts have the list one interval after it was published; before that nobody can say that it is dead.
        Ok(evidence(facts, (fetched > now).then_some(fetched.min(expires))))
    }

    fn fields(&self, offer: &SshOffer, certificate: &ssh_key::Certificate) -> Result<BTreeMap<String, String>, TargetError> {
        let text = certificate.to_openssh().map_err(|error| TargetError::Refused(error.to_string()))?;
        let fields = [
            ("certificate", text),
            ("user", offer.user.clone()),
            ("hosts", self.hosts.join(",")),
            ("key_id", certificate.key_id().to_owned()),
            ("serial", certificate.serial().to_string()),
            ("host_group", self.group.clone()),
            ("known_hosts", self.known_hosts.clone()),
        ];
        let told = fields.into_iter().filter(|(_, value)| !value.is_empty());
        Ok(told.map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

#[async_trait]
impl Target for Ssh {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        let offer = self.offer(&asked.offer.name)?;
        let origin = if asked.verifier.is_some() { SecretOrigin::Caller } else { SecretOrigin::Writ };
        let key = match asked.verifier {
            Some(Verifier::SshPublicKey(text)) => offer::public_key(text)?,
            Some(other) => {
                return Err(TargetError::Unacceptable(format!("send `ssh_public_key`, not `{}`", other.kind())));
            }
            None => own_key(&asked.entropy)?.public_key().clone(),
        };
        let now = u64::try_from(asked.now.secs()).unwrap_or_default();
        let asked_end = u64::try_from(asked.expires_at.secs()).unwrap_or_default();
        let end = asked_end.min(now.saturating_add(self.signer.ceilings.lifetime_secs));
        if end <= now {
            return Err(TargetError::Unacceptable("a certificate lives for at least one second".to_owned()));
        }
        let critical = offer.critical(asked.params)?;
        let number = serial(asked.grant);
        let unsigned = Unsigned {
            nonce: derived(&asked.entropy, b"ssh nonce"),
            subject: key.key_data(),
            serial: number,
            key_id: asked.grant.to_string(),
            principals: &offer.principals,
            valid_after: now.saturating_sub(BACKDATED_SECS),
            valid_before: end,
            critical: critical.clone(),
            extensions: &offer.extensions,
            authority: &self.signer.authority,
        };
        let mut summary = vec![
            format!("sign a user certificate for hosts of `{}`, serial {number}, {} s", self.group, end.saturating_sub(now)),
            format!("principals: {}", offer.principals.join(", ")),
            format!("extensions: {}", if offer.extensions.is_empty() { "none".to_owned() } else { offer.extensions.join(", ") }),
        ];
        summary.extend(critical.iter().map(|(name, value)| format!("{name}: {value}")));
        Ok(Plan {
            grant: asked.grant,
            offer: asked.offer.name.clone(),
            handle: number.to_string(),
            expires_at: Timestamp::from_secs(i64::try_from(end).unwrap_or(i64::MAX)),
            secret: origin,
            summary,
            canonical: unsigned.encode()?,
            secret_seed: SecretBox::new(Box::new(asked.entropy)),
        })
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        let offer = self.offer(&plan.offer)?;
        if !self.published.exists() {
            // Hosts refuse every key while their list is missing; and what cannot be revoked is not signed.
            self.publish(None)?;
        }
        let certificate = self.signer.sign(plan, shown, self.now())?;
        let mut secrets = BTreeMap::new();
        if plan.secret == SecretOrigin::Writ {
            let key = own_key(plan.secret_seed.expose_secret())?;
            let text = key
                .to_openssh(LineEnding::LF)
                .map_err(|_| TargetError::Refused("the private key cannot be written".to_owned()))?;
            secrets.insert("private_key".to_owned(), SecretString::from(text.as_str().to_owned()));
        }
        Ok(Minted { fields: self.fields(offer, &certificate)?, secrets, to_revoke: None })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        match step {
            Ending::CloseAuth => {
                let revoked = Revoked { at: self.now(), until: handle.expires_at.secs() };
                let record = self.publish(Some((handle.handle.to_owned(), revoked)))?;
                Ok(evidence([("krl_number", record.number.to_string()), ("serial", handle.handle.to_owned())], None))
            }
            Ending::EndSessions => Ok(evidence([("ends_by", "ssh-host".to_owned())], None)),
            Ending::Clean => Ok(evidence([("residue", "none".to_owned())], None)),
            Ending::Verify => self.verified(handle),
        }
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        // Nothing stands at a host: certificates are with their holders, and die by themselves.
        Ok(Vec::new())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        let mut findings =
            vec![finding("signer.key", self.signer.usable(), "give the file of `ca_key` to the user of Writ alone, mode 0600")];
        // Also keeps the list fresh: the hosts watch its age.
        findings.push(finding("krl.published", self.publish(None).map(drop), "let Writ write the folder of `krl_file`"));
        findings.extend(self.offers.iter().flat_map(|(name, offer)| offer.findings(name)));
        if self.probe.is_none() {
            findings.push(Finding {
                gravity: Gravity::Warning,
                check: "probe.host",
                found: "no host is configured to try certificates at".to_owned(),
                remedy: "add `[connect.probe]` with host, port, user and known_hosts".to_owned(),
            });
        }
        Ok(findings)
    }

    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        if let Some(probe) = &self.probe {
            return probe.run(minted, within).await;
        }
        // No host is known: judged as a host would, by the published list and the certificate itself.
        let text = minted.fields.get("certificate").map_or("", String::as_str);
        let certificate = ssh_key::Certificate::from_openssh(text).map_err(|error| TargetError::Refused(error.to_string()))?;
        let trusted = [self.signer.authority.fingerprint(ssh_key::HashAlg::Sha256)];
        let valid = certificate.validate_at(u64::try_from(self.now()).unwrap_or_default(), &trusted).is_ok();
        let revoked = self.listed(&certificate.serial().to_string())?.is_some();
        Ok(if valid && !revoked { Acceptance::Accepted } else { Acceptance::Refused })
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        self.authorized_keys.as_deref().map_or_else(|| Ok(Vec::new()), standing::folder)
    }
}

fn finding(check: &'static str, result: Result<(), TargetError>, remedy: &str) -> Finding {
    match result {
        Ok(()) => Finding { gravity: Gravity::Fine, check, found: "it is".to_owned(), remedy: String::new() },
        Err(error) => Finding { gravity: Gravity::Broken, check, found: error.to_string(), remedy: remedy.to_owned() },
    }
}
