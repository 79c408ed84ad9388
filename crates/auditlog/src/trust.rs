//! Whom a verifier trusts (C2SP tlog-policy): logs, witnesses, groups and a quorum, read from a text file.
//!
//! Pure: the verifier's only configuration. It decides about a checkpoint's signatures, not about its tree.

use std::collections::HashMap;

use crate::{
    Error,
    checkpoint::Checkpoint,
    cosignature,
    note::{KeyKind, Note, VerifierKey},
};

/// Most lines of each kind that a policy may have; the specification asks for at least 32.
pub const ITEMS_MAX: usize = 256;

/// A parsed trust policy.
#[derive(Clone, Debug)]
pub struct TrustPolicy {
    logs: Vec<VerifierKey>,
    rules: Vec<Rule>,
    quorum: Option<usize>,
}

/// A name that a quorum or group may refer to; members are positions of earlier rules.
#[derive(Clone, Debug)]
enum Rule {
    Witness { name: String, key: VerifierKey },
    Group { threshold: usize, members: Vec<usize> },
}

/// What a policy says about a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trusted {
    /// The checkpoint, signed by a trusted log.
    pub checkpoint: Checkpoint,
    /// Whether the quorum of witnesses cosigned (always, if the policy asks for none).
    pub witnessed: bool,
    /// Name (in the policy) and time, in seconds since 1970, of each trusted cosignature.
    pub cosignatures: Vec<(String, u64)>,
}

impl TrustPolicy {
    /// A policy of one log and no witnesses.
    #[must_use]
    pub fn of_log(key: VerifierKey) -> Self {
        Self { logs: vec![key], rules: Vec::new(), quorum: None }
    }

    /// Reads a policy file.
    ///
    /// # Errors
    /// [`Error::PolicyMalformed`] with the line.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let mut builder = Builder::default();
        let mut lines = 0;
        for (number, line) in text.split(|b| *b == b'\n').enumerate() {
            lines = number + 1;
            builder.line(line).map_err(|why| Error::PolicyMalformed { line: lines, why })?;
        }
        let quorum = builder.quorum.ok_or(Error::PolicyMalformed { line: lines, why: "a `quorum` line is missing" })?;
        Ok(Self { logs: builder.logs, rules: builder.rules, quorum })
    }

    /// Checks a checkpoint's signatures: one trusted log, all lines of trusted witnesses, the quorum.
    ///
    /// # Errors
    /// If it does not parse, no trusted log of its origin signed, or a trusted key's line is wrong. A quorum
    /// that was not reached is no error: see [`Trusted::witnessed`].
    pub fn check(&self, note: &[u8]) -> Result<Trusted, Error> {
        let note = Note::parse(note)?;
        let checkpoint = Checkpoint::parse(note.text())?;
        let mut signed = false;
        // The key name of a log is its origin: a trusted log's key says nothing about another origin.
        for key in self.logs.iter().filter(|key| key.name() == checkpoint.origin) {
            match note.verify(key) {
                Ok(_) => signed = true,
                Err(Error::SignatureMissing) => {}
                Err(wrong) => return Err(wrong),
            }
        }
        if !signed {
            return Err(Error::SignatureMissing);
        }
        let mut cosignatures = Vec::new();
        let mut met: Vec<bool> = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            met.push(match rule {
                Rule::Group { threshold, members } => {
                    members.iter().filter(|m| met.get(**m).copied().unwrap_or(false)).count() >= *threshold
                }
                Rule::Witness { name, key } => match cosignature::verify(&note, key) {
                    Ok(time) => {
                        cosignatures.push((name.clone(), time));
                        true
                    }
                    Err(Error::SignatureMissing) => false,
                    Err(wrong) => return Err(wrong),
                },
            });
        }
        let witnessed = self.quorum.is_none_or(|rule| met.get(rule).copied().unwrap_or(false));
        Ok(Trusted { checkpoint, witnessed, cosignatures })
    }
}

#[derive(Default)]
struct Builder {
    logs: Vec<VerifierKey>,
    rules: Vec<Rule>,
    names: HashMap<Vec<u8>, usize>,
    grouped: Vec<usize>,
    /// `Some(None)` is `quorum none`.
    quorum: Option<Option<usize>>,
}

impl Builder {
    fn line(&mut self, line: &[u8]) -> Result<(), &'static str> {
        if line.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
            return Err("it holds a control character");
        }
        let words: Vec<&[u8]> = line.split(|b| matches!(b, b' ' | b'\t')).filter(|w| !w.is_empty()).collect();
        match words.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] | [b"log", key, _] => self.log(key),
            [b"witness", name, key] | [b"witness", name, key, _] => self.witness(name, key),
            [b"group", name, threshold, members @ ..] => self.group(name, threshold, members),
            [b"quorum", name] => self.quorum(name),
            [b"log" | b"witness" | b"group" | b"quorum", ..] => Err("it has a wrong number of words"),
            _ => Err("it begins with none of `log`, `witness`, `group`, `quorum`"),
        }
    }

    fn log(&mut self, key: &[u8]) -> Result<(), &'static str> {
        let key = parse_key(key, KeyKind::Ed25519)?;
        if self.logs.len() >= ITEMS_MAX {
            return Err("there are too many logs");
        }
        if self.logs.iter().any(|log| log.public() == key.public()) {
            return Err("this log key was given before");
        }
        self.logs.push(key);
        Ok(())
    }

    fn witness(&mut self, name: &[u8], key: &[u8]) -> Result<(), &'static str> {
        let key = parse_key(key, KeyKind::Cosignature)?;
        let same = |rule: &Rule| matches!(rule, Rule::Witness { key: other, .. } if other.public() == key.public());
        if self.rules.iter().any(same) {
            return Err("this witness key was given before");
        }
        let shown = String::from_utf8_lossy(name).into_owned();
        self.define(name, Rule::Witness { name: shown, key })
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], members: &[&[u8]]) -> Result<(), &'static str> {
        let mut found = Vec::with_capacity(members.len());
        for member in members {
            let rule = *self.names.get(*member).ok_or("a group member is not defined above")?;
            if self.grouped.contains(&rule) {
                return Err("a name may be a group member only once");
            }
            self.grouped.push(rule);
            found.push(rule);
        }
        let threshold = match threshold {
            b"any" => 1,
            b"all" => found.len(),
            number => std::str::from_utf8(number)
                .ok()
                .and_then(crate::checkpoint::parse_decimal)
                .and_then(|k| usize::try_from(k).ok())
                .ok_or("a threshold is `any`, `all` or a number")?,
        };
        if threshold < 1 || threshold > found.len() {
            return Err("a threshold must lie between 1 and the number of members");
        }
        self.define(name, Rule::Group { threshold, members: found })
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), &'static str> {
        let rule = match name {
            b"none" => None,
            name => Some(*self.names.get(name).ok_or("the quorum is not defined above")?),
        };
        if self.quorum.replace(rule).is_some() {
            return Err("a second `quorum` line");
        }
        Ok(())
    }

    fn define(&mut self, name: &[u8], rule: Rule) -> Result<(), &'static str> {
        if self.rules.len() >= ITEMS_MAX {
            return Err("there are too many witnesses and groups");
        }
        if name == b"none" || self.names.insert(name.to_vec(), self.rules.len()).is_some() {
            return Err("this name is taken");
        }
        self.rules.push(rule);
        Ok(())
    }
}

fn parse_key(vkey: &[u8], kind: KeyKind) -> Result<VerifierKey, &'static str> {
    let text = std::str::from_utf8(vkey).map_err(|_| "the key is not UTF-8")?;
    let key = VerifierKey::parse(text).map_err(|_| "the key is no verifier key, or of a type that is not supported")?;
    match (kind, key.kind() == kind) {
        (_, true) => Ok(key),
        (KeyKind::Ed25519, _) => Err("a log needs an Ed25519 key (type 1)"),
        (KeyKind::Cosignature, _) => Err("a witness needs a cosignature key (type 4)"),
    }
}
