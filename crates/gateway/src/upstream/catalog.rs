//! The tools of one upstream as they are live, against those that an operator approved. A definition counts by its pin
//! over the whole wire object; equal ones that were written differently pass, changed ones are quarantined until the
//! approval changes. What is unknown, unapproved or quarantined looks the same from outside.
//! MCP "Tools"; requirement R21.

use super::error::UpstreamError;
use super::link::Link;
use super::mirror::{MirroredParameter, mirrored};
use super::registry::Registry;
use crate::mcp::message::{Raw, strict_value};
use crate::mcp::object::{Members, elements};
use crate::mcp::version::code;
use arc_swap::ArcSwap;
use domain::{Digest, ToolName, UpstreamName};
use serde_json::{Value, json};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long a listing counts as live.
const LIVE: Duration = Duration::from_secs(30);
/// How soon an upstream is listed again because a tool was not in the last listing.
const LIVE_MIN: Duration = Duration::from_secs(1);
/// Most pages and tools of one listing.
const PAGES_MAX: usize = 100;
const TOOLS_MAX: usize = 2_000;
/// Largest definition.
const DEFINITION_BYTES_MAX: usize = 256 * 1_024;

/// A tool as its upstream defines it now.
#[derive(Debug)]
struct LiveTool {
    pin: Digest,
    definition: Value,
    mirrored: Option<Arc<[MirroredParameter]>>,
}

/// How a live tool stands to what was approved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolStanding {
    /// The live definition is the approved one.
    Approved,
    /// Nobody approved a tool of this name.
    Unapproved,
    /// The live definition is not the one that was approved, or breaks the protocol.
    Quarantined,
}

/// One tool, for operators.
#[derive(Debug, Clone)]
pub struct ToolStatus {
    /// Its name.
    pub name: ToolName,
    /// How it stands.
    pub standing: ToolStanding,
    /// The pin of the live definition.
    pub pin: Digest,
    /// For a quarantined tool what changed, as a JSON object from JSON pointer to `{"approved": …, "live": …}`; a side
    /// on which there is nothing is missing.
    pub changes: Option<Value>,
}

#[derive(Default)]
struct Listing {
    at: Option<Instant>,
    tools: HashMap<ToolName, Arc<LiveTool>>,
    mirrors: bool,
}

impl Listing {
    fn new(at: Option<Instant>, tools: HashMap<ToolName, Arc<LiveTool>>) -> Self {
        let mirrors = tools.values().any(|tool| tool.mirrored.as_deref().is_some_and(|mirrored| !mirrored.is_empty()));
        Self { at, tools, mirrors }
    }
}

/// A look that is under way. If it fails, or who wanted it goes away, the next one must be fresh all the same.
struct Look<'a> {
    changed: &'a AtomicBool,
    taken: bool,
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if !self.taken {
            self.changed.store(true, Ordering::Release);
        }
    }
}

/// See the module.
pub(super) struct Catalog {
    upstream: UpstreamName,
    registry: Arc<dyn Registry>,
    listing: ArcSwap<Listing>,
    /// The upstream said that its list changed.
    changed: AtomicBool,
    refreshing: tokio::sync::Mutex<()>,
    /// Changed definitions that were reported already.
    reported: Mutex<HashSet<Digest>>,
}

impl Catalog {
    pub(super) fn new(upstream: UpstreamName, registry: Arc<dyn Registry>) -> Self {
        Self {
            upstream,
            registry,
            listing: ArcSwap::default(),
            changed: AtomicBool::new(false),
            refreshing: tokio::sync::Mutex::default(),
            reported: Mutex::default(),
        }
    }

    /// The next look must be a fresh one.
    pub(super) fn outdated(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Whether the live definition of a tool is the approved one.
    pub(super) async fn approved(&self, link: &Arc<Link>, name: &ToolName) -> Result<bool, UpstreamError> {
        self.refresh(link, LIVE).await?;
        if !self.listing.load().tools.contains_key(name) {
            self.refresh(link, LIVE_MIN).await?;
        }
        Ok(self.still_approved(name))
    }

    /// The same of what was seen last.
    pub(super) fn still_approved(&self, name: &ToolName) -> bool {
        let listing = self.listing.load();
        listing.tools.get(name).is_some_and(|tool| self.standing(name, tool) == ToolStanding::Approved)
    }

    /// Whether any live tool has parameters that are repeated in headers.
    pub(super) fn mirrors(&self) -> bool {
        self.listing.load().mirrors
    }

    /// Which parameters of a tool are repeated in headers.
    pub(super) fn mirrored(&self, name: &ToolName) -> Vec<MirroredParameter> {
        let listing = self.listing.load();
        listing.tools.get(name).and_then(|tool| tool.mirrored.as_deref()).unwrap_or_default().to_vec()
    }

    /// Makes sure that the listing is no older than `age`. One at a time asks; the others wait for its answer.
    async fn refresh(&self, link: &Arc<Link>, age: Duration) -> Result<(), UpstreamError> {
        let is_fresh = || {
            let listed = self.listing.load().at;
            !self.changed.load(Ordering::Acquire) && listed.is_some_and(|at| at.elapsed() < age)
        };
        if is_fresh() {
            return Ok(());
        }
        let _alone = self.refreshing.lock().await;
        if is_fresh() {
            return Ok(());
        }
        self.changed.store(false, Ordering::Release);
        let mut look = Look { changed: &self.changed, taken: false };
        let listed = Box::pin(list(link)).await?;
        self.take(&listed);
        look.taken = true;
        Ok(())
    }

    /// A whole list of definitions as the upstream sent them just now.
    pub(super) fn take(&self, definitions: &[String]) {
        let mut tools = HashMap::new();
        for definition in definitions {
            let Some((name, tool)) = self.read(definition) else {
                tracing::debug!(upstream = %self.upstream, "a tool that cannot be governed; it stays unreachable");
                continue;
            };
            match tools.entry(name) {
                // Two tools of one name: which one a call would reach is the upstream's secret.
                Entry::Occupied(mut twice) => {
                    let spoilt = LiveTool { mirrored: None, ..tool };
                    twice.insert(Arc::new(spoilt));
                }
                Entry::Vacant(place) => {
                    place.insert(Arc::new(tool));
                }
            }
        }
        for (name, tool) in &tools {
            self.report(name, tool);
        }
        self.listing.store(Arc::new(Listing::new(Some(Instant::now()), tools)));
    }

    /// Reads a wire definition. `None` for what cannot be governed: it stays unreachable.
    fn read(&self, text: &str) -> Option<(ToolName, LiveTool)> {
        if text.len() > DEFINITION_BYTES_MAX {
            return None;
        }
        let definition = strict_value(text).ok()?;
        let name: ToolName = definition.get("name")?.as_str()?.parse().ok()?;
        let pin = self.registry.pin(&self.upstream, &definition);
        let mirrored = mirrored(definition.get("inputSchema").unwrap_or(&Value::Null)).map(Arc::from);
        Some((name, LiveTool { pin, definition, mirrored }))
    }

    /// Whether a definition out of a listing for a client is the approved one. What was seen counts for calls, too: news
    /// can take an approval away at once; only a whole listing of our own gives it back.
    pub(super) fn screen(&self, definition: &str) -> Option<ToolName> {
        let (name, tool) = self.read(definition)?;
        let good = self.standing(&name, &tool) == ToolStanding::Approved;
        let seen = self.listing.load();
        match seen.tools.get(&name) {
            // It may be repaired, or one of two of the same name: it is shown, and the next call looks at the whole list.
            Some(known) if self.standing(&name, known) != ToolStanding::Approved && good => self.outdated(),
            Some(known) if known.pin == tool.pin => {}
            _ if seen.at.is_none() => {}
            _ if seen.tools.len() >= TOOLS_MAX => self.outdated(),
            _ => {
                self.report(&name, &tool);
                let mut tools = seen.tools.clone();
                tools.insert(name.clone(), Arc::new(tool));
                self.listing.store(Arc::new(Listing::new(seen.at, tools)));
            }
        }
        good.then_some(name)
    }

    fn standing(&self, name: &ToolName, tool: &LiveTool) -> ToolStanding {
        match self.registry.approved(&self.upstream, name) {
            None => ToolStanding::Unapproved,
            Some(pin) if pin == tool.pin && tool.mirrored.is_some() => ToolStanding::Approved,
            Some(_) => ToolStanding::Quarantined,
        }
    }

    /// Says once that a definition is not the approved one.
    fn report(&self, name: &ToolName, tool: &LiveTool) {
        if self.standing(name, tool) != ToolStanding::Quarantined {
            return;
        }
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.len() >= TOOLS_MAX {
            reported.clear();
        }
        if reported.insert(tool.pin) {
            tracing::warn!(upstream = %self.upstream, tool = %name, pin = %tool.pin,
                "a tool is quarantined: its definition is not the one that was approved; look at it with `writ upstream diff`");
        }
    }

    /// All live tools, by name.
    pub(super) fn status(&self) -> Vec<ToolStatus> {
        let listing = self.listing.load();
        let mut tools: Vec<_> = listing
            .tools
            .iter()
            .map(|(name, tool)| {
                let standing = self.standing(name, tool);
                let approved = || self.registry.approved_definition(&self.upstream, name);
                let changes = (standing == ToolStanding::Quarantined).then(approved).flatten();
                let changes = changes.map(|approved| difference(&approved, &tool.definition));
                ToolStatus { name: name.clone(), standing, pin: tool.pin, changes }
            })
            .collect();
        tools.sort_by(|a, b| a.name.cmp(&b.name));
        tools
    }
}

/// All definitions, page by page, each as text.
pub(super) async fn list(link: &Arc<Link>) -> Result<Vec<String>, UpstreamError> {
    const MALFORMED: UpstreamError = UpstreamError::Protocol("the list of tools is malformed");
    let mut found = Vec::new();
    let (mut part, mut bytes) = (link.bodies.empty(), 0);
    let mut cursor: Option<Value> = None;
    for _ in 0..PAGES_MAX {
        let params = cursor.take().map(|cursor| Raw::from_value(&json!({ "cursor": cursor })));
        let page = match link.call("tools/list", params).await? {
            Ok(page) => page,
            Err(error) => {
                // An upstream without tools knows no such method.
                let none = error.to_value().get("code").and_then(Value::as_i64) == Some(code::METHOD_NOT_FOUND);
                return if none && found.is_empty() {
                    Ok(found)
                } else {
                    Err(UpstreamError::Protocol("its tools cannot be listed"))
                };
            }
        };
        let members = Members::of(&page).ok_or(MALFORMED)?;
        let tools = members.get("tools").and_then(elements).ok_or(MALFORMED)?;
        bytes += page.as_bytes().len();
        if !part.cover(bytes) {
            return Err(UpstreamError::NoRoom);
        }
        found.extend(tools.into_iter().map(str::to_owned));
        if found.len() > TOOLS_MAX {
            return Err(UpstreamError::Protocol("it has more tools than can be governed"));
        }
        match members.value("nextCursor") {
            Some(next @ Value::String(_)) => cursor = Some(next),
            _ => return Ok(found),
        }
    }
    Err(UpstreamError::Protocol("its list of tools does not end"))
}

/// Where two values differ: JSON pointer to both sides.
fn difference(approved: &Value, live: &Value) -> Value {
    fn walk(at: &str, approved: Option<&Value>, live: Option<&Value>, found: &mut serde_json::Map<String, Value>) {
        match (approved, live) {
            (Some(Value::Object(a)), Some(Value::Object(b))) => {
                let names: std::collections::BTreeSet<_> = a.keys().chain(b.keys()).collect();
                for name in names {
                    let step = name.replace('~', "~0").replace('/', "~1");
                    walk(&format!("{at}/{step}"), a.get(name), b.get(name), found);
                }
            }
            (a, b) if a == b => {}
            (a, b) => {
                let sides = [("approved", a), ("live", b)];
                let sides = sides.into_iter().filter_map(|(side, value)| Some((side.to_owned(), value?.clone())));
                found.insert(at.to_owned(), Value::Object(sides.collect()));
            }
        }
    }
    let mut found = serde_json::Map::new();
    walk("", Some(approved), Some(live), &mut found);
    Value::Object(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_the_place_and_both_sides() {
        let approved =
            json!({ "name": "a", "description": "x", "inputSchema": { "properties": { "p/q": { "type": "string" } } } });
        let live = json!({ "name": "a", "description": "y", "inputSchema": { "properties": {} }, "new": 1 });
        assert_eq!(
            difference(&approved, &live),
            json!({
                "/description": { "approved": "x", "live": "y" },
                "/inputSchema/properties/p~1q": { "approved": { "type": "string" } },
                "/new": { "live": 1 },
            })
        );
    }
}
