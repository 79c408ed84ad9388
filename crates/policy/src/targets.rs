//! `targets/*.toml`: what may be asked for at each system in which credentials are minted. Owns the members that policy
//! needs (kind, owner, and of each offer its description, parameters, lifetime and labels); how a target is reached and
//! how an offer is expressed there is the crate `targets`' to read. Never sees a secret: the file only names them.

use crate::intents::{ParamTable, Reader};
use crate::lock::shown;
use crate::shape::{Member, Members, Shape};
use crate::spelling::{did_you_mean, pascal_case};
use crate::{Diagnostic, SourceFile};
use domain::limits::TASK_LIFETIME_SECS_MAX;
use domain::{Offer, OfferName, OwnerId, Param, ParamType, Reading, TargetName, ToolTraits};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::collections::BTreeMap;
use toml::Spanned;

/// Most offers of one target: more is a mistake in whatever wrote the file.
const OFFERS_MAX: usize = 512;
/// Life of a credential whose offer does not say, in seconds.
const LIFETIME_SECS: u64 = 900;
/// The kinds of target that there are.
const KINDS: [&str; 11] = ["postgresql", "mysql", "redis", "ssh", "x509", "aws", "github", "kubernetes", "gcp", "azure", "http"];
/// The kind whose offers are routes: each request is decided, and nothing is handed out.
const HTTP: &str = "http";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetFile {
    kind: Spanned<String>,
    owner: Spanned<String>,
    #[serde(default)]
    description: String,
    #[serde(default, rename = "connect")]
    _connect: IgnoredAny,
    #[serde(default, rename = "limits")]
    _limits: IgnoredAny,
    #[serde(default)]
    offers: BTreeMap<Spanned<String>, OfferTable>,
}

/// The members that all kinds share; those of one kind alone are its module's to check.
#[derive(Deserialize)]
struct OfferTable {
    description: Spanned<String>,
    lifetime_secs: Option<Spanned<u64>>,
    #[serde(default)]
    reading: ReadingTable,
    sink: Option<Spanned<String>>,
    #[serde(default)]
    clear_arguments: Vec<Spanned<String>>,
    #[serde(default)]
    params: BTreeMap<Spanned<String>, ParamTable>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ReadingTable {
    untrusted: Option<bool>,
    sensitivity: Option<Spanned<String>>,
}

/// What may be asked for at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetOffers {
    /// Its name.
    pub name: TargetName,
    /// The word for its kind: `postgresql`, `ssh`, `http`, …
    pub kind: String,
    /// Who answers for it.
    pub owner: OwnerId,
    /// What it is, for people.
    pub description: String,
    /// What it offers.
    pub offers: BTreeMap<OfferName, Offer>,
}

impl TargetOffers {
    /// Whether its offers are routes of an HTTP API, of which each request is decided and no credential is handed out.
    #[must_use]
    pub fn is_http(&self) -> bool {
        self.kind == HTTP
    }
}

/// A target as the schema sees it.
#[derive(Debug)]
pub(crate) struct TargetEntry {
    /// Its Cedar namespace.
    pub(crate) namespace: String,
    pub(crate) offers: TargetOffers,
}

/// Reads one target file; what is wrong with it is added to `found`.
pub(crate) fn read(file: &SourceFile, stem: &str, found: &mut Vec<Diagnostic>) -> Option<TargetEntry> {
    let table: TargetFile = crate::toml_text::parse(&file.path, &file.text, found)?;
    let before = found.len();
    let name: Option<TargetName> =
        stem.parse().map_err(|error| found.push(Diagnostic::whole(&file.path, format!("{error}")))).ok();
    let mut reader = Reader { path: &file.path, text: &file.text, found };
    let kind = table.kind.get_ref();
    if !KINDS.contains(&kind.as_str()) {
        let help = did_you_mean(kind, KINDS).unwrap_or_else(|| format!("use one of `{}`", KINDS.join("`, `")));
        reader.say(table.kind.span(), format!("`{}` is not a kind of target", shown(kind)), help);
    }
    let owner = reader.word(&table.owner);
    if table.offers.len() > OFFERS_MAX {
        reader.say(0..0, format!("a target has at most {OFFERS_MAX} offers"), "split the target");
    }
    let offers = table.offers.into_iter().filter_map(|(name, table)| offer(&mut reader, &name, table)).collect();
    if found.len() > before {
        return None;
    }
    let name = name?;
    let namespace = pascal_case(name.as_str());
    let kind = table.kind.into_inner();
    Some(TargetEntry { namespace, offers: TargetOffers { name, kind, owner: owner?, description: table.description, offers } })
}

fn offer(reader: &mut Reader<'_>, name: &Spanned<String>, table: OfferTable) -> Option<(OfferName, Offer)> {
    let offer_name: OfferName = reader.word(name)?;
    if table.description.get_ref().trim().is_empty() {
        reader.say(table.description.span(), "an offer needs a description", "say what its holder can do");
    }
    let lifetime = reader.limit("lifetime_secs", table.lifetime_secs.as_ref(), TASK_LIFETIME_SECS_MAX);
    let mut traits = ToolTraits::default();
    let reading = &mut traits.reading;
    *reading = Reading { untrusted: table.reading.untrusted.unwrap_or(reading.untrusted), ..*reading };
    if let Some(word) = &table.reading.sensitivity {
        traits.reading.sensitivity = reader.word(word).unwrap_or(traits.reading.sensitivity);
    }
    if let Some(word) = &table.sink {
        traits.sink = reader.word(word).unwrap_or(traits.sink);
    }
    let params = reader.params(table.params, &[]);
    for clear in &table.clear_arguments {
        if !params.contains_key(clear.get_ref()) {
            let message = format!("offer `{offer_name}` has no parameter `{}`", shown(clear.get_ref()));
            let known = params.keys().map(String::as_str);
            let help = did_you_mean(clear.get_ref(), known).unwrap_or_else(|| "remove it".to_owned());
            reader.say(clear.span(), message, help);
        }
    }
    traits.clear_arguments = table.clear_arguments.into_iter().map(Spanned::into_inner).collect();
    let offer = Offer {
        name: offer_name.clone(),
        description: table.description.into_inner(),
        params,
        traits,
        lifetime_secs: lifetime.unwrap_or(LIFETIME_SECS),
    };
    Some((offer_name, offer))
}

/// The parameters of an offer as members of `context.input`. All are there: binding fills in defaults.
pub(crate) fn members(params: &BTreeMap<String, Param>) -> Members {
    let shape = |kind: ParamType| match kind {
        ParamType::Text => Shape::Text,
        ParamType::Long => Shape::Long,
        ParamType::Bool => Shape::Bool,
        ParamType::Texts => Shape::Set(Box::new(Shape::Text)),
    };
    let member = |param: &Param| Member { shape: shape(param.kind), required: true, nullable: false };
    params.iter().map(|(name, param)| (name.as_str().into(), member(param))).collect()
}

#[cfg(test)]
mod tests;
