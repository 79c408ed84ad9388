//! What a user of one template may do, as rules of Redis ACL. Owns the words that a template can never give and the safe
//! placing of parameters into key patterns. Broker and gate both use it: the broker says what it decided, the gate makes
//! the same of its own file and compares.

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Longest parameter, in bytes.
const PLACED_BYTES_MAX: usize = 128;

/// Most members of each list of a template.
const LIST_MAX: usize = 128;

/// Commands that no template gives: they administer the server, reach other users, run programs, or pass by key patterns
/// (`SCAN` and `KEYS` name every key, whatever the patterns say).
const NEVER: [&str; 47] = [
    "acl",
    "asking",
    "auth",
    "bgrewriteaof",
    "bgsave",
    "client",
    "cluster",
    "commandlog",
    "config",
    "copy",
    "debug",
    "eval",
    "eval_ro",
    "evalsha",
    "evalsha_ro",
    "failover",
    "fcall",
    "fcall_ro",
    "flushall",
    "flushdb",
    "function",
    "keys",
    "lastsave",
    "latency",
    "memory",
    "migrate",
    "module",
    "monitor",
    "move",
    "pfdebug",
    "pfselftest",
    "psync",
    "pubsub",
    "randomkey",
    "replconf",
    "replicaof",
    "reset",
    "restore",
    "restore-asking",
    "save",
    "scan",
    "script",
    "shutdown",
    "slaveof",
    "slowlog",
    "swapdb",
    "sync",
];

/// What client libraries say when they connect; harmless.
const HARMLESS: [&str; 6] =
    ["client|setinfo", "client|setname", "client|id", "client|getname", "cluster|slots", "cluster|shards"];

/// What a user of one template may do. `{name}` in a pattern stands for a parameter.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// Commands by name: `get`, `client|setinfo`. No categories.
    #[serde(default)]
    pub commands: Vec<String>,
    /// Patterns of keys that may be read and written.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Patterns of keys that may be read.
    #[serde(default)]
    pub keys_read: Vec<String>,
    /// Patterns of keys that may be written.
    #[serde(default)]
    pub keys_write: Vec<String>,
    /// Patterns of channels.
    #[serde(default)]
    pub channels: Vec<String>,
}

impl Template {
    /// The names of its parameters.
    #[must_use]
    pub fn params(&self) -> BTreeSet<String> {
        self.patterns().flat_map(|(_, pattern)| pieces(pattern).into_iter().flatten()).filter_map(|piece| piece.name()).collect()
    }

    fn patterns(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let lists = [("~", &self.keys), ("%R~", &self.keys_read), ("%W~", &self.keys_write), ("&", &self.channels)];
        lists.into_iter().flat_map(|(prefix, list)| list.iter().map(move |pattern| (prefix, pattern.as_str())))
    }

    /// Whether it gives only what a template may give.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if self.commands.is_empty() {
            return Err("no command: list them by name, as `get`".to_owned());
        }
        if self.commands.len().max(self.patterns().count()) > LIST_MAX {
            return Err(format!("more than {LIST_MAX} entries"));
        }
        for command in &self.commands {
            let plain = command.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-|.".contains(&byte));
            if command.is_empty() || !plain {
                return Err(format!("`{command}` is no command: write one name in lower case; categories are not taken"));
            }
            let base = command.split('|').next().unwrap_or_default();
            if NEVER.contains(&base) && !HARMLESS.contains(&command.as_str()) {
                return Err(format!("`{command}` is never given: it administers the server or passes by key patterns"));
            }
        }
        for (_, pattern) in self.patterns() {
            let pieces = pieces(pattern)?;
            let starts = matches!(pieces.first(), Some(Piece::Text(text)) if !text.starts_with(['*', '?', '[']));
            if !starts {
                return Err(format!("`{pattern}` must begin with letters that bound it, as `order:{{id}}:*`"));
            }
        }
        Ok(())
    }

    /// The rules for these parameters, without the password.
    ///
    /// # Errors
    /// Which parameter cannot be placed.
    pub fn rules(&self, params: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
        let mut rules = ["reset", "on", "resetkeys", "resetchannels", "-@all"].map(str::to_owned).to_vec();
        rules.extend(self.commands.iter().map(|command| format!("+{command}")));
        for (prefix, pattern) in self.patterns() {
            let mut rule = prefix.to_owned();
            for piece in pieces(pattern)? {
                match piece {
                    Piece::Text(text) => rule.push_str(&text),
                    Piece::Param(name) => {
                        let value = params.get(&name).ok_or_else(|| format!("parameter `{name}` is missing"))?;
                        rule.push_str(placed(&name, value)?);
                    }
                }
            }
            rules.push(rule);
        }
        Ok(rules)
    }
}

/// SHA-256 of rules, in hexadecimal: what broker and gate compare.
pub(super) fn digest(rules: &[String]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, rules.join("\n").as_bytes());
    HEXLOWER.encode(hash.as_ref())
}

enum Piece {
    Text(String),
    Param(String),
}

impl Piece {
    fn name(self) -> Option<String> {
        match self {
            Self::Text(_) => None,
            Self::Param(name) => Some(name),
        }
    }
}

fn pieces(pattern: &str) -> Result<Vec<Piece>, String> {
    let unfit = || format!("`{pattern}` is no pattern: no blanks, and each `{{` closes around a name");
    if pattern.is_empty() || pattern.bytes().any(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control()) {
        return Err(unfit());
    }
    let mut pieces = Vec::new();
    for (index, part) in pattern.split('{').enumerate() {
        let text = if index == 0 {
            part
        } else {
            let (name, rest) = part.split_once('}').ok_or_else(unfit)?;
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
                return Err(unfit());
            }
            pieces.push(Piece::Param(name.to_owned()));
            rest
        };
        if text.contains('}') {
            return Err(unfit());
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
    }
    Ok(pieces)
}

/// A parameter as part of a pattern: what a pattern could read as anything but itself is refused, and so is `:`, with which
/// a name would reach into another level of keys.
fn placed<'a>(name: &str, value: &'a str) -> Result<&'a str, String> {
    let plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte));
    if plain && (1..=PLACED_BYTES_MAX).contains(&value.len()) {
        return Ok(value);
    }
    Err(format!("parameter `{name}` goes into a key pattern: only letters, digits and `_-.@`, at most {PLACED_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn template(commands: &[&str], keys: &[&str]) -> Template {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Template { commands: texts(commands), keys: texts(keys), ..Template::default() }
    }

    #[test]
    fn a_template_gives_no_administration_and_no_unbounded_keys() {
        for (commands, keys, good) in [
            (["get", "set"].as_slice(), ["order:{id}:*"].as_slice(), true),
            (&["get", "client|setinfo"], &["a"], true),
            (&["get", "client|kill"], &["a"], false),
            (&["@all"], &["a"], false),
            (&["GET"], &["a"], false),
            (&["acl|setuser"], &["a"], false),
            (&["eval"], &["a"], false),
            (&["scan"], &["a"], false),
            (&["get allkeys"], &["a"], false),
            (&["get"], &["*"], false),
            (&["get"], &["{id}:*"], false),
            (&["get"], &["a b"], false),
            (&["get"], &["a{id"], false),
            (&["get"], &["a}"], false),
            (&[], &["a"], false),
        ] {
            assert_eq!(template(commands, keys).check().is_ok(), good, "{commands:?} {keys:?}");
        }
    }

    #[test]
    fn parameters_are_placed_as_themselves_or_refused() {
        let template = template(&["get"], &["order:{id}:*"]);
        let rules = |id: &str| template.rules(&BTreeMap::from([("id".to_owned(), id.to_owned())]));
        assert_eq!(rules("A-1").unwrap().join(" "), "reset on resetkeys resetchannels -@all +get ~order:A-1:*");
        for evil in ["*", "?", "[a-z]", "a\\", "1:*", "1 allkeys", "1\n~*", "", "a{b}", "é"] {
            assert!(rules(evil).is_err(), "{evil}");
        }
        assert!(template.rules(&BTreeMap::new()).is_err());
    }
}
