//! Everything that the folder says beside policies: intents, upstreams, approved tools and their labels, read from
//! the sources and checked against each other. Owns the names that Cedar gives them.

use crate::Diagnostic;
use crate::intents;
use crate::labels::{Labels, Unasked};
use crate::lock::{self, ApprovedTool};
use crate::shape::{Members, signature};
use crate::source::{FILE_BYTES_MAX, FILES_MAX, SourceFile, Sources, TOTAL_BYTES_MAX};
use crate::spelling::{did_you_mean, pascal_case};
use crate::targets::{self, TargetEntry};
use domain::{Intent, IntentName, TargetName, ToolName, ToolTraits, UpstreamName};
use std::collections::BTreeMap;

/// Namespaces of the schema that no upstream may take.
const TAKEN: [&str; 2] = ["Writ", "Intent"];

/// What the folder holds, policies apart.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) intents: BTreeMap<IntentName, Intent>,
    pub(crate) upstreams: BTreeMap<UpstreamName, UpstreamEntry>,
    pub(crate) targets: BTreeMap<TargetName, TargetEntry>,
}

/// An upstream that an intent reaches or that has files in `tools/`.
#[derive(Debug)]
pub(crate) struct UpstreamEntry {
    /// Its Cedar namespace.
    pub(crate) namespace: String,
    pub(crate) resources: ToolTraits,
    pub(crate) prompts: ToolTraits,
    pub(crate) unasked: Unasked,
    pub(crate) tools: BTreeMap<ToolName, ToolEntry>,
    /// Its lock file could be read, or there is none.
    readable: bool,
}

/// An approved tool and the type of its arguments.
#[derive(Debug)]
pub(crate) struct ToolEntry {
    pub(crate) approved: ApprovedTool,
    pub(crate) members: Members,
}

/// The kinds of file that a policy folder holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    Cedar,
    Intent,
    Labels(&'a str),
    Lock(&'a str),
    Target(&'a str),
    Tests,
    Stray,
    Ignored,
}

/// What a file is, by its path alone.
pub(crate) fn kind(path: &str) -> Kind<'_> {
    if !Sources::wants(path) {
        return Kind::Ignored;
    }
    if path.ends_with(".cedar") {
        return Kind::Cedar;
    }
    let (folder, name) = path.split_once('/').unwrap_or(("", path));
    if name.contains('/') {
        return Kind::Stray;
    }
    match (folder, name.strip_suffix(".toml"), name.strip_suffix(".lock.json")) {
        ("intents", Some(_), _) => Kind::Intent,
        ("tests", Some(_), _) => Kind::Tests,
        ("targets", Some(target), _) => Kind::Target(target),
        ("tools", Some(upstream), _) => Kind::Labels(upstream),
        ("tools", _, Some(upstream)) => Kind::Lock(upstream),
        _ => Kind::Stray,
    }
}

/// Refuses folders that are too large to be policies.
pub(crate) fn check_size(sources: &Sources, found: &mut Vec<Diagnostic>) -> bool {
    let before = found.len();
    if sources.files.len() > FILES_MAX {
        found.push(Diagnostic::whole("", format!("more than {FILES_MAX} files: this is not a policy folder")));
    }
    for file in sources.files.iter().filter(|file| file.text.len() > FILE_BYTES_MAX) {
        found.push(Diagnostic::whole(&file.path, format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    if sources.files.iter().map(|file| file.text.len()).sum::<usize>() > TOTAL_BYTES_MAX {
        found.push(Diagnostic::whole("", format!("more than {TOTAL_BYTES_MAX} bytes of text")));
    }
    found.len() == before
}

/// A lock file and what it approves; nothing if it could not be read.
type Lock<'a> = (&'a SourceFile, Option<Vec<lock::Locked>>);

/// Reads everything but policies and tests.
pub(crate) fn read(sources: &Sources, found: &mut Vec<Diagnostic>) -> Catalog {
    let mut catalog = Catalog::default();
    let mut spans: BTreeMap<IntentName, (&SourceFile, std::ops::Range<usize>)> = BTreeMap::new();
    let mut labels: BTreeMap<UpstreamName, Labels> = BTreeMap::new();
    let mut locks: BTreeMap<UpstreamName, Lock<'_>> = BTreeMap::new();
    let mut seen = std::collections::BTreeSet::new();
    for file in &sources.files {
        if !seen.insert(&file.path) {
            found.push(Diagnostic::whole(&file.path, "the file is given twice"));
            continue;
        }
        match kind(&file.path) {
            Kind::Intent => {
                let Some((intent, span)) = intents::read(&file.path, &file.text, found) else { continue };
                if let Some((other, _)) = spans.insert(intent.name.clone(), (file, span.clone())) {
                    let message = format!("intent `{}` is also declared in `{}`", intent.name, other.path);
                    found.push(Diagnostic::at(&file.path, &file.text, span, message).help("give each intent its own name"));
                }
                catalog.intents.insert(intent.name.clone(), intent);
            }
            Kind::Labels(upstream) => {
                if let Some(upstream) = upstream_name(file, upstream, found) {
                    labels.insert(upstream, Labels::read(&file.path, &file.text, found));
                }
            }
            Kind::Lock(upstream) => {
                if let Some(upstream) = upstream_name(file, upstream, found) {
                    let locked = lock::read(&file.path, &upstream, &file.text, found);
                    locks.insert(upstream, (file, locked));
                }
            }
            Kind::Target(name) => {
                if let Some(entry) = targets::read(file, name, found) {
                    catalog.targets.insert(entry.offers.name.clone(), entry);
                }
            }
            Kind::Stray => {
                let help = "policies are `*.cedar`; other files belong directly into `intents/`, `tools/` or `tests/`";
                found.push(Diagnostic::whole(&file.path, "the file has no meaning here and is not read").help(help).warning());
            }
            Kind::Cedar | Kind::Tests | Kind::Ignored => {}
        }
    }
    let known = labels.keys().chain(locks.keys()).cloned();
    let reached = catalog.intents.values().flat_map(|intent| intent.reach.iter().cloned());
    let names: std::collections::BTreeSet<_> = known.chain(reached).collect();
    for name in names {
        let entry = upstream(&name, labels.remove(&name), locks.remove(&name), found);
        catalog.upstreams.insert(name, entry);
    }
    check_reach(&catalog, &spans, found);
    check_spelling(&catalog, found);
    catalog
}

fn upstream_name(file: &SourceFile, name: &str, found: &mut Vec<Diagnostic>) -> Option<UpstreamName> {
    name.parse().map_err(|error| found.push(Diagnostic::whole(&file.path, format!("{error}")))).ok()
}

fn upstream(name: &UpstreamName, labels: Option<Labels>, lock: Option<Lock<'_>>, found: &mut Vec<Diagnostic>) -> UpstreamEntry {
    let labels = labels.unwrap_or_default();
    let (path, locked) = lock.map_or_else(|| (String::new(), Some(Vec::new())), |(file, locked)| (file.path.clone(), locked));
    let namespace = pascal_case(name.as_str());
    // What a broken lock file would approve is not known: no remarks about what it seems to lack.
    let Some(locked) = locked else {
        let Labels { resources, prompts, unasked, .. } = labels;
        return UpstreamEntry { namespace, resources, prompts, unasked, tools: BTreeMap::new(), readable: false };
    };
    labels.check_tools(locked.iter().map(|tool| tool.name.as_str()), found);
    let unlabelled: Vec<_> = locked.iter().map(|tool| tool.name.as_str()).filter(|tool| !labels.names(tool)).collect();
    if !unlabelled.is_empty() {
        let message = format!("not labelled, so assumed to be the worst: `{}`", unlabelled.join("`, `"));
        let help = format!("say in `tools/{name}.toml` what each reads (`untrusted`, `sensitivity`) and where it sends (`sink`)");
        found.push(Diagnostic::whole(&path, message).help(help).warning());
    }
    let mut tools = BTreeMap::new();
    for tool in locked {
        let label = labels.of(tool.name.as_str());
        let signature = match signature(&tool.definition, label.numbers) {
            Ok(signature) => signature,
            Err(why) => {
                let message = format!("tool `{}` cannot be governed and stays unreachable: {why}", tool.name);
                found.push(Diagnostic::whole(&path, message).warning());
                continue;
            }
        };
        for note in &signature.notes {
            found.push(Diagnostic::whole(&path, format!("tool `{}` {note}", tool.name)).warning());
        }
        labels.check_arguments(tool.name.as_str(), signature.members.keys().map(smol_str::SmolStr::as_str), found);
        let text = |member: &str| tool.definition.get(member).and_then(serde_json::Value::as_str).map(str::to_owned);
        let approved = ApprovedTool {
            upstream: name.clone(),
            name: tool.name.clone(),
            pin: tool.pin,
            traits: label.traits.clone(),
            title: text("title"),
            description: text("description"),
            definition: tool.definition,
        };
        tools.insert(tool.name, ToolEntry { approved, members: signature.members });
    }
    let Labels { resources, prompts, unasked, .. } = labels;
    UpstreamEntry { namespace, resources, prompts, unasked, tools, readable: true }
}

/// Warns of a reach that leads nowhere yet.
fn check_reach(
    catalog: &Catalog,
    spans: &BTreeMap<IntentName, (&SourceFile, std::ops::Range<usize>)>,
    found: &mut Vec<Diagnostic>,
) {
    let known: Vec<_> = catalog
        .upstreams
        .iter()
        .filter(|(_, entry)| !entry.tools.is_empty() || !entry.readable)
        .map(|(name, _)| name.as_str())
        .collect();
    let targets: Vec<_> = catalog.targets.keys().map(TargetName::as_str).collect();
    for (name, (file, span)) in spans {
        for target in catalog.intents.get(name).into_iter().flat_map(|intent| &intent.targets) {
            if !targets.contains(&target.as_str()) {
                let message = format!("intent `{name}` reaches target `{target}`, which is not configured");
                let add = || format!("describe it in `targets/{target}.toml`");
                let help = did_you_mean(target.as_str(), targets.iter().copied()).unwrap_or_else(add);
                found.push(Diagnostic::at(&file.path, &file.text, span.clone(), message).help(help).warning());
            }
        }
        for upstream in catalog.intents.get(name).into_iter().flat_map(|intent| &intent.reach) {
            if !known.contains(&upstream.as_str()) {
                let message = format!("intent `{name}` reaches upstream `{upstream}`, which has no approved tools");
                let accept = || format!("approve them with `writ upstream accept {upstream}`");
                let help = did_you_mean(upstream.as_str(), known.iter().copied()).unwrap_or_else(accept);
                found.push(Diagnostic::at(&file.path, &file.text, span.clone(), message).help(help).warning());
            }
        }
    }
}

/// Two names must not become one in Cedar: a policy for the one would govern the other.
fn check_spelling(catalog: &Catalog, found: &mut Vec<Diagnostic>) {
    let mut clash = |names: Vec<(String, &str, &str)>| {
        let mut by_spelling: BTreeMap<String, (&str, &str)> = BTreeMap::new();
        for (spelling, kind, name) in names {
            if kind != "intent" && TAKEN.contains(&spelling.as_str()) {
                let message = format!("{kind} `{name}` would be `{spelling}` in policies, which is Writ's own namespace");
                found.push(Diagnostic::whole("", message).help("give it another name"));
            }
            if let Some((other_kind, other)) = by_spelling.insert(spelling.clone(), (kind, name)) {
                let message = format!("{other_kind} `{other}` and {kind} `{name}` would both be `{spelling}` in policies");
                found.push(Diagnostic::whole("", message).help("rename one of them"));
            }
        }
    };
    clash(catalog.intents.keys().map(|name| (pascal_case(name.as_str()), "intent", name.as_str())).collect());
    let upstreams = catalog.upstreams.iter().map(|(name, entry)| (entry.namespace.clone(), "upstream", name.as_str()));
    let targets = catalog.targets.iter().map(|(name, entry)| (entry.namespace.clone(), "target", name.as_str()));
    clash(upstreams.chain(targets).collect());
}
