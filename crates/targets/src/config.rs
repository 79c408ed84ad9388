//! What a target file says about its own kind, read strictly: a key that nobody asked for is a fault, a secret that
//! stands in the file is a fault, and every fault is found at once. Owns the reader that all kinds share; it knows no
//! key by name. Keys are paths, so that the reader of the whole file can point at the line.

use authority::target::TargetError;
use domain::{Offer, OfferName, SecretRef, TargetName, Timestamp};
use secrecy::SecretString;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use toml::{Table, Value};

/// Largest file (certificates, keys) that a target file names, in bytes.
const FILE_BYTES_MAX: u64 = 1_024 * 1_024;

/// What the binary lends to targets: it alone reads the clock, the environment and files of secrets.
pub trait Surroundings: Send + Sync + 'static {
    /// The secret behind a reference, as it is now: a rotated secret works at once.
    ///
    /// # Errors
    /// Why there is none: names the reference, never what was read.
    fn read(&self, reference: &SecretRef) -> Result<SecretString, String>;

    /// A path of a target file, made absolute by the folder of the configuration.
    fn locate(&self, path: &str) -> PathBuf;

    /// The wall clock.
    fn now(&self) -> Timestamp;
}

/// A target file, split: what policy needs of it is an [`Offer`], the rest is its kind's own.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// `kind`.
    pub kind: String,
    /// The name of the file.
    pub name: TargetName,
    /// `[connect]`.
    pub connect: Table,
    /// `[offers.*]`.
    pub offers: BTreeMap<OfferName, OfferConfig>,
}

/// One offer of a target file.
#[derive(Debug, Clone)]
pub struct OfferConfig {
    /// What policy reads.
    pub offer: Offer,
    /// Its other members.
    pub own: Table,
}

/// One thing that is wrong in a target file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// The path of the key: `["offers", "read_orders", "template"]`.
    pub key: Vec<String>,
    /// What is wrong with it.
    pub message: String,
    /// What to do; empty if the message says it.
    pub help: String,
}

impl ConfigFault {
    /// A fault at a key.
    #[must_use]
    pub fn new(key: &[&str], message: impl Into<String>) -> Self {
        let key = key.iter().map(|&part| part.to_owned()).collect();
        Self { key, message: message.into(), help: String::new() }
    }

    /// The same with what to do.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: help.into(), ..self }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key.join("."), self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, " ({})", self.help) }
    }
}

/// All faults of one target file; never empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct ConfigFaults(pub Vec<ConfigFault>);

impl From<ConfigFault> for ConfigFaults {
    fn from(fault: ConfigFault) -> Self {
        Self(vec![fault])
    }
}

/// What all readers of one target file share.
struct Reading {
    faults: RefCell<Vec<ConfigFault>>,
    asked: RefCell<BTreeSet<Vec<String>>>,
    surroundings: Arc<dyn Surroundings>,
}

/// A target file being read by its kind.
///
/// Getters never fail: they record what is wrong and answer a harmless value, so that one run finds every fault. Call
/// [`Config::check`] before the values are used for anything.
pub struct Config<'a> {
    /// The word of the kind.
    pub kind: &'static str,
    /// The target.
    pub name: &'a TargetName,
    /// `[connect]`.
    pub connect: Section<'a>,
    /// `[offers.*]`.
    pub offers: BTreeMap<&'a OfferName, OfferSection<'a>>,
    reading: std::rc::Rc<Reading>,
}

/// One offer being read.
pub struct OfferSection<'a> {
    /// What policy knows of it: parameters, lifetime.
    pub offer: &'a Offer,
    /// Its own members.
    pub own: Section<'a>,
}

impl<'a> Config<'a> {
    /// Begins to read.
    pub(crate) fn new(kind: &'static str, target: &'a TargetConfig, surroundings: &Arc<dyn Surroundings>) -> Self {
        let reading = std::rc::Rc::new(Reading {
            faults: RefCell::default(),
            asked: RefCell::default(),
            surroundings: Arc::clone(surroundings),
        });
        let section = |path: &[&str], table: &'a Table| Section {
            path: path.iter().map(|&part| part.to_owned()).collect(),
            table,
            reading: std::rc::Rc::clone(&reading),
        };
        let connect = section(&["connect"], &target.connect);
        let offers = target.offers.iter().map(|(name, config)| {
            let own = section(&["offers", name.as_str()], &config.own);
            (name, OfferSection { offer: &config.offer, own })
        });
        Self { kind, name: &target.name, connect, offers: offers.collect(), reading: std::rc::Rc::clone(&reading) }
    }

    /// The clock and the secrets, for a kind that needs them later.
    #[must_use]
    pub fn surroundings(&self) -> Arc<dyn Surroundings> {
        Arc::clone(&self.reading.surroundings)
    }

    /// Whether everything so far was in order, and nothing stands in the file that was not asked for.
    ///
    /// # Errors
    /// Every fault.
    pub fn check(&self) -> Result<(), ConfigFaults> {
        let mut faults = self.reading.faults.borrow().clone();
        for section in std::iter::once(&self.connect).chain(self.offers.values().map(|offer| &offer.own)) {
            unasked(&self.reading.asked.borrow(), &section.path, section.table, &mut faults);
        }
        if faults.is_empty() { Ok(()) } else { Err(ConfigFaults(faults)) }
    }
}

/// Adds a fault for each key that nobody asked for.
fn unasked(asked: &BTreeSet<Vec<String>>, path: &[String], table: &Table, faults: &mut Vec<ConfigFault>) {
    for (key, value) in table {
        let mut place = path.to_vec();
        place.push(key.clone());
        if !asked.contains(&place) {
            let known = asked.iter().filter(|known| known.len() == place.len() && known.starts_with(path));
            let known: Vec<_> = known.filter_map(|known| known.last()).map(|key| format!("`{key}`")).collect();
            let help = if known.is_empty() { "remove it".to_owned() } else { format!("known here: {}", known.join(", ")) };
            faults.push(ConfigFault { key: place, message: format!("`{key}` is not known here"), help });
            continue;
        }
        // A table that was taken whole is its kind's to check.
        if !asked.iter().any(|known| known.len() > place.len() && known.starts_with(&place)) {
            continue;
        }
        match value {
            Value::Table(inner) => unasked(asked, &place, inner, faults),
            Value::Array(items) => {
                for (index, inner) in items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_table()?))) {
                    unasked(asked, &[place.as_slice(), &[index.to_string()]].concat(), inner, faults);
                }
            }
            _ => {}
        }
    }
}

/// A table of a target file.
pub struct Section<'a> {
    path: Vec<String>,
    table: &'a Table,
    reading: std::rc::Rc<Reading>,
}

impl<'a> Section<'a> {
    fn place(&self, key: &str) -> Vec<String> {
        let mut place = self.path.clone();
        place.push(key.to_owned());
        place
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.reading.asked.borrow_mut().insert(self.place(key));
        self.table.get(key)
    }

    fn required<T: Default>(&self, key: &str, found: Option<T>, example: &str) -> T {
        found.unwrap_or_else(|| {
            if !self.table.contains_key(key) {
                self.fault(key, format!("`{key}` is missing"), format!("for example: {key} = {example}"));
            }
            T::default()
        })
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) {
        self.fault(key, format!("`{key}` must be {expected}, not {}", value.type_str()), "");
    }

    /// Records a fault that the kind itself found at a key of this table.
    pub fn fault(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        let fault = ConfigFault { key: self.place(key), message: message.into(), help: help.into() };
        self.reading.faults.borrow_mut().push(fault);
    }

    /// Whether the key stands there (without asking for it).
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// A text, if it stands there. Control characters and empty texts are faults.
    #[must_use]
    pub fn text_if(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) if !text.is_empty() && !text.chars().any(char::is_control) => Some(text.clone()),
            Value::String(_) => {
                self.fault(key, format!("`{key}` is empty or has control characters"), "");
                None
            }
            other => {
                self.wrong(key, other, "a text");
                None
            }
        }
    }

    /// A text that must stand there.
    #[must_use]
    pub fn text(&self, key: &str, example: &str) -> String {
        self.required(key, self.text_if(key), &format!("\"{example}\""))
    }

    /// A word that must stand there, and that goes as it is into scripts and into names of files.
    #[must_use]
    pub fn word(&self, key: &str, example: &str) -> String {
        let word = self.text(key, example);
        self.check_word(key, &word);
        word
    }

    /// A list of such words.
    #[must_use]
    pub fn words(&self, key: &str) -> Vec<String> {
        let words = self.texts(key);
        words.iter().for_each(|word| self.check_word(key, word));
        words
    }

    fn check_word(&self, key: &str, word: &str) {
        let plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(&byte));
        let begins = word.bytes().next().is_none_or(|first| first.is_ascii_alphanumeric() || first == b'_');
        if !plain || !begins {
            let message = format!("`{word}` is not one word");
            self.fault(key, message, "use letters, digits and `._@-`, beginning with a letter or digit");
        }
    }

    /// A text that may span lines (SQL, a script), if it stands there.
    #[must_use]
    pub fn long_text_if(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other => {
                self.wrong(key, other, "a text");
                None
            }
        }
    }

    /// One of a closed list of words, or `default`.
    #[must_use]
    pub fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)], default: T) -> T {
        let Some(text) = self.text_if(key) else { return default };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return *value;
        }
        let words: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.fault(key, format!("`{text}` is not allowed for `{key}`"), format!("use one of {}", words.join(", ")));
        default
    }

    /// A whole number in a range, if it stands there.
    #[must_use]
    pub fn integer_if(&self, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        match self.get(key)? {
            Value::Integer(number) if range.contains(number) => Some(*number),
            Value::Integer(number) => {
                let message = format!("`{key}` is {number}, not in {} to {}", range.start(), range.end());
                self.fault(key, message, "");
                None
            }
            other => {
                self.wrong(key, other, "a whole number");
                None
            }
        }
    }

    /// A port, or `default`.
    #[must_use]
    pub fn port(&self, key: &str, default: u16) -> u16 {
        self.integer_if(key, 1..=65_535).and_then(|port| u16::try_from(port).ok()).unwrap_or(default)
    }

    /// A truth value, or `default`.
    #[must_use]
    pub fn flag(&self, key: &str, default: bool) -> bool {
        match self.get(key) {
            None => default,
            Some(Value::Boolean(truth)) => *truth,
            Some(other) => {
                self.wrong(key, other, "true or false");
                default
            }
        }
    }

    /// A list of texts; empty if it does not stand there. Control characters and empty texts are faults.
    #[must_use]
    pub fn texts(&self, key: &str) -> Vec<String> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Value::Array(items) = value else {
            self.wrong(key, value, "a list of texts");
            return Vec::new();
        };
        let texts: Option<Vec<_>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
        let Some(texts) = texts else {
            self.fault(key, format!("`{key}` must hold only texts"), "");
            return Vec::new();
        };
        if texts.iter().any(|text| text.is_empty() || text.chars().any(char::is_control)) {
            self.fault(key, format!("a text of `{key}` is empty or has control characters"), "");
        }
        texts
    }

    /// A table of texts by name; empty if it does not stand there.
    #[must_use]
    pub fn text_map(&self, key: &str) -> BTreeMap<String, String> {
        let Some(value) = self.get(key) else { return BTreeMap::new() };
        let Value::Table(table) = value else {
            self.wrong(key, value, "a table of texts");
            return BTreeMap::new();
        };
        let texts = table.iter().map(|(name, item)| Some((name.clone(), item.as_str()?.to_owned())));
        texts.collect::<Option<_>>().unwrap_or_else(|| {
            self.fault(key, format!("`{key}` must hold only texts"), "");
            BTreeMap::new()
        })
    }

    /// A value as it stands, for a kind that checks it itself (a policy document).
    #[must_use]
    pub fn raw(&self, key: &str) -> Option<&'a Value> {
        self.get(key)
    }

    /// A table within, if it stands there.
    #[must_use]
    pub fn section(&self, key: &str) -> Option<Self> {
        match self.get(key)? {
            Value::Table(table) => Some(Self { path: self.place(key), table, reading: std::rc::Rc::clone(&self.reading) }),
            other => {
                self.wrong(key, other, "a table");
                None
            }
        }
    }

    /// A list of tables; empty if it does not stand there. Faults name the list's key and the position.
    #[must_use]
    pub fn sections(&self, key: &str) -> Vec<Self> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let tables: Option<Vec<_>> = value.as_array().map(|items| items.iter().map(Value::as_table).collect()).unwrap_or(None);
        let Some(tables) = tables else {
            self.wrong(key, value, "a list of tables");
            return Vec::new();
        };
        let numbered = tables.into_iter().enumerate().map(|(index, table)| {
            let path = [self.place(key), vec![index.to_string()]].concat();
            Self { path, table, reading: std::rc::Rc::clone(&self.reading) }
        });
        numbered.collect()
    }

    /// A duration in whole seconds, or `default`.
    #[must_use]
    pub fn seconds(&self, key: &str, range: RangeInclusive<i64>, default: u64) -> Duration {
        let secs = self.integer_if(key, range).and_then(|secs| u64::try_from(secs).ok());
        Duration::from_secs(secs.unwrap_or(default))
    }

    /// A secret by reference, `{ env = "X" }` or `{ file = "path" }`, if it stands there.
    #[must_use]
    pub fn secret_if(&self, key: &str) -> Option<Secret> {
        let value = self.get(key)?;
        let reference = value.as_table().filter(|table| table.len() == 1).and_then(|table| table.iter().next());
        let reference = match reference.and_then(|(word, place)| Some((word.as_str(), place.as_str()?))) {
            Some(("env", name)) if !name.is_empty() => SecretRef::Env(name.to_owned()),
            Some(("file", path)) if !path.is_empty() => {
                SecretRef::File(self.reading.surroundings.locate(path).to_string_lossy().into_owned())
            }
            _ => {
                // What stands there may be the secret itself: it is not shown.
                let help = format!("write {key} = {{ env = \"VARIABLE\" }} or {key} = {{ file = \"PATH\" }}");
                self.fault(key, format!("`{key}` must be a reference: secrets never stand in a file of configuration"), help);
                return None;
            }
        };
        Some(Secret { reference, source: Arc::clone(&self.reading.surroundings) })
    }

    /// A secret that must be there.
    #[must_use]
    pub fn secret(&self, key: &str) -> Secret {
        let found = self.secret_if(key);
        if found.is_none() && !self.table.contains_key(key) {
            self.fault(key, format!("`{key}` is missing"), format!("for example: {key} = {{ file = \"secrets/{key}\" }}"));
        }
        // After a fault the target is never opened, so that this stands in for nothing.
        found.unwrap_or_else(|| Secret {
            reference: SecretRef::Env(String::new()),
            source: Arc::clone(&self.reading.surroundings),
        })
    }

    /// A path, made absolute, if it stands there.
    #[must_use]
    pub fn path_if(&self, key: &str) -> Option<PathBuf> {
        self.text_if(key).map(|path| self.reading.surroundings.locate(&path))
    }

    /// What stands in a file that holds nothing secret (certificates), if the key stands there. At most 1 MiB.
    #[must_use]
    pub fn file_if(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path_if(key)?;
        let mut bytes = Vec::new();
        let read = std::fs::File::open(&path).and_then(|file| {
            if !file.metadata()?.is_file() {
                return Err(std::io::Error::other("not a regular file"));
            }
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)
        });
        match read {
            Ok(read) if read as u64 <= FILE_BYTES_MAX => Some(bytes),
            Ok(_) => {
                self.fault(key, format!("`{}` is larger than {FILE_BYTES_MAX} bytes", path.display()), "");
                None
            }
            Err(error) => {
                self.fault(key, format!("`{}` cannot be read: {error}", path.display()), "");
                None
            }
        }
    }
}

/// A secret that is read each time that it is needed, and never kept.
#[derive(Clone)]
pub struct Secret {
    reference: SecretRef,
    source: Arc<dyn Surroundings>,
}

impl Secret {
    /// The secret as it is now.
    ///
    /// # Errors
    /// [`TargetError::Unreachable`]: it cannot be read; it may be there later.
    pub fn read(&self) -> Result<SecretString, TargetError> {
        self.source.read(&self.reference).map_err(TargetError::Unreachable)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({:?})", self.reference)
    }
}

#[cfg(test)]
mod tests;
