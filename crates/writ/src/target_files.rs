//! `targets/*.toml`: each file split into what its kind reads and what the authority is told. What policy reads of a file
//! was checked by the policy crate before; here are the rest, the limits, and the places of faults. Never holds a secret:
//! it hands over the means to read one.

use crate::policy_folder::Folders;
use ::policy::{Policy, SourceFile, TargetOffers};
use authority::ConfiguredTarget;
use authority::target::TargetProfile;
use domain::{SecretRef, Timestamp};
use gateway::http::{ConnectTable, HttpLimits, HttpTarget, RouteTable};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use secrecy::SecretString;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use targets::config::{ConfigFault, OfferConfig, Surroundings, TargetConfig};
use toml::Table;
use toml::de::{DeTable, DeValue};

/// Members of an offer that policy reads; everything else is its kind's own.
const OF_POLICY: [&str; 6] = ["description", "lifetime_secs", "reading", "sink", "clear_arguments", "params"];

const ISSUE_CONNECTIONS: i64 = 8;
const END_CONNECTIONS: i64 = 2;
const CONNECTIONS_MAX: i64 = 64;
const LIVE: i64 = 1_000;
const LIVE_MAX: i64 = 1_000_000;

/// What the process lends to targets: its clock, its environment, its files.
struct Here {
    dir: PathBuf,
}

impl Surroundings for Here {
    fn read(&self, reference: &SecretRef) -> Result<SecretString, String> {
        match reference {
            SecretRef::Env(name) => match crate::system::variable(name).filter(|value| !value.is_empty()) {
                Some(value) => Ok(SecretString::from(value)),
                None => Err(format!("environment variable `{name}` is not set")),
            },
            SecretRef::File(path) => {
                let secret = crate::key_file::read(Path::new(path)).map_err(|error| error.to_string())?;
                let text = std::str::from_utf8(&secret).map_err(|_| format!("`{path}` is not text"))?;
                if text.is_empty() { Err(format!("`{path}` is empty")) } else { Ok(SecretString::from(text)) }
            }
        }
    }

    fn locate(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    fn now(&self) -> Timestamp {
        crate::system::now()
    }
}

/// The surroundings of a configuration in `dir`.
pub(crate) fn surroundings(dir: &Path) -> Arc<dyn Surroundings> {
    Arc::new(Here { dir: dir.to_owned() })
}

/// Opens every target whose credentials are handed out. HTTP APIs are the gateway's: nothing is handed out there.
///
/// # Errors
/// Every fault of every file, as `targets/NAME.toml:LINE:COLUMN: …`.
pub(crate) fn open(files: &[SourceFile], policy: &Policy, dir: &Path) -> Result<Vec<ConfiguredTarget>, Vec<String>> {
    let (mut opened, mut faults) = (Vec::new(), Vec::new());
    for offers in policy.targets().filter(|offers| !offers.is_http()) {
        let path = format!("targets/{}.toml", offers.name);
        let Some(file) = files.iter().find(|file| file.path == path) else { continue };
        match open_one(file, offers, dir) {
            Ok(one) => opened.push(one),
            Err(found) => faults.extend(found.iter().map(|fault| placed(file, fault))),
        }
    }
    if faults.is_empty() { Ok(opened) } else { Err(faults) }
}

/// Reads every HTTP API: what the gateway needs to serve it.
///
/// # Errors
/// As [`open`].
pub(crate) fn apis(files: &[SourceFile], policy: &Policy, dir: &Path) -> Result<Vec<HttpTarget>, Vec<String>> {
    let (mut apis, mut faults) = (Vec::new(), Vec::new());
    for offers in policy.targets().filter(|offers| offers.is_http()) {
        let path = format!("targets/{}.toml", offers.name);
        let Some(file) = files.iter().find(|file| file.path == path) else { continue };
        match api(file, offers, dir) {
            Ok(api) => apis.push(api),
            Err(found) => faults.extend(found.iter().map(|fault| placed(file, fault))),
        }
    }
    if faults.is_empty() { Ok(apis) } else { Err(faults) }
}

fn api(file: &SourceFile, offers: &TargetOffers, dir: &Path) -> Result<HttpTarget, Vec<ConfigFault>> {
    let (config, limits) = split(file, offers)?;
    let fault = |key: &[&str], error: toml::de::Error| vec![ConfigFault::new(key, error.message().to_owned())];
    let connect: ConnectTable = config.connect.try_into().map_err(|error| fault(&["connect"], error))?;
    let limits: HttpLimits = limits.try_into().map_err(|error| fault(&["limits"], error))?;
    let routes = config.offers.into_iter().map(|(name, OfferConfig { offer, own })| {
        let table = own.try_into::<RouteTable>().map_err(|error| fault(&["offers", name.as_str()], error))?;
        Ok::<_, Vec<ConfigFault>>((table, offer))
    });
    let routes = routes.collect::<Result<Vec<_>, _>>()?;
    let roots = connect.ca_file().map_or(Ok(Vec::new()), |path| roots(&dir.join(path)))?;
    HttpTarget::new(config.name, (connect, roots), limits, routes, dir).map_err(|faults| {
        let key = |fault: &gateway::http::ConfigFault| match fault {
            gateway::http::ConfigFault::Member { member, fault } => ConfigFault::new(&["connect", member], fault.clone()),
            gateway::http::ConfigFault::Route { route, fault } => ConfigFault::new(&["offers", route.as_str()], fault.clone()),
        };
        faults.iter().map(key).collect()
    })
}

/// The certificates of a file.
fn roots(path: &Path) -> Result<Vec<Vec<u8>>, Vec<ConfigFault>> {
    let fault = |why: String| vec![ConfigFault::new(&["connect", "ca_file"], format!("`{}` {why}", path.display()))];
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    let certificates = certificates.map(|certificate| certificate.map(|certificate| certificate.to_vec()));
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| fault(format!("cannot be read: {error}")))?;
    if certificates.is_empty() { Err(fault("holds no certificate".to_owned())) } else { Ok(certificates) }
}

fn open_one(file: &SourceFile, offers: &TargetOffers, dir: &Path) -> Result<ConfiguredTarget, Vec<ConfigFault>> {
    let (config, limits) = split(file, offers)?;
    let [issue, end, live] = read_limits(&limits)?;
    let Some(kind) = targets::kind(&config.kind) else {
        let message = format!("targets of kind `{}` cannot be reached by this version", config.kind);
        return Err(vec![ConfigFault::new(&["kind"], message)]);
    };
    let driver = targets::open(&config, &surroundings(dir)).map_err(|faults| faults.0)?;
    let places = |number: i64| usize::try_from(number).unwrap_or(1);
    let profile = TargetProfile {
        name: offers.name.clone(),
        kind: kind.name,
        owner: offers.owner.clone(),
        issue_connections: places(issue),
        end_connections: places(end),
        live_max: u64::try_from(live).unwrap_or(1),
        revocation_list: targets::revocation_list(&config, &surroundings(dir)),
    };
    Ok(ConfiguredTarget { profile, driver, revision: file.text.clone() })
}

/// What the administrator of a target runs once.
///
/// # Errors
/// There is no such target, or every fault of its file.
pub(crate) fn install_script(folders: &Folders, dir: &Path, name: &str) -> anyhow::Result<String> {
    let (sources, _) = folders.read()?;
    let compiled = Policy::compile(&sources).map_err(|faults| {
        let count = faults.len();
        anyhow::anyhow!("the policy has {count} faults: `writ policy check` shows them")
    })?;
    let found = compiled.policy.targets().find(|offers| offers.name.as_str() == name);
    let known: Vec<_> = compiled.policy.targets().map(|offers| offers.name.to_string()).collect();
    let offers = found.ok_or_else(|| anyhow::anyhow!("there is no target `{name}`; there are: {}", known.join(", ")))?;
    anyhow::ensure!(!offers.is_http(), "`{name}` is an HTTP API: nothing is installed there, the gateway holds its secret");
    let path = format!("targets/{name}.toml");
    let file = sources.files.iter().find(|file| file.path == path);
    let file = file.ok_or_else(|| anyhow::anyhow!("`{path}` is gone"))?;
    let script = split(file, offers)
        .and_then(|(config, _)| targets::install_script(&config, &surroundings(dir)).map_err(|faults| faults.0));
    script.map_err(|faults| {
        let faults: Vec<_> = faults.iter().map(|fault| placed(file, fault)).collect();
        anyhow::anyhow!("{}", faults.join("\n"))
    })
}

/// The kind's part of a file, and its limits.
fn split(file: &SourceFile, offers: &TargetOffers) -> Result<(TargetConfig, Table), Vec<ConfigFault>> {
    let broken = |message: String| vec![ConfigFault::new(&[], message)];
    let mut root: Table = file.text.parse().map_err(|error: toml::de::Error| broken(error.message().to_owned()))?;
    let mut table = |name: &str| match root.remove(name) {
        None => Ok(Table::new()),
        Some(toml::Value::Table(table)) => Ok(table),
        Some(_) => Err(vec![ConfigFault::new(&[name], format!("`{name}` must be a table"))]),
    };
    let (connect, limits, mut own) = (table("connect")?, table("limits")?, table("offers")?);
    let offer = |(name, offer): (&domain::OfferName, &domain::Offer)| {
        let mut own = own.remove(name.as_str()).and_then(|value| value.as_table().cloned()).unwrap_or_default();
        own.retain(|key, _| !OF_POLICY.contains(&key));
        (name.clone(), OfferConfig { offer: offer.clone(), own })
    };
    let configs = offers.offers.iter().map(offer).collect();
    Ok((TargetConfig { kind: offers.kind.clone(), name: offers.name.clone(), connect, offers: configs }, limits))
}

/// `[limits]`: how many connections issue, how many take back, how many credentials may stand.
fn read_limits(limits: &Table) -> Result<[i64; 3], Vec<ConfigFault>> {
    let known = [
        ("issue_connections", ISSUE_CONNECTIONS, CONNECTIONS_MAX),
        ("end_connections", END_CONNECTIONS, CONNECTIONS_MAX),
        ("live_max", LIVE, LIVE_MAX),
    ];
    let mut faults: Vec<_> = limits
        .keys()
        .filter(|key| !known.iter().any(|(name, ..)| name == key))
        .map(|key| {
            ConfigFault::new(&["limits", key], format!("`{key}` is not known here"))
                .help("known here: issue_connections, end_connections, live_max")
        })
        .collect();
    let read = known.map(|(name, default, max)| match limits.get(name).map(toml::Value::as_integer) {
        None => default,
        Some(Some(number)) if (1..=max).contains(&number) => number,
        Some(_) => {
            faults.push(ConfigFault::new(&["limits", name], format!("`{name}` must be a whole number from 1 to {max}")));
            default
        }
    });
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}

/// A fault with its place, as one sentence.
fn placed(file: &SourceFile, fault: &ConfigFault) -> String {
    let offset = span(&file.text, &fault.key).map_or(0, |span| span.start);
    let before = file.text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    let help = if fault.help.is_empty() { String::new() } else { format!(" ({})", fault.help) };
    format!("{}:{line}:{column}: {}{help}", file.path, fault.message)
}

/// Where a key stands, or the last part of its path that is there.
fn span(text: &str, path: &[String]) -> Option<Range<usize>> {
    let (root, _) = DeTable::parse_recoverable(text);
    let mut found = None;
    let mut table = Some(root.get_ref());
    let mut items: Option<&toml::de::DeArray<'_>> = None;
    for part in path {
        let value = match (table, items) {
            (Some(inner), _) => {
                let Some((key, value)) = inner.get_key_value(part.as_str()) else { break };
                found = Some(key.span());
                value
            }
            (None, Some(list)) => {
                let Some(value) = part.parse::<usize>().ok().and_then(|index| list.get(index)) else { break };
                found = Some(value.span());
                value
            }
            (None, None) => break,
        };
        (table, items) = match value.get_ref() {
            DeValue::Table(inner) => (Some(inner), None),
            DeValue::Array(list) => (None, Some(list)),
            _ => (None, None),
        };
    }
    found
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const INTENT: &str = "name = \"report\"\nowner = \"team\"\ndescription = \"x\"\nreach = []\n";

    fn faults(text: &str) -> Vec<String> {
        let file = |path: &str, text: &str| SourceFile { path: path.to_owned(), text: text.to_owned() };
        let files = vec![file("intents/report.toml", INTENT), file("targets/db.toml", text)];
        let sources = policy::Sources { files: files.clone() };
        let compiled = Policy::compile(&sources).unwrap_or_else(|faults| unreachable!("{faults:?}"));
        open(&files, &compiled.policy, Path::new("/conf")).err().unwrap_or_default()
    }

    #[test]
    fn every_fault_of_a_file_has_its_place() {
        let text = "kind = \"postgresql\"\nowner = \"team\"\n[limits]\nlive_max = 0\nmany = 1\n";
        assert_eq!(
            faults(text),
            [
                "targets/db.toml:5:1: `many` is not known here (known here: issue_connections, end_connections, live_max)",
                "targets/db.toml:4:1: `live_max` must be a whole number from 1 to 1000000",
            ]
        );
    }

    #[test]
    fn a_place_is_found_in_tables_and_lists() {
        let text = "a = 1\n[offers.read]\nx = 1\n[[connect.hosts]]\nname = 1\n[[connect.hosts]]\nnome = 1\n";
        let at = |path: &[&str]| {
            let path: Vec<_> = path.iter().map(|&part| part.to_owned()).collect();
            text.get(span(text, &path).unwrap()).unwrap()
        };
        assert_eq!(at(&["offers", "read", "x"]), "x");
        assert_eq!(at(&["offers", "read", "missing"]), "read");
        assert_eq!(at(&["connect", "hosts", "1", "nome"]), "nome");
        assert_eq!(span(text, &["gone".to_owned()]), None);
    }

    #[test]
    fn secrets_are_read_from_private_files_and_named_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        crate::key_file::create(&dir.path().join("secret"), b"hush\n").unwrap();
        let here = surroundings(dir.path());
        let file = |name: &str| SecretRef::File(here.locate(name).to_string_lossy().into_owned());
        use secrecy::ExposeSecret;
        assert_eq!(here.read(&file("secret")).unwrap().expose_secret(), "hush");
        assert!(here.read(&file("none")).unwrap_err().contains("cannot be read"));
        std::fs::set_permissions(dir.path().join("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let refused = here.read(&file("secret")).unwrap_err();
        assert!(refused.contains("chmod 600") && !refused.contains("hush"), "{refused}");
        assert!(here.read(&SecretRef::Env("WRIT_NO_SUCH_VARIABLE".into())).unwrap_err().contains("is not set"));
    }
}
