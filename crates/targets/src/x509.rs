//! Client certificates (X.509) with the SPIFFE ID of a task, from an intermediate authority of ours. Owns how a request
//! becomes exactly one certificate, and how it is taken back: its serial is published in a revocation list. It never speaks
//! to the servers that accept the certificates, except for the probe (`docs/targets/x509.md`).

mod probe;
mod request;
mod signer;
mod template;

use crate::config::{Config, ConfigFaults, Section, Surroundings};
use crate::publish::{Published, Record, Revoked};
use async_trait::async_trait;
use authority::ShownPlan;
use authority::target::{
    Acceptance, Asked, Evidence, Finding, Found, Gravity, Handle, Minted, Plan, Standing, Target, TargetError, Verifier,
};
use data_encoding::HEXLOWER;
use domain::{Ending, GrantId, OfferName, SecretOrigin, Timestamp};
use request::{own_key, own_key_pem, requested_key};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use signer::{LIFETIME_SECS_MAX, Signer};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use template::Template;

/// One intermediate authority.
struct X509 {
    surroundings: Arc<dyn Surroundings>,
    signer: Signer,
    published: Published,
    crl_url: Option<String>,
    crl_secs: u64,
    fetch_secs: i64,
    offers: BTreeSet<OfferName>,
    probe: Option<probe::Probe>,
}

/// Opens the target of a target file of kind `x509`.
pub(crate) fn open(config: &Config<'_>) -> Result<Arc<dyn Target>, ConfigFaults> {
    let connect = &config.connect;
    let authority = connect.file_if("ca_certificate").and_then(|pem| {
        let der = CertificateDer::from_pem_slice(&pem).map(|der| der.to_vec());
        if der.is_err() {
            connect.fault("ca_certificate", "it is no certificate in PEM", "");
        }
        der.ok()
    });
    if !connect.has("ca_certificate") {
        connect.fault("ca_certificate", "`ca_certificate` is missing", "for example: ca_certificate = \"intermediate.pem\"");
    }
    let crl = connect.path_if("crl_file").unwrap_or_else(|| {
        connect.fault("crl_file", "`crl_file` is missing", "for example: crl_file = \"published/x509.crl\"");
        PathBuf::new()
    });
    let longest = connect.integer_if("lifetime_secs_max", 30..=3_600).and_then(|secs| u64::try_from(secs).ok());
    let trust_domain = trust_domain(connect);
    let key = connect.secret("ca_key");
    let (crl_url, crl_life) = (connect.text_if("crl_url"), connect.seconds("crl_lifetime_secs", 3_600..=2_592_000, 604_800));
    let fetch = connect.seconds("servers_reload_secs", 1..=86_400, 60);
    let probe = probe::Probe::read(connect);
    config.check()?;
    let signer = authority.map(|authority| Signer::new(authority, key, trust_domain, longest.unwrap_or(LIFETIME_SECS_MAX)));
    let signer = match signer {
        Some(Ok(signer)) => signer,
        Some(Err(error)) => {
            connect.fault("ca_certificate", error.to_string(), "it must be an authority with a P-256, P-384 or Ed25519 key");
            return config.check().and(Err(ConfigFaults(Vec::new())));
        }
        None => return Err(ConfigFaults(Vec::new())),
    };
    Ok(Arc::new(X509 {
        surroundings: config.surroundings(),
        signer,
        published: Published::new(&crl),
        crl_url,
        crl_secs: crl_life.as_secs(),
        fetch_secs: i64::try_from(fetch.as_secs()).unwrap_or(i64::MAX),
        offers: config.offers.keys().map(|name| (*name).clone()).collect(),
        probe,
    }))
}

/// SPIFFE ID §2.1.
fn trust_domain(connect: &Section<'_>) -> String {
    let domain = connect.text("trust_domain", "example.org");
    if !domain.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte)) {
        connect.fault("trust_domain", "a trust domain has only lower-case letters, digits, `.`, `-` and `_`", "");
    }
    domain
}

/// What the owner of the root authority runs once.
pub(crate) fn install_script(config: &Config<'_>) -> Result<String, ConfigFaults> {
    // The files that they name are made by the script.
    for key in [
        "ca_certificate",
        "ca_key",
        "crl_file",
        "crl_url",
        "crl_lifetime_secs",
        "lifetime_secs_max",
        "servers_reload_secs",
        "probe",
    ] {
        let _theirs = config.connect.raw(key);
    }
    Ok(include_str!("x509/install.sh").replace("@TRUST_DOMAIN@", &trust_domain(&config.connect)))
}

/// The serial of a grant's certificate: a one, so that it is positive and never zero, and the grant's id.
fn serial(grant: GrantId) -> Vec<u8> {
    [&[1], grant.as_bytes().as_slice()].concat()
}

/// The serial of a handle; nothing that is not of our shape.
fn serial_of(handle: &str) -> Result<Vec<u8>, TargetError> {
    let grant = handle.strip_prefix("01").and_then(GrantId::from_digits);
    grant.map(serial).ok_or_else(|| TargetError::Refused(format!("`{handle}` is no serial of ours")))
}

fn evidence<const N: usize>(facts: [(&'static str, String); N], again_at: Option<i64>) -> Evidence {
    Evidence { facts: facts.into_iter().collect(), again_at: again_at.map(Timestamp::from_secs) }
}

impl X509 {
    fn now(&self) -> i64 {
        self.surroundings.now().secs()
    }

    fn publish(&self, entry: Option<(String, Revoked)>) -> Result<Record, TargetError> {
        let now = self.now();
        self.published.publish(entry, now, |record| {
            let revoked = record.revoked.iter().map(|(handle, revoked)| Ok((serial_of(handle)?, revoked.at)));
            let revoked = revoked.collect::<Result<Vec<_>, TargetError>>()?;
            self.signer.list(record.number, &revoked, now, self.crl_secs)
        })
    }

    fn listed(&self, handle: &str) -> Result<Option<Revoked>, TargetError> {
        let serials = self.signer.listed(&self.published.list()?)?;
        let record = self.published.read()?;
        Ok(record.revoked.get(handle).copied().filter(|_| serial_of(handle).is_ok_and(|serial| serials.contains(&serial))))
    }

    fn verified(&self, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        let (now, expires) = (self.now(), handle.expires_at.secs());
        if expires <= now {
            return Ok(evidence([("ends_by", "expiry".to_owned())], None));
        }
        let Some(revoked) = self.listed(handle.handle)? else {
            return Err(TargetError::Refused(format!("serial {} is not in the published list", handle.handle)));
        };
        let loaded = revoked.at.saturating_add(self.fetch_secs).min(expires);
        let facts = [("ends_by", "crl".to_owned()), ("servers_reload_secs", self.fetch_secs.to_string())];
        Ok(evidence(facts, (loaded > now).then_some(loaded)))
    }
}

#[async_trait]
impl Target for X509 {
    fn plan(&self, asked: &Asked<'_>) -> Result<Plan, TargetError> {
        if !self.offers.contains(&asked.offer.name) {
            return Err(TargetError::Unacceptable(format!("`{}` is not offered here", asked.offer.name)));
        }
        let (origin, key) = match asked.verifier {
            Some(Verifier::CertificateRequest(pem)) => (SecretOrigin::Caller, requested_key(pem)?),
            Some(other) => {
                return Err(TargetError::Unacceptable(format!("send `certificate_request`, not `{}`", other.kind())));
            }
            None => (SecretOrigin::Writ, own_key(&asked.entropy)?),
        };
        let (now, longest) = (asked.now.secs(), i64::try_from(self.signer.lifetime_secs).unwrap_or(i64::MAX));
        let end = asked.expires_at.secs().min(now.saturating_add(longest)).min(self.signer.ends_at);
        if end <= now {
            return Err(TargetError::Unacceptable("the certificate would be dead at once: look at `ca_certificate`".to_owned()));
        }
        let template = Template {
            serial: serial(asked.grant),
            grant: asked.grant,
            offer: &asked.offer.name,
            spiffe_id: format!("spiffe://{}/task/{}", self.signer.trust_domain, asked.task),
            now,
            end,
            crl_url: self.crl_url.as_deref(),
        };
        let canonical = template.to_be_signed(&self.signer, &key)?;
        Ok(Plan {
            grant: asked.grant,
            offer: asked.offer.name.clone(),
            handle: HEXLOWER.encode(&template.serial),
            expires_at: Timestamp::from_secs(end),
            secret: origin,
            summary: vec![
                format!("sign a client certificate, serial {}, {} s", HEXLOWER.encode(&template.serial), end.saturating_sub(now)),
                format!("name: {}", template.spiffe_id),
                "use: TLS client authentication only".to_owned(),
            ],
            canonical,
            secret_seed: SecretBox::new(Box::new(asked.entropy)),
        })
    }

    async fn issue(&self, plan: &Plan, shown: &ShownPlan) -> Result<Minted, TargetError> {
        if !self.published.exists() {
            // A server that checks lists refuses everybody while there is none.
            self.publish(None)?;
        }
        let certificate = self.signer.sign(plan, shown, self.now())?;
        let mut secrets = BTreeMap::new();
        if plan.secret == SecretOrigin::Writ {
            secrets.insert("private_key".to_owned(), SecretString::from(own_key_pem(plan.secret_seed.expose_secret())?));
        }
        let fields = [
            ("certificate", template::pem("CERTIFICATE", &certificate)),
            ("chain", template::pem("CERTIFICATE", &self.signer.authority)),
            ("serial", plan.handle.clone()),
        ];
        let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Ok(Minted { fields, secrets, to_revoke: None })
    }

    async fn end(&self, step: Ending, handle: &Handle<'_>) -> Result<Evidence, TargetError> {
        match step {
            Ending::CloseAuth => {
                serial_of(handle.handle)?;
                let revoked = Revoked { at: self.now(), until: handle.expires_at.secs() };
                let record = self.publish(Some((handle.handle.to_owned(), revoked)))?;
                Ok(evidence([("crl_number", record.number.to_string()), ("serial", handle.handle.to_owned())], None))
            }
            // TLS never asks again within a connection: only the server can end it (docs/targets/x509.md).
            Ending::EndSessions => Ok(evidence([("ends_by", "server".to_owned())], None)),
            Ending::Clean => Ok(evidence([("residue", "none".to_owned())], None)),
            Ending::Verify => self.verified(handle),
        }
    }

    async fn inventory(&self) -> Result<Vec<Found>, TargetError> {
        // Nothing stands at a server: certificates are with their holders, and die by themselves.
        Ok(Vec::new())
    }

    async fn examine(&self) -> Result<Vec<Finding>, TargetError> {
        let mut findings = self.signer.findings(self.now());
        // Also keeps the list fresh: servers refuse everybody when its next update is over.
        let published = self.publish(None);
        findings.push(Finding {
            gravity: if published.is_ok() { Gravity::Fine } else { Gravity::Broken },
            check: "crl.published",
            found: published.map_or_else(|error| error.to_string(), |record| format!("list {} is published", record.number)),
            remedy: "let Writ write the folder of `crl_file`".to_owned(),
        });
        Ok(findings)
    }

    async fn try_use(&self, minted: &Minted, within: Duration) -> Result<Acceptance, TargetError> {
        if let Some(probe) = &self.probe {
            return probe.run(minted, within).await;
        }
        // No server is known: judged as one would, by the certificate itself and the published list.
        let pem = minted.fields.get("certificate").map_or("", String::as_str);
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| TargetError::Refused(error.to_string()))?;
        let handle = minted.fields.get("serial").map_or("", String::as_str);
        let valid = self.signer.is_valid(&der, self.now())? && self.listed(handle)?.is_none();
        Ok(if valid { Acceptance::Accepted } else { Acceptance::Refused })
    }

    async fn scan(&self) -> Result<Vec<Standing>, TargetError> {
        // What other authorities issued is in no place that we could ask.
        Ok(Vec::new())
    }
}
