//! How a credential reaches the client at hand (R25): in the files and variables that an unmodified client reads by
//! itself. A secret stands in files of a private folder, in variables only where a client knows nothing else, and never on
//! a command line. Owns what each client wants; never asks for credentials.

mod cloud;
mod database;
mod key;

use super::folder::Folder;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use zeroize::Zeroizing;

/// A credential that is held.
pub(crate) struct Held {
    /// Its id.
    pub(crate) id: String,
    /// Where it is for.
    pub(crate) target: String,
    /// What it is for.
    pub(crate) offer: String,
    /// The kind of the target.
    pub(crate) kind: String,
    /// When it dies by itself.
    pub(crate) expires_at: String,
    /// What is no secret.
    pub(crate) fields: BTreeMap<String, String>,
    /// The secrets, whoever made them.
    pub(crate) secrets: BTreeMap<String, SecretString>,
}

/// What the command's environment becomes.
#[derive(Default)]
pub(crate) struct Environment {
    /// Variables that are set.
    pub(crate) set: BTreeMap<String, OsString>,
    /// Variables that would make a client ignore what is set.
    pub(crate) unset: BTreeSet<&'static str>,
}

impl Environment {
    fn set(&mut self, name: impl Into<String>, value: impl Into<OsString>) {
        self.set.insert(name.into(), value.into());
    }

    fn unset(&mut self, names: &[&'static str]) {
        self.unset.extend(names);
    }
}

impl Held {
    /// A field; empty if the target did not say it.
    fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    fn secret(&self, name: &str) -> anyhow::Result<&str> {
        let secret = self.secrets.get(name).map(ExposeSecret::expose_secret);
        secret.ok_or_else(|| anyhow::anyhow!("the credential for `{}/{}` has no `{name}`", self.target, self.offer))
    }

    /// `ORDERS_DB_READ_ORDERS`: the middle of its variables, and the name of its folder.
    pub(crate) fn word(&self) -> String {
        let plain = |text: &str| -> String {
            text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
        };
        format!("{}_{}", plain(&self.target), plain(&self.offer))
    }

    /// Writes a file of it.
    fn write(&self, folder: &Folder, name: &str, content: &str) -> anyhow::Result<std::path::PathBuf> {
        Ok(folder.write(&format!("{}/{name}", self.word().to_ascii_lowercase()), content.as_bytes())?)
    }

    /// All of it as one document, for programs that know no other form.
    pub(crate) fn to_json(&self) -> Zeroizing<String> {
        let secrets: Map<String, Value> =
            self.secrets.iter().map(|(name, secret)| (name.clone(), secret.expose_secret().into())).collect();
        let document = json!({
            "id": self.id, "target": self.target, "offer": self.offer, "kind": self.kind, "expires_at": self.expires_at,
            "fields": self.fields, "secrets": secrets,
        });
        Zeroizing::new(format!("{document:#}\n"))
    }
}

/// Puts credentials where their clients look.
///
/// # Errors
/// A file cannot be written, or a target did not say what its client needs.
pub(crate) fn deliver(credentials: &[Held], folder: &Folder) -> anyhow::Result<Environment> {
    let mut environment = Environment::default();
    for held in credentials {
        single_lines(held)?;
        generic(held, folder, &mut environment)?;
    }
    let of = |kind: &str| credentials.iter().filter(|held| held.kind == kind).collect::<Vec<_>>();
    database::postgresql(&of("postgresql"), folder, &mut environment)?;
    database::mysql(&of("mysql"), folder, &mut environment)?;
    database::redis(&of("redis"), folder, &mut environment)?;
    key::ssh(&of("ssh"), folder, &mut environment)?;
    key::x509(&of("x509"), folder, &mut environment)?;
    cloud::aws(&of("aws"), folder, &mut environment)?;
    cloud::github(&of("github"), folder, &mut environment)?;
    cloud::kubernetes(&of("kubernetes"), folder, &mut environment)?;
    cloud::gcp(&of("gcp"), folder, &mut environment)?;
    Ok(environment)
}

/// Fields that have lines of their own.
const DOCUMENTS: [&str; 4] = ["ca_pem", "certificate", "chain", "known_hosts"];

/// Most clients' files have one setting a line: a target must not be able to write settings of its own into them.
fn single_lines(held: &Held) -> anyhow::Result<()> {
    let foul = |name: &&String| held.field(name).chars().any(|c| c.is_control() || c == '"');
    if let Some(name) = held.fields.keys().filter(|name| !DOCUMENTS.contains(&name.as_str())).find(foul) {
        anyhow::bail!("the field `{name}` of the credential for `{}/{}` is not plain text", held.target, held.offer);
    }
    Ok(())
}

/// `WRIT_CREDENTIAL_<TARGET>_<OFFER>`, a JSON file, and one variable for each short field.
fn generic(held: &Held, folder: &Folder, environment: &mut Environment) -> anyhow::Result<()> {
    let name = format!("WRIT_CREDENTIAL_{}", held.word());
    let file = held.write(folder, "credential.json", &held.to_json())?;
    for (field, value) in held.fields.iter().filter(|(_, value)| !value.contains('\n')) {
        environment.set(format!("{name}_{}", field.to_ascii_uppercase()), value);
    }
    environment.set(name, file);
    Ok(())
}

/// The only one of its kind: variables that a client reads by itself can say one thing only.
fn only<'a>(credentials: &[&'a Held]) -> Option<&'a Held> {
    match credentials {
        [one] => Some(*one),
        _ => None,
    }
}

/// A path as it stands in a file.
fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests;
